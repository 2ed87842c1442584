#!/usr/bin/env bash
# scikit-learn's temperature scaling finds the temperature 2 for a logistic regression that is calibrated.
#
# Guess    Of a classifier that is calibrated already, the fitted inverse temperature beta_ is 1, with two classes as
#          with three.
# Truth    With two classes and a decision_function d, the logits are (-d, d), twice as far apart as the model's own:
#          beta_ is 0.5. The same probabilities from a classifier without decision_function give 1, three classes give
#          1. The calibrated probabilities are right; the temperature must not be read, compared or carried elsewhere.
# Source   scikit-learn 1.9.1, sklearn/calibration.py, _convert_to_logits.
# Instead  For two classes read 1/(2 beta_) where the model has a decision_function.
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
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression


class OnlyProbabilities(ClassifierMixin, BaseEstimator):
    """The same model, without its decision_function."""

    def __init__(self, model):
        self.model, self.classes_ = model, model.classes_

    def fit(self, x, y):
        return self

    def predict(self, x):
        return self.model.predict(x)

    def predict_proba(self, x):
        return self.model.predict_proba(x)


def fitted(model, labels):
    scaled = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(x, labels)
    moved = np.abs(scaled.predict_proba(x) - model.predict_proba(x)).max()
    return scaled.calibrated_classifiers_[0].calibrators[0].beta_, moved


print("scikit-learn", version("scikit-learn"))
draw = np.random.default_rng(0)
x = draw.normal(size=(20_000, 1))
two = (draw.random(20_000) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(int)
three = two + (x[:, 0] > 2)
model = LogisticRegression(C=1e9).fit(x, two)
seen = {
    "two classes": fitted(model, two),
    "two classes, no decision_function": fitted(OnlyProbabilities(model), two),
    "three classes": fitted(LogisticRegression(C=1e9).fit(x, three), three),
}
for name, (beta, moved) in seen.items():
    print(f"{name:34} beta_ {beta:.3f}, temperature {1 / beta:.2f}; probabilities moved by at most {moved:.4f}")
betas = [beta for beta, _ in seen.values()]
holds = np.allclose(betas, [0.5, 1, 1], atol=0.02) and max(moved for _, moved in seen.values()) < 0.01
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
