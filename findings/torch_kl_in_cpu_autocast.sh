#!/usr/bin/env bash
# torch on a CPU in autocast: a KL divergence is a float32 number that is worked out in bf16, and may come out negative.
#
# Guess    Autocast keeps softmax, log_softmax and KL in float32, as its list for CUDA says; the loss is float32.
# Truth    The list for CPUs has kl_div and cross_entropy and not log_softmax: on logits that a linear layer gave in
#          bf16 it stays in bf16, and kl_div makes float32 numbers of it. A KL divergence of 0.0004 nats to a policy
#          one step away comes out as 0.0020, and below zero at 24 tokens of 64. So does every loss that is written with
#          log_softmax (DFT, focal, a KL anchor), while F.cross_entropy beside it is exact.
# Source   torch 2.13.0; at::autocast, aten/src/ATen/autocast_mode.h, the lists for CPU and CUDA.
# Instead  logits.float() before the loss, also in autocast.
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

print("torch", version("torch"))


def kl(policy, reference):
    """KL(policy || reference), a number for each token."""
    p, r = (F.log_softmax(z, -1) for z in (policy, reference))
    return F.kl_div(r, p, log_target=True, reduction="none").sum(-1)


draw = torch.Generator().manual_seed(0)
hidden = torch.randn(64, 128, generator=draw)
before = torch.randn(20_000, 128, generator=draw) / 4
after = before + 0.002 * torch.randn(20_000, 128, generator=draw)
labels = torch.randint(20_000, (64,), generator=draw)
with torch.autocast("cpu", torch.bfloat16):
    policy, reference = F.linear(hidden, after), F.linear(hidden, before)
    autocast, upcast = kl(policy, reference), kl(policy.float(), reference.float())
    log_p = F.log_softmax(policy, -1)
    plain = F.cross_entropy(policy, labels)
exact = F.cross_entropy(policy.float(), labels)
print(f"log_softmax in autocast: {log_p.dtype}; probabilities sum to {log_p.double().exp().sum(-1).mean():.4f}")
print(f"KL, mean of 64 tokens: {autocast.mean():.5f} ({autocast.dtype}, {(autocast < 0).sum()} negative) in autocast,")
print(f"                       {upcast.mean():.5f} ({(upcast < 0).sum()} negative) of the same logits as float32")
print(f"cross_entropy in autocast {plain:.6f}, of the same logits as float32 {exact:.6f}")
holds = bool(
    log_p.dtype == torch.bfloat16
    and autocast.dtype == torch.float32
    and abs(autocast.mean() - upcast.mean()) > upcast.mean()
    and (autocast < 0).sum() > 10
    and bool((upcast > 0).all())
    and abs(plain - exact) < 1e-5
)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
