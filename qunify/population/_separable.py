"""Exact optima where the drift separates: b_k = f_k(p_k) − p_k Σ_j f_j(p_j), with f_k = truth_k w_k + c_k.

That is the case for every gate whose weight w_k depends on nothing but the label's own probability, also with fixed
pulls c beside it (smoothing, anchors).

Theorem. Let φ_k(u) = f_k(u)/u. At a zero of the drift φ_k(p_k) is one number C for all tokens with mass, and a stable
zero has φ_k(0) ≤ C at the others. If every φ_k falls, then p_k = φ_k⁻¹(C) falls as C rises, so that Σ p_k = 1 holds at
one C: there is one optimum. If not, the vertex of token j (all mass on it) is stable exactly if φ_j(1) > φ_k(0) for
every other k. All of it follows from b_k = p_k (φ_k(p_k) − C) with C = Σ_j f_j(p_j).

Example. The weight of cross-entropy is w = 1, so φ_k(u) = truth_k/u and p_k = truth_k/C: C = 1, and the optimum is the
truth. The weight of DFT is w = u, so φ_k = truth_k does not fall, and the vertex of token j is stable exactly if its
truth is the largest.

Algorithm. Each φ_k is sampled, its inverse interpolated (monotone inverse interpolation), and C found by bisection over
the sampled values of φ; then φ is sampled again where the p_k must lie, several times (`_solve_by_zooming`).

Shapes: B truths, V tokens, n samples of each φ_k, L levels C.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qunify.maps import Gated, Pulled
from qunify.population._gradient_flow import Flow

_GRID = 401  # points per token
_ENDS = (-23.0, 34.0)  # of the logit of u: 1e-10 from 0, 1e-15 from 1; below, weights near 0 are all rounding

#: Logits (N, V), truths (N,) and labels (N,) → the weight on the label (N, 1) and the fixed pulls (N, V).
Reading = Callable[[Flow, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Separable(NamedTuple):
    """What the theorem says of B truths."""

    unique: Tensor  # (B,) bool: every φ falls, so `probs` is the only stable zero
    probs: Tensor  # (B, V) where unique
    vertex_is_stable: Tensor  # (B, V) bool: of the point with all mass on this token


@functools.lru_cache(maxsize=16)  # `optimum` asks for the numbers first, and later for the closed form of the same flow
def separable_optima(flow: Flow) -> Separable | None:
    """The exact optima, or None where the drift does not separate."""
    read = how_it_separates(flow)
    if read is None:
        return None
    u, field = _sample(flow, read, torch.linspace(*_ENDS, _GRID, dtype=torch.float64))  # (B, V, n)
    phi = field / u
    rounding = 1e-9 * phi[..., 1:].abs() + 8 * torch.finfo(u.dtype).eps / u[..., :-1]  # of a weight near 1, over u
    falls = (phi.diff(dim=-1) <= rounding).all(-1).all(-1)
    moves = phi.amax((1, 2)) > phi.amin((1, 2))
    unique = falls & moves & (_allocate(u, _monotone(phi)).undecided <= 1)
    pulled = phi.amax(-1) > 0  # (B, V): where there is one such token, it takes all mass,
    never_rests = ((phi > 0).all(-1) | ~pulled).all(-1)  # unless its pull ends on the way
    unique |= (pulled.sum(-1) == 1) & falls & never_rests
    constant = bool((field.amax(-1) - field.amin(-1) <= 1e-12 * field.abs().amax(-1)).all())
    if constant:  # f does not depend on u, and p = f/C: exact also where p is tiny
        probs = field[..., 0] / field[..., 0].sum(-1, keepdim=True)
        unique |= field[..., 0].sum(-1) > 0
    else:
        probs = _solve_by_zooming(flow, read) if bool(unique.any()) else torch.zeros_like(flow.truth)
    probs = torch.where(pulled.sum(-1, keepdim=True) == 1, pulled.double(), probs)
    return Separable(unique, probs, _stable_vertices(phi, field))


def _stable_vertices(phi: Tensor, field: Tensor) -> Tensor:
    """Which vertices are stable, (B, V): the drift vanishes there, and every other token's share falls."""
    v = phi.shape[1]
    others = ~torch.eye(v, dtype=torch.bool)
    falls = phi[:, :, None, -1] > phi[:, None, :, 0] + 1e-9 * phi[:, :, None, -1].abs()
    vanishes = field[:, None, :, 0].abs() < 1e-7
    return ((falls & vanishes) | ~others).all(-1)


def how_it_separates(flow: Flow) -> Reading | None:
    """How weight and fixed pulls are read off the method: `_declared` from its pulls, `_by_effect` from a gradient that
    is one pull to the label however it is written, or None where the drift does not separate.

    Measured on 64 random tokens: while the label keeps its probability and the others share the rest differently, the
    weight must stay as it is; and the fixed pulls must stay wherever the label's probability moves."""
    r = torch.Generator().manual_seed(0)
    n, v = 64, flow.vocab
    rows = torch.arange(n) % len(flow.truth)
    labels = torch.randint(v, (n,), generator=r)
    own, moved = torch.logit(torch.rand(2, n, generator=r, dtype=torch.float64))
    rest, other = torch.randn(2, n, v, generator=r, dtype=torch.float64)
    for read in (_declared, _by_effect):
        weight, fixed = read(flow, _with_label_at(rest, labels, own), rows, labels)
        weight_beside, _ = read(flow, _with_label_at(3 * other, labels, own), rows, labels)
        _, fixed_moved = read(flow, _with_label_at(other, labels, moved), rows, labels)
        if _equal(weight, weight_beside) and _equal(fixed, fixed_moved):
            return read
    return None


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def _with_label_at(rest: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Logits at which the label has probability σ(own) and the other tokens share what is left by softmax(rest). As
    `samples.with_label_at`, but on the scale of logits, where a probability near 1 has all its digits."""
    others = rest.scatter(-1, labels[:, None], -torch.inf)
    return (rest - others.logsumexp(-1, keepdim=True)).scatter(-1, labels[:, None], own[:, None])


def _declared(flow: Flow, z: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The weight on the label (N, 1) and Σ w D of the other pulls (N, V); NaN where a pull has no weight."""
    t = flow.token(z, rows, labels)
    pulled = Pulled.of(t, flow.m.pulls(t))
    return pulled.on_label + 0 * pulled.weights, pulled.off_label_sum


def _by_effect(flow: Flow, z: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a gradient that equals w (p − label), whatever pulls it is made of: the weight w (N, 1) and no other
    pull; NaN at tokens where it equals none."""
    t = flow.token(z, rows, labels)
    pulled = Pulled.of(t, flow.m.pulls(t))
    gate = Gated.of(pulled.gradient, pulled.policy, t.index, 1e-12 * (1 + pulled.magnitude))
    weight = -t.at_label(pulled.gradient) / t.p_rest  # of pulls added up, the entry at the label has all its digits
    return torch.where(gate.holds, weight, torch.nan), torch.zeros_like(z)


def _sample(flow: Flow, read: Reading, x: Tensor) -> tuple[Tensor, Tensor]:
    """u = σ(x) and f_k(u) of every truth and token, (B, V, n) both; x is (n,) or (B, V, n)."""
    b, v = flow.truth.shape
    same = x.dim() == 1 and not flow.context  # the weight is the same at every truth, and computed at one
    kinds, n = 1 if same else b, x.shape[-1]
    x = x.expand(kinds, v, -1)
    rows = torch.arange(kinds).repeat_interleave(v * n)
    labels = torch.arange(v).repeat_interleave(n).repeat(kinds)
    rest = torch.zeros(len(rows), v, dtype=torch.float64)
    weight, elsewhere = read(flow, _with_label_at(rest, labels, x.reshape(-1)), rows, labels)
    others = elsewhere.view(kinds, v, n, v)[:, :, 0].expand(b, v, v)
    fixed = torch.einsum("by,byk->bk", flow.truth, others)
    return torch.sigmoid(x).expand(b, v, n), flow.truth[..., None] * weight.view(kinds, v, n) + fixed[..., None]


def _solve_by_zooming(flow: Flow, read: Reading, zooms: int = 9, points: int = 33) -> Tensor:
    """p_k = φ_k⁻¹(C) with Σ p_k = 1, (B, V).

    φ is sampled, and from then on only where p_k must lie: between the bounds that the samples leave (`_brackets`),
    which hold also where φ jumps or is flat, and in the cell of the best guess, so that jumps are closed in on. In
    between φ is interpolated, and a flat stretch is filled up to the mass that is left. After nine zooms rounding sets
    in: sums of p_k no longer tell levels apart."""
    x = torch.linspace(*_ENDS, _GRID, dtype=torch.float64).expand(*flow.truth.shape, -1)  # (B, V, n), logits of u
    ladder = torch.linspace(0, 1, points, dtype=torch.float64)
    for _ in range(zooms):
        u, field = _sample(flow, read, x)
        phi = _monotone(field / u)
        p = _allocate(u, phi).probs
        cell = torch.searchsorted(u.contiguous(), p[..., None].contiguous()).clamp(1, u.shape[-1] - 1)  # (B, V, 1)
        spans = (_brackets(u, phi), (cell - 1, cell))
        ends = [(x.gather(-1, left), x.gather(-1, right)) for left, right in spans]
        x = torch.cat([left + (right - left) * ladder for left, right in ends], -1).sort(-1).values
    small = p <= 2 * math.exp(_ENDS[0])
    p = torch.where(small, _below_grid(flow, read, p), p) if bool(small.any()) else p
    return p / p.sum(-1, keepdim=True)


def _below_grid(flow: Flow, read: Reading, p: Tensor) -> Tensor:
    """p_k where it is smaller than any sample of u, (B, V). The likeliest token gives the level C. A φ_k that grows
    like a power of 1/u at the smallest samples is continued as that power up to C; any other token has no mass."""
    u, field = _sample(flow, read, torch.logit(p, eps=1e-15)[..., None])
    level = (field / u)[..., 0].gather(-1, p.argmax(-1, keepdim=True))
    x = torch.tensor([_ENDS[0], _ENDS[0] + 1], dtype=torch.float64)
    u, field = _sample(flow, read, x)
    phi = (field / u).clamp(min=1e-300).log()
    power = phi[..., 0] - phi[..., 1]  # per unit of log u
    tiny = u[..., 0].log() + (phi[..., 0] - level.clamp(min=1e-300).log()) / power.clamp(min=1e-3)
    return torch.where(power > 0.01, tiny.exp(), 0.0)


def _brackets(u: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of the samples between which each p_k lies, (B, V, 1) twice, whatever φ does inside a cell: C is at
    most the level at which the upper ends of the cells sum to 1, and at least that at which the lower ends do."""
    last = u.shape[-1] - 1

    def lower(levels: Tensor) -> Tensor:
        return (_count_above(phi, levels) - 1).clamp(min=0)

    def upper(levels: Tensor) -> Tensor:
        return _count_above(phi, levels).clamp(max=last)

    least, _ = _balance(phi, lambda levels: u.gather(-1, lower(levels)))
    _, most = _balance(phi, lambda levels: u.gather(-1, upper(levels)))
    return lower(most[:, None]), upper(least[:, None])


def _count_above(phi: Tensor, levels: Tensor) -> Tensor:
    """How many samples of φ_k (B, V, n) are at least as high as levels (B, L): (B, V, L)."""
    goal = levels[:, None].expand(-1, phi.shape[1], -1).contiguous()
    return torch.searchsorted(-phi, -goal, right=True)


def _monotone(phi: Tensor) -> Tensor:
    """φ (B, V, n) without the rises along u that rounding makes."""
    return torch.cummin(phi, -1).values


class _Allocation(NamedTuple):
    probs: Tensor  # (B, V)
    undecided: Tensor  # (B,) how many tokens could take the last mass: above 1, the optimum is not unique


def _allocate(u: Tensor, phi: Tensor) -> _Allocation:
    """p_k = φ_k⁻¹(C) at the level C at which they sum to 1. Tokens that are flat at C share what is missing to 1."""
    low, high = _balance(phi, lambda levels: _inverse(u, phi, levels))
    least, most = _inverse(u, phi, high[:, None])[..., 0], _inverse(u, phi, low[:, None])[..., 0]  # (B, V)
    gap = most - least
    spare = 1 - least.sum(-1, keepdim=True)  # (B, 1)
    share = torch.where(gap.sum(-1, keepdim=True) > 0, spare / gap.sum(-1, keepdim=True), 0.0).clamp(0, 1)
    return _Allocation(least + share * gap, (gap > 1e-6).sum(-1))


def _balance(phi: Tensor, inverse: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The level C at which Σ_k φ_k⁻¹(C), which falls with C, goes through 1: from below and from above, (B,) twice.

    Bisection over the sampled values of φ. Between two neighbours of them the sum is linear in C, which gives C
    exactly; where it jumps at a sampled value, C is that value from below and the next float from above."""
    knots = phi.flatten(1).sort(-1).values  # (B, V n)

    def mass(level: Tensor) -> Tensor:
        return inverse(level[:, None]).sum(1)[:, 0]  # (B,)

    first, last = torch.zeros(len(phi), dtype=torch.long), torch.full((len(phi),), knots.shape[1] - 1)
    for _ in range(knots.shape[1].bit_length()):
        middle = (first + last) // 2
        over = mass(knots.gather(-1, middle[:, None])[:, 0]) > 1
        first, last = torch.where(over, middle, first), torch.where(over, last, middle)
    low, high = (knots.gather(-1, i[:, None])[:, 0] for i in (first, last))
    above = torch.nextafter(low, torch.full_like(low, torch.inf))
    start, end = mass(above), mass(high)
    between = above + (high - above) * ((start - 1) / (start - end).clamp(min=1e-300)).clamp(0, 1)
    return torch.where(start > 1, between, low), torch.where(start > 1, between, above)


def _inverse(u: Tensor, phi: Tensor, levels: Tensor) -> Tensor:
    """φ_k⁻¹ of levels (B, L) by linear interpolation, (B, V, L); 0 where all of φ_k is below the level."""
    after = _count_above(phi, levels)
    goal = levels[:, None].expand(-1, phi.shape[1], -1)
    i = after.clamp(1, phi.shape[-1] - 1)
    above, below = phi.gather(-1, i - 1), phi.gather(-1, i)
    left, right = u.gather(-1, i - 1), u.gather(-1, i)
    drop = above - below
    inside = left + torch.where(drop > 0, (above - goal) / drop, 1.0).clamp(0, 1) * (right - left)
    return torch.where(after == 0, 0.0, torch.where(after == phi.shape[-1], u[..., -1:], inside))
