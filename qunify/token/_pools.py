"""What a method may know of a token's surroundings: one number that all positions of its sequence, or batch, share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

#: The scalar of a token that is pooled. A function of a module, so that equal pools are equal.
Quantity = Callable[[Any], Any]


@dataclass(frozen=True)
class Pool:
    """A statistic of a quantity over the kept positions of a sequence or of the batch, a constant to differentiation.

    `Pool("mean", surprise)` is the mean of −log u over the token's sequence. `how`:

    - "mean"; "std", the standard deviation (divided by the count);
    - "quantile": the smallest value that at least a `share` of all do not exceed; 0.5 gives the lower median;
    - "below", "above": the share of values that are smaller, or larger, than the token's own.

    `over` says of what: the positions of the token's sequence, those of the batch, or the batch's sequences, each of
    which counts once, with its mean.
    """

    how: Literal["mean", "std", "quantile", "below", "above"]
    of: Quantity
    over: Literal["sequence", "batch", "sequences"] = "sequence"
    share: float = 0.5

    @property
    def name(self) -> str:
        """For instance `mean_surprise_of_sequence`."""
        share = f"{self.share:g}" if self.how == "quantile" else ""
        return f"{self.how}{share}_{self.of.__name__}_of_{self.over}"

    def alone(self, x: Any) -> Any:
        """The statistic of a sequence of one position, of which x is the quantity."""
        return x if self.how in ("mean", "quantile") else 0 * x


@dataclass(frozen=True, eq=False)
class Pooling:
    """Which of N positions are one sequence and one batch, and what each counts for.

    Attributes
    ----------
    sequence, batch : Tensor of int, (N,)
        Positions of one number belong together.
    shares : Tensor, (N,), optional
        Of each position, in any unit; by default all are equal.
    """

    sequence: Tensor
    batch: Tensor
    shares: Tensor | None = None

    @classmethod
    def of_one(cls, like: Tensor) -> Pooling:
        """All positions of `like` (N, …) in one sequence."""
        one = like.new_zeros(len(like), dtype=torch.long)
        return cls(one, one)

    def combine(self, pool: Pool, x: Tensor) -> Tensor:
        """The statistic at every position, (N, 1), of a quantity x (N, 1)."""
        values, within = x.detach()[:, 0], self.sequence if pool.over == "sequence" else self.batch
        if pool.over != "sequences":
            return _statistic(pool, values, within, self.shares)[:, None]
        _, number = self.sequence.unique(return_inverse=True)
        count = int(number.max()) + 1 if len(number) else 0
        own = _statistic(Pool("mean", pool.of), values, number, self.shares)
        means = values.new_zeros(count).scatter(0, number, own)
        of_sequences = _statistic(pool, means, within.new_zeros(count).scatter(0, number, within), None)
        return of_sequences[number, None]


def _statistic(pool: Pool, values: Tensor, within: Tensor, shares: Tensor | None) -> Tensor:
    """Of values (N,), over those of one number in `within` (N,), each with its share; at every value, (N,)."""
    members, where = within.unique(return_inverse=True)
    w = torch.ones_like(values) if shares is None else shares.to(values)

    def total(v: Tensor) -> Tensor:
        return v.new_zeros(len(members)).index_add_(0, where, v)

    if pool.how in ("mean", "std"):
        mean = (total(w * values) / total(w))[where]
        return mean if pool.how == "mean" else (total(w * (values - mean) ** 2) / total(w)).sqrt()[where]
    if pool.how == "above":
        values = -values
    order = values.argsort(stable=True)
    order = order[where[order].argsort(stable=True)]  # by group, and in it by value
    place, ordered, whole = where[order], values[order], total(w)
    up_to = w[order].cumsum(0) - (whole.cumsum(0) - whole)[place]  # within the group, itself included
    if pool.how == "quantile":
        reached = up_to >= pool.share * whole[place] * (1 - 1e-6)
        at = torch.where(reached, ordered, torch.inf)
        return values.new_full((len(members),), torch.inf).scatter_reduce(0, place, at, "amin")[where]
    run = _runs(place, ordered)
    before = values.new_full((len(values),), torch.inf).scatter_reduce(0, run, up_to - w[order], "amin")[run]
    share = torch.empty_like(values)
    share[order] = (before / whole[place]).clamp(0, 1)
    return share


def _runs(place: Tensor, ordered: Tensor) -> Tensor:
    """The number of the run of equal values that each belongs to, counted from 0; values (N,) are in order."""
    starts = (place[1:] != place[:-1]) | (ordered[1:] != ordered[:-1])
    return torch.cat([starts.new_zeros(min(len(place), 1)), starts]).cumsum(0)


def surprise(t: Any) -> Any:
    """−log u, in nats."""
    return -t.log_p_label


def probability(t: Any) -> Any:
    """u, the probability of the label."""
    return t.p_label


def entropy(t: Any) -> Any:
    """H(p), in nats."""
    return t.entropy(t.policy)
