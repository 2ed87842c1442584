"""Weights in bfloat16 or float16 that no step moves: it is less than half of the distance to the next such number."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLE = 2**16  # weights of a parameter that are looked at, evenly spaced


@torch.no_grad()
def share_unmoved(parameters: Iterable[Tensor], step: float) -> float:
    """The share of all weights in training, from 0 to 1, that a step of this size, up or down, leaves as they are.

    Adam's steps are about the learning rate, whatever the gradient. A weight of 0.02 in bfloat16 has neighbours
    0.0001 away, so that a step of 1e-5 is rounded off, and the next one, too.
    """
    still, every = 0.0, 0
    for p in parameters:
        if not p.requires_grad or not p.numel():
            continue
        every += p.numel()
        if p.dtype in (torch.bfloat16, torch.float16):
            some = p.detach().flatten()[:: max(1, p.numel() // SAMPLE)]
            moved = torch.stack([some.float() + step, some.float() - step]).to(p.dtype) != some
            still += p.numel() * (1 - float(moved.any(0).float().mean()))
    return still / every if every else 0.0


def warn_of_unmoved(method: str, parameters: Iterable[Tensor], rate: float) -> None:
    """A UserWarning where most weights in training would stand still at this learning rate."""
    share = share_unmoved(parameters, rate)
    if share > 0.5:
        warnings.warn(
            f"{method}: {share:.0%} of the weights in training are 16-bit numbers that a step of {rate:g} is too small "
            "to change; load the model with dtype=torch.float32, or train an adapter",
            stacklevel=3,
        )
