#!/usr/bin/env bash
# mpmath.limit of x log x at 0 is -0.033, and at 50 digits still -0.00026.
#
# Guess    A library of arbitrary precision gives 0 for it to all digits, or says that it did not converge.
# Truth    The limit is extrapolated from a sequence; where the approach is no series in 1/n (x log x, a small power,
#          a slow sum) the value is wrong in every digit, and nothing is raised: -0.033 at 15 digits, -0.00026 at 50.
#          x^0.1 at 0 gives 0.42 and 0.54, and the sum of n^-1.1 comes out as 4.53 instead of 10.58. exp=True mends
#          the first two.
# Source   mpmath 1.3.0, the newest that sympy 1.14.0 takes (1.4.1 does the same); mpmath/calculus/extrapolation.py,
#          limit, nsum.
# Instead  limit(..., exp=True) where the approach is slow, zeta or an integral for the sum, and a second way for
#          either.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet mpmath==1.3.0
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import mpmath as mp

print("mpmath", version("mpmath"))
power = mp.mpf("1.1")
total = mp.nsum(lambda n: 1 / n**power, [1, mp.inf])
print(f"sum of 1/n^1.1: {mp.nstr(total, 6)}; it is zeta(1.1) = {mp.nstr(mp.zeta(power), 6)}")
seen = {}
for digits in (15, 50):
    mp.mp.dps = digits
    tenth = mp.mpf(1) / 10
    seen[digits] = (
        mp.limit(lambda x: x * mp.log(x), 0),
        mp.limit(lambda x: x * mp.log(x), 0, exp=True),
        mp.limit(lambda x, a=tenth: x**a, 0),
    )
    print(
        f"{digits} digits: x log x at 0: {mp.nstr(seen[digits][0], 5)}; with exp=True {mp.nstr(seen[digits][1], 3)};",
        end=" ",
    )
    print(f"x^0.1 at 0: {mp.nstr(seen[digits][2], 5)}")
holds = seen[15][0] < -0.03 and seen[50][0] < -1e-4 and abs(seen[50][1]) < 1e-30 and seen[50][2] > 0.3 and total < 5
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
