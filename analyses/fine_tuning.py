"""Fine-tune a small transformer from a reference by any method, with every context that a method may need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.small_transformer import SmallTransformer, step
from qunify.qmap import QMap

CHUNK = 16  # sequences predicted at a time
REFRESH = 10  # steps between two snapshots of the old policy


@dataclass(frozen=True)
class Task:
    """Sequences to train on, the frozen models beside the one that learns, and what those say of the tokens."""

    reference: SmallTransformer
    teacher: SmallTransformer
    tokens: Tensor  # (N, T) int
    at: Tensor  # (N, T) bool: the tokens that are trained on
    token_weight: Tensor  # (N, T)
    token_mask: Tensor  # (N, T)

    @classmethod
    def of(cls, reference: SmallTransformer, teacher: SmallTransformer, tokens: Tensor, at: Tensor) -> Task:
        return cls(reference, teacher, tokens, at, *weights(reference, tokens, at))

    def chosen(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and marks of the given rows, the padding common to all of them cut off."""
        return cut(self.tokens[rows], self.at[rows])

    def context(self, method: QMap, old: SmallTransformer, rows: Tensor) -> dict[str, Any]:
        """What the method needs at the marked tokens of these rows, flat."""
        return self.asked(method.needs, old, rows)

    def asked(self, needs: Sequence[str], old: SmallTransformer, rows: Tensor) -> dict[str, Any]:
        """These contexts, from the models."""
        models = {"reference_logits": self.reference, "teacher_logits": self.teacher, "old_logits": old}
        given = {"token_weight": self.token_weight, "token_mask": self.token_mask}
        tokens, at = self.chosen(rows)
        return {
            name: models[name].predictions(tokens, at) if name in models else given[name][rows][self.at[rows]]
            for name in needs
        }

    def trust(self, method: QMap, model: SmallTransformer, old: SmallTransformer, rows: Tensor) -> Tensor:
        """The method's trust (unit gauge) in every marked token of these rows, flat, float64."""
        found = []
        for some in rows.split(CHUNK):
            tokens, at = self.chosen(some)
            q = method(model.predictions(tokens, at), tokens[at], **self.context(method, old, some))
            found.append(q.trust.double())
        return torch.cat(found)


def cut(tokens: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Both (N, T), without the columns after the last mark."""
    length = int(at.any(0).nonzero().max()) + 1
    return tokens[:, :length], at[:, :length]


def fine_tuned(
    method: QMap, task: Task, order: Tensor, rate: float, every: int, decay: bool = False
) -> Iterator[tuple[int, SmallTransformer, SmallTransformer]]:
    """Train with Adam from the reference on the rows `order` (steps, B); yield (step, model, old policy) at the start
    and after every `every` steps. With `decay`, the rate falls evenly to zero.

    What is yielded is measured before the old policy, a snapshot taken every REFRESH steps, is renewed.
    """
    model = task.reference.snapshot().requires_grad_()
    old = task.reference
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for i, rows in enumerate(order):
        if i % every == 0:
            yield i, model, old
        if i % REFRESH == 0 and "old_logits" in method.needs:
            old = model.snapshot()
        if decay:
            optimiser.param_groups[0]["lr"] = rate * (1 - i / len(order))
        tokens, at = task.chosen(rows)
        step(method, model, optimiser, tokens, at, **task.context(method, old, rows))
    yield len(order), model, old


def batches(count: int, steps: int, size: int, seed: int) -> Tensor:
    """Which sequences each step sees, (steps, size): each once before any is seen again; by the seed alone."""
    draw = np.random.default_rng((seed, 2))
    rounds = -(-steps * size // count)
    order = np.concatenate([draw.permutation(count) for _ in range(rounds)])
    return torch.from_numpy(order[: steps * size].reshape(steps, size))


def weights(reference: SmallTransformer, tokens: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """What iw_sft weighs by and cft leaves out, both (N, T); nothing here knows which sequences are wrong.

    token_weight (iw_sft): one importance weight per sequence, the geometric mean over its marked tokens of
    reference(y | what stands before) / frequency(y), scaled to mean 1 over all marked tokens: how much more likely the
    reference makes the sequence than a policy that reads nothing.
    token_mask (cft): a token is critical where the reference's entropy is above the median.
    """
    labels = tokens[at]
    frequency = torch.bincount(labels, minlength=reference.size.vocab) / len(labels)
    log_p, entropy = [], []
    for rows in torch.arange(len(tokens)).split(CHUNK):
        some, here = cut(tokens[rows], at[rows])
        log = reference.predictions(some, here).log_softmax(-1)
        log_p.append(log.gather(-1, some[here][:, None])[:, 0])
        entropy.append(-(log.exp() * log).sum(-1))
    owner = at.nonzero()[:, 0]
    ratio = means(torch.cat(log_p) - frequency[labels].log(), owner, len(at)).exp().float()
    surprise = torch.cat(entropy)
    mask = torch.zeros(at.shape)
    mask[at] = (surprise > surprise.median()).float()
    return (ratio / ratio[owner].mean())[:, None].expand(at.shape), mask


def means(values: Tensor, owner: Tensor, owners: int) -> Tensor:
    """The mean of the values (N,) of each owner, (owners,) float64; NaN for one that has none."""
    total = torch.zeros(owners, dtype=torch.float64).index_add(0, owner, values.double())
    return total / torch.bincount(owner, minlength=owners)
