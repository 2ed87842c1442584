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

from qunify.maps import Pulled, QMap, in_simplex
from qunify.token import TensorToken, read


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


@torch.no_grad()
def asked(methods: Sequence[QMap], logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> Asked:
    """For logits (N, V), labels (N,) and the contexts' logits, (N, V) each."""
    needs = tuple(dict.fromkeys(name for m in methods for name in m.needs))
    t, _ = read("audit", needs, logits, labels, -100, context)
    blocks = [_block(methods, block) for _, block in t.blocks()]
    of_tokens = ("u", "rank", "entropy", "trust", "push", "inside")
    joined = {name: torch.cat([getattr(b, name) for b in blocks], dim=-1) for name in of_tokens}
    return Asked(**joined, gram=torch.stack([b.gram for b in blocks]).sum(0))


def _block(methods: Sequence[QMap], t: TensorToken) -> Asked:
    n, count = len(t.index), len(methods)
    p, u, rest = t.policy.probs, t.p_label[:, 0], t.p_rest[:, 0]
    largest = t.policy.log.amax(-1)
    trust, push = (torch.zeros(count, n, dtype=p.dtype, device=p.device) for _ in range(2))
    inside = torch.zeros(count, n, dtype=torch.bool, device=p.device)
    weights = torch.zeros_like(trust)  # of the gates; zero for the other methods
    others: list[tuple[int, Tensor]] = []
    for i, m in enumerate(methods):
        pulls = list(m.pulls(t))
        weight = _gate(t, pulls)
        if weight is not None:
            trust[i], weights[i], push[i] = weight, weight, weight.abs() * rest
            inside[i] = _gate_inside(weight, u, rest, largest)
            continue
        pulled = Pulled.of(t, pulls)
        push[i] = pulled.gradient.abs().sum(-1) / 2
        trust[i] = pulled.on_label[:, 0] if m.shift_invariant else torch.nan
        inside[i] = in_simplex(pulled) if m.shift_invariant else False
        others.append((i, pulled.gradient))
    return Asked(
        u=u,
        rank=1 + (p > p.gather(-1, t.index)).sum(-1),
        entropy=t.entropy(t.policy)[:, 0],
        trust=trust,
        push=push,
        inside=inside,
        gram=_gram(t, weights, others),
    )


def _gate_inside(weight: Tensor, u: Tensor, rest: Tensor, largest: Tensor) -> Tensor:
    """Whether a gate's target, (1 − w) p + w δ, is a distribution up to rounding, as `in_simplex` has it: no entry
    beside the label may be negative, of which the largest has most digits, nor the label's."""
    eps = 8 * torch.finfo(u.dtype).eps
    beside = 1 - weight >= -eps * (1 + weight.abs()) * (1 - largest)
    return beside & (u + weight * rest >= -eps * (u + weight.abs() * (1 + u)) * (1 - u.log()))


def _gate(t: TensorToken, pulls: Sequence[Any]) -> Tensor | None:
    """The weight toward the label, (N,), where that is all the method pulls toward."""
    if not all(isinstance(pull, tuple) and pull[1] is t.label for pull in pulls):
        return None
    total = torch.zeros_like(t.p_label)
    for weight, _ in pulls:
        total = total + weight
    return total[:, 0]


def _gram(t: TensorToken, weights: Tensor, others: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Inner products of all gradients. That of two gates is Σ_n w v |p − δ|², that of a gate and a gradient g is
    Σ_n w (p − δ)·g, and only those among `others` are products over the vocabulary."""
    p, rest = t.policy.probs, t.p_rest[:, 0]
    size = (p.square().sum(-1) - p.gather(-1, t.index)[:, 0].square() + rest.square()).double()
    w = weights.double()
    gram = (w * size) @ w.T
    if others:
        at = [i for i, _ in others]
        g = torch.stack([g for _, g in others])  # (K, N, V)
        label = t.index.expand(len(at), -1, -1)
        along = (g * p).sum(-1) - g.gather(-1, label)[..., 0]  # (K, N): (p − δ)·g
        cross = along.double() @ w.T  # (K, M)
        gram[at, :] += cross
        gram[:, at] += cross.T
        flat = g.reshape(len(at), -1)
        gram[torch.tensor(at)[:, None], torch.tensor(at)] = (flat @ flat.T).double()
    return gram
