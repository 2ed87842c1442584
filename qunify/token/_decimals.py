"""The Token of mpmath: one position at fifty digits, to re-evaluate a claim independently of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import mpmath as mp
import numpy as np
from mpmath.libmp import fzero, mpf_eq, mpf_sub

from qunify.token._base import PER_TOKEN, Distribution, Scalar, Token
from qunify.token._pools import Pool

DIGITS = 50

#: mpmath at fifty digits. Its numbers carry their precision along: what is added up of them later keeps it.
EXACT = mp.mp.clone()
EXACT.dps = DIGITS

_TIE = 150  # bits: all digits but the last five


def _compared(a: Any, b: Any, order: Callable[[Any, Any], bool]) -> Any:
    """a < b, and so on. Numbers that differ in their last five digits alone are equal, so that a ratio computed as
    exp(log 3/10 − log 1/4) meets a threshold of 6/5 where it lies at it."""
    try:
        x, y = a._mpf_, EXACT.convert(b)._mpf_
    except (AttributeError, TypeError, ValueError):  # no real number
        return NotImplemented
    gap = mpf_sub(x, y, EXACT.prec)
    return order(x, y) if _bits(gap) > max(_bits(x), _bits(y)) - _TIE else order(fzero, fzero)


def _bits(x: Any) -> float:
    """b with |x| < 2^b ≤ 2 |x|."""
    _, mantissa, exponent, count = x
    return exponent + count if mantissa else math.inf if exponent else -math.inf


_PLAIN = EXACT.clone()  # for functions of mpmath that compare numbers themselves, to see when they have converged
EXACT.mpf._cmp = _compared  # what <, ≤, > and ≥ call; the class is this context's own
EXACT.mpf.__eq__ = lambda a, b: _compared(a, b, mpf_eq)


Number = Fraction | float | int


#: Below every logarithm that matters, and finite, so that 0 · log 0 = 0.
LOG_ZERO = EXACT.mpf(-(10**6))


#: A vector over the vocabulary: a NumPy array of mpmath numbers, whose operators work entry by entry.
Vector = np.ndarray[Any, np.dtype[np.object_]]


def decimals(entries: Iterable[Any]) -> Vector:
    """A vector of mpmath numbers."""
    return np.array(list(entries), dtype=object)


class DecimalToken(Token):
    """One position given by its probabilities, and by log Σ exp z for losses that see the logits themselves."""

    def __init__(self, probs: Sequence[Number], label: int, context: Mapping[str, Any], lse: Number = 0) -> None:
        self._label, self._lse = label, decimal(lse)
        self._p = decimals(map(decimal, probs))
        self._context = context
        self._known: dict[str, Any] = {}

    @cached_property
    def label(self) -> Distribution:
        one_hot = decimals(EXACT.mpf(k == self._label) for k in range(len(self._p)))
        return self.distribution(one_hot)

    @cached_property
    def policy(self) -> Distribution:
        return self.distribution(self._p)

    @cached_property
    def uniform(self) -> Distribution:
        return self.distribution(decimals(1 / self.vocab for _ in self._p))

    @property
    def vocab(self) -> Scalar:
        return EXACT.mpf(len(self._p))

    @property
    def logits(self) -> Vector:
        return self.policy.log + self._lse

    @property
    def log_sum_exp(self) -> Scalar:
        return self._lse

    @property
    def p_label(self) -> Scalar:
        return self._p[self._label]

    @property
    def log_p_label(self) -> Scalar:
        return self.log(self.p_label)

    @property
    def p_rest(self) -> Scalar:
        return EXACT.fsum(np.delete(self._p, self._label))

    @property
    def log_p_rest(self) -> Scalar:
        return self.log(self.p_rest)

    def context(self, name: str) -> Any:
        if name not in self._context:
            raise ValueError(f"missing context, expected {name}")
        if name not in self._known:
            self._known[name] = self._exact(name, self._context[name])
        return self._known[name]

    def _exact(self, name: str, value: Any) -> Any:
        if name in PER_TOKEN:
            return decimal(value)
        entries = decimals(map(decimal, value))
        if name == "token_values":
            return decimals(EXACT.mpf(0) if mp.isnan(v) else v for v in entries)
        return self.distribution(entries) if name.endswith("_logits") else entries

    @property
    def is_number(self) -> Vector:
        self.context("token_values")  # else a ValueError
        return decimals(EXACT.mpf(not mp.isnan(decimal(v))) for v in self._context["token_values"])

    @property
    def teacher_logits(self) -> Vector:
        return self.teacher.log

    def pooled(self, pool: Pool) -> Any:
        return pool.alone(pool.of(self))

    # ---- operations -----------------------------------------------------------------------------------
    def _map(self, f: Callable[[Any], Any], x: Any) -> Any:
        return np.frompyfunc(f, 1, 1)(x)

    def stop(self, x: Any) -> Any:
        return x

    def log(self, x: Any) -> Any:
        return self._map(lambda v: EXACT.log(v) if EXACT.sign(v) > 0 else LOG_ZERO, x)

    def exp(self, x: Any) -> Any:
        return self._map(EXACT.exp, x)

    def power(self, x: Any, a: Any) -> Any:
        return self._map(lambda v: EXACT.power(v, a), x)

    def sign(self, x: Any) -> Any:
        return self._map(EXACT.sign, x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, a, b) if isinstance(condition, np.ndarray) else a if condition else b

    def sum(self, v: Any) -> Scalar:
        return EXACT.fsum(v) if isinstance(v, np.ndarray) else v * self.vocab

    def sum_others(self, v: Vector) -> Vector:
        return decimals(EXACT.fsum(np.delete(v, k)) for k in range(len(v)))

    def at_label(self, v: Any) -> Scalar:
        return v[self._label] if isinstance(v, np.ndarray) else v

    def softmax(self, logits: Vector) -> Distribution:
        total = EXACT.log(EXACT.fsum(self.exp(logits)))
        return Distribution(lambda: self.exp(logits - total), lambda: logits - total)

    def conditioned(self, d: Distribution, mask: Vector) -> Distribution:
        kept = mask * d.probs
        return self.normalised(kept) if self.sum(kept) > 0 else self.uniform

    def argmax(self, d: Distribution) -> Distribution:
        return self.normalised((d.probs == max(d.probs)) * EXACT.mpf(1))

    def in_top_k(self, d: Distribution, k: int) -> Vector:
        best = sorted(range(len(d.probs)), key=lambda i: (-d.probs[i], i))[:k]
        return decimals(EXACT.mpf(i in best) for i in range(len(d.probs)))

    def ranks(self, d: Distribution) -> Vector:
        return decimals(EXACT.mpf(sum(q > p for q in d.probs) + 1 + sum(q >= p for q in d.probs)) / 2 for p in d.probs)

    def in_order_of(self, d: Distribution, by: Distribution) -> Vector:
        places = sorted(range(len(by.probs)), key=lambda i: (-by.probs[i], i))
        found = np.empty_like(d.probs)
        found[places] = sorted(d.probs, reverse=True)
        return found

    def top_p(self, d: Distribution, mass: float) -> Vector:
        ordered = sorted(d.probs, reverse=True)
        before = [EXACT.fsum(ordered[:i]) for i in range(len(ordered))]
        least = ordered[max(sum(b < mass for b in before), 1) - 1]
        return (d.probs >= least) * EXACT.mpf(1)

    def q_log(self, log_x: Any, q: Any) -> Any:
        return self._map(lambda v: v if q == 0 else EXACT.mpf(_PLAIN.expm1(q * v)) / q, log_x)

    def log_add(self, log_x: Any, c: Any) -> Any:
        return self._map(lambda v: EXACT.log(EXACT.exp(v) + c), log_x)

    def log1m(self, d: Distribution) -> Vector:
        return self.log(self.sum_others(d.probs))

    def entmax(self, alpha: float) -> Distribution:
        power = EXACT.mpf(1) / (alpha - 1)
        logits = [(alpha - 1) * x for x in self.policy.log]

        def mass(tau: Any) -> Any:
            return EXACT.fsum(max(x - tau, 0) ** power for x in logits)

        tau = _root(lambda t: mass(t) - 1, max(logits) - 1, max(logits))
        return self.normalised(decimals(max(x - tau, EXACT.mpf(0)) ** power for x in logits))

    def tempered_softmax(self, t: float) -> Distribution:
        if t == 1:
            return self.policy
        logits = self.policy.log
        power = 1 / (1 - EXACT.mpf(t))
        high = max(logits) - (self.vocab ** (t - 1) - 1) / (1 - t)  # there the largest entry is 1/V, and the sum ≤ 1

        def probs(shift: Any) -> list[Any]:
            return [(1 + (1 - t) * (x - shift)) ** power for x in logits]

        shift = _root(lambda s: EXACT.fsum(probs(s)) - 1, max(logits), high)
        return self.normalised(decimals(probs(shift)))


def decimal(x: Any) -> Any:
    """An mpmath number; a fraction is divided at the precision in force, not rounded to a float first."""
    return EXACT.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else EXACT.mpf(x)


def _root(f: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """The root of a decreasing function between two points, to full precision, by the Illinois method: the point where
    the chord is zero takes the place of the end of its own sign; an end that stays twice counts half."""
    at_low, at_high, last = f(low), f(high), 0
    for _ in range(4 * DIGITS):
        if not at_high or at_low == at_high:
            return high
        middle = high - at_high * (high - low) / (at_high - at_low)
        value = f(middle)
        if not value or abs(high - low) <= abs(middle) * EXACT.eps:
            return middle
        side = int(EXACT.sign(value))
        if side > 0:
            low, at_low, at_high = middle, value, at_high / 2 if last == side else at_high
        else:
            high, at_high, at_low = middle, value, at_low / 2 if last == side else at_low
        last = side
    return high
