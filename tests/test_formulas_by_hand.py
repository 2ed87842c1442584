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


def relative_scale(p: Tensor, y: int) -> Tensor:
    """By sorting, as its summaries say."""
    falling = p.detach().sort(descending=True).values
    expected = float((falling * torch.arange(1, len(p) + 1)).sum())
    rank = int((p >= p[y]).sum())
    return torch.tensor(2 ** (1 / math.log2(expected + 1) - 1 / math.log2(rank + 1)), dtype=p.dtype)


def others(p: Tensor, y: int) -> Tensor:
    kept = p * (torch.arange(len(p)) != y)
    return kept / kept.sum()


def lowered(p: Tensor, y: int, by: float) -> Tensor:
    changed = torch.where(torch.arange(len(p)) == y, p * math.exp(-by), p)
    return changed / changed.sum()


def given_that(a: Tensor, inside: list[int]) -> Tensor:
    return a[inside] / a[inside].sum()


def likeliest(a: Tensor, k: int) -> list[int]:
    values = a.tolist()
    return sorted(range(len(a)), key=lambda i: (-values[i], i))[:k]


def outside(a: Tensor, inside: list[int]) -> list[int]:
    return [i for i in range(len(a)) if i not in inside]


def with_bucket(a: Tensor, inside: list[int]) -> Tensor:
    return torch.cat([a[inside], a[outside(a, inside)].sum()[None]])


def jsd(p: Tensor, teacher: Tensor, share: float) -> Tensor:
    m = share * teacher + (1 - share) * p
    return share * kl(teacher, m) + (1 - share) * kl(p, m)


def pairs_of_scores(p: Tensor, teacher: Tensor, v: Tensor, w: Tensor) -> Tensor:
    d = (p / teacher).log()
    n = len(p)
    return sum((v[j] * w[k] * (d[j] - d[k]) ** 2 for j in range(n) for k in range(n)), torch.zeros(())).div(2)


def tail_aware(p: Tensor, teacher: Tensor, k: int, weight: float) -> Tensor:
    head = likeliest(teacher, k)
    tail = outside(p, head)
    return kl(with_bucket(teacher, head), with_bucket(p, head)) + weight * kl(
        given_that(teacher, tail), given_that(p, tail)
    )


def ranked_pairs(p: Tensor, teacher: Tensor, k: int, lost: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    order = likeliest(teacher, k)
    found = [lost(p[order[a]], p[order[b]]) for a in range(k) for b in range(a + 1, k)]
    return torch.stack(found).mean()


def by_size(a: Tensor) -> Tensor:
    return a.sort(descending=True).values


def ek(p: Tensor, y: int, g: Given, anchor: Tensor) -> Tensor:
    return -p[y].log() if bool(g["token_mask"]) else 0.3 * anchor - 0.2 * entropy(p)


def apl(p: Tensor, y: int) -> Tensor:
    return 2 * p[y].log() / p.log().sum() + 0.5 * 4 * (1 - p[y])


def margin(p: Tensor, y: int, g: Given) -> Tensor:
    odds = p / p[y]
    others = odds.sum() - odds[y]
    return (1 + others * torch.exp(0.5 * g["prior"][y] ** -0.25)).log()


def contrast(p: Tensor, y: int, g: Given) -> Tensor:
    rivals = [c for c in range(len(p)) if bool(g["negative_mask"][c]) and c != y]
    return -p[y].log() + 2 * ((p[y] + p[rivals].sum()) / p[y]).log()


def numbers(p: Tensor, y: int, g: Given) -> tuple[Tensor, Tensor, float]:
    """The probabilities of tokens that are numbers, given that it is one; these; and the label's, NaN if it is none."""
    inside = [k for k in range(len(p)) if not bool(g["token_values"][k].isnan())]
    return given_that(p, inside), g["token_values"][inside], float(g["token_values"][y])


def distance(p: Tensor, y: int, g: Given) -> Tensor:
    shares, values, own = numbers(p, y, g)
    return -p[y].log() + (0.3 * (shares * (values - own).abs()).sum() if own == own else 0)


def squared(p: Tensor, y: int, g: Given) -> Tensor:
    shares, values, own = numbers(p, y, g)
    return -p[y].log() + (0.5 * ((shares * values).sum() - own) ** 2 if own == own else 0)


def delta(g: Given, power: float) -> Tensor:
    moved = g["reference"] * (g["teacher"] / g["teacher_base"]) ** power
    return moved / moved.sum()


def unsure(a: Tensor) -> bool:
    return float(entropy(a)) > 0.8


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
    ("ranktuner", {}, lambda p, y, g: gate(p[y] * relative_scale(p, y), p[y])),
    ("ranktuner", {"base": "1"}, lambda p, y, g: gate(relative_scale(p, y), p[y])),
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
    ("bdkd", {"large": 2.0, "small": 0.5}, lambda p, y, g: (
        (2.0 if entropy(g["teacher"]) > entropy(p) else 0.5) * kl(g["teacher"], p)
        + (2.0 if entropy(g["teacher"]) < entropy(p) else 0.5) * kl(p, g["teacher"])
    )),
    ("eopd", {}, lambda p, y, g: kl(p, g["teacher"]) + (kl(g["teacher"], p) if unsure(g["teacher"]) else 0)),
    ("csd", {}, lambda p, y, g: pairs_of_scores(p, g["teacher"], p.detach(), p.detach())),
    ("csd", {"first": "teacher", "second": "uniform"}, lambda p, y, g: (
        pairs_of_scores(p, g["teacher"], g["teacher"], torch.full_like(p, 1 / len(p)).detach())
    )),
    ("tad", {"k": 2}, lambda p, y, g: tail_aware(p, g["teacher"], 2, 2.0)),
    ("tad", {"k": 3, "tail_weight": 0.5}, lambda p, y, g: tail_aware(p, g["teacher"], 3, 0.5)),
    ("student_topk_jsd", {"k": 3}, lambda p, y, g: (
        jsd(given_that(p, likeliest(p, 3)), given_that(g["teacher"], likeliest(p, 3)), 0.5)
    )),
    ("student_topk_jsd", {"k": 2, "mix": 0.3, "tail": "bucket"}, lambda p, y, g: (
        jsd(with_bucket(p, likeliest(p, 2)), with_bucket(g["teacher"], likeliest(p, 2)), 0.3)
    )),
    ("student_topk_jsd", {"k": 3, "mix": 1.0}, lambda p, y, g: (
        kl(given_that(p, likeliest(p, 3)), given_that(g["teacher"], likeliest(p, 3)))
    )),
    ("uld", {}, lambda p, y, g: (by_size(p) - by_size(g["teacher"])).abs().sum()),
    ("logistic_ranking", {"k": 3}, lambda p, y, g: ranked_pairs(p, g["teacher"], 3, lambda a, b: (1 + b / a).log())),
    ("hinge_ranking", {"k": 4, "margin": 0.2}, lambda p, y, g: (
        ranked_pairs(p, g["teacher"], 4, lambda a, b: (0.2 - a + b).clamp(min=0))
    )),
    ("top1_ce", {}, lambda p, y, g: -g["teacher"].max() * p[likeliest(g["teacher"], 1)[0]].log()),
    ("eksft", {"entropy_weight": 0.2, "kl_weight": 0.3}, lambda p, y, g: ek(p, y, g, kl(p, g["reference"]))),
    ("eksft", {"entropy_weight": 0.2, "kl_weight": 0.3, "divergence": "released"}, lambda p, y, g: (
        ek(p, y, g, (p * (p - g["reference"].log())).sum())
    )),
    ("self_tempered", {"temperature": 2.0}, lambda p, y, g: -p[y].log() + kl(softened(p.detach(), 2.0), p)),
    ("unigram_smoothing", {"smoothing": 0.3}, lambda p, y, g: -0.7 * p[y].log() - 0.3 * (g["prior"] * p.log()).sum()),
    ("apl", {"nce_weight": 2.0, "rce_weight": 0.5}, lambda p, y, g: apl(p, y)),
    ("ldam", {}, margin),
    ("contrastive_token", {"weight": 2.0}, contrast),
    ("delta_kd", {}, lambda p, y, g: kl(delta(g, 1), p)),
    ("delta_kd", {"strength": 0.5}, lambda p, y, g: kl(delta(g, 0.5), p)),
    ("ntl_was", {}, distance),
    ("ntl_mse", {"weight": 0.5}, squared),
    ("tsallis_score", {}, lambda p, y, g: (p**2).sum() / 2 - p[y] + 1),
    ("tsallis_score", {"power": 0.5}, lambda p, y, g: (p**1.5).sum() / 1.5 - 2 * (p[y].sqrt() - 1)),
]  # fmt: skip


def test_logits_are_matched_as_they_are() -> None:
    b = batch(5)
    q = qu.get("logit_mse")(b.logits, b.labels, **b.context)
    apart = b.logits - b.context["teacher_logits"]
    torch.testing.assert_close(q.loss, (apart**2).sum(-1) / 2)
    torch.testing.assert_close(q.gradient, apart)


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


@pytest.mark.parametrize(("name", "lost"), [
    ("logistic_ranking", lambda z, p, i, j: torch.nn.functional.softplus(z[:, j] - z[:, i])),
    ("hinge_ranking", lambda z, p, i, j: (0.1 - p[:, i] + p[:, j]).clamp(min=0)),
])  # fmt: skip
def test_twenty_tokens_in_order(name: str, lost: Any) -> None:
    b = batch(40)
    order = b.context["teacher_logits"].sort(stable=True, descending=True).indices[:, :20]
    z = b.logits.clone().requires_grad_()
    i, j = torch.triu_indices(20, 20, 1)
    loss = 2 / (20 * 19) * lost(z.gather(1, order), z.softmax(-1).gather(1, order), i, j).sum(-1)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    q = qu.get(name, k=20)(b.logits, b.labels, **b.context)
    torch.testing.assert_close(q.loss, loss.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.gradient, gradient, rtol=1e-8, atol=1e-10)


def test_families_of_gates_alone_are_written_a_second_time() -> None:
    assert {*qu.names("policy"), *qu.names("unlearning")} <= {name for name, *_ in BY_HAND}
