"""The same method bodies on symbols: gate weights derived from the published loss, for every vocabulary size."""

from __future__ import annotations

import random

import mpmath as mp
import pytest
import sympy as sp

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.maps import Gate, QMap
from qunify.symbolic import as_text, gradient_of_pulls, with_fractions
from qunify.symbolic._gradients import gradient_of_loss
from qunify.token import SumOverOthers, SymbolicToken, V, evaluate, rational, sum_over_others
from tests.battery import every_setting, one_each

GATES = [c for c in every_setting() if isinstance(c.values[0], Gate)]
SMOOTH = (  # methods beyond the gates whose loss is differentiated symbolically here, one of each kind
    "label_smoothing", "bootstrap_soft", "confidence_penalty", "sft_kl", "asft", "target_sft", "kd", "kd_hybrid",
    "reverse_kl", "skew_kl", "abkd", "dkd", "taid", "brier", "spherical", "nce", "gem", "temperature_ce",
    "margin_softmax", "logit_adjustment", "sparsemax", "entmax15", "unlikelihood", "elr", "z_loss",
)  # fmt: skip


def is_zero(expr: sp.Expr) -> bool:
    """Zero by simplification, or, for piecewise expressions, to sixty digits at 40 points off the ties."""
    expr = evaluate(expr)
    if not expr.has(sp.Piecewise):
        return sp.simplify(expr) == 0
    r = random.Random(0)
    sums = {a: sp.Dummy() for a in sorted(expr.atoms(SumOverOthers), key=str)}
    flat = expr.xreplace(sums)
    others = sorted(flat.free_symbols - {V, *sums.values()}, key=str)
    value = sp.lambdify([*sums.values(), *others, V], flat, "mpmath")
    with mp.workdps(60):
        for _ in range(40):
            drawn = [mp.mpf(r.randint(-999, -1)) / 331 for _ in sums]
            drawn += [mp.mpf(r.randint(1, 996)) / 997 for _ in others]
            if abs(value(*drawn, r.randint(2, 40))) > mp.mpf(10) ** -30:
                return False
    return True


@pytest.mark.parametrize("m", one_each(GATES))
def test_gate_weight_is_derived_from_the_published_loss(m: Gate) -> None:
    """w = −u dL/du with detached factors held fixed, and the gradient is w (p − δ) at every k."""
    m, t = with_fractions(m), SymbolicToken()
    loss = sp.sympify(m.loss(t))
    derived = evaluate(-t.p_label * loss.diff(t.p_y)) if not loss.has(SumOverOthers) else None
    declared = rational(m.weight(t))
    if derived is not None:
        assert is_zero(derived - declared)
    g = gradient_of_loss(loss)
    assert is_zero(g.label - declared * (t.p_y - 1))
    assert is_zero(g.elsewhere - declared * t.p_k)


@pytest.mark.parametrize("name", one_each(SMOOTH))
def test_loss_gives_its_pulls_for_every_vocabulary(name: str) -> None:
    m, t = with_fractions(qu.get(name)), SymbolicToken()
    difference = gradient_of_loss(m.loss(t)) - gradient_of_pulls(t, m.pulls(t))
    assert is_zero(difference.label)
    assert is_zero(difference.elsewhere)


def test_a_deleted_stop_gradient_does_not_prove() -> None:
    class Leaky(type(qu.get("dft"))):  # type: ignore[misc]
        def loss(self, t):  # type: ignore[no-untyped-def]
            return -t.p_label * t.log_p_label

    with pytest.raises(AssertionError):
        test_gate_weight_is_derived_from_the_published_loss(Leaky())


@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_every_body_runs_on_symbols(name: str) -> None:
    t = SymbolicToken()
    m: QMap = with_fractions(qu.get(name))
    assert sp.sympify(m.loss(t)).free_symbols
    g = gradient_of_pulls(t, m.pulls(t))
    assert isinstance(g.label, sp.Basic)


def test_rest_is_linear_and_knows_distributions() -> None:
    p_y, p_k = SymbolicToken.p_y, SymbolicToken.p_k
    assert sum_over_others(1) == V - 1
    assert sp.expand(sum_over_others(3 * p_k + p_y) - 3 * (1 - p_y) - p_y * (V - 1)) == 0
    assert sum_over_others(p_y * p_k**2) == p_y * SumOverOthers(p_k**2)
    total = sum_over_others(p_k**2)
    assert sum_over_others(p_k / total) == (1 - p_y) / total, "a sum does not vary within another sum"


def test_derivative_passes_through_nested_sums() -> None:
    """log Σ p_k² has the logit gradient 2 (p_k²/S − p_k)."""
    t = SymbolicToken()
    square = t.sum(t.policy.probs**2)
    g = gradient_of_loss(sp.log(square))
    assert is_zero(g.label - 2 * (t.p_y**2 / square - t.p_y))
    assert is_zero(g.elsewhere - 2 * (t.p_k**2 / square - t.p_k))


def test_what_is_printed_does_not_count_what_was_asked_before() -> None:
    t = SymbolicToken()
    assert {as_text(t.ranks(d).label) for d in (t.policy, t.teacher)} == {"place_y"}
