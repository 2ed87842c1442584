"""The ten settings: demonstrations and verdicts are what they say, and a small cell gives its committed row."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import qunify as qu
from analyses.kit import cache, runner
from analyses.studies import ten_settings
from analyses.studies.ten_settings import __main__ as command
from analyses.studies.ten_settings.ablations import VARIANTS
from analyses.studies.ten_settings.runs import (
    METHODS,
    TINY,
    TINY_CELL,
    Choice,
    Plan,
    Texts,
    cell,
    chosen,
    questions_not_in,
    trained_on,
    training_recipe,
)
from analyses.studies.ten_settings.tasks import (
    ANSWER,
    END,
    LENGTH,
    MOVES,
    TASKS,
    VOCAB,
    ReasoningTask,
    add_answers,
    clean,
    mod_answers,
    verify,
    worlds,
    written,
)
from qunify.training import TransformerSize

PRIOR, TAUGHT = worlds(0)
CLEAN = clean(TAUGHT)
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)


@EVERY
def test_a_demonstration_without_slips_is_right(task: ReasoningTask) -> None:
    draw = np.random.default_rng(1)
    for _ in range(200):
        question = task.question(draw)
        pen = written(task, question, CLEAN, draw)
        assert len(question) + len(pen.tokens) <= LENGTH
        assert set(question + pen.tokens) <= set(VOCAB)
        found = verify(task, question, pen.tokens, CLEAN)
        assert found.right
        assert found.valid
        assert not any(pen.slipped)


@EVERY
def test_a_slip_makes_a_solution_invalid_and_as_many_slip_as_said(task: ReasoningTask) -> None:
    draw = np.random.default_rng(2)
    slipped = worked = 0
    for _ in range(400):
        question = task.question(draw)
        pen = written(task, question, TAUGHT, draw)
        assert verify(task, question, pen.tokens, TAUGHT).valid is not any(pen.slipped)
        slipped, worked = slipped + sum(pen.slipped), worked + sum(pen.worked)
    assert abs(slipped / worked - TAUGHT.slips) < 4 * (TAUGHT.slips / worked) ** 0.5


@pytest.mark.slow
@EVERY
def test_the_distribution_told_is_the_one_drawn_from(task: ReasoningTask) -> None:
    draw = np.random.default_rng(3)
    question = task.question(draw)
    pens = [written(task, question, TAUGHT, draw) for _ in range(3000)]
    drawn, told = Counter(pen.tokens[0] for pen in pens), pens[0].truth[0]
    for token, share in told.items():
        assert abs(drawn[token] / 3000 - share) < 5 * (share * (1 - share) / 3000) ** 0.5 + 1e-9
    for chances in itertools.chain.from_iterable(pen.truth for pen in pens[:50]):
        assert sum(chances.values()) == pytest.approx(1)


@EVERY
def test_another_ending_and_none_are_wrong(task: ReasoningTask) -> None:
    draw = np.random.default_rng(4)
    question = task.question(draw)
    text = written(task, question, CLEAN, draw).tokens
    for wrong in (text[:-1], [END], [], [*text[:-2], ":", END], [ANSWER, *text]):
        assert not verify(task, question, wrong, CLEAN).valid


def test_answers_are_those_of_arithmetic() -> None:
    draw = np.random.default_rng(5)
    for _ in range(100):
        a = TASKS["add"].question(draw)
        assert int("".join(add_answers(a, CLEAN)[0])) == int(a[1] + a[2]) + int(a[4] + a[5])
        m = TASKS["mod"].question(draw)
        value = int(m[1])
        for operation, n in zip(m[2:-1:2], m[3:-1:2], strict=True):
            value = {"+": value + int(n), "-": value - int(n), "*": value * int(n)}[operation]
        assert mod_answers(m, CLEAN) == [[str(value % 5)]]  # the remainder may be taken at the end as well


def test_a_right_answer_counts_without_its_work_but_is_not_valid() -> None:
    question = ["add", "1", "7", "+", "2", "5", ":"]
    found = verify(TASKS["add"], question, [ANSWER, "0", "4", "2", END], CLEAN)
    assert found.right
    assert not found.valid
    assert not verify(TASKS["add"], question, [ANSWER, "0", "4", "3", END], CLEAN).right


def test_reaching_takes_legal_moves_and_arrives() -> None:
    question = ["reach", *"27", ">", *"32", ":"]
    for first, second in itertools.product(MOVES, repeat=2):
        a = 5 - MOVES[first]
        b = a - MOVES[second]
        if a > 0 and b >= 0:
            text = ["5", ";", first, "=", str(a), ";", second, "=", str(b), ";"]
            assert verify(TASKS["reach"], question, [*text, END], CLEAN).right is (b == 0)
            assert not verify(TASKS["reach"], question, [*text, "+1", END], CLEAN).right
    far = ["5", ";", "+1", "=", "4", ";", "+1", "=", "3", ";", "+1", "=", "2", ";", "+2", "=", "0", ";", END]
    assert not verify(TASKS["reach"], question, far, CLEAN).right
    assert not verify(TASKS["reach"], question, ["4", ";", "+3", "=", "1", ";", "+1", "=", "0", ";", END], CLEAN).right


def test_facts_and_exceptions_change_in_the_stated_dose() -> None:
    changed = [
        PRIOR.facts[relation][person] != TAUGHT.facts[relation][person]
        for relation in PRIOR.facts
        for person in PRIOR.facts[relation]
    ]
    assert 0.1 < np.mean(changed) < 0.45
    kin = TASKS["kin"]
    questions: list[Sequence[str]] = [kin.question(np.random.default_rng(i)) for i in range(60)]
    texts = Texts.of(kin, questions, TAUGHT, PRIOR, 0)
    facts = texts.worked & ~texts.slipped
    assert 0.1 < texts.conflict[facts].float().mean() < 0.45
    assert not (texts.conflict & texts.slipped).any()


def test_posterior_learns_a_right_teacher_from_labels_with_slips() -> None:
    v, noise = 7, 0.2
    teacher = torch.randn(v, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy = torch.randn(v, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(v)
    given: dict[str, Any] = {"teacher_logits": teacher.expand(v, v)}
    target = qu.get("posterior", noise=noise)(policy.expand(v, v), labels, **given).target
    drawn = (1 - noise) * teacher.softmax(-1) + noise / v
    torch.testing.assert_close(drawn @ target, teacher.softmax(-1), rtol=0, atol=1e-12)


def test_the_best_run_of_the_tuning_is_chosen() -> None:
    tried = pd.DataFrame(
        {
            "method": "gem",
            "rate": ["0.1", "0.2", "0.2"],
            "parameter": ["", "", "beta"],
            "value": ["", "", "0.5"],
            "average": ["0.1", "0.3", "0.4"],
        }
    )
    assert chosen(tried) == Choice("gem", 0.2, "beta", 0.5)
    assert chosen(tried).qmap == qu.get("gem", beta=0.5)
    assert chosen(tried[:2]).qmap == qu.get("gem")


def test_nemenyis_difference_is_the_published_one() -> None:
    # Demšar 2006, section 3.2.2
    assert ten_settings.critical_difference(methods=4, blocks=14) == pytest.approx(1.25, abs=0.01)


def test_paired_draws_leave_no_difference_between_equals() -> None:
    shares = np.random.default_rng(0).random((3, 20))
    a, b = ten_settings.resampled(shares), ten_settings.resampled(shares + 0.1)
    np.testing.assert_allclose(b - a, 0.1)
    assert a.std() == pytest.approx(shares.std() / 60**0.5, rel=0.35)


@pytest.mark.slow
def test_more_questions_than_there_are_are_refused() -> None:
    numbers = [f"{v:02d}" for v in range(100)]
    seen = [["reach", *a, ">", *b, ":"] for a in numbers for b in numbers]
    with pytest.raises(ValueError, match="reach: questions: expected 1 beside 10000 others, got 0"):
        questions_not_in(TASKS["reach"], 1, 0, seen)
    with pytest.raises(ValueError, match="reach: questions: expected 10000 beside 0 others, got"):
        questions_not_in(TASKS["reach"], 10_000, 0)


@pytest.mark.slow
def test_models_of_another_plan_are_not_taken_for_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path)
    questions = {name: questions_not_in(task, 2, 0) for name, task in TASKS.items()}
    sizes = [TransformerSize(len(VOCAB), width, 1, 2, LENGTH) for width in (8, 16)]
    models = [trained_on(TINY, "teacher", size, CLEAN, 2, questions, 0) for size in (*sizes, sizes[0])]
    assert [model.size for model in models[:2]] == sizes
    for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


@pytest.mark.slow
def test_the_small_cell_gives_its_committed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path)
    committed = ten_settings.part(runner.read(ten_settings.NAME, runner.FIGURES), "tiny")
    found = cell(TINY, *TINY_CELL)
    # The start is drawn in float32, on AVX2 and AVX-512 by another kernel than elsewhere: it differs in the last bit,
    # of which training makes some 1e-5.
    vectorised = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    near = 2e-6 if vectorised else 1e-4
    for column in set(found) - {"training_seconds", "measuring_seconds", "torch"}:
        got, expected = found[column][0], committed[column].iloc[0]
        assert got == (pytest.approx(expected, abs=near, nan_ok=True) if isinstance(got, float) else expected), column


def test_every_run_asked_for_is_there() -> None:
    plan, table = ten_settings.FULL, runner.read(ten_settings.NAME, runner.FIGURES)
    cells = ten_settings.part(table, "cell")[["task", "size", "method", "seed"]]
    asked = [(t, z, m, s) for t, z, m in itertools.product(TASKS, plan.sizes, METHODS) for s in plan.seeds_of(m)]
    assert sorted(cells.itertuples(index=False, name=None)) == sorted(asked)
    assert len(ten_settings.part(table, "tuning")) == 4 * len(METHODS) * len(TASKS)
    assert len(ten_settings.part(table, "ablation")) == len(VARIANTS) * len(plan.ablated) * len(plan.seeds)


def test_a_cell_is_printed_beside_its_committed_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ten_settings.part(runner.read(ten_settings.NAME, runner.FIGURES), "cell")
    rows = rows[(rows["task"] == "kin") & (rows["size"] == "0.1 M") & (rows["seed"] == 0)]

    def again(plan: Plan, task: str, size: str, choice: Choice, seed: int) -> pd.DataFrame:
        assert (plan, task, size, choice.method, seed) == (ten_settings.FULL, "kin", "0.1 M", "target_sft", 0)
        assert choice.rate == rows[rows["method"] == "target_sft"]["rate"].item()
        return rows[rows["method"] == "sft"]

    monkeypatch.setattr(command, "cell", again)
    command.main(["kin", "0.1 M", "target_sft", "0"])
    printed = capsys.readouterr().out
    found = rows.set_index("method")["average"]
    assert f"again {found['sft']:.3f}" in printed
    assert f"{found['target_sft']:.6f}"[:7] in printed


def test_an_interval_of_few_seeds_is_students() -> None:
    rows = [
        {"part": "cell", "task": "kin", "size": "0.1 M", "seed": seed, "method": method, "right": right * 50}
        for method, rights in {"a": "gip", "b": "bbb"}.items()
        for seed, right in enumerate(rights)
    ]
    mean, low, high = ten_settings.lead(pd.DataFrame(rows), "kin", "0.1 M", "b", "a")
    expected = np.array([5, 7, 14]) / 16
    half = stats.t.ppf(0.975, 2) * expected.std(ddof=1) / 3**0.5
    assert mean == pytest.approx(expected.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert mean - low == pytest.approx(high - mean)


def test_what_is_no_model_or_share_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"training_recipe: name: expected one of 0.1 M, .* wrong teacher, got '0.2 M'"
    ):
        training_recipe(TINY, "0.2 M", 0)
    for noise in (-0.1, 0.0, 2.0):
        with pytest.raises(ValueError, match=r"posterior: parameter noise: expected a number in \(0, 1\], got"):
            qu.get("posterior", noise=noise)
