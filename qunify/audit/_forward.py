"""Demonstrations through models: batches of like length, and logits at the tokens that are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qunify.audit._encoding import Encoded
from qunify.audit._models import Models
from qunify.hf import Head, last_hidden
from qunify.training import TopK

#: Rows of logits that are there at a time.
ROWS = 1024

#: Tokens at most that go through a model at a time where gradients are taken: what they need is held.
WITH_GRADIENTS = 1024

#: A demonstration and the position of a token in it.
Place = tuple[int, int]


def batches(kept: Sequence[int], encoded: Sequence[Encoded], tokens: int) -> list[list[int]]:
    """Demonstrations of like length together, as many as fit with their padding, at least one."""
    found: list[list[int]] = []
    for i in sorted(kept, key=lambda i: len(encoded[i].ids)):
        if found and len(encoded[i].ids) * (len(found[-1]) + 1) <= tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def batches_with_gradients(encoded: Sequence[Encoded], tokens: int) -> list[list[int]]:
    """All demonstrations, fewer tokens at a time than where no gradients are taken."""
    return batches(range(len(encoded)), encoded, min(tokens, WITH_GRADIENTS))


def hidden_states(model: Any, batch: Sequence[Encoded]) -> tuple[Tensor, Tensor, list[Place]]:
    """Before every trained token the last hidden state, (N, d), the tokens' ids (N,), and their places: the number
    within the batch, and the position."""
    longest = max(len(e.ids) for e in batch)
    device = next(iter(model.parameters())).device
    ids = torch.tensor([e.ids + [0] * (longest - len(e.ids)) for e in batch], device=device)
    mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in batch], device=device)
    at = [(b, t) for b, e in enumerate(batch) for t in e.places]
    rows, positions = torch.tensor(at, device=device).T
    hidden = last_hidden(model, {"input_ids": ids, "attention_mask": mask, "use_cache": False})
    return hidden[rows, positions - 1], ids[rows, positions], at


def sequences(places: Sequence[Place]) -> Tensor:
    """Which tokens are of one demonstration: its number, (N,)."""
    return torch.tensor([demonstration for demonstration, _ in places])


States = dict[str, tuple[Tensor, Tensor, list[Place]]]  #: by model: see `hidden_states`


@torch.no_grad()
def states(models: Mapping[str, Any], batch: Sequence[Encoded]) -> States:
    return {name: hidden_states(model, batch) for name, model in models.items()}


@torch.no_grad()
def logits(
    models: Mapping[str, Any], batch: Sequence[Encoded], rows: int = ROWS, read: States | None = None
) -> Iterator[tuple[dict[str, Tensor], Tensor, list[Place]]]:
    """Every model's logits (n, V), in float32, at so many rows at a time, with the tokens' ids (n,) and places. What a
    teacher has answered stands for its model. `read` has the hidden states, where they are known."""
    read = read or states(models, batch)
    _, ids, at = read["model"]
    answers = _answers(batch)
    for start in range(0, len(at), rows):
        part = slice(start, start + rows)
        found = {name: Head.of(models[name]).logits(hidden[part]) for name, (hidden, _, _) in read.items()}
        if answers is not None:
            found["teacher"] = _logits_of(answers, torch.arange(len(at))[part], models["model"])
        yield found, ids[part], at[part]


def _logits_of(answers: TopK, rows: Tensor, model: Any) -> Tensor:
    weight = Head.of(model).weight
    return answers.logits(rows, len(weight), torch.promote_types(weight.dtype, torch.float32)).to(weight.device)


def _answers(batch: Sequence[Encoded]) -> TopK | None:
    """What a teacher has answered at the trained tokens of the batch, in their order."""
    there = [e.answers for e in batch if e.answers is not None]
    if not there:
        return None
    return TopK(torch.cat([x.values for x in there]), torch.cat([x.indices for x in there]))


@torch.no_grad()
def context_logits(models: Models, batch: Sequence[Encoded]) -> dict[str, Tensor]:
    """What the models beside the one in question predict at every trained token, (N, V), by names of contexts; and what
    tokens are as numbers, (V,)."""
    others = {name: model for name, model in models.items() if name != "model"}
    found = {name: Head.of(m).logits(hidden_states(m, batch)[0]) for name, m in others.items()}
    if (answers := _answers(batch)) is not None:
        found["teacher"] = _logits_of(answers, torch.arange(len(answers.values)), models["model"])
    return contexts(found, models)


def contexts(found: Mapping[str, Tensor], models: Models) -> dict[str, Tensor]:
    """What the models beside the one in question predict, under the names of contexts; and what tokens are as
    numbers."""
    values = {} if models.token_values is None else {"token_values": models.token_values}
    return {f"{name}_logits": value for name, value in found.items() if name != "model"} | values
