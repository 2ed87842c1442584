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

Algorithm. C is the root of one equation, Σ_k φ_k⁻¹(C) = 1, and each φ_k⁻¹(C) that of another (`_solve`). At a level
between two others every p_k lies between what it is there, so that only the first levels take more than a few values
of φ. As w_k does not depend on how the other tokens share what the label leaves, they are joined into one
(`_LabelAndRest`): whatever V is, a value takes two numbers, and memory is linear in V. Whether φ falls is seen at
samples (`_shape_of`).

Shapes: B truths, V tokens, n samples of each φ_k.
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
from qunify.population._enclosing import Enclosed, enclose, log_ratio
from qunify.population._gradient_flow import Flow
from qunify.population._jacobian import DiagonalAndTwo
from qunify.token import Distribution, TensorToken, raised

_GRID = 401  # points per token,
_SAMPLES = 2**24  # and so few of them that this is their number where every token has its own, but at least
_COARSE = 101
_ENDS = (-23.0, 34.0)  # of the logit of u: 1e-10 from 0, 1e-15 from 1; below, weights near 0 are all rounding

_BLOCK = 2**18  # samples at a time
_TRIED = 2**22  # numbers of all tokens on which a drift is tried: 64 tokens, and fewer beyond a vocabulary of 65,536
_EPS = torch.finfo(torch.float64).eps
_CLOSE = 8e-15  # log-odds nearer than this are the same,
_ONE = 3e-14  # and probabilities whose sum is as near to 1 as this sum to it
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
        probs, at = torch.zeros_like(flow.truth), unique.nonzero()[:, 0]
        probs[at], undecided = _solve(parts, at)
        unique[at] = undecided <= 1
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


@functools.lru_cache(maxsize=16)  # asked by `separable_optima`, and again by who follows the flow
def separated_flow(flow: Flow) -> SeparableFlow | None:
    """The flow as one that separates; None where it does not.

    Weight and fixed pulls are read off the method's pulls (`_declared`), or off a gradient that is one pull to the
    label however it is written (`_by_effect`). Measured on random tokens, on which the others share the rest in
    different ways: what is read where they are joined must be what is read there."""
    if flow.m.pools:
        return None
    r = torch.Generator().manual_seed(0)
    v = flow.vocab
    n = min(64, max(24, _TRIED // v))
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


class _Curves:
    """φ_k of every token k at some of the truths, one truth after the other: N = B V functions of log-odds."""

    def __init__(self, flow: SeparableFlow, truths: Tensor) -> None:
        v = flow.vocab
        self._flow, self._labels, self._rows = flow, torch.arange(v).repeat(len(truths)), truths.repeat_interleave(v)
        low, high = (torch.full((len(self._rows),), x, dtype=torch.float64) for x in _ENDS)
        every = torch.arange(len(low))
        self.range = Enclosed(low, high, self(low, every), self(high, every))
        #: Below all samples, φ_k goes on as that power of 1/u as which it grows at the smallest.
        steps = logsigmoid(low + 1) - logsigmoid(low)
        self._power = log_ratio(self.range.above, self(low + 1, every)) / steps

    def __call__(self, x: Tensor, index: Tensor) -> Tensor:
        """φ of the functions `index` at log-odds x, (n,) each."""
        rows, labels = self._rows[index], self._labels[index]
        weight = self._flow.weights(x, rows, labels)
        return (self._flow.truth[rows, labels] * weight + self._flow.fixed[rows, labels]) / torch.sigmoid(x)

    def inverse(self, level: Tensor, within: Enclosed, index: Tensor) -> Enclosed:
        """Where the functions `index` go through levels (n,); at an end of the range where they do not."""
        under, over = within.above <= level, within.below > level
        left, above = torch.where(over, within.right, within.left), torch.where(over, within.below, within.above)
        right, below = torch.where(under, within.left, within.right), torch.where(under, within.above, within.below)

        def height(x: Tensor, which: Tensor) -> Tensor:
            phi = self(x, index[which])
            y = log_ratio(phi, level[which])
            y = torch.where(y.abs() <= _EPS, 0.0, y)
            above[which[y >= 0]], below[which[y <= 0]] = phi[y >= 0], phi[y <= 0]
            return y

        ends = Enclosed(left, right, log_ratio(above, level), log_ratio(below, level))
        found = enclose(height, ends, torch.full_like(level, _CLOSE))
        return Enclosed(found.left, found.right, above, below)

    def probs(self, found: Enclosed, level: Tensor, index: Tensor) -> Tensor:
        """p_k at these levels, (n,)."""
        x = (found.left + found.right) / 2
        power = self._power[index]
        tail = logsigmoid(x) + log_ratio(found.above, level) / power.clamp(min=1e-3)
        tail = torch.where(power > 0.01, tail.exp(), 0.0)
        return torch.where((x == _ENDS[0]) & (found.above <= level), tail, torch.sigmoid(x))


def _between(low: Enclosed, high: Enclosed, level: Tensor) -> Enclosed:
    """Where functions go through levels (N,) between two at which that is known: on a jump across both it is there."""
    within = Enclosed(high.left, low.right, high.above, low.below)
    for end in (low, high):
        across = (end.above > level) & (end.below <= level)
        within = Enclosed(*(torch.where(across, x, y) for x, y in zip(end, within, strict=True)))
    return within


def _surplus(found: Enclosed, p: Tensor, v: int) -> Tensor:
    """log of Σ p_k over what the likeliest token leaves, without that one, (B,): with all digits also where it leaves
    little."""
    p, x = p.view(-1, v), ((found.left + found.right) / 2).view(-1, v)
    likeliest = p.argmax(-1, keepdim=True)
    others = p.scatter(-1, likeliest, 0.0).sum(-1)
    x = x.gather(-1, likeliest)[:, 0]
    left = torch.where(x < _ENDS[1], torch.sigmoid(-x), 0.0)  # at the end of the range it may be anything smaller
    more = log_ratio(others, left)
    return torch.where((more.abs() <= _ONE) | ((more.abs() * left <= 8 * _EPS) & (left > 0)), 0.0, more)


def _solve(flow: SeparableFlow, truths: Tensor) -> tuple[Tensor, Tensor]:
    """p_k = φ_k⁻¹(C) with Σ p_k = 1 at some of the truths, (B, V), and how many tokens could take the last mass, (B,):
    above 1, the optimum is not unique.

    C is enclosed ever closer, and with it every p_k: at a level between two others it lies between what it is there.
    Where the sum jumps over 1 at C, the tokens that are flat there share what is missing."""
    curves, b, v = _Curves(flow, truths), len(truths), flow.vocab
    every = torch.arange(b * v)
    low, high = (Enclosed(*(x.clone() for x in curves.range)) for _ in range(2))  # at a lower level, and at a higher

    def excess(level: Tensor, which: Tensor) -> Tensor:
        """log Σ p_k at a level for some of the truths; `low` or `high` is then what was found there."""
        index, level = every.view(b, v)[which].flatten(), level.repeat_interleave(v)
        found = curves.inverse(level, _between(low.of(index), high.of(index), level), index)
        more = _surplus(found, curves.probs(found, level, index), v)
        for end, moves in ((low, more >= 0), (high, more <= 0)):
            moves = moves.repeat_interleave(v)
            end.put(index[moves], found.of(moves))
        return more

    middle = curves(torch.full_like(every, -math.log(v - 1), dtype=torch.float64), every).view(b, v)
    least, most = middle.amin(-1), middle.amax(-1)  # at the one, no p_k is below 1/V, at the other none is above
    size = torch.maximum(least.abs(), most.abs()).clamp(min=1e-290)
    most, least = most + 1e-6 * most.abs(), least - 1e-6 * least.abs() - 1e-12 * size
    below = excess(most, torch.arange(b))
    left = least.where(below < 0, most)
    above = torch.zeros_like(below)
    above[below < 0] = excess(least[below < 0], (below < 0).nonzero()[:, 0])
    right = most.where(above > 0, left)
    unit = 1e-12 * size  # levels of all sizes are told apart: first the size of C is found, then its digits
    start = Enclosed((left / unit).asinh(), (right / unit).asinh(), above, below)
    e = enclose(lambda s, which: excess(unit[which] * s.sinh(), which), start, torch.ones(b, dtype=torch.float64))
    e = e._replace(left=unit * e.left.sinh(), right=unit * e.right.sinh())
    e = enclose(excess, e, _EPS * torch.maximum(e.left.abs(), e.right.abs()))
    found = ((high, e.right), (low, e.left))
    p, more = (curves.probs(end, level.repeat_interleave(v), every).view(b, v) for end, level in found)
    gap = more - p
    spare, room = 1 - p.sum(-1, keepdim=True), gap.sum(-1, keepdim=True)
    p = p + torch.where(room > 0, spare / room, 0.0).clamp(0, 1) * gap
    return p / p.sum(-1, keepdim=True), (gap > 1e-6).sum(-1)
