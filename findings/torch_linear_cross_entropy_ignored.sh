#!/usr/bin/env bash
# torch's chunked linear_cross_entropy: a batch of ignored labels gives NaN gradients, where cross_entropy gives zeros.
#
# Guess    Where every label is -100 the mean is 0 / 0, a NaN that is logged, and the gradients are 0, as of
#          cross_entropy: the step leaves the weights as they are.
# Truth    So it is with options=None. With LinearCrossEntropyOptions() the loss is the same NaN and the gradients of
#          hidden states and head are NaN, too: one batch whose answers are all cut off, and no weight is left.
# Source   torch 2.13.0 on a CPU.
# Instead  reduction="sum", divided by the number of labels that count, or by 1 where there is none.
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
draw = torch.Generator().manual_seed(0)
start = torch.randn(600, 32, generator=draw), torch.randn(500, 32, generator=draw)
labels = torch.full((600,), -100)


def largest(options, reduction):
    """The loss, and the largest gradient of hidden states and of the head."""
    hidden, weight = (x.clone().requires_grad_() for x in start)
    loss = F.linear_cross_entropy(hidden, weight, labels, options=options, reduction=reduction)
    loss.backward()
    return torch.stack([loss.detach(), hidden.grad.abs().max(), weight.grad.abs().max()])


plain, chunked, total = largest(None, "mean"), largest(Options(), "mean"), largest(Options(), "sum")
for name, found in (("options=None, mean", plain), ("chunked, mean", chunked), ("chunked, sum", total)):
    loss, hidden, weight = found.tolist()
    print(f"{name:19} loss {loss}, gradient of the hidden states {hidden}, of the head {weight}")
holds = bool(plain[0].isnan() and not plain[1:].any() and chunked.isnan().all() and not total.any())
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
