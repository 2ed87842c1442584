"""Losses with cases, cut into cells: regions of tokens on which every condition is decided.

`smooth` takes care of conditions that differ from one k to another, inside sums: an indicator is a mask, |x| is σx with
σ = sign x. `cells` decides the others, one after the other: below, at, and above each threshold that is compared with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sympy as sp
from sympy.core.relational import Relational

from qunify.symbolic._normal_form import canonical, vanishes
from qunify.symbolic._printing import as_text
from qunify.token import (
    V,
    evaluate,
    indicator,
    varies,
)


def without_varying_cases(expr: Any) -> Any:
    """The expression with |·|, sign and every case that varies with k written by constants that differentiate to 0."""
    expr = sp.sympify(expr)
    expr = expr.replace(sp.Abs, lambda a: sp.expand(_sign(a) * a)).replace(sp.sign, _sign)
    return expr.replace(lambda e: isinstance(e, sp.Piecewise) and varies(e), _indicated)


def _sign(argument: sp.Expr) -> sp.Expr:
    oriented, turn = _oriented(canonical(sp.expand(evaluate(argument))))
    return turn * sp.Symbol(f"sign({oriented}){'_k' if varies(oriented) else '_y'}", integer=True)


def _indicated(cases: sp.Piecewise) -> sp.Expr:
    total, left = sp.S.Zero, sp.S.One
    for value, condition in cases.args:
        here = _indicator(condition)
        total, left = total + left * here * value, left * (1 - here)
    return total


def _indicator(condition: Any) -> sp.Expr:
    if not isinstance(condition, Relational):
        return sp.S.One if condition == sp.true else indicator(str(condition), varying=varies(condition))
    above = canonical(sp.expand(evaluate(condition.gts - condition.lts)))
    if isinstance(condition, sp.StrictGreaterThan | sp.StrictLessThan):
        return indicator(f"[{above} > 0]", varying=varies(above))
    return 1 - indicator(f"[{sp.expand(-above)} > 0]", varying=varies(above))


def _oriented(expr: sp.Expr) -> tuple[sp.Expr, int]:
    return (-expr, -1) if expr.could_extract_minus_sign() else (expr, 1)


@dataclass(frozen=True)
class Region:
    """What is known of one quantity: it lies strictly between two numbers, or is one."""

    low: Any = -sp.oo
    high: Any = sp.oo
    at: Any = None

    def against(self, threshold: Any) -> int | None:
        """1 above the threshold, −1 below it, 0 at it, None undecided."""
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
    """What every condition has been decided to be; `tie` if some quantity other than V sits on its threshold."""

    known: Mapping[sp.Expr, Region] = field(default_factory=dict)

    @property
    def tie(self) -> bool:
        return any(r.at is not None and q != V for q, r in self.known.items())

    def __str__(self) -> str:
        return ", ".join(_words(q, r) for q, r in self.known.items())


def _words(quantity: sp.Expr, r: Region) -> str:
    name = as_text(quantity)
    if r.at is not None:
        return f"{name} = {as_text(r.at)}"
    natural = _range(quantity)
    low = "" if r.low == natural.low else f"{as_text(r.low)} < "
    high = "" if r.high == natural.high else f" < {as_text(r.high)}"
    return f"{low}{name}{high}"


def cells(expr: Any, cell: Cell | None = None) -> Iterator[tuple[Cell, Any]]:
    """The expression on every cell. At a tie the quantity is replaced by its threshold where it can be."""
    cell = cell or Cell()
    expr = sp.sympify(expr)
    condition = next(iter(sorted(_open(expr), key=sp.default_sort_key)), None)
    if condition is None:
        yield cell, expr
        return
    constant = _number_sign(condition)
    if constant is not None:
        yield from cells(expr.xreplace({condition: _truth(_holds(condition, constant))}), cell)
        return
    quantity, threshold, turn = _compared(condition)
    known = cell.known.get(quantity, _range(quantity))
    side = known.against(threshold)
    whole = quantity == V and threshold <= 2  # a vocabulary has at least two tokens
    sides = (side,) if side is not None else (0, 1) if whole else (-1, 0, 1)
    for s in sides:
        there = known if side is not None else known.split(threshold)[s + 1]
        decided = expr.xreplace({condition: _truth(_holds(condition, s * turn))})
        if side is None and s == 0:
            decided = _at(decided, quantity, threshold)
        yield from cells(decided, Cell({**cell.known, quantity: there}) if side is None else cell)


class Vanishing(NamedTuple):
    """Where expressions are not shown to vanish: regions of tokens, and ties, at which a quantity is its threshold."""

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


def _open(expr: sp.Expr) -> set[Relational]:
    """The conditions of the expression that contain no cases themselves."""
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


def _number_sign(condition: Relational) -> int | None:
    """The sign of lhs − rhs where it is a number, None where it depends on the token."""
    gap = evaluate(condition.lhs - condition.rhs)
    if vanishes(gap):
        return 0
    return None if gap.free_symbols else int(sp.sign(gap))


def _compared(condition: Relational) -> tuple[sp.Expr, Any, int]:
    """quantity, threshold and turn with sign(lhs − rhs) = turn · sign(quantity − threshold)."""
    gap = _without_logs(canonical(sp.expand(evaluate(condition.lhs - condition.rhs))))
    number, quantity = gap.as_independent(*gap.free_symbols, as_Add=True)
    content, quantity = quantity.as_coeff_Mul()
    if quantity.is_Add:
        inner, quantity = quantity.primitive()
        content *= inner
    quantity, turn = _oriented(quantity)
    return quantity, sp.expand(-number / (content * turn)), turn * int(sp.sign(content))


def _without_logs(gap: sp.Expr) -> sp.Expr:
    """Σ c log a > 0 is Π a^c > 1: the same sign, without logarithms, where one symbol is all there is."""
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
    if quantity == V:
        return Region(low=sp.S.One)
    if quantity.is_Symbol and quantity.name.endswith("_y") and quantity.is_positive:
        return UNIT
    return Region(low=sp.S.Zero) if quantity.is_positive else Region()


def _at(expr: sp.Expr, quantity: sp.Expr, threshold: Any) -> sp.Expr:
    """The expression where the quantity is the threshold: one symbol is solved for, if it enters linearly."""
    top = sp.numer(sp.together(quantity - threshold))
    for s in sorted(top.free_symbols, key=str):
        if top.is_polynomial(s) and sp.degree(top, s) == 1:
            a, b = sp.Poly(top, s).all_coeffs()
            return expr.subs(s, -b / a)
    return expr


def decided(expr: Any) -> Any:
    """Without cases where one of them holds at every token."""
    if not expr.has(sp.Piecewise):
        return expr
    found = [value for _, value in itertools.islice(cells(expr), 2)]
    return found[0] if len(found) == 1 else expr
