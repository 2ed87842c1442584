"""The study of right and wrong priors: its worlds are what they claim, its rows come out again, its words follow."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch

import qunify as qu
from analyses.kit import runner
from analyses.studies import prior_conflict as study
from analyses.studies.prior_conflict.data import LABELS, RATE, STRENGTH, VALID, VOCAB, World, best, world
from qunify.catalogue import PAPER

PREDICTED = ("predicted_kept", "predicted_learned")
KEYS = ["noise", "rightness", "seed", "method", "setting", "step"]


@pytest.fixture(scope="module")
def full() -> pd.DataFrame:
    return runner.read("prior_conflict", runner.FIGURES)


def trained(seeds: tuple[int, ...]) -> pd.DataFrame:
    """The shown condition without its predictions, which take longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "predicted", lambda m, w: dict.fromkeys(PREDICTED, float("nan")))
        return study.measured(*study.SHOWN, seeds, study.STEPS)


# ---- the worlds -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("noise", ["uniform", "annotator"])
@pytest.mark.parametrize("rightness", study.RIGHTNESS)
def test_right_and_wrong_contexts_are_told_apart(noise: study.Noise, rightness: float) -> None:
    w = world(noise, rightness, 3)
    assert int(w.right.sum()) == round(rightness * len(w.right))
    assert not (w.right & w.wrong).any()
    kept, learned = w.mass(w.prior)
    assert float(kept) == pytest.approx(STRENGTH + VALID * (1 - STRENGTH) / VOCAB)
    assert float(learned) == pytest.approx(VALID * (1 - STRENGTH) / VOCAB)


def test_every_label_counts_once() -> None:
    w = world("uniform", 0.5, 0)
    counts = torch.zeros_like(w.empirical)
    assert w.data.counts is not None
    counts.index_put_((w.data.inputs, w.data.labels), w.data.counts, accumulate=True)
    torch.testing.assert_close(counts / LABELS, w.empirical)
    assert float((w.data.context["token_weight"] * w.data.counts).sum() / w.data.counts.sum()) == pytest.approx(1)


def _guesses(w: World) -> torch.Tensor:
    """Ways to answer that see labels and prior alone, (n, S, V)."""
    hit = torch.nn.functional.one_hot
    mixed = [hit((w.empirical + c * w.prior).argmax(-1), VOCAB).double() for c in (0.01, 0.1, 0.3, 1.0, 3.0)]
    return torch.stack([*mixed, w.empirical, w.prior])


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["uniform", "annotator"])
def test_nothing_that_sees_the_same_beats_the_best(noise: study.Noise) -> None:
    worlds = [world(noise, 0.5, seed) for seed in range(30)]
    limit = torch.stack([torch.stack(w.mass(best(w, teacher=False))) for w in worlds]).mean(0)
    others = torch.stack([torch.stack(w.mass(_guesses(w))) for w in worlds]).mean(0)
    for i, odds in enumerate(study.ODDS):
        value = odds * limit[0, i] + (1 - odds) * limit[1, i]
        assert float((odds * others[0] + (1 - odds) * others[1] - value).max()) < 0.01


@pytest.mark.slow
# ---- the rows ---------------------------------------------------------------------------------------------------
def test_models_trained_again_are_the_committed_ones(full: pd.DataFrame) -> None:
    again = trained((0, 1))
    both = again.merge(full, on=KEYS, suffixes=("", "_full"), how="left", validate="one_to_one")
    for column in [c for c in study.NUMBERS if c not in PREDICTED]:
        pd.testing.assert_series_equal(
            both[column], both[f"{column}_full"], check_names=False, rtol=0, atol=1e-9, obj=column
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("sft", {}),
        ("beyond_log", {}),
        ("label_smoothing", {"smoothing": 0.3}),
        ("sft_kl", {}),
        ("gem", {}),
        ("kd_hybrid", {}),
        ("asft", {"kl_weight": 0.3}),
        ("dft", {}),
    ],
)
def test_predictions_made_again_are_the_committed_ones(full: pd.DataFrame, name: str, params: dict[str, float]) -> None:
    m = qu.get(name, **params)
    noise, rightness = study.SHOWN
    chosen = (full["noise"] == noise) & (full["rightness"] == rightness) & (full["seed"] == 0)
    row = full[chosen & (full["method"] == name) & (full["setting"] == study.setting(m))].iloc[0]
    for column, value in study.predicted(m, world(noise, rightness, 0)).items():
        assert round(value, 5) == pytest.approx(row[column], abs=1e-9, nan_ok=True)


@pytest.mark.slow
def test_two_runs_are_equal() -> None:
    pd.testing.assert_frame_equal(trained((0,)), trained((0,)), rtol=0, atol=0)


def test_every_setting_has_ten_seeds(full: pd.DataFrame) -> None:
    trained = full[full["method"].isin(PAPER)]
    assert set(trained["method"]) == set(PAPER) - {"cft"}
    assert (trained.groupby(["noise", "rightness", "method", "setting", "step"])["seed"].nunique() == 10).all()
    assert trained.loc[trained["default"].astype(bool), "method"].nunique() == 14


def test_long_training_ends_where_theory_says(full: pd.DataFrame) -> None:
    late = full[(full["step"] == study.LONG) & full["method"].isin(("label_smoothing", "sft_kl", "kd", "kd_hybrid"))]
    for what in ("kept", "learned"):
        assert (late[what] - late[f"predicted_{what}"]).abs().max() < 0.02
    early = full[(full["step"] == study.STEPS) & (full["method"] == "sft_kl")]
    assert (early["learned"] - early["predicted_learned"]).abs().max() > 0.02, "or the check would say nothing"


def test_label_smoothing_ends_on_the_line_to_the_uniform(full: pd.DataFrame) -> None:
    key = ["noise", "rightness", "seed"]
    labels = full[full["method"] == "labels"].set_index(key)["kept"]
    ends = full[full["setting"] == "smoothing 0.3"].drop_duplicates(key).set_index(key)["predicted_kept"]
    pd.testing.assert_series_equal(ends, 0.7 * labels + 0.3 * VALID / VOCAB, check_names=False, rtol=0, atol=1e-5)


def test_labels_hold_as_much_truth_as_the_noise_leaves(full: pd.DataFrame) -> None:
    labels = full[(full["method"] == "labels") & (full["noise"] == "uniform")]
    expected = 1 - RATE + RATE * VALID / VOCAB
    for what in ("kept", "learned"):
        assert labels[what].mean() == pytest.approx(expected, abs=0.03)


# ---- the claims -------------------------------------------------------------------------------------------------
def test_how_often_the_prior_is_right_moves_no_point(full: pd.DataFrame) -> None:
    """Contexts share nothing; what is left is sampling, less than two intervals wide, but for the weights of iw_sft."""
    shift = study.shift(full).drop(index="iw_sft", level="method")
    assert shift["kept"].max() < 0.04
    assert shift["learned"].max() < 0.06


def test_an_anchor_does_worse_than_stopping_early(full: pd.DataFrame) -> None:
    points = study.means(full, study.STEPS)
    for weight in ("kl_weight 0.3", "kl_weight 1", "kl_weight 2"):
        kept, learned = (study.cell(points, "sft_kl", weight, what) for what in ("kept", "learned"))
        assert study.stopped_early(full, kept) > learned + 0.05


def test_the_frontier_is_not_dominated(full: pd.DataFrame) -> None:
    points = study.untaught(study.means(full, study.STEPS))
    points = points[points["method"].isin(PAPER)]
    edge = study.frontier(points)
    assert set(edge["method"]) == {"beyond_log", "iw_sft"}
    for _, one in edge.iterrows():
        assert not ((points["kept"] > one["kept"]) & (points["learned"] > one["learned"])).any()


def test_words_and_digest_come_from_the_table(full: pd.DataFrame) -> None:
    said = study.STUDY.see(full)
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", said)) <= 4
    assert "nan" not in said
    assert 5 <= len(study.STUDY.digest(full)) <= 40
    study.STUDY.draw(full)
    points = study.means(full, study.STEPS)
    assert f"{100 * study.cell(points, 'beyond_log', 'alpha 0.5', 'learned'):.1f} %" in study.STUDY.see(full)


def test_the_settings_include_every_default() -> None:
    maps = study.methods()
    assert len({(m.name, study.setting(m)) for m in maps}) == len(maps)
    assert {m.name for m in maps if m == qu.get(m.name)} == set(PAPER) - {"cft"}
