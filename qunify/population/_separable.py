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
the sampled values of φ; then φ is sampled again where the p_k must lie, several times (`_solve_by_zooming`). As w_k
does not depend on how the other tokens share what the label leaves, they are joined into one (`_LabelAndRest`):
whatever V is, a sample takes two numbers, and memory is linear in V.

Shapes: B truths, V tokens, n samples of each φ_k, L levels C.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from qunify._lib.lazy import lazy
from qunify.maps import Gated, Pulled, QMap, logit_gradient
from qunify.population._gradient_flow import Flow
from qunify.population._jacobian import DiagonalAndTwo
from qunify.token import Distribution, TensorToken, raised, sort

_GRID = 401  # points per token,
_SAMPLES = 2**24  # and so few of them that this is their number where every token has its own, but at least
_COARSE = 101
_ENDS = (-23.0, 34.0)  # of the logit of u: 1e-10 from 0, 1e-15 from 1; below, weights near 0 are all rounding

_BLOCK = 2**18  # samples at a time
_NUDGE = 1e-5  # finite-difference step, in log-odds

#: A token → the weight on the label (N, 1) and the fixed pulls (N, V).
Reading = Callable[[QMap, TensorToken], tuple[Tensor, Tensor]]


class _LabelAndRest(TensorToken):
    """Tokens of which the label comes first and all others are one: the rest, which the uniform distribution gives the
    mass of V − 1."""

    def __init__(self, flow: SeparableFlow, log_odds: Tensor, rows: Tensor, labels: Tensor) -> None:
        """Of labels (N,) at truths `rows` (N,), where the label has probability σ(log_odds), (N,)."""
        self._size = flow.vocab
        given = {name: value[rows, labels] if value.dim() == 3 else value[rows] for name, value in flow.joined.items()}
        z = torch.stack([log_odds, torch.zeros_like(log_odds)], -1)
        super().__init__(z, torch.zeros_like(labels), given, flow.m.name, finite=True)

    # Of two entries all is known by the difference of their logits: sums over a dimension of two are slow.
    def softmax(self, logits: Tensor) -> Distribution:
        x = logits[:, :1] - logits[:, 1:]
        return Distribution(
            lambda: torch.cat([torch.sigmoid(x), torch.sigmoid(-x)], -1),
            lambda: torch.cat([logsigmoid(x), logsigmoid(-x)], -1),
            lambda: logits,
            lambda _: logits[:, 1:] - logsigmoid(-x),
        )

    @lazy
    def log_p_label(self) -> Tensor:
        return logsigmoid(self._logits[:, :1])

    @lazy
    def p_rest(self) -> Tensor:
        return torch.sigmoid(-self._logits[:, :1])

    @lazy
    def log_p_rest(self) -> Tensor:
        return logsigmoid(-self._logits[:, :1])

    @lazy
    def vocab(self) -> Tensor:
        return torch.full_like(self._logits[:, :1], self._size)

    @lazy
    def uniform(self) -> Distribution:
        share = torch.tensor([1 / self._size, 1 - 1 / self._size], dtype=self._logits.dtype).expand_as(self._logits)
        return Distribution(share.clone, share.log)


@dataclass(frozen=True, eq=False)
class SeparableFlow(Flow):
    """A flow whose drift separates: f_k, which is read at the token k alone, says everything."""

    read: Reading

    @functools.cached_property
    def joined(self) -> dict[str, Tensor]:
        """Every context at the label and at all other tokens together, (B, V, 2), or (B, 1) as it is."""
        return {
            name: _label_and_rest(value, name.endswith("_logits")) if value.shape == self.truth.shape else value
            for name, value in self.context.items()
        }

    @functools.cached_property
    def others(self) -> tuple[Tensor, Tensor]:
        """The weight of the fixed pulls at each label, and the distribution that they pull to, (B, V) both."""
        b, v = self.truth.shape
        rows, labels = torch.arange(b).repeat_interleave(v), torch.arange(v).repeat(b)
        _, pulled = self._read(torch.zeros(b * v, dtype=torch.float64), rows, labels)
        total = pulled.sum(-1)
        share = torch.where(pulled[:, 0] == 0, 0.0, pulled[:, 0] / total)
        return total.view(b, v), share.view(b, v)

    @functools.cached_property
    def fixed(self) -> Tensor:
        """c_k, (B, V)."""
        total, share = self.others
        return (self.truth * total).sum(-1, keepdim=True) * share

    def weights(self, log_odds: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """The weight on labels (N,) whose probability is σ(log_odds), (N,)."""
        return self._read(log_odds, rows, labels)[0][:, 0]

    def _read(self, log_odds: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        blocks = zip(*(x.split(_BLOCK) for x in (log_odds, rows, labels)), strict=True)
        parts = [self.read(self.m, _LabelAndRest(self, *block)) for block in blocks]
        return torch.cat([w for w, _ in parts]), torch.cat([pulled for _, pulled in parts])

    def field(self, log_odds: Tensor, rows: Tensor) -> Tensor:
        """f_k where token k has probability σ(log_odds), (N, V) at truths `rows` (N,)."""
        n, v = log_odds.shape
        weight = self.weights(log_odds.reshape(-1), rows.repeat_interleave(v), torch.arange(v).repeat(n))
        return self.truth[rows] * weight.view(n, v) + self.fixed[rows]

    def size(self, z: Tensor, rows: Tensor) -> Tensor:
        f, p = self.field(_log_odds(z), rows).abs(), torch.softmax(z, -1)
        return f + p * (f.sum(-1, keepdim=True) - 2 * f)

    def drift(self, z: Tensor, rows: Tensor) -> Tensor:
        f = self.field(_log_odds(z), rows)
        return f - torch.softmax(z, -1) * f.sum(-1, keepdim=True)

    def linear(self, z: Tensor, rows: Tensor) -> tuple[Tensor, DiagonalAndTwo]:
        """With p = softmax(z), a_k = p_k f_k'(p_k) and C = Σ f_k: J = diag(e) − e pᵀ − p (a − p Σ a)ᵀ, e = a − C p."""
        p, x, unit = torch.softmax(z, -1), _log_odds(z), self.unit[rows]
        f, ahead, behind = (self.field(y, rows) / unit for y in (x, x + _NUDGE, x - _NUDGE))
        level = f.sum(-1, keepdim=True)
        a = (ahead - behind) / (2 * _NUDGE) / torch.sigmoid(-x)
        e = a - level * p
        left, right = torch.stack([e, p], -1), torch.stack([p, a - p * a.sum(-1, keepdim=True)], -1)
        return f - p * level, DiagonalAndTwo(e, left, right)

    def attracts(self, z: Tensor, rows: Tensor, gone: Tensor) -> Tensor:
        """At a zero the Jacobian is Kᵀ diag(e) K with K = I − 1pᵀ: what must be negative is Σ e x² over all x with
        Σ p x = 0. It is where every e is, or where one is not and Σ p²/e > 0 (Sylvester's law of inertia)."""
        p, e = torch.softmax(z, -1), self.linear(z, rows)[1].diagonal
        rising = ~gone & (e >= -1e-5 * p)
        one = (rising.sum(-1) == 1) & ((p.square() / torch.where(gone, torch.inf, e)).sum(-1) > 0)
        return (rising.sum(-1) == 0) | one | ((~gone).sum(-1) == 1)


def _label_and_rest(value: Tensor, logits: bool) -> Tensor:
    """Logits, or numbers that add up, (B, V): at each token and at all others together, (B, V, 2)."""
    if logits:
        log = torch.log_softmax(value, -1)
        return raised(torch.stack([log, log - _log_odds(value)], -1))
    return torch.stack([value, value.sum(-1, keepdim=True) - value], -1)


def _log_odds(z: Tensor) -> Tensor:
    """log p_k/(1 − p_k) of logits (…, V), with all digits also where p_k is near 1."""
    peak = z.argmax(-1, keepdim=True)
    others = z.scatter(-1, peak, -torch.inf).logsumexp(-1, keepdim=True)
    log = torch.log_softmax(z, -1)
    return (log - torch.log1p(-log.exp().clamp(max=0.75))).scatter(-1, peak, z.gather(-1, peak) - others)


class Separable(NamedTuple):
    """What the theorem says of B truths."""

    unique: Tensor  # (B,) bool: every φ falls, so `probs` is the only stable zero
    probs: Tensor  # (B, V) where unique
    vertex_is_stable: Tensor  # (B, V) bool: of the point with all mass on this token


@functools.lru_cache(maxsize=16)  # `optimum` asks for the numbers first, and later for the closed form of the same flow
def separable_optima(flow: Flow) -> Separable | None:
    """The exact optima, or None where the drift does not separate."""
    parts = separated_flow(flow)
    if parts is None:
        return None
    shape = _shape_of(parts)
    unique = shape.falls & (shape.most.amax(-1) > shape.least.amin(-1))
    pulled = shape.most > 0  # (B, V): where there is one such token, it takes all mass,
    alone = (pulled.sum(-1) == 1) & shape.falls & ((shape.least > 0) | ~pulled).all(-1)  # unless its pull ends
    if shape.constant:  # f does not depend on u, and p = f/C: exact also where p is tiny
        total = shape.end.sum(-1, keepdim=True)
        probs, unique = shape.end / total, unique | (total[:, 0] > 0)
    elif bool(unique.any()):
        probs, undecided = _solve_by_zooming(parts)
        unique &= undecided <= 1
    else:
        probs = torch.zeros_like(flow.truth)
    probs = torch.where(pulled.sum(-1, keepdim=True) == 1, pulled.double(), probs)
    return Separable(unique | alone, probs, _stable_vertices(shape))


class _Shape(NamedTuple):
    """How φ_k and f_k run as u goes from 0 to 1."""

    falls: Tensor  # (B,) bool: every φ_k falls
    constant: bool  # no f depends on u
    most: Tensor  # (B, V) the largest value of φ_k, and
    least: Tensor  # (B, V) the smallest
    start: Tensor  # (B, V) φ_k at 0
    end: Tensor  # (B, V) φ_k, which is f_k, at 1
    vanishes: Tensor  # (B, V) bool: f_k at 0 is 0


def _shape_of(flow: SeparableFlow) -> _Shape:
    """Sampled at the same u for all tokens, some tokens at a time."""
    b, v = flow.truth.shape
    own = bool(flow.context)
    x = torch.linspace(*_ENDS, max(min(_GRID, _SAMPLES // (b * v)), _COARSE) if own else _GRID, dtype=torch.float64)
    falls, low, high = torch.ones(b, dtype=torch.bool), [], []
    parts: list[tuple[Tensor, ...]] = []
    for tokens in torch.arange(v).split(max(_BLOCK // (4 * b * _GRID), 1)):
        u, field = _sample(flow, x.expand(b, len(tokens), -1), tokens)
        field = field / flow.unit[..., None]
        phi = field / u
        rounding = 1e-9 * phi[..., 1:].abs() + 8 * torch.finfo(u.dtype).eps / u[..., :-1]  # of a weight near 1, over u
        falls &= (phi.diff(dim=-1) <= rounding).all(-1).all(-1)
        parts.append((phi.amax(-1), phi.amin(-1), phi[..., 0], phi[..., -1], field[..., 0].abs() < 1e-7))
        low.append(field.amin(-1))
        high.append(field.amax(-1))
    least, most = torch.cat(low, -1), torch.cat(high, -1)
    size = torch.maximum(least.abs(), most.abs())
    constant = bool((most - least <= 1e-12 * size).all())
    return _Shape(falls, constant, *(torch.cat(part, -1) for part in zip(*parts, strict=True)))


def _stable_vertices(shape: _Shape) -> Tensor:
    """Which vertices are stable, (B, V): the drift vanishes there, and every other token's share falls."""

    def of_others(worst: Tensor) -> Tensor:
        """For each token the largest value among the others, (B, V)."""
        first = worst.topk(2, -1)
        own = torch.nn.functional.one_hot(first.indices[..., 0], worst.shape[-1]).bool()
        return torch.where(own, first.values[..., 1:], first.values[..., :1])

    falls = shape.end > of_others(shape.start) + 1e-9 * shape.end.abs()
    return falls & (of_others((~shape.vanishes).double()) == 0)


def separated_flow(flow: Flow) -> SeparableFlow | None:
    """The flow as one that separates; None where it does not.

    Weight and fixed pulls are read off the method's pulls (`_declared`), or off a gradient that is one pull to the
    label however it is written (`_by_effect`). Measured on 64 random tokens, on which the others share the rest in
    different ways: what is read where they are joined must be what is read there."""
    if flow.m.pools:
        return None
    r = torch.Generator().manual_seed(0)
    n, v = 64, flow.vocab
    rows = torch.arange(n) % len(flow.truth)
    labels = torch.randint(v, (n,), generator=r)
    own, moved = torch.logit(torch.rand(2, n, generator=r, dtype=torch.float64))
    rest, other = torch.randn(2, n, v, generator=r, dtype=torch.float64)
    for read in (_declared, _by_effect):
        parts = SeparableFlow(flow.m, flow.truth, flow.context, read)
        if all(_separates(parts, z, rows, labels, x) for z, x in ((rest, own), (3 * other, own), (other, moved))):
            return parts
    return None


def _separates(flow: SeparableFlow, rest: Tensor, rows: Tensor, labels: Tensor, own: Tensor) -> bool:
    weight, pulled = flow.read(flow.m, flow.token(_with_label_at(rest, labels, own), rows, labels))
    try:
        joined, (total, share), unit = flow.weights(own, rows, labels), flow.others, float(flow.unit.amax())
    except (RuntimeError, ValueError, IndexError):  # a user's function may have numbers of its own for each token
        return False
    found = (weight[:, 0], joined), (pulled, total[rows, labels][:, None] * share[rows])
    return all(torch.allclose(x, y, rtol=1e-9, atol=1e-12 * unit) for x, y in found)


def _with_label_at(rest: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Logits at which the label has probability σ(own) and the other tokens share what is left by softmax(rest). As
    `samples.with_label_at`, but on the scale of logits, where a probability near 1 has all its digits."""
    others = rest.scatter(-1, labels[:, None], -torch.inf)
    return (rest - others.logsumexp(-1, keepdim=True)).scatter(-1, labels[:, None], own[:, None])


def _declared(m: QMap, t: TensorToken) -> tuple[Tensor, Tensor]:
    """The weight on the label (N, 1) and Σ w D of the other pulls (N, V); NaN where a pull has no weight."""
    on_label, others = torch.zeros_like(t.p_label), torch.zeros(1, dtype=t.p_label.dtype)
    for pull in m.pulls(t):
        if not isinstance(pull, tuple):
            on_label = on_label + torch.nan
        elif pull[1] is t.label:
            on_label = on_label + pull[0]
        else:
            others = others + pull[0] * pull[1].probs
    return on_label, others.expand_as(t.logits)


def _by_effect(m: QMap, t: TensorToken) -> tuple[Tensor, Tensor]:
    """The same for a gradient that equals w (p − label), whatever pulls it is made of: the weight w (N, 1) and no other
    pull; NaN at tokens where it equals none. Of two tokens every gradient does, as it sums to zero."""
    if t.logits.shape[-1] == 2:
        gradient = logit_gradient(t, m.pulls(t))
        return -t.at_label(gradient) / t.p_rest, torch.zeros_like(gradient)
    pulled = Pulled.of(t, m.pulls(t))
    gate = Gated.of(pulled.gradient, pulled.policy, t.index, 1e-12 * (1 + pulled.magnitude))
    weight = -t.at_label(pulled.gradient) / t.p_rest  # of pulls added up, the entry at the label has all its digits
    return torch.where(gate.holds, weight, torch.nan), torch.zeros_like(pulled.gradient)


def _sample(flow: SeparableFlow, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """u = σ(x) and f_k(u) at log-odds x (B, V, n), (B, V, n) both; V counts `tokens`, where these are given."""
    b, v, n = x.shape
    labels = torch.arange(v) if tokens is None else tokens
    if x.stride()[:2] == (0, 0) and not flow.context:  # the same u everywhere, and so the same weight
        rows = torch.zeros(n, dtype=torch.long)
        weight = flow.weights(x[0, 0], rows, rows).expand(b, v, n)
    else:
        rows = torch.arange(b).repeat_interleave(v * n)
        weight = flow.weights(x.reshape(-1), rows, labels.repeat_interleave(n).repeat(b)).view(b, v, n)
    return torch.sigmoid(x), flow.truth[:, labels, None] * weight + flow.fixed[:, labels, None]


def _solve_by_zooming(flow: SeparableFlow, zooms: int = 14, points: int = 17) -> tuple[Tensor, Tensor]:
    """p_k = φ_k⁻¹(C) with Σ p_k = 1, (B, V), and how many tokens could take the last mass, (B,): above 1, the optimum
    is not unique.

    φ is sampled, and from then on only where p_k must lie: between the bounds that the samples leave (`brackets`),
    which hold also where φ jumps or is flat, and in the cell of the best guess, so that jumps are closed in on. In
    between φ is interpolated, and a flat stretch is filled up to the mass that is left. It ends when no digit changes,
    or with rounding, when sums of p_k no longer tell levels apart."""
    x = torch.linspace(*_ENDS, 4 * points, dtype=torch.float64).expand(*flow.truth.shape, -1)  # (B, V, n), log-odds
    ladder = torch.linspace(0, 1, points, dtype=torch.float64)
    p = torch.zeros_like(flow.truth)
    for _ in range(zooms):
        u, field = _sample(flow, x)
        samples = _Samples(u.contiguous(), _monotone(field / u))
        before, (p, undecided) = p, samples.allocate()
        if bool(((p - before).abs() <= 1e-13 * p).all()):  # what changes next is smaller by a factor of 16 or more
            break
        cell = torch.searchsorted(samples.u, p[..., None].contiguous()).clamp(1, u.shape[-1] - 1)
        spans = (samples.brackets(), (cell - 1, cell))  # (B, V, 1) each
        ends = [(x.gather(-1, left), x.gather(-1, right)) for left, right in spans]
        x = sort(torch.cat([left + (right - left) * ladder for left, right in ends], -1))
    small = p <= 2 * math.exp(_ENDS[0])
    p = torch.where(small, _below_grid(flow, p), p) if bool(small.any()) else p
    return p / p.sum(-1, keepdim=True), undecided


def _below_grid(flow: SeparableFlow, p: Tensor) -> Tensor:
    """p_k where it is smaller than any sample of u, (B, V). The likeliest token gives the level C. A φ_k that grows
    like a power of 1/u at the smallest samples is continued as that power up to C; any other token has no mass."""
    u, field = _sample(flow, torch.logit(p, eps=1e-15)[..., None])
    level = (field / u)[..., 0].gather(-1, p.argmax(-1, keepdim=True))
    x = torch.tensor([_ENDS[0], _ENDS[0] + 1], dtype=torch.float64)
    u, field = _sample(flow, x.expand(*p.shape, -1))
    phi = (field / u).clamp(min=1e-300).log()
    power = phi[..., 0] - phi[..., 1]  # per unit of log u
    tiny = u[..., 0].log() + (phi[..., 0] - level.clamp(min=1e-300).log()) / power.clamp(min=1e-3)
    return torch.where(power > 0.01, tiny.exp(), 0.0)


def _monotone(phi: Tensor) -> Tensor:
    """φ (B, V, n) without the rises along u that rounding makes."""
    return torch.cummin(phi, -1).values


class _Samples:
    """Samples of φ_k, which fall, at rising u; (B, V, n) both."""

    def __init__(self, u: Tensor, phi: Tensor) -> None:
        self.u, self.phi = u, phi
        self._rising = -phi
        self._knots = sort(phi.flatten(1))  # (B, V n)

    def brackets(self) -> tuple[Tensor, Tensor]:
        """The indices of the samples between which each p_k lies, (B, V, 1) twice, whatever φ does inside a cell: C is
        at most the level at which the upper ends of the cells sum to 1, and at least that at which the lower ends
        do."""
        last = self.u.shape[-1] - 1

        def lower(levels: Tensor) -> Tensor:
            return (self._count_above(levels) - 1).clamp(min=0)

        def upper(levels: Tensor) -> Tensor:
            return self._count_above(levels).clamp(max=last)

        least, _ = self._balance(lambda levels: self.u.gather(-1, lower(levels)))
        _, most = self._balance(lambda levels: self.u.gather(-1, upper(levels)))
        return lower(most[:, None]), upper(least[:, None])

    def allocate(self) -> tuple[Tensor, Tensor]:
        """p_k = φ_k⁻¹(C) at the level C at which they sum to 1, (B, V), and how many tokens could take the last mass,
        (B,): those that are flat at C share what is missing to 1."""
        low, high = self._balance(self._inverse)
        least, most = self._inverse(high[:, None])[..., 0], self._inverse(low[:, None])[..., 0]  # (B, V)
        gap = most - least
        spare = 1 - least.sum(-1, keepdim=True)  # (B, 1)
        share = torch.where(gap.sum(-1, keepdim=True) > 0, spare / gap.sum(-1, keepdim=True), 0.0).clamp(0, 1)
        return least + share * gap, (gap > 1e-6).sum(-1)

    def _balance(self, inverse: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The level C at which Σ_k φ_k⁻¹(C), which falls with C, goes through 1: from below and from above, (B,) twice.

        Bisection over the sampled values of φ. Between two neighbours of them the sum is linear in C, which gives C
        exactly; where it jumps at a sampled value, C is that value from below and the next float from above."""
        knots = self._knots

        def mass(level: Tensor) -> Tensor:
            return inverse(level[:, None]).sum(1)[:, 0]  # (B,)

        first, last = torch.zeros(len(knots), dtype=torch.long), torch.full((len(knots),), knots.shape[1] - 1)
        for _ in range(knots.shape[1].bit_length()):
            middle = (first + last) // 2
            over = mass(knots.gather(-1, middle[:, None])[:, 0]) > 1
            first, last = torch.where(over, middle, first), torch.where(over, last, middle)
        low, high = (knots.gather(-1, i[:, None])[:, 0] for i in (first, last))
        above = torch.nextafter(low, torch.full_like(low, torch.inf))
        start, end = mass(above), mass(high)
        between = above + (high - above) * ((start - 1) / (start - end).clamp(min=1e-300)).clamp(0, 1)
        return torch.where(start > 1, between, low), torch.where(start > 1, between, above)

    def _count_above(self, levels: Tensor) -> Tensor:
        """How many samples of φ_k are at least as high as levels (B, L): (B, V, L)."""
        goal = levels[:, None].expand(-1, self.phi.shape[1], -1).contiguous()
        return torch.searchsorted(self._rising, -goal, right=True)

    def _inverse(self, levels: Tensor) -> Tensor:
        """φ_k⁻¹ of levels (B, L) by linear interpolation, (B, V, L); 0 where all of φ_k is below the level."""
        u, phi, after = self.u, self.phi, self._count_above(levels)
        goal = levels[:, None].expand(-1, phi.shape[1], -1)
        i = after.clamp(1, phi.shape[-1] - 1)
        above, below = phi.gather(-1, i - 1), phi.gather(-1, i)
        left, right = u.gather(-1, i - 1), u.gather(-1, i)
        drop = above - below
        inside = left + torch.where(drop > 0, (above - goal) / drop, 1.0).clamp(0, 1) * (right - left)
        return torch.where(after == 0, 0.0, torch.where(after == phi.shape[-1], u[..., -1:], inside))
