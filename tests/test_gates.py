"""Is a method a gate, w (p − δ)? Numbers and symbols give one answer, and one weight."""

from __future__ import annotations

import pytest
import torch

import qunify as qu
from qunify.comparison._subjects import is_gate
from qunify.maps import Gate, Gated
from qunify.symbolic import gate_weight


def test_the_example_of_the_docstring() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]] * 2, dtype=torch.float64)
    g = torch.tensor([[-0.6, 0.4, 0.2], [-0.6, 0.3, 0.3]], dtype=torch.float64)
    weight, holds = Gated.of(g, p, torch.tensor([[0], [0]]), 1e-12)
    assert weight[:, 0].tolist() == pytest.approx([2.0, 2.0])
    assert holds[:, 0].tolist() == [True, False]


def test_a_gate_keeps_its_digits_near_certainty() -> None:
    z = torch.tensor([[30.0, 0.0, -1.0]], dtype=torch.float64)
    q = qu.get("sft")(z, torch.tensor([0]))
    weight, holds = Gated.of(q.gradient, z.softmax(-1), torch.tensor([[0]]), 1e-15)
    assert bool(holds)
    assert float(weight) == pytest.approx(1.0, rel=1e-12)


def test_a_gradient_that_does_not_sum_to_zero_is_no_gate() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    assert not bool(Gated.of(p, p, torch.tensor([[0]]), 1e-12).holds)


@pytest.mark.parametrize("name", qu.names())
def test_numbers_and_symbols_agree_on_what_a_gate_is(name: str) -> None:
    m = qu.get(name)
    assert is_gate(m) == (gate_weight(m) is not None)
    assert is_gate(m) or not isinstance(m, Gate)
