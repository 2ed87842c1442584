"""Optima derived in symbols, where the drift separates: the label's weight depends on its own probability u alone, and
fixed pulls c stand beside it.

A zero of the drift has η w(u) + c = C u at every token that keeps mass, with one number C (see `_separable.py`). Solved
for u it is the optimum, C being set by Σ p = 1. For a gate alone c = 0 and p* is a function of C/η; where all weights
are constant C is their sum, and p* is the weighted mean of what pulls. Example: with label smoothing w = 1 − s and
c = s/V, so that C = 1 and p* = (1 − s) η + s/V.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import sympy as sp

from qunify.maps import QMap, remembered
from qunify.symbolic import (
    LONGEST_OPTIMUM,
    as_latex,
    as_text,
    decided,
    gate_weight,
    settled_by_symbols,
    shortest,
    with_fractions,
)
from qunify.token import SumOverOthers, SymbolicToken, V, at_label, evaluate, per_token, renamed, varies

U = SymbolicToken.p_y
ETA = sp.Symbol("eta", positive=True)
C = sp.Symbol("C", positive=True)
X = sp.Symbol("x", positive=True)  # C/η

#: The symbols that differ from token to token beside η: its probabilities by the models in the context.
CONTEXTS = tuple(per_token(name)[0] for name in ("ref", "tea", "old", "prior", "base"))


class Separated(NamedTuple):
    """b_k = η w + c − C p_k at every token k; w and c are functions of u = p_k and of `CONTEXTS`."""

    weight: sp.Expr
    fixed: sp.Expr
    others: sp.Expr  # the sum of the weights of the fixed pulls


class Derived(NamedTuple):
    """The optimum of one method, as a function of η, of `CONTEXTS`, and of C."""

    probs: sp.Expr
    shape: str = "equal"  # or "proportional", where C is not needed, or "clipped": 0 where `probs` is negative

    @property
    def latex(self) -> str:
        shown = as_latex(self.probs.xreplace(renamed(self.probs, "_y", "")))
        if self.shape == "clipped":
            return rf"p^*=\left({shown}\right)_+"
        return rf"p^*\propto {shown}" if self.shape == "proportional" else f"p^*={shown}"

    @property
    def power(self) -> sp.Rational | None:
        """c, where p* ∝ η^c."""
        base, exponent = self.probs.as_base_exp()
        return exponent if base == ETA and exponent.is_Rational and self.shape != "clipped" else None


@remembered
def derived_optimum(m: QMap) -> Derived | None:
    """The optimum in symbols; None where the drift does not separate, or the equation has no short solution."""
    parts = separated(m) if settled_by_symbols(m) else None
    if parts is None:
        return None
    if not parts.weight.has(U, *CONTEXTS):
        total = parts.weight + parts.others
        if total == 0 or total.is_negative:  # of a constant push it is the point that training runs away from
            return None
        return Derived(sp.expand((ETA * parts.weight + parts.fixed) / total))
    if parts.fixed != 0:
        found = _solutions(ETA * parts.weight + parts.fixed - C * U, sp.S.Zero)
        probs = next((p for p in found if _solves(p, parts)), None)
        return None if probs is None else _readable(Derived(_neat(probs)))
    if parts.weight.subs({U: sp.Rational(1, 2), **dict.fromkeys(CONTEXTS, sp.Rational(1, 3))}).is_negative:
        parts = parts._replace(weight=-parts.weight)  # of a push: C is then minus what it is in the equation
    share = _share(parts.weight)
    probs = next((p for p in _solutions(share, X) if _solves(p.subs(X, C / ETA), parts)), None)
    if probs is None:
        return None
    power = _exponent(probs)
    if power is not None:
        return Derived(_factor(sp.simplify(probs / X**power)) * ETA**-power, "equal" if probs == 1 else "proportional")
    return _readable(Derived(_neat(_scaled(probs).subs(X, C / ETA)), "clipped" if _finite(share) else "equal"))


def _readable(found: Derived) -> Derived | None:
    return found if len(as_text(found.probs)) <= LONGEST_OPTIMUM else None


def _factor(e: sp.Expr) -> sp.Expr:
    """The factors of a product that differ from token to token: the others cancel in p* ∝ …"""
    return sp.Mul(*[f for f in sp.Mul.make_args(e) if f.has(*CONTEXTS)])


def _share(weight: sp.Expr) -> sp.Expr:
    """w(u)/u, in lowest terms."""
    return weight / U if weight.has(sp.exp, sp.log) else sp.cancel(weight / U)


def separated(m: QMap) -> Separated | None:
    """The weight on the label and the fixed pulls: those declared or, where they do not separate, the weight that the
    method has as a gate, however it is written."""
    t = SymbolicToken()
    try:
        parts = _declared(t, with_fractions(m))
        weight = gate_weight(m) if parts is None else None
    except (TypeError, NotImplementedError, AttributeError):  # a user's function of tensors alone
        return None
    if weight is not None:
        parts = Separated(weight, sp.S.Zero, sp.S.Zero)
    if parts is None:
        return None
    w = decided(evaluate(parts.weight))
    plain = not w.has(SumOverOthers, sp.Piecewise) and not varies(w)
    return parts._replace(weight=w) if plain else None


def _declared(t: SymbolicToken, m: QMap) -> Separated | None:
    weight, fixed, others = sp.S.Zero, sp.S.Zero, sp.S.Zero
    for pull in m.pulls(t):
        if not isinstance(pull, tuple):
            return None
        w, d = sp.sympify(pull[0]), pull[1]
        if d is t.label:
            weight += w
        elif d is not t.policy:  # a pull toward the prediction is none
            entry = d.probs.label
            if w.free_symbols - {V} or entry.free_symbols - {V, *CONTEXTS} or at_label(d.probs.elsewhere) != entry:
                return None
            fixed, others = fixed + w * entry, others + w
    return Separated(weight, fixed, others)


def _solutions(f: sp.Expr, value: sp.Expr) -> Iterator[sp.Expr]:
    """The u with f(u) = value, where f is a quadratic, or the exponential, logarithm or power of one: the outermost
    function is undone first. Example: log(u)/2 + 1 = value leads to log u = 2 (value − 1) and to u = exp of that."""
    held = [a for a in f.atoms(sp.log, sp.exp, sp.Pow) if a.has(U) and not (a.is_Pow and a.exp.is_Integer)]
    outer = [a for a in held if not any(a != b and b.has(a) for b in held)]
    if len(outer) > 1 and all(isinstance(a, sp.log) for a in outer):
        joined = sp.logcombine(f, force=True)
        if joined != f:
            yield from _solutions(joined, value)
        return
    if not outer:
        top = sp.numer(sp.together(f - value))
        if top.is_polynomial(U) and 1 <= sp.degree(top, U) <= 2:
            yield from _roots(sp.Poly(top, U))
        return
    name = sp.Dummy(positive=True)
    rest = f.xreplace({outer[0]: name})
    if len(outer) > 1 or rest.has(U):
        return
    for level in _solutions(rest.xreplace({name: U}), value):
        inner = outer[0]
        if isinstance(inner, sp.log):
            yield from _solutions(inner.args[0], sp.exp(level))
        elif isinstance(inner, sp.exp):
            yield from _solutions(inner.args[0], sp.log(level))
        elif not inner.exp.has(U):
            yield from _solutions(inner.base, level ** (1 / inner.exp))


def _roots(line: sp.Poly) -> list[sp.Expr]:
    """The roots of a polynomial of degree one or two. For u = x^(7/3) `sympy.roots` would write x² x^(1/3)."""
    if line.degree() == 1:
        b, c = line.all_coeffs()
        return [sp.powdenest(-c / b, force=True)]
    a, b, c = line.all_coeffs()
    width = sp.sqrt(b**2 - 4 * a * c)
    return [(-b + sign * width) / (2 * a) for sign in (1, -1)]


def _solves(probs: sp.Expr, parts: Separated) -> bool:
    """Whether this solution is the one between 0 and 1: put in C = (η w + c)/u, and it must give back u."""
    level = (ETA * parts.weight + parts.fixed) / U
    for u in ("1/7", "1/2", "4/5"):
        point = {s: sp.Rational(k + 2, k + 9) for k, s in enumerate(sorted(level.free_symbols - {U, V}, key=str))}
        point |= {U: sp.Rational(u), V: sp.Integer(5)}
        back = probs.subs(C, level).subs(point).evalf(30)
        if not back.is_real or abs(back - point[U]) > sp.Float("1e-20"):
            return False
    return True


def _finite(share: sp.Expr) -> bool:
    """Whether w(u)/u stays finite at u = 0, so that a token may end with no mass."""
    try:
        return bool(sp.limit(share, U, 0, "+").is_finite)
    except (NotImplementedError, ValueError):
        return True


def _scaled(probs: sp.Expr) -> sp.Expr:
    """The same with C in another unit, so that the first term that it enters loses its factor: where p* = 3 √(C/η), the
    9 C are called C, since Σ p = 1 sets the number whatever it is called."""
    joined = sp.logcombine(sp.expand(probs), force=True)
    moving = [t for t in sp.Add.make_args(joined) if t.has(X)][:1]
    for part in [e.args[0] for t in moving for e in t.atoms(sp.log)] or moving:
        factor, rest = part.as_independent(X)
        exponent = _exponent(rest)
        large = any(max(abs(n.p), n.q) > _LARGE for n in factor.atoms(sp.Rational))
        if exponent and factor.is_number and factor != 0 and not large:
            return sp.powdenest(sp.powsimp(joined.subs(X, X * abs(factor) ** (-1 / exponent))), force=True)
    return probs


_LARGE = 10**6  # a root of a larger number takes long, and nobody reads it


def _exponent(f: sp.Expr) -> sp.Expr | None:
    """c where f ∝ X^c. Asked of numbers first: what is no power takes long to simplify."""
    slope = X * f.diff(X) / f
    others = {s: sp.Rational(1, 5 + i) for i, s in enumerate(sorted(slope.free_symbols - {X}, key=str))}
    here, there = (slope.xreplace(others | {X: sp.Rational(x)}).evalf(30) for x in ("1/3", "2/7"))
    if not (here.is_number and abs(here - there) < sp.Float("1e-20")):
        return None
    c = sp.simplify(slope)
    return c if c.is_number else None


def _neat(probs: sp.Expr) -> sp.Expr:
    """The simplest of several equal forms."""
    forms = [probs, sp.expand(probs), sp.factor_terms(probs), sp.cancel(probs), sp.simplify(probs)]
    forms += [sp.powsimp(sp.expand(f), force=True) for f in forms]
    return shortest(forms, first=sp.count_ops)
