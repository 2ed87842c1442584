"""Concrete tokens, in fractions, at which two methods are evaluated to fifty digits: to separate or to confirm."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp

from qunify._lib.tolerances import CLEAR_DIFFERENCE
from qunify.maps import WITNESS_LSE, Alias, QMap, exact_gradient_at, remembered
from qunify.samples import aliased, fractions, in_fractions
from qunify.token import DIGITS, EXACT, DecimalToken

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Point:
    """A token, given by probabilities (and log Σ exp z = WITNESS_LSE, for losses that see the logits themselves) and
    the contexts that the methods use, and the two logit gradients there (fifty digits, shown as floats)."""

    probs: tuple[Fraction, ...]
    label: int
    context: Mapping[str, Any]
    gradient_a: tuple[float, ...]
    gradient_b: tuple[float, ...]

    def __str__(self) -> str:
        p = _listed(map(str, self.probs))
        a, b = (_listed(f"{x:.4g}" for x in g) for g in (self.gradient_a, self.gradient_b))
        given = "".join(f", {name.removesuffix('_logits')} {_written(x)}" for name, x in self.context.items())
        return f"p = ({p}), label {self.label}{given}: gradients ({a}) against ({b})"


def _written(context: Any) -> str:
    return f"({_listed(map(str, context))})" if isinstance(context, tuple) else str(context)


def _listed(words: Iterable[str]) -> str:
    """A long list shows its first entries and how many follow."""
    found = list(words)
    return ", ".join(found) if len(found) <= 6 else f"{', '.join(found[:4])}, … {len(found) - 4} more"


@dataclass(frozen=True)
class Witness:
    """Where the next finer level fails: one token, or two whose factors differ."""

    fails: str
    points: tuple[Point, ...]

    def __str__(self) -> str:
        return f"not {self.fails}: " + "; ".join(map(str, self.points))


_WEIGHTS = (
    *((13, 7), (2, 18)),
    *((10, 6, 4), (17, 2, 1), (1, 15, 4), (4, 1, 15)),
    (9, 6, 3, 2),
    *((8, 5, 4, 2, 1), (1, 12, 3, 2, 2)),
    (999990, 9, 1),  # where margins and bounds are passed: looked at last, its numbers are hard to read
)


_ORDINARY = -3  # where the tokens of the last of these begin


_SMALL = tuple((fractions(w), label) for w in _WEIGHTS for label in range(min(3, len(w))))


#: One more, larger than the number of tokens that any default parameter speaks of.
_TOKENS = (*_SMALL, (fractions([400, *range(140, 1, -1)]), 1))


def _context(token: int, alias: Alias) -> dict[str, Any]:
    probs, label = _TOKENS[token]
    return aliased(in_fractions(len(probs), label), alias)


@functools.lru_cache(maxsize=64)
def _token(token: int, alias: Alias) -> DecimalToken:
    probs, label = _TOKENS[token]
    return DecimalToken(probs, label, _context(token, alias), WITNESS_LSE)


@remembered
def _at(m: QMap, token: int, alias: Alias) -> tuple[Any, ...]:
    return exact_gradient_at(m, _token(token, alias))


@remembered
def _rows(m: QMap, alias: Alias) -> Array:
    """The gradient at every small token as floats, zeros after the last entry."""
    rows = np.zeros((len(_SMALL), 5))
    for i, (probs, _) in enumerate(_SMALL):
        rows[i, : len(probs)] = [float(x) for x in _at(m, i, alias)]
    return rows


def counterexample(a: QMap, b: QMap, fails: str, alias: Alias) -> Witness | None:
    """The token, or the pair of tokens, that shows clearly that the level fails; None if none here does.

    Floats choose the token; fifty digits judge it.
    """
    x, y = _rows(a, alias), _rows(b, alias)
    if fails == "scaled":
        return _two_factors(a, b, x, y, alias)
    clearness = np.abs(x - y).max(-1) if fails == "identical" else _bent(x, y)
    token = int((clearness >= 0.5 * clearness.max()).argmax())  # the simplest of those that show it well
    counts = any(isinstance(v, int) for m in (a, b) for v in m.params.values())
    for i in (token, len(_SMALL)) if counts else (token,):
        ga, gb = _at(a, i, alias), _at(b, i, alias)
        apart = max(abs(u - v) for u, v in zip(ga, gb, strict=True)) if fails == "identical" else _apart_on_rays(ga, gb)
        if apart > CLEAR_DIFFERENCE:
            return Witness(fails, (_point(i, a, b, alias),))
    return None


def _two_factors(a: QMap, b: QMap, x: Array, y: Array, alias: Alias) -> Witness | None:
    """The pair of tokens at which the factors differ most; ordinary tokens come first."""
    for some in (slice(None, _ORDINARY), slice(None)):
        found = _extremes(x[some], y[some])
        if found:
            return Witness("scaled", tuple(_point(i, a, b, alias) for i in found))
    return None


def _extremes(x: Array, y: Array) -> tuple[int, int] | None:
    """The tokens at which y is the smallest and the largest multiple of x; None where all are one multiple."""
    alive = (x != 0).any(-1) | (y != 0).any(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = np.abs(x).max(-1, keepdims=True)  # squares of a large gradient overflow
        ratio = np.where((x != 0).any(-1), (x / peak * y).sum(-1) / (x / peak * x).sum(-1), np.inf)
    tokens = np.flatnonzero(alive)
    if not len(tokens):
        return None
    low, high = tokens[ratio[tokens].argmin()], tokens[ratio[tokens].argmax()]
    if np.isfinite(ratio[high]) and ratio[high] - ratio[low] <= 1e-6 * abs(ratio[high]):
        return None
    return int(low), int(high)


def agree_in_decimals(a: QMap, b: QMap, factor: sp.Expr, alias: Alias) -> bool:
    """Whether g_b = factor · g_a at every one of the tokens, vocabularies of 2 to 5, to forty digits."""
    f = EXACT.mpf(str(sp.N(factor, DIGITS + 10)))
    for i in range(len(_SMALL)):
        for u, v in zip(_at(a, i, alias), _at(b, i, alias), strict=True):
            if abs(v - f * u) > EXACT.mpf(10) ** -40 * (1 + abs(v)):
                return False
    return True


def _point(token: int, a: QMap, b: QMap, alias: Alias) -> Point:
    probs, label = _TOKENS[token]
    floats = (tuple(map(float, _at(m, token, alias))) for m in (a, b))
    used = {name: value for name, value in _context(token, alias).items() if name in (*a.needs, *b.needs)}
    return Point(probs, label, used, *floats)


def _bent(x: Array, y: Array) -> Array:
    """Distance of the two directions, row by row; 0 where one gradient vanishes."""
    peaks = [np.abs(g).max(-1, keepdims=True) for g in (x, y)]
    alive = (peaks[0] > 0) & (peaks[1] > 0)
    units = [g / np.where(peak > 0, peak, 1.0) for g, peak in zip((x, y), peaks, strict=True)]
    rays = [g / np.linalg.norm(g, axis=-1, keepdims=True).clip(min=1.0) for g in units]
    return np.where(alive[:, 0], np.abs(rays[0] - rays[1]).max(-1), 0.0)


def _apart_on_rays(x: Sequence[Any], y: Sequence[Any]) -> Any:
    """The distance of two directions, to fifty digits; 0 where one gradient vanishes."""
    size_x, size_y = (EXACT.sqrt(EXACT.fsum(u * u for u in g)) for g in (x, y))
    if not size_x or not size_y:
        return EXACT.mpf(0)
    return max(abs(u / size_x - v / size_y) for u, v in zip(x, y, strict=True))
