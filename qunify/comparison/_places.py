"""The numbers by which methods are told apart, at fixed tokens of several vocabularies: what a search computes most."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from qunify.catalogue import ENTRIES
from qunify.comparison._subjects import gradient_of
from qunify.maps import Gate, QMap
from qunify.samples import Batch
from qunify.token import ELEMENTWISE, Pool, TensorToken, Token

Array = np.ndarray[Any, np.dtype[np.float64]]
FAR = 1e3  # stands for a difference that is not a number
ROOM = 2**22  # how many numbers are kept of a place: 32 MiB


@functools.lru_cache(maxsize=64)
def _shared(batches: tuple[Batch, ...], gate: bool) -> Place:
    return Place(batches, gate)


def place(batches: tuple[Batch, ...], gate: bool, importance: tuple[Array, ...] | None = None) -> Place:
    """The same object for the same batches, so that what is kept of it is found again; but where tokens differ in
    importance, which depends on the loss."""
    return _shared(batches, gate) if importance is None else Place(batches, gate, importance)


@dataclass(frozen=True, eq=False)
class Place:
    """Batches at which gradients are compared.

    The numbers compared are those of the gradient, (N, V) for each batch; among gates, where every gradient is
    w (p − δ), the one number w ‖p − δ‖ per token. Where tokens differ in importance, (N, 1) for each batch, their
    numbers are multiplied by it.
    """

    batches: tuple[Batch, ...]
    gate: bool
    importance: tuple[Array, ...] | None = None

    @functools.cached_property
    def _importance(self) -> list[Array]:
        return list(self.importance or (np.ones((len(b.labels), 1)) for b in self.batches))

    @functools.cached_property
    def _lengths(self) -> list[Array]:
        """‖p − δ‖, (N, 1) per batch, times the importance."""
        tokens = [b.token for b in self.batches]
        lengths = [(t.policy.probs - t.label.probs).norm(dim=-1, keepdim=True).numpy() for t in tokens]
        return [n * i for n, i in zip(lengths, self._importance, strict=True)]

    @functools.cached_property
    def _all_lengths(self) -> Tensor:
        return torch.from_numpy(joined(self._lengths))

    @functools.cached_property
    def _as_one(self) -> TokensAsOne:
        return TokensAsOne([b.token for b in self.batches])

    def blocks(self, gradients: Sequence[Array]) -> list[Array]:
        """The numbers of gradients (N, V) that are given, batch by batch: (N, V), or (N, 1) among gates."""
        if not self.gate:
            return [g * i for g, i in zip(gradients, self._importance, strict=True)]
        found = []
        for b, g, length in zip(self.batches, gradients, self._lengths, strict=True):
            at_label = g[np.arange(len(g)), b.labels.numpy()][:, None]
            found.append(-at_label / b.token.p_rest.numpy() * length)
        return found

    @torch.no_grad()
    def values(self, m: QMap) -> Array:
        """The numbers of a method, as one vector."""
        if self.gate and isinstance(m, Gate):  # its weight is enough
            return _finite(self._as_one.weight_of(m) * self._all_lengths)
        found = self.blocks([gradient_of(m, b).numpy() for b in self.batches])
        return joined([_finite(torch.from_numpy(x)) for x in found])

    def kept_values(self, m: QMap) -> Array:
        """The same, for a method that is asked for again, also when another loss is examined."""
        if m in self._kept:
            return self._kept[m]
        values = self.values(m)
        if ENTRIES.get(m.name) is type(m) and (len(self._kept) + 1) * values.size <= ROOM:
            self._kept[m] = values  # what a user wrote may give other values later
        return values

    @functools.cached_property
    def _kept(self) -> dict[QMap, Array]:
        return {}

    def table(self, cls: type[QMap], names: tuple[str, ...], settings: tuple[tuple[Any, ...], ...]) -> Table:
        """The numbers of an entry at many settings of the parameters `names`; kept, since they are the same whatever
        loss is examined."""
        key = (cls, names, settings)
        if key in self._tables:
            return self._tables[key]
        ends = [0, *itertools.accumulate(len(b.labels) * (1 if self.gate else b.vocab) for b in self.batches)]
        values = np.full((len(settings), ends[-1]), np.nan)
        for row, setting in zip(values, settings, strict=True):
            with contextlib.suppress(ValueError):  # parameters that exclude each other
                row[:] = self.values(cls(**dict(zip(names, setting, strict=True))))
        table = Table(values, np.add.reduceat(values * values, ends[:-1], axis=1))
        if ENTRIES.get(cls.name) is cls and values.size + sum(t.values.size for t in self._tables.values()) <= ROOM:
            self._tables[key] = table
        return table

    @functools.cached_property
    def _tables(self) -> dict[Any, Table]:
        return {}


class Table(NamedTuple):
    """An entry's numbers at many settings."""

    values: Array  # a row for each; NaN where parameters exclude each other
    squares: Array  # of each vocabulary's numbers the sum of squares, (settings, vocabularies)


def joined(blocks: Sequence[Array]) -> Array:
    """As one vector."""
    return np.concatenate([b.ravel() for b in blocks])


def _finite(x: Tensor) -> Array:
    return x.nan_to_num(FAR, FAR, -FAR).clamp_(-FAR, FAR).numpy()


class Parts(tuple[Any, ...]):
    """A distribution or a vector for each of several vocabularies."""

    __slots__ = ()

    @property
    def probs(self) -> Parts:
        return Parts(d.probs for d in self)

    @property
    def log(self) -> Parts:
        return Parts(d.log for d in self)


class TokensAsOne:
    """Tokens of several vocabularies as one batch, as far as most gates look at a token: at single numbers, some of
    them made of a vector, such as u or an entropy. One pass over all takes a third of the time of one for each.

    A gate that looks at more is found out by its asking, and evaluated at each vocabulary in turn.
    """

    NUMBERS = frozenset({"p_label", "log_p_label", "p_rest", "log_p_rest", "vocab", "weight", "keep"})
    DISTRIBUTIONS = frozenset({"policy", "reference", "teacher", "old", "prior"})
    # A number each:
    OF_VECTORS = frozenset({"prob", "at_label", "expect", "entropy", "cross_entropy", "mean_rank", "label_rank"})

    def __init__(self, tokens: Sequence[TensorToken]) -> None:
        self._tokens = tokens
        self._known: dict[tuple[Any, ...], Tensor] = {}  # numbers of the policy alone
        self._looking_at_more: set[type[QMap]] = set()

    def weight_of(self, m: Gate) -> Tensor:
        """At every token, (N,)."""
        if type(m) not in self._looking_at_more:
            try:
                return _column(m.weight(cast(Token, self)), sum(len(t.index) for t in self._tokens))
            except (AttributeError, TypeError):
                self._looking_at_more.add(type(m))
        return torch.cat([_column(m.weight(t), len(t.index)) for t in self._tokens])

    def __getattr__(self, name: str) -> Any:
        found: Any
        if name in self.NUMBERS:
            found = torch.cat([getattr(t, name) for t in self._tokens])
        elif name in self.DISTRIBUTIONS:
            found = Parts(getattr(t, name) for t in self._tokens)
        elif name in ELEMENTWISE:
            found = getattr(self._tokens[0], name)
        elif name in self.OF_VECTORS:
            found = functools.partial(self._number, name)
        else:
            raise AttributeError(name)
        setattr(self, name, found)
        return found

    def pooled(self, pool: Pool) -> Tensor:
        return torch.cat([t.pooled(pool) for t in self._tokens])

    def top_k_entropy(self, d: Parts, k: int) -> Tensor:
        return torch.cat([t.top_k_entropy(x, k) for t, x in zip(self._tokens, d, strict=True)])

    def _number(self, name: str, *of: Parts) -> Tensor:
        of_policy = all(x is self.policy for x in of)
        key = (name, len(of))
        if of_policy and key in self._known:
            return self._known[key]
        found = torch.cat([getattr(t, name)(*x) for t, *x in zip(self._tokens, *of, strict=True)])
        if of_policy:
            self._known[key] = found
        return found


def _column(weight: Any, n: int) -> Tensor:
    return torch.as_tensor(weight, dtype=torch.float64).expand(n, 1)[:, 0]
