#!/usr/bin/env bash
# torchmetrics: a binary classifier and the same one with two columns have another calibration error.
#
# Guess    BinaryCalibrationError of p and MulticlassCalibrationError of (1 - p, p) with two classes are one number.
# Truth    The binary one compares p with the frequency of class 1, bin by bin of p; the multiclass one compares
#          max(p, 1 - p) with the accuracy. Where a model errs in opposite ways on its two sides the second cancels:
#          0.2 and 0.0 here. `CalibrationError(task=...)` chooses between them.
# Source   torchmetrics 1.9.0, torchmetrics/functional/classification/calibration_error.py,
#          _binary_calibration_error_update and _multiclass_calibration_error_update.
# Instead  Say which one is meant: calibration of p, or confidence calibration (top label).
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

print("torchmetrics", version("torchmetrics"))
p = torch.tensor([0.2] * 100 + [0.8] * 100)
y = torch.tensor([1] * 40 + [0] * 60 + [1] * 100)
print("p = 0.2 where class 1 comes 40 % of the time, p = 0.8 where it always comes")
binary = binary_calibration_error(p, y, n_bins=10).item()
columns = multiclass_calibration_error(torch.stack([1 - p, p], 1), y, 2, n_bins=10).item()
print(f"binary: {binary:.4f};  two columns: {columns:.4f}")
holds = abs(binary - 0.2) < 1e-5 and columns < 1e-5
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
