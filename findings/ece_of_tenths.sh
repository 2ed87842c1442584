#!/usr/bin/env bash
# Confidences that are tenths, in ten bins: three libraries find a calibration error of 0.04, 0.06 or 0.08.
#
# Guess    Verbalised confidences ("80 %") or votes of ten samples fall one value to a bin, whatever the library: ECE
#          is the mean gap per value.
# Truth    Every value lies on an edge. Whether a bin is closed on the left or on the right, and whether 0.3 and 0.6
#          are just below or above an edge in float32 or float64, decides which values share a bin and cancel: 0.08 by
#          value, and 0.04, 0.06 or 0.08 by library and type, for one data set.
# Source   torchmetrics 1.9.0 (float32 and float64), relplot 1.0.3 (binnedECE), uncertainty-calibration 0.1.4
#          (get_ece).
# Instead  Group by value where there are few values, or move the edges off them (bins centred on tenths).
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet \
    torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 relplot==1.0.3 \
    uncertainty-calibration==0.1.4
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import calibration
import numpy as np
import relplot.metrics
import torch
from torchmetrics.functional.classification import binary_calibration_error

print(*(f"{name} {version(name)}" for name in ("torchmetrics", "relplot", "uncertainty-calibration")))
tenths = np.arange(1, 11) / 10
right = np.array([1, 3, 2, 5, 4, 7, 6, 9, 8, 10]) * 10  # of 100 each: off by 0.1, up and down in turn
confidence = tenths.repeat(100)
correct = np.concatenate([np.arange(100) < n for n in right]).astype(int)
seen = {
    "by value": np.abs(right / 100 - tenths).mean(),
    "torchmetrics, float32": binary_calibration_error(
        torch.tensor(confidence).float(), torch.tensor(correct), 10
    ).item(),
    "torchmetrics, float64": binary_calibration_error(torch.tensor(confidence), torch.tensor(correct), 10).item(),
    "uncertainty-calibration": calibration.get_ece(confidence, correct, num_bins=10),
    "relplot, binned": relplot.metrics.binnedECE(confidence, correct, 10),
}
for name, value in seen.items():
    print(f"{name:24} {value:.4f}")
holds = np.allclose(list(seen.values()), [0.08, 0.08, 0.06, 0.08, 0.04], atol=1e-4)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
