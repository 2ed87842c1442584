"""Is a symbolic expression zero at every token, for every V? Decided by a normal form, without floating point.

An expression in the symbols of a `SymbolicToken` is a rational function of *generators*: symbols, logarithms, sums
over k ≠ y, and powers that are no whole numbers, such as p_k^(7/10). Each rewriting here is an identity: logarithms
of products are split, summands are taken apart into partial fractions so that equal sums become equal symbols, and
the powers of one base become whole powers of one root. Taken as independent, generators leave zero only where the
expression is zero.

Arguments of logarithms and bases of powers are probabilities and sums of them, hence positive.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import lcm, prod
from typing import Any

import sympy as sp

from qunify.token import SumOverOthers, V, evaluate, expanded, is_mask, sum_over_others, varies

E = sp.S.Exp1


def vanishes(expr: Any) -> bool:
    """Whether the normal form is zero: True is a proof, False is no verdict."""
    expr = canonical(evaluate(expr))
    return expr == 0 or _Ground(expr).numerator(expr) == 0


@lru_cache(maxsize=1 << 16)
def canonical(expr: sp.Expr) -> sp.Expr:
    """The same expression with its logarithms split, its powers on simple bases, and its sums in normal form."""
    if expr.is_Atom:
        return expr
    args = [canonical(a) for a in expr.args]
    if isinstance(expr, SumOverOthers):
        return _sum(args[0])
    if isinstance(expr, sp.log):
        return sp.expand(sp.Add(*[e * _log(b) for b, e in _factors(args[0])]))
    if isinstance(expr, sp.exp):
        return sp.Mul(*[exponential(term) for term in sp.Add.make_args(expanded(args[0]))])
    if isinstance(expr, sp.Pow) and not args[1].is_Integer:
        return sp.Mul(*[b ** expanded(e * args[1]) for b, e in _factors(args[0])])
    if isinstance(expr, sp.Pow) and args[0].is_Add:
        return sp.Mul(*[b ** args[1] for b in _simple(args[0])])
    return expr.func(*args)


def _factors(expr: sp.Expr) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    """A positive expression as powers of positive bases; a sum is a number times a sum of whole coefficients."""
    top, bottom = sp.fraction(sp.together(expr))
    for part, sense in ((top, 1), (bottom, -1)):
        for factor in sp.Mul.make_args(part):
            base, exponent = factor.as_base_exp()
            for simple in _simple(_upward(base)) if base.is_Add else (base,):
                yield simple, sense * exponent


def _simple(base: sp.Expr) -> tuple[sp.Expr, ...]:
    """A sum as common factor times the rest of it."""
    return sp.Mul.make_args(sp.factor_terms(sp.expand(base)))


def _upward(expr: sp.Expr) -> sp.Expr:
    """Of an expression and its negative the one that is positive for probabilities, where a sample point tells."""
    sample = expr.xreplace({s: sp.Integer(7) if s == V else sp.Rational(1, 7) for s in expr.free_symbols})
    return -expr if sample.is_negative else expr


def exponential(exponent: sp.Expr) -> sp.Expr:
    """e to this power, with exp(c log x) as x^c."""
    logs = [f for f in sp.Mul.make_args(exponent) if isinstance(f, sp.log)]
    return logs[0].args[0] ** (exponent / logs[0]) if len(logs) == 1 else sp.exp(exponent)


def _log(base: sp.Expr) -> sp.Expr:
    return sp.expand_log(sp.log(base), force=True) if base.is_Rational else sp.log(base)


def _sum(summand: sp.Expr) -> sp.Expr:
    """Σ over k ≠ y with its summand in partial fractions, one atom for each independent part."""
    total = sp.S.Zero
    for term in sp.Add.make_args(_idempotent(expanded(summand))):
        constant, varying = sp.S.One, sp.S.One
        for factor in sp.Mul.make_args(term):
            if varies(factor):
                varying *= factor
            else:
                constant *= factor
        total += constant * _apart(varying)
    return total


def _apart(summand: sp.Expr) -> sp.Expr:
    ground = _Ground(summand)
    top, bottom = sp.fraction(sp.together(ground.of(summand)))
    divisors = [f for f in sp.Mul.make_args(bottom) if f.as_base_exp()[0].is_Add and varies(ground.back(f))]
    if not divisors:
        return sum_over_others(summand)
    mixed = {s for f in divisors for s in f.free_symbols if varies(ground.back(s))}
    flat = sp.apart(top / bottom, min(mixed, key=lambda s: str(ground.back(s))))
    return sp.Add(*[_terms(part, ground) for part in sp.Add.make_args(flat)])


def _terms(fraction: sp.Expr, ground: _Ground) -> sp.Expr:
    top, bottom = sp.fraction(sp.cancel(fraction))
    return sp.Add(*[sum_over_others(canonical(ground.back(t / bottom))) for t in sp.Add.make_args(sp.expand(top))])


def _idempotent(expr: sp.Expr) -> sp.Expr:
    """Powers of masks, which are 0 or 1, are the masks themselves."""
    masks = [s for s in expr.free_symbols if is_mask(s)]
    if not masks:
        return expr
    return expanded(expr).replace(lambda e: e.is_Pow and is_mask(e.base) and e.exp.is_positive, lambda e: e.base)


class _Ground:
    """One expression as a rational function of independent generators, and back."""

    def __init__(self, expr: sp.Expr) -> None:
        self._roots: dict[tuple[sp.Expr, sp.Expr], int] = {}  # (base, m): n, where base^(m/n) is a generator
        self._generators: dict[Any, sp.Dummy] = {}
        self._meaning: dict[sp.Symbol, sp.Expr] = {}
        self._collect(expr)

    def of(self, expr: sp.Expr) -> sp.Expr:
        """In generators."""
        n = self._roots.get((expr, sp.S.One))
        if n:
            return self._root(expr, sp.S.One) ** n
        if expr.is_Rational or expr.is_Symbol:
            return expr
        if expr.is_Add or expr.is_Mul:
            return expr.func(*[self.of(a) for a in expr.args])
        if expr.is_Pow or isinstance(expr, sp.exp):
            base, exponent = expr.as_base_exp()
            return sp.Mul(*[self._power(base, c, monomial) for c, monomial in _split(exponent)])
        return self._generator(expr, expr)

    def back(self, expr: sp.Expr) -> sp.Expr:
        return expr.xreplace(self._meaning)

    def numerator(self, expr: sp.Expr) -> sp.Expr:
        """Zero if the expression is, bases that have roots being no independent generators."""
        flat = self.of(expr)
        definitions, relations = self._relations()
        symbols = flat.free_symbols.union(*(e.free_symbols for e in definitions.values()))
        free = sorted(symbols - set(definitions), key=sp.default_sort_key)
        if not free:
            return sp.expand(flat)
        top = _in_field(flat, definitions, sp.field(free, sp.QQ)[0]).numer.as_expr()
        for root, relation in relations:
            if top.has(root):
                top = sp.prem(top, relation, root)
        return _idempotent(top)

    def _relations(self) -> tuple[dict[sp.Symbol, sp.Expr], list[tuple[sp.Symbol, sp.Expr]]]:
        """rootⁿ = base for every base that is a sum: solved for a generator, or as a polynomial that is 0."""
        definitions: dict[sp.Symbol, sp.Expr] = {}
        relations = []
        for (base, monomial), n in list(self._roots.items()):
            if monomial != 1 or base.is_Symbol or base == E:
                continue
            root = self._root(base, monomial)
            inside = base.func(*[self.of(a) for a in base.args]) if base.is_Add else base
            relation = sp.expand(sp.numer(sp.together(_resolved(root**n - inside, definitions))))
            solved = next((s for s in sorted(relation.free_symbols, key=self._rank) if _solvable(relation, s)), None)
            if solved is None:
                relations.append((root, relation))
            else:
                factor, remainder = sp.Poly(relation, solved).all_coeffs()
                definitions[solved] = -remainder / factor
        return definitions, relations

    def _rank(self, generator: sp.Symbol) -> tuple[bool, str]:
        """Sums first."""
        return not isinstance(self._meaning.get(generator), SumOverOthers), str(self.back(generator))

    def _power(self, base: sp.Expr, c: sp.Rational, monomial: sp.Expr) -> sp.Expr:
        if monomial == 1 and c.is_Integer and base != E:
            return self.of(base) ** c
        return self._root(base, monomial) ** (c * self._roots[base, monomial])

    def _collect(self, expr: sp.Expr) -> None:
        if expr.is_Add or expr.is_Mul:
            for a in expr.args:
                self._collect(a)
        elif expr.is_Pow or isinstance(expr, sp.exp):
            base, exponent = expr.as_base_exp()
            divisor = base.is_Add and exponent.is_negative and any(a.has(SumOverOthers) for a in base.args)
            for c, monomial in _split(exponent):
                if divisor or monomial != 1 or base == E or not c.is_Integer:
                    self._roots[base, monomial] = lcm(self._roots.get((base, monomial), 1), int(c.q))
            self._collect(base)

    def _root(self, base: sp.Expr, monomial: sp.Expr) -> sp.Symbol:
        n = self._roots[base, monomial]
        return self._generator((base, monomial), base ** (monomial / n))

    def _generator(self, key: Any, meaning: sp.Expr) -> sp.Symbol:
        if key not in self._generators:
            self._generators[key] = sp.Dummy(positive=True)
            self._meaning[self._generators[key]] = meaning
        return self._generators[key]


def _resolved(expr: sp.Expr, definitions: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """The expression with every definition put in."""
    while expr.free_symbols & definitions.keys():
        expr = expr.xreplace(definitions)
    return expr


def _solvable(relation: sp.Expr, generator: sp.Symbol) -> bool:
    """Whether the relation is linear in the generator."""
    return relation.is_polynomial(generator) and sp.degree(relation, generator) == 1


def _in_field(expr: sp.Expr, definitions: dict[sp.Symbol, sp.Expr], field: Any) -> Any:
    """The expression as an element of a field of rational functions, where the arithmetic is fast."""
    known: dict[sp.Expr, Any] = {}

    def of(e: sp.Expr) -> Any:
        if e not in known:
            known[e] = compute(e)
        return known[e]

    def compute(e: sp.Expr) -> Any:
        if e.is_Add:
            return sum((of(a) for a in e.args), start=field.zero)
        if e.is_Mul:
            return prod((of(a) for a in e.args), start=field.one)
        if e.is_Pow:
            return of(e.base) ** int(e.exp)
        return of(definitions[e]) if e in definitions else field.from_expr(e)

    return of(expr)


def _split(exponent: sp.Expr) -> Iterator[tuple[sp.Rational, sp.Expr]]:
    """An exponent as Σ c · m with rational c."""
    for term in sp.Add.make_args(expanded(exponent)):
        yield term.as_coeff_Mul(rational=True)
