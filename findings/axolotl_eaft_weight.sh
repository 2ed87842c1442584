#!/usr/bin/env bash
# axolotl's EAFT weighs tokens by up to 3, not by up to 1: the entropy is not divided by log k.
#
# Guess    EAFT gates the loss by the entropy of the top 20 over its largest value, log 20: a weight between 0 and 1,
#          so that a token of which the model is unsure counts as in plain fine-tuning.
# Truth    The weight is the entropy in nats, up to log 20 = 2.996. On an undecided model the loss and its gradient
#          are three times those of plain fine-tuning, and the learning rate with them; tokens whose top-20 entropy is
#          above 1 nat are pushed harder than by SFT, not more softly.
# Source   axolotl 0.19.0, axolotl/monkeypatch/loss/eaft.py, eaft_loss; the paper is arXiv:2601.02151. (LlamaFactory,
#          which it names as its reference, divides by 3.)
# Instead  Divide the learning rate, or the weight, by log k.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
  "$python" -m pip install --quiet --no-deps axolotl==0.19.0
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
import importlib.util
import math
from importlib.metadata import distribution, version
from types import SimpleNamespace

import torch
import torch.nn.functional as F

print("axolotl", version("axolotl"), "torch", version("torch"))
# The file alone: the package imports its training stack.
path = distribution("axolotl").locate_file("axolotl/monkeypatch/loss/eaft.py")
spec = importlib.util.spec_from_file_location("eaft", path)
eaft = importlib.util.module_from_spec(spec)
spec.loader.exec_module(eaft)


def weight(sharpness):
    """EAFT's loss over the plain one, and the entropy of the top 20 over log 20."""
    logits = sharpness * torch.linspace(1, 0, 1000)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    labels = torch.tensor([[0, 7]])
    loss = eaft.eaft_loss(SimpleNamespace(logits=logits.expand(1, 2, -1)), labels)
    top = logits.topk(20).values.softmax(-1)
    return (loss / F.cross_entropy(logits[None], labels[0, 1:])).item(), (-top * top.log()).sum().item() / math.log(20)


seen = {sharpness: weight(sharpness) for sharpness in (0.0, 100.0, 2000.0)}
for sharpness, (found, paper) in seen.items():
    print(f"logits spread over {sharpness:6.0f}: weight {found:.3f}, in the paper {paper:.3f}")
holds = all(abs(found - math.log(20) * paper) < 1e-3 for found, paper in seen.values()) and seen[0.0][0] > 2.99
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
