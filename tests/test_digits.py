"""The study on handwritten digits: the noise is what it claims to be, the training is what the text says."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import qunify as qu
from analyses.kit import runner
from analyses.studies import digits
from analyses.studies.digits.data import CLASSES, CONDITIONS, LOOKALIKE, NOISE, corrupted, stack
from analyses.studies.digits.runs import (
    BATCH,
    CHECKPOINTS,
    OLD_EVERY,
    TEACHER_WIDTH,
    WATCHED,
    WIDTH,
    Plan,
    _calibration_error,
    context_for,
    fine_tuned,
    fresh,
    network,
    order,
    pretrained,
    run,
    tuned,
)
from qunify import plots
from qunify.training import Stack

pytestmark = pytest.mark.slow

TINY = Plan(seeds=(0, 1), steps=50, rates=(1e-3, 1e-2), methods=("sft", "eaft", "psft", "kd", "target_sft"))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return run(TINY)


# ---- data -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("condition", digits.NOISY)
@pytest.mark.parametrize("seed", [0, 7])
def test_exactly_a_fifth_of_the_labels_is_wrong(condition: str, seed: int) -> None:
    truth = np.random.default_rng(99).integers(CLASSES, size=915)
    labels = corrupted(truth, condition, np.random.default_rng(seed))
    assert (labels != truth).sum() == round(NOISE * 915) == 183
    assert set(labels) <= set(range(CLASSES))


def test_redrawn_labels_are_uniform_over_the_other_nine() -> None:
    truth = np.zeros(45_000, dtype=np.int64)
    labels = corrupted(truth, "redrawn", np.random.default_rng(0))
    counts = np.bincount(labels[labels != truth], minlength=CLASSES)[1:]
    assert counts.sum() == 9000
    assert stats.chisquare(counts).pvalue > 0.001


def test_confused_labels_are_the_confusions_people_make() -> None:
    truth = np.random.default_rng(1).integers(CLASSES, size=2000)
    labels = corrupted(truth, "confused", np.random.default_rng(0))
    wrong = labels != truth
    pairs = set(zip(truth[wrong].tolist(), labels[wrong].tolist(), strict=True))
    assert pairs == {(3, 8), (8, 3), (4, 9), (9, 4), (1, 7), (7, 1)}
    assert (LOOKALIKE[LOOKALIKE] == np.arange(CLASSES)).all()


def test_clean_labels_are_left_alone_and_other_conditions_refused() -> None:
    truth = np.arange(CLASSES)
    assert (corrupted(truth, "clean", np.random.default_rng(0)) == truth).all()
    with pytest.raises(ValueError, match=r"condition: expected one of clean, redrawn, confused, got 'noisy'"):
        corrupted(truth, "noisy", np.random.default_rng(0))


def test_conditions_share_their_images_and_only_the_noisy_sets_are_noisy() -> None:
    split = stack([(condition, 3) for condition in CONDITIONS])
    for images in (split.trusted, split.train, split.validation, split.test):
        assert torch.equal(images.pixels[0], images.pixels[1])
        assert torch.equal(images.truth[0], images.truth[2])
        assert (images.pixels.min(), images.pixels.max()) == (0, 1)
    assert not split.trusted.wrong.any()
    assert not split.test.wrong.any()
    assert split.train.wrong.sum(1).tolist() == [0, 183, 183]
    assert split.validation.wrong.sum(1).tolist() == [0, 40, 40]
    sizes = [images.labels.shape[1] for images in (split.trusted, split.train, split.validation, split.test)]
    assert sizes == [180, 917, 200, 500]
    assert sum(sizes) == 1797


# ---- training ---------------------------------------------------------------------------------------------
def test_batches_depend_on_the_seed_alone() -> None:
    assert order(4, 100, 3).shape == (3, BATCH)
    assert torch.equal(order(4, 100, 3), order(4, 100, 3))
    assert not torch.equal(order(4, 100, 3), order(5, 100, 3))


def test_contexts_have_the_scales_they_claim() -> None:
    data = stack([("confused", 0), ("redrawn", 0)]).train
    said = [
        network(width).logits(start, network(width).represent(start, data.pixels))
        for width in (16, 32)
        for start in [{name: value.expand(2, *value.shape) for name, value in fresh(0, width).items()}]
    ]
    context = context_for(data.labels, *said)
    assert torch.equal(context["reference_logits"], said[0])
    assert torch.equal(context["teacher_logits"], said[1])
    torch.testing.assert_close(context["token_weight"].mean(1), torch.ones(2, dtype=torch.float64))
    assert (context["token_mask"].mean(1) - 0.5).abs().max() < 1e-3
    for i in range(2):
        u = said[0][i].softmax(-1).gather(-1, data.labels[i, :, None])[:, 0]
        ratio = u / (torch.bincount(data.labels[i]) / 917.0).double()[data.labels[i]]
        torch.testing.assert_close(context["token_weight"][i], ratio / ratio.mean(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("plan", [digits.QUICK, digits.FULL, TINY])
def test_psft_is_measured_a_whole_refresh_after_its_snapshot(plan: Plan) -> None:
    assert plan.steps % (CHECKPOINTS * OLD_EVERY) == 0


def test_calibration_error_tells_honest_from_overconfident() -> None:
    rng = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(1, 4000, generator=rng, dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], -1).log()
    honest = (torch.rand(1, 4000, generator=rng, dtype=torch.float64) < confidence).double()
    assert 0 <= _calibration_error(logits, honest).item() < 0.03
    half = (torch.rand(1, 4000, generator=rng) < 0.5).double()  # right half of the time, at a confidence of 3/4
    assert _calibration_error(logits, half).item() == pytest.approx(0.25, abs=0.03)


# ---- table ------------------------------------------------------------------------------------------------
def test_rows_are_the_same_twice(table: pd.DataFrame) -> None:
    """Of one method, with all that is trained before it."""
    again = run(dataclasses.replace(TINY, methods=("psft",)))
    first = table[table["method"].isin(set(again["method"]))].reset_index(drop=True)
    assert len(first) == len(again) > 0
    pd.testing.assert_frame_equal(first, again, check_exact=True)


@pytest.fixture(scope="module")
def models() -> tuple[Stack, ...]:
    """The reference and the teacher of the full run's seed 3."""
    return tuple(pretrained([3], stack([("clean", 3)]), width) for width in (WIDTH, TEACHER_WIDTH))


@pytest.mark.parametrize("method", ["psft", "iw_sft", "cft"])
def test_the_first_steps_give_the_committed_rows(method: str, models: tuple[Stack, ...]) -> None:
    """An older policy that is renewed on the way; weights and masks that come from the reference. PSFT's clipping is a
    kink, at which the last digits of one processor grow in the end: its first checkpoints are the same everywhere."""
    plan = dataclasses.replace(digits.FULL, seeds=(3,))
    early = plan.steps // CHECKPOINTS
    table = runner.read("digits", runner.FIGURES)
    rows = table["metric"].isin(WATCHED) & (table["method"] == method) & (table["seed"] == 3) & (table["step"] <= early)
    committed = table[rows & (table["condition"] != "clean")]
    found: list[dict[str, object]] = []
    for lr in committed["lr"].unique():  # the tuned ones, at which trust is watched
        watched = fine_tuned(method, list(digits.NOISY), lr, plan, *models)
        found += [{"method": method, "lr": lr} | r for r in itertools.takewhile(lambda r: r["step"] <= early, watched)]
    keys = ["condition", "method", "seed", "lr", "step", "metric"]
    both = committed.merge(pd.DataFrame(found), on=keys, suffixes=("_full", ""), validate="one_to_one")
    assert len(both) == len(committed) == 2 * 2 * len(WATCHED)  # in two conditions, at two steps
    assert both["value"].to_numpy() == pytest.approx(both["value_full"].to_numpy(), rel=1e-9, abs=1e-9)


def test_rows_are_complete(table: pd.DataFrame) -> None:
    assert list(table) == ["condition", "method", "seed", "lr", "step", "metric", "value"]
    assert table["value"].notna().all()
    methods, seeds, rates = len(TINY.methods), len(TINY.seeds), len(TINY.rates)
    at_the_end = 4 * (methods * 2 + 1) * seeds * rates  # two noisy conditions; SFT also on right labels
    watched = (CHECKPOINTS + 1) * (methods * 2 * len(WATCHED) + 1) * seeds
    references, noise = 2 * 4 * seeds, 3 * seeds
    assert len(table) == at_the_end + watched + references + noise
    assert not table.duplicated(["condition", "method", "seed", "lr", "step", "metric"]).any()


def test_reported_noise_is_a_fifth(table: pd.DataFrame) -> None:
    noise = table[table["metric"] == "share of labels wrong"].groupby("condition")["value"].agg(["min", "max"])
    assert list(noise.loc["clean"]) == [0, 0]
    assert list(noise.loc["redrawn"]) == list(noise.loc["confused"]) == [183 / 917, 183 / 917]


@pytest.mark.parametrize(("method", "trust"), [("sft", 1), ("kd", 0)])
def test_trust_that_does_not_depend_on_the_model(table: pd.DataFrame, method: str, trust: float) -> None:
    rows = table[(table["method"] == method) & table["metric"].str.startswith("trust")]
    assert len(rows) > 0
    assert rows["value"].to_numpy() == pytest.approx(trust, abs=1e-12)


def test_target_sft_tells_right_labels_from_wrong_ones_by_the_model_it_starts_from(table: pd.DataFrame) -> None:
    start = table[(table["method"] == "target_sft") & (table["step"] == 0)].groupby("metric")["value"]
    assert start.min()["trust in right labels"] > 0.7
    assert start.max()["trust in wrong labels"] < 0.1


def test_the_reference_is_trained_and_the_test_set_is_clean(table: pd.DataFrame) -> None:
    end = table[table["metric"] == "accuracy"].groupby("method")["value"].min()
    assert end["reference"] > 0.85
    assert end["teacher"] > 0.85


def test_tuned_takes_the_best_agreement_and_the_smaller_of_equals() -> None:
    agreements = {("sft", 0): {0.1: 0.5, 0.2: 0.9, 0.3: 0.7}, ("sft", 1): {0.3: 0.8, 0.1: 0.6, 0.2: 0.8}}
    rows = [
        {"condition": "redrawn", "method": method, "seed": seed, "lr": lr, "metric": metric, "value": value}
        for (method, seed), by_rate in agreements.items()
        for lr, value in by_rate.items()
        for metric in ("agreement with noisy validation", "accuracy")
    ]
    frame = pd.DataFrame(rows)
    chosen = tuned(frame[frame["metric"] == "accuracy"], frame)
    assert chosen.set_index("seed")["lr"].to_dict() == {0: 0.2, 1: 0.2}


def test_summary_is_the_student_interval_over_seeds() -> None:
    values = [0.91, 0.94, 0.97, 0.90]
    rows = [
        {"condition": "clean", "method": "teacher", "seed": seed, "lr": np.nan, "step": 0, "metric": m, "value": v}
        for seed, v in enumerate(values)
        for m in ("accuracy", "agreement with noisy validation")
    ]
    found = digits.summary(pd.DataFrame(rows)).xs(("clean", "teacher", "accuracy"))
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["half"] == pytest.approx((interval.high - interval.low) / 2)


# ---- picture and words ------------------------------------------------------------------------------------
def test_the_figure_ranks_the_methods_it_was_given(table: pd.DataFrame) -> None:
    figure = digits.STUDY.draw(table)
    plots.render(figure, "png")
    mean = digits.summary(table)["mean"]
    accuracy = [ax for ax in figure.axes if "accuracy" in ax.get_xlabel()]
    for ax, condition in zip(accuracy, digits.NOISY, strict=True):
        shown = [label.get_text() for label in ax.get_yticklabels()]
        by_title = {qu.get(m).title: mean[condition, m, "accuracy"] for m in TINY.methods}
        assert sorted(shown) == sorted(by_title)
        assert [by_title[t] for t in shown] == sorted(by_title.values(), reverse=True)
        low, high = ax.get_ylim()
        assert low > high  # the best on top


def test_the_words_follow_the_table(table: pd.DataFrame) -> None:
    sft = (table["method"] == "sft") & (table["metric"] == "accuracy") & (table["condition"] == "redrawn")
    assert "SFT reaches 12.3 %" in digits.STUDY.see(table.assign(value=table["value"].where(~sft, 0.1234)))


def test_the_digest_has_one_row_per_condition_and_method(table: pd.DataFrame) -> None:
    digest = digits.STUDY.digest(table)
    assert len(digest) == 3 + 2 * len(TINY.methods)
    assert digest.groupby("condition", observed=True)["accuracy"].is_monotonic_decreasing.all()
    half = digits.summary(table)["half"]
    for metric in ("accuracy", "negative log-likelihood", "calibration error"):
        told = digest.set_index(["condition", "method"])[f"{metric} ±"]
        assert told["redrawn", "sft"] == half["redrawn", "sft", metric]


def test_the_start_is_told_apart_from_the_end(table: pd.DataFrame) -> None:
    start, end = (digits.summary(table, when)["mean"] for when in ("start", "end"))
    key = ("redrawn", "target_sft", digits.RIGHT)
    steps = table[(table["condition"] == key[0]) & (table["method"] == key[1]) & (table["metric"] == key[2])]
    assert start[key] == pytest.approx(steps.loc[steps["step"] == 0, "value"].mean())
    assert start[key] != end[key]
    assert start["redrawn", "sft", "accuracy"] == end["redrawn", "sft", "accuracy"]  # measured once
