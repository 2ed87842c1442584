"""The Token of symbols: one generic position of a vocabulary of V tokens, for statements that hold for every V.

A vector is a pair, its entry at the label and its entry at any other token k. A sum over the vocabulary is then
f_y + Σ f_k, with Σ over k ≠ y (`sum_over_others`): it is linear, Σ 1 = V − 1 and Σ p_k = 1 − p_y for every
distribution, and any other sum is kept as one atom in canonical form (`SumOverOthers`), so that equal sums are equal
symbols. For instance, Σ over all tokens of p² is p_y² + SumOverOthers(p_k²). Differentiation treats p_y and p_k as
free, and applies the derivative of the softmax at the end.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import sympy as sp

from qunify._lib.arithmetic import Arithmetic
from qunify._lib.simple import as_written
from qunify.token._base import Distribution, Scalar, Token
from qunify.token._pools import Pool

V = sp.Symbol("V", integer=True, positive=True)  #: the size of the vocabulary
LSE = sp.Symbol("lse", real=True)  #: log Σ exp z
TEACHER_LSE = sp.Symbol("lse_tea", real=True)  #: that of the teacher's logits

#: log 0, as the one-hot label has it at other tokens. It only occurs multiplied by that 0.
LOG_ZERO = sp.Symbol("ruled_out", negative=True)


#: So many places of an order are told apart: what is said of them in pairs takes seconds, and minutes with one more.
RANKED = 4

#: Floors below this guard divisions; they are no part of a method.
GUARD = 1e-20


def rational(x: Any) -> Any:
    """A SymPy expression; a float becomes the fraction it was written as (0.7 is 7/10, and 1/3 is one third)."""
    if not isinstance(x, float):
        return sp.sympify(x)
    return sp.Rational(as_written(x)) if math.isfinite(x) else sp.Rational(repr(x))


_OPERATIONS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
    ">": sp.Gt, "<": sp.Lt, "abs": sp.Abs,
}  # fmt: skip


class SymbolicVector(Arithmetic):
    """A vector over the vocabulary: its entry at the label, and its entry at another token k."""

    __slots__ = ("elsewhere", "label")

    def __init__(self, label: Any, elsewhere: Any) -> None:
        self.label, self.elsewhere = rational(label), rational(elsewhere)

    def apply(self, f: Callable[[Any], Any]) -> SymbolicVector:
        return SymbolicVector(f(self.label), f(self.elsewhere))

    def _operation(self, name: str, *operands: Any) -> SymbolicVector:
        f, vectors = _OPERATIONS[name], [x if isinstance(x, SymbolicVector) else SymbolicVector(x, x) for x in operands]
        return SymbolicVector(f(*(v.label for v in vectors)), f(*(v.elsewhere for v in vectors)))

    # SymPy expressions would otherwise try to absorb a SymbolicVector standing to their right.
    _op_priority = 1000.0


class sg(sp.Function):
    """Stop-gradient: its argument for evaluation, a constant for differentiation."""

    def _eval_derivative(self, _: Any) -> Any:
        return sp.S.Zero


class SumOverOthers(sp.Function):
    """Σ over k ≠ y of an expression in per-token symbols."""

    is_commutative = True
    is_real = True

    def __new__(cls, summand: Any, **options: Any) -> Any:
        """Powers of one base are joined, so that equal summands are equal: p²·p^(−t) becomes p^(2−t)."""
        summand = sp.sympify(summand)
        if any(_has_only_parameters(a.exp) for a in summand.atoms(sp.Pow)):
            summand = sp.powsimp(summand, combine="exp")
        return super().__new__(cls, summand, **options)

    def _eval_derivative(self, symbol: Any) -> Any:
        return sum_over_others(self.args[0].diff(symbol))


def _has_only_parameters(exponent: sp.Expr) -> bool:
    """Whether an exponent has symbols, all of them parameters of a method and none an entry of the token."""
    return bool(exponent.free_symbols) and not any(s.name.endswith((AT_K, "_y")) for s in exponent.free_symbols)


AT_K = "_k"  # symbols with this suffix vary over the vocabulary


#: What stands for a context in symbols: tea_y and tea_k for the teacher's probabilities of y and of k ≠ y.
SYMBOLS = {
    "reference_logits": "ref",
    "teacher_logits": "tea",
    "old_logits": "old",
    "prior_logits": "prior",
    "teacher_base_logits": "base",
    "token_weight": "w",
    "token_mask": "c",
    "negative_mask": "neg",
    "token_values": "val",
}


def per_token(name: str, *, mask: bool = False) -> tuple[sp.Symbol, sp.Symbol]:
    """Symbols for the entries of a new vector, `name_y` and `name_k`: positive, or with `mask` 0 or 1."""
    if mask:
        return indicator(name, varying=False), indicator(name, varying=True)
    return sp.Symbol(f"{name}_y", positive=True), sp.Symbol(f"{name}{AT_K}", positive=True)


def indicator(name: str, *, varying: bool) -> sp.Symbol:
    """A number that is 0 or 1, at the label or, varying, at every other token."""
    return sp.Symbol(f"{name}{AT_K if varying else '_y'}", integer=True, nonnegative=True)


def is_mask(symbol: sp.Symbol) -> bool:
    """Whether a symbol is 0 or 1."""
    return bool(symbol.is_integer and symbol.is_nonnegative and not symbol.is_positive)


def varies(expr: sp.Expr) -> bool:
    """Whether the expression changes from one k ≠ y to another. The argument of a sum does not."""
    if isinstance(expr, SumOverOthers):
        return False
    if isinstance(expr, sp.Symbol):
        return expr.name.endswith(AT_K)
    return any(varies(a) for a in expr.args)


def renamed(expr: sp.Expr, old: str, new: str) -> dict[sp.Symbol, sp.Symbol]:
    """For `xreplace`: every symbol of the expression that ends in one suffix → the same with another, p_k → p_j."""
    matching = [s for s in expr.free_symbols if s.name.endswith(old)]
    return {s: sp.Symbol(s.name.removesuffix(old) + new, **s.assumptions0) for s in matching}


def at_label(summand: sp.Expr) -> sp.Expr:
    """A summand over k ≠ y at the label: p_k² becomes p_y²."""
    return summand.xreplace(renamed(summand, AT_K, "_y"))


def expanded(expr: sp.Expr) -> sp.Expr:
    """Products spread over sums, denominators left whole: a (b + c)/(d + e) is a b/(d + e) + a c/(d + e)."""
    divisors = {p: sp.Dummy() for p in expr.atoms(sp.Pow) if p.base.is_Add and p.exp.is_negative}
    spread = sp.expand(expr.xreplace(divisors), power_exp=False, log=False)
    return spread.xreplace({d: p for p, d in divisors.items()})


def sum_over_others(expr: Any) -> sp.Expr:
    """Σ over k ≠ y, in canonical form: Σ (2 p_k + 3) is 2 (1 − p_y) + 3 (V − 1)."""
    total = sp.S.Zero
    for term in sp.Add.make_args(expanded(sp.sympify(expr))):
        factors = sp.Mul.make_args(term)
        constant = sp.Mul(*[a for a in factors if not varies(a)])
        varying = sp.Mul(*[a for a in factors if varies(a)])
        if varying == 1:
            total += constant * (V - 1)
        elif varying.is_Symbol and varying.is_positive:  # an entry of a distribution; a mask is not positive
            total += constant * (1 - sp.Symbol(varying.name.removesuffix(AT_K) + "_y", positive=True))
        else:
            total += constant * SumOverOthers(varying)
    return total


class SymbolicToken(Token):
    """One generic position. Every context is available; each is a distribution of free symbols."""

    p_y, p_k = per_token("p")

    def __init__(self) -> None:
        self._opaques: dict[tuple[Any, ...], int] = {}
        self.predictions = {self.p_y: SOFTMAX}

    @cached_property
    def label(self) -> Distribution:
        return Distribution(lambda: SymbolicVector(1, 0), lambda: SymbolicVector(0, LOG_ZERO))

    @cached_property
    def policy(self) -> Distribution:
        return self._free("p")

    @cached_property
    def uniform(self) -> Distribution:
        return Distribution(lambda: SymbolicVector(1 / V, 1 / V), lambda: SymbolicVector(-sp.log(V), -sp.log(V)))

    @cached_property
    def logits(self) -> SymbolicVector:
        return self.policy.log + LSE

    @property
    def vocab(self) -> Scalar:
        return V

    @property
    def log_sum_exp(self) -> Scalar:
        return LSE

    @property
    def p_label(self) -> Scalar:
        return self.p_y

    @property
    def log_p_label(self) -> Scalar:
        return sp.log(self.p_y)

    @property
    def p_rest(self) -> Scalar:
        return 1 - self.p_y

    @property
    def log_p_rest(self) -> Scalar:
        return sp.log(1 - self.p_y)

    def context(self, name: str) -> Any:
        if name.endswith("_logits"):
            return self._free(SYMBOLS[name])
        if name == "negative_mask":
            return SymbolicVector(*per_token(SYMBOLS[name], mask=True))
        if name == "token_values":
            return SymbolicVector(*(sp.Symbol(f"{SYMBOLS[name]}{at}", real=True) for at in ("_y", AT_K)))
        return sp.Symbol(SYMBOLS[name], real=True)

    @property
    def is_number(self) -> SymbolicVector:
        return SymbolicVector(*per_token("num", mask=True))

    @property
    def teacher_logits(self) -> SymbolicVector:
        return self.teacher.log + TEACHER_LSE

    def pooled(self, pool: Pool) -> sp.Symbol:
        """A number of which no more is known than that it is positive; a share or a spread may be zero."""
        sign = "positive" if pool.how in ("mean", "quantile") else "nonnegative"
        return sp.Symbol(pool.name, **{sign: True})

    def _free(self, name: str) -> Distribution:
        """A distribution of free symbols: all that is known of it is that it sums to one."""
        entries = SymbolicVector(*per_token(name))
        return Distribution(lambda: entries, lambda: entries.apply(sp.log))

    def _opaque_name(self, operation: str, d: Distribution, *settings: Any) -> str:
        """A name for the result of sorting or projecting d, which has no formula; equal arguments give one name."""
        key = (operation, *settings, d.probs.label, d.probs.elsewhere)
        return f"{operation}{self._opaques.setdefault(key, len(self._opaques))}"

    def _opaque(self, operation: str, d: Distribution, *settings: Any) -> Distribution:
        return self._free(self._opaque_name(operation, d, *settings))

    @property
    def sorts_without_label(self) -> bool:
        """Whether all distributions that were sorted or projected have one formula for the label and other tokens."""
        given = (pair for key in self._opaques for pair in (key[-2:], key[-4:-2] if key[0] == "sorted" else key[-2:]))
        return all(at_label(elsewhere) == label for label, elsewhere in given)

    # ---- operations -----------------------------------------------------------------------------------
    def _map(self, f: Callable[[Any], Any], x: Any) -> Any:
        return x.apply(f) if isinstance(x, SymbolicVector) else f(sp.sympify(x))

    def stop(self, x: Any) -> Any:
        if isinstance(x, Distribution):
            return Distribution(lambda: self.stop(x.probs), lambda: self.stop(x.log))
        return self._map(lambda a: a if a.is_number else sg(a), x)

    def log(self, x: Any) -> Any:
        return self._map(lambda a: sp.expand_log(sp.log(a)), x)

    def exp(self, x: Any) -> Any:
        return self._map(lambda a: sp.powsimp(sp.exp(sp.expand(a))), x)

    def maximum(self, a: Any, b: Any) -> Any:
        """A floor that only keeps a divisor from zero, below every number that occurs, is left out."""
        return a if isinstance(b, float) and 0 < b < GUARD else super().maximum(a, b)

    def power(self, x: Any, a: Any) -> Any:
        exponent = rational(a)
        return self._map(lambda b: b**exponent, x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if getattr(condition, "free_symbols", None) == {V}:  # decided for V ≥ 2
            decided = condition.subs(V, sp.Dummy(integer=True, positive=True) + 1)
            condition = decided if decided in (sp.true, sp.false) else condition
        if isinstance(condition, SymbolicVector):
            at = [x if isinstance(x, SymbolicVector) else SymbolicVector(x, x) for x in (a, b)]
            return SymbolicVector(
                sp.Piecewise((at[0].label, condition.label), (at[1].label, True)),
                sp.Piecewise((at[0].elsewhere, condition.elsewhere), (at[1].elsewhere, True)),
            )
        return sp.Piecewise((a, condition), (b, True))

    def sign(self, x: Any) -> Any:
        return self._map(sp.sign, x)

    def sum(self, v: Any) -> Scalar:
        v = v if isinstance(v, SymbolicVector) else SymbolicVector(v, v)
        return v.label + sum_over_others(v.elsewhere)

    def sum_others(self, v: SymbolicVector) -> SymbolicVector:
        return self.sum(v) - v

    def at_label(self, v: Any) -> Scalar:
        return v.label if isinstance(v, SymbolicVector) else v

    def softmax(self, logits: SymbolicVector) -> Distribution:
        weights = self.exp(logits)
        total = self.sum(weights)
        return Distribution(lambda: weights / total, lambda: logits - sp.log(total))

    def conditioned(self, d: Distribution, mask: SymbolicVector) -> Distribution:
        if mask.label == 0 and mask.elsewhere == 0:  # no token is left: a method gives this distribution weight 0
            return self.uniform
        return self.normalised(mask * d.probs)

    def without_label(self, d: Distribution) -> Distribution:
        off = 1 - d.probs.label  # the entry at the label is 0, and its logarithm never counts
        return Distribution(
            lambda: SymbolicVector(0, d.probs.elsewhere / off), lambda: SymbolicVector(0, d.log.elsewhere - sp.log(off))
        )

    def argmax(self, d: Distribution) -> Distribution:
        return self._opaque("argmax", d)

    def in_top_k(self, d: Distribution, k: Any) -> SymbolicVector:
        if k == V:
            return SymbolicVector(1, 1)
        return SymbolicVector(*per_token(self._opaque_name("top", d, k), mask=True))

    def at_rank(self, d: Distribution, rank: int) -> Distribution:
        if rank > RANKED:
            raise NotImplementedError(
                f"an order is compared in symbols up to {RANKED} tokens, got the one of rank {rank}"
            )
        return self._opaque("rank", d, rank)

    def ranks(self, d: Distribution) -> SymbolicVector:
        return SymbolicVector(*per_token(self._opaque_name("place", d)))

    def in_order_of(self, d: Distribution, by: Distribution) -> SymbolicVector:
        return SymbolicVector(*per_token(self._opaque_name("sorted", by, d.probs.label, d.probs.elsewhere)))

    def top_p(self, d: Distribution, mass: float) -> SymbolicVector:
        if mass == 1:  # every token has some mass, so that all are needed to reach 1
            return SymbolicVector(1, 1)
        return SymbolicVector(*per_token(self._opaque_name("topP", d, mass), mask=True))

    def q_log(self, log_x: Any, q: Any) -> Any:
        return log_x if q == 0 else self._map(lambda a: (sp.powsimp(sp.exp(q * a)) - 1) / q, log_x)

    def log_add(self, log_x: Any, c: Any) -> Any:
        return self._map(lambda a: sp.log(sp.exp(a) + c), log_x)

    def log1m(self, d: Distribution) -> SymbolicVector:
        return (1 - d.probs).apply(sp.log)

    def entmax(self, alpha: float) -> Distribution:
        return self._opaque("entmax", self.policy, alpha)

    def tempered_softmax(self, t: float) -> Distribution:
        if t == 1:
            return self.policy
        q = self._opaque("tempered", self.policy, t)
        self.predictions[q.probs.label] = Prediction(q.probs, rational(t))
        return q


def evaluate(expr: Any) -> Any:
    """The expression with its stop-gradients removed, and every decimal number a fraction."""
    expr = sp.sympify(expr).replace(sg, lambda a: a)
    return expr.xreplace({x: rational(float(x)) for x in expr.atoms(sp.Float)})


class Prediction(NamedTuple):
    """A distribution q that moves with the logits: ∂q_k/∂z_j = q_k^t (δ_kj − q_j^t/Σ q^t); t = 1 is the softmax.

    It follows from log_t q_k = z_k − λ, whose differential is dq_k = q_k^t (dz_k − dλ), and Σ dq_k = 0.
    """

    entries: SymbolicVector
    t: Any = sp.S.One

    @property
    def escort(self) -> SymbolicVector:
        return self.entries**self.t


SOFTMAX = Prediction(SymbolicVector(SymbolicToken.p_y, SymbolicToken.p_k))
