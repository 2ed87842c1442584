#!/usr/bin/env bash
# SymPy evaluates log(1 + 1e-20) to 0, and then finds that it is not greater than 0.
#
# Guess    evalf() guards against cancellation: it raises its working precision until the digits asked for are right.
# Truth    Not in a logarithm of a number just above 1. log(1 + 1e-17) is right, log(1 + 1e-20) is 0, and log(1 -
#          1e-20) is right again. Comparisons go by that zero: log(1 + exp(-100)) > 0 is False, while its own
#          is_positive is True. That is the loss of a sure token, and softplus of every margin above 46.
# Source   sympy 1.14.0, sympy/core/evalf.py, evalf_log: precision is raised only where the first result is not
#          exactly 0.
# Instead  Ask for more digits than the distance to 1 has (N(x, 60)), or write log1p(e) as a series; do not decide by
#          a comparison.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet sympy==1.14.0 mpmath==1.3.0
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import sympy as sp

print("sympy", version("sympy"))
above, below = {}, {}
for k in (10, 17, 20, 30):
    tiny = sp.Rational(1, 10**k)
    above[k], below[k] = sp.log(1 + tiny).evalf(), sp.log(1 - tiny).evalf()
    print(f"k = {k}: log(1 + 10^-k) = {above[k]},  log(1 - 10^-k) = {below[k]}")
softplus = sp.log(1 + sp.exp(-100))
greater, positive = softplus > 0, softplus.is_positive
print(f"log(1 + exp(-100)): evalf {softplus.evalf()}, N(.., 60) {sp.N(sp.N(softplus, 60), 15)}")
print(f"log(1 + exp(-100)) > 0: {greater};  is_positive: {positive}")
holds = above[17] > 0 and above[20] == above[30] == 0 and below[30] < 0 and greater == sp.false and positive is True
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
