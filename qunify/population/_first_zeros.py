"""Stable zeros that one start finds, and whether another drift clearly runs through them.

Most methods settle at different places, and one place is enough to tell: there the drift of the other is not zero, nor
anywhere near. That takes a few steps from the uniform distribution and one value of the other drift, where a search for
all zeros follows dozens of flows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from qunify.maps import QMap
from qunify.population._gradient_flow import Flow, ended, logits_of
from qunify.population._known_optima import known_value
from qunify.population._optima import flow_of

_NEAR = 2e-5  # probability: farther than two points that count as one optimum
_CLEAR = 1e-3  # of a drift, as a share of what adds up to it
_STEADY = 0.1  # how much of a drift may change nearby

# Of `_hurried`:
_STEPS = 20
_EAGER = 3.0  # a step is so many times as long as the last, over the share of the drift that was left by that,
_SHRINK, _GROW, _LONGEST = 0.2, 30.0, 1e12  # within these bounds
_FARTHEST = 2.0  # how far it moves a logit at most
_SMALL = 1e-9  # the drift that is left where Newton's method may take over


@dataclass(frozen=True, eq=False)
class FirstZeros:
    """Stable zeros of one method's drift at some of B truths, one at each."""

    flow: Flow
    probs: Tensor  # (n, V)
    rows: Tensor  # (n,) their truths

    @functools.cached_property
    def around(self) -> tuple[Tensor, Tensor]:
        """Each zero, and what lies `_NEAR` to it: a little more of each token, and a little less. Logits
        (n (2V + 1), V), and their truths."""
        v = self.probs.shape[-1]
        p, one = self.probs[:, None], torch.eye(v, dtype=self.probs.dtype)
        less = p - torch.minimum(p / 2, torch.full_like(p, _NEAR)) * one
        points = torch.cat([p, (1 - _NEAR) * p + _NEAR * one, less / less.sum(-1, keepdim=True)], 1)
        return logits_of(points.view(-1, v)), self.rows.repeat_interleave(2 * v + 1)

    @torch.no_grad()
    def moved_by(self, other: FirstZeros) -> bool:
        """Whether the other method's drift, at the same truths, has no zero near one of these points: it is clear
        there, and the same all around."""
        n, v = self.probs.shape
        if n == 0:
            return False
        drift, size = (x.view(n, 2 * v + 1, v) for x in other.flow.drift_and_size(*self.around))
        there = drift[:, 0].abs().amax(-1)
        change = (drift - drift[:, :1]).abs().amax((1, 2))
        return bool(((there > _CLEAR * size[:, 0].amax(-1)) & (change < _STEADY * there)).any())


@torch.no_grad()
def first_zeros_of(m: QMap, truth: Tensor, **context: Tensor) -> FirstZeros:
    """For truths (B, V): the optimum where theory has it, else a zero not far from the uniform distribution."""
    flow = flow_of(m, truth, context)
    rows = torch.arange(len(flow.truth))
    only = known_value(flow)
    if only is not None:
        return FirstZeros(flow, only, rows)
    end = ended(flow, _hurried(flow, torch.zeros_like(flow.truth), rows), rows)
    found = end.stable & end.exact
    return FirstZeros(flow, end.probs[found], rows[found])


def _hurried(flow: Flow, z: Tensor, rows: Tensor) -> Tensor:
    """Logits near a zero of the drift, from z (N, V), whichever zero that is: steps of implicit Euler grow longer as
    the drift falls (pseudo-transient continuation; Kelley and Keyes, SIAM Journal on Numerical Analysis 35, 1998)."""
    length, before = torch.ones_like(z[:, :1]), torch.full_like(z[:, :1], torch.nan)
    for _ in range(_STEPS):
        b, jacobian = flow.linear(z, rows)
        size = b.abs().amax(-1, keepdim=True)
        if bool((size < _SMALL).all()):
            break
        grown = length * (_EAGER * before / size).clamp(_SHRINK, _GROW)
        length = torch.where(grown.isnan(), length, grown).clamp(max=_LONGEST)
        z, before = z + jacobian.step(length, length * b).nan_to_num(0.0).clamp(-_FARTHEST, _FARTHEST), size
    return z
