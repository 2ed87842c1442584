"""Fitting a catalogue entry's parameters to measured gradients."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import leastsq

from qunify._lib.simple import simple_numbers
from qunify.comparison._places import FAR, Array, Place, joined, place
from qunify.maps import QMap, limits
from qunify.samples import Batch

#: `equal` compares gradients, `ratio` leaves one positive factor free, `ray` one positive factor per token.
Mode = Literal["equal", "ratio", "ray"]

FARTHEST = 1e4  # an unbounded parameter is looked for up to here,
NEAREST = 1e-6  # and at an open end from here
WHOLE = (*range(1, 25), 32, 50, 64, 100, 128)  # integers that are tried; batches have at most 150 tokens
MOVES = 64  # how far from there a whole number is followed, in steps
STARTS = 3  # how many starts are followed downhill
WORTH = 0.3  # relative error above which a fit is not refined
NEAR = 0.1  # relative error up to which an entry is named as near
HOPELESS = 0.6  # relative error of the best start, with a free factor, above which no start is followed downhill
CLEAR = 1e-4  # relative error above which rounding does not change the order of two
FOLLOWED = 8  # values of a threshold from which other parameters are followed downhill, those that come nearest
BETTER = 0.999  # a grid has brought something if it brings the error below this times what it was
NO_BETTER = 5  # so many grids in a row that bring nothing are the last; two, where others are followed downhill
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Sample:
    """Measured gradients on some batches, as one vector in which every vocabulary weighs the same."""

    batches: tuple[Batch, ...]
    gradients: tuple[Array, ...]  # (N, V) each
    gate: bool  # every gradient is w (p − δ): then the one number w ‖p − δ‖ per token is compared
    few: tuple[int, ...] | None = None  # rows per batch that are enough wherever gradients vary smoothly
    jumps: tuple[float, ...] = ()  # the label probabilities at which a gate's weight jumps, as measured
    importance: tuple[Array, ...] | None = None  # (N, 1) each: how much a token counts, where they differ in that

    @functools.cached_property
    def _place(self) -> Place:
        return place(self.batches, self.gate, self.importance)

    @functools.cached_property
    def blocks(self) -> list[Array]:
        """The numbers that are compared, for each vocabulary: gradients (N, V), or of a gate w ‖p − δ‖, (N, 1)."""
        return self._place.blocks(self.gradients)

    @functools.cached_property
    def norms(self) -> list[float]:
        return [float(np.linalg.norm(b)) or 1.0 for b in self.blocks]

    @property
    def count(self) -> int:
        """How many numbers are compared."""
        return self._measured.size

    @functools.cached_property
    def _starts(self) -> list[int]:
        """Where each vocabulary begins in the vector of all."""
        return [0, *itertools.accumulate(b.size for b in self.blocks[:-1])]

    @functools.cached_property
    def _scale(self) -> Array:
        """1 / norm, for every number of the vector of all."""
        return np.repeat([1 / n for n in self.norms], [b.size for b in self.blocks])

    @functools.cached_property
    def _measured(self) -> Array:
        return joined(self.blocks) * self._scale

    def values(self, m: QMap, *, again: bool = False) -> list[Array]:
        """The same numbers of a method, for each vocabulary."""
        return self._apart(self.vector(m, again=again))

    def vector(self, m: QMap, *, again: bool = False) -> Array:
        """As one vector; kept, of a method that will be asked for `again`, also for other losses."""
        return self._place.kept_values(m) if again else self._place.values(m)

    def _apart(self, values: Array) -> list[Array]:
        parts = np.split(values, self._starts[1:])
        return [x.reshape(b.shape) for x, b in zip(parts, self.blocks, strict=True)]

    def only(self, *which: int) -> Sample:
        """The sample on some of the vocabularies."""
        few = self.few and tuple(self.few[i] for i in which)
        batches, gradients = tuple(self.batches[i] for i in which), tuple(self.gradients[i] for i in which)
        importance = self.importance and tuple(self.importance[i] for i in which)
        return Sample(batches, gradients, self.gate, few, self.jumps, importance)

    def at(self, rows: Sequence[np.ndarray[Any, np.dtype[np.intp]]]) -> Sample:
        """The sample at some tokens of each vocabulary, by their numbers."""
        batches = tuple(p[torch.from_numpy(r)] for p, r in zip(self.batches, rows, strict=True))
        gradients = tuple(g[r] for g, r in zip(self.gradients, rows, strict=True))
        importance = self.importance and tuple(i[r] for i, r in zip(self.importance, rows, strict=True))
        return dataclasses.replace(self, batches=batches, gradients=gradients, importance=importance)

    @functools.cached_property
    def pushes(self) -> bool:
        """Whether it is a gate whose weight is nowhere positive."""
        return self.gate and bool((self._measured <= 0).all())

    @functools.cached_property
    def opposite(self) -> Sample:
        """The same of the negated loss."""
        return dataclasses.replace(self, gradients=tuple(-g for g in self.gradients))

    @functools.cached_property
    def small(self) -> Sample:
        """The first few rows of each probe."""
        if self.few is None:
            return self
        batches = tuple(p.first(n) for p, n in zip(self.batches, self.few, strict=True))
        gradients = tuple(g[:n] for g, n in zip(self.gradients, self.few, strict=True))
        importance = self.importance and tuple(i[:n] for i, n in zip(self.importance, self.few, strict=True))
        return Sample(batches, gradients, self.gate, importance=importance)

    @functools.cached_property
    def largest(self) -> Sample:
        """The largest vocabulary alone."""
        return self.small.only(len(self.batches) - 1)

    def difference(self, m: QMap, mode: Mode, factor: float | None = None) -> tuple[Array, float]:
        """(factor · method − measured) relative to the measured norm, as one vector, and the factor."""
        values = self.vector(m)
        if mode == "ray":
            pairs = [_on_rays(v, b) for v, b in zip(self._apart(values), self.blocks, strict=True)]
            return joined([(v - b) / math.sqrt(len(b)) for v, b in pairs]), 1.0
        relative = values * self._scale
        if factor is None:
            factor = 1.0
            if mode == "ratio":
                size, shared = float(relative @ relative), float(relative @ self._measured)
                factor = max(shared / size, 0.0) if size > 0 and math.isfinite(size + shared) else 0.0
        relative *= factor
        relative -= self._measured
        return relative, factor

    def error(self, m: QMap, mode: Mode, factor: float | None = None) -> float:
        """Relative error of the gradient, the largest over the vocabularies."""
        return self.largest_norm(self.difference(m, mode, factor)[0])

    def least(self, corners: Sequence[Array], mode: Mode) -> float:
        """A bound below the error of a method that agrees with all of these vectors wherever they agree."""
        same = np.logical_and.reduce([c == corners[0] for c in corners[1:]] or [np.ones(self.count, dtype=bool)])
        relative, measured = np.where(same, corners[0] * self._scale, 0.0), np.where(same, self._measured, 0.0)
        if mode == "equal":
            return self.largest_norm(relative - measured)
        size, shared = float(relative @ relative), float(relative @ measured)
        left = relative * (max(shared / size, 0.0) if size else 0.0) - measured
        return float(np.linalg.norm(left)) / math.sqrt(len(self.batches))  # of the largest, at least the middle

    def errors(
        self, cls: type[QMap], names: tuple[str, ...], settings: tuple[tuple[Any, ...], ...], mode: Mode
    ) -> Array:
        """The errors of an entry at many settings of these parameters, but for rounding; infinite where they exclude
        each other."""
        table, n = self._place.table(cls, names, settings), np.array(self.norms)
        parts = np.split(self._measured, self._starts[1:])
        shared = np.stack([v @ b for v, b in zip(np.split(table.values, self._starts[1:], 1), parts, strict=True)], 1)
        shared, size = shared / n, table.squares / n**2
        factor = np.ones(len(settings))
        if mode == "ratio":
            total = size.sum(1)
            factor = np.where(total > 0, np.maximum(shared.sum(1) / np.where(total > 0, total, 1.0), 0.0), 0.0)
        squared = factor[:, None] ** 2 * size - 2 * factor[:, None] * shared + [float(b @ b) for b in parts]
        return np.nan_to_num(np.sqrt(np.maximum(squared, 0.0)), nan=math.inf, posinf=math.inf).max(1)

    def largest_norm(self, difference: Array) -> float:
        """The largest norm over the vocabularies."""
        return math.sqrt(np.add.reduceat(difference * difference, self._starts).max())

    def same_rays(self, m: QMap, tolerance: float) -> bool:
        """Whether both gradients lie on one ray at every token where neither vanishes, and there is such a token."""
        both = False
        for v, b in zip(self.values(m), self.blocks, strict=True):
            unit, measured = _on_rays(v, b)
            if not bool((np.abs(unit - measured) <= tolerance).all()):
                return False
            both |= bool(measured.any())
        return both


def _on_rays(v: Array, b: Array) -> tuple[Array, Array]:
    """Both with every row at length one; a row in which either is zero is zero in both."""
    lengths = [np.linalg.norm(x, axis=-1, keepdims=True) for x in (v, b)]
    speak = np.logical_and(*(n > 1e-12 * n.max(initial=0.0) for n in lengths))
    one, two = (np.where(speak, x / np.where(speak, n, 1.0), 0.0) for x, n in zip((v, b), lengths, strict=True))
    return one, two


@dataclass(frozen=True)
class Fit:
    method: QMap
    mode: Mode
    factor: float
    error: float  # on the tokens it was fitted to

    @property
    def fitted(self) -> int:
        """Parameters that are not at their default."""
        return sum(getattr(self.method, f.name) != f.default for f in self.method.parameters())


@dataclass(frozen=True)
class Axis:
    """A real parameter as a function of a free coordinate x, so that an unbounded search stays inside its range.

    These are the maps of MINUIT (as lmfit documents them), which reach closed ends: low + (high − low) (1 + sin x)/2
    between two ends, and low + √(x² + 1) − 1 above one. An open end is approached as low + exp(x)."""

    name: str
    default: float
    low: float | None
    high: float | None
    open_low: bool

    @classmethod
    def of(cls, f: dataclasses.Field[Any]) -> Axis:
        known = limits(f)
        low = known["low"] if known["above"] is None else known["above"] + NEAREST
        high = known["high"] if known["below"] is None else known["below"] - NEAREST
        default: Any = f.default
        return cls(f.name, float(default), low, high, known["above"] is not None)

    def value(self, x: float) -> float:
        if self.low is not None and self.high is not None:
            return min(max(self.low + (self.high - self.low) * (1 + math.sin(x)) / 2, self.low), self.high)
        if self.low is None and self.high is None:
            return min(max(float(x), -FARTHEST), FARTHEST)
        distance = math.exp(min(x, 20.0)) if self.open_low else math.sqrt(x * x + 1) - 1
        return self._from_end(min(distance, FARTHEST))

    def coordinate(self, value: float) -> float:
        if self.low is not None and self.high is not None:
            return math.asin(min(max(2 * (value - self.low) / (self.high - self.low) - 1, -1.0), 1.0))
        if self.low is None and self.high is None:
            return value
        distance = abs(value - self._from_end(0.0))
        return math.log(max(distance, 1e-9)) if self.open_low else math.sqrt((distance + 1) ** 2 - 1)

    def starts(self, few: bool) -> list[float]:
        """Values to begin at, among them the default and closed ends."""
        if self.low is not None and self.high is not None:
            steps = (0.0, 0.3, 0.7, 1.0) if few else (0.0, 0.03, 0.15, 0.3, 0.5, 0.7, 0.85, 0.97, 1.0)
            found = [self.low + s * (self.high - self.low) for s in steps]
        elif self.low is None and self.high is None:
            found = (
                [-2.0, -0.5, 0.0, 0.5, 2.0] if few else [-40.0, -10.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 10.0, 40.0]
            )
        else:
            away: tuple[float, ...] = (0.0, 0.01, 0.05, 0.2, 0.6, 1.5, 4.0, 10.0, 40.0, 200.0)
            away = ((0.0, 0.1, 0.5, 2.0) if few else away) + ((1e-5, 1e-4) if self.open_low else ())
            found = [self._from_end(s) for s in away]
        return [*found, self.default]

    def off_end(self, x: float) -> float:
        """The coordinate, moved a little if it is at a closed end, where the map is flat and has no slope to follow."""
        flat = abs(self.value(x + 1e-4) - self.value(x - 1e-4)) < 1e-7 and not self.open_low
        return x - math.copysign(0.05, x) if flat else x

    def _from_end(self, distance: float) -> float:
        return self.low + distance if self.low is not None else (self.high or 0.0) - distance


def downhill(residuals: Callable[[Array], Array], x0: Sequence[float], *, close: float, steps: int) -> Array:
    """Where Levenberg–Marquardt (MINPACK's, by scipy) ends from x0 (n,), with derivatives from forward differences.

    What `scipy.optimize.least_squares` would do, whose own arithmetic takes longer than most residuals here.
    """

    @functools.cache  # MINPACK and the derivatives ask for the same ones
    def at(*x: float) -> Array:
        found = residuals(np.array(x))
        return np.pad(found, (0, max(len(x) - len(found), 0)))  # MINPACK wants no fewer than there are parameters

    @functools.cache
    def slopes(*x: float) -> Array:
        here, columns = at(*x), []
        for i, value in enumerate(x):
            h = math.copysign(EPS**0.5 * max(1.0, abs(value)), value)
            columns.append((at(*x[:i], value + h, *x[i + 1 :]) - here) / (value + h - value))
        return np.stack(columns, 1)

    most = steps * (len(x0) + 1)
    found: Array = leastsq(
        lambda x: at(*x.tolist()),
        x0,
        Dfun=lambda x: slopes(*x.tolist()),
        full_output=True,
        ftol=close,
        xtol=close,
        gtol=1e-14,
        maxfev=most,
    )[0]
    return found


def fit(
    cls: type[QMap],
    sample: Sample,
    mode: Mode,
    tolerance: float,
    fixed: dict[str, Any] | None = None,
    *,
    thorough: bool = True,
) -> Fit:
    """The parameters at which the entry comes closest to the sample; those in `fixed` stay as they are.

    Stages: the best of many starts, some followed downhill, and the whole numbers next to it, on the largest vocabulary
    alone; thresholds, which have no slope, along a coarse grid there; all but thresholds downhill on a few tokens of
    every vocabulary; and thresholds at the jumps that were measured, or along a fine grid, on all tokens. Not
    `thorough`, it leaves thresholds out.
    """
    fixed = fixed or {}
    axes = [Axis.of(f) for f in cls.parameters() if isinstance(f.default, float) and f.name not in fixed]
    coarse, small, whole = (_Search(cls, axes, s, mode, tolerance) for s in (sample.largest, sample.small, sample))
    best = coarse.best_start(fixed, whole)
    best = coarse.with_whole_numbers(best, [f.name for f in cls.parameters() if _is_whole(f) and f.name not in fixed])
    missed = thorough and (best.error > tolerance or whole.at(best.point, best.rest).error > tolerance)
    thresholds = coarse.thresholds(best) if missed else []
    if coarse.excluded(thresholds, best):  # at one vocabulary, and so at all
        thresholds = []
    best = coarse.with_thresholds(best, thresholds)
    if thresholds or best.error <= 1.5 * NEAR:  # what is farther off at one vocabulary comes near at none
        best = small.refined(small.at(best.point, best.rest))
    best = whole.with_fine_thresholds(whole.at(best.point, best.rest), thresholds)
    m = whole.build(best.point, best.rest)
    return Fit(m, mode, sample.difference(m, mode)[1], best.error)


class Found(NamedTuple):
    error: float
    point: Sequence[float]  # the real parameters
    rest: dict[str, Any]  # the others


@dataclass(frozen=True)
class _Search:
    """One entry's real parameters against one sample."""

    cls: type[QMap]
    axes: list[Axis]
    sample: Sample
    mode: Mode
    tolerance: float

    @functools.cached_property
    def _errors(self) -> dict[tuple[Any, ...], float]:
        return {}

    # ---- stages ------------------------------------------------------------------------------------------------------
    def best_start(self, fixed: dict[str, Any], whole: _Search) -> Found:
        """The best of many starts, the first few of which are followed downhill. Of several that are exact on these
        few tokens, the best on the `whole` sample."""
        points = list(itertools.product(*(dict.fromkeys(a.starts(len(self.axes) > 2)) for a in self.axes)))
        starts = list(itertools.product(_discrete(self.cls, fixed), points))  # the same whatever the loss
        likely = self._likely(starts)
        ranked = sorted((self.at(point, rest) for rest, point in likely), key=lambda found: found.error)
        best = whole.first_of([f for f in ranked if f.error <= self.tolerance] or ranked[:1])
        if not self.axes or (self.mode == "ratio" and best.error > HOPELESS):
            return best
        for start in ranked[:STARTS]:
            if best.error <= self.tolerance / 100:
                break
            end = self.descended(start, precise=False)
            best = min(best, end, key=lambda found: found.error)
            if end.error > WORTH:  # those that begin farther off end there, too
                break
        return best

    def first_of(self, tied: list[Found]) -> Found:
        """The nearest to this sample of what is equally near to another."""
        if len(tied) == 1 or self.mode == "ray":
            return tied[0]
        names = (*tied[0].rest, *(a.name for a in self.axes))
        errors = self.sample.errors(self.cls, names, tuple((*f.rest.values(), *f.point) for f in tied), self.mode)
        return tied[int(np.flatnonzero(errors <= errors.min() + CLEAR)[0])]

    def _likely(self, starts: list[tuple[dict[str, Any], tuple[float, ...]]]) -> list[tuple[Any, tuple[float, ...]]]:
        """The nearest few, in their order; and all that are near enough for rounding to tell."""
        if self.mode == "ray":
            return starts
        names = (*starts[0][0], *(a.name for a in self.axes))
        errors = self.sample.errors(
            self.cls, names, tuple((*rest.values(), *point) for rest, point in starts), self.mode
        )
        least = np.argsort(errors, kind="stable")[:STARTS].tolist()
        return [starts[i] for i in sorted({*least, *np.flatnonzero(errors < CLEAR).tolist()})]

    def with_whole_numbers(self, best: Found, names: Sequence[str]) -> Found:
        """Each whole number by ever smaller steps from the best of those in WHOLE, which leave gaps; some come nearer
        without end, the larger the number."""
        for name in names:
            step = 8
            for _ in range(MOVES):
                if not (step and self.tolerance < best.error <= WORTH):
                    break
                here = best.rest[name]
                beside = [best.rest | {name: k} for k in (here - step, here + step)]
                nearest = min([best, *(self.at(best.point, rest) for rest in beside)], key=lambda found: found.error)
                if nearest is best:
                    step //= 2
                best = nearest
        return best

    def with_thresholds(self, best: Found, thresholds: list[int]) -> Found:
        """Each threshold along a coarse grid, the other parameters followed downhill at every point of it."""
        if 0 < len(thresholds) < len(self.axes) and best.error <= WORTH:
            for i in thresholds:
                best = self.narrowed(i, best, follow=[j for j in range(len(self.axes)) if j not in thresholds])
        return best

    def refined(self, best: Found) -> Found:
        """Downhill to the last digits, where the fit is neither exact nor far off."""
        worth = self.axes and self.tolerance / 100 < best.error <= WORTH
        return self.descended(best, precise=True) if worth else best

    def with_fine_thresholds(self, best: Found, thresholds: list[int]) -> Found:
        """Each threshold along a fine grid, several twice in turn, and then the other parameters downhill."""
        if not thresholds or best.error <= self.tolerance:
            return best
        smooth = len(thresholds) < len(self.axes)
        if best.error > WORTH if smooth else self.excluded(thresholds, best):
            return best
        for i in thresholds if len(thresholds) == 1 else thresholds * 2:
            best = self.narrowed(i, best)
        return self.descended(best, precise=True) if smooth else best

    # ---- steps -------------------------------------------------------------------------------------------------------

    def build(self, point: Sequence[float], rest: dict[str, Any]) -> QMap:
        return self.cls(**rest, **{a.name: v for a, v in zip(self.axes, point, strict=True)})

    def at(self, point: Sequence[float], rest: dict[str, Any]) -> Found:
        key = (*point, *rest.values())
        if key not in self._errors:
            try:
                self._errors[key] = self.sample.error(self.build(point, rest), self.mode)
            except ValueError:  # parameters that exclude each other
                self._errors[key] = math.inf
        return Found(self._errors[key], point, rest)

    def descended(self, start: Found, *, precise: bool, free: Sequence[int] | None = None) -> Found:
        """Downhill from one start along the free axes, all by default."""
        free = range(len(self.axes)) if free is None else free
        point = list(start.point)

        def moved(x: Array) -> list[float]:
            for i, v in zip(free, x, strict=True):
                point[i] = self.axes[i].value(v)
            return point

        def residuals(x: Array) -> Array:
            try:
                return self.sample.difference(self.build(moved(x), start.rest), self.mode)[0]
            except ValueError:  # parameters that exclude each other
                return np.full(self.sample.count, FAR)

        # A closed end is a stationary point of the map: begin beside it, the end itself has been tried.
        x0 = [self.axes[i].off_end(self.axes[i].coordinate(point[i])) for i in free]
        close, steps = (1e-14, 25) if precise else (1e-3, 8)
        point = list(moved(downhill(residuals, x0, close=close, steps=steps)))
        return min(start, self.at(point, start.rest), key=lambda found: found.error)

    def thresholds(self, at: Found) -> list[int]:
        """The axes along which a small move changes nothing, and a large one something."""
        return [i for i in range(len(self.axes)) if self._is_flat(i, at) and self._matters(i, at)]

    def _is_flat(self, i: int, at: Found) -> bool:
        axis = self.axes[i]
        x = axis.off_end(axis.coordinate(at.point[i]))
        value, *near = (axis.value(x + step) for step in (0, 1e-7, -1e-7))
        here, *beside = (self._along(i, at, v) for v in (value, *(v for v in near if v != value)))
        there = [v for v in beside if v is not None]  # of two sides one may be a step, or excluded by other parameters
        return here is None or not there or any(np.array_equal(here, v) for v in there)

    def _matters(self, i: int, at: Found) -> bool:
        """Not so beside another parameter that leaves it without effect, such as a weight of zero."""
        here = self._along(i, at, at.point[i])
        others = (self._along(i, at, value) for value in self.axes[i].starts(few=True))
        return any(here is None or v is None or not np.array_equal(here, v) for v in others)

    def _along(self, i: int, at: Found, value: float) -> Array | None:
        """The method's numbers with another value of one parameter; None where the others exclude it."""
        try:
            return self.sample.vector(self.build([*at.point[:i], value, *at.point[i + 1 :]], at.rest))
        except ValueError:
            return None

    def excluded(self, thresholds: Sequence[int], at: Found) -> bool:
        """Whether no values of the thresholds, where they are all the real parameters, come near.

        Where a number is the same at both ends of an interval of a threshold, it is the same within: these alone say
        how near any value there can come. Of two thresholds, the corners of rectangles tell.
        """
        if self.mode == "ray" or not 0 < len(thresholds) == len(self.axes) <= 2:
            return False
        grids = [self._grid(i, at, 0) for i in thresholds]
        known: dict[tuple[int, ...], Array] = {}
        for corner in itertools.product(*(range(len(g)) for g in grids)):
            point = list(at.point)
            for i, k, grid in zip(thresholds, corner, grids, strict=True):
                point[i] = grid[k]
            with contextlib.suppress(ValueError):  # parameters that exclude each other
                known[corner] = self.sample.vector(self.build(point, at.rest))
        for low in itertools.product(*(range(len(g) - 1) for g in grids)):
            corners = [known[c] for c in itertools.product(*((k, k + 1) for k in low)) if c in known]
            if corners and self.sample.least(corners, self.mode) <= NEAR:
                return False
        return True

    def _grid(self, i: int, best: Found, n: int) -> list[float]:
        """Values of a threshold: where searches start, where the loss jumps, and so many evenly between."""
        starts = sorted({*self.axes[i].starts(few=False), best.point[i]})
        even = np.linspace(starts[0], min(starts[-1], starts[0] + 20), n).tolist()
        return sorted({*even, *starts, *self.sample.jumps})

    def narrowed(self, i: int, best: Found, follow: Sequence[int] = ()) -> Found:
        """A grid along one axis, narrowed toward the middle of the best plateau for as long as that brings something;
        axes to `follow` are refitted on it."""

        def tried(value: float) -> Found:
            found = self.at([value if j == i else v for j, v in enumerate(best.point)], best.rest)
            return self.descended(found, precise=False, free=follow) if follow else found

        grid, same = self._grid(i, best, 21 if follow else 101), 0
        if follow:
            errors = [self.at([*best.point[:i], v, *best.point[i + 1 :]], best.rest).error for v in grid]
            different = dict(zip(reversed(errors), reversed(grid), strict=True))  # of a plateau the first
            grid = sorted({best.point[i], *(different[e] for e in sorted(different)[:FOLLOWED])})
        for _ in range(4 if follow else 12):
            found = [tried(v) for v in grid]
            errors = [f.error for f in found]
            first = last = errors.index(min(errors))
            while last + 1 < len(grid) and errors[last + 1] == errors[first]:
                last += 1
            same = 0 if found[first].error < BETTER * best.error else same + 1
            best = min(best, found[first], key=lambda f: f.error)
            if best.error <= self.tolerance or same == (2 if follow else NO_BETTER):
                return best
            before, after = grid[max(first - 1, 0)], grid[min(last + 1, len(grid) - 1)]
            sides = ((before, grid[first]), (grid[last], after))
            grid = sorted({x for a, b in sides for x in np.linspace(a, b, 5 if follow else 9).tolist()})
        middle = tried((grid[0] + grid[-1]) / 2)
        return middle if middle.error <= best.error else best


def _is_whole(f: dataclasses.Field[Any]) -> bool:
    return isinstance(f.default, int) and not limits(f)["choices"]


def _discrete(cls: type[QMap], fixed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every setting of the parameters that are not real numbers, the default first."""
    options: dict[str, Sequence[Any]] = {k: (v,) for k, v in fixed.items()}
    for f in cls.parameters():
        if f.name in options or isinstance(f.default, float):
            continue
        if limits(f)["choices"]:
            options[f.name] = limits(f)["choices"]
        else:
            low, high = limits(f)["low"] or 0, limits(f)["high"] or math.inf
            options[f.name] = tuple(dict.fromkeys((f.default, *(k for k in WHOLE if low <= k <= high))))
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def simplified(found: Fit, sample: Sample, tolerance: float) -> Fit:
    """An exact fit with as many parameters as possible at their defaults, and the rest at simple numbers."""
    cls = type(found.method)
    fixed: dict[str, Any] = {}
    for f in cls.parameters():
        if getattr(found.method, f.name) == f.default:
            fixed[f.name] = f.default
    for f in cls.parameters():
        if f.name in fixed or found.fitted <= 1:
            continue
        try:
            simpler = fit(cls, sample, found.mode, tolerance, fixed | {f.name: f.default})
        except ValueError:  # this default excludes the other parameters' values
            continue
        if simpler.error <= tolerance:
            found, fixed = simpler, fixed | {f.name: f.default}
    for f in cls.parameters():
        value = getattr(found.method, f.name)
        if isinstance(f.default, float) and value != f.default:
            ends = [x for x in (limits(f)["low"], limits(f)["high"]) if x is not None]
            for candidate in (*ends, *simple_numbers(value)):
                snapped = _replaced(found, sample, f.name, candidate)
                if snapped is not None and snapped.error <= max(found.error, tolerance / 100):
                    found = snapped
                    break
    return found


def _replaced(found: Fit, sample: Sample, name: str, value: float) -> Fit | None:
    try:
        m = type(found.method)(**found.method.params | {name: value})
    except ValueError:  # outside its range
        return None
    _, factor = sample.difference(m, found.mode)
    return Fit(m, found.mode, factor, sample.error(m, found.mode))
