"""Calibration metrics against plain definitions, and both kinds of metric against each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
def test_metrics_are_what_their_definitions_say(vocab: int) -> None:
    p = predictions(3000, vocab, 0)
    y = drawn(p.square() / p.square().sum(-1, keepdim=True), 1)
    found = against_labels(p, y, bins=10)
    hit = torch.nn.functional.one_hot(y, vocab).double()
    u = p.gather(1, y[:, None])[:, 0]
    confidence, choice = p.max(-1)
    assert found["log_loss"] == pytest.approx(float(-u.log().mean()))
    assert found["brier"] == pytest.approx(float((p - hit).square().sum(-1).mean()))
    assert found["ece"] == pytest.approx(binned(confidence, (choice == y).double(), 10))
    each = [binned(p[:, k], hit[:, k], 10) for k in range(vocab)]
    assert found["classwise_ece"] == pytest.approx(sum(each) / vocab)
    parts = found["brier_miscalibration"] - found["brier_discrimination"] + found["brier_uncertainty"]
    assert found["brier"] == pytest.approx(parts)


def test_a_confidence_of_one_lies_in_the_last_bin() -> None:
    """Of 1.0 and 0.96, 97 % and 99 % right, the last of 15 bins makes a mean confidence that is its accuracy."""
    p = torch.tensor([[1.0, 0.0]] * 500 + [[0.96, 0.04]] * 500)
    y = torch.tensor([0] * 485 + [1] * 15 + [0] * 495 + [1] * 5)
    assert against_labels(p, y)["ece"] == pytest.approx(0.0, abs=1e-8)
    two = against_labels([[0.95, 0.05], [1.0, 0.0]], [0, 1])
    assert two["ece"] == pytest.approx(abs(0.975 - 0.5))
    assert two["classwise_ece"] == pytest.approx((0.475 + abs(0.025 - 0.5)) / 2)  # both of token 1 in one bin


def test_miscalibration_is_the_mean_product_of_two_residuals_of_a_bin() -> None:
    p = predictions(7, 3, 6)[torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 0])]  # three predictions tie
    y = drawn(p, 7)
    residual = p - torch.nn.functional.one_hot(y, 3)
    expected = 0.0
    for k in range(3):
        which = [int((p[:, k] < x).sum()) * 2 // 9 for x in p[:, k]]
        for b in range(2):
            mine = [float(r) for r, w in zip(residual[:, k], which, strict=True) if w == b]
            pairs = [x * z for x, z in itertools.permutations(mine, 2)]
            expected += len(mine) / 9 * sum(pairs) / max(len(pairs), 1)
    assert against_labels(p, y, bins=2)["brier_miscalibration"] == pytest.approx(expected)


@pytest.mark.parametrize(("n", "vocab"), [(200, 50), (2000, 50), (500, 1000)])
def test_calibrated_predictions_have_no_miscalibration_however_few_there_are(n: int, vocab: int) -> None:
    g = torch.Generator().manual_seed(0)
    p = (2 * torch.randn(n, vocab, generator=g)).softmax(-1)
    y = torch.multinomial(p, 1, generator=g)[:, 0]
    assert against_labels(p, y)["brier_miscalibration"] == pytest.approx(0, abs=0.01)


def test_a_large_vocabulary_is_measured_in_a_few_passes() -> None:
    """No work in Python per token: as many operations at V = 2,000 as at V = 20."""
    made = []
    for vocab in (20, 2000):
        p = predictions(50, vocab, 1)
        with _Counted() as counted:
            against_labels(p, drawn(p, 1))
        made.append(counted.calls)
    assert made[0] == made[1] > 0


class _Counted(TorchDispatchMode):
    """Counts what torch is asked to compute."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_probabilities_near_zero_and_lists_keep_the_digits_of_float64() -> None:
    found = against_labels([[1, 0], [0.5, 0.5]], [1, 0])
    assert found["log_loss"] == pytest.approx((-math.log(2.220446049250313e-16) + math.log(2)) / 2)
    p = [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]
    assert against_labels(p, [0, 1])["brier"] == pytest.approx((0.81 + 0.04 + 0.49 + 0.09 + 0.49 + 0.16) / 2, rel=1e-14)
    assert float(against_truth([0.1, 0.9], [0.7, 0.3])["total_variation"]) == pytest.approx(0.6, rel=1e-14)


def test_calibrated_predictions_are_found_calibrated_and_sharpened_ones_not() -> None:
    p = predictions(20_000, 4, 2)
    y = drawn(p, 3)
    sharp = p.pow(3) / p.pow(3).sum(-1, keepdim=True)
    right, wrong = against_labels(p, y), against_labels(sharp, y)
    for metric in ("smooth_ece", "ece", "classwise_ece", "brier_miscalibration"):
        assert right[metric] < 0.015
        assert wrong[metric] > 4 * right[metric]
    distance = float((sharp - p).square().sum(-1).mean())  # what recalibration of single tokens can gain is less
    assert 0.8 * distance < wrong["brier_miscalibration"] < distance
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
        (lambda: against_labels([[1.0], [1.0]], [0, 0]), r"against_labels: expected probs \(N, V\) with V ≥ 2"),
        (
            lambda: against_labels([[0.5, 0.5]], [True]),
            r"against_labels: labels: expected integers in \[0, 2\), .*torch.bool",
        ),
        (lambda: against_labels([[0.5, 0.5]], [1], bins=0), "against_labels: bins: expected an integer of at least 1"),
        (lambda: against_labels([[0.5, float("nan")]], [1]), "against_labels: probs: expected rows of probabilities"),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
