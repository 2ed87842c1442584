"""Many small models at once: methods × parameters × seeds × data, stacked and trained together.

A `Stack` trains the models of some `Job`s side by side, each with its own method, data and seed, by the closed-form
logit gradients of `QMap.pulls`. `qunify.training.sweep` does that for any number of jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from qunify import gauges, tensors
from qunify.qmap import QMap
from qunify.training.networks import Network, Parameters

_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True, eq=False)
class Data:
    """What a model is trained on.

    Attributes
    ----------
    inputs : Tensor, (N,) of states or (N, D) of features
    labels : Tensor of int, (N,)
    context : mapping of Tensor, (N, V) or (N,)
        What the methods need, by the usual names; more than they need is allowed.
    counts : Tensor or None, (N,)
        How often each of the N occurs; once by default.
    """

    inputs: Tensor
    labels: Tensor
    context: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Tensor | None = None

    def __post_init__(self) -> None:
        """ValueError unless sizes agree and counts are counts."""
        for name, value in (("inputs", self.inputs), ("labels", self.labels), ("counts", self.counts)):
            if value is not None and not isinstance(value, Tensor):
                raise ValueError(f"Data: {name}: expected a tensor, got {type(value).__name__}")
        n = len(self.labels)
        if n == 0 or len(self.inputs) != n:
            raise ValueError(
                f"Data: inputs: expected one for each of at least one label, got {len(self.inputs)} for {n}"
            )
        if self.counts is not None and self.counts.shape != (n,):
            raise ValueError(f"Data: counts: expected shape ({n},), got {tuple(self.counts.shape)}")
        if self.counts is not None and not (
            bool((self.counts >= 0).all()) and 0 < float(self.counts.sum()) < torch.inf
        ):
            raise ValueError(f"Data: counts: expected numbers of 0 or more, not all 0, got {self.counts.tolist()[:8]}")


@dataclass(frozen=True, eq=False)
class Job:
    """One model to train. `tags` become columns of a sweep's table; `start` replaces the network's first parameters."""

    method: QMap
    data: Data
    seed: int = 0
    lr: float = 0.1
    tags: Mapping[str, Any] = field(default_factory=dict)
    start: Parameters | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, QMap):
            raise ValueError(f"Job: method: expected a QMap, such as qunify.get('dft'), got {self.method!r}")
        if not (isinstance(self.lr, int | float) and 0 < self.lr < torch.inf):
            raise ValueError(f"Job: lr: expected a positive number, got {self.lr!r}")


class Stack:
    """M models of one network, trained together.

    Parameters
    ----------
    network
        The shape of every model.
    jobs
        One learning rate, and data of one N. Jobs of one method are best kept together.
    batch : int, optional
        Examples per step, epoch by epoch in an order drawn by the job's seed; all of them by default.
    optimiser
        "sgd" or "adam", torch's with their default settings.
    decay : int, optional
        A number of steps over which the learning rate falls to zero by a cosine, to stay there.
    dtype
        float64, or float32 for more speed.

    Attributes
    ----------
    parameters : dict of Tensor, (M, …)
    step : int
        Steps done.
    diverged : Tensor of int, (M,)
        The first step at which a model's gradient was not finite, −1 where it always was. Such a model stays where it
        is from then on, and its predictions are NaN.

    Raises
    ------
    ValueError
        If there is no job, rates or sizes differ, labels or contexts do not fit, or one is missing.
    """

    def __init__(
        self,
        network: Network,
        jobs: Sequence[Job],
        *,
        batch: int | None = None,
        optimiser: Literal["sgd", "adam"] = "sgd",
        decay: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if optimiser not in _OPTIMISERS:
            raise ValueError(f"Stack: optimiser: expected {' or '.join(_OPTIMISERS)}, got {optimiser!r}")
        if decay is not None and not (isinstance(decay, int) and decay >= 1):
            raise ValueError(f"Stack: decay: expected a number of steps, at least 1, got {decay!r}")
        examples = int(_one("a size of data", [len(job.data.labels) for job in jobs]))
        if batch is not None and not (isinstance(batch, int) and 1 <= batch <= examples):
            raise ValueError(f"Stack: batch: expected an integer in [1, {examples}], got {batch!r}")
        if batch is not None and any(job.data.counts is not None for job in jobs):
            raise ValueError("Stack: batch: expected none with counts, which are for training on all examples at once")
        self.network, self.jobs, self.step = network, tuple(jobs), 0
        self.diverged = torch.full((len(jobs),), -1)
        for job in jobs:
            network.check(job.data.inputs)
        starts = [_start(network, job) for job in jobs]
        self.parameters: Parameters = {k: torch.stack([s[k] for s in starts]).to(dtype) for k in starts[0]}
        self._dtype = dtype
        self._methods = _groups([job.method for job in jobs])
        self._examples = _Examples(network.vocab, jobs, dtype)
        self._order = None if batch is None else _Order([job.seed for job in jobs], examples, batch)
        rate: Any = {"lr": _one("a learning rate", [job.lr for job in jobs])}
        self._optimiser = _OPTIMISERS[optimiser](list(self.parameters.values()), **rate)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, decay) if decay else None

    def run(self, steps: int) -> Stack:
        """Train for so many steps, 0 or more."""
        if not (isinstance(steps, int) and steps >= 0):
            raise ValueError(f"Stack: steps: expected an integer of 0 or more, got {steps!r}")
        for _ in range(steps):
            self._advance()
        return self

    @torch.no_grad()
    def probs(self, inputs: Tensor) -> Tensor:
        """Predictions (M, E, V) at inputs (E,) or (E, D); NaN where a model diverged."""
        self.network.check(inputs)
        x = inputs.to(self._dtype) if inputs.is_floating_point() else inputs
        hidden = self.network.represent(self.parameters, x.expand(len(self.jobs), *x.shape))
        z = self.network.logits(self.parameters, hidden)
        return torch.softmax(z, -1).masked_fill((self.diverged >= 0)[:, None, None], torch.nan)

    def _gradients(self, logits: Tensor, batch: _Batch) -> Tensor:
        """Of the logits, (M, B, V). One token for all models, so that the methods share what they can."""
        rows, v = logits.shape[1], logits.shape[2]
        context = {name: value.flatten(0, 1) for name, value in batch.context.items()}
        t = tensors.TensorToken(logits.reshape(-1, v), batch.labels.reshape(-1), context)
        g = torch.empty_like(logits).view(-1, v)
        for m, at in self._methods:
            if isinstance(at, slice):
                where: slice | Tensor = slice(at.start * rows, at.stop * rows)
            else:
                where = (at[:, None] * rows + torch.arange(rows)).flatten()
            part = tensors.Rows(t, where, m.name)
            g[where] = gauges.gradient(part, m.pulls(part))
        return g.view_as(logits)

    @torch.no_grad()
    def _advance(self) -> None:
        self.step += 1
        batch = self._examples.take(self._order.next()) if self._order else self._examples.all
        hidden = self.network.represent(self.parameters, batch.inputs)
        logits = self.network.logits(self.parameters, hidden)
        g = self._gradients(logits, batch)
        g *= batch.share
        lost = ~g.isfinite().flatten(1).all(-1)
        self.diverged[lost & (self.diverged < 0)] = self.step
        gone = self.diverged >= 0
        before: Parameters = {}
        if bool(gone.any()):  # an optimiser's momentum would move them on
            g[gone] = 0
            before = {k: v[gone].clone() for k, v in self.parameters.items()}
        for name, gradient in self.network.backward(self.parameters, batch.inputs, hidden, g).items():
            self.parameters[name].grad = gradient
        self._optimiser.step()
        for name, value in before.items():
            self.parameters[name][gone] = value
        if self._schedule and self.step <= self._schedule.T_max:
            self._schedule.step()


def _start(network: Network, job: Job) -> Parameters:
    """A job's first parameters."""
    own = network.start(job.seed)
    if job.start is None:
        return own
    got, expected = ({k: tuple(v.shape) for k, v in p.items()} for p in (job.start, own))
    if got != expected or not all(bool(v.isfinite().all()) for v in job.start.values()):
        raise ValueError(f"Job: start: expected finite parameters of shapes {expected}, got {got}")
    return {k: v.detach() for k, v in job.start.items()}


@dataclass(frozen=True, eq=False)
class _Batch:
    inputs: Tensor  # (M, B) or (M, B, D)
    labels: Tensor  # (M, B)
    context: Mapping[str, Tensor]  # (M, B, V) or (M, B, 1)
    share: Tensor  # what each counts in the mean, (M, B, 1) or one number


class _Examples:
    """The data of all jobs, each kept once."""

    def __init__(self, vocab: int, jobs: Sequence[Job], dtype: torch.dtype) -> None:
        data = list({id(job.data): job.data for job in jobs}.values())
        self._of_job = torch.tensor([[d is job.data for d in data].index(True) for job in jobs])
        given = [_given(vocab, d, [job.method for job in jobs if job.data is d]) for d in data]
        inputs = torch.stack([d.inputs for d in data])
        self._inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
        self._labels = torch.stack([d.labels for d in data])
        # A context that some data lack, because none of their methods needs it, is zero there.
        names = {name: value for g in given for name, value in g.items()}
        context = {k: torch.stack([g.get(k, torch.zeros_like(v)) for g in given]) for k, v in names.items()}
        self._context = {k: v.to(dtype) for k, v in context.items()}
        counts = torch.stack([torch.ones(len(d.labels)) if d.counts is None else d.counts for d in data]).to(dtype)
        i = self._of_job
        self.all = _Batch(
            self._inputs[i],
            self._labels[i],
            {k: v[i] for k, v in self._context.items()},
            (counts / counts.sum(-1, keepdim=True))[i, :, None],
        )

    def take(self, order: Tensor) -> _Batch:
        """The examples `order` (M, B) of every job."""
        i = self._of_job[:, None], order
        context = {k: v[i] for k, v in self._context.items()}
        share = torch.tensor(1 / order.shape[1], dtype=self.all.share.dtype)
        return _Batch(self._inputs[i], self._labels[i], context, share)


def _given(vocab: int, data: Data, methods: Sequence[QMap]) -> Mapping[str, Tensor]:
    """The contexts that these methods need, validated: (N, V), or (N, 1) for one number per example."""
    found: dict[str, Tensor] = {}
    for m in dict.fromkeys(methods):
        logits = torch.zeros(len(data.labels), vocab, dtype=torch.float64)
        context = {k: v for k, v in data.context.items() if k in m.needs}
        t, layout = tensors.read(m.name, m.needs, logits, data.labels, -100, context)
        if not bool(layout.mask.all()):
            raise ValueError(f"{m.name}: labels: expected a token for every example, got an ignored one")
        found |= t.given
    return found


class _Order:
    """Which examples come next, for every job: those of one seed see the same."""

    def __init__(self, seeds: Sequence[int], examples: int, batch: int) -> None:
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._of_job = torch.tensor([list(self._generators).index(seed) for seed in seeds])
        self._examples, self._batch, self._done = examples, batch, examples

    def next(self) -> Tensor:
        """(M, B). A rest too small for a batch is left out of its epoch."""
        if self._done + self._batch > self._examples:
            epoch = [torch.randperm(self._examples, generator=g) for g in self._generators.values()]
            self._epoch, self._done = torch.stack(epoch), 0
        self._done += self._batch
        return self._epoch[:, self._done - self._batch : self._done][self._of_job]


def _groups(methods: Sequence[QMap]) -> list[tuple[QMap, slice | Tensor]]:
    """Every method once, and where it stands: a slice, which copies nothing, where its places are neighbours."""
    places: dict[QMap, list[int]] = {}
    for i, m in enumerate(methods):
        places.setdefault(m, []).append(i)
    return [
        (m, slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else torch.tensor(at)) for m, at in places.items()
    ]


def _one(what: str, values: Sequence[float]) -> float:
    if len(set(values)) != 1:
        got = ", ".join(f"{x:g}" for x in sorted(set(values))) or "no job"
        raise ValueError(f"Stack: jobs: expected {what} common to all, got {got}")
    return values[0]
