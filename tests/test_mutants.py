"""The conformance check is itself checked: every entry is broken in several ways, and each break is found.

`battery.conforms` is what test_conformance asks of every method. Here it is asked of broken ones.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.maps import QMap
from qunify.token import TensorToken
from tests.battery import HARMLESS, OF_SEQUENCES, Batch, batch, conforms, entries_that_stop, with_pulls


def first(change: Any) -> Any:
    def broken(pulls: list[Any]) -> list[Any]:
        head, *rest = pulls
        return [change(head), *rest]

    return broken


def also(push: torch.Tensor) -> Any:
    return lambda pulls: [*pulls, push]


BREAKS = {
    "sign flipped": first(lambda pull: (-pull[0], pull[1]) if isinstance(pull, tuple) else -pull),
    "weight off by a thousandth": first(
        lambda pull: (pull[0] * 1.001, pull[1]) if isinstance(pull, tuple) else pull * 1.001
    ),
    "pull doubled": lambda pulls: [*pulls, pulls[-1]],
}


def tokens(name: str) -> Batch:
    """Five tokens of vocabulary, or where a default k would leave no tail of them, more."""
    return batch(24 if name == "tad" else 5)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_unbroken_entry_conforms(name: str) -> None:
    assert conforms(qu.get(name), tokens(name))


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("name", ENTRIES)
def test_broken_pulls_are_found(name: str, how: str) -> None:
    m = qu.get(name)
    with with_pulls(m, BREAKS[how]):
        assert not conforms(m, tokens(name))


def test_a_break_at_any_one_token_is_found() -> None:
    """No token of the battery is left out: the uniform row and the one-hot ones count as the ordinary do."""
    m, b = qu.get("sft"), batch(5)
    for row in range(len(b.labels)):
        push = torch.zeros_like(b.logits)
        push[row, :2] = torch.tensor([1e-9, -1e-9])
        with with_pulls(m, also(push)):
            assert not conforms(m, b), row


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_what_is_no_number_agrees_with_nothing(what: float) -> None:
    m = qu.get("dft")
    for attribute in ("loss", "weight"):
        original = getattr(type(m), attribute)

        def broken(self: QMap, t: Any, original: Any = original) -> Any:
            return original(self, t).index_fill(0, torch.tensor([7]), what)

        with mock.patch.object(type(m), attribute, broken):
            assert not conforms(m, batch(5)), attribute


@pytest.mark.parametrize("name", entries_that_stop())
def test_a_deleted_stop_gradient_is_found(name: str) -> None:
    with mock.patch.object(TensorToken, "stop", lambda _, x: x):
        assert conforms(qu.get(name), batch(5)) == (name in HARMLESS)


def test_entries_with_a_stop_gradient_are_the_expected_ones() -> None:
    stopped = set(entries_that_stop())
    assert {"dft", "target_sft", "gem", "asft", "eaft", "deft", "taid", "akl"} <= stopped
    assert {"sft", "kd", "brier", "dft_undetached"}.isdisjoint(stopped)
    assert stopped >= HARMLESS


def shifted(m: QMap) -> list[QMap]:
    """The method with its first real parameter at other values, as far as they are in range."""
    key = next(k for k, v in m.params.items() if isinstance(v, float))
    found = []
    for factor in (0.5, 0.9, 1.5, 3.0):
        try:
            found.append(m.replace(**{key: m.params[key] * factor + 0.01}))
        except ValueError:
            continue
    return found


@pytest.mark.parametrize(
    "name",
    [n for n in ENTRIES if n not in OF_SEQUENCES and any(isinstance(v, float) for v in qu.get(n).params.values())],
)
def test_a_shifted_parameter_is_found(name: str) -> None:
    """The pulls of one setting do not pass for the loss of another."""
    m = qu.get(name)
    pulls, passed = type(m).pulls, []
    for other in shifted(m):
        with mock.patch.object(type(m), "pulls", lambda self, t, other=other: pulls(other, t)):
            passed.append(conforms(m, tokens(name)))
    assert not all(passed), f"{name}: no change of its first real parameter shows in the gradient"
