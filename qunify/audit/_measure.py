"""What every method asks at every token of a batch, all of them at once.

A gate g = w (p − δ) takes a number per token: its push is |w| (1 − u). Only other methods take a pass over the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qunify.maps import Gate, QMap, logit_gradient, target_rounding
from qunify.token import Pool, TensorToken, read


@dataclass
class Asked:
    """What M methods ask at N tokens.

    Attributes
    ----------
    u : Tensor, (N,)
        The model's probability of the label.
    rank : Tensor of int, (N,)
        How many tokens the model thinks likelier, plus one.
    entropy : Tensor, (N,)
        Of the model's prediction, in nats.
    trust : Tensor, (M, N)
        γ in the unit gauge: the weight that pulls toward the label; NaN where a loss has no target.
    push : Tensor, (M, N)
        ½ Σ_k |g_k|: how much probability a step asks to move.
    inside : Tensor of bool, (M, N)
        Whether the target is a distribution.
    gram : Tensor, (M, M), float64
        Inner products of the methods' gradients, summed over the tokens.
    """

    u: Tensor
    rank: Tensor
    entropy: Tensor
    trust: Tensor
    push: Tensor
    inside: Tensor
    gram: Tensor


def token_of(methods: Sequence[QMap], logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> TensorToken:
    needs = tuple(dict.fromkeys(name for m in methods for name in m.needs))
    return read("audit", needs, logits, labels, -100, context)[0]


@torch.no_grad()
def asked(
    methods: Sequence[QMap], logits: Tensor, labels: Tensor, context: Mapping[str, Tensor],
    statistics: Mapping[Pool, Tensor] | None = None,
) -> Asked:  # fmt: skip
    """For logits (N, V), labels (N,) and the contexts' logits, (N, V) each, and what the tokens' demonstrations have in
    common, (N, 1) each."""
    t = token_of(methods, logits, labels, context)
    t.statistics |= statistics or {}
    found = [block for _, block in t.blocks()]
    count, rows = sum(not isinstance(m, Gate) for m in methods), max(len(block.index) for block in found)
    room = torch.empty((count + 1, rows, logits.shape[-1]), dtype=found[0].support.dtype, device=logits.device)
    blocks = [_block(methods, block, room[:, : len(block.index)]) for block in found]
    of_tokens = ("u", "rank", "entropy", "trust", "push", "inside")
    joined = {name: torch.cat([getattr(b, name) for b in blocks], dim=-1) for name in of_tokens}
    return Asked(**joined, gram=torch.stack([b.gram for b in blocks]).sum(0))


def _block(methods: Sequence[QMap], t: TensorToken, room: Tensor) -> Asked:
    """`room` (K + 1, N, V) is for the gradients of the K methods that are no gates, and p − δ: the same for every
    block."""
    n, count = len(t.index), len(methods)
    p, u, rest = t.policy.probs, t.p_label[:, 0], t.p_rest[:, 0]
    largest = t.policy.log.amax(-1)
    trust, push = (torch.zeros(count, n, dtype=p.dtype, device=p.device) for _ in range(2))
    inside = torch.zeros(count, n, dtype=torch.bool, device=p.device)
    weights = torch.zeros_like(trust)  # of the gates; zero for the other methods
    others: list[int] = []
    for i, m in enumerate(methods):
        pulls = list(m.pulls(t))
        on_label = _on_label(t, pulls)
        trust[i] = on_label if m.shift_invariant else torch.nan
        if all(isinstance(pull, tuple) and pull[1] is t.label for pull in pulls):
            weights[i], push[i] = on_label, on_label.abs() * rest
            inside[i] = _gate_inside(on_label, u, rest, largest)
            continue
        g = logit_gradient(t, pulls, out=room[len(others)])
        push[i] = torch.linalg.vector_norm(g, 1, dim=-1) / 2
        inside[i] = _inside(t, pulls, g) if m.shift_invariant else False
        others.append(i)
    return Asked(
        u=u,
        rank=1 + (p > p.gather(-1, t.index)).sum(-1),
        entropy=t.entropy(t.policy)[:, 0],
        trust=trust,
        push=push,
        inside=inside,
        gram=_gram(t, weights, others, room[: len(others) + 1]),
    )


def _on_label(t: TensorToken, pulls: Sequence[Any]) -> Tensor:
    """The sum of the weights that pull toward the label, (N,)."""
    total = torch.zeros_like(t.p_label)
    for pull in pulls:
        if isinstance(pull, tuple) and pull[1] is t.label:
            total = total + pull[0]
    return total[:, 0]


def _inside(t: TensorToken, pulls: Sequence[Any], g: Tensor) -> Tensor:
    """Whether the target p − g is a distribution up to rounding, (N,), as `in_simplex` has it of `Pulled`: what
    rounding may have done is worked out for the lowest entry, and only where it may have made that negative for all
    that are."""
    if all(isinstance(pull, tuple) for pull in pulls):
        weights = torch.stack([torch.as_tensor(pull[0]).expand_as(t.p_label) for pull in pulls])
        if bool((weights >= 0).all() & (weights.sum(0) <= 1).all()):
            return torch.ones_like(t.p_label[:, 0], dtype=torch.bool)  # a mixture of p and what is pulled toward
    q = t.policy.probs - g
    lowest, k = q.min(-1)
    rows = torch.arange(len(q), device=q.device)
    undecided = (lowest < 0) & (lowest >= -_rounding(t, pulls, (rows, k)))
    if not bool(undecided.any()):
        return lowest >= 0
    at = tuple(((q < 0) & undecided[:, None]).nonzero().T)
    outside = q[at] < -_rounding(t, pulls, at)
    return (lowest >= 0) | undecided.index_fill(0, at[0][outside], False)


def _rounding(t: TensorToken, pulls: Sequence[Any], at: tuple[Tensor, ...]) -> Tensor:
    """How far rounding may have moved entries of the target; `at` are their rows and tokens."""
    p = t.policy.probs[at]
    magnitude = torch.zeros_like(p)  # Σ |w| (p + D) + |v|
    for pull in pulls:
        if isinstance(pull, tuple):
            weight = torch.as_tensor(pull[0], dtype=p.dtype, device=p.device).expand_as(t.p_label)
            magnitude += weight[at[0], 0].abs() * (p + pull[1].probs[at])
        else:
            magnitude += pull[at].abs()
    return target_rounding(p, magnitude, 1 - t.policy.log[at])


def _gate_inside(weight: Tensor, u: Tensor, rest: Tensor, largest: Tensor) -> Tensor:
    """Whether a gate's target, (1 − w) p + w δ, is a distribution up to rounding, as `in_simplex` has it: no entry
    beside the label may be negative, of which the largest has most digits, nor the label's."""
    eps = 8 * torch.finfo(u.dtype).eps
    beside = 1 - weight >= -eps * (1 + weight.abs()) * (1 - largest)
    return beside & (u + weight * rest >= -eps * (u + weight.abs() * (1 + u)) * (1 - u.log()))


def _gram(t: TensorToken, weights: Tensor, at: Sequence[int], room: Tensor) -> Tensor:
    """Inner products of all gradients. That of two gates is Σ_n w v |p − δ|², that of a gate and a gradient g is
    Σ_n w (p − δ)·g; only those among the methods `at`, whose gradients are the first of `room` (K + 1, N, V), are
    products over the vocabulary."""
    room[-1].copy_(t.policy.probs).scatter_(-1, t.index, -t.p_rest)
    by_token = room.transpose(0, 1)  # (N, K + 1, V)
    products = torch.bmm(by_token, by_token.mT).double()  # (N, K + 1, K + 1)
    w = weights.double()
    gram = (w * products[:, -1, -1]) @ w.T
    if at:
        rows = torch.tensor(at, device=w.device)
        cross = products[:, :-1, -1].T @ w.T  # (K, M)
        gram[rows, :] += cross
        gram[:, rows] += cross.T
        gram[rows[:, None], rows] = products[:, :-1, :-1].sum(0)
    return gram
