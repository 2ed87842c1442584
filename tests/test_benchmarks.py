"""The benchmarks measure what they say."""

from __future__ import annotations

import pytest
import torch

import qunify
from benchmarks import gradients, populations
from benchmarks.__main__ import table
from benchmarks.timing import Result, alternate, sandwiched
from qunify.maps import logit_gradient
from qunify.token import CONTEXTS, TensorToken
from qunify.training import sweep
from tests.battery import batch


def test_a_sandwich_compares_with_the_base_on_both_sides() -> None:
    assert sandwiched(base=[1.0, 3.0, 1.0], variant=[4.0, 1.0]) == [2.0, 0.5]


def test_base_and_variant_alternate_after_a_warm_up() -> None:
    calls: list[str] = []
    base, variant = alternate(lambda: calls.append("b"), lambda: calls.append("v"), rounds=2)
    assert "".join(calls) == "bv" + "bvbvb"
    assert (len(base), len(variant)) == (3, 2)


@pytest.mark.parametrize("name", qunify.names())
def test_the_fast_gradient_is_the_gradient(name: str) -> None:
    m, b = qunify.get(name), batch(5)
    q = m(b.logits, b.labels, **b.context)
    context = {k: v if v.dim() > 1 else v[:, None] for k, v in b.context.items()}
    t = TensorToken(b.logits, b.labels, context)
    with torch.no_grad():
        fast = logit_gradient(t, m.pulls(t))
    size = q.gradient.abs().amax(-1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(fast / size, q.gradient / size, rtol=0, atol=1e-9)


def test_every_method_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "TOKENS", 8)
    logits, labels, context = gradients._batch()
    assert set(context) == set(CONTEXTS)
    gradients._check([qunify.get(name) for name in qunify.names()], logits, labels, context)


def test_the_table_says_which_bars_are_missed() -> None:
    rows = table(
        [Result.of("a", [0.1, 0.2, 0.3], "×", at_most=0.2), Result.of("b", [2.0], "s", at_most=1)]
    ).splitlines()
    assert rows[2] == "| a | 0.2 × | 0.1–0.3 | 3 | 0.2 × | met |"
    assert rows[3] == "| b | 2 s |  | 1 | 1 s | **missed** |"


@pytest.mark.slow
def test_the_sweep_that_is_timed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, swept = populations._jobs(8), []
    monkeypatch.setattr(populations, "_jobs", lambda count: jobs)
    monkeypatch.setattr(populations, "sweep", lambda *args, **kwargs: swept.append(sweep(*args, **kwargs)))
    populations._sweep(1)
    (table,) = swept
    assert table["step"].value_counts().to_dict() == {0: len(jobs), 200: len(jobs)}
    assert (table["lost"] == -1).all()
