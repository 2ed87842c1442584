"""Every public call keeps its budget, or says before it starts that it cannot: a part of the grid of `budgets`."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

import qunify as qu
from tests import budgets
from tests.battery import ONE_EACH
from tests.budgets import GENERAL, LARGEST, SIZED, cost, setting

pytestmark = pytest.mark.slow

GPT2 = 50_257


#: Of each family the first, and those that take longest; `python -m tests.budgets` tries all.
SOME = sorted(
    ONE_EACH | {"taylor_ce", "symmetric_ce", "bi_tempered", "logit_std_kd", "hinge_ranking", "profit", "psft"}
)


@pytest.mark.parametrize("name", SOME)
def test_values_of_four_digits_end_in_time(name: str) -> None:
    turn = qu.names().index(name)
    for call in ("compare", ("is_proper", "subsumes")[turn % 2]):
        assert (c := cost(call, setting(name, 1))).kept, c


@pytest.mark.parametrize("name", SOME)
def test_a_language_models_vocabulary_fits(name: str) -> None:
    call = ("target", "loss", "linear_loss")[qu.names().index(name) % 3]
    for vocab in (2, LARGEST):
        c = cost(call, qu.get(name), vocab)
        assert c.kept, c
        assert c.said == ""


@pytest.mark.parametrize(
    ("name", "vocab"), [("margin_softmax", GPT2), ("psft", GPT2), ("sft", LARGEST), ("eaft", LARGEST)]
)
@pytest.mark.parametrize("call", ["drift", "optimum"])
def test_where_training_ends_is_found_or_refused_in_time(call: str, name: str, vocab: int) -> None:
    c = cost(call, qu.get(name), vocab)
    assert c.kept, c
    assert ("expected at most" in c.said) == ((call, name) == ("drift", "eaft"))


def test_what_runs_away_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "SECONDS", 0.2)
    monkeypatch.setattr(budgets, "BYTES", 2**24)
    monkeypatch.setitem(GENERAL, "compare", lambda m: [time.process_time() for _ in itertools.count()])
    monkeypatch.setitem(SIZED, "loss", lambda m, v: torch.ones(2**24))
    assert not cost("compare", qu.get("sft")).kept
    assert not cost("loss", qu.get("sft"), 2).kept
