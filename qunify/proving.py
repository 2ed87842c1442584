"""Proofs in symbols, for every vocabulary size: two gradients are proportional, or lie on one ray.

Opaque results of sorting and projecting (argmax, top-k, heads, entmax) are symbols about which nothing is known but
that they sum to one, so what is proved of them holds in every ordering. Other cases are decided cell by cell.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import sympy as sp

from qunify import cells, notation, symbols
from qunify.normal import canonical
from qunify.notation import LONGEST_GRADIENT, Step
from qunify.qmap import Gate, QMap
from qunify.screening import Alias
from qunify.symbols import SymbolicToken, Vector
from qunify.token import Distribution

P_Y, P_K = SymbolicToken.p_y, SymbolicToken.p_k

#: Weights and masks that come with the data count as nonnegative, as importance ratios and indicators are.
GIVEN = {name: sp.Symbol(name, nonnegative=True) for name in ("w", "c")}


class Proof(NamedTuple):
    """What has been proved of two gradients."""

    factor: sp.Expr | None  # g_b = factor · g_a; None where they share the ray alone
    steps: tuple[Step, ...]
    ties: tuple[str, ...] = ()  # tokens at which a quantity is its threshold, and the two may differ


class _Aliased(SymbolicToken):
    """Symbols in which some contexts are the same distribution."""

    def __init__(self, alias: Mapping[str, str]) -> None:
        super().__init__()
        self._alias = alias

    def context(self, name: str) -> Any:
        source = self._alias.get(name, name)
        return getattr(self, source) if source in ("label", "uniform") else super().context(source)


class _Signs(_Aliased):
    """Symbols in which a cross-entropy of two distributions, entropies among them, is a number of 0 or more."""

    def cross_entropy(self, a: Distribution, b: Distribution) -> Any:
        return sp.Dummy("H", nonnegative=True)


@functools.lru_cache(maxsize=8)
def _token(alias: Alias) -> _Aliased:
    """One token for all methods, so that what sorts and projects is the same symbol in each."""
    return _Aliased(dict(alias))


@functools.lru_cache(maxsize=1024)
def gradient(m: QMap, alias: Alias = ()) -> Vector:
    """The pulls of a method added up: the entry at the label, and at any other token k."""
    t = _token(alias)
    total = symbols.pulled(t, symbols.exact(m).pulls(t))
    return total.apply(cells.smooth).apply(symbols.evaluate)


@functools.lru_cache(maxsize=1024)
def weight(m: QMap, alias: Alias = ()) -> sp.Expr | None:
    """w where the method is a gate, g = w (p − δ), by its class or in effect; None elsewhere."""
    t = _token(alias)
    if isinstance(m, Gate):
        own: Any = symbols.exact(m)
        return symbols.evaluate(own.weight(t))
    g = gradient(m, alias)
    w = canonical(sp.expand(g.elsewhere / P_K))
    w = sp.cancel(w) if symbols.varies(w) and not w.has(sp.Piecewise) else w
    return None if symbols.varies(w) or not cells.zero(g.label - w * (P_Y - 1)).holds else w


# ---- signs ---------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def never_negative(w: sp.Expr) -> bool:
    """Whether SymPy sees w ≥ 0 at every token: on every cell p_y is written as low + (high − low)/(1 + x), x > 0, the
    logarithm of any other probability as a negative number, and a sum by the sign of its terms."""
    return all(
        cell.tie or _nonnegative(value, cell.known.get(P_Y, cells.UNIT)) for cell, value in cells.cells(sp.sympify(w))
    )


def _nonnegative(w: sp.Expr, where: cells.Region) -> bool:
    signed = w.replace(
        lambda e: isinstance(e, sp.log) and e.args[0].is_Symbol and e.args[0] not in (P_Y, symbols.V),
        lambda e: -sp.Symbol(f"minus_log_{e.args[0]}", positive=True),
    )
    signed = signed.replace(symbols.Rest, _signed_sum)
    signed = signed.xreplace({s: GIVEN[s.name] for s in signed.free_symbols if s.name in GIVEN})
    x = sp.Symbol("x", positive=True)
    signed = signed.xreplace({symbols.V: 2 + sp.Dummy(integer=True, nonnegative=True)})
    signed = signed.xreplace({P_Y: where.low + (where.high - where.low) / (1 + x)})
    return any(bool(form(signed).is_nonnegative) for form in (sp.factor_terms, _logs_joined, _logs_apart))


def _signed_sum(summand: sp.Expr) -> sp.Expr:
    name = f"sum_{summand}"
    if summand.is_nonnegative:
        return sp.Symbol(name, nonnegative=True)
    return -sp.Symbol(name, nonnegative=True) if summand.is_nonpositive else sp.Symbol(name, real=True)


def _logs_joined(e: sp.Expr) -> sp.Expr:
    joined = e.replace(lambda a: a.is_Add and a.has(sp.log), lambda a: sp.logcombine(a, force=True))
    return joined.replace(sp.log, lambda a: sp.log(sp.cancel(a)))


def _logs_apart(e: sp.Expr) -> sp.Expr:
    return sp.simplify(sp.expand_log(e))


# ---- proofs --------------------------------------------------------------------------------------------------


def proportional(a: QMap, b: QMap, alias: Alias, factor: sp.Expr | None = None) -> Proof | None:
    """g_b = factor · g_a at every token, the factor found if none is proposed; None where that is not shown."""
    ga, gb = gradient(a, alias), gradient(b, alias)
    if factor is None:
        factor = _ratio(ga, gb)
        if factor is None:
            return None
    found = cells.zero(gb.label - ga.label * factor, gb.elsewhere - ga.elsewhere * factor)
    if not found.holds:
        return None
    end = _equation("g^b", "g_b", factor, r"\,g^a", " · g_a, for every V")
    return Proof(factor, (*_entries("a", a, alias), *_entries("b", b, alias), end), found.open_ties)


def on_one_ray(a: QMap, b: QMap, alias: Alias) -> Proof | None:
    """Both are gates whose weights are never negative; None where that is not shown."""
    if not (gate(a, alias) and gate(b, alias)):
        return None
    return Proof(None, (_gate_step("a", a, alias), _gate_step("b", b, alias)))


@functools.lru_cache(maxsize=1024)
def gate(m: QMap, alias: Alias = ()) -> bool:
    """Whether the method is provably a gate that never pushes."""
    if isinstance(m, Gate):
        own: Any = symbols.exact(m)
        return never_negative(symbols.evaluate(own.weight(_Signs(dict(alias)))))
    w = weight(m, alias)
    return w is not None and never_negative(w)


def _ratio(ga: Vector, gb: Vector) -> sp.Expr | None:
    """g_b/g_a at the label, if it is one number for all tokens: without any symbol of the token."""
    if ga.label == 0:
        return None
    ratio = sp.simplify(gb.label / ga.label) if sp.count_ops(ga.label) < 200 else sp.cancel(gb.label / ga.label)
    return None if any(map(_of_the_token, ratio.free_symbols)) or ratio.has(sp.Piecewise) else ratio


def _of_the_token(s: sp.Symbol) -> bool:
    return s.name.endswith(("_y", "_k")) or s.name in GIVEN or s == symbols.V


@functools.lru_cache(maxsize=1024)
def _entries(side: str, m: QMap, alias: Alias) -> tuple[Step, ...]:
    g = gradient(m, alias)
    return (
        _equation(f"g^{side}_y", f"g_{side} at the label", notation.readable(g.label)),
        _equation(f"g^{side}_k", f"g_{side} elsewhere", notation.readable(g.elsewhere)),
    )


@functools.lru_cache(maxsize=1024)
def _gate_step(side: str, m: QMap, alias: Alias) -> Step:
    w = notation.readable(weight(m, alias)).xreplace({P_Y: sp.Symbol("u", positive=True)})
    return _equation(rf"g^{side}=w_{side}(p-\delta),\quad w_{side}", f"g_{side} = w_{side} (p − δ), w_{side}", w,
                     r"\ge 0", " ≥ 0")  # fmt: skip


def _equation(latex: str, words: str, e: sp.Expr, latex_end: str = "", words_end: str = "") -> Step:
    """One line; expressions nobody would read are left out."""
    text = notation.text(e)
    if len(text) > LONGEST_GRADIENT:
        return Step(rf"{latex}:\ \text{{{sp.count_ops(e)} operations, not written out}}",
                    f"{words}: {sp.count_ops(e)} operations, not written out{words_end}")  # fmt: skip
    return Step(f"{latex}={notation.latex(e)}{latex_end}", f"{words} = {text}{words_end}")
