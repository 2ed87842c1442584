"""Language models' solutions, a right and a wrong one of the same question: does a method learn the wrong ones less?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analyses.studies.demonstrations.data import FIRST_WRONG, NUMBER, WRITERS, marked, read
from analyses.studies.real_model import measure
from analyses.studies.real_model.data import Text, encoded, tokenizer

LONGEST = 192  # tokens, template and question included: of 731 questions with both kinds of solution 197 are left
TRAINED, HELD_OUT = 100, 40  # questions
MEASURED = 40  # of those that are trained on
EVERY, DIGITS = "all tokens", "digits of calculations"


@dataclass(frozen=True)
class Solution:
    """One text; `digits` says which of its places are digits of a calculation: of a right solution all, of a wrong one
    those of the first wrong step."""

    text: Text
    digits: list[bool]


@dataclass(frozen=True)
class Pair:
    right: Solution
    wrong: Solution


@functools.cache
def pairs() -> list[Pair]:
    """One of each question that has short solutions of both kinds, in an order that is always the same: first those
    that are trained on, then those held out."""
    found: list[Pair] = []
    solved = read().solved
    for i in np.random.default_rng(0).permutation(len(solved)).tolist():
        row = solved[i]
        said = {bool(row[w]["is_correct"]): row[w]["solution"] for w in WRITERS}
        if len(said) < 2:
            continue
        pair = Pair(*(_solution(row, said[right], None if right else row["ground_truth"]) for right in (True, False)))
        if max(len(pair.right.text.ids), len(pair.wrong.text.ids)) <= LONGEST:
            found.append(pair)
    wanted = TRAINED + HELD_OUT
    if len(found) < wanted:
        raise ValueError(f"real_model: expected {wanted} questions with a right and a wrong solution, got {len(found)}")
    return found[:wanted]


def _solution(row: dict[str, Any], said: str, truth: str | None) -> Solution:
    text = encoded({"question": row["question"], "answer": said})
    marks, wanted = marked(said, truth), NUMBER if truth is None else FIRST_WRONG
    pieces = tokenizer()(said, add_special_tokens=False, return_offsets_mapping=True)
    ids = [text.ids[place] for place in text.places]
    if ids[: len(pieces["input_ids"])] != pieces["input_ids"]:
        raise ValueError(f"real_model: expected a template that leaves the tokens of a solution as they are: {said!r}")
    digits = [marks[start] == wanted for start, _ in pieces["offset_mapping"]]
    return Solution(text, digits + [False] * (len(ids) - len(digits)))


def training() -> list[Text]:
    return [solution.text for pair in pairs()[:TRAINED] for solution in (pair.right, pair.wrong)]


def measured(model: Any) -> pd.DataFrame:
    """Columns place, question, part, right, wrong: the mean log u of all tokens and of the digits of calculations."""
    places = {"trained on": pairs()[:MEASURED], "held out": pairs()[TRAINED:]}
    rows = [
        {"place": place, "question": i, **{kind: found[kind][part] for kind in found}, "part": part}
        for place, some in places.items()
        for i, pair in enumerate(some)
        for found in [{kind: _means(model, getattr(pair, kind)) for kind in ("right", "wrong")}]
        for part in (EVERY, DIGITS)
    ]
    return pd.DataFrame(rows)


def _means(model: Any, solution: Solution) -> dict[str, float]:
    log_u = measure.predictions(model, [solution.text])["log_u"].to_numpy()
    at = log_u[solution.digits]
    return {EVERY: float(log_u.mean()), DIGITS: float(at.mean()) if len(at) else np.nan}


def gains(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Columns group, quantity, value, n, in nats: how much mean log u has risen in right and in wrong solutions, and
    by how much more in the right one of a question, with the standard error of that mean over questions."""
    key = ["place", "part", "question"]
    both = before.merge(after, on=key, suffixes=("_before", "_after")).dropna()
    rows = []
    for (place, part), some in both.groupby(["place", "part"], sort=False):
        gain = {kind: some[f"{kind}_after"] - some[f"{kind}_before"] for kind in ("right", "wrong")}
        more = gain["right"] - gain["wrong"]
        found = {"gain, right": gain["right"].mean(), "gain, wrong": gain["wrong"].mean(), "more": more.mean()}
        found["more, standard error"] = more.std() / np.sqrt(len(more))
        rows += [
            {"group": f"{part}, {place}", "quantity": name, "value": value, "n": len(some)}
            for name, value in found.items()
        ]
    return pd.DataFrame(rows)
