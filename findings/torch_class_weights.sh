#!/usr/bin/env bash
# Class weights in torch's cross-entropy: the same target as an index and as a one-hot row gives another loss.
#
# Guess    cross_entropy(z, y, weight=w) is cross_entropy(z, one_hot(y), weight=w): a one-hot row is what the index
#          stands for. And label_smoothing=0.1 is the smoothed row, as the documentation says.
# Truth    The mean over indices divides by the sum of the labels' weights, the mean over rows by their number: here
#          the two differ by a factor of 3, and so do their gradients. It is no factor of the data set but of the
#          batch, so that it changes from step to step.
# Source   torch 2.13.0, documentation of CrossEntropyLoss (the two forms of 'mean'); torch/nn/functional.py,
#          cross_entropy.
# Instead  Use reduction="sum" and divide by what you mean.
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

logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
labels, weight = torch.tensor([1, 3]), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
rows = F.one_hot(labels, 4).double()
smoothed = 0.9 * rows + 0.1 / 4


def loss(target, **more):
    z = logits.clone().requires_grad_()
    value = F.cross_entropy(z, target, **more)
    value.backward()
    return value.item(), z.grad.abs().sum().item()


print("torch", version("torch"))
unweighted = loss(labels)[0] - loss(rows)[0]
index, row = loss(labels, weight=weight), loss(rows, weight=weight)
soft_index = loss(labels, weight=weight, label_smoothing=0.1)
soft_row = loss(smoothed, weight=weight)
print(f"without weights, index and one-hot row differ by {unweighted:.0e}")
print("with weights 1, 2, 3, 4 (loss, sum of |gradient|):")
print("  index                       {:.4f}  {:.4f}".format(*index))
print("  one-hot row                 {:.4f}  {:.4f}".format(*row))
print("  index, label_smoothing=0.1  {:.4f}  {:.4f}".format(*soft_index))
print("  the smoothed row            {:.4f}  {:.4f}".format(*soft_row))
print(f"factor {row[0] / index[0]:.3f}: the mean weight of the labels in this batch")
factors = [b / a for one, other in ((index, row), (soft_index, soft_row)) for a, b in zip(one, other, strict=True)]
holds = abs(unweighted) < 1e-12 and all(abs(f - 3) < 1e-9 for f in factors)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
