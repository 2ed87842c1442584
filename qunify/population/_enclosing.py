"""Zeros of many falling functions at once: each is enclosed ever closer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_SPARE = 8  # steps that a search may take beyond those of bisection
_UNLIKE = 700.0  # the log of a ratio of two numbers that are not of one sign


class Enclosed(NamedTuple):
    """Where falling functions go through a level: above it at `left`, not above at `right`; (N,) each."""

    left: Tensor
    right: Tensor
    above: Tensor  # the values there
    below: Tensor

    def of(self, index: Tensor) -> Enclosed:
        return Enclosed(*(x[index] for x in self))

    def put(self, index: Tensor, new: Enclosed) -> None:
        for x, y in zip(self, new, strict=True):
            x[index] = y


def enclose(f: Callable[[Tensor, Tensor], Tensor], e: Enclosed, tolerance: Tensor) -> Enclosed:
    """Closes in on the zeros of falling functions to a `tolerance` (N,): f(x, which) are values of some of them, of
    which a 0 ends the search.

    By secants, where the value at an end that stays is halved (Illinois), held so near the middle that few more steps
    are taken than bisection takes (Oliveira and Takahashi, ACM Transactions on Mathematical Software 47, 2020)."""
    e = Enclosed(*(x.clone() for x in e))
    allowed = tolerance * 2.0 ** (((e.right - e.left) / tolerance).log2().ceil().clamp(min=0) + _SPARE)
    side = torch.zeros_like(e.left)  # that moved last: 1 left, −1 right
    while len(live := (e.right - e.left > tolerance).nonzero()[:, 0]):
        left, right, above, below = e.of(live)
        width, middle = right - left, (left + right) / 2
        aside = left + width * above / (above - below) - middle
        aside = aside.sign() * (aside.abs() - tolerance[live] / 2).clamp(min=0)  # so that the zero is left behind
        most = ((allowed[live] - width) / 2).clamp(min=0)
        x = middle + torch.minimum(torch.maximum(aside, -most), most)
        x = torch.where((x > left) & (x < right), x, middle)
        y = f(x, live)
        last = (x <= left) | (x >= right)  # there is no number between them
        up, down = (y >= 0) | last, ~(y > 0) | last  # what is no number is not above
        above = torch.where(up, y, torch.where(side[live] == -1, above / 2, above))
        below = torch.where(down, y, torch.where(side[live] == 1, below / 2, below))
        e.put(live, Enclosed(torch.where(up, x, left), torch.where(down, x, right), above, below))
        side[live] = up.double() - down.double()
        allowed = allowed / 2
    return e


def log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log a/b of numbers of one sign; it rises with a, and is 0 where they are equal, also of others."""
    alike = (a.sign() * b.sign() > 0) & (b.abs() > 0)
    log = torch.where(alike, a / b, 1.0).log()
    return torch.where(alike, b.sign() * log, _UNLIKE * (a - b).sign())
