"""Many small models at once: methods × parameters × seeds × data, stacked and trained together.

A `Stack` trains the models of some `Job`s side by side, each with its own method, data and seed, by the closed-form
logit gradients of `QMap.pulls`. `qunify.training.sweep` does that for any number of jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from qunify.catalogue import as_method
from qunify.maps import Method, QMap, logit_gradient
from qunify.token import Layout, Pooling, Rows, TensorToken, read
from qunify.training._networks import Network, Parameters

SUPPLIED = ("old_logits",)  # contexts that a stack can supply itself
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
    """One model to train.

    Attributes
    ----------
    method : str, QMap or function
        An id of the catalogue, any QMap, or a loss function `(logits, labels, **context)`; kept as a QMap.
    data : Data
    seed : int
        Decides the network's first parameters and the order of the examples, unless `start` and `order` do.
    lr : float
        The learning rate.
    tags : mapping
        Columns of a sweep's table.
    start : dict of Tensor, optional
        The first parameters, in place of the network's own.
    order : Tensor of int, (S, B), optional
        Which examples each of S steps sees, in place of a stack's `batch`.
    """

    method: QMap
    data: Data
    seed: int = 0
    lr: float = 0.1
    tags: Mapping[str, Any] = field(default_factory=dict)
    start: Parameters | None = None
    order: Tensor | None = None

    if TYPE_CHECKING:  # what is kept as a QMap may be given as any method

        def __init__(
            self,
            method: Method,
            data: Data,
            seed: int = 0,
            lr: float = 0.1,
            tags: Mapping[str, Any] = ...,
            start: Parameters | None = None,
            order: Tensor | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", as_method(self.method, "Job"))
        if not isinstance(self.data, Data):
            raise ValueError(f"Job: data: expected a Data, got {type(self.data).__name__}")
        if not (isinstance(self.lr, int | float) and 0 < self.lr < torch.inf):
            raise ValueError(f"Job: lr: expected a positive number, got {self.lr!r}")
        if self.order is not None:
            n, x = len(self.data.labels), self.order
            whole = isinstance(x, Tensor) and x.dim() == 2 and x.dtype == torch.long and x.numel() > 0
            if not whole or not bool(((x >= 0) & (x < n)).all()):
                got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"Job: order: expected integers (S, B) in [0, {n}), got {got}")


class Stack:
    """M models of one network, trained together.

    Parameters
    ----------
    network
        The shape of every model.
    jobs
        One learning rate, and data of one N. Jobs of one method are best kept together.
    batch : int, optional
        Examples per step, epoch by epoch in an order drawn by the job's seed; all of them by default, and what a job's
        own `order` says where it has one.
    optimiser
        "sgd" or "adam", torch's with their default settings.
    decay : int, optional
        A number of steps over which the learning rate falls to zero by a cosine, to stay there.
    old_every : int, optional
        For methods with an older policy, such as "psft": every so many steps, from the first on, the older policy
        becomes a copy of the present models. Without it, the older policy is fixed: `old_logits` of the data's context.
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

    Examples
    --------
    Two models learn from one label in each of three states; the second stays close to what it was up to ten steps ago.

    >>> import torch, qunify as qu
    >>> from qunify.training import Data, Job, Stack, Tabular
    >>> seen = Data(inputs=torch.arange(3), labels=torch.tensor([1, 0, 1]))
    >>> jobs = [Job(qu.get(name), seen, lr=1.0) for name in ("sft", "psft")]
    >>> stack = Stack(Tabular(states=3, vocab=4), jobs, old_every=10).run(20)
    >>> stack.probs(torch.tensor([0]))[:, 0, 1]  # of the label, by either model
    tensor([0.8689, 0.3865], dtype=torch.float64)
    """

    def __init__(
        self,
        network: Network,
        jobs: Sequence[Job],
        *,
        batch: int | None = None,
        optimiser: Literal["sgd", "adam"] = "sgd",
        decay: int | None = None,
        old_every: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if optimiser not in _OPTIMISERS:
            raise ValueError(f"Stack: optimiser: expected {' or '.join(_OPTIMISERS)}, got {optimiser!r}")
        for name, every in (("decay", decay), ("old_every", old_every)):
            if every is not None and not (isinstance(every, int) and every >= 1):
                raise ValueError(f"Stack: {name}: expected a number of steps, at least 1, got {every!r}")
        examples = int(_common_value("a size of data", [len(job.data.labels) for job in jobs]))
        if batch is not None and not (isinstance(batch, int) and 1 <= batch <= examples):
            raise ValueError(f"Stack: batch: expected an integer in [1, {examples}], got {batch!r}")
        if batch is not None and any(job.data.counts is not None for job in jobs):
            raise ValueError("Stack: batch: expected none with counts, which are for training on all examples at once")
        orders = [job.order for job in jobs if job.order is not None]
        if orders and (batch is not None or len({tuple(x.shape) for x in orders}) > 1 or len(orders) < len(jobs)):
            raise ValueError("Stack: jobs: expected an order of one shape for all or for none, and no batch beside it")
        if orders and any(job.data.counts is not None for job in jobs):
            raise ValueError(
                "Stack: jobs: expected no order with counts, which are for training on all examples at once"
            )
        self.network, self.jobs, self.step = network, tuple(jobs), 0
        self.diverged = torch.full((len(jobs),), -1)
        for job in jobs:
            network.check(job.data.inputs)
        starts = [_start(network, job) for job in jobs]
        self.parameters: Parameters = {k: torch.stack([s[k] for s in starts]).to(dtype) for k in starts[0]}
        self._dtype = dtype
        self._methods = _groups([job.method for job in jobs])
        self._old_every = old_every if any("old_logits" in job.method.needs for job in jobs) else None
        self._old = self._copy() if self._old_every else {}
        self._examples = _Examples(network.vocab, jobs, dtype, SUPPLIED if self._old_every else ())
        self._order: _Order | _GivenOrder | None = _GivenOrder(orders) if orders else None
        if batch is not None:
            self._order = _Order([job.seed for job in jobs], examples, batch)
        rate: Any = {"lr": _common_value("a learning rate", [job.lr for job in jobs])}
        self._optimiser = _OPTIMISERS[optimiser](list(self.parameters.values()), **rate)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, decay) if decay else None

    def run(self, steps: int) -> Stack:
        """Train for so many steps, 0 or more; where the jobs have an order, at most to its end."""
        if not (isinstance(steps, int) and steps >= 0):
            raise ValueError(f"Stack: steps: expected an integer of 0 or more, got {steps!r}")
        if isinstance(self._order, _GivenOrder) and steps > (left := self._order.left):
            raise ValueError(
                f"Stack: steps: expected at most {left}, which is what the jobs' order has left, got {steps}"
            )
        for _ in range(steps):
            self._advance()
        return self

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (M, E, V) at inputs that all models share, (E, …), or of each its own, (M, E, …); NaN where a model
        diverged."""
        own = inputs.dim() > self.jobs[0].data.inputs.dim()
        if own and len(inputs) != len(self.jobs):
            raise ValueError(f"Stack: inputs: expected those of {len(self.jobs)} models, got {tuple(inputs.shape)}")
        self.network.check(inputs.flatten(0, 1) if own else inputs)
        x = inputs.to(self._dtype) if inputs.is_floating_point() else inputs
        z = self._predict(self.parameters, x if own else x.expand(len(self.jobs), *x.shape))
        return z.masked_fill((self.diverged >= 0)[:, None, None], torch.nan)

    def probs(self, inputs: Tensor) -> Tensor:
        """Predictions (M, E, V), the softmax of `logits`."""
        return torch.softmax(self.logits(inputs), -1)

    @torch.no_grad()
    def trust(self) -> Tensor:
        """The trust (unit gauge) of each job's method in each of its examples, (M, N); NaN where a model diverged, and
        where a target has no trust."""
        batch = self._examples.all
        logits = self._predict(self.parameters, batch.inputs)
        trust = torch.full(batch.labels.shape, torch.nan, dtype=logits.dtype)
        for part, m, where in self._parts(logits, batch):
            trust.view(-1)[where] = m.of_token(part, Layout(torch.ones(len(part.index), dtype=torch.bool))).trust
        trust[self.diverged >= 0] = torch.nan
        return trust

    def _predict(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Logits (M, B, V) at inputs (M, B, …), each model's own."""
        return self.network.logits(parameters, self.network.represent(parameters, inputs))

    def _copy(self) -> Parameters:
        return {name: value.clone() for name, value in self.parameters.items()}

    def _context(self, batch: _Batch) -> Mapping[str, Tensor]:
        """The contexts of the batch: those of its data, and the older policy's logits where the stack supplies them."""
        if self._old_every is None:
            return batch.context
        return {**batch.context, "old_logits": self._predict(self._old, batch.inputs)}

    def _parts(self, logits: Tensor, batch: _Batch) -> Iterator[tuple[TensorToken, QMap, slice | Tensor]]:
        """For each method the tokens of its models, and which they are of all, (M · B,). The tokens of all models are
        one batch: methods share its softmax."""
        rows, v = logits.shape[1], logits.shape[2]
        context = {name: value.flatten(0, 1) for name, value in self._context(batch).items()}

        def pooling() -> Pooling:
            own = torch.arange(len(logits)).repeat_interleave(rows)  # each model's batch is its own, and one sequence
            return Pooling(own, own, batch.share.flatten() if batch.share.dim() else None)

        t = TensorToken(logits.reshape(-1, v), batch.labels.reshape(-1), context, pooling=pooling)
        for m, at in self._methods:
            if isinstance(at, slice):
                where: slice | Tensor = slice(at.start * rows, at.stop * rows)
            else:
                where = (at[:, None] * rows + torch.arange(rows)).flatten()
            yield Rows(t, where, m.name), m, where

    def _gradients(self, logits: Tensor, batch: _Batch) -> Tensor:
        """The gradients of the logits, (M, B, V)."""
        g = torch.empty_like(logits)
        for part, m, where in self._parts(logits, batch):
            g.view(-1, g.shape[-1])[where] = logit_gradient(part, m.pulls(part))
        return g

    @torch.no_grad()
    def _advance(self) -> None:
        if self._old_every and self.step % self._old_every == 0:
            self._old = self._copy()
        self.step += 1
        batch = self._examples.take(self._order.next()) if self._order else self._examples.all
        hidden = self.network.represent(self.parameters, batch.inputs)
        logits = self.network.logits(self.parameters, hidden)
        g = self._gradients(logits, batch)
        g *= batch.share
        not_finite = ~g.isfinite().flatten(1).all(-1)
        self.diverged[not_finite & (self.diverged < 0)] = self.step
        diverged = self.diverged >= 0
        frozen: Parameters = {}
        if bool(diverged.any()):  # put back after the step, for the optimiser's momentum moves them even so
            g[diverged] = 0
            frozen = {k: v[diverged].clone() for k, v in self.parameters.items()}
        for name, gradient in self.network.backward(self.parameters, batch.inputs, hidden, g).items():
            self.parameters[name].grad = gradient
        self._optimiser.step()
        for name, value in frozen.items():
            self.parameters[name][diverged] = value
        if self._schedule and self.step <= self._schedule.T_max:
            self._schedule.step()


def _start(network: Network, job: Job) -> Parameters:
    """The parameters that a job starts from, checked."""
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
    share: Tensor  # the weight of each in the mean, (M, B, 1) or one number


class _Examples:
    """The data of all jobs, stored once where jobs share them; without contexts in `supplied`, which a stack makes."""

    def __init__(self, vocab: int, jobs: Sequence[Job], dtype: torch.dtype, supplied: Sequence[str] = ()) -> None:
        data = list({id(job.data): job.data for job in jobs}.values())
        self._of_job = torch.tensor([[d is job.data for d in data].index(True) for job in jobs])
        given = [_checked_contexts(vocab, d, [job.method for job in jobs if job.data is d], supplied) for d in data]
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
        """Of every job the examples that `order` (M, B) numbers."""
        i = self._of_job[:, None], order
        context = {k: v[i] for k, v in self._context.items()}
        share = torch.tensor(1 / order.shape[1], dtype=self.all.share.dtype)
        return _Batch(self._inputs[i], self._labels[i], context, share)


def _checked_contexts(vocab: int, data: Data, methods: Sequence[QMap], supplied: Sequence[str]) -> Mapping[str, Tensor]:
    """The contexts that these methods need, checked: (N, V), or (N, 1) for one number per example. Those that the stack
    has `supplied` are left out."""
    given: dict[str, Tensor] = {}
    for m in dict.fromkeys(methods):
        logits = torch.zeros(len(data.labels), vocab, dtype=torch.float64)
        needs = tuple(name for name in m.needs if name not in supplied)
        context = {k: v for k, v in data.context.items() if k in needs}
        t, layout = read(m.name, needs, logits, data.labels, -100, context)
        if not bool(layout.mask.all()):
            raise ValueError(f"{m.name}: labels: expected a token for every example, got an ignored one")
        given |= t.given
    return given


class _Order:
    """The order of examples, epoch by epoch, drawn by each job's seed: jobs of one seed see the same."""

    def __init__(self, seeds: Sequence[int], examples: int, batch: int) -> None:
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._of_job = torch.tensor([list(self._generators).index(seed) for seed in seeds])
        self._examples, self._batch, self._done = examples, batch, examples

    def next(self) -> Tensor:
        """The examples of the next step, (M, B). What is left of an epoch, if smaller than a batch, is skipped."""
        if self._done + self._batch > self._examples:
            epoch = [torch.randperm(self._examples, generator=g) for g in self._generators.values()]
            self._epoch, self._done = torch.stack(epoch), 0
        self._done += self._batch
        return self._epoch[:, self._done - self._batch : self._done][self._of_job]


class _GivenOrder:
    """The order of examples where the jobs bring their own."""

    def __init__(self, orders: Sequence[Tensor]) -> None:
        self._steps, self._done = torch.stack(tuple(orders), dim=1), 0  # (S, M, B)

    @property
    def left(self) -> int:
        return len(self._steps) - self._done

    def next(self) -> Tensor:
        """The examples of the next step, (M, B)."""
        self._done += 1
        return self._steps[self._done - 1]


def _groups(methods: Sequence[QMap]) -> list[tuple[QMap, slice | Tensor]]:
    """Every method once, with its places: as a slice, by which tensors are not copied, where these are consecutive."""
    places: dict[QMap, list[int]] = {}
    for i, m in enumerate(methods):
        places.setdefault(m, []).append(i)
    return [
        (m, slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else torch.tensor(at)) for m, at in places.items()
    ]


def _common_value(what: str, values: Sequence[float]) -> float:
    """The one value that all jobs have; ValueError if they differ."""
    if len(set(values)) != 1:
        got = ", ".join(f"{x:g}" for x in sorted(set(values))) or "no job"
        raise ValueError(f"Stack: jobs: expected {what} common to all, got {got}")
    return values[0]
