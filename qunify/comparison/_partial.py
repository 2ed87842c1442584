"""Is this loss a method at most tokens, and something else at the others? A clamp, a mask or a guard against log 0
leaves a method what it is nearly everywhere, and no fit to all tokens sees it through the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qunify._lib.simple import simple_numbers
from qunify.comparison._conditions import Flags
from qunify.comparison._fitting import Fit, Sample, fit, simplified
from qunify.comparison._places import Array
from qunify.comparison._subjects import Measured
from qunify.maps import QMap

MOST = 0.5  # share of the tokens, of every vocabulary, at which a loss must be the method
TRIED = 4  # entries that are fitted again, those that come nearest at their better tokens,
WORTH = 0.5  # if they come as near as this there, by the relative difference
ROUNDS = 3  # of leaving out tokens and fitting to the others


@dataclass(frozen=True)
class Partial:
    """A loss that is a method, up to a factor, at most tokens.

    Attributes
    ----------
    method : QMap
    factor : float
        gradient of the loss = factor · gradient of the method, at these tokens.
    share : float
        How many of the tokens that were not used in fitting, the fewest over three vocabularies.
    silent : bool
        Whether the loss has no gradient at any of the others.
    error : float
        Relative gradient error on all of them, the largest over the vocabularies.
    """

    method: QMap
    factor: float
    share: float
    silent: bool
    error: float

    def holds(self, q: Measured, gate: bool, tolerance: float) -> Flags:
        """At which of these tokens the loss is the method, (N,) of bool."""
        sample = Sample((q.batch,), (q.gradient.numpy(),), gate)
        return _differences(self.method, sample, self.factor)[0] <= 10 * tolerance


def partly(missed: Sequence[Fit], sample: Sample, held_out: Sample, tolerance: float) -> list[Partial]:
    """The methods that the loss is at more than MOST of the tokens, that with the most first."""
    found = []
    near = {close.method: _nearness(close.method, sample) for close in missed}
    for method in sorted((m for m in near if near[m] <= WORTH), key=near.__getitem__)[:TRIED]:
        m = _fitted_to_most(method, sample, tolerance)
        partial = m and _confirmed(m, held_out, tolerance)
        if partial:
            found.append(partial)
    return sorted(found, key=lambda p: (-round(p.share, 2), len(p.method.params)))


def _fitted_to_most(m: QMap, sample: Sample, tolerance: float) -> QMap | None:
    """The same method, at parameters at which it is exact at most tokens."""
    kept = sample
    for _ in range(ROUNDS):
        at_them = _differences(m, sample)
        if min(float((d <= 10 * tolerance).mean()) for d in at_them) >= MOST:
            kept = _at(sample, at_them, 10 * tolerance)
            return simplified(fit(type(m), kept, "ratio", tolerance), kept, tolerance).method
        kept = _at(sample, at_them)
        m = fit(type(m), kept, "ratio", tolerance).method
    return None


def _confirmed(m: QMap, held_out: Sample, tolerance: float) -> Partial | None:
    """What holds on tokens that the method was not fitted to."""
    factor = _factor(m, held_out)
    if not factor:
        return None
    factor = next(iter(simple_numbers(factor, within=10 * tolerance, least=0)), factor)
    exact = [d <= 10 * tolerance for d in _differences(m, held_out, factor)]
    share = min(float(e.mean()) for e in exact)
    if not MOST <= share < 1:
        return None
    others = [np.linalg.norm(b, axis=-1)[~e] for b, e in zip(held_out.blocks, exact, strict=True)]
    return Partial(m, factor, share, not any(x.any() for x in others), held_out.error(m, "equal", factor))


def _nearness(m: QMap, sample: Sample) -> float:
    """The relative difference at the better half of the tokens."""
    return max(float(np.median(d)) for d in _differences(m, sample))


def _factor(m: QMap, sample: Sample) -> float:
    """The loss over the method at the median token, 0 where they have no tokens in common."""
    ratios = [_ratios(v, b) for v, b in zip(sample.values(m), sample.blocks, strict=True)]
    alive = np.concatenate([r[np.isfinite(r) & (r > 0)] for r in ratios])
    return float(np.median(alive)) if len(alive) else 0.0


def _ratios(v: Array, b: Array) -> Array:
    size = (v * v).sum(-1)
    return np.divide((v * b).sum(-1), size, out=np.full(len(v), np.nan), where=size > 0)


def _differences(m: QMap, sample: Sample, factor: float | None = None) -> list[Array]:
    """‖factor · method − loss‖ over the larger of both, at every token of each vocabulary; 1 where one is silent."""
    factor = _factor(m, sample) if factor is None else factor
    found = []
    for v, b in zip(sample.values(m), sample.blocks, strict=True):
        size = np.maximum(*(np.linalg.norm(x, axis=-1) for x in (factor * v, b)))
        apart = np.linalg.norm(factor * v - b, axis=-1)
        found.append(np.divide(apart, size, out=np.ones(len(v)), where=size > 0))
    return found


def _at(sample: Sample, differences: Sequence[Array], bound: float | None = None) -> Sample:
    """The sample at the tokens where a method differs least: up to the bound, or else the better half of them."""
    bounds = [np.median(d) if bound is None else bound for d in differences]
    return sample.at([np.flatnonzero(d <= b) for d, b in zip(differences, bounds, strict=True)])
