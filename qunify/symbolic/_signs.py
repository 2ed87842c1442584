"""Whether SymPy shows that a weight is never negative, at every token and for every vocabulary size."""

from __future__ import annotations

import functools
from typing import Any

import sympy as sp

from qunify.maps import Alias, Gate, QMap, remembered
from qunify.symbolic._cases import UNIT, Region, cells
from qunify.symbolic._gates import P_Y, AliasedToken, gate_weight
from qunify.symbolic._gradients import with_fractions
from qunify.symbolic._size import check_size, with_names
from qunify.token import Distribution, SumOverOthers, V, evaluate

#: Weights and masks that come with the data count as nonnegative, as importance ratios and indicators are.
GIVEN = {name: sp.Symbol(name, nonnegative=True) for name in ("w", "c")}


class _Signs(AliasedToken):
    """Symbols in which every `cross_entropy` of two distributions is a nonnegative symbol of its own."""

    def cross_entropy(self, a: Distribution, b: Distribution) -> Any:
        return sp.Dummy("H", nonnegative=True)


@functools.lru_cache(maxsize=1024)
def never_negative(w: sp.Expr) -> bool:
    """Whether SymPy shows w ≥ 0 at every token, ties apart.

    On each cell the weight is written in symbols of known sign, and SymPy is asked for its sign. p_y between low and
    high is low + (high − low)/(1 + x) with x > 0, the logarithm of any other probability a negative symbol, and a sum
    over k ≠ y a symbol with the sign of its summand. 1 − p_y, for one, becomes x/(1 + x).
    """
    return all(
        cell.tie or _nonnegative(with_names(value), cell.known.get(P_Y, UNIT)) for cell, value in cells(sp.sympify(w))
    )


def _nonnegative(w: sp.Expr, where: Region) -> bool:
    """`never_negative` on one cell, with p_y in this region."""
    signed = w.replace(
        lambda e: isinstance(e, sp.log) and _is_probability(e.args[0]) and e.args[0] != P_Y,
        lambda e: -sp.Symbol(f"minus_log_{e.args[0]}", positive=True),
    )
    signed = signed.replace(SumOverOthers, _signed_sum)
    signed = signed.xreplace({s: GIVEN[s.name] for s in signed.free_symbols if s.name in GIVEN})
    x = sp.Symbol("x", positive=True)
    signed = signed.xreplace({V: 2 + sp.Dummy(integer=True, nonnegative=True)})
    signed = signed.xreplace({P_Y: where.low + (where.high - where.low) / (1 + x)})
    check_size(signed)
    return any(bool(form(signed).is_nonnegative) for form in (sp.factor_terms, _logs_joined, _logs_apart, _cancelled))


def _is_probability(e: sp.Expr) -> bool:
    """Whether it is an entry of a distribution: not a weight that comes with the data, nor a parameter."""
    return bool(e.is_Symbol and e.is_positive and e.name.endswith(("_y", "_k")))


def _signed_sum(summand: sp.Expr) -> sp.Expr:
    name = f"sum_{summand}"
    if summand.is_nonnegative:
        return sp.Symbol(name, nonnegative=True)
    return -sp.Symbol(name, nonnegative=True) if summand.is_nonpositive else sp.Symbol(name, real=True)


def _logs_joined(e: sp.Expr) -> sp.Expr:
    joined = e.replace(lambda a: a.is_Add and a.has(sp.log), lambda a: sp.logcombine(a, force=True))
    return joined.replace(sp.log, lambda a: sp.log(sp.cancel(a)))


def _logs_apart(e: sp.Expr) -> sp.Expr:
    return sp.together(sp.expand_log(e))


def _cancelled(e: sp.Expr) -> sp.Expr:
    """In lowest terms; as it is where it has roots, with which that takes long."""
    return e if any(not p.exp.is_Integer for p in e.atoms(sp.Pow)) else sp.cancel(sp.expand_log(e))


@remembered
def is_nonnegative_gate(m: QMap, alias: Alias = ()) -> bool:
    """Whether the method is provably a gate of nonnegative weight: it never pushes away from the label."""
    if isinstance(m, Gate):
        own: Any = with_fractions(m)
        return never_negative(evaluate(own.weight(_Signs(dict(alias)))))
    w = gate_weight(m, alias)
    return w is not None and never_negative(w)
