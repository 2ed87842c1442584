"""Losses with cases, cut into cells: regions of tokens on which every condition is decided.

For instance, the weight "2u if u < ½, else 1" has three cells: 2u where u < ½, 1 where u = ½, and 1 where ½ < u.

`without_varying_cases` comes first: conditions that differ from one k to another, inside sums, become constants, a mask
for an indicator and σx with σ = sign x for |x|. `cells` then decides the other conditions one after the other: below,
at and above each threshold.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sympy as sp
from sympy.core.relational import Relational

from qunify.symbolic._normal_form import canonical, vanishes
from qunify.symbolic._printing import as_text
from qunify.symbolic._size import MOST_CASES, TooLargeError
from qunify.token import (
    V,
    evaluate,
    indicator,
    varies,
)


def without_varying_cases(expr: Any) -> Any:
    """The expression with |x|, sign x and cases that vary with k written in new symbols, whose derivative is 0."""
    expr = sp.sympify(expr)
    expr = expr.replace(sp.Abs, lambda a: sp.expand(_sign(a) * a)).replace(sp.sign, _sign)
    return expr.replace(lambda e: isinstance(e, sp.Piecewise) and varies(e), _as_indicators)


def _sign(argument: sp.Expr) -> sp.Expr:
    """A symbol for the sign of the argument: σ for x − a, and −σ for a − x."""
    oriented, orientation = _without_leading_minus(canonical(sp.expand(evaluate(argument))))
    return orientation * sp.Symbol(f"sign({oriented}){'_k' if varies(oriented) else '_y'}", integer=True)


def _as_indicators(cases: sp.Piecewise) -> sp.Expr:
    """Σ over cases of value · [its condition holds] · [none before it holds]."""
    total, none_before = sp.S.Zero, sp.S.One
    for value, condition in cases.args:
        holds = _indicator(condition)
        total, none_before = total + none_before * holds * value, none_before * (1 - holds)
    return total


def _indicator(condition: Any) -> sp.Expr:
    """A symbol that is 1 where the condition holds and 0 elsewhere: m for x > a, and 1 − m for x ≤ a."""
    if not isinstance(condition, Relational):
        return sp.S.One if condition == sp.true else indicator(str(condition), varying=varies(condition))
    above = canonical(sp.expand(evaluate(condition.gts - condition.lts)))
    if isinstance(condition, sp.StrictGreaterThan | sp.StrictLessThan):
        return indicator(f"[{above} > 0]", varying=varies(above))
    return 1 - indicator(f"[{sp.expand(-above)} > 0]", varying=varies(above))


def _without_leading_minus(expr: sp.Expr) -> tuple[sp.Expr, int]:
    """The expression and 1, or its negative and −1: of x and −x the same one."""
    return (-expr, -1) if expr.could_extract_minus_sign() else (expr, 1)


@dataclass(frozen=True)
class Region:
    """What is known of a quantity: it lies strictly between `low` and `high`, or is the number `at`."""

    low: Any = -sp.oo
    high: Any = sp.oo
    at: Any = None

    def side_of(self, threshold: Any) -> int | None:
        """1 if the quantity is above the threshold, −1 below, 0 at it; None if it may be on either side."""
        if self.at is not None:
            return int(sp.sign(self.at - threshold))
        if threshold <= self.low:
            return 1
        return -1 if threshold >= self.high else None

    def split(self, threshold: Any) -> tuple[Region, Region, Region]:
        return Region(self.low, threshold), Region(at=threshold), Region(threshold, self.high)


#: Where every probability lies.
UNIT = Region(sp.S.Zero, sp.S.One)


@dataclass(frozen=True)
class Cell:
    """What is known of each quantity that a condition compares; `tie` if one other than V is at its threshold."""

    known: Mapping[sp.Expr, Region] = field(default_factory=dict)

    @property
    def tie(self) -> bool:
        return any(r.at is not None and q != V for q, r in self.known.items())

    def __str__(self) -> str:
        return ", ".join(_in_words(q, r) for q, r in self.known.items())


def _in_words(quantity: sp.Expr, r: Region) -> str:
    name = as_text(quantity)
    if r.at is not None:
        less = [] if r.at else [t for t in sp.Add.make_args(quantity) if t.could_extract_minus_sign()]
        return f"{as_text(quantity - sp.Add(*less))} = {as_text(r.at - sp.Add(*less))}"
    natural = _range(quantity)
    low = "" if r.low == natural.low else f"{as_text(r.low)} < "
    high = "" if r.high == natural.high else f" < {as_text(r.high)}"
    return f"{low}{name}{high}"


def cells(expr: Any) -> Iterator[tuple[Cell, Any]]:
    """Every cell, with the expression there. At a tie one symbol is put in so that the quantity is its threshold.
    TooLargeError where there are too many."""
    for count, found in enumerate(_cells(sp.sympify(expr), Cell())):
        if count == MOST_CASES:
            raise TooLargeError(f"more than {MOST_CASES} cases")
        yield found


def _cells(expr: Any, cell: Cell) -> Iterator[tuple[Cell, Any]]:
    condition = next(iter(sorted(_plain_conditions(expr), key=sp.default_sort_key)), None)
    if condition is None:
        yield cell, expr
        return
    constant = _number_sign(condition)
    if constant is not None:
        yield from _cells(expr.xreplace({condition: _truth(_holds(condition, constant))}), cell)
        return
    quantity, threshold, orientation = _comparison(condition)
    known = cell.known.get(quantity, _range(quantity))
    side = known.side_of(threshold)
    from_two_on = quantity == V and threshold <= 2  # a vocabulary has at least two tokens
    sides = (side,) if side is not None else (0, 1) if from_two_on else (-1, 0, 1)  # below, at, above
    for s in sides:
        region = known if side is not None else known.split(threshold)[s + 1]
        decided = expr.xreplace({condition: _truth(_holds(condition, s * orientation))})
        if side is None and s == 0:
            decided = _at_threshold(decided, quantity, threshold)
        yield from _cells(decided, Cell({**cell.known, quantity: region}) if side is None else cell)


class Vanishing(NamedTuple):
    """Where expressions are not shown to be zero: regions of tokens, and ties, each in words such as `1/2 < p_y`."""

    open_regions: tuple[str, ...]
    open_ties: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Zero at every token, ties perhaps excepted."""
        return not self.open_regions


def vanishes_everywhere(*expressions: Any) -> Vanishing:
    """Whether all of them vanish at every token of every vocabulary, decided cell by cell. Exact: no floating point."""
    regions: list[str] = []
    ties: list[str] = []
    for expr in expressions:
        for cell, value in cells(expr):
            if not vanishes(value):
                (ties if cell.tie else regions).append(str(cell))
    return Vanishing(tuple(dict.fromkeys(regions)), tuple(dict.fromkeys(ties)))


def thresholds(*expressions: Any) -> dict[sp.Expr, set[Any]]:
    """What quantities are compared with in the conditions of all of them: {p_y: {1/2}} for "2u if u < ½, else 1"."""
    found: dict[sp.Expr, set[Any]] = {}
    for condition in set().union(*(_plain_conditions(sp.sympify(e)) for e in expressions)):
        if _number_sign(condition) is None:
            quantity, threshold, _ = _comparison(condition)
            found.setdefault(quantity, set()).add(threshold)
    return found


def _plain_conditions(expr: sp.Expr) -> set[Relational]:
    """The conditions in the expression's cases, but for those that contain cases themselves."""
    conditions = {r for p in expr.atoms(sp.Piecewise) for _, c in p.args for r in c.atoms(Relational)}
    return {c for c in conditions if not c.atoms(sp.Piecewise)}


def _holds(condition: Relational, side: int) -> bool:
    """Whether lhs > rhs (side 1), lhs = rhs (0) or lhs < rhs (−1) makes the condition true."""
    return {
        sp.StrictGreaterThan: side > 0,
        sp.GreaterThan: side >= 0,
        sp.StrictLessThan: side < 0,
        sp.LessThan: side <= 0,
    }[type(condition)]


def _truth(holds: bool) -> Any:
    return sp.true if holds else sp.false


@functools.lru_cache(maxsize=1 << 12)  # one cell has the conditions of the next
def _number_sign(condition: Relational) -> int | None:
    """The sign of lhs − rhs where it is a number, None where it depends on the token."""
    gap = evaluate(condition.lhs - condition.rhs)
    with contextlib.suppress(TooLargeError):
        if vanishes(gap):
            return 0
    return None if gap.free_symbols else int(sp.sign(gap))


@functools.lru_cache(maxsize=1 << 12)
def _comparison(condition: Relational) -> tuple[sp.Expr, Any, int]:
    """(quantity, threshold, orientation) with sign(lhs − rhs) = orientation · sign(quantity − threshold).

    2 p_y < 1 gives (p_y, 1/2, 1), and 1 < 2 p_y gives (p_y, 1/2, −1): one threshold to decide for both.
    """
    gap = _without_logs(canonical(sp.expand(evaluate(condition.lhs - condition.rhs))))
    number, quantity = gap.as_independent(*gap.free_symbols, as_Add=True)
    content, quantity = quantity.as_coeff_Mul()
    if quantity.is_Add:
        inner, quantity = quantity.primitive()
        content *= inner
    quantity, orientation = _without_leading_minus(quantity)
    return quantity, sp.expand(-number / (content * orientation)), orientation * int(sp.sign(content))


def _without_logs(gap: sp.Expr) -> sp.Expr:
    """An expression of the same sign without logarithms, if it has one symbol only: e p_y − 1 for log p_y + 1."""
    terms = sp.Add.make_args(gap)
    logs = [
        (t, next((f for f in sp.Mul.make_args(t) if isinstance(f, sp.log) and f.free_symbols), None)) for t in terms
    ]
    moving = [(sp.cancel(t / f), f) for t, f in logs if f is not None]
    if not moving or len(gap.free_symbols) != 1:
        return gap
    unit = abs(moving[0][0])
    exponents = [sp.simplify(c / unit) for c, _ in moving]
    if not all(e.is_Integer for e in exponents):
        return gap
    constant = sp.simplify(sp.exp(sp.simplify(sum(t for t, f in logs if f is None) / unit)))
    ratio = constant * sp.Mul(*[f.args[0] ** e for e, (_, f) in zip(exponents, moving, strict=True)])
    top, bottom = sp.fraction(sp.together(ratio))
    return sp.expand(top - bottom)


def _range(quantity: sp.Expr) -> Region:
    """Where a quantity lies before any condition is decided."""
    if quantity == V:
        return Region(low=sp.S.One)
    if quantity.is_Symbol and quantity.name.endswith("_y") and quantity.is_positive:
        return UNIT
    return Region(low=sp.S.Zero) if quantity.is_positive else Region()


def _at_threshold(expr: sp.Expr, quantity: sp.Expr, threshold: Any) -> sp.Expr:
    """The expression at quantity = threshold, solved for a symbol if one enters linearly, a parameter rather than one
    of the token; else unchanged."""
    top = sp.numer(sp.together(quantity - threshold))
    for s in sorted(top.free_symbols, key=lambda s: (s == V or s.name.endswith(("_y", "_k")), str(s))):
        if top.is_polynomial(s) and sp.degree(top, s) == 1:
            a, b = sp.Poly(top, s).all_coeffs()
            return expr.subs(s, -b / a)
    return expr


def decided(expr: Any) -> Any:
    """The expression without cases if there is a single cell, as where a condition holds at every token."""
    if not expr.has(sp.Piecewise):
        return expr
    values = [value for _, value in itertools.islice(cells(expr), 2)]
    return values[0] if len(values) == 1 else expr
