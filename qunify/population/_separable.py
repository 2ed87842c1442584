"""Exact optima where the drift separates: b_k = f_k(p_k) − p_k Σ_j f_j(p_j), with f_k = truth_k w_k + c_k.

So it is for every gate whose weight w_k depends on the label's own probability alone, and with fixed pulls c beside
it (smoothing, anchors). With φ_k(u) = f_k(u)/u, a zero of the drift has φ_k(p_k) = C on its tokens, for one number C,
and φ_k(0) ≤ C off them. Where every φ_k falls, p_k = φ_k⁻¹(C) falls with C and Σ p_k = 1 leaves one C: one optimum.
Where they do not, token j alone is stable exactly if φ_j(1) > φ_k(0) for every other k.
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
    alone: Tensor  # (B, V) bool: all mass on this token is stable


@functools.lru_cache(maxsize=16)  # of one flow the optimum and its closed form are asked for in turn
def separable_optima(flow: Flow) -> Separable | None:
    """The exact optima, or None where the drift does not separate."""
    read = how_it_separates(flow)
    if read is None:
        return None
    u, field = _sample(flow, read, torch.linspace(*_ENDS, _GRID, dtype=torch.float64))
    phi = field / u
    rounding = 1e-9 * phi[..., 1:].abs() + 8 * torch.finfo(u.dtype).eps / u[..., :-1]  # of a weight near 1, over u
    falls = (phi.diff(dim=-1) <= rounding).all(-1).all(-1)
    moves = phi.amax((1, 2)) > phi.amin((1, 2))
    unique = falls & moves & (_fill(u, _falling(phi)).undecided <= 1)
    alive = phi.amax(-1) > 0  # a single such token takes all mass
    never_rests = ((phi > 0).all(-1) | ~alive).all(-1)  # a plateau without a pull would be one
    unique |= (alive.sum(-1) == 1) & falls & never_rests
    constant = bool((field.amax(-1) - field.amin(-1) <= 1e-12 * field.abs().amax(-1)).all())
    if constant:  # p = f/C at every token: exact also where it is tiny
        probs = field[..., 0] / field[..., 0].sum(-1, keepdim=True)
        unique |= field[..., 0].sum(-1) > 0
    else:
        probs = _root(flow, read) if bool(unique.any()) else torch.zeros_like(flow.truth)
    probs = torch.where(alive.sum(-1, keepdim=True) == 1, alive.double(), probs)
    return Separable(unique, probs, _alone(phi, field))


def _alone(phi: Tensor, field: Tensor) -> Tensor:
    """Which single tokens are stable, (B, V): the drift vanishes there, and every other token's share falls."""
    v = phi.shape[1]
    others = ~torch.eye(v, dtype=torch.bool)
    falls = phi[:, :, None, -1] > phi[:, None, :, 0] + 1e-9 * phi[:, :, None, -1].abs()
    vanishes = field[:, None, :, 0].abs() < 1e-7
    return ((falls & vanishes) | ~others).all(-1)


def how_it_separates(flow: Flow) -> Reading | None:
    """How the drift separates: by the declared pulls, by effect (a gate in disguise), or not at all. Measured: at one
    probability of the label, other beliefs about the rest leave weight and fixed pulls alone."""
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
        if _same(weight, weight_beside) and _same(fixed, fixed_moved):
            return read
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def _with_label_at(rest: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Logits at which the label has probability σ(own) and the other tokens share what is left by softmax(rest)."""
    others = rest.scatter(-1, labels[:, None], -torch.inf)
    return (rest - others.logsumexp(-1, keepdim=True)).scatter(-1, labels[:, None], own[:, None])


def _declared(flow: Flow, z: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The weight on the label (N, 1) and Σ w D of the other pulls (N, V); NaN where a pull has no weight."""
    t = flow.token(z, rows, labels)
    pulled = Pulled.of(t, flow.m.pulls(t))
    return pulled.on_label + 0 * pulled.weights, pulled.off_label_sum


def _by_effect(flow: Flow, z: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same of a gradient that is one pull to the label, however it is written; NaN where it is not."""
    t = flow.token(z, rows, labels)
    pulled = Pulled.of(t, flow.m.pulls(t))
    gate = Gated.of(pulled.gradient, pulled.policy, t.index, 1e-12 * (1 + pulled.magnitude))
    return torch.where(gate.holds, gate.weight, torch.nan), torch.zeros_like(z)


def _sample(flow: Flow, read: Reading, x: Tensor) -> tuple[Tensor, Tensor]:
    """u = σ(x) and f_k(u) of every truth and token, (B, V, n) both; x is (n,) or (B, V, n)."""
    b, v = flow.truth.shape
    same = x.dim() == 1 and not flow.context  # at every truth, so that one is enough to ask
    kinds, n = 1 if same else b, x.shape[-1]
    x = x.expand(kinds, v, -1)
    rows = torch.arange(kinds).repeat_interleave(v * n)
    labels = torch.arange(v).repeat_interleave(n).repeat(kinds)
    rest = torch.zeros(len(rows), v, dtype=torch.float64)
    weight, elsewhere = read(flow, _with_label_at(rest, labels, x.reshape(-1)), rows, labels)
    others = elsewhere.view(kinds, v, n, v)[:, :, 0].expand(b, v, v)
    fixed = torch.einsum("by,byk->bk", flow.truth, others)
    return torch.sigmoid(x).expand(b, v, n), flow.truth[..., None] * weight.view(kinds, v, n) + fixed[..., None]


def _root(flow: Flow, read: Reading, zooms: int = 9, points: int = 33) -> Tensor:
    """p_k = φ_k⁻¹(C) with Σ p_k = 1. φ is sampled, and sampled again between the bounds on p_k that the samples leave,
    which are safe where φ jumps or is flat, and in the cell of the best guess, so that jumps are closed in on. What is
    left is interpolated, a flat stretch filled up to the mass that is left. More zooms would meet rounding, where
    sums no longer tell levels apart."""
    x = torch.linspace(*_ENDS, _GRID, dtype=torch.float64).expand(*flow.truth.shape, -1)
    ladder = torch.linspace(0, 1, points, dtype=torch.float64)
    for _ in range(zooms):
        u, field = _sample(flow, read, x)
        phi = _falling(field / u)
        p = _fill(u, phi).probs
        cell = torch.searchsorted(u.contiguous(), p[..., None].contiguous()).clamp(1, u.shape[-1] - 1)
        spans = (_bounds(u, phi), (cell - 1, cell))
        ends = [(x.gather(-1, left), x.gather(-1, right)) for left, right in spans]
        x = torch.cat([left + (right - left) * ladder for left, right in ends], -1).sort(-1).values
    small = p <= 2 * math.exp(_ENDS[0])
    p = torch.where(small, _below(flow, read, p), p) if bool(small.any()) else p
    return p / p.sum(-1, keepdim=True)


def _below(flow: Flow, read: Reading, p: Tensor) -> Tensor:
    """p_k below the grid, (B, V), from where the others are: where φ_k grows like a power of 1/u it is that power,
    elsewhere no mass."""
    u, field = _sample(flow, read, torch.logit(p, eps=1e-15)[..., None])
    level = (field / u)[..., 0].gather(-1, p.argmax(-1, keepdim=True))
    x = torch.tensor([_ENDS[0], _ENDS[0] + 1], dtype=torch.float64)
    u, field = _sample(flow, read, x)
    phi = (field / u).clamp(min=1e-300).log()
    power = phi[..., 0] - phi[..., 1]  # per unit of log u
    tiny = u[..., 0].log() + (phi[..., 0] - level.clamp(min=1e-300).log()) / power.clamp(min=1e-3)
    return torch.where(power > 0.01, tiny.exp(), 0.0)


def _bounds(u: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """The samples between which each p_k lies, (B, V, 1) twice: C is at most the level at which the upper ends of the
    cells hold all the mass, and at least that at which the lower ends do."""
    last = u.shape[-1] - 1

    def lower(levels: Tensor) -> Tensor:
        return (_above(phi, levels) - 1).clamp(min=0)

    def upper(levels: Tensor) -> Tensor:
        return _above(phi, levels).clamp(max=last)

    least, _ = _level(phi, lambda levels: u.gather(-1, lower(levels)))
    _, most = _level(phi, lambda levels: u.gather(-1, upper(levels)))
    return lower(most[:, None]), upper(least[:, None])


def _above(phi: Tensor, levels: Tensor) -> Tensor:
    """How many samples of φ_k are at least as high as levels (B, L), (B, V, L)."""
    goal = levels[:, None].expand(-1, phi.shape[1], -1).contiguous()
    return torch.searchsorted(-phi, -goal, right=True)


def _falling(phi: Tensor) -> Tensor:
    """Monotone also where rounding is not."""
    return torch.cummin(phi, -1).values


class _Filled(NamedTuple):
    probs: Tensor  # (B, V)
    undecided: Tensor  # (B,) how many tokens could take the last mass: above 1, the optimum is not unique


def _fill(u: Tensor, phi: Tensor) -> _Filled:
    """The mass each token holds at the level C at which they hold all of it."""
    low, high = _level(phi, lambda levels: _held(u, phi, levels))
    least, most = _held(u, phi, high[:, None])[..., 0], _held(u, phi, low[:, None])[..., 0]
    gap = most - least
    spare = 1 - least.sum(-1, keepdim=True)
    share = torch.where(gap.sum(-1, keepdim=True) > 0, spare / gap.sum(-1, keepdim=True), 0.0).clamp(0, 1)
    return _Filled(least + share * gap, (gap > 1e-6).sum(-1))


def _level(phi: Tensor, held: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The level C at which the mass held, which falls with C, goes through 1, from below and from above, (B,).

    Between two samples of φ the mass is linear in C, so that the pair around C gives it exactly; where it jumps at a
    sample, C is that sample and the next number above it."""
    knots = phi.flatten(1).sort(-1).values

    def mass(level: Tensor) -> Tensor:
        return held(level[:, None]).sum(1)[:, 0]

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


def _held(u: Tensor, phi: Tensor, levels: Tensor) -> Tensor:
    """φ_k⁻¹ of levels (B, L) by linear interpolation; 0 where φ_k stays below, (B, V, L)."""
    after = _above(phi, levels)
    goal = levels[:, None].expand(-1, phi.shape[1], -1)
    i = after.clamp(1, phi.shape[-1] - 1)
    above, below = phi.gather(-1, i - 1), phi.gather(-1, i)
    left, right = u.gather(-1, i - 1), u.gather(-1, i)
    drop = above - below
    held = left + torch.where(drop > 0, (above - goal) / drop, 1.0).clamp(0, 1) * (right - left)
    return torch.where(after == 0, 0.0, torch.where(after == phi.shape[-1], u[..., -1:], held))
