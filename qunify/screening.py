"""Numbers propose: how two methods' gradients are related on many tokens of several vocabularies."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify import catalogue, targets
from qunify.qmap import Pulls, QMap
from qunify.tensors import TensorToken
from qunify.token import CONTEXTS, Token

Method = str | QMap | Callable[..., Tensor]
Alias = tuple[tuple[str, str], ...]  #: pairs (context, the one that stands in for it)

#: Two gradients agree where they differ by less than this share of the larger one.
AGREE = 1e-9

#: A gradient below this may have lost digits as a difference of larger pulls.
SMALL = 1e-4


class Tokens(NamedTuple):
    """A batch of N tokens over V entries, float64."""

    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    context: dict[str, Tensor]


#: Vocabulary sizes a claim must hold for: two is among them, and one larger than any default top-k.
SIZES = (5, 130, 2)


@functools.cache
def tokens(vocab: int, count: int = 240) -> Tokens:
    """Sharp, ordinary and nearly flat predictions; labels likely and unlikely; contexts near and far. Fixed seed."""
    r = torch.Generator().manual_seed(vocab)

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(count, vocab, generator=r, dtype=torch.float64)

    logits = normal(1.0) * torch.logspace(-0.7, 0.7, count, dtype=torch.float64)[:, None]
    sampled = torch.multinomial(torch.softmax(logits, -1), 1, generator=r)[:, 0]
    labels = torch.where(torch.rand(count, generator=r) < 0.5, sampled, torch.randint(vocab, (count,), generator=r))
    near = torch.rand(count, 1, generator=r, dtype=torch.float64) < 0.5
    context = {
        name: torch.where(near, logits + normal(0.3), normal(1.5)) for name in CONTEXTS if name.endswith("_logits")
    }
    context["token_weight"] = 0.2 + 1.5 * torch.rand(count, generator=r, dtype=torch.float64)
    context["token_mask"] = (torch.rand(count, generator=r) < 0.7).double()
    context["negative_mask"] = (torch.rand(count, vocab, generator=r) < 0.3).double().scatter(1, labels[:, None], 0.0)
    return Tokens(logits, labels, context)


class Foreign(QMap):
    """Somebody's loss function, measured by automatic differentiation."""

    family = "foreign"
    name: str  # type: ignore[misc]
    function: Callable[..., Tensor]
    needs: tuple[str, ...] = ()  # type: ignore[misc]

    def loss(self, t: Token) -> Tensor:
        return self._run(t)[0]

    def pulls(self, t: Token) -> Pulls:
        return (self._run(t)[1],)

    def _run(self, t: Token) -> tuple[Tensor, Tensor]:
        assert isinstance(t, TensorToken), "a Python function has no symbols"
        given: dict[str, Any] = {
            name: t.given[name][:, 0] if name.startswith("token_") else t.given[name] for name in self.needs
        }
        q = targets.induced(self.function, t.logits, t.index[:, 0], **given)
        return q.loss[:, None], q.gradient.to(t.logits.dtype)


def as_map(m: Method) -> QMap:
    if isinstance(m, QMap):
        return m
    if isinstance(m, str):
        return catalogue.get(m)
    names = inspect.signature(m).parameters
    return Foreign(name=getattr(m, "__name__", "loss"), function=m, needs=tuple(n for n in CONTEXTS if n in names))


@dataclass(frozen=True)
class Relation:
    """What the numbers say of two gradients on all probes."""

    level: str  # identical, scaled, directional or distinct
    factor: float | None
    silent_a: bool
    silent_b: bool
    failing: tuple[int, int] | None  # vocabulary size and row where the next finer level fails worst


def relate(a: QMap, b: QMap, alias: Alias = ()) -> Relation:
    """Numeric screening over vocabularies of several sizes; a claim must hold in all of them."""
    pairs = {v: (_gradient(a, v, alias), _gradient(b, v, alias)) for v in SIZES}
    size = {v: torch.maximum(ga.abs().amax(-1), gb.abs().amax(-1)).clamp(min=SMALL) for v, (ga, gb) in pairs.items()}
    apart = {v: (gb - ga).abs().amax(-1) / size[v] for v, (ga, gb) in pairs.items()}
    silent_a = any(bool(((ga == 0).all(-1) & (gb != 0).any(-1)).any()) for ga, gb in pairs.values())
    silent_b = any(bool(((gb == 0).all(-1) & (ga != 0).any(-1)).any()) for ga, gb in pairs.values())
    if _all_small(apart):
        return Relation("identical", 1.0, False, False, None)
    ga, gb = pairs[SIZES[0]]
    factor = float((ga * gb).sum() / (ga * ga).sum().clamp(min=1e-300))
    off_scale = {v: (gb - factor * ga).abs().amax(-1) / size[v] for v, (ga, gb) in pairs.items()}
    if factor > 0 and _all_small(off_scale):
        return Relation("scaled", factor, False, False, _worst(apart))
    off_ray = {v: _off_ray(ga, gb) for v, (ga, gb) in pairs.items()}
    alive = all(bool((g != 0).any()) for pair in pairs.values() for g in pair)
    if alive and _all_small(off_ray):
        return Relation("directional", None, silent_a, silent_b, _worst(off_scale))
    return Relation("distinct", None, silent_a, silent_b, _worst(off_ray))


def _off_ray(ga: Tensor, gb: Tensor) -> Tensor:
    """Distance of the two directions, (N,): 0 where one gradient is exactly zero, forgiving where one is tiny."""
    size_a, size_b = (g.norm(dim=-1, keepdim=True).clamp(min=1e-300) for g in (ga, gb))
    silent = (ga == 0).all(-1) | (gb == 0).all(-1)
    forgiven = torch.minimum(size_a, size_b).clamp(max=SMALL)[:, 0] / SMALL
    return torch.where(silent, 0.0, (ga / size_a - gb / size_b).abs().amax(-1) * forgiven)


def _all_small(errors: Mapping[int, Tensor]) -> bool:
    return all(bool((e < AGREE).all()) for e in errors.values())


def _worst(errors: Mapping[int, Tensor]) -> tuple[int, int]:
    """Where the failure shows best: the smallest vocabulary that has a clear one."""
    for v in sorted(errors):
        if float(errors[v].max()) > 1e-3:
            return v, int(errors[v].argmax())
    v = max(errors, key=lambda v: float(errors[v].max()))
    return v, int(errors[v].argmax())


@functools.lru_cache(maxsize=1024)
def _gradient(m: QMap, vocab: int, alias: Alias) -> Tensor:
    batch = tokens(vocab)
    context: dict[str, Any] = batch.context | {name: batch.context[source] for name, source in alias}
    return m(batch.logits, batch.labels, **context).gradient
