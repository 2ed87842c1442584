"""What the first step of each method does, through the parameters that all tokens share.

A step Δθ along the gradient of a method's loss changes the mean log u of a group of tokens by ∇(mean log u) · Δθ, to
first order: one gradient per group and one per method suffice for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qunify.audit._encoding import Encoded
from qunify.audit._forward import batches_with_gradients, context_logits, hidden_states, sequences
from qunify.audit._models import Models
from qunify.audit._trainable import Trainable, training
from qunify.catalogue import get
from qunify.hf import Head
from qunify.maps import QMap, gradients
from qunify.token import SEQUENCES

#: Adam's, which keeps its first step finite where a gradient is zero.
EPSILON = 1e-8
#: So many numbers at most are held as gradients at a time, where they are more than one gradient.
HELD = 250_000_000
#: Trained tokens of the sample.
TOKENS = 2000


@dataclass(frozen=True)
class Sample:
    """Demonstrations, and of every token that is trained on its group."""

    encoded: Sequence[Encoded]
    groups: Sequence[Sequence[str]]


def sample(kept: Sequence[int], encoded: Sequence[Encoded], seed: int) -> list[int]:
    """Demonstrations drawn at random until they have TOKENS tokens to train on, or all."""
    found, count = [], 0
    for i in np.random.default_rng(seed).permutation(np.asarray(kept)).tolist():
        if count >= TOKENS:
            break
        found.append(i)
        count += len(encoded[i].places)
    return sorted(found)


def passes(shared: Sample, methods: int, batch_tokens: int) -> int:
    """How many backward passes `first_steps` takes."""
    groups = len({group for one in shared.groups for group in one})
    return (groups + methods) * len(batches_with_gradients(shared.encoded, batch_tokens))


def first_steps(
    models: Models,
    shared: Sample,
    methods: Sequence[QMap],
    trainable: Trainable,
    batch_tokens: int,
    seed: int,
    done: Callable[[int], Any] = lambda _: None,
) -> dict[str, np.ndarray]:
    """The change of each group's mean log u, in nats per unit of learning rate, to first order.

    `groups` are their names; `descent` and `adam`, (groups, methods), the changes by a step of gradient descent,
    Δθ = −∇L, and by Adam's first step, Δθ = −∇L / (|∇L| + 1e-8) entry by entry, where L is the mean of the method's
    loss over the sample's tokens. `done` is called with 1 after each backward pass.
    """
    groups = sorted({group for one in shared.groups for group in one})
    with training(models["model"], trainable, seed) as (model, parameters):
        backward = _Backward(models.with_model(model), parameters, shared, batch_tokens, done)
        up = -backward([get("sft")] * len(groups), groups)
        descent, adam = [], []
        at_once = max(1, HELD // up.shape[1] - len(groups))
        for start in range(0, len(methods), at_once):
            some = methods[start : start + at_once]
            for g in backward(some, [None] * len(some)):
                descent.append(up @ -g)
                adam.append(up @ (-g / (g.abs() + EPSILON)))
    changes = {name: torch.stack(x, dim=1).cpu().numpy() for name, x in (("descent", descent), ("adam", adam))}
    return {"groups": np.array(groups), **changes}


@dataclass(frozen=True)
class _Backward:
    """Gradients by the parameters, of the mean loss over the sample or over one group of its tokens."""

    models: Models
    parameters: Sequence[nn.Parameter]
    shared: Sample
    batch_tokens: int
    done: Callable[[int], Any]

    def __call__(self, methods: Sequence[QMap], groups: Sequence[str | None]) -> Tensor:
        """(K, parameters): of K methods, each over its own group's tokens, None for all."""
        model = self.models["model"]
        device = self.parameters[0].device
        found = torch.zeros(len(methods), sum(p.numel() for p in self.parameters), device=device)
        kinds = [group for one in self.shared.groups for group in one]
        sizes = [len(kinds) if group is None else kinds.count(group) for group in groups]
        for batch in batches_with_gradients(self.shared.encoded, self.batch_tokens):
            some = [self.shared.encoded[i] for i in batch]
            given = context_logits(self.models, some)
            hidden, ids, places = hidden_states(model, some)
            z = Head.of(model).logits(hidden)
            here = [group for i in batch for group in self.shared.groups[i]]
            for row, m, group, size in zip(found, methods, groups, sizes, strict=True):
                context: dict[str, Any] = {name: given[name] for name in m.needs} | {SEQUENCES: sequences(places)}
                g = gradients([m], z.detach(), ids, **context)[0] / size
                if group is not None:
                    g *= torch.tensor([kind == group for kind in here], device=device)[:, None]
                parts = torch.autograd.grad(z, self.parameters, g, retain_graph=True, materialize_grads=True)
                row += torch.cat([part.flatten() for part in parts])
                self.done(1)
        return found
