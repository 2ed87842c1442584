"""Proofs in symbols, for every vocabulary size: two gradients are proportional, or lie on one ray.

Opaque results of sorting and projecting (argmax, top-k, top-p, entmax) are symbols about which nothing is known but
that they sum to one, so what is proved of them holds in every ordering. Gradients with cases are decided case by case.
"""

from __future__ import annotations

from typing import NamedTuple

import sympy as sp

from qunify.maps import Alias, QMap, remembered
from qunify.symbolic import (
    GIVEN,
    LONGEST_GRADIENT,
    P_Y,
    Step,
    as_latex,
    as_text,
    check_size,
    gate_weight,
    is_nonnegative_gate,
    readable,
    symbolic_gradient,
    vanishes_everywhere,
    with_names,
    without_names,
)
from qunify.token import SymbolicVector, V


class Proof(NamedTuple):
    """What has been proved of two gradients."""

    factor: sp.Expr | None  # g_b = factor · g_a; None where they share the ray alone
    steps: tuple[Step, ...]
    ties: tuple[str, ...] = ()  # tokens at which a quantity is its threshold, and the two may differ


def proportional(a: QMap, b: QMap, alias: Alias, factor: sp.Expr | None = None) -> Proof | None:
    """g_b = factor · g_a at every token, the factor found if none is proposed; None where that is not shown."""
    ga, gb = symbolic_gradient(a, alias), symbolic_gradient(b, alias)
    if factor is None:
        factor = _ratio(ga, gb)
        if factor is None:
            return None
    found = vanishes_everywhere(gb.label - ga.label * factor, gb.elsewhere - ga.elsewhere * factor)
    if not found.holds:
        return None
    end = _equation("g^b", "g_b", factor, r"\,g^a", " · g_a, for every V")
    return Proof(factor, (*_entries(a, "a", alias), *_entries(b, "b", alias), end), found.open_ties)


def on_one_ray(a: QMap, b: QMap, alias: Alias) -> Proof | None:
    """The proof that two gradients lie on one ray: both are gates whose weights are never negative. None where that is
    not shown."""
    if not (is_nonnegative_gate(a, alias) and is_nonnegative_gate(b, alias)):
        return None
    return Proof(None, (_gate_step(a, "a", alias), _gate_step(b, "b", alias)))


def _ratio(ga: SymbolicVector, gb: SymbolicVector) -> sp.Expr | None:
    """g_b/g_a at the label, if it is one number for all tokens; None where it holds a symbol of the token."""
    if ga.label == 0:
        return None
    ratio = with_names(gb.label / ga.label)
    check_size(ratio)
    ratio = without_names(sp.simplify(ratio) if sp.count_ops(ga.label) < 200 else sp.cancel(ratio))
    return None if any(map(_of_the_token, ratio.free_symbols)) or ratio.has(sp.Piecewise) else ratio


def _of_the_token(s: sp.Symbol) -> bool:
    return s.name.endswith(("_y", "_k")) or s.name in GIVEN or s == V


@remembered
def _entries(m: QMap, side: str, alias: Alias) -> tuple[Step, ...]:
    label, elsewhere = _readable_gradient(m, alias)
    return (
        _equation(f"g^{side}_y", f"g_{side} at the label", label),
        _equation(f"g^{side}_k", f"g_{side} elsewhere", elsewhere),
    )


@remembered
def _readable_gradient(m: QMap, alias: Alias) -> tuple[sp.Expr, sp.Expr]:
    g = symbolic_gradient(m, alias)
    return readable(g.label), readable(g.elsewhere)


@remembered
def _gate_step(m: QMap, side: str, alias: Alias) -> Step:
    w = _readable_weight(m, alias)
    return _equation(rf"g^{side}=w_{side}(p-\delta),\quad w_{side}", f"g_{side} = w_{side} (p − δ), w_{side}", w,
                     r"\ge 0", " ≥ 0")  # fmt: skip


@remembered
def _readable_weight(m: QMap, alias: Alias) -> sp.Expr:
    return readable(gate_weight(m, alias)).xreplace({P_Y: sp.Symbol("u", positive=True)})


def _equation(latex: str, words: str, e: sp.Expr, latex_end: str = "", words_end: str = "") -> Step:
    """One line; expressions nobody would read are left out."""
    text = as_text(e)
    if len(text) > LONGEST_GRADIENT:
        return Step(rf"{latex}:\ \text{{{sp.count_ops(e)} operations, not written out}}",
                    f"{words}: {sp.count_ops(e)} operations, not written out{words_end}")  # fmt: skip
    return Step(f"{latex}={as_latex(e)}{latex_end}", f"{words} = {text}{words_end}")
