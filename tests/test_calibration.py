"""Calibration metrics: the libraries against plain definitions, and both kinds of metric against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch import Tensor

from qunify.calibration import against_labels, against_truth


def predictions(n: int, vocab: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(1.5 * torch.randn(n, vocab, generator=g, dtype=torch.float64), -1)


def drawn(p: Tensor, seed: int) -> Tensor:
    return torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def binned(confidence: Tensor, hit: Tensor, bins: int) -> float:
    """The expected calibration error by its definition."""
    total = 0.0
    which = (confidence * bins).long().clamp(max=bins - 1)
    for b in range(bins):
        if bool((which == b).any()):
            mine = which == b
            total += float(mine.double().mean() * (confidence[mine].mean() - hit[mine].mean()).abs())
    return total


@pytest.mark.parametrize("vocab", [2, 5])
def test_the_libraries_compute_the_definitions(vocab: int) -> None:
    p = predictions(3000, vocab, 0)
    y = drawn(p.square() / p.square().sum(-1, keepdim=True), 1)
    found = against_labels(p, y, bins=10)
    hit = torch.nn.functional.one_hot(y, vocab).double()
    u = p.gather(1, y[:, None])[:, 0]
    confidence, choice = p.max(-1)
    assert found["log_loss"] == pytest.approx(float(-u.log().mean()))
    assert found["brier"] == pytest.approx(float((p - hit).square().sum(-1).mean()))
    assert found["ece"] == pytest.approx(binned(confidence, (choice == y).double(), 10), abs=1e-6)
    each = [binned(p[:, k], hit[:, k], 10) for k in range(vocab)]
    assert found["classwise_ece"] == pytest.approx(sum(each) / vocab, abs=1e-6)
    parts = found["brier_miscalibration"] - found["brier_discrimination"] + found["brier_uncertainty"]
    assert found["brier"] == pytest.approx(parts)


def test_recalibration_bears_ties_and_near_ties() -> None:
    p = torch.tensor([[0.3, 0.7], [0.3 + 1e-16, 0.7], [0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    found = against_labels(p, torch.tensor([0, 1, 0, 1]))
    # Recalibrated, the three ties say 1/3 and the other 1, in both columns.
    assert found["brier"] - found["brier_miscalibration"] == pytest.approx(2 * (2 / 9 * 3) / 4)


def test_calibrated_predictions_are_found_calibrated_and_sharpened_ones_not() -> None:
    p = predictions(20_000, 4, 2)
    y = drawn(p, 3)
    sharp = p.pow(3) / p.pow(3).sum(-1, keepdim=True)
    right, wrong = against_labels(p, y), against_labels(sharp, y)
    for metric in ("smooth_ece", "ece", "classwise_ece", "brier_miscalibration"):
        assert right[metric] < 0.015
        assert wrong[metric] > 4 * right[metric]
    assert abs(wrong["smooth_ece"] - wrong["ece"]) < 0.02
    # What the sharpened predictions claim too much is known exactly here.
    claimed = float((sharp.amax(-1) - p.gather(1, sharp.argmax(-1, keepdim=True))[:, 0]).mean())
    assert wrong["ece"] == pytest.approx(claimed, abs=0.01)


def test_scores_on_labels_tend_to_those_against_the_truth() -> None:
    truth, p = predictions(1, 5, 4), predictions(1, 5, 5)
    n = 100_000
    y = torch.arange(5).repeat_interleave((truth[0] * n).round().long())
    found = against_labels(p.expand(len(y), -1), y)
    exact = against_truth(p, truth)
    entropy = float(torch.special.entr(truth).sum())
    assert found["log_loss"] - entropy == pytest.approx(float(exact["kl"]), abs=1e-4)
    # Brier's regret is the squared distance.
    gini = float(1 - truth.square().sum())
    assert found["brier"] - gini == pytest.approx(float((p - truth).square().sum()), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), vocab=st.integers(2, 9))
def test_laws_of_the_exact_metrics(seed: int, vocab: int) -> None:
    p, q = predictions(8, vocab, seed), predictions(8, vocab, seed + 1)
    m = against_truth(p, q)
    torch.testing.assert_close(m["kl"], torch.from_numpy(rel_entr(q.numpy(), p.numpy()).sum(-1)))
    assert (m["total_variation"] <= (m["kl"] / 2).sqrt() + 1e-12).all(), "Pinsker"
    assert (m["regret"] >= 0).all()
    assert (m["regret"] <= 2 * m["total_variation"] + 1e-12).all()
    torch.testing.assert_close(m["valid_mass"], torch.ones(8, dtype=torch.float64))
    same = against_truth(q, q)
    assert all(float(same[k].abs().max()) < 1e-12 for k in ("kl", "entropy_gap", "total_variation", "regret"))


def test_zeros_valid_tokens_and_ties() -> None:
    truth = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    m = against_truth([0.4, 0.4, 0.2], truth)
    assert float(m["valid_mass"]) == pytest.approx(0.8)
    assert float(m["regret"]) == pytest.approx(0.7 - 0.5)
    assert float(m["kl"]) == pytest.approx(0.7 * torch.tensor(0.7 / 0.4).log() + 0.3 * torch.tensor(0.3 / 0.4).log())
    assert float(against_truth([0.0, 0.5, 0.5], truth)["kl"]) == float("inf")
    assert float(against_truth([0.4, 0.4, 0.2], truth, valid=[True, False, False])["valid_mass"]) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: against_truth([0.5, 0.6], [0.5, 0.5]),
            "against_truth: probs: expected rows of probabilities that sum",
        ),
        (lambda: against_truth([0.5, 0.5], [1.5, -0.5]), "against_truth: truth: expected rows of probabilities"),
        (lambda: against_truth([0.5, 0.5], [0.2, 0.3, 0.5]), "against_truth: expected shapes that broadcast"),
        (lambda: against_truth([1.0], [0.5, 0.5]), "against_truth: expected shapes that broadcast over one vocabulary"),
        (lambda: against_truth([0.5, 0.5], [0.5, 0.5], valid=[0, 1]), "against_truth: valid: expected booleans"),
        (lambda: against_labels([[0.5, 0.5]], [0, 1]), "against_labels: expected probs"),
        (lambda: against_labels([[0.5, 0.5]], [2]), "against_labels: labels: expected integers in"),
        (lambda: against_labels([[0.5, float("nan")]], [1]), "against_labels: probs: expected rows of probabilities"),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
