"""The same method bodies on symbols: gate weights derived from the published loss, for every vocabulary size."""

from __future__ import annotations

import random

import mpmath as mp
import pytest
import sympy as sp

import qunify as qu
from qunify import symbols
from qunify.catalogue import ENTRIES
from qunify.qmap import Gate, QMap
from tests.battery import every_setting

GATES = [c for c in every_setting() if isinstance(c.values[0], Gate)]
SMOOTH = (  # methods beyond the gates whose loss is differentiated symbolically here, one of each kind
    "label_smoothing", "bootstrap_soft", "confidence_penalty", "sft_kl", "asft", "target_sft", "kd", "kd_hybrid",
    "reverse_kl", "skew_kl", "abkd", "dkd", "taid", "brier", "spherical", "nce", "gem", "temperature_ce",
    "margin_softmax", "logit_adjustment", "sparsemax", "entmax15", "unlikelihood", "elr", "z_loss",
)  # fmt: skip


def is_zero(expr: sp.Expr) -> bool:
    """Zero by simplification, or, for piecewise expressions, to sixty digits at 40 points off the ties."""
    expr = symbols.evaluate(expr)
    if not expr.has(sp.Piecewise):
        return sp.simplify(expr) == 0
    r = random.Random(0)
    sums = {a: sp.Dummy() for a in sorted(expr.atoms(symbols.Rest), key=str)}
    flat = expr.xreplace(sums)
    others = sorted(flat.free_symbols - {symbols.V, *sums.values()}, key=str)
    value = sp.lambdify([*sums.values(), *others, symbols.V], flat, "mpmath")
    with mp.workdps(60):
        for _ in range(40):
            drawn = [mp.mpf(r.randint(-999, -1)) / 331 for _ in sums]
            drawn += [mp.mpf(r.randint(1, 996)) / 997 for _ in others]
            if abs(value(*drawn, r.randint(2, 40))) > mp.mpf(10) ** -30:
                return False
    return True


@pytest.mark.parametrize("m", GATES)
def test_gate_weight_is_derived_from_the_published_loss(m: Gate) -> None:
    """w = −u dL/du with detached factors held fixed, and the gradient is w (p − δ) at every k."""
    m, t = symbols.exact(m), symbols.SymbolicToken()
    loss = sp.sympify(m.loss(t))
    derived = symbols.evaluate(-t.p_label * loss.diff(t.p_y)) if not loss.has(symbols.Rest) else None
    declared = symbols.rational(m.weight(t))
    if derived is not None:
        assert is_zero(derived - declared)
    g = symbols.gradient(loss)
    assert is_zero(g.label - declared * (t.p_y - 1))
    assert is_zero(g.elsewhere - declared * t.p_k)


@pytest.mark.parametrize("name", SMOOTH)
def test_loss_gives_its_pulls_for_every_vocabulary(name: str) -> None:
    m, t = symbols.exact(qu.get(name)), symbols.SymbolicToken()
    difference = symbols.gradient(m.loss(t)) - symbols.pulled(t, m.pulls(t))
    assert is_zero(difference.label)
    assert is_zero(difference.elsewhere)


def test_a_deleted_stop_gradient_does_not_prove() -> None:
    class Leaky(type(qu.get("dft"))):  # type: ignore[misc]
        def loss(self, t):  # type: ignore[no-untyped-def]
            return -t.p_label * t.log_p_label

    with pytest.raises(AssertionError):
        test_gate_weight_is_derived_from_the_published_loss(Leaky())


@pytest.mark.parametrize("name", ENTRIES)
def test_every_body_runs_on_symbols(name: str) -> None:
    t = symbols.SymbolicToken()
    m: QMap = symbols.exact(qu.get(name))
    assert sp.sympify(m.loss(t)).free_symbols
    g = symbols.pulled(t, m.pulls(t))
    assert isinstance(g.label, sp.Basic)


def test_rest_is_linear_and_knows_distributions() -> None:
    p_y, p_k = symbols.SymbolicToken.p_y, symbols.SymbolicToken.p_k
    assert symbols.rest(1) == symbols.V - 1
    assert sp.expand(symbols.rest(3 * p_k + p_y) - 3 * (1 - p_y) - p_y * (symbols.V - 1)) == 0
    assert symbols.rest(p_y * p_k**2) == p_y * symbols.Rest(p_k**2)
    total = symbols.rest(p_k**2)
    assert symbols.rest(p_k / total) == (1 - p_y) / total, "a sum does not vary within another sum"


def test_derivative_passes_through_nested_sums() -> None:
    """log Σ p_k² has the logit gradient 2 (p_k²/S − p_k)."""
    t = symbols.SymbolicToken()
    square = t.sum(t.policy.probs**2)
    g = symbols.gradient(sp.log(square))
    assert is_zero(g.label - 2 * (t.p_y**2 / square - t.p_y))
    assert is_zero(g.elsewhere - 2 * (t.p_k**2 / square - t.p_k))
