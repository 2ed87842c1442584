"""The Token of mpmath: one position at fifty digits, to re-evaluate a claim independently of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import mpmath as mp

from qunify.qmap import QMap
from qunify.token import Distribution, Scalar, Symbolic, Token

DIGITS = 50
Number = Fraction | float | int

#: Below every logarithm that matters, and finite, so that 0 · log 0 = 0.
LOG_ZERO = mp.mpf(-(10**6))


class Vector:
    """Numbers, one per token of the vocabulary; arithmetic is entry by entry."""

    __slots__ = ("entries",)

    def __init__(self, entries: Sequence[Any]) -> None:
        self.entries = tuple(entries)

    def apply(self, f: Callable[[Any], Any]) -> Vector:
        return Vector([f(x) for x in self.entries])

    def _with(self, other: Any, f: Callable[[Any, Any], Any]) -> Vector:
        others = other.entries if isinstance(other, Vector) else [other] * len(self.entries)
        return Vector([f(x, y) for x, y in zip(self.entries, others, strict=True)])

    def __add__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x + y)

    def __sub__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x - y)

    def __rsub__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: y - x)

    def __mul__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x * y)

    def __truediv__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x / y)

    def __pow__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x**y)

    def __gt__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x > y)

    def __lt__(self, other: Any) -> Vector:
        return self._with(other, lambda x, y: x < y)

    def __neg__(self) -> Vector:
        return self.apply(lambda x: -x)

    def __abs__(self) -> Vector:
        return self.apply(abs)

    __radd__, __rmul__ = __add__, __mul__


class PreciseToken(Token):
    """One position given by probabilities, and by log Σ exp z for losses that see the logits themselves. Evaluate
    inside `mpmath.workdps(DIGITS)`."""

    def __init__(self, probs: Sequence[Number], label: int, context: Mapping[str, Any], lse: Number = 0) -> None:
        self._label, self._lse = label, _exact(lse)
        self._p = Vector([_exact(x) for x in probs])
        self._context = context

    @cached_property
    def label(self) -> Distribution:
        one_hot = Vector([mp.mpf(k == self._label) for k in range(len(self._p.entries))])
        return self.distribution(one_hot)

    @cached_property
    def policy(self) -> Distribution:
        return self.distribution(self._p)

    @cached_property
    def uniform(self) -> Distribution:
        return self.distribution(Vector([1 / self.vocab] * int(self.vocab)))

    @property
    def vocab(self) -> Scalar:
        return mp.mpf(len(self._p.entries))

    @property
    def logits(self) -> Vector:
        return self.policy.log + self._lse

    @property
    def log_sum_exp(self) -> Scalar:
        return self._lse

    @property
    def p_label(self) -> Scalar:
        return self._p.entries[self._label]

    @property
    def log_p_label(self) -> Scalar:
        return self.log(self.p_label)

    @property
    def p_rest(self) -> Scalar:
        return mp.fsum(x for k, x in enumerate(self._p.entries) if k != self._label)

    @property
    def log_p_rest(self) -> Scalar:
        return self.log(self.p_rest)

    def context(self, name: str) -> Any:
        if name not in self._context:
            raise ValueError(f"missing context, expected {name}")
        value = self._context[name]
        if name.startswith("token_"):
            return _exact(value)
        entries = Vector([_exact(x) for x in value])
        return self.distribution(entries) if name.endswith("_logits") else entries

    # ---- operations -----------------------------------------------------------------------------------
    def _map(self, f: Callable[[Any], Any], x: Any) -> Any:
        return x.apply(f) if isinstance(x, Vector) else f(x)

    def stop(self, x: Any) -> Any:
        return x

    def log(self, x: Any) -> Any:
        return self._map(lambda v: mp.log(v) if v > 0 else LOG_ZERO, x)

    def exp(self, x: Any) -> Any:
        return self._map(mp.exp, x)

    def power(self, x: Any, a: Any) -> Any:
        return self._map(lambda v: mp.power(v, a), x)

    def sign(self, x: Any) -> Any:
        return self._map(mp.sign, x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Vector):
            return a if condition else b
        at = [x.entries if isinstance(x, Vector) else [x] * len(condition.entries) for x in (a, b)]
        return Vector([x if c else y for c, x, y in zip(condition.entries, *at, strict=True)])

    def sum(self, v: Any) -> Scalar:
        return mp.fsum(v.entries) if isinstance(v, Vector) else v * self.vocab

    def sum_others(self, v: Vector) -> Vector:
        return Vector([mp.fsum(x for j, x in enumerate(v.entries) if j != k) for k in range(len(v.entries))])

    def at_label(self, v: Any) -> Scalar:
        return v.entries[self._label] if isinstance(v, Vector) else v

    def softmax(self, field: Vector) -> Distribution:
        total = mp.log(mp.fsum(mp.exp(x) for x in field.entries))
        return Distribution(lambda: (field - total).apply(mp.exp), lambda: field - total)

    def restricted(self, d: Distribution, mask: Vector) -> Distribution:
        kept = mask * d.probs
        return self.normalised(kept) if self.sum(kept) > 0 else self.uniform

    def argmax(self, d: Distribution) -> Distribution:
        peak = max(d.probs.entries)
        return self.normalised(d.probs.apply(lambda x: mp.mpf(x == peak)))

    def in_top_k(self, d: Distribution, k: int) -> Vector:
        entries = d.probs.entries
        best = sorted(range(len(entries)), key=lambda i: (-entries[i], i))[:k]
        return Vector([mp.mpf(i in best) for i in range(len(entries))])

    def head(self, d: Distribution, mass: float) -> Vector:
        ordered = sorted(d.probs.entries, reverse=True)
        before = [mp.fsum(ordered[:i]) for i in range(len(ordered))]
        least = ordered[max(sum(b < mass for b in before), 1) - 1]
        return d.probs.apply(lambda x: mp.mpf(x >= least))

    def deformed_log(self, log_x: Any, q: Any) -> Any:
        return self._map(lambda v: v if q == 0 else mp.expm1(q * v) / q, log_x)

    def log_plus(self, log_x: Any, c: Any) -> Any:
        return self._map(lambda v: mp.log(mp.exp(v) + c), log_x)

    def log1m(self, d: Distribution) -> Vector:
        return self.log(self.sum_others(d.probs))

    def sparse(self, alpha: float) -> Distribution:
        power = mp.mpf(1) / (alpha - 1)
        field = [(alpha - 1) * x for x in self.policy.log.entries]

        def mass(tau: Any) -> Any:
            return mp.fsum(max(x - tau, 0) ** power for x in field)

        tau = _root(lambda t: mass(t) - 1, max(field) - 1, max(field))
        return self.normalised(Vector([max(x - tau, mp.mpf(0)) ** power for x in field]))

    def heavy_tailed(self, t: float) -> Distribution:
        if t == 1:
            return self.policy
        field = self.policy.log.entries
        power = 1 / (1 - mp.mpf(t))
        high = max(field) - (self.vocab ** (t - 1) - 1) / (1 - t)

        def probs(shift: Any) -> list[Any]:
            return [(1 + (1 - t) * (x - shift)) ** power for x in field]

        shift = _root(lambda s: mp.fsum(probs(s)) - 1, max(field), high)
        return self.normalised(Vector(probs(shift)))


def _exact(x: Any) -> Any:
    return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else mp.mpf(x)


def _root(f: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """The root of a decreasing function, by bisection to full precision."""
    for _ in range(4 * mp.mp.dps):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return (low + high) / 2


class Written(mp.mpf, Symbolic):
    """A parameter to fifty digits."""


def _as_written(m: QMap) -> QMap:
    """The method with its parameters to fifty digits: 0.7 is 7/10, not the nearest float."""
    return m.replace(**{k: Written(_exact(Fraction(repr(v)))) for k, v in m.params.items() if isinstance(v, float)})


def loss(m: QMap, probs: Sequence[Number], label: int, context: Mapping[str, Any]) -> Any:
    """The published loss at one token given by probabilities; contexts are probabilities too. An mpmath number."""
    with mp.workdps(DIGITS):
        return +mp.mpf(_as_written(m).loss(PreciseToken(probs, label, context)))


def gradient(
    m: QMap, probs: Sequence[Number], label: int, context: Mapping[str, Any], lse: Number = 0
) -> tuple[Any, ...]:
    """The logit gradient from the pulls, to fifty digits."""
    with mp.workdps(DIGITS):
        t, m = PreciseToken(probs, label, context, lse), _as_written(m)
        total = Vector([mp.mpf(0)] * len(probs))
        for pull in m.pulls(t):
            total = total + ((t.policy.probs - pull[1].probs) * pull[0] if isinstance(pull, tuple) else pull)
        return total.entries
