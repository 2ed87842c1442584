#!/usr/bin/env bash
# torch.distributions.Categorical(probs=...) in bf16: no token is less likely than 1 in 128.
#
# Guess    Rounding to bf16 costs three digits: a probability of 0.001 has a log-probability of -6.9, give or take
#          0.01.
# Truth    Probabilities below the type's eps are lifted to it before the logarithm, and eps of bf16 is 1/128. Every
#          token rarer than 0.8 % has log-probability -4.84, the entropy of 1,000 equal tokens is 4.84 nats instead of
#          6.91, and exp(log_prob) sums to 7.9. float32 has the same floor at 1.2e-7: -15.9 where the probability is
#          0, although the KL divergence to it is infinite.
# Source   torch 2.13.0, torch/distributions/utils.py, clamp_probs and probs_to_logits.
# Instead  Give logits, not probabilities, and in float32.
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
import math
from importlib.metadata import version

import torch
from torch.distributions import Categorical, kl_divergence

print("torch", version("torch"))
skewed, flat = torch.tensor([0.998, 0.001, 0.001, 0.0]), torch.full((1000,), 1e-3)
print(f"log 0.001 = {math.log(1e-3):.4f}; entropy of 1,000 equal tokens = {math.log(1000):.4f}")
seen = {}
for dtype in (torch.float64, torch.float32, torch.bfloat16):
    rare, never = Categorical(probs=skewed.to(dtype)).log_prob(torch.tensor([1, 3])).tolist()
    even = Categorical(probs=flat.to(dtype))
    total = even.log_prob(torch.arange(1000)).double().exp().sum().item()
    seen[dtype] = rare, never, even.entropy().item(), total
    print(
        f"{dtype!s:15} log p(0.001) {rare:8.4f}  log p(0) {never:8.4f}  entropy {seen[dtype][2]:.4f}  sum {total:.3f}"
    )
by_logits = Categorical(logits=flat.log().bfloat16()).entropy().item()
infinite = kl_divergence(Categorical(probs=torch.tensor([0.5, 0.5])), Categorical(probs=torch.tensor([1.0, 0.0])))
print(f"from bf16 logits instead: entropy {by_logits:.4f}; KL to (1, 0) in float32: {infinite.item()}")
rare, never, entropy, total = seen[torch.bfloat16]
holds = rare == never == -4.84375 and entropy < 5 and total > 7 and seen[torch.float32][1] > -16 and infinite.isinf()
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
