"""How large an expression is: exponents that make it a polynomial of high degree get a name, and one that is larger
still is left alone, so that what cannot be proved at once is measured.

All of it is counted on the expression, in terms and in cases, and so the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import sympy as sp

#: Up to this, powers are taken as powers of a root: u^(7/10) is r⁷ with r = u^(1/10).
SIMPLE = 12

#: How many terms an expression may have once its products are multiplied out.
MOST_TERMS = 400

#: How many terms a fraction may have, on the way to a normal form.
MOST_IN_A_FRACTION = 600

#: How many cases a loss may have, each a region of tokens.
MOST_CASES = 300


class TooLargeError(TypeError):
    """An expression has more terms, or more cases, than a proof may take."""


_NAMED = "exponent "
_MULTIPLES = tuple(sign * sp.Rational(a) for a in ("1", "2", "3", "1/2") for sign in (1, -1))


def with_names(expr: Any) -> Any:
    """The expression with symbols for exponents that are no simple fractions: u^1.372 is u^(1 + a) with a for 0.372.

    What holds for every a holds at 0.372. Exponents that belong together share a symbol: u^0.628 is u^(1 − a), so that
    u^1.372 u^0.628 is still u².
    """
    fractions = {c for e in _powers(expr) for c, _ in exponent_terms(_exponent(e)) if not c.is_Integer}
    large = {c for c in fractions if max(c.q, abs(c)) > SIMPLE}
    if not large:
        return expr
    # with them those that add up with one to an integer, so that u^(138/11) u^(−127/11) is still u
    numbers = {c for c in fractions if any((c + sign * d).is_Integer for d in large for sign in (1, -1))}
    known: list[sp.Rational] = []
    named = {c: _named(c, known) for c in sorted(numbers, key=lambda c: (-abs(c), c))}

    def renamed(e: sp.Expr) -> sp.Expr:
        return e.as_base_exp()[0] ** sp.Add(*[named.get(c, c) * of for c, of in exponent_terms(_exponent(e))])

    return expr.replace(lambda e: isinstance(e, sp.Pow | sp.exp), renamed)


def without_names(expr: Any) -> Any:
    """The expression with its exponents as they were."""
    return expr.xreplace(
        {s: sp.Rational(s.name.removeprefix(_NAMED)) for s in expr.free_symbols if s.name.startswith(_NAMED)}
    )


def _powers(expr: sp.Expr) -> set[sp.Expr]:
    return expr.atoms(sp.Pow, sp.exp)


def _exponent(power: sp.Expr) -> sp.Expr:
    return power.as_base_exp()[1]


def exponent_terms(exponent: sp.Expr) -> Iterator[tuple[sp.Rational, sp.Expr]]:
    """An exponent as pairs (c, m) with Σ c · m and rational c: (7/10, 1) and (−2, t) of 7/10 − 2 t."""
    for term in sp.Add.make_args(exponent):
        yield term.as_coeff_Mul(rational=True)


def _named(c: sp.Rational, known: list[sp.Rational]) -> sp.Expr:
    """The exponent as an integer plus a multiple of a symbol, of a known one where that is possible."""
    for of in known:
        for a in _MULTIPLES:
            if (c - a * of).is_Integer and abs(c - a * of) <= SIMPLE:
                return c - a * of + a * sp.Symbol(f"{_NAMED}{of}", positive=True)
    known.append(c % 1 if abs(c) <= SIMPLE else abs(c))
    return _named(c, known)


def is_large(expr: Any) -> bool:
    """Whether it is too large to be brought to another form."""
    return _expanded(sp.sympify(expr)) > MOST_TERMS


def check_size(expr: Any) -> None:
    """TooLargeError where it is too large to be brought to another form."""
    if is_large(expr):
        raise TooLargeError(f"more than {MOST_TERMS} terms")


def _expanded(e: sp.Expr) -> int:
    """About how many terms there are once products are multiplied out, at most; the largest part of a function."""
    if e.is_Atom:
        return 1
    each = [_expanded(a) for a in e.args]
    if e.is_Add:
        return sum(each)
    if e.is_Mul:
        return min(math.prod(each), 1 << 30)
    if e.is_Pow and e.exp.is_Integer:
        return terms_of_power(each[0], abs(int(e.exp)))
    return max(each)


def terms_of_power(k: int, n: int) -> int:
    """How many terms the n-th power of a sum of k has, at most."""
    return 1 if k <= 1 else k if n == 1 else 1 << 30 if max(n, k) > MOST_TERMS else math.comb(n + k - 1, n)
