"""The ranges of parameters: as sets, as what SymPy is told of their symbols, and where expressions stay within them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import sympy as sp

from qunify.maps import QMap, limits
from qunify.token import V, rational

#: What is found is monotone in the size of a vocabulary: what holds at these two holds between.
_SIZES = (2, 10**9)

_SIDES = {"low": sp.Ge, "above": sp.Gt, "high": sp.Le, "below": sp.Lt}


def range_of(f: dataclasses.Field[Any]) -> sp.Interval:
    """Every value that a real parameter may have: [0, 1), for instance."""
    ends = {e: rational(float(v)) for e, v in limits(f).items() if e in _SIDES and v is not None}
    low, high = ends.get("low", ends.get("above", -sp.oo)), ends.get("high", ends.get("below", sp.oo))
    return sp.Interval(low, high, left_open="above" in ends, right_open="below" in ends)


def symbol_within(name: str, values: sp.Set) -> sp.Symbol:
    """A symbol of which SymPy knows the sign that all these values have."""
    if values.inf >= 0:
        return sp.Symbol(name, nonnegative=True, **({} if 0 in values else {"positive": True}))
    if values.sup <= 0:
        return sp.Symbol(name, nonpositive=True, **({} if 0 in values else {"negative": True}))
    return sp.Symbol(name, real=True)


class Condition:
    """What the free parameters of a special case must meet, within their own ranges, for the values found for the
    general method to be in range and the factor to be positive.

    Example: ε ≥ 0 for η = 1/(ε + 1) in [0, 1].
    """

    def __init__(
        self, cls: type[QMap], special: QMap, free: tuple[str, ...], found: Mapping[str, Any], factor: sp.Expr
    ) -> None:
        self._own = {sp.Symbol(f.name): range_of(f) for f in special.parameters() if f.name in free}
        self._left, self._of_several = dict(self._own), []
        for needed in _needed(cls, found, factor):
            symbols = needed.free_symbols - {V}
            if len(symbols) > 1:
                self._of_several.append(needed)
            for x in symbols if len(symbols) == 1 else ():
                for size in _SIZES:
                    self._left[x] = _solutions(needed.subs(V, size), x, self._left[x])

    def symbols(self) -> dict[sp.Symbol, sp.Symbol]:
        """For every free parameter a symbol of the sign that the condition leaves it."""
        return {x: symbol_within(x.name, left) for x, left in self._left.items()}

    def in_words(self) -> Any:
        """A SymPy condition, true or false where it is met always or never; without what is true of the whole range."""
        return sp.And(*self._of_several, *[_beyond(x, left, self._own[x]) for x, left in self._left.items()])


def _needed(cls: type[QMap], found: Mapping[str, Any], factor: sp.Expr) -> Iterator[Any]:
    yield sp.sympify(factor) > 0
    for f in cls.parameters():
        value = found[f.name]
        if isinstance(value, sp.Basic) and value.free_symbols:
            yield sp.Ne(sp.denom(sp.together(value)), 0)
            yield from (
                side(value, rational(float(limits(f)[e]))) for e, side in _SIDES.items() if limits(f)[e] is not None
            )


def _solutions(needed: Any, x: sp.Symbol, among: sp.Set) -> sp.Set:
    if needed in (sp.true, sp.false):
        return among if needed == sp.true else sp.S.EmptySet
    return among.intersect(sp.solve_univariate_inequality(needed, x, relational=False, domain=among))


def _beyond(x: sp.Symbol, left: sp.Set, own: sp.Interval) -> Any:
    """The part of a range as a condition: x > 0 for (0, 1] of [0, 1]."""
    if not isinstance(left, sp.Interval):
        return left.as_relational(x)
    low = sp.Gt(x, left.start) if left.left_open else sp.Ge(x, left.start)
    high = sp.Lt(x, left.end) if left.right_open else sp.Le(x, left.end)
    same_low = (left.start, left.left_open) == (own.start, own.left_open)
    same_high = (left.end, left.right_open) == (own.end, own.right_open)
    return sp.And(sp.true if same_low else low, sp.true if same_high else high)
