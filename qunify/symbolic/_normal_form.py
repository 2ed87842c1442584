"""Is a symbolic expression zero at every token, for every V? Decided by a normal form, without floating point.

An expression in the symbols of a `SymbolicToken` is a rational function of *generators*: symbols, logarithms, sums over
k ≠ y, and fractional powers such as p_k^(7/10). Two steps bring it to a normal form, by identities alone:

1. `canonical` splits logarithms of products and writes summands in partial fractions, so that equal sums become equal
   symbols: Σ p_k/(1 − p_k) becomes Σ 1/(1 − p_k) − (V − 1).
2. `_Generators` writes the powers of one base as whole powers of one root, and all of it as one fraction.

A numerator that is zero with the generators as independent variables proves that the expression is zero. The reverse is
not claimed: between generators there may be relations that are not known here.

Arguments of logarithms and bases of powers are probabilities and sums of them, hence positive.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import lru_cache
from math import lcm
from typing import Any

import sympy as sp

from qunify.symbolic._size import MOST_IN_A_FRACTION, TooLargeError, exponent_terms, terms_of_power, with_names
from qunify.token import SumOverOthers, V, evaluate, expanded, is_mask, sum_over_others, varies

E = sp.S.Exp1


def vanishes(expr: Any) -> bool:
    """Whether the normal form is zero: True is a proof, False is no verdict. TooLargeError where it has too many
    terms."""
    expr = canonical(with_names(evaluate(expr)))
    return expr == 0 or _Generators(expr).numerator(expr) == 0


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
        return sp.Mul(*[b ** args[1] for b in _content_and_rest(args[0])])
    return expr.func(*args)


def _factors(expr: sp.Expr) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    """A positive expression as pairs (base, exponent): p_y p_k²/(2 p_y + 2 p_k) has bases p_y, p_k, 2 and p_y + p_k."""
    top, bottom = sp.fraction(sp.together(expr))
    for part, sense in ((top, 1), (bottom, -1)):
        for factor in sp.Mul.make_args(part):
            base, exponent = factor.as_base_exp()
            for simple in _content_and_rest(_positive(base)) if base.is_Add else (base,):
                yield simple, sense * exponent


def _content_and_rest(base: sp.Expr) -> tuple[sp.Expr, ...]:
    """The factors of a sum by its common factor: 2 and p_y + p_k of 2 p_y + 2 p_k."""
    return sp.Mul.make_args(sp.factor_terms(sp.expand(base)))


def _positive(expr: sp.Expr) -> sp.Expr:
    """The expression, or its negative where a sample of probabilities shows that to be positive: 1 − p_y of p_y − 1."""
    sample = expr.xreplace({s: sp.Integer(7) if s == V else sp.Rational(1, 7) for s in expr.free_symbols})
    return -expr if sample.is_negative else expr


def exponential(exponent: sp.Expr) -> sp.Expr:
    """exp of an exponent, with x^c for exp(c log x)."""
    logs = [f for f in sp.Mul.make_args(exponent) if isinstance(f, sp.log)]
    return logs[0].args[0] ** (exponent / logs[0]) if len(logs) == 1 else sp.exp(exponent)


def _log(base: sp.Expr) -> sp.Expr:
    return sp.expand_log(sp.log(base), force=True) if base.is_Rational else sp.log(base)


def _sum(summand: sp.Expr) -> sp.Expr:
    """Σ over k ≠ y of a summand in partial fractions, as one atom for each of its independent terms."""
    total = sp.S.Zero
    for term in sp.Add.make_args(_without_mask_powers(expanded(summand))):
        constant, varying = sp.S.One, sp.S.One
        for factor in sp.Mul.make_args(term):
            if varies(factor):
                varying *= factor
            else:
                constant *= factor
        total += constant * _sum_by_partial_fractions(varying)
    return total


def _sum_by_partial_fractions(summand: sp.Expr, *, with_sums: bool = False) -> sp.Expr:
    """Σ over k ≠ y of one product, in partial fractions of a generator that varies with k and stands in a divisor."""
    constants = {a: sp.Dummy(positive=True) for a in summand.atoms(SumOverOthers)}
    if constants:  # sums inside are numbers like any other
        parts = _sum_by_partial_fractions(summand.xreplace(constants), with_sums=True)
        return parts.xreplace({number: a for a, number in constants.items()})
    generators = _Generators(summand)
    top, bottom = sp.fraction(sp.together(generators.rational(summand)))
    divisors = [f for f in sp.Mul.make_args(bottom) if f.as_base_exp()[0].is_Add and varies(generators.meaning(f))]
    if not divisors:
        return sum_over_others(summand)
    varying = {s for f in divisors for s in f.free_symbols if varies(generators.meaning(s))}
    parts = sp.apart(top / bottom, min(varying, key=lambda s: str(generators.meaning(s))))
    return sp.Add(*[_sum_by_terms(part, generators, factored=with_sums) for part in sp.Add.make_args(parts)])


def _sum_by_terms(fraction: sp.Expr, generators: _Generators, *, factored: bool) -> sp.Expr:
    """Σ over k ≠ y of a fraction in generators, term by term of its numerator; `factored` parts from its denominator
    what does not vary."""
    top, bottom = sp.fraction(sp.cancel(fraction))
    bottom = sp.factor(bottom) if factored else bottom
    terms = [generators.meaning(t / bottom) for t in sp.Add.make_args(sp.expand(top))]
    return sp.Add(*[sum_over_others(canonical(t)) for t in terms])


def _without_mask_powers(expr: sp.Expr) -> sp.Expr:
    """Powers of masks as the masks themselves: m² = m, for they are 0 or 1."""
    masks = [s for s in expr.free_symbols if is_mask(s)]
    if not masks:
        return expr
    return expanded(expr).replace(lambda e: e.is_Pow and is_mask(e.base) and e.exp.is_positive, lambda e: e.base)


class _Generators:
    """The generators of one expression: symbols in which it is a rational function.

    √p_y · p_y + Σ p_k² has two, a = √p_y and b = Σ p_k². `rational` writes it as a³ + b, p_y being a², and `meaning`
    turns a³ + b into the expression again. Where the base of a root is a sum, its generators depend on each other:
    with r = √(p_y + p_k), p_k is r² − p_y. `numerator` puts such relations in, and so finds that
    1/(r − 1) − (r + 1)/(p_y + p_k − 1) is zero.
    """

    def __init__(self, expr: sp.Expr) -> None:
        self._roots: dict[tuple[sp.Expr, sp.Expr], int] = {}  # (base, m): n, where base^(m/n) is a generator
        self._generators: dict[Any, sp.Dummy] = {}
        self._meaning: dict[sp.Symbol, sp.Expr] = {}
        self._collect(expr)

    def rational(self, expr: sp.Expr) -> sp.Expr:
        """The expression as a rational function of generators."""
        n = self._roots.get((expr, sp.S.One))
        if n:
            return self._root(expr, sp.S.One) ** n
        if expr.is_Rational or expr.is_Symbol:
            return expr
        if expr.is_Add or expr.is_Mul:
            return expr.func(*[self.rational(a) for a in expr.args])
        if expr.is_Pow or isinstance(expr, sp.exp):
            base, exponent = expr.as_base_exp()
            return sp.Mul(*[self._power(base, c, monomial) for c, monomial in exponent_terms(expanded(exponent))])
        return self._generator(expr, expr)

    def meaning(self, expr: sp.Expr) -> sp.Expr:
        """What an expression in generators stands for."""
        return expr.xreplace(self._meaning)

    def numerator(self, expr: sp.Expr) -> sp.Expr:
        """The numerator of the expression in independent generators; if it is 0, so is the expression."""
        flat = self.rational(expr)
        definitions, relations = self._relations()
        symbols = flat.free_symbols.union(*(e.free_symbols for e in definitions.values()))
        free = sorted(symbols - set(definitions), key=sp.default_sort_key)
        if not free:
            return sp.expand(flat)
        top = _in_field(flat, definitions, sp.field(free, sp.QQ)[0]).numer.as_expr()
        for root, relation in relations:
            if top.has(root):
                top = sp.prem(top, relation, root)
        return _without_mask_powers(top)

    def _relations(self) -> tuple[dict[sp.Symbol, sp.Expr], list[tuple[sp.Symbol, sp.Expr]]]:
        """rootⁿ = base for every base that is a sum, as definitions and as polynomials that are 0.

        A relation that is linear in some generator is solved for it: {p_k: r² − p_y} in the example above. Of any other
        the polynomial is kept, with its root.
        """
        definitions: dict[sp.Symbol, sp.Expr] = {}
        relations = []
        for (base, monomial), n in list(self._roots.items()):
            if monomial != 1 or base.is_Symbol or base == E:
                continue
            root = self._root(base, monomial)
            inside = base.func(*[self.rational(a) for a in base.args]) if base.is_Add else base
            relation = sp.expand(sp.numer(sp.together(_substituted(root**n - inside, definitions))))
            candidates = sorted(relation.free_symbols, key=self._sums_first)
            solved = next((s for s in candidates if _is_linear_in(s, relation)), None)
            if solved is None:
                relations.append((root, relation))
            else:
                factor, remainder = sp.Poly(relation, solved).all_coeffs()
                definitions[solved] = -remainder / factor
        return definitions, relations

    def _sums_first(self, generator: sp.Symbol) -> tuple[bool, str]:
        """A key to sort generators by: sums over k ≠ y, then the others."""
        return not isinstance(self._meaning.get(generator), SumOverOthers), str(self.meaning(generator))

    def _power(self, base: sp.Expr, c: sp.Rational, monomial: sp.Expr) -> sp.Expr:
        """base^(c · monomial) in generators."""
        if monomial == 1 and c.is_Integer and base != E:
            return self.rational(base) ** c
        return self._root(base, monomial) ** (c * self._roots[base, monomial])

    def _collect(self, expr: sp.Expr) -> None:
        """Find for every base the root of which all its powers are whole powers: the n of `_roots`."""
        if expr.is_Add or expr.is_Mul:
            for a in expr.args:
                self._collect(a)
        elif expr.is_Pow or isinstance(expr, sp.exp):
            base, exponent = expr.as_base_exp()
            divisor = base.is_Add and exponent.is_negative and any(a.has(SumOverOthers) for a in base.args)
            for c, monomial in exponent_terms(expanded(exponent)):
                if divisor or monomial != 1 or base == E or not c.is_Integer:
                    self._roots[base, monomial] = lcm(self._roots.get((base, monomial), 1), int(c.q))
            self._collect(base)

    def _root(self, base: sp.Expr, monomial: sp.Expr) -> sp.Symbol:
        """The generator base^(monomial/n)."""
        n = self._roots[base, monomial]
        return self._generator((base, monomial), base ** (monomial / n))

    def _generator(self, key: Any, meaning: sp.Expr) -> sp.Symbol:
        if key not in self._generators:
            self._generators[key] = sp.Dummy(positive=True)
            self._meaning[self._generators[key]] = meaning
        return self._generators[key]


def _substituted(expr: sp.Expr, definitions: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """The expression with every definition put in, also those that other definitions need."""
    while expr.free_symbols & definitions.keys():
        expr = expr.xreplace(definitions)
    return expr


def _is_linear_in(generator: sp.Symbol, relation: sp.Expr) -> bool:
    return relation.is_polynomial(generator) and sp.degree(relation, generator) == 1


def _in_field(expr: sp.Expr, definitions: dict[sp.Symbol, sp.Expr], field: Any) -> Any:
    """The expression as an element of a field of rational functions, where the arithmetic is fast. TooLargeError where
    one on the way has too many terms."""
    known: dict[sp.Expr, Any] = {}

    def of(e: sp.Expr) -> Any:
        if e not in known:
            known[e] = compute(e)
        return known[e]

    def checked(x: Any, power: int = 1) -> Any:
        if max(terms_of_power(len(part), power) for part in (x.numer, x.denom)) > MOST_IN_A_FRACTION:
            raise TooLargeError(f"more than {MOST_IN_A_FRACTION} terms in a fraction")
        return x

    def compute(e: sp.Expr) -> Any:
        if e.is_Add:
            return functools.reduce(lambda x, a: checked(x + of(a)), e.args, field.zero)
        if e.is_Mul:
            return functools.reduce(lambda x, a: checked(x * of(a)), e.args, field.one)
        if e.is_Pow:
            return checked(of(e.base), abs(int(e.exp))) ** int(e.exp)
        return of(definitions[e]) if e in definitions else field.from_expr(e)

    return of(expr)
