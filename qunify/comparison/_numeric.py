"""Numbers propose: how two methods' gradients are related on many tokens of several vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qunify._lib.tolerances import AGREE, SMALL
from qunify.maps import Alias, LossFunctionMap, Pulled, QMap, remembered
from qunify.samples import SIZES, Batch, aliased, ordinary, sizes


@dataclass(frozen=True)
class Relation:
    """What the numbers say of two gradients at all tokens tried."""

    level: str  # identical, scaled, directional or distinct
    factor: float | None
    silent_a: bool
    silent_b: bool


class _Seen(NamedTuple):
    """One method at N tokens over V entries; sizes are in units of its largest entry."""

    scale: float  # that entry
    gradient: Tensor  # (N, V)
    norm: Tensor  # (N,)
    ray: Tensor  # (N, V) the gradient at length one
    silent: Tensor  # (N,) bool
    terms: Tensor  # (N,) the size of the terms whose difference the gradient is: its digits count from there
    near: float  # how near another gradient must be, relative to the larger one


def relate(a: QMap, b: QMap, alias: Alias = ()) -> Relation:
    """The finest level that holds at all tokens of vocabularies of several sizes."""
    for m in (a, b):
        if isinstance(m, LossFunctionMap):
            m.calling.check_repeatable()
    pairs = [(_seen(a, v, alias), _seen(b, v, alias)) for v in sizes(a, b)]
    if a.pools or b.pools:
        pairs += [(_seen(a, v, alias, sure=True), _seen(b, v, alias, sure=True)) for v in SIZES]
    silent_a = any(bool((x.silent & ~y.silent).any()) for x, y in pairs)
    silent_b = any(bool((y.silent & ~x.silent).any()) for x, y in pairs)
    if all(_equal(x, y, 1.0) for x, y in pairs):
        return Relation("identical", 1.0, False, False)
    alive = all(any(not bool(pair[i].silent.all()) for pair in pairs) for i in (0, 1))
    if not alive or not all(_on_rays(x, y) for x, y in pairs):
        return Relation("distinct", None, silent_a, silent_b)
    x, y = pairs[0]
    factor = float((x.gradient * y.gradient).sum() / (x.gradient**2).sum()) * (y.scale / x.scale)
    if all(_equal(x, y, factor) for x, y in pairs):
        return Relation("scaled", factor, False, False)
    return Relation("directional", None, silent_a, silent_b)


def _on_rays(x: _Seen, y: _Seen) -> bool:
    """Whether the directions agree wherever neither gradient is zero. A gradient below SMALL of its terms may have lost
    digits, so that its direction counts in proportion to its size."""
    left = torch.minimum(x.norm / x.terms, y.norm / y.terms).clamp(max=SMALL) / SMALL
    apart = torch.where(x.silent | y.silent, 0.0, (x.ray - y.ray).abs().amax(-1) * left)
    return bool((apart < max(x.near, y.near)).all())


def _equal(x: _Seen, y: _Seen, factor: float) -> bool:
    unit = max(y.scale, abs(factor) * x.scale)
    by_x, by_y = factor * x.scale / unit, y.scale / unit
    sizes = [f * torch.maximum(m.norm, SMALL * m.terms) for f, m in ((abs(by_x), x), (by_y, y))]
    apart = (by_y * y.gradient - by_x * x.gradient).abs().amax(-1)
    return bool((apart <= max(x.near, y.near) * torch.maximum(*sizes)).all())


@remembered
@torch.no_grad()
def _seen(m: QMap, vocab: int, alias: Alias, sure: bool = False) -> _Seen:
    """At ordinary tokens; `sure`, of three in four of them the model is nearly certain, so that means and medians of
    the batch lie far from what is left of it."""
    batch = ordinary(vocab, 240 if vocab in SIZES else 6)
    raised = torch.zeros_like(batch.logits)
    if sure:
        raised.scatter_(1, batch.labels[:, None], 8.0)[::4] = 0.0
    t = Batch(batch.logits + raised, batch.labels, aliased(batch.context, alias)).token
    pulled = Pulled.of(t, m.pulls(t))
    scale = float(pulled.gradient.abs().max()) or 1.0
    g = pulled.gradient / scale
    peak = g.abs().amax(-1, keepdim=True).clamp(min=1e-300)
    length = (g / peak).norm(dim=-1, keepdim=True).clamp(min=1e-300)
    norm = (peak * length)[:, 0]
    # Of a vector nobody knows the terms: they are as large as any gradient, and cancel where a softmax is nearly one.
    unknown = torch.maximum(norm / (1 - pulled.policy.amax(-1)).clamp(min=1e-16), torch.ones_like(norm))
    known = pulled.magnitude.amax(-1) / scale
    terms = torch.where(pulled.weights[:, 0].isnan(), unknown, known).clamp(min=1e-300)
    computed_in = m.calling.rounding if isinstance(m, LossFunctionMap) else torch.float64
    near = AGREE if computed_in == torch.float64 else 4 * torch.finfo(computed_in).eps ** 0.5
    return _Seen(scale, g, norm, g / peak / length, (g == 0).all(-1), terms, near)
