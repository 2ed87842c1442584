"""The conformance check is itself checked: every entry is broken in several ways, and each break is found."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.gauges import Pulled
from qunify.qmap import QMap
from qunify.tensors import TensorToken, read
from tests.battery import autograd, batch

#: Entries with a stop-gradient whose removal changes nothing: what it stops is locally constant, or enters the
#: loss at a point where its derivative vanishes (a Fenchel–Young projection).
HARMLESS = {"bootstrap_hard", "mbls", "profit", "sparsemax", "entmax15"}


def conforms(m: QMap, break_pulls: Any = list) -> bool:
    """autograd(loss) = Σ pulls on the battery, with the pulls put through `break_pulls` first."""
    b = batch(5)
    t, _ = read(m.name, m.needs, b.logits, b.labels, -100, b.context)
    with torch.no_grad():
        ours = Pulled.of(t, break_pulls(m.pulls(t))).gradient
    theirs = autograd(m, b)
    scale = theirs.abs().sum(-1, keepdim=True).clamp(min=1)
    ordinary = slice(0, 120)
    return bool((((ours - theirs) / scale)[ordinary].abs() < 1e-10).all())


def first(change: Any) -> Any:
    def broken(pulls: Any) -> list[Any]:
        head, *rest = pulls
        return [change(head), *rest]

    return broken


BREAKS = {
    "sign flipped": first(lambda pull: (-pull[0], pull[1]) if isinstance(pull, tuple) else -pull),
    "weight off by a thousandth": first(
        lambda pull: (pull[0] * 1.001, pull[1]) if isinstance(pull, tuple) else pull * 1.001
    ),
    "pull doubled": lambda pulls: [*(found := list(pulls)), found[-1]],
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_unbroken_entry_conforms(name: str) -> None:
    assert conforms(qu.get(name))


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("name", ENTRIES)
def test_broken_pulls_are_found(name: str, how: str) -> None:
    assert not conforms(qu.get(name), BREAKS[how])


def uses_stop(name: str) -> bool:
    with mock.patch.object(TensorToken, "stop", autospec=True, side_effect=lambda _, x: x) as stop:
        autograd(qu.get(name), batch(5))
    return bool(stop.called)


STOPPED = [name for name in ENTRIES if uses_stop(name)]


@pytest.mark.parametrize("name", STOPPED)
def test_a_deleted_stop_gradient_is_found(name: str) -> None:
    with mock.patch.object(TensorToken, "stop", lambda _, x: x):
        assert conforms(qu.get(name)) == (name in HARMLESS)


def test_entries_with_a_stop_gradient_are_the_expected_ones() -> None:
    assert {"dft", "target_sft", "gem", "asft", "eaft", "deft", "taid", "akl"} <= set(STOPPED)
    assert {"sft", "kd", "brier", "dft_undetached"}.isdisjoint(STOPPED)
    assert set(STOPPED) >= HARMLESS


@pytest.mark.parametrize("name", [n for n in ENTRIES if any(isinstance(v, float) for v in qu.get(n).params.values())])
def test_a_shifted_parameter_is_found(name: str) -> None:
    """The pulls of one setting do not pass for the loss of another."""
    m = qu.get(name)
    key = next(k for k, v in m.params.items() if isinstance(v, float))
    for factor in (0.5, 0.9, 1.5, 3.0):
        try:
            other = qu.get(name, **{key: m.params[key] * factor + 0.01})
        except ValueError:
            continue
        b = batch(5)
        expected = autograd(m, b)
        q = other(b.logits, b.labels, **b.context)
        if not torch.allclose(q.gradient[:120], expected[:120], rtol=0, atol=1e-6):
            return
    pytest.fail(f"{name}: no change of {key} shows in the gradient")
