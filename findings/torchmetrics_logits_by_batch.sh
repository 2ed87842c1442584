#!/usr/bin/env bash
# torchmetrics decides batch by batch whether it was given logits.
#
# Guess    BinaryCalibrationError takes logits and applies a sigmoid to them; how the data is cut into batches cannot
#          matter.
# Truth    A sigmoid is applied to a batch only if some value of it lies outside [0, 1]. A batch whose logits happen
#          to lie inside is taken for probabilities: the same logits and labels give one number at once and another in
#          batches. At batch size 1 every third logit of a unit normal is misread.
# Source   torchmetrics 1.9.0, torchmetrics/utilities/compute.py, normalize_logits_if_needed, called in each update.
# Instead  Apply the sigmoid or softmax yourself.
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
from torchmetrics.classification import BinaryCalibrationError

print("torchmetrics", version("torchmetrics"))
generator = torch.Generator().manual_seed(0)
logits = torch.randn(4000, generator=generator)
labels = (torch.rand(4000, generator=generator) < logits.sigmoid()).long()  # a calibrated model


def error(values, batch):
    metric = BinaryCalibrationError(n_bins=10)
    for part in zip(values.split(batch), labels.split(batch), strict=True):
        metric.update(*part)
    return metric.compute().item()


seen = {batch: error(logits, batch) for batch in (4000, 16, 4, 1)}
for batch, value in seen.items():
    print(f"logits of a calibrated model in batches of {batch:4}: {value:.4f}")
own = [error(logits.sigmoid(), batch) for batch in seen]
print("with the sigmoid applied before:", *(f"{value:.4f}" for value in own))
holds = seen[1] > seen[4000] + 0.02 and max(own) - min(own) < 1e-6 and abs(own[0] - seen[4000]) < 1e-6
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
