#!/usr/bin/env bash
# torch's chunked linear_cross_entropy adds its chunks in bf16: a loss of 12.1 nats comes out as 10.7, or as 8.
#
# Guess    A chunked cross-entropy in bf16 is the plain one to bf16's rounding, 0.4 %: every such kernel keeps the sum
#          over tokens in float32, and acc_policy="accurate" or acc_dtype=torch.float32 asks for just that.
# Truth    The sum of losses runs over the chunks in bf16, whatever acc_policy and acc_dtype say: once it is 256
#          times a chunk's share, nothing is added any more. How many chunks there are follows from V / D by default,
#          and not from the number of tokens. At V / D = 156 (Qwen2.5-0.5B has 170) the loss is 12 % too low, at 312
#          (Gemma 3 270M has 410) 23 %. The gradient is right to 0.3 %: training goes on, and only what is logged, or
#          compared with another kernel, is wrong.
# Source   torch 2.13.0 on a CPU; torch/nn/modules/linear_cross_entropy_options.py.
# Instead  reduction="none" and the mean in float32, where its extra memory is there; or log the plain loss of a few
#          tokens beside it.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch.nn import LinearCrossEntropyOptions as Options

print("torch", version("torch"))
N, V = 2048, 10_000
OPTIONS = {
    "default": Options(),
    "accurate": Options(acc_policy="accurate"),
    "acc_dtype=float32": Options(acc_dtype=torch.float32),
    "options=None": None,
}


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def gradient(hidden, weight, labels, options):
    hidden = hidden.clone().requires_grad_()
    F.linear_cross_entropy(hidden, weight, labels, options=options).backward()
    return hidden.grad.double()


labels = torch.randint(V, (N,), generator=torch.Generator().manual_seed(3))
low = {}
for size in (64, 32):
    hidden, weight = drawn(N, size, seed=1), 0.3 * drawn(V, size, seed=2)
    true = F.cross_entropy(hidden.float() @ weight.float().T, labels).item()
    print(f"V / D = {V / size:.0f}: in float32 {true:.2f} nats; in bf16 ", end="")
    for name, options in OPTIONS.items():
        loss = F.linear_cross_entropy(hidden, weight, labels, options=options).item()
        low[size, name] = 1 - loss / true
        print(f"{name} {loss:.2f} ({-low[size, name]:+.1%})", end=", ")
    chunked, plain = (gradient(hidden, weight, labels, options) for options in (Options(), None))
    apart = ((chunked - plain).norm() / plain.norm()).item()
    print(f"gradient {apart:.1%} from that of options=None")
    low[size, "gradient"] = apart
wrong = [low[64, name] > 0.08 and low[32, name] > 0.15 for name in OPTIONS if name != "options=None"]
right = [abs(low[size, what]) < 0.01 for size in (64, 32) for what in ("options=None", "gradient")]
holds = all(wrong) and all(right)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
