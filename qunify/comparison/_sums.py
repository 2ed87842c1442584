"""Is this loss a sum of methods? Two of the catalogue, or two and cross-entropy, with a coefficient each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qunify import catalogue
from qunify._lib.simple import simple_numbers
from qunify.comparison._diagnosis import short_number
from qunify.comparison._fitting import Axis, Sample, downhill
from qunify.comparison._places import Array
from qunify.maps import QMap, limits

MOST_STARTS = 30  # parameter settings of one entry that are tried in sums
FOLLOWED = 4  # sums of each number of terms that are followed downhill
WORTH = 0.2  # relative error of the gradient above which none is
ALIKE = 1e-6  # 1 − cos² of the angle below which two gradients count as one


@dataclass(frozen=True)
class Sum:
    """A loss whose gradient is a sum of catalogue entries' gradients.

    Attributes
    ----------
    terms : tuple of (float, QMap)
        Coefficient and method; a negative coefficient is a push away from the method's target.
    error : float
        Relative gradient error on tokens that were not used in fitting, the largest over three vocabularies.
    """

    terms: tuple[tuple[float, QMap], ...]
    error: float

    def __str__(self) -> str:
        said = ""
        for factor, m in self.terms:
            sign = ("−" if factor < 0 else "") if not said else (" − " if factor < 0 else " + ")
            inside = ", ".join(f"{k}={short_number(v)}" for k, v in m.params.items())
            said += f"{sign}{short_number(abs(factor))} × {m.name}" + (f"({inside})" if inside else "")
        return f"{said} (relative gradient error {self.error:.1g})"


def as_sum(entries: Sequence[type[QMap]], sample: Sample, held_out: Sample, tolerance: float) -> Sum | None:
    """The loss as a sum of two entries, with or without cross-entropy as a third, the fewest first; None if it is none.

    A penalty comes with cross-entropy in most entries, z_loss for one, so that what has it without cross-entropy, or
    with another method in its place, has three terms.
    """
    sft = catalogue.get("sft")
    small = _Sums(sample.small, tolerance)
    methods = [m for cls in entries for m in _settings(cls) if m != sft]
    for likely in small.likely(sft, methods):
        fitted = [small.fitted(terms) for terms in likely]
        found = [small.simplified(terms) for terms in fitted if small.error(terms) <= tolerance]
        sums = [summed for terms in found if (summed := small.confirmed(terms, sample, held_out))]
        if sums:  # the plainest: in most cases somebody wrote one number into each term
            return min(sums, key=lambda s: sum(abs(c) != 1 for c, _ in s.terms))
    return None


def _settings(cls: type[QMap]) -> list[QMap]:
    """An entry at its defaults and at some other parameters."""
    axes = [Axis.of(f) for f in cls.parameters() if isinstance(f.default, float)]
    choices = {f.name: limits(f)["choices"] for f in cls.parameters() if limits(f)["choices"]}
    found = [cls()]
    for rest in itertools.product(*choices.values()):
        for point in itertools.islice(itertools.product(*(a.starts(few=True) for a in axes)), MOST_STARTS):
            params = dict(zip(choices, rest, strict=True)) | {a.name: v for a, v in zip(axes, point, strict=True)}
            try:
                found.append(cls(**params))
            except ValueError:  # parameters that exclude each other
                continue
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Sums:
    """Sums of methods against one sample."""

    sample: Sample
    tolerance: float

    @functools.cached_property
    def column(self) -> Callable[[QMap], Array]:
        """The gradient of a method, as `measured` has that of the loss. Of the terms of a sum most stay while one is
        moved."""
        return functools.lru_cache(maxsize=32)(lambda m: _joined(self.sample, self.sample.values(m)))

    @functools.cached_property
    def measured(self) -> Array:
        return _joined(self.sample, self.sample.blocks)

    def likely(self, sft: QMap, methods: Sequence[QMap]) -> tuple[list[tuple[QMap, ...]], list[tuple[QMap, ...]]]:
        """The sums that come nearest at these very parameters: those of sft and one of the methods, and two of them."""
        base, b = self.column(sft), self.measured
        base = base / np.linalg.norm(base)
        size = float(np.linalg.norm(b))
        rows: Array = np.stack([_joined(self.sample, self.sample.values(m, again=True)) for m in methods])
        before = np.linalg.norm(rows, axis=1)
        rows, b = rows - np.outer(rows @ base, base), b - (b @ base) * base
        norms: Array = np.linalg.norm(rows, axis=1)
        alive = norms > np.sqrt(ALIKE) * before
        rows = np.asarray(rows[alive] / norms[alive, None], dtype=np.float64)
        methods = [m for m, a in zip(methods, alive, strict=True) if a]
        along, cosines = rows @ b, rows @ rows.T
        # The share of b that two unit vectors explain, from their inner products with it and with each other.
        apart = 1 - cosines**2
        both = along[:, None] ** 2 + along**2 - 2 * cosines * np.outer(along, along)
        both = np.where(apart > ALIKE, both / np.where(apart > ALIKE, apart, 1.0), 0.0)
        least = (WORTH * size) ** 2
        cost = np.array([len(m.params) + sum(v != getattr(type(m), k) for k, v in m.params.items()) for m in methods])
        one = _best(float(b @ b) - along**2, cost, least)
        two = _best(np.triu(float(b @ b) - both, 1) + np.tril(np.full_like(both, np.inf)), cost[:, None] + cost, least)
        return [(sft, methods[i]) for (i,) in one], [(sft, methods[i], methods[j]) for i, j in two]

    def factors(self, terms: Sequence[QMap]) -> Array:
        columns = np.stack([self.column(m) for m in terms], 1)
        return np.asarray(np.linalg.lstsq(columns, self.measured, rcond=None)[0], dtype=np.float64)

    def residual(self, terms: Sequence[QMap]) -> Array:
        columns = np.stack([self.column(m) for m in terms], 1)
        left: Array = columns @ self.factors(terms) - self.measured
        return left

    def error(self, terms: Sequence[QMap]) -> float:
        return float(np.linalg.norm(self.residual(terms)))

    def fitted(self, terms: tuple[QMap, ...]) -> tuple[QMap, ...]:
        """The same methods at the parameters at which their best sum comes closest."""
        axes = [(i, Axis.of(f)) for i, m in enumerate(terms) for f in m.parameters() if isinstance(f.default, float)]
        if not axes or self.error(terms) <= self.tolerance:
            return terms

        def moved(x: Sequence[float]) -> tuple[QMap, ...]:
            values: list[dict[str, Any]] = [{} for _ in terms]
            for (i, axis), at in zip(axes, x, strict=True):
                values[i][axis.name] = axis.value(at)
            return tuple(m.replace(**v) for m, v in zip(terms, values, strict=True))

        def residual(x: Array) -> Array:
            try:
                return self.residual(moved(x.tolist()))
            except ValueError:  # parameters that exclude each other
                return np.full_like(self.measured, 1.0)

        x0 = [axis.off_end(axis.coordinate(getattr(terms[i], axis.name))) for i, axis in axes]
        best = downhill(residual, x0, close=1e-14, steps=20)
        return moved(best.tolist()) if float(np.linalg.norm(residual(best))) < self.error(terms) else terms

    def simplified(self, terms: tuple[QMap, ...]) -> tuple[QMap, ...]:
        """The same at simple numbers, as far as they fit as well. A parameter that may stand for the coefficient of its
        term, as the weight of a penalty may, does."""
        enough = max(self.error(terms), self.tolerance / 100)
        for i, m in enumerate(terms):
            for f in m.parameters():
                if not isinstance(f.default, float):
                    continue
                now, factor = getattr(m, f.name), abs(float(self.factors(terms)[i]))
                for value in (*simple_numbers(now * factor, least=0), f.default, *simple_numbers(now)):
                    try:
                        tried = (*terms[:i], terms[i].replace(**{f.name: value}), *terms[i + 1 :])
                    except ValueError:  # outside its range
                        continue
                    if self.error(tried) <= enough:
                        terms = tried
                        break
        return terms

    def confirmed(self, terms: Sequence[QMap], *samples: Sample) -> Sum | None:
        """The sum with its coefficients, terms of none left out, if it holds on these samples too."""
        size = np.abs(self.factors(terms)).max()
        terms = [m for m, c in zip(terms, self.factors(terms), strict=True) if abs(c) > 1e-6 * size]
        factors = [next(iter(simple_numbers(c, 10 * self.tolerance, least=0)), c) for c in self.factors(terms).tolist()]
        error = max(_error(factors, terms, sample) for sample in samples)
        if error > 10 * self.tolerance:
            return None
        return Sum(tuple(sorted(zip(factors, terms, strict=True), key=lambda term: term[0] < 0)), error)


def _error(factors: Sequence[float], terms: Sequence[QMap], sample: Sample) -> float:
    """Relative error of the gradient, the largest over the vocabularies."""
    values = zip(*(sample.values(m) for m in terms), strict=True)
    blocks = [sum(c * v for c, v in zip(factors, vs, strict=True)) for vs in values]
    return max(float(np.linalg.norm(v - b)) / n for v, b, n in zip(blocks, sample.blocks, sample.norms, strict=True))


def _best(left: Array, cost: Array, least: float) -> list[tuple[int, ...]]:
    """Where least is left of a squared length, and where nothing is (but for rounding), in the order of the cost."""
    exact = left < 1e-12 * least / WORTH**2
    order = np.lexsort((np.where(exact, 0.0, left).ravel(), np.where(exact, cost, np.inf).ravel()))
    places = [tuple(int(i) for i in np.unravel_index(k, left.shape)) for k in order[:FOLLOWED]]
    return [at for at in places if left[at] < least]


def _joined(sample: Sample, blocks: Sequence[Array]) -> Array:
    """One vector in which every vocabulary weighs the same, and the measured one has length about 1."""
    scale = [n * np.sqrt(len(blocks)) for n in sample.norms]
    return np.concatenate([(b / s).ravel() for b, s in zip(blocks, scale, strict=True)])
