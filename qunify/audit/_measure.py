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

from qunify.maps import QMap, logit_gradient, target_rounding
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
    found = [block for _, block in t.blocks()]
    room = max(len(block.index) for block in found)
    gradients = logits.new_empty((len(methods), room, logits.shape[-1]), dtype=found[0].policy.probs.dtype)
    blocks = [_block(methods, block, gradients[:, : len(block.index)]) for block in found]
    of_tokens = ("u", "rank", "entropy", "trust", "push", "inside")
    joined = {name: torch.cat([getattr(b, name) for b in blocks], dim=-1) for name in of_tokens}
    return Asked(**joined, gram=torch.stack([b.gram for b in blocks]).sum(0))


def _block(methods: Sequence[QMap], t: TensorToken, gradients: Tensor) -> Asked:
    """`gradients` (M, N, V) is room for those that are needed, the same for every block."""
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
        g = logit_gradient(t, pulls, out=gradients[len(others)])
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
        gram=_gram(t, weights, others, gradients[: len(others)]),
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


def _gram(t: TensorToken, weights: Tensor, at: Sequence[int], g: Tensor) -> Tensor:
    """Inner products of all gradients. That of two gates is Σ_n w v |p − δ|², that of a gate and a gradient g is
    Σ_n w (p − δ)·g; only those among the methods `at`, whose gradients are g (K, N, V), are products over the
    vocabulary."""
    p, rest = t.policy.probs, t.p_rest[:, 0]
    size = (torch.linalg.vecdot(p, p) - p.gather(-1, t.index)[:, 0].square() + rest.square()).double()
    w = weights.double()
    gram = (w * size) @ w.T
    if at:
        label = t.index.expand(len(at), -1, -1)
        along = torch.linalg.vecdot(g, p) - g.gather(-1, label)[..., 0]  # (K, N): (p − δ)·g
        cross = along.double() @ w.T  # (K, M)
        rows = torch.tensor(at)
        gram[rows, :] += cross
        gram[:, rows] += cross.T
        flat = g.reshape(len(at), -1)
        gram[rows[:, None], rows] = (flat @ flat.T).double()
    return gram
