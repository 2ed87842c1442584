"""The drift in symbols, b_k = −Σ_y η_y g_k(y), for every vocabulary size: its entry at one token.

A gradient in symbols tells the label y from another token k; the drift sums over y. Sums over the vocabulary that do
not depend on y are set aside as constants, y and k exchange their places, and what is left is summed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sympy as sp

from qunify.maps import QMap
from qunify.symbolic import SumOverAll, decided, exponential, gradient_of_pulls, shortest, with_fractions
from qunify.token import (
    SumOverOthers,
    SymbolicToken,
    SymbolicVector,
    at_label,
    evaluate,
    per_token,
    renamed,
    sum_over_others,
)

#: A truth about which nothing is known but that it sums to one.
TRUTH = SymbolicVector(*per_token("eta"))


class Entangled(ValueError):
    """Something inside the gradient depends on the label otherwise than by leaving it out of a sum."""


class Drift(NamedTuple):
    """The drift at token y, in which the constants stand for sums over all tokens, a later one holding earlier ones."""

    entry: sp.Expr
    sums: dict[sp.Symbol, sp.Expr]  # constant: its summand, at k

    @property
    def at_y(self) -> sp.Expr:
        """With sums over k ≠ y, whose normal form decides whether it vanishes."""
        return self._filled(self.entry, lambda summand: at_label(summand) + sum_over_others(summand))

    @property
    def at_k(self) -> sp.Expr:
        """At any token k, with sums over all tokens, in the shortest of a few equal forms."""
        outer = {
            a: sp.Symbol(f"T{i}", real=True) for i, a in enumerate(sorted(self.entry.atoms(SumOverOthers), key=str))
        }
        entry = self.entry.xreplace({a: s - at_label(a.args[0]) for a, s in outer.items()})
        sums = self.sums | {s: a.args[0] for a, s in outer.items()}
        return shortest(
            [self._filled(form, SumOverAll, sums).xreplace(renamed(form, "_y", "_k")) for form in _forms(entry)]
        )

    def _filled(self, expr: sp.Expr, total: Any, sums: dict[sp.Symbol, sp.Expr] | None = None) -> sp.Expr:
        for s, summand in reversed((self.sums if sums is None else sums).items()):
            expr = expr.xreplace({s: total(summand)})
        return expr


def symbolic_drift(m: QMap, truth: SymbolicVector = TRUTH) -> Drift:
    """The drift at a model's p, for a truth in symbols.

    Raises
    ------
    Entangled
        If a sum, or what sorts or projects, depends on the label.
    """
    t = SymbolicToken()
    return _expected(t, with_fractions(m), truth)


def symbolic_bias(m: QMap, *, through_link: bool = False) -> Drift:
    """The drift where the prediction, by the softmax or through the method's own link, is the truth.

    Raises
    ------
    Entangled
        As `drift`.
    """
    t, m = SymbolicToken(), with_fractions(m)
    return _expected(t, m, (m.prediction(t) if through_link else t.policy).probs)


def _expected(t: SymbolicToken, m: QMap, truth: SymbolicVector) -> Drift:
    gradient = gradient_of_pulls(t, m.pulls(t)).apply(evaluate).apply(decided)
    if not t.sorts_without_label:
        raise Entangled("what is sorted or projected depends on the label")
    names: dict[sp.Expr, sp.Symbol] = {}
    at_y, elsewhere = (_tidied(_with_totals(e, names)) for e in (gradient.label, gradient.elsewhere))
    own, other = (_with_totals(evaluate(e), names) for e in (truth.label, truth.elsewhere))
    entry = -(own * at_y + sum_over_others(other * _exchanged(elsewhere)))
    return Drift(entry, {s: summand for summand, s in names.items()})


def _with_totals(expr: Any, names: dict[sp.Expr, sp.Symbol]) -> Any:
    """Every Σ over k ≠ y as a constant, the sum over all tokens, less the summand at y; from the inside out."""
    if not expr.has(SumOverOthers):
        return expr
    args = [_with_totals(a, names) for a in expr.args]
    if not isinstance(expr, SumOverOthers):
        return expr.func(*args)
    (summand,) = args
    if any(s.name.endswith("_y") for s in summand.free_symbols):
        raise Entangled(f"a sum over the vocabulary depends on the label: {summand}")
    return names.setdefault(summand, sp.Symbol(f"S{len(names)}", real=True)) - at_label(summand)


def _tidied(expr: sp.Expr) -> sp.Expr:
    """Sums that cancel, wherever they stand, and exp(c log x) as x^c."""
    return expr.replace(lambda e: e.is_Add, sp.expand).replace(sp.exp, exponential)


def _exchanged(expr: sp.Expr) -> sp.Expr:
    return expr.xreplace(renamed(expr, "_k", "_y") | renamed(expr, "_y", "_k"))


def _forms(entry: sp.Expr) -> list[sp.Expr]:
    entry = evaluate(entry)
    spread = sp.expand(entry)
    forms = [entry, spread, sp.factor_terms(spread)]
    if not entry.has(sp.Piecewise) and sp.count_ops(entry) < 120 and len(entry.free_symbols) <= 5:
        forms += [sp.cancel(spread), sp.simplify(spread)] if not _rooted(entry) else []
    return forms


def _rooted(expr: sp.Expr) -> bool:
    """Whether it has powers that are no whole numbers, with which factoring takes long."""
    return any(not p.exp.is_Integer for p in expr.atoms(sp.Pow)) or expr.has(sp.log, sp.exp)
