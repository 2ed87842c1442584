#!/usr/bin/env bash
# SymPy's one-sided limits of a Piecewise at its jump are both the value there.
#
# Guess    The limit from the right of a gate 1[u > 1/2] at 1/2 is 1, from the left 0. limit() has a direction for
#          that.
# Truth    Both are the value at the point, and "+-" finds one limit where there is none. Heaviside, floor and sign
#          are right: it is Piecewise alone. So a limit that joins two branches of a loss (a threshold, a clip, a
#          Huber-like switch) confirms a continuity that is not there.
# Source   sympy 1.14.0, sympy/series/limits.py, Limit.doit; sympy/functions/elementary/piecewise.py.
# Instead  Take the limits of the branches, or put u = 1/2 + h with h declared positive.
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
u, half = sp.Symbol("u", real=True), sp.Rational(1, 2)
h = sp.Symbol("h", positive=True)
gate = {
    "1[u > 1/2]": sp.Piecewise((0, u <= half), (1, True)),
    "1[u >= 1/2]": sp.Piecewise((0, u < half), (1, True)),
    "Heaviside(u - 1/2)": sp.Heaviside(u - half),
}
seen = {name: [sp.limit(f, u, half, side) for side in "-+"] for name, f in gate.items()}
for name, (left, right) in seen.items():
    print(f"{name:18} from the left {left}, from the right {right}")
try:
    both = sp.limit(gate["1[u > 1/2]"], u, half, "+-")
except ValueError:
    both = "none"
shifted = sp.limit(gate["1[u > 1/2]"].subs(u, half + h), h, 0)
print("1[u > 1/2] from both sides:", both, "(there is no such limit)")
print("1[u > 1/2] at 1/2 + h, h positive, h to 0:", shifted)
holds = list(seen.values()) == [[0, 0], [1, 1], [0, 1]] and both == 0 and shifted == 1
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
