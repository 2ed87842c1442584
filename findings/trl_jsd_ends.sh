#!/usr/bin/env bash
# TRL's generalised JSD does not go over into the KL divergences: at beta = 0.001 almost no loss is left.
#
# Guess    beta moves the loss from the forward KL (0) to the reverse KL (1): a beta of 0.01 is nearly the forward KL.
# Truth    Inside the range the divergence and its gradient go to 0 with beta and 1 - beta, and both ends are cases of
#          their own: gradient 1.15 at 0, 0.001 at 0.001, 0.22 at 0.5, 0.01 at 0.99, 1.18 at 1. A sweep over beta is
#          mostly one over the learning rate. The temperature is not made up for by its square either: at 2, every
#          gradient is about a quarter.
# Source   trl 1.16.0, experimental/gkd/gkd_trainer.py, generalized_jsd_loss, after eq. (1) of arXiv:2306.13649; so in
#          GOLD and, from the same formula, in Liger's JSD.
# Instead  Divide the loss by beta (1 - beta) inside the range, so that it has both divergences as its limits, and
#          multiply by the temperature squared.
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
from trl.experimental.gkd import GKDTrainer

print("trl", version("trl"), "torch", version("torch"))
teacher = torch.tensor([[[0.0, 1.0, 2.0, 0.0]]], dtype=torch.float64)


def jsd(beta, temperature=1.0):
    student = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]], dtype=torch.float64, requires_grad=True)
    loss = GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, temperature=temperature)
    loss.backward()
    return loss.item(), student.grad.abs().sum().item()


seen = {beta: jsd(beta) for beta in (0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 1.0)}
for beta, (loss, push) in seen.items():
    inner = f"; over beta (1 - beta) {loss / (beta * (1 - beta)):.4f}" if 0 < beta < 1 else ""
    print(f"beta {beta:5}: loss {loss:.4f}, sum of |gradient| {push:.4f}{inner}")
cooled = jsd(0.0, temperature=2.0)
print("beta 0, temperature 2: loss {:.4f}, sum of |gradient| {:.4f}".format(*cooled))
ends = seen[0.0][0], seen[1.0][0]
scaled = seen[0.001][0] / (0.001 * 0.999), seen[0.99][0] / (0.99 * 0.01)
holds = seen[0.001][0] < 0.002 and seen[0.5][0] < 0.3 and min(ends) > 1 and cooled[1] < 0.35 * seen[0.0][1]
holds = holds and max(abs(a - b) for a, b in zip(ends, scaled, strict=True)) < 0.02
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
