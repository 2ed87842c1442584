"""One method at other parameters: numbers, symbols, fractions and fifty digits, of the catalogue and designed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
import torch

import qunify as qu
from qunify.maps import QMap, exact_gradient
from qunify.symbolic import with_fractions
from qunify.token import DIGITS

A = sp.Symbol("a", positive=True)


def power(a: object) -> QMap:
    return qu.design("power", trust=lambda t, a: t.power(t.p_label, a), residual=lambda t: t.policy, a=a)


def test_replace_keeps_what_is_not_named_and_the_checks() -> None:
    m = qu.get("gem").replace(beta=0.5)
    assert m == qu.get("gem", beta=0.5)
    assert m.replace() == m
    assert power(0.5).replace(a=2.0).params == {"a": 2.0}
    assert [f.name for f in m.parameters()] == ["beta"]
    assert power(0.5).parameters() == ()
    with pytest.raises(ValueError, match="gem: unknown parameter 'gamma', expected beta"):
        m.replace(gamma=1.0)
    with pytest.raises(ValueError, match="gem: parameter beta: expected a number in"):
        m.replace(beta=-1.0)
    with pytest.raises(ValueError, match="power: unknown parameter 'b', expected a"):
        power(0.5).replace(b=1.0)


def test_a_whole_number_fits_a_tensor() -> None:
    assert qu.get("eaft", top_k=2**63 - 1).params == {"top_k": 2**63 - 1}
    with pytest.raises(ValueError, match=r"eaft: parameter top_k: expected an integer in \[2, inf\) of 64 bits"):
        qu.get("eaft", top_k=2**63)


@pytest.mark.parametrize("m", [qu.get("beyond_log", alpha=0.7), power(0.7)])
def test_fifty_digits_take_a_parameter_as_it_is_written(m: QMap) -> None:
    (_, g, _) = exact_gradient(m, [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], 1, {})
    with mp.workdps(DIGITS):
        third = mp.mpf(1) / 3
        expected = -(third ** (mp.mpf(7) / 10)) * (1 - third)
        from_float = -(third ** mp.mpf(0.7)) * (1 - third)
    assert abs(g - expected) < mp.mpf(10) ** -45
    assert abs(g - from_float) > mp.mpf(10) ** -20


def test_symbols_take_a_parameter_of_a_designed_map_as_a_fraction() -> None:
    assert with_fractions(power(0.7)).params == {"a": sp.Rational(7, 10)}


def test_a_design_takes_symbols() -> None:
    m = power(A)
    assert m.params == {"a": A}
    assert m.needs == ()
    assert qu.compare(m, qu.get("beyond_log", alpha=A)).level == "identical"
    assert qu.compare(m, "sft").level == "directional"
    with pytest.raises(ValueError, match="parameter a: expected a number, got the symbol a"):
        qu.is_proper(m)
    assert torch.equal(m.replace(a=1.0)(torch.zeros(1, 3), torch.tensor([0])).gradient,
                       qu.get("dft")(torch.zeros(1, 3), torch.tensor([0])).gradient)  # fmt: skip


def test_numbers_of_sympy_are_checked_and_computed_with() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing: parameter smoothing: expected a number in \[0, 1\], got 5"):
        qu.get("label_smoothing", smoothing=sp.Integer(5))
    third = qu.get("gce", q=sp.Rational(1, 3))
    assert third.params["q"] == sp.Rational(1, 3)
    logits, labels = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64), torch.tensor([1])
    assert torch.equal(third(logits, labels).gradient, qu.get("gce", q=1 / 3)(logits, labels).gradient)
    assert qu.loss(third).method.params == {"q": 1 / 3}


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m(torch.zeros(1, 3), torch.tensor([0])),
        lambda m: qu.loss(m),
        lambda m: qu.linear_loss(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0]), m),
        lambda m: qu.optimum(m, [0.5, 0.3, 0.2]),
        lambda m: qu.drift(m, [0.5, 0.5], [0.5, 0.5]),
        lambda m: qu.identify(m),
    ],
)
def test_a_symbol_is_refused_where_a_number_is_needed(use: Any) -> None:
    with pytest.raises(ValueError, match="gce: parameter q: expected a number, got the symbol q"):
        use(qu.get("gce", q=sp.Symbol("q")))


@pytest.mark.parametrize("half", [torch.tensor(0.5), np.array(0.5), np.float64(0.5), sp.Rational(1, 2)])
def test_a_designed_map_takes_one_number_of_any_kind(half: Any) -> None:
    own = qu.design("own", trust=lambda t, a: t.p_label**a, residual=lambda t: t.policy, a=half)
    assert qu.compare(own, qu.get("gce", q=0.5)).proved
    saved = qu.loss(own).state_dict()
    qu.loss(own).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"own: parameter a: expected one number, got an array of shape \(2,\)"):
        own = qu.design("own", trust=lambda t, a: t.p_label**a, residual=lambda t: t.policy, a=torch.ones(2))
