#!/usr/bin/env bash
# scikit-learn's log_loss falls from 10.2 to 4.1 when the same predictions are stored in float16.
#
# Guess    The type of y_prob costs digits: float16 has three, so that the loss is right to 0.1 %.
# Truth    Probabilities are clipped to [eps, 1 - eps] of their own type: a label that was given nothing costs at most
#          36.0 nats in float64, 15.9 in float32 and 6.9 in float16. The worse a model errs, the more of its loss is
#          the clip: an overconfident one has 10.2, 7.7 and 4.1 here, and of two models the one saved in half
#          precision may seem the better.
# Source   scikit-learn 1.9.1, sklearn/metrics/_classification.py, log_loss (eps of the dtype; its documentation says
#          so in one line).
# Instead  y_prob.astype(float64) only where it was computed there; else the log-probabilities from the logits.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import log_loss

print("scikit-learn", version("scikit-learn"))
draw = np.random.default_rng(0)
seen = {}
for kind, scale in (("overconfident", 12.0), ("modest", 1.0)):
    log_p = log_softmax(scale * draw.normal(size=(2000, 3)), axis=1)
    labels = draw.integers(0, 3, 2000)
    seen[kind, "logits"] = -log_p[np.arange(2000), labels].mean()
    for dtype in ("float64", "float32", "float16"):
        seen[kind, dtype] = log_loss(labels, np.exp(log_p).astype(dtype))
    print(f"{kind:14}", *(f"{what} {value:.4f}" for (k, what), value in seen.items() if k == kind))
worst = [log_loss([0, 1], np.array([[1, 0], [1, 0]], dtype)) * 2 for dtype in ("float64", "float32", "float16")]
print("a label of probability 0 costs", *(f"{value:.2f}" for value in worst))
wrong = seen["overconfident", "float16"] / seen["overconfident", "float64"]
holds = wrong < 0.5 and seen["overconfident", "float32"] < 0.85 * seen["overconfident", "float64"]
holds = holds and abs(seen["modest", "float16"] - seen["modest", "float64"]) < 1e-2 and worst[0] > 36 and worst[2] < 7
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
