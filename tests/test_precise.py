"""Fifty digits against float64, for every entry: two implementations of the same language."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings, strategies

import qunify as qu
from qunify.maps import QMap, exact_gradient, exact_loss
from qunify.token import DIGITS, TensorToken
from tests.battery import batch, every_setting, one_each

#: Every scale, a runner-up label, the uniform row, a one-hot row on the label and one off it.
ROWS = (3, 41, 65, 100, 125, 160, 181, 184, 187)


@pytest.mark.parametrize("m", one_each(every_setting()))
def test_float64_has_the_digits_it_claims(m: QMap) -> None:
    b = batch(5)
    # Probabilities are what both start from, so that softmax's own rounding is no part of the comparison.
    for row in ROWS:
        q = m(b.logits[row], b.labels[row], **{name: v[row] for name, v in b.context.items()})
        with mp.workdps(DIGITS):
            probs = softmax(b.logits[row])
            context = {
                name: softmax(v[row]) if name.endswith("_logits") else v[row].tolist() for name, v in b.context.items()
            }
            if not m.shift_invariant or (m.name in ("threshold", "logit_std_kd") and row == 181):
                # Logits are not given by probabilities; the uniform row lies on the threshold, and its standard
                # deviation is that of rounding.
                continue
            loss = exact_loss(m, probs, int(b.labels[row]), context)
            gradient = exact_gradient(m, probs, int(b.labels[row]), context)
        scale = max(1.0, max(abs(float(g)) for g in gradient))
        unbounded = m.name in ("unlikelihood", "elr") and row in (184, 187)  # weights up to 1e13 nearly cancel
        tolerance = 1e-2 if unbounded else 2e-12
        assert abs(float(loss) - float(q.loss)) <= tolerance * max(1.0, abs(float(loss)))
        for mine, theirs in zip(q.gradient.tolist(), gradient, strict=True):
            assert abs(mine - float(theirs)) <= tolerance * scale


def softmax(logits: torch.Tensor) -> list[Any]:
    weights = [mp.exp(mp.mpf(float(z))) for z in logits]
    total = mp.fsum(weights)
    return [w / total for w in weights]


def test_fractions_are_exact() -> None:
    half = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
    g = exact_gradient(qu.get("dft"), half, 1, {})
    with mp.workdps(DIGITS):
        assert abs(g[1] - mp.mpf(1) / 3 * (mp.mpf(1) / 3 - 1)) < mp.mpf(10) ** -48


@settings(max_examples=40, deadline=None)
@given(clip=strategies.integers(1, 19), old=strategies.integers(1, 40))
def test_a_ratio_that_lies_at_its_bound_is_judged_there(clip: int, old: int) -> None:
    """r = u/old_y = 1 + ε, so that psft's r·1[r < 1 + ε] is 0: r is computed as the exponential of a difference of
    logarithms, whose last digit may be too small."""
    eps, old_y = Fraction(clip, 20), Fraction(old, 100)
    u = (1 + eps) * old_y
    probs, context = (u, 1 - u), {"old_logits": (old_y, 1 - old_y)}
    assert exact_gradient(qu.get("psft", clip=clip / 20), probs, 0, context) == (0, 0)
    below = exact_gradient(qu.get("psft", clip=clip / 20 + 1e-12), probs, 0, context)
    assert float(below[1]) == pytest.approx(float((1 + eps) * (1 - u)), rel=1e-9)


@pytest.mark.parametrize("t", [1.0001, 1.01, 1.5, 4.0])
def test_the_tempered_softmax_has_its_digits_also_near_the_softmax(t: float) -> None:
    """q = exp_t(z − λ) exactly where log_t q_k − log_t q_j = z_k − z_j, with log_t x = (x^(1−t) − 1)/(1 − t)."""
    token = TensorToken(batch(5).logits[:60], batch(5).labels[:60], {})
    probs = token.tempered_softmax(t).probs
    assert (probs.sum(-1) - 1).abs().max() < 1e-14
    with mp.workdps(DIGITS):
        for z, q in zip(token.logits.tolist(), probs.tolist(), strict=True):
            log_t = [(mp.mpf(x) ** (1 - mp.mpf(t)) - 1) / (1 - mp.mpf(t)) for x in q]
            for k in range(1, 5):
                assert abs(log_t[k] - log_t[0] - (mp.mpf(z[k]) - mp.mpf(z[0]))) < 1e-14 * (1 + abs(log_t[k]) * t)


def test_sums_of_exact_numbers_keep_their_digits() -> None:
    rest = exact_gradient(qu.get("sft"), (Fraction(1, 3), Fraction(2, 3)), 0, {})[1]
    total = sum([rest, rest / 3, 1 + rest])
    with mp.workdps(DIGITS):
        assert abs(total - mp.mpf(23) / 9) < mp.mpf(10) ** -48


def test_missing_context_is_named() -> None:
    with pytest.raises(ValueError, match="missing context, expected teacher_logits"):
        exact_loss(qu.get("kd"), [0.5, 0.5], 0, {})
