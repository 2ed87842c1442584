"""Fifty digits against float64, for every entry: two implementations of the same language."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import pytest
import torch

import qunify as qu
from qunify.maps import QMap, exact_gradient, exact_loss
from qunify.token import DIGITS
from tests.battery import batch, every_setting

#: Every scale, a runner-up label, the uniform row, a one-hot row on the label and one off it.
ROWS = (3, 41, 65, 100, 125, 160, 181, 184, 187)


@pytest.mark.parametrize("m", every_setting())
def test_float64_has_the_digits_it_claims(m: QMap) -> None:
    b = batch(5)
    # Probabilities are what both start from, so that softmax's own rounding is no part of the comparison.
    q = m(b.logits, b.labels, **b.context)
    for row in ROWS:
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
        assert abs(float(loss) - float(q.loss[row])) <= tolerance * max(1.0, abs(float(loss)))
        for mine, theirs in zip(q.gradient[row].tolist(), gradient, strict=True):
            assert abs(mine - float(theirs)) <= tolerance * scale


def softmax(logits: torch.Tensor) -> list[Any]:
    weights = [mp.exp(mp.mpf(float(z))) for z in logits]
    total = mp.fsum(weights)
    return [w / total for w in weights]


def test_fractions_are_exact() -> None:
    from fractions import Fraction

    half = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
    g = exact_gradient(qu.get("dft"), half, 1, {})
    with mp.workdps(DIGITS):
        assert abs(g[1] - mp.mpf(1) / 3 * (mp.mpf(1) / 3 - 1)) < mp.mpf(10) ** -48


def test_missing_context_is_named() -> None:
    with pytest.raises(ValueError, match="missing context, expected teacher_logits"):
        exact_loss(qu.get("kd"), [0.5, 0.5], 0, {})
