"""Batches of tokens with every context that a method may ask for, made in one place.

Each function gives the tokens that one question needs: `ordinary` ones to compare two gradients, `spread_over_u` to fit
an unknown loss, `in_fractions` for exact arithmetic. A method uses the contexts that it needs:
`m(batch.logits, batch.labels, **batch.context)`.

A context is one of five things: the logits of another model, a weight or a mask per token, a set of negative tokens, or
what the tokens are worth as numbers.
`every_context` gives each of them its value: another model that is added to `CONTEXTS` in `qunify.token` has one at
once; for a new kind of number, its argument is added there. CONTRIBUTING lists the other places.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from qunify.token import CONTEXTS, SEQUENCES, TensorToken, read

T = TypeVar("T")

#: So many tokens of a batch, one after the other, are one sequence.
IN_SEQUENCE = 7
#: The contexts that are the logits of another model.
OTHER_MODELS = tuple(name for name in CONTEXTS if name.endswith("_logits"))


class TakesContexts(Protocol):
    """Whatever has contexts that it needs and parameters, as a QMap has."""

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def params(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)  # a batch is equal to itself alone: what is known at its tokens can be kept by it
class Batch:
    """N tokens over a vocabulary of V, with every context."""

    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    context: dict[str, Any]  # a Tensor each, (N, V) or (N,); not typed so, since a call also takes ignore_index
    sequence: Tensor | None = None  # (N,) the number of the sequence each token is of; by default IN_SEQUENCE to one
    part_of: tuple[Batch, slice | Tensor] | None = None  # the batch that these tokens were chosen from, and its rows

    @property
    def vocab(self) -> int:
        return self.logits.shape[-1]

    @functools.cached_property
    def _first(self) -> dict[int, Batch]:
        return {}

    def first(self, n: int) -> Batch:
        """Its first n tokens, the same object every time."""
        if n not in self._first:
            self._first[n] = self[:n]
        return self._first[n]

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        """Some of its tokens, which are still of its sequences."""
        context = {k: v[rows] for k, v in self.context.items()}
        return Batch(self.logits[rows], self.labels[rows], context, part_of=(self, rows))

    def __add__(self, other: Batch) -> Batch:
        """The tokens of both, over one vocabulary."""
        context = {k: torch.cat([v, other.context[k]]) for k, v in self.context.items()}
        return Batch(torch.cat([self.logits, other.logits]), torch.cat([self.labels, other.labels]), context)

    @functools.cached_property
    def token(self) -> TensorToken:
        """The Token that the body of a method sees; it caches, so that many methods share one softmax."""
        of = torch.arange(len(self.labels)) // IN_SEQUENCE if self.sequence is None else self.sequence
        t, _ = read("batch", tuple(self.context), self.logits, self.labels, -100, {**self.context, SEQUENCES: of})
        if self.part_of is not None:
            whole, rows = self.part_of
            t.whole = whole.token, rows
        return t


def every_context(model: Callable[[str], T], *, weight: T, mask: T, negative: T, values: T) -> dict[str, T]:
    """Every context by name: `model(name)` for the logits of another model, and the four others as given."""
    others = {"token_weight": weight, "token_mask": mask, "negative_mask": negative, "token_values": values}
    return {name: model(name) if name in OTHER_MODELS else others[name] for name in CONTEXTS}


def aliased(context: Mapping[str, T], alias: tuple[tuple[str, str], ...]) -> dict[str, T]:
    """The same contexts, but for those in `alias`, pairs (context, source), which get the value of their source."""
    return {**context, **{name: context[source] for name, source in alias}}


# ---- to compare two gradients --------------------------------------------------------------------------------------

#: Vocabulary sizes a claim must hold for: two is among them, and one larger than any default top-k.
SIZES = (5, 130, 2)
LARGEST = 300_000  # no vocabulary in use is larger


def sizes(*maps: TakesContexts) -> tuple[int, ...]:
    """The vocabularies to try for these methods: one is larger than the k of any top-k among their parameters."""
    most = max([0, *(v for m in maps for v in m.params.values() if isinstance(v, int))])
    return SIZES if most < max(SIZES) - 30 else (*SIZES, min(most, LARGEST) + 40)


@functools.cache
def ordinary(vocab: int, count: int = 240) -> Batch:
    """Predictions from sharp to nearly flat, labels likely and unlikely, contexts near the policy and far. float64."""
    r = torch.Generator().manual_seed(vocab)
    logits = _normal(r, count, vocab) * torch.logspace(-0.7, 0.7, count, dtype=torch.float64)[:, None]
    sampled = torch.multinomial(torch.softmax(logits, -1), 1, generator=r)[:, 0]
    labels = torch.where(torch.rand(count, generator=r) < 0.5, sampled, torch.randint(vocab, (count,), generator=r))
    models = _near_and_far(r, logits)
    weight = 0.2 + 1.5 * torch.rand(count, generator=r, dtype=torch.float64)
    mask = (torch.rand(count, generator=r) < 0.7).double()
    negative = _random_third(r, count, vocab).scatter(1, labels[:, None], 0.0)
    context = every_context(
        models.__getitem__, weight=weight, mask=mask, negative=negative, values=_values(count, vocab)
    )
    return Batch(logits, labels, context)


def _normal(r: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=r, dtype=torch.float64)


def _near_and_far(r: torch.Generator, logits: Tensor) -> dict[str, Tensor]:
    """Other models: at half of the tokens close to the policy, at the others unrelated to it."""
    near = torch.rand(len(logits), 1, generator=r, dtype=torch.float64) < 0.5
    late = _later(*logits.shape)
    draws = {name: late if name == "teacher_base_logits" else r for name in OTHER_MODELS}
    return {
        name: torch.where(near, logits + 0.3 * _normal(g, *logits.shape), 1.5 * _normal(g, *logits.shape))
        for name, g in draws.items()
    }


def _later(count: int, vocab: int) -> torch.Generator:
    """Draws for contexts that came later than the others, apart from theirs: no batch changes by a new context."""
    return torch.Generator().manual_seed(10_000 + 100 * vocab + count)


def _values(count: int, vocab: int) -> Tensor:
    """Numbers from 0 to 9 for the tokens of each row; a third of them is none, which is NaN."""
    r = _later(count, vocab)
    found = torch.randint(10, (count, vocab), generator=r).double()
    return found.masked_fill(torch.rand(count, vocab, generator=r) < 1 / 3, torch.nan)


def _random_third(r: torch.Generator, count: int, vocab: int) -> Tensor:
    """About a third of the tokens, as a mask of 0 and 1."""
    return (torch.rand(count, vocab, generator=r) < 0.3).double()


def in_fractions(size: int, label: int) -> dict[str, Any]:
    """Every context at one token of a vocabulary of `size`, exact: distributions (not logits) as fractions."""
    order = [*range(label, size), *range(label)]
    shares = [(3, 2, 7, 4, 4), (2, 9, 5, 1, 3), (5, 4, 3, 2, 6), (1, 4, 6, 8, 1), (4, 3, 3, 8, 2)]
    models = {name: fractions([w[k % 5] for k in order]) for name, w in zip(OTHER_MODELS, shares, strict=True)}
    negative = tuple(int(k == (label + 1) % size) for k in range(size))
    values = tuple(math.nan if k % 5 == 3 else Fraction(k % 5, 2) for k in order)
    return every_context(models.__getitem__, weight=Fraction(3, 2), mask=1, negative=negative, values=values)


def fractions(weights: list[int] | tuple[int, ...]) -> tuple[Fraction, ...]:
    """Weights as probabilities that sum to one exactly."""
    return tuple(Fraction(w, sum(weights)) for w in weights)


# ---- to ask where training leads -----------------------------------------------------------------------------------


def at_predictions(vocab: int, count: int, spread: tuple[float, float]) -> Batch:
    """Predictions from nearly flat to sharp (logits of a standard deviation from spread[0] to spread[1]), with contexts
    near and far. Weights are positive, nothing is masked. Labels are 0: callers take expectations over the label and
    put in each in turn."""
    r = torch.Generator().manual_seed(vocab)
    scale = torch.linspace(*spread, count, dtype=torch.float64)[:, None]
    logits = _normal(r, count, vocab) * scale
    models = _near_and_far(r, logits)
    negative = _random_third(r, count, vocab)
    weight = 0.2 + 1.5 * torch.rand(count, generator=r, dtype=torch.float64)
    ones = torch.ones(count, dtype=torch.float64)
    values = _values(count, vocab)
    context = every_context(models.__getitem__, weight=weight, mask=ones, negative=negative, values=values)
    return Batch(logits, torch.zeros(count, dtype=torch.long), context)


def around_truths(truths: Tensor) -> dict[str, Tensor]:
    """Every context for truths (B, V), drawn independently of them; weights go from 1/20 to 20, and every second token
    is negative."""
    r = torch.Generator().manual_seed(7)
    late = _later(*truths.shape)
    models = {name: _normal(late if name == "teacher_base_logits" else r, *truths.shape) for name in OTHER_MODELS}
    negative = (torch.arange(truths.shape[-1]) % 2).double().expand(truths.shape)
    weight, mask, values = torch.logspace(-1.3, 1.3, len(truths)), torch.ones(len(truths)), _values(*truths.shape)
    return every_context(models.__getitem__, weight=weight, mask=mask, negative=negative, values=values)


# ---- to find out what a function does ------------------------------------------------------------------------------

#: Rows by vocabulary. Two vocabularies show that something depends on V, the third confirms how.
ROWS = {5: 900, 24: 80, 150: 24}


@functools.cache
def spread_over_u(vocab: int, seed: int) -> Batch:
    """Tokens with label probabilities u spread evenly over (0, 1), every fourth one near 0 or 1.

    u stays 1e-5 below 1, where losses written without care still have their digits. Numbers are float64 but fit in
    float32, so that a loss that casts to it sees the same ones.
    """
    r = torch.Generator().manual_seed(1000 * seed + vocab)
    n = ROWS[vocab]
    u = (torch.randperm(n, generator=r) + torch.rand(n, generator=r, dtype=torch.float64)) / n
    u[::4] = torch.sigmoid(u[::4] * 30 - 19)  # 6e-9 to 1 − 2e-5
    u = u.clamp(1e-9, 1 - 1e-5)
    spread = torch.tensor([0.5, 1.5, 4.0], dtype=torch.float64)[torch.arange(n) % 3, None]
    labels = torch.randint(0, vocab, (n,), generator=r)
    logits = with_label_at(u, spread * _normal(r, n, vocab), labels)
    logits = logits + _normal(r, n, 1)  # a loss that is not shift-invariant should show it

    late, own = _later(n, vocab), ("old_logits", "teacher_base_logits")
    models = {name: spread.flip(0) * _normal(r, n, vocab) for name in OTHER_MODELS if name not in own}
    models["teacher_base_logits"] = models["teacher_logits"] + spread.flip(0) * _normal(late, n, vocab)
    far = torch.where(torch.arange(n) % 6 == 5, 3.0, 0.3)[:, None]  # an older policy is near, but limits may be wide
    models["old_logits"] = logits + far * _normal(r, n, vocab)
    weight = torch.rand(n, generator=r, dtype=torch.float64) * 2 + 0.1
    mask = (torch.rand(n, generator=r) < 0.6).double()
    negative, values = _random_third(r, n, vocab).scatter(1, labels[:, None], 0.0), _values(n, vocab)
    context = every_context(models.__getitem__, weight=weight, mask=mask, negative=negative, values=values)
    return Batch(logits.float().double(), labels, {k: v.float().double() for k, v in context.items()})


def with_label_at(u: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, V) at which the labels (N,) have probabilities u (N,) and the other tokens keep their proportions."""
    others = logits.scatter(1, labels[:, None], -torch.inf).log_softmax(-1)
    return (others + (1 - u).log()[:, None]).scatter(1, labels[:, None], u.log()[:, None])


def along_u(u: Tensor, elsewhere: float | None = None) -> Batch:
    """One token at label probabilities u (N,); the other tokens keep their proportions, the contexts are the same. For
    the other models the label may have the same small probability `elsewhere`, so that ratios to it are large."""
    n = len(u)
    row = spread_over_u(5, 0)[torch.tensor([1])]
    labels = row.labels.expand(n)
    context = {k: v.expand(n, *v.shape[1:]) for k, v in row.context.items()}
    if elsewhere is not None:
        at = torch.full((n,), elsewhere, dtype=torch.float64)
        context |= {name: with_label_at(at, context[name], labels) for name in OTHER_MODELS}
    return Batch(with_label_at(u, row.logits.expand(n, -1), labels), labels, context)


def two_tokens() -> TensorToken:
    """Two tokens over five entries with every context, to try a function of a Token on."""
    r = torch.Generator().manual_seed(0)
    models = {name: torch.randn(2, 5, generator=r) for name in OTHER_MODELS}
    ones = torch.ones(2, 1)
    values = torch.arange(5.0).expand(2, 5)
    context = every_context(models.__getitem__, weight=ones, mask=ones, negative=torch.zeros(2, 5), values=values)
    return TensorToken(torch.randn(2, 5, generator=r), torch.tensor([0, 3]), context)


# ---- to look at ----------------------------------------------------------------------------------------------------


def alike(logits: Tensor, labels: Tensor, model: Tensor, negative: Tensor) -> Batch:
    """Tokens (N, V) for which all other models predict the same, logits `model` (V,): a method gets these for whichever
    it needs. Weights are one, nothing is masked, tokens are the numbers of their places."""
    ones = torch.ones(len(logits), dtype=logits.dtype)
    values = torch.arange(logits.shape[-1], dtype=logits.dtype).expand_as(logits)
    context = every_context(
        lambda _: model.expand_as(logits), weight=ones, mask=ones, negative=negative.expand_as(logits), values=values
    )
    return Batch(logits, labels, context)
