#!/usr/bin/env bash
# KL over a vocabulary with masked tokens in torch: the loss is NaN, while its gradient is right.
#
# Guess    A token that has probability 0 in target and model adds 0 to F.kl_div: zero targets are taken care of, and
#          log_target=True is the same in another spelling.
# Truth    Taken care of is t log t alone. A target of 0 where the model's log-probability is -inf gives NaN, and with
#          log_target=True a target of -inf gives NaN even where the model is finite (0 times -inf). The gradient
#          through log_softmax is the right one all the same, so that training goes on under a loss of NaN. TRL's
#          generalised JSD, written with log_target, is NaN and so is its gradient; label smoothing is inf, and a
#          one-hot row NaN where the index gives a number.
# Source   torch 2.13.0, torch/nn/functional.py, kl_div, and aten/src/ATen/native/Loss.cpp, kl_div; trl 1.16.0,
#          generalized_jsd_loss.
# Instead  Leave the masked columns out; a mask of -1e4 instead of -inf serves the KL, not label smoothing, which
#          spreads over them.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
from importlib.metadata import version

import torch
import torch.nn.functional as F
from trl.experimental.gkd import GKDTrainer

print("torch", version("torch"), "trl", version("trl"))
teacher, student, label = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0])


def taken(loss, mask, both=True):
    """(loss, gradient), with the third token masked for the teacher, and for the student too."""
    masked = torch.tensor([0.0, 0.0, mask])
    z = (student + masked if both else student.clone()).requires_grad_()
    value = loss(z.log_softmax(-1), (teacher + masked).log_softmax(-1))
    value.backward()
    return value.item(), [round(g, 4) for g in z.grad[0].tolist()]


plain = {
    "kl_div, probabilities": lambda p, t: F.kl_div(p, t.exp(), reduction="sum"),
    "kl_div, log_target": lambda p, t: F.kl_div(p, t, reduction="sum", log_target=True),
}
more = {
    "TRL's JSD, beta 0.5": lambda p, t: GKDTrainer.generalized_jsd_loss(p[None], t[None], beta=0.5),
    "label smoothing 0.1": lambda p, t: F.cross_entropy(p, label, label_smoothing=0.1),
    "one-hot row": lambda p, t: F.cross_entropy(p, F.one_hot(label, 3).float()),
    "index": lambda p, t: F.cross_entropy(p, label),
}
inf, seen = float("inf"), {}
for name, loss in (plain | more).items():
    seen[name] = hidden = taken(loss, -inf)
    print(f"{name:22} both masked by -inf: {hidden[0]:.4f}, gradient {hidden[1]}; by -1e4: {taken(loss, -1e4)[0]:.4f}")
for name, loss in plain.items():
    seen[name, "teacher"] = taken(loss, -inf, both=False)
    print(f"{name:22} the teacher alone:   {seen[name, 'teacher'][0]:.4f}, gradient {seen[name, 'teacher'][1]}")
right = taken(plain["kl_div, probabilities"], -1e4)[1]
none = [name for name, (value, _) in seen.items() if value != value]
holds = none == [*plain, "TRL's JSD, beta 0.5", "one-hot row", ("kl_div, log_target", "teacher")]
holds = holds and all(seen[name][1] == right for name in plain) and seen["label smoothing 0.1"][0] == inf
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
