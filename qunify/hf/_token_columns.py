"""What a batch holds for each token beside its label: weights, masks, and the negatives of unlikelihood training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: What a method needs → the dataset's column that holds it.
COLUMNS = {"token_weight": "weight", "token_mask": "mask"}
#: A token's row among a teacher's recorded answers; −1 where it has none.
ANSWER = "teacher_answer"


def shifted(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Take the tokens' numbers (B, T) out of a model's inputs, as those of the tokens to be predicted, (B, T − 1)."""
    return {name: inputs.pop(name)[:, 1:] for name in COLUMNS if name in inputs}


def sequences(inputs: Mapping[str, Any], labels: Tensor) -> Tensor | None:
    """The number of the document that each token to be predicted stands in, (B, T − 1), where the batch has positions
    (B, T): a document begins where its position is 0. None where a row is one document."""
    positions = inputs.get("position_ids")
    if positions is None or positions.shape != labels.shape:
        return None
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    return ((positions == 0).cumsum(-1) + rows * (labels.shape[1] + 1))[:, 1:]


def previous_tokens(inputs: Mapping[str, Any], labels: Tensor, vocab: int) -> Tensor:
    """The tokens that a document already holds, but for the one to be predicted: (B, T − 1, V) of bool.

    Labels (B, T) are not yet shifted. A document begins where its position is 0; what is not attended to is padding.
    """
    ids = inputs["input_ids"]
    every = torch.ones_like(ids, dtype=torch.bool)
    seen = torch.zeros(*ids.shape, vocab, dtype=torch.bool, device=ids.device)
    seen.scatter_(-1, ids[..., None], inputs.get("attention_mask", every)[..., None].bool())
    goes_on = inputs.get("position_ids", every) != 0
    for t in range(1, ids.shape[1]):
        seen[:, t] |= seen[:, t - 1] & goes_on[:, t, None]
    return seen[:, :-1].scatter_(-1, labels[:, 1:, None].clamp(min=0), False)
