#!/usr/bin/env bash
# torchmetrics gives confidences of exactly 1 a bin of their own: n_bins=10 is eleven.
#
# Guess    Ten equal bins, the last one closed, as ECE is defined: 0.96 and 1.0 share a bin.
# Truth    A confidence of exactly 1 falls into an eleventh bin, of width 0. In float32 a softmax reaches 1 as soon as
#          the margin passes 17, so that it happens to every sure model: here 0.03 instead of 0 where the two kinds
#          err in opposite directions, 0.04 instead of 0.02 where one of them is right.
# Source   torchmetrics 1.9.0, torchmetrics/functional/classification/calibration_error.py, _binning_bucketize:
#          bucketize(..., right=True).
# Instead  Clamp confidences to 1 - 1e-6 before, or bin by yourself.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

print("torchmetrics", version("torchmetrics"), "torch", version("torch"))


def by_hand(confidence, correct, bins=10):
    which = (confidence * bins).floor().clamp(max=bins - 1).long()
    parts = [which == b for b in which.unique()]
    return sum((confidence[i].mean() - correct[i].mean()).abs() * i.double().mean() for i in parts).item()


confidence = torch.tensor([1.0, 0.96], dtype=torch.float64).repeat_interleave(500)
seen = {}
for kind, right in {"97 % of the 1.0 right, 99 % of the 0.96": (485, 495), "94 % and 98 %": (470, 490)}.items():
    correct = torch.cat([torch.arange(500) < n for n in right]).double()
    both = torch.stack([confidence, 1 - confidence], 1)
    seen[kind] = (
        by_hand(confidence, correct),
        binary_calibration_error(confidence, correct.long(), n_bins=10).item(),
        multiclass_calibration_error(both, 1 - correct.long(), 2, n_bins=10).item(),
        binary_calibration_error(confidence.clamp(max=1 - 1e-6), correct.long(), n_bins=10).item(),
    )
    print(kind)
    print("  ten bins by hand {:.4f}, binary {:.4f}, multiclass {:.4f}, clamped {:.4f}".format(*seen[kind]))
margin = torch.tensor([17.0, 0.0]).softmax(-1)[0].item()
print(f"softmax of (17, 0) in float32: {margin}")
(a, b, c, d), (e, f, _, g) = seen.values()
holds = a < 1e-6 and abs(b - 0.03) < 1e-6 and abs(c - b) < 1e-4 and d < 1e-5 and f - e > 0.015 and abs(g - e) < 1e-5
holds = holds and margin == 1
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
