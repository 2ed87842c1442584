"""Pulls added up: the logit gradient, and what gauges and targets are read from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify.token import Distribution, TensorToken

#: `w → D` as the pair (w, D), or a signed gradient vector.
Pull = tuple[Any, Distribution] | Tensor


@dataclass(frozen=True)
class Pulled:
    """A sum of pulls, added up. With s the scale of a gauge and w = on_label + off_label,
    s·Q = (s − w)·p + on_label·δ + elsewhere."""

    policy: Tensor  # (N, V) p
    gradient: Tensor  # (N, V) g
    on_label: Tensor  # (N, 1) Σ of the weights whose target is the label; NaN where that is not known
    elsewhere: Tensor  # (N, V) Σ w D over the other targets, minus the signed vectors
    off_label: Tensor  # (N, 1) Σ of the other weights
    weights: Tensor  # (N, 1) Σ |w|; NaN where some part has no weight, so that Σ w means nothing
    parts: Tensor  # (N, V) Σ |w| (p + D) + |v|: what the gradient is the small difference of
    depth: Tensor  # (N, V) 1 − log p: a probability computed from a logarithm carries the logarithm's rounding

    @classmethod
    def of(cls, t: TensorToken, pulls: Iterable[Pull]) -> Pulled:
        pulls = list(pulls)
        p = t.policy.probs
        on_label, off_label, weights = (torch.zeros_like(t.p_label) for _ in range(3))
        elsewhere, parts = torch.zeros_like(p), torch.zeros_like(p)
        for pull in pulls:
            if not isinstance(pull, tuple):  # a signed gradient vector
                weights += torch.nan
                elsewhere -= pull
                parts += pull.abs()
                continue
            weight, d = pull
            weights += abs(weight)
            parts += abs(weight) * (p + d.probs)
            if d is t.label:
                on_label += weight
            else:
                off_label += weight
                elsewhere += weight * d.probs
        return cls(p, logit_gradient(t, pulls), on_label, elsewhere, off_label, weights, parts, 1 - t.policy.log)


def logit_gradient(t: TensorToken, pulls: Iterable[Pull], out: Tensor | None = None) -> Tensor:
    """Σ w (p − D) + Σ v, (N, V): one pass for the policy, one for each other target, N numbers for the label. Written
    to `out`, if that is given."""
    p = t.policy.probs
    on_label, off_label, level = (torch.zeros_like(t.p_label) for _ in range(3))
    others: list[tuple[Tensor | float, Tensor]] = []
    for pull in pulls:
        if not isinstance(pull, tuple):
            others.append((-1.0, pull))
        elif pull[1] is t.label:
            on_label += pull[0]
        else:
            off_label += pull[0]
            if pull[1].probs.stride(-1) == 0:  # the same everywhere
                level -= pull[0] * pull[1].probs[:, :1]
            else:
                others.append((pull[0], pull[1].probs))
    g = torch.addcmul(level, p, on_label + off_label, out=out)
    at_label = level + t.at_label(p) * off_label - on_label * t.p_rest  # 1 − u, not u − 1: exact near u = 1
    for weight, v in others:
        w = torch.as_tensor(weight, dtype=g.dtype, device=g.device)
        g.addcmul_(w, v, value=-1)
        at_label -= w * t.at_label(v)
    return g.scatter_(-1, t.index, at_label)


class Gated(NamedTuple):
    """The gate w (p − δ) that comes nearest to each of N gradients, and whether it is that gradient."""

    weight: Tensor  # (N, 1) w: what the other tokens gain together, over their probability; exact also near u = 1
    holds: Tensor  # (N, 1) bool

    @classmethod
    def of(cls, g: Tensor, p: Tensor, index: Tensor, rounding: Tensor | float) -> Gated:
        """From gradients g (N, V), predictions p (N, V) and labels (N, 1); `rounding` is what may be left of a zero.

        At p = (0.7, 0.2, 0.1) and label 0, g = (−0.6, 0.4, 0.2) has w = 2 and is a gate; (−0.6, 0.3, 0.3) has w = 2
        and is none.
        """
        gained, others = (x.scatter(-1, index, 0.0).sum(-1, keepdim=True) for x in (g, p))
        weight = gained / others.clamp(min=torch.finfo(p.dtype).tiny)
        gate = weight * p.scatter(-1, index, -others)
        return cls(weight, ((g - gate).abs() <= rounding).all(-1, keepdim=True))
