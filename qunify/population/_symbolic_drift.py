"""The drift in symbols, b_k = −Σ_y η_y g_k(y), for every vocabulary size: its entry at one token.

A gradient in symbols has two entries: at the label y, and at another token k. The drift at a token y sums over the
labels: −η_y g_y at the label y itself, and −Σ_k η_k g_y for every other label k, where g_y is the second entry with y
and k exchanged. Sums over the vocabulary that do not depend on the label are constants on the way.
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
    """A sum over the vocabulary inside the gradient, or something sorted or projected, depends on the label itself."""


class Drift(NamedTuple):
    """The drift at token y, in which the constants stand for sums over all tokens, a later one holding earlier ones."""

    entry: sp.Expr
    sums: dict[sp.Symbol, sp.Expr]  # constant: its summand, at k

    @property
    def at_y(self) -> sp.Expr:
        """The entry with its sums written over k ≠ y; the normal form of that decides whether it vanishes."""
        return self._filled(self.entry, lambda summand: at_label(summand) + sum_over_others(summand))

    @property
    def at_k(self) -> sp.Expr:
        """The entry at any token k with its sums written over all tokens, in the shortest of a few equal forms."""
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
    """The drift where the prediction, by the softmax or through the method's own link, is the truth; nothing is masked.

    Raises
    ------
    Entangled
        As for `symbolic_drift`.
    """
    t, m = SymbolicToken(), with_fractions(m)
    drift = _expected(t, m, (m.prediction(t) if through_link else t.policy).probs)
    kept = {t.keep: sp.S.One}
    return Drift(drift.entry.xreplace(kept), {s: summand.xreplace(kept) for s, summand in drift.sums.items()})


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
    """Every Σ over k ≠ y as a constant S, the sum over all tokens, less the summand at y; inner sums first. Example:
    Σ_{k≠y} p_k² becomes S0 − p_y², with S0 = Σ_j p_j² kept in `names`."""
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
    """Whether it has logarithms, exponentials or roots, with which factoring takes long."""
    return any(not p.exp.is_Integer for p in expr.atoms(sp.Pow)) or expr.has(sp.log, sp.exp)
