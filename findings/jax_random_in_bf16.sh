#!/usr/bin/env bash
# JAX's random numbers in bf16: samples without a tail, normals that end at 2.5, a coin of 0.001 that falls at 0.008.
#
# Guess    bf16 rounds a draw to 0.4 %, so the samples are off by about as much; the documentation of categorical
#          speaks of a bias below 1e-7.
# Truth    All noise comes from a uniform number of the type of the arguments, in bf16 one of 128 values.
#          jax.random.categorical takes its type from the logits: of 32,768 equal tokens, 93 % of the draws are among
#          the first 1 % (the largest noise is reached by many at once, and the smallest index wins); of Zipf's law
#          over them, the 32 % beyond rank 1,000 are never drawn, and the first comes 25 % of the time instead of 9 %.
#          With mode="high" it errs the other way: 83 % beyond rank 1,000. Two million normals lie between -2.9 and
#          2.6.
# Source   jax 0.10.2, jax/_src/random/core.py, _uniform, _gumbel, categorical. torch.multinomial, torch.bernoulli and
#          mlx.core.random.categorical are right in bf16.
# Instead  Draw in float32: cast the logits before sampling, and round after it.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet jax==0.10.2 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

print("jax", version("jax"))
V = 32_768
zipf = 1 / np.arange(1, V + 1)
zipf /= zipf.sum()
rank = np.random.default_rng(0).permutation(V)  # the rank of every token
line = "{:17} equal tokens: first 1 % drawn {:.3f}; Zipf: first {:.3f}, beyond 1,000 {:.3f}"
print(line.format("truth", 0.01, zipf[0], zipf[1000:].sum()))
seen = {}
for name, dtype, mode in (("fp32", "float32", None), ("bf16", "bfloat16", None), ('bf16, "high"', "bfloat16", "high")):
    flat, skewed = jnp.zeros(V, dtype), jnp.asarray(np.log(zipf)[rank], dtype)
    equal = np.asarray(jax.random.categorical(jax.random.key(0), flat, shape=(1000,), mode=mode))
    ranks = rank[np.asarray(jax.random.categorical(jax.random.key(1), skewed, shape=(4000,), mode=mode))]
    seen[name] = (equal < 0.01 * V).mean(), (ranks == 0).mean(), (ranks >= 1000).mean()
    print(line.format(name, *seen[name]))
for dtype in ("float32", "bfloat16"):
    normal = jax.random.normal(jax.random.key(0), (2_000_000,), dtype)
    coin = jax.random.bernoulli(jax.random.key(0), jnp.asarray(1e-3, dtype), (2_000_000,)).mean().item()
    low, high = normal.min().item(), normal.max().item()
    seen[dtype] = low, high, coin
    print(f"{dtype:17} two million normals: {low:.2f} to {high:.2f}; a coin of 0.001 falls with frequency {coin:.4f}")
holds = seen["bf16"][0] > 0.8 and seen["bf16"][1] > 0.2 and seen["bf16"][2] == 0 and seen['bf16, "high"'][2] > 0.5
holds = holds and seen["bfloat16"][1] < 2.7 and seen["bfloat16"][2] > 0.005 and seen["float32"][1] > 4
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
