"""Gradients of published losses at sixty digits, by a small program of its own.

It shares nothing with the proofs that it judges: no pulls, no symbols, no tensors, and of `qunify.token` only the names
that a method calls. A loss is evaluated on numbers that remember what they were computed of, and differentiated by
going back through them. Every comparison of two numbers is noted: all outcomes together are the cell of the token, one
of the regions into which gates, clips, signs and orders divide all tokens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import mpmath
import numpy as np

from qunify.maps import QMap
from qunify.token import Pool, Symbolic

MP = mpmath.mp.clone()
MP.dps = 60

LOG_ZERO = -(10**6)  # of probabilities that are 0, which only ever multiply it


class Number(Symbolic):
    """A number, and its partial derivatives in those it was computed of; a constant has none."""

    __slots__ = ("drawn", "n", "of", "x")
    made = 0

    def __init__(self, x: Any, *of: tuple[Any, Any], leaf: bool = False, drawn: bool = False) -> None:
        self.x = x
        self.drawn = leaf or drawn or any(parent.drawn for parent, _ in of)  # it differs from token to token
        self.of = tuple((parent, slope) for parent, slope in of if parent.n)
        self.n = 0  # of a constant to differentiation
        if self.of or leaf:
            Number.made += 1
            self.n = Number.made

    # A vector takes a number entry by entry: NumPy's own operators do that once ours have declined.
    def __add__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = number(other)
        return Number(self.x + b.x, (self, 1), (b, 1))

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = number(other)
        return Number(self.x - b.x, (self, 1), (b, -1))

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = number(other)
        return Number(self.x * b.x, (self, b.x), (b, self.x))

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = number(other)
        x = self.x / b.x
        return Number(x, (self, 1 / b.x), (b, -x / b.x))

    def __pow__(self, other: Any) -> Any:
        return power(self, other)

    __radd__ = __add__

    def __rsub__(self, other: Any) -> Any:
        return number(other) - self

    def __rmul__(self, other: Any) -> Any:
        return self * other

    def __rtruediv__(self, other: Any) -> Any:
        return number(other) / self

    def __rpow__(self, other: Any) -> Any:
        return power(number(other), self)

    def __neg__(self) -> Number:
        return Number(-self.x, (self, -1))

    def __abs__(self) -> Number:
        return -self if self < 0 else self

    def __lt__(self, other: Any) -> bool:
        b = number(other)
        return noted(self.x < b.x, self, b)

    def __le__(self, other: Any) -> bool:
        b = number(other)
        return noted(self.x <= b.x, self, b)

    def __gt__(self, other: Any) -> bool:
        b = number(other)
        return noted(self.x > b.x, self, b)

    def __ge__(self, other: Any) -> bool:
        b = number(other)
        return noted(self.x >= b.x, self, b)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number | int | float) and bool(self.x == number(other).x)

    def __hash__(self) -> int:
        return hash(self.x)


#: What the loss in hand has decided so far.
decisions: list[Any] = []


def noted(outcome: Any, *sides: Number) -> bool:
    """What was decided between two numbers, unless it is the same at every token of the vocabulary."""
    if not sides or any(side.drawn for side in sides):
        decisions.append(outcome)
    return bool(outcome)


def number(x: Any, drawn: bool = False) -> Number:
    """A float is the fraction that it stands for: 0.7 is 7/10, and 1/6 no number of seventeen digits."""
    if isinstance(x, Number):
        return x
    if isinstance(x, float):
        simple = Fraction(x).limit_denominator(1000)
        exact = simple if float(simple) == x else Fraction(repr(x))
        return Number(MP.mpf(exact.numerator) / exact.denominator, drawn=drawn)
    return Number(MP.mpf(x), drawn=drawn)


def given(x: Any) -> Number:
    return number(x, drawn=True)


ZERO, ONE = number(0), number(1)


def exp(a: Any) -> Number:
    a = number(a)
    x = MP.exp(a.x)
    return Number(x, (a, x))


def log(a: Any) -> Number:
    a = number(a)
    return Number(MP.log(a.x), (a, 1 / a.x)) if a.x > 0 else number(LOG_ZERO)


def power(a: Any, b: Any) -> Number:
    a, b = number(a), number(b)
    if not b.n and b.x == int(b.x):
        whole = int(b.x)
        return Number(a.x**whole, (a, whole * a.x ** (whole - 1) if whole else 0))
    return exp(b * log(a)) if a.x > 0 else ZERO


def vector(entries: Iterable[Any]) -> Any:
    found = list(entries)
    made = np.empty(len(found), dtype=object)
    made[:] = found
    return made


def each(f: Callable[[Any], Any], x: Any) -> Any:
    return vector(map(f, x)) if isinstance(x, np.ndarray) else f(x)


def total(entries: Iterable[Any]) -> Number:
    found = [number(e) for e in entries]
    return Number(MP.fsum(e.x for e in found), *((e, 1) for e in found))


class Probabilities:
    """A distribution by its logarithms, its probabilities, or both."""

    def __init__(self, probs: Any = None, log: Any = None) -> None:
        self._given = probs, log

    @cached_property
    def probs(self) -> Any:
        probs, logs = self._given
        return each(exp, logs) if probs is None else probs

    @cached_property
    def log(self) -> Any:
        probs, logs = self._given
        return each(log, probs) if logs is None else logs

    @property
    def logits(self) -> Any:
        return self.log

    log_normaliser = ZERO


class SixtyDigitToken:
    """A position given by its logits, with the operations that a method may ask for."""

    def __init__(self, logits: list[Any], label: int, contexts: dict[str, Any], pools: random.Random) -> None:
        self.leaves = vector(Number(MP.mpf(z), leaf=True) for z in logits)
        self.at, self.given, self._seed = label, contexts, pools.random()
        self._contexts: dict[str, Any] = {}

    # ---- what a method sees -----------------------------------------------------------------------
    @cached_property
    def label(self) -> Probabilities:
        hot = [k == self.at for k in range(len(self.leaves))]
        return Probabilities(
            vector(ONE if here else ZERO for here in hot),
            vector(ZERO if here else number(LOG_ZERO) for here in hot),
        )

    @cached_property
    def policy(self) -> Probabilities:
        return self.softmax(self.leaves)

    @cached_property
    def uniform(self) -> Probabilities:
        return Probabilities(vector(ONE / self.vocab for _ in self.leaves))

    @cached_property
    def vocab(self) -> Number:
        return number(len(self.leaves))

    @property
    def support(self) -> Any:
        return vector(ONE for _ in self.leaves)

    @property
    def logits(self) -> Any:
        return self.leaves

    @cached_property
    def log_sum_exp(self) -> Number:
        return log(total(each(exp, self.leaves)))

    @property
    def p_label(self) -> Number:
        return self.policy.probs[self.at]

    @property
    def log_p_label(self) -> Number:
        return self.policy.log[self.at]

    @cached_property
    def p_rest(self) -> Number:
        return total(p for k, p in enumerate(self.policy.probs) if k != self.at)

    @cached_property
    def log_p_rest(self) -> Number:
        return log(self.p_rest)

    def _distribution_given(self, name: str) -> Probabilities:
        if name not in self._contexts:
            self._contexts[name] = self.softmax(vector(map(given, self.given[name])))
        return self._contexts[name]

    @property
    def reference(self) -> Probabilities:
        return self._distribution_given("reference_logits")

    @property
    def teacher(self) -> Probabilities:
        return self._distribution_given("teacher_logits")

    @property
    def old(self) -> Probabilities:
        return self._distribution_given("old_logits")

    @property
    def prior(self) -> Probabilities:
        return self._distribution_given("prior_logits")

    @property
    def teacher_base(self) -> Probabilities:
        return self._distribution_given("teacher_base_logits")

    @property
    def teacher_logits(self) -> Any:
        return vector(map(given, self.given["teacher_logits"]))

    @property
    def weight(self) -> Number:
        return given(self.given["token_weight"])

    @property
    def keep(self) -> Number:
        return given(self.given["token_mask"])

    @property
    def negative(self) -> Any:
        return vector(map(given, self.given["negative_mask"]))

    @property
    def values(self) -> Any:
        return vector(ZERO if math.isnan(v) else given(v) for v in self.given["token_values"])

    @property
    def is_number(self) -> Any:
        return vector(ZERO if math.isnan(v) else ONE for v in self.given["token_values"])

    def pooled(self, pool: Pool) -> Number:
        """A constant, often near 0; one for all methods that ask for the same pool."""
        r = random.Random(f"{self._seed} {pool.name}")
        share = pool.how in ("below", "above") or (pool.of.__name__ == "probability" and pool.how != "std")
        return given((1 if share else 3) * r.random() ** r.choice((1, 9)))

    # ---- operations -------------------------------------------------------------------------------
    def stop(self, x: Any) -> Any:
        if isinstance(x, Probabilities):
            return Probabilities(self.stop(x.probs), self.stop(x.log))
        return each(lambda a: Number(number(a).x, drawn=number(a).drawn), x)

    def log(self, x: Any) -> Any:
        return each(log, x)

    def exp(self, x: Any) -> Any:
        return each(exp, x)

    def power(self, x: Any, a: Any) -> Any:
        return each(lambda b: power(b, a), x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, np.ndarray):
            return a if condition else b
        a, b = (x if isinstance(x, np.ndarray) else [x] * len(condition) for x in (a, b))
        return vector(x if here else y for here, x, y in zip(condition, a, b, strict=True))

    def maximum(self, a: Any, b: Any) -> Any:
        return self.where(a > b, a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return self.where(a < b, a, b)

    def sign(self, x: Any) -> Any:
        return each(lambda a: ONE if number(a) > 0 else -ONE if number(a) < 0 else ZERO, x)

    def sum(self, v: Any) -> Number:
        return total(v) if isinstance(v, np.ndarray) else number(v) * self.vocab

    def at_label(self, v: Any) -> Number:
        return number(v[self.at] if isinstance(v, np.ndarray) else v)

    def prob(self, d: Probabilities) -> Number:
        return self.at_label(d.probs)

    def expect(self, d: Probabilities, v: Any) -> Number:
        return self.sum(d.probs * v)

    def entropy(self, d: Probabilities) -> Number:
        return -total(d.probs * d.log)

    def cross_entropy(self, a: Probabilities, b: Probabilities) -> Number:
        return -total(a.probs * b.log)

    def kl(self, a: Probabilities, b: Probabilities) -> Number:
        return total(a.probs * (a.log - b.log))

    def softmax(self, logits: Any) -> Probabilities:
        normaliser = log(total(each(exp, logits)))
        return Probabilities(log=logits - normaliser)

    def tempered(self, d: Probabilities, temperature: Any) -> Probabilities:
        return self.softmax(d.log / number(temperature))

    def geometric(self, a: Probabilities, b: Probabilities, w: Any) -> Probabilities:
        return self.softmax(a.log * (1 - number(w)) + b.log * number(w))

    def mixture(self, a: Probabilities, b: Probabilities, w: Any) -> Probabilities:
        return Probabilities(a.probs * (1 - number(w)) + b.probs * number(w))

    def distribution(self, probs: Any) -> Probabilities:
        return Probabilities(probs)

    def normalised(self, v: Any) -> Probabilities:
        return Probabilities(v / total(v))

    def conditioned(self, d: Probabilities, mask: Any) -> Probabilities:
        kept = d.probs * mask
        return self.normalised(kept) if any(number(m).x for m in mask) else self.uniform

    def without_label(self, d: Probabilities) -> Probabilities:
        return self.conditioned(d, 1 - self.label.probs)

    def _order(self, d: Probabilities) -> list[int]:
        return sorted(range(len(d.probs)), key=lambda k: (-d.log[k].x, k))

    def argmax(self, d: Probabilities) -> Probabilities:
        return Probabilities(self.in_top_k(d, 1))

    def in_top_k(self, d: Probabilities, k: int) -> Any:
        best = self._order(d)[: int(k)]
        noted(self.at in best)
        return vector(ONE if i in best else ZERO for i in range(len(d.probs)))

    def top_k(self, d: Probabilities, k: int) -> Probabilities:
        return self.conditioned(d, self.in_top_k(d, k))

    def at_rank(self, d: Probabilities, rank: int) -> Probabilities:
        at = self._order(d)[rank - 1 : rank]
        return Probabilities(vector(ONE if k in at else ZERO for k in range(len(d.probs))))

    def ranks(self, d: Probabilities) -> Any:
        places = {k: number(place + 1) for place, k in enumerate(self._order(d))}
        return vector(places[k] for k in range(len(d.probs)))

    def in_order_of(self, d: Probabilities, by: Probabilities) -> Any:
        theirs = dict(zip(self._order(by), self._order(d), strict=True))
        return vector(d.probs[theirs[k]] for k in range(len(d.probs)))

    def top_p(self, d: Probabilities, mass: Any) -> Any:
        kept, reached = [], MP.mpf(0)
        for k in self._order(d):
            kept.append(k)
            reached += d.probs[k].x
            if reached >= number(mass).x:
                break
        noted(len(kept))
        return vector(ONE if k in kept else ZERO for k in range(len(d.probs)))

    def q_log(self, log_x: Any, q: Any) -> Any:
        q = number(q)
        return each(lambda a: (exp(q * a) - 1) / q if q.x else a, log_x)

    def log_add(self, log_x: Any, c: Any) -> Any:
        return each(lambda a: log(exp(a) + c), log_x)

    def log1m(self, d: Probabilities) -> Any:
        return each(log, 1 - d.probs)

    def entmax(self, alpha: float) -> Probabilities:
        """By the largest support on which all entries are positive, in closed form for α = 2 and 1.5; a constant."""
        z = [x.x * MP.mpf(alpha - 1) for x in self.policy.log]
        ordered = sorted(z, reverse=True)
        for size in range(len(z), 0, -1):
            mean = MP.fsum(ordered[:size]) / size
            if alpha == 2:
                threshold = mean - MP.mpf(1) / size
            else:
                spread = MP.fsum((x - mean) ** 2 for x in ordered[:size])
                if spread > 1:
                    continue
                threshold = mean - MP.sqrt((1 - spread) / size)
            if ordered[size - 1] > threshold:
                break
        noted(size)
        return Probabilities(vector(Number(max(x - threshold, MP.mpf(0)) ** (1 if alpha == 2 else 2)) for x in z))

    def tempered_softmax(self, t: Any) -> Probabilities:
        """exp_t(z − λ) with λ by Newton's method; its derivative is the mean of the logits' under the escort."""
        t = number(t).x
        if t == 1:
            return self.policy
        z = self.policy.log
        shift = MP.mpf(0)  # log p ≤ 0, and every entry is at most 1 there; the sum is convex and decreasing in λ
        for _ in range(200):
            base = [1 + (1 - t) * (x.x - shift) for x in z]
            q = [b ** (1 / (1 - t)) for b in base]
            step = (MP.fsum(q) - 1) / MP.fsum(b**t for b in q)
            shift += step
            if abs(step) < MP.mpf(10) ** -(MP.dps - 2):
                break
        slopes = [b**t for b in q]
        whole = MP.fsum(slopes)
        normaliser = Number(shift, *((x, s / whole) for x, s in zip(z, slopes, strict=True)))
        return Probabilities(vector(Number(b, (x, s), (normaliser, -s)) for b, x, s in zip(q, z, slopes, strict=True)))


def exactly(m: QMap) -> QMap:
    """The method with its parameters as fractions."""
    return m.replace(**{k: number(v) for k, v in m.params.items() if isinstance(v, float)})


class Gradient(NamedTuple):
    """What one loss does at one token."""

    entries: tuple[Any, ...]  # the derivatives in the logits
    terms: Any  # the size of what was added up to them
    cell: tuple[Any, ...]  # how every comparison on the way came out


def gradient(m: QMap, t: SixtyDigitToken) -> Gradient:
    """The derivatives of the published loss in the logits."""
    decisions.clear()
    loss = number(m.loss(t))  # type: ignore[arg-type]
    cell = tuple(decisions)
    seen, waiting = {loss.n: loss}, [loss]
    while waiting:
        for parent, _ in waiting.pop().of:
            if parent.n not in seen:
                seen[parent.n] = parent
                waiting.append(parent)
    slopes: dict[int, Any] = {loss.n: ONE.x}
    leaves, terms = {leaf.n for leaf in t.leaves}, ZERO.x
    for n in sorted(seen, reverse=True):
        for parent, slope in seen[n].of:
            part = slopes[n] * slope
            slopes[parent.n] = slopes.get(parent.n, 0) + part
            if parent.n in leaves:
                terms = max(terms, abs(part))
    return Gradient(tuple(slopes.get(leaf.n, ZERO.x) for leaf in t.leaves), terms, cell)
