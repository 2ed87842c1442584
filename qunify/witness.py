"""A concrete token that separates two methods, in fractions, evaluated to fifty digits."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from qunify import precise
from qunify.qmap import QMap
from qunify.screening import Alias


@dataclass(frozen=True)
class Point:
    """A token, given by probabilities, and the two logit gradients there (fifty digits, shown as floats)."""

    probs: tuple[Fraction, ...]
    label: int
    context: Mapping[str, Any]
    gradient_a: tuple[float, ...]
    gradient_b: tuple[float, ...]

    def __str__(self) -> str:
        p = ", ".join(str(x) for x in self.probs)
        a, b = (", ".join(f"{x:.4g}" for x in g) for g in (self.gradient_a, self.gradient_b))
        return f"p = ({p}), label {self.label}: ({a}) against ({b})"


@dataclass(frozen=True)
class Witness:
    """Where the next finer level fails: one token, or two whose factors differ."""

    fails: str
    points: tuple[Point, ...]

    def __str__(self) -> str:
        return f"not {self.fails}: " + "; ".join(map(str, self.points))


_TOKENS = tuple(
    (tuple(Fraction(n, 20) for n in p), label)
    for p in ((10, 6, 4), (17, 2, 1), (1, 15, 4), (4, 1, 15), (8, 5, 4, 2, 1), (1, 12, 3, 2, 2))
    for label in range(3)
)


def _rationals(weights: Sequence[int]) -> tuple[Fraction, ...]:
    return tuple(Fraction(w, sum(weights)) for w in weights)


def _surroundings(size: int, label: int) -> dict[str, Any]:
    """A value for every context at a witness token: distributions as fractions."""
    order = [*range(label, size), *range(label)]
    shifted = [(3, 2, 7, 4, 4), (2, 9, 5, 1, 3), (5, 4, 3, 2, 6), (1, 4, 6, 8, 1)]
    names = ("reference_logits", "teacher_logits", "old_logits", "prior_logits")
    context: dict[str, Any] = {n: _rationals([w[k] for k in order]) for n, w in zip(names, shifted, strict=True)}
    context["token_weight"], context["token_mask"] = Fraction(3, 2), 1
    context["negative_mask"] = tuple(int(k == (label + 1) % size) for k in range(size))
    return context


@functools.lru_cache(maxsize=4096)
def _at(m: QMap, token: int, alias: Alias) -> tuple[Any, ...]:
    probs, label = _TOKENS[token]
    context = _surroundings(len(probs), label)
    context |= {name: context[source] for name, source in alias}
    return precise.gradient(m, probs, label, context)


def find(a: QMap, b: QMap, fails: str, alias: Alias) -> Witness | None:
    """The token, or the pair of tokens, that shows most clearly that the level fails; None if none here does."""
    if not (a.shift_invariant and b.shift_invariant):
        return None
    pairs = [(_at(a, i, alias), _at(b, i, alias)) for i in range(len(_TOKENS))]
    if fails == "scaled":
        ratios = {i: _ratio(ga, gb) for i, (ga, gb) in enumerate(pairs) if any(ga) or any(gb)}
        low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
        if ratios[high] - ratios[low] < 1e-6 * abs(ratios[high]):
            return None
        return Witness(fails, (_point(low, pairs[low], alias), _point(high, pairs[high], alias)))
    measure = _apart if fails == "identical" else _bent
    found = max(range(len(pairs)), key=lambda i: measure(*pairs[i]))
    if measure(*pairs[found]) < 1e-6:
        return None
    return Witness(fails, (_point(found, pairs[found], alias),))


def _point(token: int, pair: tuple[tuple[Any, ...], tuple[Any, ...]], alias: Alias) -> Point:
    probs, label = _TOKENS[token]
    context = _surroundings(len(probs), label)
    context |= {name: context[source] for name, source in alias}
    return Point(probs, label, context, tuple(map(float, pair[0])), tuple(map(float, pair[1])))


def _dot(x: Sequence[Any], y: Sequence[Any]) -> Any:
    return sum(a * b for a, b in zip(x, y, strict=True))


def _ratio(x: Sequence[Any], y: Sequence[Any]) -> float:
    """y over x, infinite where x vanishes."""
    return float(_dot(x, y) / _dot(x, x)) if any(x) else float("inf")


def _apart(x: Sequence[Any], y: Sequence[Any]) -> float:
    return float(max(abs(a - b) for a, b in zip(x, y, strict=True)))


def _bent(x: Sequence[Any], y: Sequence[Any]) -> float:
    """1 − cosine, or 0 where one vanishes."""
    size = _dot(x, x) * _dot(y, y)
    return float(1 - _dot(x, y) / size**0.5) if size > 0 else 0.0
