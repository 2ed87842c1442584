"""A short training by each method from the same start, measured on demonstrations that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qunify.audit._encoding import Encoded
from qunify.audit._forward import batches, batches_with_gradients, context_logits, hidden_states, sequences
from qunify.audit._kept import Kept
from qunify.audit._models import Models
from qunify.audit._trainable import Trainable, training
from qunify.hf import Head
from qunify.maps import Method, QMap
from qunify.training import KEYWORDS, linear_loss

#: Demonstrations per step.
PER_STEP = 8


def split(kept: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Demonstrations to rehearse with, and a quarter of them, at least one, to measure on; ValueError for fewer than
    two."""
    if len(kept) < 2:
        raise ValueError(
            "audit: rehearse: expected at least two demonstrations, one of them to measure on, got one with tokens to "
            "train on"
        )
    order = [kept[int(i)] for i in np.random.default_rng(seed).permutation(len(kept))]
    held = max(1, len(kept) // 4)
    return order[held:], sorted(order[:held])


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train, and what."""

    steps: int
    rate: float
    trainable: Trainable
    batch_tokens: int
    seed: int

    def passes(self, train: Sequence[Encoded], held: Sequence[Encoded]) -> int:
        """How many demonstrations go through the model, of one method."""
        return self.steps * min(PER_STEP, len(train)) + len(held)


def rehearsals(
    models: Models,
    methods: Mapping[str, QMap],
    train: Sequence[Encoded],
    held: Sequence[Encoded],
    plan: Plan,
    store: Kept,
    done: Callable[[int], Any],
) -> dict[str, np.ndarray]:
    """Of every method log u of all trained tokens of the held-out demonstrations, after its training.

    Each step takes 8 demonstrations and the mean of the method's loss over their tokens, with Adam; there is no
    warm-up, no decay of weights and no dropout. `done` is called with the number of demonstrations after each batch.
    """
    found = {}
    for number, (label, method) in enumerate(methods.items()):
        name = f"rehearsed-{number:03}"
        if (there := store.get(name)) is not None:
            done(plan.passes(train, held))
        else:
            there = store.put(name, {"log_u": _rehearsed(models, method, train, held, plan, done)})
        found[label] = there["log_u"]
    return found


def _rehearsed(
    models: Models,
    method: QMap,
    train: Sequence[Encoded],
    held: Sequence[Encoded],
    plan: Plan,
    done: Callable[[int], Any],
) -> np.ndarray:
    with training(models["model"], plan.trainable, plan.seed) as (model, parameters):
        optimizer = torch.optim.Adam(parameters, lr=plan.rate)
        steps = 0
        try:
            for chosen in _orders(len(train), plan.steps, plan.seed):
                some = [train[i] for i in chosen]
                total = sum(len(e.places) for e in some)
                for batch in batches_with_gradients(some, plan.batch_tokens):
                    _loss(models.with_model(model), method, [some[i] for i in batch], total).backward()
                    done(len(batch))
                optimizer.step()
                optimizer.zero_grad()
                steps += 1
            return _log_probabilities(model, held, plan.batch_tokens, done)
        except ValueError as error:
            if not steps or "finite" not in str(error):
                raise
            raise ValueError(
                f"audit: rate: expected one at which training by {method.name} stays finite, got {plan.rate:g}, at "
                f"which it does not beyond step {steps}"
            ) from error


def _orders(n: int, steps: int, seed: int) -> Iterator[list[int]]:
    """For each step its demonstrations: all are seen once before any is seen again."""
    rng = np.random.default_rng(seed)
    ahead: list[int] = []
    for _ in range(steps):
        while len(ahead) < min(PER_STEP, n):
            ahead += rng.permutation(n).tolist()
        yield ahead[:PER_STEP]
        ahead = ahead[PER_STEP:]


def _loss(models: Models, method: Method, batch: Sequence[Encoded], total: int | None) -> torch.Tensor:
    """The method's loss over a batch, as its share of `total` tokens, or of every token where there is no total."""
    given = context_logits(models, batch)
    hidden, ids, places = hidden_states(models["model"], batch)
    head = Head.of(models["model"])
    return linear_loss(
        hidden, head.weight, ids, method,
        bias=head.bias, logit_scale=head.scale, softcap=head.softcap,
        reduction="none" if total is None else "mean", num_items_in_batch=total, sequence_ids=sequences(places),
        **{KEYWORDS.get(name, name): value for name, value in given.items()},
    )  # fmt: skip


@torch.no_grad()
def _log_probabilities(
    model: Any, held: Sequence[Encoded], batch_tokens: int, done: Callable[[int], Any]
) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    for batch in batches(range(len(held)), held, batch_tokens):
        some = [held[i] for i in batch]
        values = -_loss(Models({"model": model}), "sft", some, None).cpu().numpy()
        ends = np.cumsum([len(e.places) for e in some])[:-1]
        found |= dict(zip(batch, np.split(values, ends), strict=True))
        done(len(batch))
    return np.concatenate([found[i] for i in range(len(held))])
