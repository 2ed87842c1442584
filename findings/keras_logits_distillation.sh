#!/usr/bin/env bash
# keras.distillation.LogitsDistillation() never takes a softmax, unless the loss is given as an object.
#
# Guess    LogitsDistillation(temperature=3.0), whose default is loss="kl_divergence", is the KL divergence of the
#          softened softmaxes, times the temperature squared. loss="kl_divergence" and loss=KLDivergence() are two
#          spellings of it.
# Truth    The softmax and the square belong to the object alone. The string, which is the default, compares the
#          logits themselves as if they were probabilities, clipped to [1e-7, 1]: 16.12 instead of 1.08 here, a
#          gradient on one logit alone, and where all logits divided by the temperature are 1 or more, loss 0 and no
#          gradient. A constant added to all logits changes everything.
# Source   keras 3.15.1, keras/src/distillation/distillation_loss.py, LogitsDistillation.compute_loss:
#          isinstance(loss_fn, KLDivergence).
# Instead  loss=keras.losses.KLDivergence().
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet keras==3.15.1 torch==2.13.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore KERAS_BACKEND=torch "$python" - <<'END'
from importlib.metadata import version

import keras
import torch
from keras.distillation import LogitsDistillation

print("keras", version("keras"), "torch", version("torch"))
teacher, student = torch.tensor([[0.0, 1.0, 2.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0, -1.0]])


def distil(shift, **settings):
    z = (student + shift).requires_grad_()
    loss = LogitsDistillation(**settings).compute_loss(teacher + shift, z)
    loss.backward()
    return loss.item(), z.grad[0].tolist()


seen = {}
for temperature in (1.0, 3.0):
    for shift in (0.0, 5.0):
        for name, how in {"default": {}, "KLDivergence()": {"loss": keras.losses.KLDivergence()}}.items():
            loss, gradient = seen[temperature, shift, name] = distil(shift, temperature=temperature, **how)
            told = " ".join(f"{g:6.3f}" for g in gradient)
            print(f"T = {temperature:.0f}, logits + {shift:.0f}, {name:15} loss {loss:8.4f}  gradient {told}")
default, silent = seen[1.0, 0.0, "default"], seen[1.0, 5.0, "default"]
right = [seen[1.0, shift, "KLDivergence()"][0] for shift in (0.0, 5.0)]
holds = default[0] > 16 and silent[0] == 0 and not any(silent[1]) and max(abs(r - 1.0844) for r in right) < 1e-3
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
