"""Methods are told apart by one stable zero: what that says must be what a search for all zeros says."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qunify as qu
from qunify.catalogue import ENTRIES, families
from qunify.comparison._shared_optima import TRUTHS, apart_after_one_search, clearly_apart, side_by_side
from qunify.population import FirstZeros, first_zeros_of
from qunify.population._gradient_flow import is_stable_zero
from qunify.samples import around_truths
from tests.budgets import setting

WITH_TARGET = [name for name, cls in ENTRIES.items() if cls.shift_invariant]
#: Found by numbers alone to settle at the same places.
TOGETHER = (("kd", "opd"), ("sft", "ntl_mse"), ("dft_undetached", "npo"), ("mae", "cadft"), ("srft", "eksft"))
#: Of one weight that jumps there is no zero to find, and of another none that attracts.
WITHOUT = {"psft", "dppo_tv", "dppo_kl", "uld", "hinge_ranking"} | {
    "logit_std_kd",
    "nce",
    "apl",
    "sppo",
    "logistic_ranking",
}


def first_of(m: qu.QMap) -> FirstZeros:
    truths = torch.tensor(TRUTHS, dtype=torch.float64)
    context = around_truths(truths)
    return first_zeros_of(m, truths, **{name: context[name] for name in m.needs})


@pytest.mark.parametrize(("a", "b"), TOGETHER)
def test_methods_with_one_optimum_are_not_clearly_apart(a: str, b: str) -> None:
    assert not clearly_apart(qu.get(a), qu.get(b))
    assert not apart_after_one_search(qu.get(a), qu.get(b))
    assert side_by_side(qu.get(a), qu.get(b)).same


def test_methods_apart_at_a_vertex_need_one_search() -> None:
    a, b = qu.get("top1_ce"), qu.get("hinge_ranking")
    assert not clearly_apart(a, b)
    assert apart_after_one_search(a, b)
    assert not side_by_side(a, b).same


@pytest.mark.parametrize("name", [next(n for n in qu.names(f) if n in WITH_TARGET) for f in families()])
def test_what_one_start_finds_is_a_stable_zero(name: str) -> None:
    x = first_of(qu.get(name))
    assert len(x.probs) > 0
    assert bool(is_stable_zero(x.flow, x.probs, x.rows).all())


def test_no_method_is_apart_from_itself() -> None:
    found = {name: first_of(qu.get(name)) for name in WITH_TARGET}
    assert {name for name, x in found.items() if len(x.probs) == 0} == WITHOUT
    assert [name for name, x in found.items() if x.moved_by(x)] == []


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(WITH_TARGET), st.sampled_from(WITH_TARGET), st.integers(0, 5), st.integers(0, 5))
def test_whatever_is_clearly_apart_is_so_after_a_search(a: str, b: str, draw: int, other: int) -> None:
    x, y = setting(a, draw), setting(b, other)
    assert not ((clearly_apart(x, y) or apart_after_one_search(x, y)) and side_by_side(x, y).same)


@pytest.mark.slow
def test_one_method_at_two_settings_is_apart_only_after_a_search_too() -> None:
    for name, (i, j) in itertools.product(WITH_TARGET, ((0, 1), (1, 2))):
        x, y = setting(name, i), setting(name, j)
        assert not (clearly_apart(x, y) and side_by_side(x, y).same), (x, y)
