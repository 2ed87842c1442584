"""A teacher that has answered already: its listed log-probabilities, laid beside the demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qunify.audit._encoding import Encoded, encode
from qunify.hf import Answers
from qunify.maps import QMap


def is_answers(teacher: Any) -> bool:
    """Whether a teacher is recorded answers, or a file of them; else it is a model, its folder, or none."""
    if isinstance(teacher, Answers):
        return True
    if not isinstance(teacher, str | Path):
        return False
    path = Path(teacher)
    return path.suffix == ".jsonl" or (path.is_file() and path.suffix != ".gguf")


def answered(
    answers: Answers, examples: Sequence[Mapping[str, Any]], encoded: Sequence[Encoded], tokenizer: Any
) -> list[Encoded]:
    """The demonstrations with their answers; these are looked for by all tokens, also where they have been cut off.
    White space that comes after an answer does not count.

    Raises
    ------
    ValueError
        A demonstration without an answer, by its number.
    """
    found = []
    for number, (example, e) in enumerate(zip(examples, encoded, strict=True), start=1):
        ids = encode(example, tokenizer).ids if e.lost else e.ids
        counted = e.counted + [False] * (len(ids) - len(e.ids))
        rows = torch.from_numpy(answers.rows(ids, counted, f"demonstration {number}", rest=True))
        there = (rows[: len(e.ids)] >= 0).tolist()
        found.append(replace(e, answers=answers.top_k(rows[rows >= 0]), counted=there))
    return found


def told_enough(chosen: Mapping[str, QMap], encoded: Sequence[Encoded], vocab: int, named: bool) -> dict[str, QMap]:
    """Those methods that what was listed of the teacher serves.

    Of methods that were not `named`, those that must be told more are left out, and a `k` is made as small as need be.

    Raises
    ------
    ValueError
        A method that was named and must be told more.
    """
    least = about(encoded)["teacher_tokens"]
    found: dict[str, QMap] = {}
    for name, m in chosen.items():
        needed = m.teacher_tokens(vocab) if "teacher_logits" in m.needs else 1
        if needed <= least:
            found[name] = m
        elif named:
            raise ValueError(
                f"audit: methods: {m.name} must be told {m.told_of_teacher(vocab)}: expected them in the recorded "
                f"answers, got {least} log-probabilities at some position"
            )
        elif "k" in m.params:
            found[f"{name}(k={least})"] = m.replace(k=least)
    return found


def about(encoded: Sequence[Encoded]) -> dict[str, Any]:
    """How many tokens of the teacher are told at every position at least, and the share of its probability that they
    hold, a mean over positions."""
    values = torch.cat([e.answers.values for e in encoded if e.answers is not None])
    counts, mass = (values > -torch.inf).sum(-1), values.double().exp().sum(-1)
    return {"teacher_tokens": int(counts.min()), "teacher_mass": float(mass.clamp(max=1).mean())}
