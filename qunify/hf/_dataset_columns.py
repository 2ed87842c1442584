"""Weights and masks from a dataset's columns to the tokens of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from jinja2 import TemplateError
from trl.data_utils import common_prefix_length, pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import global_then_local_main_first

from qunify.hf._answers import Answers
from qunify.hf._token_columns import ANSWER, COLUMNS
from qunify.token import checked_number

#: The type of a token's numbers, and what stands at padding.
_PER_TOKEN = {**dict.fromkeys(COLUMNS, (torch.float32, 0)), ANSWER: (torch.int64, -1)}


class Collator(DataCollatorForLanguageModeling):
    """TRL's collator, which also lays out what there is for each token, as (B, T) like the labels."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        for name, (dtype, fill) in _PER_TOKEN.items():
            if name in examples[0]:
                rows = [torch.tensor(example[name], dtype=dtype) for example in examples]
                batch[name] = torch.full(batch["labels"].shape, fill, dtype=dtype)
                for row, values in zip(batch[name], [torch.cat(rows)] if self.padding_free else rows, strict=True):
                    row[: len(values)] = values
        return batch


#: From an example that TRL has prepared, and its number, to columns with a number for each of its tokens.
Spread = Callable[[dict[str, Any], int], dict[str, list[Any]]]


def prepared(
    dataset: Any,
    names: Sequence[str],
    spread: Spread,
    prepare: Callable[[Any, Any], Any],
    args: Any,
    packing: bool,
) -> Any:
    """A dataset with one number per token in each of the columns `names`, which `spread` gives.

    Parameters
    ----------
    prepare : function of (dataset, args)
        TRL's own preparation, without packing; it must neither truncate nor shuffle: that is done here, where the
        numbers can follow.

    Raises
    ------
    ValueError
        For numbers that do not fit the examples, and options under which they could not be truncated or packed.
    """
    if packing and args.max_length is None:
        raise ValueError("SFTTrainer: max_length: expected a number with packing, got None")
    if args.truncation_mode not in ("keep_start", "keep_end"):
        got = args.truncation_mode
        raise ValueError(f'SFTTrainer: truncation_mode: expected "keep_start" or "keep_end", got {got!r}')
    whole = copy.copy(args)
    whole.max_length, whole.shuffle_dataset = None, False
    dataset = prepare(dataset, whole)
    kept = ["input_ids", "labels", *names]
    workers = {"num_proc": args.dataset_num_proc} if isinstance(dataset, Dataset) else {}
    with global_then_local_main_first():
        dataset = dataset.map(spread, with_indices=True, **workers).select_columns(kept)
        if packing:
            dataset = dataset.shuffle(seed=args.seed) if args.shuffle_dataset else dataset
            dataset = pack_dataset(dataset, args.max_length, args.packing_strategy, workers)
        elif args.max_length is not None:
            cut = slice(-args.max_length, None) if args.truncation_mode == "keep_end" else slice(None, args.max_length)
            dataset = dataset.map(lambda example: {name: example[name][cut] for name in kept}, **workers)
            dataset = dataset.filter(lambda example: any(label != -100 for label in example["labels"]), **workers)
        return dataset.shuffle(seed=args.seed) if args.shuffle_dataset else dataset


def numbers_of(
    needs: Mapping[str, str],
    aligned: bool,
    tokenize: Callable[[Any, dict[str, Any]], list[int]],
    special: set[int],
) -> Spread:
    """Weights and masks.

    Parameters
    ----------
    needs : mapping
        Names of contexts, and the columns that hold them.
    aligned : bool
        Whether lists have a number for each token, else for each message.
    tokenize : function of (messages, example)
        The token ids of a part of a conversation.
    special : set of int
        The ids of tokens that are no part of what is said.
    """

    def spread(example: dict[str, Any], row: int) -> dict[str, list[Any]]:
        return {
            name: _per_token(example, name, column, aligned, lambda messages: tokenize(messages, example), special)
            for name, column in needs.items()
        }

    return spread


def answers_of(answers: Answers, dataset_name: str) -> Spread:
    """A token's row among a teacher's recorded answers; white space that comes after an answer is not trained on."""

    def spread(example: dict[str, Any], row: int) -> dict[str, list[Any]]:
        counted = [i > 0 and label != -100 for i, label in enumerate(example["labels"])]
        rows = answers.rows(example["input_ids"], counted, f"{dataset_name} dataset, row {row + 1}", rest=True).tolist()
        labels = [-100 if at < 0 else label for at, label in zip(rows, example["labels"], strict=True)]
        return {ANSWER: rows, "labels": [*example["labels"][:1], *labels[1:]]}

    return spread


def together(*parts: Spread) -> Spread:
    """All of their columns."""
    return lambda example, row: {name: x for part in parts for name, x in part(example, row).items()}


def _per_token(
    example: dict[str, Any],
    name: str,
    column: str,
    aligned: bool,
    tokenize: Callable[[Any], list[int]],
    special: set[int],
) -> list[float]:
    ids, value = example["input_ids"], example[column]
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, int | float):
            raise ValueError(f"SFTTrainer: column {column!r}: expected numbers, got {number!r}")
    if not isinstance(value, list):
        numbers = [value] * len(ids)
    elif aligned:
        numbers = _as_long(value, len(ids), column, "token")
    else:
        messages = _messages(example, column)
        numbers = []
        for i, number in enumerate(_as_long(value, len(messages), column, "message"), start=1):
            start = len(numbers)
            end = len(ids) if i == len(messages) else _end(ids, start, messages[:i], tokenize, special)
            if end is not None:
                numbers += [number] * (end - start)
            elif value[i] != number:
                raise ValueError(
                    f"SFTTrainer: column {column!r}: expected equal numbers for messages {i} and {i + 1}, whose "
                    f"border in the text of the chat template cannot be found, got {number!r} and {value[i]!r}"
                )
    found = torch.tensor(numbers, dtype=torch.float64)
    checked_number("SFTTrainer", name, found, found.dtype)
    return found.tolist()


def _end(
    ids: list[int], start: int, messages: list[Any], tokenize: Callable[[Any], list[int]], special: set[int]
) -> int | None:
    """Where in a conversation's `ids` the last of these first messages ends. None where that cannot be known: a chat
    template may render a message differently when nothing follows, or only together with the next one."""
    try:
        part = tokenize(messages)
    except TemplateError:
        return None
    end = common_prefix_length(ids, part)
    said = not messages[-1].get("content") or not special.issuperset(ids[start:end])
    return max(start, end) if said and special.issuperset(part[end:]) else None  # what closes a conversation may lack


def _messages(example: dict[str, Any], column: str) -> list[Any]:
    found = example.get("messages") or [example.get("prompt"), example.get("completion")]
    if not example.get("messages"):
        if not all(isinstance(part, list) for part in found):
            raise ValueError(
                f"SFTTrainer: column {column!r}: expected one number for an example of text, got a list: lists go with "
                "messages or with input_ids"
            )
        found = found[0] + found[1]
    return found


def _as_long(values: list[Any], length: int, column: str, what: str) -> list[Any]:
    if len(values) != length:
        raise ValueError(
            f"SFTTrainer: column {column!r}: expected one number for each {what}, {length} of them, got {len(values)}"
        )
    return values
