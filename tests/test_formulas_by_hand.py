"""Losses written a second time, for one token and in plain probabilities: value and derivative are the catalogue's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

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


def dppo(u: Tensor, old: Tensor, near: bool | Tensor, cap: float) -> Tensor:
    return gate((u / old).clamp(max=cap) * near, u)


def within(radius: float, old: Tensor, u: Tensor) -> bool:
    """Whether the KL between label and rest is within the radius, or the label has lost."""
    two, now = torch.stack([old, 1 - old]), torch.stack([u, 1 - u])
    return bool(u <= old) or float(kl(two, now)) <= radius


def others(p: Tensor, y: int) -> Tensor:
    kept = p * (torch.arange(len(p)) != y)
    return kept / kept.sum()


def lowered(p: Tensor, y: int, by: float) -> Tensor:
    changed = torch.where(torch.arange(len(p)) == y, p * math.exp(-by), p)
    return changed / changed.sum()


#: (method, parameters, its loss of p, y and the contexts); logits of other models come as their probabilities.
BY_HAND: list[tuple[str, dict[str, Any], Loss]] = [
    # Gates, policy optimisation.
    ("anti_focal", {"slope": 0.5, "focusing": 2}, lambda p, y, g: -((1 + p[y] / 2) ** 2) * p[y].log()),
    ("cispo", {}, lambda p, y, g: gate((p[y] / g["old"][y]).clamp(max=4), p[y])),
    ("cispo", {"cap": 1.2}, lambda p, y, g: gate((p[y] / g["old"][y]).clamp(max=1.2), p[y])),
    ("dro", {"strength": 0.3}, lambda p, y, g: -p[y].log() + 0.15 * (p[y] / g["old"][y]).log() ** 2),
    ("sdar", {}, lambda p, y, g: gate(torch.sigmoid(5 * (g["teacher"][y] / p[y]).log()), p[y])),
    ("gft", {}, lambda p, y, g: gate(g["token_weight"] * (1 if p[y] > 0.1 else p[y]), p[y])),
    ("sapo", {}, lambda p, y, g: -4 * torch.sigmoid(p[y] / g["old"][y] - 1)),
    ("sapo", {"temperature": 3}, lambda p, y, g: -4 / 3 * torch.sigmoid(3 * (p[y] / g["old"][y] - 1))),
    ("dppo_tv", {}, lambda p, y, g: dppo(p[y], g["old"][y], p[y] - g["old"][y] <= 0.2, 20)),
    ("dppo_tv", {"radius": 0.02, "cap": 1.1}, lambda p, y, g: dppo(p[y], g["old"][y], p[y] < g["old"][y] + 0.02, 1.1)),
    ("dppo_kl", {}, lambda p, y, g: dppo(p[y], g["old"][y], within(0.2, g["old"][y], p[y]), 20)),
    ("dppo_kl", {"radius": 1e-3}, lambda p, y, g: dppo(p[y], g["old"][y], within(1e-3, g["old"][y], p[y]), 20)),
    ("sppo", {}, lambda p, y, g: -(p[y] / g["old"][y]).log() * (1 / 1.3 <= p[y] / g["old"][y] <= 1.3)),
    ("vespo", {}, lambda p, y, g: gate((p[y] / g["old"][y]) ** 2 * (3 - 3 * p[y] / g["old"][y]).exp(), p[y])),
    ("opd", {}, lambda p, y, g: gate((g["teacher"][y] / p[y]).log(), p[y])),
    ("opd", {"estimator": "k2"}, lambda p, y, g: (g["teacher"][y] / p[y]).log() ** 2 / 2),
    ("opd", {"estimator": "k3"}, lambda p, y, g: g["teacher"][y] / p[y] - 1 - (g["teacher"][y] / p[y]).log()),
    ("opd", {"estimator": "abs"}, lambda p, y, g: (p[y].log() - g["teacher"][y].log()).abs()),
    ("iw_opd", {}, lambda p, y, g: gate(g["token_weight"] * (g["teacher"][y] / p[y]).log(), p[y])),
    ("curio_release", {}, lambda p, y, g: -p[y].log() + (p[y].log() - g["teacher"][y].log()) ** 2 / 2),
    (
        "asft_k3",
        {"kl_weight": 0.3},
        lambda p, y, g: gate(p[y], p[y]) + 0.3 * (g["reference"][y] / p[y] - 1 + (p[y] / g["reference"][y]).log()),
    ),
    ("power_law_decay", {}, lambda p, y, g: gate(1 / (g["prior"][y] + 1e-7), p[y])),
    ("power_law_decay", {"power": 0.5, "floor": 0.1}, lambda p, y, g: gate((g["prior"][y] + 0.1) ** -0.5, p[y])),
    ("dice", {}, lambda p, y, g: 1 - (2 * (1 - p[y]) * p[y] + 1) / ((1 - p[y]) * p[y] + 1 + 1)),
    ("likelihood_gap", {}, lambda p, y, g: gate((1 + g["reference"][y] - p[y]).clamp(min=0.1), p[y])),
    # Unlearning: y is what to forget.
    ("wga", {"power": 2}, lambda p, y, g: -gate(p[y] ** 2, p[y])),
    ("satimp", {}, lambda p, y, g: -gate(p[y] ** 5 * (1 - p[y]), p[y])),
    ("npo", {}, lambda p, y, g: -20 * logsigmoid(-0.1 * (p[y] / g["reference"][y]).log())),
    ("simnpo", {"margin": 0.2}, lambda p, y, g: -2 / 4.5 * logsigmoid(-4.5 * p[y].log() - 0.2)),
    ("ce_u", {}, lambda p, y, g: -(others(p, y).detach() * p.log()).sum()),
    ("undial", {"strength": 3}, lambda p, y, g: -(lowered(g["reference"], y, 3) * p.log()).sum()),
    ("ihl", {}, lambda p, y, g: 1 + p[y] - torch.cat([p[:y], p[y + 1 :]]).max()),
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
    assert {*qu.names("policy"), *qu.names("unlearning")} <= {name for name, *_ in BY_HAND}
