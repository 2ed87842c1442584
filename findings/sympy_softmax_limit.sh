#!/usr/bin/env bash
# SymPy's limit of a softmax at temperature 0 is decided by the alphabet.
#
# Guess    With positive symbols a and b, limit(exp(a x)/(exp(a x) + exp(b x)), x, oo) stays unevaluated or raises,
#          since it depends on which is larger. For real symbols SymPy does raise.
# Truth    It gives 0, and 1 with the letters exchanged: of positive symbols the last in the alphabet counts as the
#          largest. Nothing is said of it. Of three logits z1, z2, z3 it is z3; of `student` and `teacher` the teacher
#          wins, of `label` and `other` the other.
# Source   sympy 1.14.0, sympy/series/gruntz.py, mrv_max3 and compare: which of two exponentials grows faster.
# Instead  Set the difference apart: with c = a - b declared positive, exp(c x)/(1 + exp(c x)) has the right limit.
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
x = sp.Symbol("x", positive=True)


def limits(names):
    """The softmax of the symbols at temperature 1/x, as x grows."""
    logits = sp.symbols(names, positive=True)
    total = sum(sp.exp(z * x) for z in logits)
    return [sp.limit(sp.exp(z * x) / total, x, sp.oo) for z in logits]


seen = {names: limits(names) for names in ("a b", "b a", "student teacher", "label other", "z1 z2 z3")}
for names, found in seen.items():
    print(f"{names:16} ->", *found)
logsumexp = sp.limit(sp.log(sum(sp.exp(z * x) for z in sp.symbols("a b", positive=True))) / x, x, sp.oo)
print("log(exp(a x) + exp(b x))/x ->", logsumexp, " (the truth: Max(a, b))")
try:
    sp.limit(sp.exp(sp.Symbol("r", real=True) * x), x, sp.oo)
    raises = False
except NotImplementedError as error:
    raises = True
    print("exp(r x), r real: NotImplementedError:", error)
c = sp.Symbol("c", positive=True)
apart = sp.limit(sp.exp(c * x) / (1 + sp.exp(c * x)), x, sp.oo)
print("exp(c x)/(1 + exp(c x)) ->", apart)
holds = seen["a b"] == [0, 1] and seen["b a"] == [1, 0] and seen["z1 z2 z3"] == [0, 0, 1]
holds = holds and seen["student teacher"] == [0, 1] and str(logsumexp) == "b" and raises and apart == 1
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
