"""A teacher's recorded answers to what a plain Trainer trains on: found by the tokens of every batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qunify.hf._answers import Answers


def rows_of_batch(answers: Answers, inputs: Mapping[str, Any], labels: Tensor) -> Tensor:
    """For each label (B, T) its row among the answers, −1 where there is none or it does not count.

    A document begins where its position is 0; what is not attended to is padding.

    Raises
    ------
    ValueError
        A document without an answer.
    """
    ids = inputs["input_ids"]
    attended = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(ids, dtype=torch.bool)
    found = torch.full_like(labels, -1)
    for b in range(len(ids)):
        at = attended[b].nonzero()[:, 0]
        if inputs.get("position_ids") is None:
            parts = [at]
        else:
            places = inputs["position_ids"][b % len(inputs["position_ids"])][at]
            parts = [*at.tensor_split((places == 0).nonzero()[:, 0].cpu())]
        for part in (part for part in parts if len(part)):
            counted = (labels[b, part] != -100).tolist()
            rows = answers.rows(ids[b, part].tolist(), [False, *counted[1:]], f"row {b + 1} of the batch")
            found[b, part] = torch.from_numpy(rows).to(found.device)
    return found


def check_dataset(answers: Answers, dataset: Any) -> None:
    """ValueError for an example without an answer, by its number, where a dataset holds token ids and labels."""
    if not {"input_ids", "labels"} <= {*(getattr(dataset, "column_names", None) or ())} or not hasattr(
        dataset, "__len__"
    ):
        return
    for number, example in enumerate(dataset, start=1):
        counted = [i > 0 and label != -100 for i, label in enumerate(example["labels"])]
        answers.rows(example["input_ids"], counted, f"train dataset, row {number}")
