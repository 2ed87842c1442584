"""The study on real demonstrations: the data are read and marked rightly, the flags stay with the measurement."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import qunify as qu
from analyses.studies import demonstrations
from analyses.studies.demonstrations import data
from analyses.studies.demonstrations.data import ANSWER, END, FIRST_WRONG, NUMBER, PROMPT, TEXT, WRITERS
from analyses.studies.demonstrations.runs import (
    COLUMNS,
    FULL,
    KL,
    NLL,
    OLD_EVERY,
    SAME_QUESTION,
    TRUST,
    Plan,
    method_rows,
    paired,
    start_rows,
    world,
)
from qunify import plots
from qunify.training import TransformerSize

pytestmark = pytest.mark.slow

SMALL = TransformerSize(data.VOCAB, width=16, layers=1, heads=2)
TINY = Plan(
    seeds=(0, 1),
    reference=SMALL,
    teacher=dataclasses.replace(SMALL, width=24),
    pretraining_steps=12,
    pretraining_batch=4,
    window=48,
    pretraining_rate=1e-2,
    questions=6,
    held_out=4,
    watched=6,
    steps=2 * OLD_EVERY,
    batch=2,
    rate=1e-3,
    checkpoints=2,
    methods=("sft", "dft", "iw_sft", "cft", "psft", "kd"),
)

REAL = "QUNIFY_DATA" in os.environ and (Path(os.environ["QUNIFY_DATA"]) / "gsm8k").is_dir()


def forget() -> None:
    """What was read and pretrained belongs to the data it was read from."""
    for cached in (data.read, data.tokenizer, data._demonstration, data._solved, world):
        cached.cache_clear()


def written(folder: Path, flipped: bool = False) -> Path:
    """A stand-in for GSM8K: sums, of which two of the four writers take the difference."""
    draw = np.random.default_rng(0)
    rows, solved = [], []
    for i in range(24):
        a, b = (int(x) for x in draw.integers(10, 99, 2))
        question = f"Ann has {a} pens and buys {b} more. How many pens does she have?"
        right = f"Ann has {a}+{b} = <<{a}+{b}={a + b}>>{a + b} pens."
        wrong = f"Ann has {a}-{b} = <<{a}-{b}={a - b}>>{a - b} pens."
        rows.append({"question": question, "answer": f"{right}\n#### {a + b}"})
        row: dict[str, Any] = {"question": question, "ground_truth": f"{right}\nA: {a + b}"}
        for j, writer in enumerate(WRITERS):
            good = (i + j) % 2 == 0
            solution = f"{right}\nA: {a + b}" if good else f"{wrong}\nA: {a - b}"
            row[writer] = {"is_correct": good != flipped, "solution": solution}
        solved.append(row)
    (folder / "gsm8k").mkdir(parents=True)
    for name, content in zip(data.FILES, (rows, solved), strict=True):
        (folder / "gsm8k" / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("QUNIFY_DATA", str(written(tmp_path)))
    forget()
    yield
    forget()


def everything(plan: Plan = TINY) -> pd.DataFrame:
    tables = []
    for seed in plan.seeds:
        tables += [start_rows(plan, seed), *(method_rows(plan, name, seed) for name in plan.methods)]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUNIFY_DATA", str(written(tmp_path_factory.mktemp("data"))))
        forget()
        yield everything()
    forget()


# ---- data -------------------------------------------------------------------------------------------------
def test_missing_files_are_named_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUNIFY_DATA", str(tmp_path))
    forget()
    with pytest.raises(FileNotFoundError, match=r"^demonstrations: QUNIFY_DATA: expected .* got no train\.jsonl$"):
        data.read()


def test_without_files_the_data_come_from_the_hub_and_from_their_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.delenv("QUNIFY_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: [{"from": [*a, *k.values()]}])
    forget()
    found = data.read()
    forget()
    assert found.demonstrations[0]["from"][:2] == ["openai/gsm8k", "main"]
    assert found.solved[0]["from"][1].endswith(
        "/openai/grade-school-math/master/grade_school_math/data/" + data.FILES[1]
    )


def test_without_anything_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*a: object, **k: object) -> None:
        raise ConnectionError("no network\nand a long story")

    monkeypatch.delenv("QUNIFY_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    forget()
    with pytest.raises(FileNotFoundError, match=r"^demonstrations: expected GSM8K .* got neither \(ConnectionError\)$"):
        data.read()


def test_the_first_wrong_step_is_where_a_result_first_differs() -> None:
    truth = "She sells 16-7 = <<16-7=9>>9.\nShe makes 9*2 = $<<9*2=18>>18.\nA: 18"
    solution = "She has 2 ducks.\nIt is 16-7 = <<16-7=9.0>>9.\nSo 9*3 = <<9*3=27>>27.\nAnd 27+9 = <<27+9=36>>36.\nA: 36"
    marks = data.marked(solution, truth)
    assert len(marks) == len(solution)

    def digits(part: int) -> str:
        return "".join(c for c, m in zip(solution, marks, strict=True) if m == part)

    assert digits(NUMBER) == "1671679" + "09"
    assert digits(FIRST_WRONG) == "93" + "9327" + "27"
    assert digits(ANSWER) == "36"
    assert all(m == TEXT or c.isdigit() for c, m in zip(solution, marks, strict=True))
    assert FIRST_WRONG not in data.marked(solution)  # nothing to hold it against


def test_results_are_compared_as_numbers() -> None:
    assert data.results("<<5*0.60=3.0>> <<1000+1=1,001>> <<x=y>> 3=4") == [3.0, 1001.0, "y"]


@pytest.mark.usefixtures("stand_in")
def test_tokens_are_the_text_and_the_prompt_is_not_marked() -> None:
    split = data.split(0, questions=3, held_out=2)
    bpe = data.tokenizer()
    solved = data.read().solved
    for tokens, part, question in zip(split.train.tokens, split.train.part, split.train.question.tolist(), strict=True):
        said = part != PROMPT
        told = "".join(bpe.id_to_token(i) for i in tokens[said].tolist()).replace("Ġ", " ").replace("Ċ", "\n")
        assert told in {solved[question][writer]["solution"] + "<end>" for writer in WRITERS}
        before = "".join(bpe.id_to_token(i) for i in tokens[: int(said.nonzero()[0])].tolist()).replace("Ġ", " ")
        assert before == solved[question]["question"] + "Ċ"
        assert (tokens[int(said.nonzero()[-1]) + 1 :] == END).all()
        digits = [bpe.id_to_token(i).isdigit() for i in tokens.tolist()]
        numbers = torch.isin(part, torch.tensor([NUMBER, FIRST_WRONG, ANSWER])).tolist()
        assert all(d for d, n in zip(digits, numbers, strict=True) if n)


@pytest.mark.usefixtures("stand_in")
def test_questions_to_train_on_and_to_hold_out_are_apart() -> None:
    first, again, other = (data.split(seed, questions=6, held_out=4) for seed in (0, 0, 1))
    assert set(first.train.question.tolist()).isdisjoint(first.held_out.question.tolist())
    assert set(first.held_out.question.tolist()) == set(first.demonstrations.question.tolist())
    assert torch.equal(first.train.tokens, again.train.tokens)
    assert first.train.question.tolist() != other.train.question.tolist()
    assert first.train.right.double().mean() == 0.5


@pytest.mark.skipif(not REAL, reason="needs GSM8K in $QUNIFY_DATA/gsm8k")
def test_the_real_data_are_what_the_text_says() -> None:
    forget()
    found = data.read()
    assert (len(found.demonstrations), len(found.solved)) == (7473, 1319)
    right = [row[writer]["is_correct"] for row in found.solved for writer in WRITERS]
    assert np.mean(right) == pytest.approx(0.379, abs=0.001)
    wrong = [data.marked(row[w]["solution"], row["ground_truth"]) for row in found.solved[:200] for w in WRITERS]
    assert np.mean([FIRST_WRONG in marks for marks in wrong]) > 0.5


# ---- training ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("plan", [FULL, TINY])
def test_psft_is_measured_a_whole_refresh_after_its_snapshot(plan: Plan) -> None:
    assert plan.steps % (plan.checkpoints * OLD_EVERY) == 0


def test_in_the_full_plan_every_solution_is_seen_once() -> None:
    assert FULL.steps * FULL.batch == FULL.questions * len(WRITERS)


def test_the_paired_difference_takes_questions_that_have_both() -> None:
    values = torch.tensor([1.0, 0.5, 0.2, 0.9, 0.3])
    right = torch.tensor([True, True, False, True, False])
    question = torch.tensor([7, 7, 7, 8, 9])
    assert paired(values, right, question).item() == pytest.approx(0.75 - 0.2)


# ---- rows -------------------------------------------------------------------------------------------------
def test_rows_are_complete(table: pd.DataFrame) -> None:
    assert list(table) == COLUMNS
    assert table["value"].notna().all()
    assert not table.duplicated(COLUMNS[:-1]).any()
    assert set(table["method"]) == {"data", "reference", "teacher", *TINY.methods}
    trust = table[(table["metric"] == TRUST) & (table["method"] == "dft")]
    assert trust.groupby("seed")["step"].unique().map(list).tolist() == [[0, OLD_EVERY, 2 * OLD_EVERY]] * 2
    assert trust["value"].between(0, 1).all()


@pytest.mark.usefixtures("stand_in")
def test_rows_are_the_same_twice(table: pd.DataFrame) -> None:
    plan = dataclasses.replace(TINY, seeds=(1,), methods=("psft",))
    again = everything(plan)
    first = table[(table["seed"] == 1) & table["method"].isin(set(again["method"]))].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_trust_that_does_not_depend_on_the_model(table: pd.DataFrame) -> None:
    trust = table[table["metric"] == TRUST].groupby("method")["value"].agg(["min", "max"])
    assert list(trust.loc["sft"]) == [1, 1]
    assert list(trust.loc["kd"]) == [0, 0]


def test_the_reference_has_moved_nowhere_and_the_tuned_have(table: pd.DataFrame) -> None:
    moved = table[table["metric"] == KL].groupby("method")["value"].min()
    assert moved["reference"] == 0
    assert (moved[list(TINY.methods)] > 0).all()


def test_flipped_flags_swap_the_rows_and_change_no_model(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUNIFY_DATA", str(written(tmp_path, flipped=True)))
    forget()
    found = method_rows(TINY, "dft", 0)
    forget()
    before = table[(table["method"] == "dft") & (table["seed"] == 0)]

    def value(rows: pd.DataFrame, text: str, metric: str = TRUST) -> list[float]:
        return rows[(rows["metric"] == metric) & (rows["text"] == text) & (rows["tokens"] == "all")]["value"].tolist()

    assert value(found, "train, right") == value(before, "train, wrong")
    assert value(found, "train, wrong") == value(before, "train, right")
    assert value(found, "train, right") != value(before, "train, right")
    people = "held-out demonstrations"
    assert value(found, people, NLL) == value(before, people, NLL)
    assert value(found, "train", SAME_QUESTION) == pytest.approx([-x for x in value(before, "train", SAME_QUESTION)])


# ---- picture -------------------------------------------------------------------------------------------------
def test_the_figure_ranks_the_methods_it_was_given(table: pd.DataFrame) -> None:
    figure = demonstrations.STUDY.draw(table)
    plots.render(figure, "png")
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [qu.get(name).title for name in demonstrations.ranking(table)]
