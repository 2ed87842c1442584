"""What SmolLM2 is trained and measured on: short demonstrations of GSM8K, and answers of its own to other requests."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analyses.kit.real import GROUPS, MODEL
from analyses.studies.demonstrations.data import read

#: Tokens of a demonstration, template and question included; longer ones are left out, for the sake of two cores.
LONGEST = 160
TRAIN, TEACHER, CHOICE, HELD_OUT, FURTHER = 200, 200, 12, 24, 600
ANSWERED = 16  # of the questions held out

#: Requests that have nothing to do with the demonstrations. The model as it was answers them, greedily.
ELSEWHERE = (
    "Write a short letter to a friend about moving to a new town.",
    "Explain why the sky is blue to a child.",
    "Give me three tips for sleeping better.",
    "What is the capital of Portugal, and what is it known for?",
    "Write a Python function that reverses a string.",
    "Summarise the story of Little Red Riding Hood in two sentences.",
    "Describe how bread is baked.",
    "Translate into French: Good morning, how are you?",
    "Who was Marie Curie?",
    "List four animals that live in the sea and say what they eat.",
    "Write a haiku about autumn.",
    "What should I pack for a weekend in the mountains?",
)
ELSEWHERE_TOKENS = 64


@dataclass(frozen=True)
class Text:
    """A prompt and what follows it, as token ids; `places` are the positions of what follows."""

    ids: list[int]
    places: list[int]

    @property
    def row(self) -> dict[str, list[int]]:
        """As TRL's trainer takes it."""
        trained = set(self.places)
        return {"input_ids": self.ids, "labels": [x if t in trained else -100 for t, x in enumerate(self.ids)]}


@dataclass(frozen=True)
class Demonstrations:
    """Rows of GSM8K, each set apart from the others. `held_out` is measured on; `choice` chooses learning rates;
    `further` are trained on after `train`."""

    train: list[dict[str, Any]]
    teacher: list[dict[str, Any]]
    choice: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    further: list[dict[str, Any]]


@functools.cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    if not MODEL.is_dir():
        raise FileNotFoundError(f"real_model: {MODEL} is not there: `make real` fetches it")
    return AutoTokenizer.from_pretrained(MODEL)


def model() -> Any:
    """The pretrained model, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer()  # says what is missing
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


@functools.cache
def demonstrations() -> Demonstrations:
    """Drawn from those that are short enough, in an order that is always the same."""
    rows = read().demonstrations
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    short = (rows[i] for i in order if _length(rows[i]) <= LONGEST)
    sizes = (TRAIN, TEACHER, CHOICE, HELD_OUT, FURTHER)
    return Demonstrations(*([next(short) for _ in range(size)] for size in sizes))


def _length(row: dict[str, Any]) -> int:
    return len(encoded(row).ids)


def encoded(row: dict[str, Any]) -> Text:
    """A demonstration in the model's own chat template, as TRL applies it."""
    asked = [{"role": "user", "content": row["question"]}]
    said = [{"role": "assistant", "content": row["answer"]}]
    start, ids = prompt(row["question"]), _rendered(asked + said)
    if ids[: len(start)] != start:
        raise ValueError(f"real_model: expected a template that begins with the prompt, got {ids[: len(start)]}")
    return Text(ids, [*range(len(start), len(ids))])


def prompt(request: str) -> list[int]:
    return _rendered([{"role": "user", "content": request}], add_generation_prompt=True)


def _rendered(messages: list[dict[str, str]], **how: Any) -> list[int]:
    ids: list[int] = tokenizer().apply_chat_template(messages, tokenize=True, return_dict=True, **how)["input_ids"]
    return ids


def kinds(rows: list[dict[str, Any]], model: Any) -> list[str]:
    """The group of every token of these demonstrations that is trained on, as an audit names it."""
    from qunify import audit

    found: pd.DataFrame = audit.run(model, rows, tokenizer(), methods=["sft"], groups=GROUPS).tokens
    return list(found.sort_values(["example", "position"])["group"])


_MARK = re.compile(r"<<([^<>]*)=([^<>=]*)>>")


def marks(text: str) -> tuple[int, int, int]:
    """How many calculator marks a text opens, how many are whole (`<<6/2=3>>`), and how many of those are right."""
    whole = _MARK.findall(text)
    return text.count("<<"), len(whole), sum(_is_right(sum_, result) for sum_, result in whole)


def _is_right(calculation: str, result: str) -> bool:
    try:
        return abs(_value(calculation) - float(result.replace(",", ""))) <= 0.01
    except (ValueError, ZeroDivisionError):
        return False


def _value(calculation: str) -> float:
    """What +, −, ×, ÷ and brackets come to, read as Python writes them and never run; ValueError for anything else."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -value(inner)
            case ast.BinOp(left=a, op=ast.Add(), right=b):
                return value(a) + value(b)
            case ast.BinOp(left=a, op=ast.Sub(), right=b):
                return value(a) - value(b)
            case ast.BinOp(left=a, op=ast.Mult(), right=b):
                return value(a) * value(b)
            case ast.BinOp(left=a, op=ast.Div(), right=b):
                return value(a) / value(b)
        raise ValueError(f"not a sum: {calculation!r}")

    if len(calculation) > 200:
        raise ValueError("not a sum: too long")
    try:
        return value(ast.parse(calculation.replace(",", "").replace("$", "").strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"not a sum: {calculation!r}") from None


def answer(text: str) -> str | None:
    """What stands after the last `####`, without commas; None where there is none."""
    found = re.findall(r"####\s*(-?[\d,.]*\d)", text)
    return found[-1].replace(",", "") if found else None
