"""The pulls of a method added up: the logit gradient, and the sums from which targets and gauges are computed."""

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
    """The pulls of a method added up, at N tokens.

    In a gauge of scale s the target is s·Q = (s − w)·p + on_label·δ + off_label_sum, with w = on_label + off_label.
    The pulls `u → label, 1 − u → G` have on_label = u, off_label = 1 − u and off_label_sum = (1 − u) G.
    """

    policy: Tensor  # (N, V) p
    gradient: Tensor  # (N, V) g
    on_label: Tensor  # (N, 1) Σ of the weights of pulls toward the label; NaN where these are not known
    off_label_sum: Tensor  # (N, V) Σ w D over all other pulls, minus the signed vectors
    off_label: Tensor  # (N, 1) Σ of the weights of all other pulls
    weights: Tensor  # (N, 1) Σ |w|; NaN where a signed vector, which has no weight, is among the pulls
    magnitude: Tensor  # (N, V) Σ |w| (p + D) + |v|: the gradient is a difference of terms of this size, and so rounded
    log_conditioning: Tensor  # (N, V) 1 − log p: the relative rounding of p = exp(log p), in units of eps

    @classmethod
    def of(cls, t: TensorToken, pulls: Iterable[Pull]) -> Pulled:
        pulls = list(pulls)
        p = t.policy.probs
        on_label, off_label, weights = (torch.zeros_like(t.p_label) for _ in range(3))
        off_label_sum, magnitude = torch.zeros_like(p), torch.zeros_like(p)
        for pull in pulls:
            if not isinstance(pull, tuple):  # a signed gradient vector
                weights += torch.nan
                off_label_sum -= pull
                magnitude += pull.abs()
                continue
            weight, d = pull
            weights += abs(weight)
            magnitude += abs(weight) * (p + d.probs)
            if d is t.label:
                on_label += weight
            else:
                off_label += weight
                off_label_sum += weight * d.probs
        gradient, log_conditioning = logit_gradient(t, pulls), 1 - t.policy.log
        return cls(p, gradient, on_label, off_label_sum, off_label, weights, magnitude, log_conditioning)


def logit_gradient(t: TensorToken, pulls: Iterable[Pull], out: Tensor | None = None) -> Tensor:
    """Σ w (p − D) + Σ v, (N, V), written to `out` if that is given.

    It takes one pass over the vocabulary for the policy and one for each target D, but none for the label and for
    uniform targets: these are N numbers each.
    """
    p = t.policy.probs
    on_label: Tensor | float = 0.0
    off_label: Tensor | float = 0.0
    constant: Tensor | float = 0.0
    terms: list[tuple[Tensor | float, Tensor]] = []
    for pull in pulls:
        if not isinstance(pull, tuple):
            terms.append((1.0, pull))
        elif pull[1] is t.label:
            on_label = on_label + pull[0]
        else:
            off_label = off_label + pull[0]
            if pull[1].probs.stride(-1) == 0:  # one number for all tokens, expanded
                constant = constant - pull[0] * pull[1].probs[:, :1]
            else:
                terms.append((-pull[0], pull[1].probs))
    at_label = constant + t.at_label(p) * off_label - on_label * t.p_rest  # 1 − u, not u − 1: exact near u = 1
    for weight, v in terms:
        at_label = at_label + weight * t.at_label(v)
    total = on_label + off_label
    if not terms or isinstance(total, Tensor) or total != 0:
        terms.append((total, p))
    (weight, v), *more = terms
    g = torch.mul(v, weight, out=out)
    for weight, v in more:
        g.addcmul_(torch.as_tensor(weight, dtype=g.dtype, device=g.device), v)
    if isinstance(constant, Tensor):
        g += constant
    return g.scatter_(-1, t.index, at_label)


class Gated(NamedTuple):
    """For each of N gradients g: the weight w of the gate w (p − δ) nearest to it, and whether g is that gate."""

    weight: Tensor  # (N, 1) w = Σ g_k / Σ p_k over k ≠ y, which is exact also near u = 1
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
