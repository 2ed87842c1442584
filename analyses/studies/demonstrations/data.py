"""GSM8K as token sequences: people's demonstrations, four language models' solutions, and where those go wrong."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

VOCAB = 512
LENGTH = 320  # tokens; questions of which the demonstration or a solution is longer are left out
END = 0  # the token that ends a solution

FILES = ("train.jsonl", "example_model_solutions.jsonl")
HUB = "openai/gsm8k"
SOLUTIONS = (  # by the data set's authors; the hub has the demonstrations only
    "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/"
    "example_model_solutions.jsonl"
)

#: The language models whose solutions come with the data.
WRITERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

#: What a token of a solution is. NUMBER: a digit on a line with a calculation, up to the first wrong step.
PROMPT, TEXT, NUMBER, FIRST_WRONG, ANSWER = range(5)
PARTS = {"numbers": NUMBER, "first wrong step": FIRST_WRONG, "answer": ANSWER}

Row = dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """N questions with one solution each. Rows are padded by END; padding and prompts are PROMPT."""

    tokens: Tensor  # (N, T) int
    part: Tensor  # (N, T) int: what each token is
    question: Tensor  # (N,) int
    right: Tensor  # (N,) bool; no method sees it

    @property
    def solution(self) -> Tensor:
        """(N, T) bool: the tokens of the solutions, which are trained on and measured."""
        return self.part != PROMPT

    def chosen(self, rows: Tensor) -> Texts:
        """The given rows, the padding common to all of them cut off."""
        part = self.part[rows]
        length = int((part != PROMPT).any(0).nonzero().max()) + 1
        return Texts(self.tokens[rows, :length], part[:, :length], self.question[rows], self.right[rows])

    def chunks(self, size: int) -> Iterator[Texts]:
        for rows in torch.arange(len(self.tokens)).split(size):
            yield self.chosen(rows)


@dataclass(frozen=True)
class Split:
    """What one seed sees."""

    clean: list[list[int]]  # half of the training demonstrations, question and answer in one
    train: Texts  # the language models' solutions, right and wrong
    held_out: Texts  # the same for other questions
    demonstrations: Texts  # people's, for the held-out questions


@dataclass(frozen=True)
class Gsm8k:
    """`demonstrations`: question, answer; `solved`: question, ground_truth and a solution by each of WRITERS."""

    demonstrations: list[Row]
    solved: list[Row]


@functools.cache
def read() -> Gsm8k:
    """From $QUNIFY_DATA/gsm8k if that is set, else downloaded by `datasets`.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    if "QUNIFY_DATA" in os.environ:
        folder = Path(os.environ["QUNIFY_DATA"]) / "gsm8k"
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"demonstrations: QUNIFY_DATA: expected gsm8k/{' and gsm8k/'.join(FILES)} in it, got no {missing[0]}"
            )
        return Gsm8k(*([json.loads(line) for line in (folder / name).open(encoding="utf-8")] for name in FILES))
    try:
        from datasets import load_dataset

        return Gsm8k(
            list(load_dataset(HUB, "main", split="train")),
            list(load_dataset("json", data_files=SOLUTIONS, split="train")),
        )
    except Exception as problem:  # whatever stands between here and the hub
        raise FileNotFoundError(
            f"demonstrations: expected GSM8K ({' and '.join(FILES)}) in $QUNIFY_DATA/gsm8k or from the hub by "
            f"`datasets`, got neither ({type(problem).__name__})"
        ) from problem


@functools.cache
def tokenizer() -> Any:
    """Byte-level BPE learned from the training demonstrations, every digit a token of its own."""
    return learned([f"{row['question']}\n{final(row['answer'])}" for row in read().demonstrations])


def learned(texts: Sequence[str]) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False, special_tokens=["<end>"], initial_alphabet=alphabet
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def final(answer: str) -> str:
    """A demonstration with its last line as the language models write it: "A: 72" for "#### 72"."""
    return answer.replace("#### ", "A: ")


def split(seed: int, questions: int, held_out: int) -> Split:
    """Half of the demonstrations, and two sets of questions with all their solutions; drawn by the seed."""
    data, bpe = read(), tokenizer()
    draw = np.random.default_rng(seed)
    half = draw.permutation(len(data.demonstrations))[: len(data.demonstrations) // 2]
    clean = [
        encoded(bpe, row["question"], final(row["answer"])).tokens for row in (data.demonstrations[i] for i in half)
    ]
    short = (i for i in draw.permutation(len(data.solved)).tolist() if short_enough(i))
    first, second = (list(itertools.islice(short, count)) for count in (questions, held_out))
    return Split(clean, solutions(first), solutions(second), demonstrations(second))


def short_enough(question: int) -> bool:
    """Whether the demonstration and the solutions of a solved question all have at most LENGTH tokens."""
    return all(len(text.tokens) <= LENGTH for text in (_demonstration(question), *_solved(question)))


def solutions(questions: Sequence[int]) -> Texts:
    """Every writer's solution of these questions."""
    texts = [text for i in questions for text in _solved(i)]
    right = [bool(read().solved[i][writer]["is_correct"]) for i in questions for writer in WRITERS]
    return padded(texts, [i for i in questions for _ in WRITERS], right)


def demonstrations(questions: Sequence[int]) -> Texts:
    """People's solution of these questions."""
    return padded([_demonstration(i) for i in questions], questions, [True] * len(questions))


def padded(texts: Sequence[Encoded], questions: Sequence[int], right: Sequence[bool]) -> Texts:
    """Shortest first: those of like length stand together, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].tokens))
    longest = max(len(text.tokens) for text in texts)

    def matrix(rows: Sequence[list[int]], fill: int) -> Tensor:
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

    return Texts(
        matrix([texts[i].tokens for i in order], END),
        matrix([texts[i].parts for i in order], PROMPT),
        torch.tensor([questions[i] for i in order]),
        torch.tensor([right[i] for i in order]),
    )


@dataclass(frozen=True)
class Encoded:
    """One question and its solution as tokens, and what each of them is."""

    tokens: list[int]
    parts: list[int]


def encoded(bpe: Any, question: str, solution: str, truth: str | None = None) -> Encoded:
    """`truth`: the demonstration that a wrong solution is held against; None where there is nothing to find."""
    prompt, said = bpe.encode(question + "\n"), bpe.encode(solution)
    marks = marked(solution, truth)
    parts = [marks[start] for start, _ in said.offsets]
    return Encoded([*prompt.ids, *said.ids, END], [PROMPT] * len(prompt.ids) + parts + [TEXT])


def marked(solution: str, truth: str | None = None) -> list[int]:
    """What each character is: a digit of a calculation, of the first wrong one, of the final answer, or TEXT.

    The first wrong step is the first line with a result that no calculation of `truth` has. The digits after it are
    TEXT: what follows from a mistake is neither right nor a mistake of its own.
    """
    known = set(results(truth)) if truth is not None else None
    part, marks = NUMBER, []
    for line in solution.splitlines(keepends=True):
        here = TEXT
        if line.startswith("A: "):
            here = ANSWER
        elif found := results(line):
            if part == NUMBER and known is not None and any(value not in known for value in found):
                part, here = TEXT, FIRST_WRONG
            else:
                here = part
        marks += [here if c.isdigit() else TEXT for c in line]
    return marks


def results(text: str) -> list[float | str]:
    """The results of the calculations `<<48/2=24>>`, as numbers where they are numbers."""
    return [_number(found.strip()) for found in re.findall(r"<<[^<>]*=([^<>]*)>>", text)]


def _number(text: str) -> float | str:
    try:
        return round(float(text.replace(",", "")), 6)
    except ValueError:
        return text


@functools.cache
def _demonstration(question: int) -> Encoded:
    row = read().solved[question]
    return encoded(tokenizer(), row["question"], row["ground_truth"])


@functools.cache
def _solved(question: int) -> list[Encoded]:
    row = read().solved[question]
    truths = [None if row[writer]["is_correct"] else row["ground_truth"] for writer in WRITERS]
    solved = [row[writer]["solution"] for writer in WRITERS]
    return [encoded(tokenizer(), row["question"], s, truth) for s, truth in zip(solved, truths, strict=True)]
