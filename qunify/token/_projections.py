"""Maps from logits to distributions, and the sorting behind them: softmax, entmax, tempered softmax."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from qunify.token._base import Distribution

#: A token this many nats below the most likely one has probability exactly zero, and −inf logits are set to
#: it: far enough that its exponential vanishes at any temperature in use, finite so that 0 · log 0 = 0.
RULED_OUT = -1e6


def softmax(logits: Tensor) -> Distribution:
    if logits.requires_grad:
        return Distribution(
            lambda: torch.softmax(logits, -1),
            lambda: torch.log_softmax(logits, -1),
            lambda: logits,
            lambda _: logits.logsumexp(-1, keepdim=True),
        )
    return Distribution(
        lambda: torch.softmax(logits, -1),
        logits=lambda: logits,
        log_normaliser=lambda probs: _log_normaliser(logits, probs),
    )


def _log_normaliser(logits: Tensor, probs: Tensor) -> Tensor:
    """log Σ exp of a logits whose softmax this is: its largest entry, less the logarithm there."""
    return logits.amax(-1, keepdim=True) - probs.amax(-1, keepdim=True).log()


def peak(logits: Tensor) -> Tensor:
    return logits.detach().amax(-1, keepdim=True)


def below_peak(logits: Tensor) -> Tensor:
    """The same softmax, finite: how far each is below the largest, at most RULED_OUT."""
    below = logits - peak(logits)
    return below.clamp(min=RULED_OUT) if below.requires_grad else below.clamp_(min=RULED_OUT)


def sort(x: Tensor) -> Tensor:
    """Ascending along the last dimension. NumPy's sort is some thirty times faster on a CPU."""
    return torch.from_numpy(np.sort(x.detach().numpy())) if x.device.type == "cpu" else x.sort(-1).values


def kth_largest(x: Tensor, k: int) -> Tensor:
    """The k-th largest along the last dimension, (…, 1); NumPy for the same reason."""
    if x.device.type != "cpu":
        return x.topk(k, -1).values[..., -1:]
    place = x.shape[-1] - k
    return torch.from_numpy(np.partition(x.detach().numpy(), place)[..., place : place + 1])


def log_max(dtype: torch.dtype) -> float:
    return math.log(torch.finfo(dtype).max) - 1  # so that rounding cannot reach infinity


def entmax_threshold(logits: Tensor, power: float, steps: int = 50) -> Tensor:
    """τ with Σ (logits − τ)₊^power = 1, for power 1 or 2. The sum is convex in τ, so that Newton from max − 1, where it
    is ≥ 1, only climbs."""
    tau = logits.amax(-1, keepdim=True) - 1
    over = torch.empty_like(logits)
    for _ in range(steps):
        torch.sub(logits, tau, out=over).clamp_(min=0)
        if power == 1:  # sparsemax
            mass, slope = over.sum(-1, keepdim=True), over.sign_().sum(-1, keepdim=True)
        else:
            slope, mass = 2 * over.sum(-1, keepdim=True), over.mul_(over).sum(-1, keepdim=True)
        step = (mass - 1) / slope
        tau = tau + step
        if _settled(step, tau):
            break
    return tau


def tempered_powers(logits: Tensor, ruled_out: Tensor | None, shift: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """1 + (1 − t)(logits − shift), and its power 1/(1 − t), for t > 1."""
    base = torch.add(1 - (1 - t) * shift, logits, alpha=1 - t)
    if ruled_out is not None:  # a heavy tail would give even a ruled-out token some mass
        base = base.masked_fill(ruled_out, torch.inf)
    return base, base.log().div_(1 - t).exp_()


def tempered_normaliser(logits: Tensor, ruled_out: Tensor | None, t: float, steps: int = 50) -> Tensor:
    """λ with S(λ) = Σ exp_t(logits − λ) = 1, for t > 1. S^(1−t) is concave in λ and straight for a single term, so
    Newton on it from max, where S ≥ 1, only climbs and arrives in a few steps."""
    shift = logits.amax(-1, keepdim=True)
    for _ in range(steps):
        base, probs = tempered_powers(logits, ruled_out, shift, t)
        total = probs.sum(-1, keepdim=True)
        step = (total.pow(t) - total) / ((t - 1) * probs.div_(base).sum(-1, keepdim=True))
        shift = shift + step
        if _settled(step, shift):
            break
    return shift


def _settled(step: Tensor, at: Tensor) -> bool:
    return bool((step <= 8 * torch.finfo(at.dtype).eps * (1 + at.abs())).all())
