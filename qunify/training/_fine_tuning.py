"""Fine-tune a small transformer by any method, with every context that a method may need.

A `FineTuningTask` holds the sequences and the frozen models beside the one that learns; `fine_tune` trains on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunify.catalogue import as_method
from qunify.maps import Method, QMap
from qunify.training._transformer import SmallTransformer, before

CHUNK = 16  # sequences predicted at a time

#: Called with the steps done, the model that learns and the older policy.
Measure = Callable[[int, SmallTransformer, SmallTransformer], None]


@dataclass(frozen=True)
class FineTuningTask:
    """Sequences to learn, the frozen models whose predictions are contexts, and weights and masks for the tokens.

    `FineTuningTask.of` makes one and computes the weights and masks.

    Attributes
    ----------
    reference : SmallTransformer
        The model that fine-tuning starts from, and that anchored methods stay close to.
    teacher : SmallTransformer or None
        For methods with a teacher; of any size, over the same tokens.
    tokens : Tensor of int, (N, T)
        N sequences, padded to one length by any token.
    at : Tensor of bool, (N, T)
        Which tokens are trained on: those of the answer, say. Never the first one, before which nothing stands.
    token_weight, token_mask : Tensor, (N, T)
        The weights of `iw_sft`, and the mask by which `cft` leaves tokens out; see `weights_and_mask`.
    teacher_base : SmallTransformer or None
        What the teacher was before its own fine-tuning, for methods that need it.
    token_values : Tensor, (V,), or None
        What the tokens are as numbers, NaN for those that are none, for methods that need it.
    """

    reference: SmallTransformer
    teacher: SmallTransformer | None
    tokens: Tensor
    at: Tensor
    token_weight: Tensor
    token_mask: Tensor
    teacher_base: SmallTransformer | None = field(default=None, kw_only=True)
    token_values: Tensor | None = field(default=None, kw_only=True)

    @classmethod
    def of(
        cls,
        reference: SmallTransformer,
        teacher: SmallTransformer | None,
        tokens: Tensor,
        at: Tensor,
        *,
        teacher_base: SmallTransformer | None = None,
        token_values: Tensor | None = None,
    ) -> FineTuningTask:
        """A task with the weights and the mask that the reference's predictions give.

        Raises
        ------
        ValueError
            If `tokens` are no integers (N, T) in [0, V), `at` is no bool (N, T), marks a first token or none at all, or
            the vocabulary of the teacher or its base is another one, or `token_values` are not of shape (V,).
        """
        if not isinstance(at, Tensor) or at.dtype != torch.bool or at.shape != tokens.shape:
            got = f"{tuple(at.shape)} of {at.dtype}" if isinstance(at, Tensor) else type(at).__name__
            raise ValueError(f"FineTuningTask: at: expected bool of shape {tuple(tokens.shape)}, got {got}")
        if not bool(at.any()):
            raise ValueError("FineTuningTask: at: expected at least one token to train on, got none")
        ours = reference.size.vocab
        for what, other in (("teacher", teacher), ("teacher_base", teacher_base)):
            if other is not None and other.size.vocab != ours:
                got = f"one over {other.size.vocab}"
                raise ValueError(f"FineTuningTask: {what}: expected one over {ours} tokens, got {got}")
        if token_values is not None and token_values.shape != (ours,):
            shape = tuple(token_values.shape)
            raise ValueError(f"FineTuningTask: token_values: expected shape ({ours},), got {shape}")
        logits = [reference.predictions(*cut(tokens[rows], at[rows])) for rows in chunks(torch.arange(len(tokens)), at)]
        owner = at.nonzero()[:, 0]
        weight, critical = weights_and_mask(torch.cat(logits), tokens[at], owner)
        per_sequence = torch.full((len(tokens), 1), torch.nan, dtype=weight.dtype)
        per_sequence[owner, 0] = weight
        mask = torch.zeros(at.shape, dtype=weight.dtype)
        mask[at] = critical
        weights = per_sequence.expand(at.shape)
        return cls(reference, teacher, tokens, at, weights, mask, teacher_base=teacher_base, token_values=token_values)

    def chosen(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and marks of the given rows, without the columns after the last mark."""
        return cut(self.tokens[rows], self.at[rows])

    def context(self, needs: Sequence[str], old: SmallTransformer, rows: Tensor) -> dict[str, Any]:
        """The contexts of these names at the n marked tokens of these rows, each (n, V) or (n,).

        `old_logits` are those of the model `old`. `prior_logits` are the logarithms of the tokens' shares of what is
        trained on, with one added to every count. `negative_mask` has the tokens that come earlier in the sequence, but
        for the one to be predicted, as in unlikelihood training. ValueError if a teacher, its base, or numbers are
        needed and there are none.
        """
        tokens, at = self.chosen(rows)
        labels, vocab = tokens[at], self.reference.size.vocab
        context: dict[str, Any] = {}
        for name in needs:
            if name in ("token_weight", "token_mask"):
                context[name] = getattr(self, name)[rows][self.at[rows]]
            elif name == "prior_logits":
                counts = torch.bincount(self.tokens[self.at], minlength=vocab) + 1
                context[name] = (counts / counts.sum()).log().to(self.token_weight).expand(len(labels), vocab)
            elif name == "negative_mask":
                held = torch.nn.functional.one_hot(tokens, vocab).cumsum(1)[at] > 0  # up to the token itself
                context[name] = held.scatter(-1, labels[:, None], False)
            elif name == "token_values":
                if self.token_values is None:
                    raise ValueError(
                        "FineTuningTask: token_values: expected some for a method that needs them, got None"
                    )
                context[name] = self.token_values.expand(len(labels), -1)
            else:
                models = {"teacher_logits": self.teacher, "teacher_base_logits": self.teacher_base}
                model = (models | {"reference_logits": self.reference, "old_logits": old})[name]
                if model is None:
                    what = name.removesuffix("_logits")
                    raise ValueError(f"FineTuningTask: {what}: expected one for a method that needs it, got None")
                context[name] = model.predictions(tokens, at)
        return context

    def trust(self, method: Method, model: SmallTransformer, old: SmallTransformer, rows: Tensor) -> Tensor:
        """The method's trust (unit gauge) in every marked token of these rows, (n,) float64; `old` is the older policy,
        for methods that need one."""
        m = as_method(method, "fine_tune")
        parts = []
        for some in chunks(rows, self.at):
            tokens, at = self.chosen(some)
            q = m(model.predictions(tokens, at), tokens[at], **self.context(m.needs, old, some))
            parts.append(q.trust.double())
        return torch.cat(parts)


def fine_tune(
    method: Method,
    task: FineTuningTask,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int = 0,
    decay: bool = False,
    old_every: int = 10,
    every: int | None = None,
    measure: Measure | None = None,
) -> SmallTransformer:
    """Train a copy of the task's reference by a method, with Adam and the method's logit gradient in closed form.

    Parameters
    ----------
    method : QMap, str or function
        An id of the catalogue, a QMap, also one of your own, or a loss function as `qunify.induced` takes it.
    task : FineTuningTask
    steps, batch : int
        Steps, and sequences in each; every sequence is seen before any is seen again.
    lr : float
        Adam's learning rate. The loss is a mean over the marked tokens of a batch.
    seed : int
        Decides the order of the sequences, the same for every method.
    decay : bool
        Whether the rate falls evenly to zero.
    old_every : int
        For a method with an older policy, such as "psft": steps until the present model takes its place.
    every, measure : int and function, optional
        `measure(step, model, old)` is called at the start, after every so many steps and at the end; only at the start
        and the end without `every`. `old` is the older policy: it is renewed after it has been measured. It must not
        change the model.

    Returns
    -------
    SmallTransformer
        The trained model. The task's models stay as they are, so that a second call gives the same model again.

    Raises
    ------
    ValueError
        If a number is out of its range, the method needs a teacher that the task lacks, a batch has no token to train
        on, or the logits are no longer finite.

    Examples
    --------
    After each of eight tokens, three demonstrations go one up and one goes one down. SFT learns how often that is; a
    loss of one's own, the probability of a wrong token, forgets the rarer answer:

    >>> import torch
    >>> from qunify.training import FineTuningTask, SmallTransformer, TransformerSize, fine_tune
    >>> first, turn = torch.arange(8).repeat(4), torch.tensor([1, 1, 1, -1]).repeat_interleave(8)
    >>> tokens = torch.stack([first, (first + turn) % 8], dim=1)
    >>> reference = SmallTransformer(TransformerSize(vocab=8, width=16, layers=1, heads=2))
    >>> task = FineTuningTask.of(reference, None, tokens, at=torch.tensor([[False, True]]).expand(32, 2))
    >>> def wrong(logits, labels):
    ...     return 1 - logits.softmax(-1).gather(-1, labels[:, None])[:, 0]
    >>> for method in ("sft", wrong):
    ...     model = fine_tune(method, task, steps=100, batch=32, lr=1e-2)
    ...     p = model.predictions(tokens, task.at).softmax(-1)[-8:]  # where the demonstration goes down
    ...     print(round(float(p.gather(-1, tokens[-8:, 1:]).mean()), 2))
    0.25
    0.0
    """
    m = as_method(method, "fine_tune")
    for name, value in (("steps", steps), ("batch", batch), ("old_every", old_every), ("every", every)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"fine_tune: {name}: expected an integer of at least 1, got {value!r}")
    if not (isinstance(lr, int | float) and 0 < lr < float("inf")):
        raise ValueError(f"fine_tune: lr: expected a positive number, got {lr!r}")
    model = task.reference.snapshot().requires_grad_()
    old = task.reference
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    for i, rows in enumerate(shuffled_batches(len(task.tokens), steps, batch, seed)):
        if measure is not None and i % (every or steps) == 0:
            measure(i, model, old)
        if i % old_every == 0 and "old_logits" in m.needs:
            old = model.snapshot()
        if decay:
            optimiser.param_groups[0]["lr"] = lr * (1 - i / steps)
        tokens, at = task.chosen(rows)
        step(m, model, optimiser, tokens, at, **task.context(m.needs, old, rows))
    if measure is not None:
        measure(steps, model, old)
    return model


def step(
    method: QMap,
    model: SmallTransformer,
    optimiser: torch.optim.Optimizer,
    tokens: Tensor,
    at: Tensor,
    **context: Any,
) -> None:
    """One step on the marked tokens: the method's closed-form gradient at the logits, carried back by autograd.

    tokens (B, T); at (B, T) bool with N marks; contexts as the method needs them, flat: (N, …).
    """
    logits = model.logits(before(model(tokens), at))
    gradient = method(logits.detach(), tokens[at], **context).gradient
    optimiser.zero_grad()
    logits.backward(gradient=gradient / len(gradient))
    optimiser.step()


def shuffled_batches(count: int, steps: int, size: int, seed: int) -> Tensor:
    """Which of `count` examples each step sees, (steps, size): each once before any is seen again; by the seed alone.

    >>> shuffled_batches(count=4, steps=3, size=2, seed=0)
    tensor([[2, 1],
            [0, 3],
            [1, 2]])
    """
    draw = np.random.default_rng((seed, 2))
    rounds = -(-steps * size // count)
    order = np.concatenate([draw.permutation(count) for _ in range(rounds)])
    return torch.from_numpy(order[: steps * size].reshape(steps, size))


def weights_and_mask(reference_logits: Tensor, labels: Tensor, sequence: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The weights of `iw_sft` and the mask of `cft`, from a reference's predictions alone, not from which labels are
    right.

    Parameters
    ----------
    reference_logits : Tensor, (N, V)
    labels : Tensor of int, (N,)
    sequence : Tensor of int, (N,), optional
        The number of the sequence that a token belongs to; by default each is one of its own.

    Returns
    -------
    token_weight : Tensor, (N,)
        An importance weight for each sequence, the geometric mean over its tokens of reference(y | the tokens before)
        / frequency(y), scaled to mean 1 over all tokens: the ratio of the reference's probability to that of a policy
        which predicts each token by its frequency.
    token_mask : Tensor, (N,)
        1 where a token is critical: where the reference's entropy is above the median; else 0.

    Examples
    --------
    The reference expects the label in the first row, another token in the second, and is undecided in the third:

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    >>> weight, mask = weights_and_mask(logits, torch.tensor([0, 1, 0]))
    >>> weight
    tensor([1.6319, 0.4417, 0.9264])
    >>> mask
    tensor([0., 0., 1.])
    """
    log = reference_logits.log_softmax(-1)
    log_p = log.gather(-1, labels[:, None])[:, 0]
    entropy = -(log.exp() * log.clamp(min=torch.finfo(log.dtype).min)).sum(-1)  # 0 for a token that is ruled out
    frequency = torch.bincount(labels, minlength=log.shape[-1]).to(log) / len(labels)
    log_ratio = log_p - frequency[labels].log()
    if sequence is not None:
        log_ratio = means(log_ratio, sequence, int(sequence.max()) + 1)[sequence]
    ratio = log_ratio.exp().to(log)
    return ratio / ratio.mean(), (entropy > entropy.median()).to(log)


def mean_per_sequence(values: Tensor, at: Tensor) -> Tensor:
    """The mean of the values (N,) at the N marked tokens of each sequence, at (B, T) bool → (B,) float64; NaN for one
    that has none.

    >>> mean_per_sequence(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([[False, True, True], [False, False, True]]))
    tensor([2., 5.], dtype=torch.float64)
    """
    return means(values, at.nonzero()[:, 0], len(at))


def means(values: Tensor, owner: Tensor, owners: int) -> Tensor:
    """The mean of the values (N,) of each owner, (owners,) float64; NaN for an owner of none."""
    total = torch.zeros(owners, dtype=torch.float64).index_add(0, owner, values.double())
    return total / torch.bincount(owner, minlength=owners)


def chunks(rows: Tensor, at: Tensor) -> Sequence[Tensor]:
    """Rows (n,) in chunks, those left out that have no mark."""
    return [some for some in rows.split(CHUNK) if bool(at[some].any())]


def cut(tokens: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and marks (N, T) without the columns after the last mark. ValueError where there is no mark."""
    if not bool(at.any()):
        raise ValueError("at: expected at least one token to train on in every batch, got none")
    length = int(at.any(0).nonzero().max()) + 1
    return tokens[:, :length], at[:, :length]
