"""What the study of a real model reads from texts and tables, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyses.kit.findings import committed
from analyses.studies.real_model import moved, rank_correlation
from analyses.studies.real_model.data import answer, marks
from analyses.studies.real_model.flagged import DIGITS, EVERY, gains
from analyses.studies.real_model.recipes import LONGER, MAIN, RECIPES, STEPS, WAYS, Recipe, otherwise
from analyses.studies.real_model.verdicts import longer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6 / 2 = <<6/2=3>>3", (1, 1, 1)),
        ("<<6/2=4>>4 and <<1,000+$2=1002>>", (2, 2, 1)),
        ("<<6/2=3", (1, 0, 0)),
        ("<<6/0=3>> <<__import__('os')=1>> <<2**9=512>>", (3, 3, 0)),
        ("none", (0, 0, 0)),
    ],
    ids=["right", "wrong, and with signs of money", "not closed", "no sums", "none"],
)
def test_marks_opened_whole_and_right(text: str, expected: tuple[int, int, int]) -> None:
    assert marks(text) == expected


def test_the_answer_is_what_stands_last() -> None:
    assert answer("#### 3\n#### 1,250") == "1250"
    assert answer("3") is None


def test_gains_are_means_over_questions_that_have_both() -> None:
    key = {"place": "held out", "part": EVERY}
    before = pd.DataFrame([{**key, "question": i, "right": -1.0, "wrong": -2.0} for i in range(3)])
    after = before.assign(right=[-0.5, -0.9, np.nan], wrong=[-1.9, -1.5, -1.0])
    found = gains(before, after).set_index("quantity")
    assert set(found["group"]) == {"all tokens, held out"}
    assert set(found["n"]) == {2}
    assert found["value"].to_dict() == pytest.approx(
        {"gain, right": 0.3, "gain, wrong": 0.3, "more": 0.0, "more, standard error": 0.4}
    )
    assert DIGITS != EVERY


def test_a_rank_correlation_is_of_rows_that_have_both() -> None:
    one = [1.0, 2.0, 3.0, 4.0, np.nan]
    table = pd.DataFrame({"recipe": ["a", "a", "b", "b", "c"], "one": one, "other": [2.0, 4.0, 9.0, 11.0, 1.0]})
    r, low, high, n = rank_correlation(table, "one", "other")
    assert (r, n) == (1.0, 4)
    assert low <= high == 1.0


def test_every_recipe_has_a_name_of_its_own() -> None:
    others = [recipe for recipe, _ in otherwise()]
    names = [recipe.name for recipe in (*RECIPES, *others)]
    assert len(set(names)) == len(names)
    assert len(others) == sum(len(methods) for _, methods in WAYS.values())
    assert set(MAIN) <= {recipe.name for recipe in RECIPES}
    assert Recipe("posterior", teacher="noisy").name == "posterior, noisy teacher"


def test_what_further_training_did_is_of_one_training_from_the_same_start() -> None:
    table = committed("real_model")
    for _, row in longer(table).iterrows():
        full = f"{row['recipe']}, {LONGER.name}"
        assert row["before"] == pytest.approx(moved(table, full, row["group"], STEPS))
        assert row["trained"] == pytest.approx(moved(table, full, row["group"], LONGER.steps))
    assert set(longer(table)["recipe"]) == set(MAIN)
