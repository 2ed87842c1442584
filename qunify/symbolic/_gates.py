"""A method's gradient in symbols, and its weight where it is a gate: g = w (p − δ)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import sympy as sp

from qunify.maps import Alias, Gate, QMap, remembered
from qunify.symbolic._cases import vanishes_everywhere, without_varying_cases
from qunify.symbolic._gradients import gradient_of_pulls, with_fractions
from qunify.symbolic._normal_form import canonical
from qunify.symbolic._size import check_size, with_names, without_names
from qunify.token import SumOverOthers, SymbolicToken, SymbolicVector, V, evaluate, varies

P_Y, P_K = SymbolicToken.p_y, SymbolicToken.p_k


class AliasedToken(SymbolicToken):
    """Symbols in which some contexts are the same distribution."""

    def __init__(self, alias: Mapping[str, str]) -> None:
        super().__init__()
        self._alias = alias

    def context(self, name: str) -> Any:
        source = self._alias.get(name, name)
        return getattr(self, source) if source in ("label", "uniform") else super().context(source)


@functools.lru_cache(maxsize=8)
def shared_token(alias: Alias) -> AliasedToken:
    """One token for all methods, so that the same sorted or projected distribution is the same symbol in each."""
    return AliasedToken(dict(alias))


@remembered
def symbolic_gradient(m: QMap, alias: Alias = ()) -> SymbolicVector:
    """The logit gradient of a method from its pulls: the entry at the label, and at any other token k."""
    t = shared_token(alias)
    total = gradient_of_pulls(t, with_fractions(m).pulls(t))
    return total.apply(without_varying_cases).apply(evaluate)


def _differs_among_tokens(w: sp.Expr) -> bool:
    """Whether numbers show that w is not the same at two tokens other than the label; where they do not, it may be."""
    sums = {a: sp.Rational(3 + i, 7 + i) for i, a in enumerate(sorted(w.atoms(SumOverOthers), key=str))}
    whole = {s: sp.Integer(7 if s == V else 1) for s in w.free_symbols if s.is_integer}  # masks and signs
    w = w.xreplace(sums | whole)
    symbols = sorted(w.free_symbols, key=str)
    values = [
        sp.N(w.xreplace({s: sp.Rational(i + 1 + (step if varies(s) else 0), 23) for i, s in enumerate(symbols)}))
        for step in (0, 5)
    ]
    return all(v.is_Float and v.is_finite for v in values) and abs(values[0] - values[1]) > 1e-6 * abs(values[0])


@remembered
def gate_weight(m: QMap, alias: Alias = ()) -> sp.Expr | None:
    """w where the method is a gate, g = w (p − δ), declared as a `Gate` or found to be one; else None. TooLargeError
    where that takes too many terms to find out."""
    t = shared_token(alias)
    if isinstance(m, Gate):
        own: Any = with_fractions(m)
        return evaluate(own.weight(t))
    g = symbolic_gradient(m, alias)
    w = with_names(g.elsewhere / P_K)
    if _differs_among_tokens(w):
        return None
    check_size(w)
    w = canonical(sp.expand(w))
    w = without_names(sp.cancel(w) if varies(w) and not w.has(sp.Piecewise) else w)
    return None if varies(w) or not vanishes_everywhere(g.label - w * (P_Y - 1)).holds else w
