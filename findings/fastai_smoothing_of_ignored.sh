#!/usr/bin/env bash
# fastai: with label smoothing, tokens labelled -100 are trained too, towards the uniform distribution.
#
# Guess    LabelSmoothingCrossEntropy leaves out the label -100, as CrossEntropyLoss does, and at eps = 0 is it.
# Truth    The hard part goes through torch's nll_loss, which leaves -100 out and divides by the tokens that are left;
#          the soft part is the mean of the log-probabilities over all tokens, masked ones included. A masked token is
#          pulled to the uniform distribution, and where most are masked, the kept ones are smoothed by less than eps.
# Source   fastai 2.8.12, fastai/losses.py, LabelSmoothingCrossEntropy. Composer 0.32.1 (smooth_labels) and Classy
#          Vision 0.7.0 (LabelSmoothingCrossEntropyLoss, whatever its ignore_index) train them as well.
# Instead  torch's cross_entropy(label_smoothing=eps), which masks both parts.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 pandas==3.1.1 matplotlib==3.11.2 scipy==1.17.1
  "$python" -m pip install --quiet requests==2.34.2 pyyaml==6.0.3 rich==15.0.0 typing-extensions==4.16.0
  "$python" -m pip install --quiet --no-deps fastai==2.8.12 fastcore==2.2.41 fasttransform==0.0.5 fastprogress==1.0.3
  "$python" -m pip install --quiet --no-deps plum-dispatch==2.10.1 beartype==0.23.1
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import torch
import torch.nn.functional as F
from fastai.losses import LabelSmoothingCrossEntropy

print("fastai", version("fastai"), "torch", version("torch"))


def gradients(loss):
    """Of a token with a label, and of one whose label is -100."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(2, 1).requires_grad_()
    return torch.autograd.grad(loss(logits, torch.tensor([1, -100])), logits)[0]


eps, p = 0.1, torch.tensor([2.0, 1.0, 0.0, -1.0]).softmax(-1)
fastai = gradients(LabelSmoothingCrossEntropy(eps))
reference = gradients(lambda z, y: F.cross_entropy(z, y, label_smoothing=eps))
for name, g in (("fastai", fastai), ("torch", reference)):
    print(f"{name:6} labelled {[round(x, 4) for x in g[0].tolist()]}, -100 {[round(x, 4) for x in g[1].tolist()]}")
holds = torch.allclose(fastai[1], eps / 2 * (p - 0.25), atol=1e-6) and not reference[1].any()
holds = holds and not torch.allclose(fastai[0], reference[0], atol=1e-3)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
