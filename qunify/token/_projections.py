"""Maps from logits to distributions: softmax, entmax and the tempered softmax, with the sorting that top-k needs.

Entmax and the tempered softmax have no closed form. Each is found by Newton's method on one number per token, the
threshold or the log-normaliser, from a side on which every step goes the same way: no line search, no sorting.
"""

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
    """The softmax of finite logits; its logarithm comes from the probabilities unless a gradient is wanted."""
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
    """log Σ exp z from the softmax p of z: z_k − log p_k, read off at the largest entry."""
    return logits.amax(-1, keepdim=True) - probs.amax(-1, keepdim=True).log()


def peak(logits: Tensor) -> Tensor:
    return logits.detach().amax(-1, keepdim=True)


def below_peak(logits: Tensor) -> Tensor:
    """Logits with the same softmax, all finite: shifted so that the largest is 0, then none below RULED_OUT."""
    below = logits - peak(logits)
    return below.clamp(min=RULED_OUT) if below.requires_grad else below.clamp_(min=RULED_OUT)


def raised(logits: Tensor) -> Tensor:
    """The logits as they are, but for those further below the largest than RULED_OUT, which are raised to that: all are
    finite where the largest one is."""
    return torch.maximum(logits, peak(logits) + RULED_OUT)


def sort(x: Tensor) -> Tensor:
    """x in ascending order along the last dimension. NumPy's sort is some thirty times faster on a CPU."""
    return torch.from_numpy(np.sort(x.detach().numpy())) if x.device.type == "cpu" else x.sort(-1).values


def top_k(x: Tensor, k: int) -> Tensor:
    """The k largest entries along the last dimension, or all, in any order; by NumPy on a CPU, which is faster."""
    if x.device.type != "cpu":
        return x.topk(min(k, x.shape[-1]), -1).values
    first = max(x.shape[-1] - k, 0)
    return torch.from_numpy(np.partition(x.detach().numpy(), first)[..., first:])


def log_max(dtype: torch.dtype) -> float:
    """The largest exponent x with a finite exp(x), less 1 for rounding."""
    return math.log(torch.finfo(dtype).max) - 1


def entmax_threshold(logits: Tensor, power: float, steps: int = 50) -> Tensor:
    """The threshold τ of α-entmax, (…, 1): Σ (logits − τ)₊^power = 1, where power = 1/(α − 1) is 1 or 2 and the logits
    are already multiplied by α − 1.

    Peters, Niculae & Martins 2019 (arXiv:1905.05702) find τ by bisection, or exactly by sorting. Here it is found by
    Newton's method: the sum is convex in τ and at least 1 at max − 1, so that from there τ only rises.
    """
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
        if _converged(step, tau):
            break
    return tau


def tempered_powers(logits: Tensor, ruled_out: Tensor | None, shift: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """b = (1 − t)(logits − shift) and (1 + b)^(1/(1 − t)) = exp_t(logits − shift), for t > 1."""
    beyond = (logits - shift).mul_(1 - t)  # b itself, not 1 + b: near t = 1 it has the digits
    if ruled_out is not None:  # a heavy tail would give even a ruled-out token some mass
        beyond = beyond.masked_fill(ruled_out, torch.inf)
    return beyond, beyond.log1p().div_(1 - t).exp_()


def tempered_normaliser(logits: Tensor, ruled_out: Tensor | None, t: float, steps: int = 50) -> Tensor:
    """The λ of the tempered softmax, (…, 1): S(λ) = Σ exp_t(logits − λ) = 1, for t > 1.

    Amid et al. 2019 (arXiv:1906.03361) iterate to a fixed point. Here λ is found by Newton's method on S^(1−t), which
    is concave in λ and linear for a single term: from a λ where S ≥ 1, it only rises, and a few steps are enough. Such
    are the largest logit and, since exp_t is convex, the λ of as many logits that are all the mean.
    """
    allowed = logits.new_ones(()).expand_as(logits) if ruled_out is None else (~ruled_out).to(logits.dtype)
    count = allowed.sum(-1, keepdim=True)
    mean = (logits * allowed).sum(-1, keepdim=True) / count
    shift = torch.maximum(logits.amax(-1, keepdim=True), mean + torch.expm1((t - 1) * count.log()) / (t - 1))
    for _ in range(steps):
        beyond, probs = tempered_powers(logits, ruled_out, shift, t)
        total = probs.sum(-1, keepdim=True)
        above = total * torch.expm1((t - 1) * total.log()) / (t - 1)  # (S^t − S)/(t − 1)
        step = above / probs.div_(beyond.add_(1)).sum(-1, keepdim=True)
        shift = shift + step
        if _converged(step, shift):
            break
    return shift


def _converged(step: Tensor, at: Tensor) -> bool:
    """Whether the last step of every row is below rounding."""
    return bool((step <= 8 * torch.finfo(at.dtype).eps * (1 + at.abs())).all())
