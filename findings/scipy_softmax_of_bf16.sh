#!/usr/bin/env bash
# SciPy's softmax of bf16 logits sums to 1.1 or 2.8; its log_softmax is off by as much, and its logsumexp exact.
#
# Guess    bf16 costs two or three digits; scipy.special's softmax, log_softmax and logsumexp agree with each other.
# Truth    NumPy adds an array of ml_dtypes.bfloat16 (what JAX hands over) one by one in bf16: small terms beside a
#          large sum are lost, 151,936 ones make 256, and their mean is 0.0017. float16, which NumPy knows, is
#          summed in pairs and is right. So softmax and log_softmax leave out the tail: of 49,152 logits with standard
#          deviation 4 (5 nats of entropy) the probabilities sum to 1.08, of 2 (8.8 nats) to 2.8; every log-probability
#          is too large by the logarithm of that. logsumexp turns bf16 into float64 first and is exact.
# Source   scipy 1.17.1 with numpy 2.4.6 and ml_dtypes 0.6.0.
# Instead  logits.astype(numpy.float32) first.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet scipy==1.17.1 numpy==2.4.6 ml_dtypes==0.6.0
fi
"$python" - <<'END'
from importlib.metadata import version

import ml_dtypes
import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

print(*(f"{name} {version(name)}" for name in ("scipy", "numpy", "ml_dtypes")))
draw, found = np.random.default_rng(0), {}
for deviation in (4, 2):
    logits = draw.normal(0, deviation, 49_152)
    for dtype in (ml_dtypes.bfloat16, np.float16):
        rounded = logits.astype(dtype)
        exact = rounded.astype(float)
        total = softmax(rounded).astype(float).sum()
        off = (log_softmax(rounded).astype(float) - log_softmax(exact)).mean()
        normaliser = float(logsumexp(rounded)) - logsumexp(exact)
        found[deviation, dtype] = total, off, normaliser
        print(f"deviation {deviation}, {np.dtype(dtype).name:8} softmax sums to {total:.3f}, ", end="")
        print(f"log_softmax off by {off:+.3f} nats, logsumexp by {normaliser:+.4f}")
ones = np.ones(151_936, ml_dtypes.bfloat16)
print("151,936 ones in bf16: sum", ones.sum(), "mean", ones.mean())
holds = all(
    (total > 1.05 and off > 0.05 and normaliser == 0)
    if dtype is ml_dtypes.bfloat16
    else (abs(total - 1) < 0.01 and abs(off) < 0.01)
    for (_, dtype), (total, off, normaliser) in found.items()
)
holds = holds and ones.sum() == 256 and ones.mean() < 0.01
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
