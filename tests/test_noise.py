"""The study of label noise: rows that can be made again, words that follow from them, theory where it should hold."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch

import qunify as qu
from analyses.kit import runner
from analyses.studies import noise
from analyses.studies.noise import runs
from qunify.training import Data, Job, Stack, Tabular

FEW = runs.Plan((0,), {kind: (rate,) for kind, rate in noise.WATCHED.items()}, (*runs.PATH, "target_sft"), ("dft",))


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return runner.read("noise", runner.FIGURES)


@pytest.fixture(scope="module")
def quick() -> pd.DataFrame:
    return runs.run(FEW)


@pytest.mark.slow
def test_rows_made_again_are_those_of_the_full_run(quick: pd.DataFrame, committed: pd.DataFrame) -> None:
    keys = list(runs.KEYS)
    both = quick.merge(committed, on=keys, how="left", suffixes=("", "_full"), validate="one_to_one")
    assert len(both) == len(quick) == 3 * (2 * 5 + 1) + 1 + 3 * (4 + 1)
    for metric in runs.METRICS:
        pd.testing.assert_series_equal(both[metric], both[f"{metric}_full"], check_names=False, rtol=0, atol=1e-9)


def test_words_and_digest_come_from_the_table(committed: pd.DataFrame) -> None:
    for table in (committed[committed["seed"] < 2], committed):
        see = noise.see(table)
        assert 1 <= len(re.findall(r"[.!?](?:\s|$)", see)) <= 4
        assert "nan" not in see
        assert 5 <= len(noise.digest(table)) <= 40


def test_the_committed_rows_are_complete(committed: pd.DataFrame) -> None:
    assert set(committed["mode"]) == {"full"}
    assert committed["seed"].nunique() == 10
    trained = committed[committed["step"] > 0]
    cells = trained.groupby(["kind", "rate", "setting", "start", "step"])["seed"].nunique()
    assert (cells == 10).all()
    assert len(cells) == 10 * (2 * 13 + 4)
    assert not committed.drop(columns="memorised").isna().any(axis=None)


def mean(table: pd.DataFrame, kind: str, rate: float, setting: str, start: str, metric: str) -> float:
    rows = table[(table["setting"] == setting) & (table["start"] == start) & (table["kind"] == kind)]
    rows = rows[(rows["rate"] == rate) & (rows["step"] == rows["step"].max())]
    return float(rows[metric].mean())


def test_what_is_seen_is_read_from_the_rows(committed: pd.DataFrame) -> None:
    for rows in (committed, committed.assign(accuracy=1 - committed["accuracy"])):
        sft, dft = (mean(rows, "uniform", 0.6, name, runs.REFERENCE, "accuracy") for name in ("sft", "dft"))
        see = noise.see(rows)
        assert f"and has {100 * sft:.0f} % (after" in see
        assert f"and {100 * dft:.0f} %; but" in see


def test_learning_by_heart_leaves_some_of_the_doubt_that_theory_predicts(committed: pd.DataFrame) -> None:
    fine, theory = (
        mean(committed, "uniform", 0.6, "sft", start, "overconfidence") for start in (runs.REFERENCE, runs.THEORY)
    )
    assert theory < fine
    target_sft, gce = (
        mean(committed, "class", 0.4, name, runs.REFERENCE, "accuracy") for name in ("target_sft", "gce")
    )
    assert target_sft > gce


def test_theory_has_one_breaking_point_for_all_that_see_the_label_alone(committed: pd.DataFrame) -> None:
    theory = committed[(committed["start"] == runs.THEORY) & committed["setting"].isin(runs.ALONE)]
    assert (theory[theory["kind"] == "uniform"]["accuracy"] == 1).all()
    by_rate = theory[theory["kind"] == "class"].groupby("rate")["accuracy"].agg(["min", "max"])
    assert (by_rate["min"] == by_rate["max"]).all()
    assert by_rate["min"].loc[0.4] > 0.9
    assert by_rate["max"].loc[0.6] < 0.1


def test_the_right_channel_undoes_its_noise_in_theory_and_not_in_240_labels(committed: pd.DataFrame) -> None:
    assert mean(committed, "uniform", 0.6, runs.INFORMED, runs.THEORY, "kl") == pytest.approx(0, abs=1e-3)
    assert mean(committed, "uniform", 0.6, runs.INFORMED, runs.REFERENCE, "kl") > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "gce", "label_smoothing"])
def test_a_table_that_sees_all_labels_ends_where_theory_says(name: str) -> None:
    _, points = runs.tested()
    states = 20
    noisy = runs.labelled(points, "class", 0.4).observed[:states]
    v = noisy.shape[1]
    data = Data(torch.arange(states).repeat_interleave(v), torch.arange(v).repeat(states), counts=noisy.flatten())
    done = Stack(Tabular(states, v), [Job(qu.get(name), data, lr=0.5 * states)]).run(3000).probs(torch.arange(states))
    end = qu.optimum(qu.get(name), noisy).probs
    torch.testing.assert_close(done[0], end, rtol=0, atol=0.01)


def test_what_is_wrong_stays_wrong_at_a_higher_rate() -> None:
    start = runs.references((0,))[0]
    for kind in runs.RATES:
        low, high = (runs.training(kind, rate, 0, start) for rate in (0.2, 0.6))
        assert torch.equal(low[0].inputs, high[0].inputs)
        assert (high[1] | ~low[1]).all()
        assert high[1].sum() > 2 * low[1].sum() > 0


def test_break_even() -> None:
    gain = pd.Series([0.2, 0.1, -0.1, 0.3], index=[0.0, 0.2, 0.4, 0.6])
    assert noise.break_even(gain) == pytest.approx(0.3)
    assert noise.break_even(gain.abs()) == float("inf")
    assert noise.break_even(-gain) == 0


def test_smooth_ece_of_chances_is_that_of_many_draws() -> None:
    g = torch.Generator().manual_seed(0)
    chance = torch.rand(50, generator=g, dtype=torch.float64)
    confidence = (chance + 0.2).clamp(max=1)
    drawn = (torch.rand(400, 50, generator=g, dtype=torch.float64) < chance).double()
    many = runs.smooth_ece(confidence.repeat(400)[None], drawn.flatten()[None])
    torch.testing.assert_close(runs.smooth_ece(confidence[None], chance[None]), many, rtol=0, atol=0.01)
