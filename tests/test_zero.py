"""What the symbols call zero is zero: the normal form and the cells of losses with cases, against numbers and laws."""

from __future__ import annotations

import itertools
import operator
import random
from typing import Any

import pytest
import sympy as sp

from qunify.symbolic import vanishes_everywhere
from qunify.symbolic._cases import without_varying_cases
from qunify.symbolic._normal_form import vanishes
from qunify.token import SymbolicToken, V, indicator, per_token, sum_over_others

P_Y, P_K = SymbolicToken.p_y, SymbolicToken.p_k
TEA_Y, TEA_K = per_token("tea")

# ---- the normal form ------------------------------------------------------------------------------------------

#: Positive, and such that SymPy writes the product or the quotient of any two with both signs turned round.
TURNED = (1 - P_Y, 2 - P_Y, 1 - P_Y - P_K)


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(TURNED, 2)), ids=str)
def test_logarithms_and_powers_of_two_sums_whose_signs_are_turned_round(a: sp.Expr, b: sp.Expr) -> None:
    product, quotient, q = sp.factor(a * b), sp.cancel(a / b), sp.Symbol("q", positive=True)
    assert {sp.Mul.make_args(product), sp.Mul.make_args(quotient)}.isdisjoint({(a, b), (a, 1 / b)}), "as SymPy turns it"
    assert vanishes(sp.log(product) - sp.log(a) - sp.log(b))
    assert vanishes(sp.log(quotient) - sp.log(a) + sp.log(b))
    assert vanishes(product**q - a**q * b**q)
    assert vanishes(quotient ** sp.Rational(7, 10) - a ** sp.Rational(7, 10) * b ** sp.Rational(-7, 10))
    assert not vanishes(sp.log(quotient) - sp.log(a) - sp.log(b))
    assert not vanishes(product**q - a**q)


def test_a_mask_is_its_own_square_and_a_probability_is_not() -> None:
    mask_y, mask_k = (indicator("top", varying=varying) for varying in (False, True))
    assert vanishes(mask_y**2 - mask_y)
    assert vanishes((P_Y + mask_y) ** 2 - P_Y**2 - (2 * P_Y + 1) * mask_y)
    assert vanishes(sum_over_others(mask_k**3 * P_K) - sum_over_others(mask_k * P_K))
    assert vanishes(sum_over_others((1 - mask_k) * mask_k * P_K**2))
    assert not vanishes(P_Y**2 - P_Y)
    assert not vanishes(sum_over_others(P_K**2) - sum_over_others(P_K))
    assert not vanishes(sum_over_others(mask_k * P_K) - sum_over_others(P_K))


# ---- cases ----------------------------------------------------------------------------------------------------


def test_cases_inside_a_sum_exclude_each_other() -> None:
    larger = sp.Piecewise((P_K, P_K > TEA_K), (TEA_K, True))
    smaller = sp.Piecewise((TEA_K, P_K > TEA_K), (P_K, True))
    assert vanishes(sum_over_others(without_varying_cases(larger + smaller)) - sum_over_others(P_K + TEA_K))
    assert not vanishes(sum_over_others(without_varying_cases(larger)) - sum_over_others(P_K + TEA_K))
    conditions, values = (P_K > 2 * TEA_K, P_K > TEA_K, True), (P_K, TEA_K, P_K * TEA_K)
    turned = [sp.Piecewise(*zip(values[i:] + values[:i], conditions, strict=True)) for i in range(3)]
    assert vanishes(without_varying_cases(sum(turned)) - sum(values)), "of three cases, one holds"


TENTHS = [sp.Rational(i, 10) for i in range(1, 10)]
SIZES = range(2, 8)
COMPARE = (operator.gt, operator.ge, operator.lt, operator.le)


def drawn(r: random.Random, depth: int = 2) -> Any:
    """A loss with cases: 0 or 1, as the label's probability and the size of the vocabulary pass some thresholds."""
    if depth == 0:
        return sp.Integer(r.random() < 0.25)
    compare = r.choice(COMPARE)
    condition = compare(V, r.choice(SIZES)) if r.random() < 0.5 else compare(P_Y, r.choice(TENTHS))
    return sp.Piecewise((drawn(r, depth - 1), condition), (drawn(r, depth - 1), True))


@pytest.mark.parametrize("seed", range(60))
def test_zero_is_what_is_zero_at_every_size_and_probability(seed: int) -> None:
    """Off the thresholds of a probability, and at them; those of the vocabulary's size are tokens like any other."""
    loss = drawn(random.Random(seed))
    found = vanishes_everywhere(loss)

    def everywhere(probabilities: list[Any]) -> bool:
        return all(loss.subs({V: v, P_Y: u}) == 0 for v in (*SIZES, SIZES[-1] + 1) for u in probabilities)

    between = [sp.Rational(2 * i + 1, 20) for i in range(10)]
    assert found.holds == everywhere(between)
    if found.holds:
        assert (found.open_ties == ()) == everywhere(TENTHS)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_one_size_of_the_vocabulary_is_a_region_and_one_probability_a_tie(size: int) -> None:
    at_one_size = sp.Piecewise((sp.Piecewise((1, sp.Ge(V, size)), (0, True)), sp.Le(V, size)), (0, True))
    assert vanishes_everywhere(at_one_size).open_regions == (f"V = {size}",)
    third = TENTHS[2]
    at_one_probability = sp.Piecewise((sp.Piecewise((1, sp.Ge(P_Y, third)), (0, True)), sp.Le(P_Y, third)), (0, True))
    found = vanishes_everywhere(at_one_probability)
    assert found.holds
    assert len(found.open_ties) == 1
