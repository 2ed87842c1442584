"""Numbers propose: how two methods' gradients are related on many tokens of several vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify._lib.tolerances import AGREE, SMALL
from qunify.maps import Alias, QMap, remembered
from qunify.samples import SIZES, aliased, ordinary, sizes


@dataclass(frozen=True)
class Relation:
    """What the numbers say of two gradients at all tokens tried."""

    level: str  # identical, scaled, directional or distinct
    factor: float | None
    silent_a: bool
    silent_b: bool


class _Seen(NamedTuple):
    """One method at N tokens over V entries."""

    gradient: Tensor  # (N, V)
    norm: Tensor  # (N,)
    ray: Tensor  # (N, V) the gradient at length one
    silent: Tensor  # (N,) bool


def relate(a: QMap, b: QMap, alias: Alias = ()) -> Relation:
    """The finest level that holds at all tokens of vocabularies of several sizes."""
    pairs = [(_seen(a, v, alias), _seen(b, v, alias)) for v in sizes(a, b)]
    silent_a = any(bool((x.silent & ~y.silent).any()) for x, y in pairs)
    silent_b = any(bool((y.silent & ~x.silent).any()) for x, y in pairs)
    alive = all(any(not bool(pair[i].silent.all()) for pair in pairs) for i in (0, 1))
    if not alive or not all(_on_rays(x, y) for x, y in pairs):
        return Relation("distinct", None, silent_a, silent_b)
    x, y = pairs[0]
    factor = float((x.gradient * y.gradient).sum() / (x.gradient**2).sum())
    if all(_equal(x, y, 1.0) for x, y in pairs):
        return Relation("identical", 1.0, False, False)
    if all(_equal(x, y, factor) for x, y in pairs):
        return Relation("scaled", factor, False, False)
    return Relation("directional", None, silent_a, silent_b)


def _on_rays(x: _Seen, y: _Seen) -> bool:
    """Whether the directions agree wherever neither gradient is zero. A gradient below SMALL may have lost digits, so
    that its direction counts in proportion to its size."""
    forgiven = torch.minimum(x.norm, y.norm).clamp(max=SMALL) / SMALL
    apart = torch.where(x.silent | y.silent, 0.0, (x.ray - y.ray).abs().amax(-1) * forgiven)
    return bool((apart < AGREE).all())


def _equal(x: _Seen, y: _Seen, factor: float) -> bool:
    size = torch.maximum(x.norm, y.norm).clamp(min=SMALL)
    return bool(((y.gradient - factor * x.gradient).abs().amax(-1) / size < AGREE).all())


@remembered
def _seen(m: QMap, vocab: int, alias: Alias) -> _Seen:
    batch = ordinary(vocab, 240 if vocab in SIZES else 6)
    context: dict[str, Any] = aliased(batch.context, alias)
    g = m(batch.logits, batch.labels, **context).gradient
    norm = g.norm(dim=-1)
    return _Seen(g, norm, g / norm.clamp(min=1e-300)[:, None], (g == 0).all(-1))
