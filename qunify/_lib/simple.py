"""Numbers as people write them: the simple number that a float stands for, and three digits for a table."""

from __future__ import annotations

import math
from fractions import Fraction

UNDEFINED = "–"


def simplest(x: float, within: float) -> Fraction:
    """The fraction of the smallest denominator that lies no farther from x than `within` · |x|: 0.333333 is 1/3 within
    1e-5, and 333333/1000000 within 1e-13."""
    middle, reach = Fraction(x), Fraction(within) * abs(Fraction(x))
    if middle < 0:
        return -_between(-middle - reach, -middle + reach)
    return _between(middle - reach, middle + reach)


def as_written(x: float) -> Fraction:
    """The fraction that a finite float was written as: 7/10 for 0.7, and 1/3 for the float nearest to it."""
    simple = simplest(x, within=2**-53)  # half a step of float64
    return simple if simple.denominator <= 1000 and float(simple) == x else Fraction(repr(x))


def _between(low: Fraction, high: Fraction) -> Fraction:
    """The simplest fraction of an interval of numbers ≥ 0, by continued fractions: the smallest integer in it, else
    the common integer part plus the reciprocal of the simplest fraction between the reciprocals of what is left."""
    whole = math.ceil(low)
    if whole <= high:
        return Fraction(whole)
    return whole - 1 + 1 / _between(1 / (high - whole + 1), 1 / (low - whole + 1))


def simple_numbers(x: float, within: float = 2e-3, least: float = 1e-3) -> list[float]:
    """Numbers near x that somebody may have written for it, the simplest first: of 0.3331 it has 1/3 and 0.333.

    They lie no farther from x than `within` · |x|; where |x| is below `least`, no farther than `within` · `least`.
    """
    candidates = [0.0, *(round(x, d) for d in range(3))]
    candidates += [float(f) for f in {Fraction(x).limit_denominator(q) for q in (3, 7, 9)}]
    if x:
        places = -math.floor(math.log10(abs(x)))
        candidates += [round(x, places + d) for d in range(5)]
    return [v for v in dict.fromkeys(candidates) if abs(v - x) <= within * max(abs(x), least)]


def three_digits(x: float | None) -> str:
    """−0.5 as `−0.500`; `–` where there is no number."""
    if x is None:
        return UNDEFINED
    rounded = round(x, 3) or 0.0  # no −0.000
    return f"{rounded:.3f}".replace("-", "−")
