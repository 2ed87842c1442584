#!/usr/bin/env bash
# SymPy's solve finds both roots of u log u = -1/4, and one of u log u = -c.
#
# Guess    With a symbol c instead of 1/4 the answer has the same two branches of the Lambert W function, or a
#          condition on c.
# Truth    The lower branch is left out: exp(W(-c)) alone, without a word, though for 0 < c < 1/e there are two roots
#          between 0 and 1. Put in c = 1/4, and 0.70 is found and 0.12 is lost. So a fixed point, an optimum or a
#          threshold of a loss with u log u in it may be one of two.
# Source   sympy 1.14.0, sympy/solvers/bivariate.py, _lambert: the second branch is only given for numbers.
# Instead  Add the branch LambertW(-c, -1) by hand, and check the number of roots at numbers.
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
u, c = sp.symbols("u c", positive=True)
quarter = sp.Rational(1, 4)
numbers, symbols = sp.solve(u * sp.log(u) + quarter, u), sp.solve(u * sp.log(u) + c, u)
print("u log u = -1/4:", numbers, "=", *(root.evalf(4) for root in numbers))
print("u log u = -c:  ", symbols, "at c = 1/4:", *(root.subs(c, quarter).evalf(4) for root in symbols))
below = [(u * sp.log(u) + quarter).subs(u, root).evalf(30, chop=True) for root in numbers]
print("what the two roots leave over:", *below)
holds = len(numbers) == 2 and len(symbols) == 1 and not any(below)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
