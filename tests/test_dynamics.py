"""How fast tokens are learned: theory agrees, skipping steps changes nothing, the words follow the rows."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad

import qunify as qu
from analyses.kit import runner
from analyses.studies import dynamics as study
from analyses.studies.dynamics import runs
from qunify.catalogue import PAPER

KEYS = ["method", "case", "seed"]


@pytest.fixture(scope="module")
def full() -> pd.DataFrame:
    return runner.read("dynamics", runner.FIGURES)


@pytest.fixture(scope="module")
def quick() -> pd.DataFrame:
    return study.rows(False)


@pytest.mark.slow
# ---- physics ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "power"), [("sft", 0), ("dft", 1), ("beyond_log", 0.5)])
def test_small_steps_take_as_long_as_the_integral_says(name: str, power: float) -> None:
    """With the rest even over n tokens, du/dt = w(u) u (1 − u)² (1 + 1/n), and it stays even. From two beginnings."""
    n, rate, begin = runs.VOCAB - 1, 0.01, torch.tensor([0.6, 0.02], dtype=torch.float64)
    p = ((1 - begin) / n)[:, None].repeat(1, runs.VOCAB)
    p[:, runs.LABEL] = begin
    found = runs.learn(qu.get(name), runs.given(p.log()), rate=rate, single=runs.LIMIT)
    for steps, start in zip(found.steps.tolist(), begin.tolist(), strict=True):
        expected, _ = quad(lambda u: 1 / (u**power * u * (1 - u) ** 2 * (1 + 1 / n)), start, runs.GOAL)
        assert steps * rate == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cases"), [("dft", ("hard", "wrong")), ("spherical", ("hard", "wrong")), ("minor_sft", ("hard",))]
)
def test_skipped_steps_are_steps(name: str, cases: tuple[str, ...]) -> None:
    t = runs.given(torch.cat([runs.tokens(case, (0,)).start for case in cases]))
    one, many = (runs.learn(qu.get(name), t, single=single).steps.tolist() for single in (runs.LIMIT, 100))
    assert len(one) == len(cases)
    assert many == pytest.approx(one, rel=0.03)


def test_the_picture_says_how_wide_its_intervals_are(full: pd.DataFrame) -> None:
    """Two seeds of the committed ten, as the quick report has them, spread further than a marker is wide."""
    assert study.intervals_told(study.summary(full)) == "narrower than the markers"
    few = study.summary(full[full["seed"] < 2])
    assert study.intervals_told(few) == "thin lines, up to ± 117 %"
    (note,) = (text.get_text() for text in study.draw(full[full["seed"] < 2]).texts)
    assert note.startswith("Means of 2 seeds, intervals thin lines, up to ± 117 %.")


def test_tokens_begin_as_they_are_called() -> None:
    for case, begin in runs.CASES.items():
        p = runs.tokens(case, (0, 1, 2)).start.softmax(-1)
        assert p[:, runs.LABEL].tolist() == pytest.approx([begin] * 3)
        assert (p.sum(-1) - 1).abs().max() < 1e-12
    assert p[:, runs.RIVAL].tolist() == pytest.approx([runs.SURE] * 3)


# ---- the rows ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_quick_rows_are_among_the_committed_ones(full: pd.DataFrame, quick: pd.DataFrame) -> None:
    both = quick.merge(full, on=KEYS, suffixes=("", "_full"), how="left", validate="one_to_one")
    flow = 1e-7  # where a flow ends that runs onto a plateau, as psft's, is known to so much
    for column, near in (("steps", 1e-9), ("end", 1e-9), ("rested", 0), ("optimum", flow)):
        pd.testing.assert_series_equal(
            both[column], both[f"{column}_full"], check_names=False, rtol=0, atol=near, obj=column
        )


@pytest.mark.slow
def test_two_quick_runs_are_equal(quick: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last digit, of a few methods: each is run for itself."""
    some = ("dft", "psft", "gem")
    monkeypatch.setattr(study, "methods", lambda full: some)
    first = quick[quick["method"].isin(some)].reset_index(drop=True)
    assert set(first["method"]) == set(some)
    pd.testing.assert_frame_equal(study.rows(False), first, rtol=0, atol=0)


def test_every_method_with_a_target_is_there(full: pd.DataFrame) -> None:
    assert len(set(full["method"])) >= 68
    assert set(full["method"]) <= {name for name in qu.names() if qu.get(name).shift_invariant}
    assert (full.groupby(["method", "case"])["seed"].nunique() == 10).all()


@pytest.mark.parametrize("name", ["kd", "kd_hybrid", "profit", "reverse_kl"])
def test_what_is_not_learned_ends_where_theory_says(full: pd.DataFrame, name: str) -> None:
    told = full[(full["method"] == name) & full["optimum"].notna()]
    assert len(told) >= 2
    assert np.allclose(told["end"], told["optimum"], atol=0.02)


# ---- the words --------------------------------------------------------------------------------------------------
def test_what_is_seen_is_read_from_the_rows(full: pd.DataFrame) -> None:
    slow = full["method"] == "dft"
    for rows in (full, full.assign(steps=full["steps"].where(~slow, 2 * full["steps"]))):
        found = study.summary(rows)
        ratio = study.cell(found, "dft", "wrong") / study.cell(found, "sft", "wrong")
        assert f"{ratio:.0f} times as many" in study.STUDY.see(rows)
    lost = study.never(study.summary(full), "wrong")
    meant = [name for name in lost if name in qu.names("unlearning")]
    rest = [name for name in lost if name not in meant]
    assert f"{len(rest)} do not learn it within 100,000 steps: {', '.join(rest)} (" in study.STUDY.see(full)
    assert f"nor do the {len(meant)} that are made to unlearn" in study.STUDY.see(full)


@pytest.mark.slow
def test_words_digest_and_picture_come_from_the_table(full: pd.DataFrame, quick: pd.DataFrame) -> None:
    for table in (full, quick):
        said = study.STUDY.see(table)
        assert 1 <= len(re.findall(r"[.!?](?:\s|$)", said)) <= 4
        assert "nan" not in said
        assert "inf " not in said
        assert 5 <= len(study.STUDY.digest(table)) <= 40
        study.STUDY.draw(table)
    found = study.summary(full)
    ratio = study.cell(found, "dft", "wrong") / study.cell(found, "sft", "wrong")
    assert f"{ratio:.0f} times as many" in study.STUDY.see(full)
    assert set(PAPER) <= set(study.STUDY.digest(full)["Method"])
    sft = study.STUDY.digest(full).set_index("Method").loc[["sft"]].iloc[:, :6]
    assert bool(np.isfinite(sft.to_numpy(dtype=float)).all())
