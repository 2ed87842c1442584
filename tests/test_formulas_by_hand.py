"""Losses written a second time, for one token and in plain probabilities: value and derivative are the catalogue's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import qunify as qu
from tests.battery import batch

ROWS = range(0, 120, 3)  # scales 1 and 3, at which formulas written without care keep their digits

Given = dict[str, Tensor]
Loss = Callable[[Tensor, int, Given], Tensor]


def kl(a: Tensor, b: Tensor) -> Tensor:
    return sum((x * (x.log() - w.log()) for x, w in zip(a, b, strict=True)), torch.zeros(()))


def entropy(a: Tensor) -> Tensor:
    return -sum((x * x.log() for x in a), torch.zeros(()))


def softened(a: Tensor, temperature: float) -> Tensor:
    powered = a ** (1 / temperature)
    return powered / powered.sum()


def gate(weight: Tensor, u: Tensor) -> Tensor:
    """−sg(weight) log u."""
    return -weight.detach() * u.log()


#: (method, parameters, its loss of p, y and the contexts); logits of other models come as their probabilities.
BY_HAND: list[tuple[str, dict[str, Any], Loss]] = [
    # Gates, policy optimisation.
    ("anti_focal", {"slope": 0.5, "focusing": 2}, lambda p, y, g: -((1 + p[y] / 2) ** 2) * p[y].log()),
    ("cispo", {}, lambda p, y, g: gate((p[y] / g["old"][y]).clamp(max=4), p[y])),
    ("cispo", {"cap": 1.2}, lambda p, y, g: gate((p[y] / g["old"][y]).clamp(max=1.2), p[y])),
    ("dro", {"strength": 0.3}, lambda p, y, g: -p[y].log() + 0.15 * (p[y] / g["old"][y]).log() ** 2),
    ("sdar", {}, lambda p, y, g: gate(torch.sigmoid(5 * (g["teacher"][y] / p[y]).log()), p[y])),
    ("gft", {}, lambda p, y, g: gate(g["token_weight"] * (1 if p[y] > 0.1 else p[y]), p[y])),
    # Distillation, scores.
    ("mixed_kl", {}, lambda p, y, g: (kl(g["teacher"], p) + kl(p, g["teacher"])) / 2),
    ("mixed_kl", {"mix": 0.2}, lambda p, y, g: 0.2 * kl(g["teacher"], p) + 0.8 * kl(p, g["teacher"])),
    ("ttm", {"temperature": 3.0}, lambda p, y, g: kl(softened(g["teacher"], 3), p)),
    ("tsallis_score", {}, lambda p, y, g: (p**2).sum() / 2 - p[y] + 1),
    ("tsallis_score", {"power": 0.5}, lambda p, y, g: (p**1.5).sum() / 1.5 - 2 * (p[y].sqrt() - 1)),
]


@pytest.mark.parametrize(
    ("name", "params", "loss"), [pytest.param(*case, id=f"{case[0]}{case[1] or ''}") for case in BY_HAND]
)
def test_the_formula_by_hand_is_the_method(name: str, params: dict[str, Any], loss: Loss) -> None:
    b = batch(5)
    q = qu.get(name, **params)(b.logits, b.labels, **b.context)
    for row in ROWS:
        given = {
            key.removesuffix("_logits"): torch.softmax(v[row], -1) if key.endswith("_logits") else v[row]
            for key, v in b.context.items()
        }
        z = b.logits[row].clone().requires_grad_()
        value = loss(torch.softmax(z, -1), int(b.labels[row]), given)
        (gradient,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(q.loss[row], value.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(q.gradient[row], gradient, rtol=1e-8, atol=1e-9)


def test_families_of_gates_alone_are_written_a_second_time() -> None:
    assert set(qu.names("policy")) <= {name for name, *_ in BY_HAND}
