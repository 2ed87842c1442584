"""The drift as a flow on logits, dz/dt = −E[g]: where it leads, and whether what it reaches is stable.

A flow is followed by linearly implicit Euler with extrapolation, the step set by its estimated error (Deuflhard, SIAM
Review 27, 1985; Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.9). Where it stops, Newton's
method adds the last digits, and the eigenvalues of the Jacobian decide whether that point is stable.

Rows are independent: row i follows the flow of truth `rows[i]`. Everything is float64. Time is measured in units in
which the drift is of order one, so that a loss times a constant ends where the loss does.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qunify._lib.tolerances import SAME_POINT
from qunify.maps import QMap, logit_gradient
from qunify.population._jacobian import Dense, Jacobian, remaining
from qunify.token import Pooling, TensorToken

#: The logit, below the largest one, that stands for probability zero: far below rounding, far above underflow.
ZERO_MASS_LOGIT = -600.0

_ENTRIES = 2**22  # numbers of gradients at a time
_WORK = 2**25  # steps times tokens of one flow: 20 seconds; beyond 10⁵ tokens it ends a flow that is not at rest
_STAGES, _STEPS = 46, 30  # of `_descend`: the last steps are of 4e-8 of a logit
_ORDINARY = 1e3  # logits up to this have all their digits, whether or not the largest is 0
_NUDGE = 1e-6  # finite-difference step, in logits
_PUSH = 1e-5  # of a logit, to see whether a point is stable: far more than what is left of a zero


@dataclass(frozen=True)
class StepControl:
    """How the length h of a step follows its estimated error, which goes with h²: the length at which the error would
    be the tolerance is h √(tolerance / error). The next step is a little shorter, by `safety`."""

    first: float = 0.1
    tolerance: float = 0.1  # of a logit: the path need only stay in its basin, the digits come from Newton's method
    safety: float = 0.7
    shrink: float = 0.2  # one step changes the length at least by this factor,
    grow: float = 8.0  # and at most by this one
    refused: float = 0.5  # a step that is not taken is tried again with at most this share of its length
    farthest: float = 5.0  # a step that moves a logit by this much is refused, whatever its error
    short: float = 100.0  # a flow whose steps are still shorter than this when steps run out is stuck
    arrived: float = 1e13  # one whose steps have grown to this length stands still


_CONTROL = StepControl()


@dataclass(frozen=True, eq=False)
class Flow:
    """The drift of one method at B truths."""

    m: QMap
    truth: Tensor  # (B, V)
    context: Mapping[str, Tensor]  # (B, V) or, for one number per token, (B, 1)

    @property
    def vocab(self) -> int:
        return self.truth.shape[-1]

    @functools.cached_property
    def unit(self) -> Tensor:
        """The size of the gradient, (B, 1), at uniform and at the truth: what it is divided by. A power of two, so that
        it rounds nothing; an ordinary size is left as it is."""
        b, v = self.truth.shape
        inside = (0.999 * self.truth + 0.001 / v).log()
        size = torch.maximum(*(self.size(z, torch.arange(b)).amax(-1) for z in (torch.zeros_like(inside), inside)))
        power = torch.where(size > 0, size.log2().round(), 0.0)
        return torch.where(power.abs() > 6, power.exp2(), 1.0)[:, None]

    def size(self, z: Tensor, rows: Tensor) -> Tensor:
        """Σ_y truth_y |g_k(z, y)|, (N, V): what adds up to the drift, which is 0 where it cancels."""
        return self.drift_and_size(z, rows)[1]

    def drift_and_size(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once, (N, V) each, of few tokens."""
        truth, g = self.truth[rows], self._gradients(z, rows)
        return -_mean(truth, g), _mean(truth, g.abs())

    def rate(self, z: Tensor, rows: Tensor) -> Tensor:
        """The drift per unit of time, (N, V)."""
        return self.drift(z, rows) / self.unit[rows]

    def token(self, z: Tensor, rows: Tensor, labels: Tensor, finite: bool = False) -> TensorToken:
        """Tokens of logits z (N, V) and labels (N,), in the contexts of truths `rows` (N,)."""
        context = {k: v[rows] for k, v in self.context.items()}
        pooling = functools.partial(self._pooling, rows, labels)
        return TensorToken(z, labels, context, self.m.name, finite, pooling)

    @functools.cached_property
    def _finite(self) -> bool:
        """Whether no other model rules a token out."""
        return all(bool(v.isfinite().all()) for k, v in self.context.items() if k.endswith("_logits"))

    def _pooling(self, rows: Tensor, labels: Tensor) -> Pooling:
        """Where every label stands in turn, they are a long text all of whose positions are like this one, each label
        as often as the truth has it; any other position is a text of its own."""
        n, v = len(labels), self.vocab
        alone = torch.arange(n)
        if n % v or not bool((labels == torch.arange(v).repeat(n // v)).all()):
            return Pooling(alone, alone)
        text = alone // v
        return Pooling(text, text, self.truth[rows, labels])

    def drift(self, z: Tensor, rows: Tensor) -> Tensor:
        """−Σ_y truth_y g(z, y), (N, V); of many entries some labels at a time."""
        n, v = z.shape
        if self.m.pools or n * v**2 <= _ENTRIES:  # what is pooled is so over all labels
            return -_mean(self.truth[rows], self._gradients(z, rows))
        total = torch.zeros_like(z)
        for at, labels in itertools.product(range(n), torch.arange(v).split(max(_ENTRIES // v, 1))):
            t = self.token(z[at].expand(len(labels), v), rows[at].expand(len(labels)), labels)
            total[at] -= self.truth[rows[at], labels] @ logit_gradient(t, self.m.pulls(t))
        return total

    def _gradients(self, z: Tensor, rows: Tensor) -> Tensor:
        """g_k(z, y), (N, V labels y, V)."""
        n, v = z.shape
        finite = self._finite and bool((z.abs() <= _ORDINARY).all())
        t = self.token(z[:, None].expand(n, v, v).reshape(-1, v), *_every_label(rows, v), finite)
        return logit_gradient(t, self.m.pulls(t)).view(n, v, v)

    def linear(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Jacobian]:
        """The rate, (N, V), and its Jacobian ∂ rate_i / ∂ z_j by forward differences."""
        n, v = z.shape
        nudge = torch.cat([torch.zeros(1, v, dtype=z.dtype), _NUDGE * torch.eye(v, dtype=z.dtype)])
        around = (z[:, None] + nudge).view(-1, v)
        b = self.rate(around, rows.repeat_interleave(v + 1)).view(n, v + 1, v)
        return b[:, 0], Dense((b[:, 1:] - b[:, :1]).mT / _NUDGE)

    def attracts(self, z: Tensor, rows: Tensor, gone: Tensor) -> Tensor:
        """Whether every eigenvalue of the Jacobian among the tokens that are not `gone` is negative, (N,), but for the
        one that is always 0: adding one number to all logits moves nothing. And whether every token that is pushed, up
        or down, is answered: at the end of a segment at rest the Jacobian, which looks at both sides, may not tell.

        At a zero of the drift ∂b/∂z = P ∂(b/p)/∂z with P = diag(p), since b itself vanishes. Differences of b/p keep
        the digits that those of b lose at small probabilities. The eigenvalues are those of the similar matrix
        √P ∂(b/p)/∂z √P.
        """
        n, v = z.shape
        push = _PUSH * torch.eye(v, dtype=z.dtype)
        around = torch.stack([z[:, None] + push, z[:, None] - push]).view(-1, v)
        rates = self.rate(around, rows.repeat_interleave(v).repeat(2)) / torch.softmax(around, -1)
        both = rates.view(2, n, v, v)
        p = torch.softmax(z, -1)
        root = p.sqrt()
        jacobian = root[:, :, None] * remaining((both[0] - both[1]).mT / (2 * _PUSH), gone) * root[:, None, :]
        # The drift sums to zero, so √p is a left null vector. Its eigenvalue 0, and those of tokens that are gone, are
        # moved to −1, where they do not disturb the test.
        away = torch.einsum("ni,nj->nij", root, root) + torch.diag_embed(gone.to(p.dtype))
        least = torch.where(gone, torch.inf, p).amin(-1)
        bounded = torch.nan_to_num(jacobian - away).clamp(-1e12, 1e12)  # LAPACK does not converge beside overflow
        values = torch.linalg.eigvals(bounded).real
        answers = remaining((both - (self.rate(z, rows) / p)[:, None]).abs().amin(0), gone).amax(-1)
        answered = (answers > 1e-5 * _PUSH) | gone | ((~gone).sum(-1, keepdim=True) == 1)
        return (values < -1e-5 * least[:, None]).all(-1) & answered.all(-1)


def _every_label(rows: Tensor, v: int) -> tuple[Tensor, Tensor]:
    """For every label of each of rows (N,): the row, and the label, (N V,) both."""
    n = len(rows)
    return rows[:, None].expand(n, v).reshape(-1), torch.arange(v).expand(n, v).reshape(-1)


def _mean(truth: Tensor, x: Tensor) -> Tensor:
    """Σ_y truth_y x_yk, (N, V), of truths (N, V) and x (N, V, V)."""
    return torch.matmul(truth[:, None], x)[:, 0]


class EndPoint(NamedTuple):
    """Where N flows ended."""

    probs: Tensor  # (N, V)
    converged: Tensor  # (N,) bool: it stands still there, and is not ever slower on its way
    stable: Tensor  # (N,) bool: and it comes back when pushed a little
    exact: Tensor  # (N,) bool: Newton's method has found it; where the drift jumps there is no zero to find
    cut: Tensor  # (N,) bool: steps ran out before it came to an end: of where it leads nothing is known


def follow(flow: Flow, z: Tensor, rows: Tensor) -> EndPoint:
    """Follow the flow from logits z (N, V) to its end."""
    z, live, stuck = _integrate(flow, z, rows)
    settled, cut = torch.zeros(2, len(z), dtype=torch.bool)
    cut[live] = True
    if len(stuck) and 2 * _WORK // z.shape[-1] >= _STAGES * _STEPS:  # these steps are the cheaper ones
        z[stuck], settled[stuck] = _descend(flow, z[stuck], rows[stuck])
    end = _classify(flow, z, rows, settled)
    return end._replace(cut=cut & ~end.converged)


def ended(flow: Flow, z: Tensor, rows: Tensor) -> EndPoint:
    """The same for flows that have come, however, to logits z (N, V)."""
    return _classify(flow, z, rows, torch.zeros(len(z), dtype=torch.bool))


def is_stable_zero(flow: Flow, probs: Tensor, rows: Tensor) -> Tensor:
    """Whether each of probs (N, V) is itself a stable zero of the drift, (N,) bool."""
    z = logits_of(probs)
    b = flow.rate(z, rows)
    falling = (probs > 0) | (b < -1e-6 * torch.softmax(z, -1))  # a token without mass must not come back
    still = (b.abs().amax(-1) < SAME_POINT) & falling.all(-1)
    stable = torch.zeros_like(still)
    if bool(still.any()):
        arrival = _classify(flow, z[still], rows[still], stable[still])
        stable[still] = arrival.stable & ((arrival.probs - probs[still]).abs().amax(-1) < SAME_POINT)
    return stable


def logits_of(probs: Tensor) -> Tensor:
    """Log-probabilities less their maximum, with ZERO_MASS_LOGIT for probability zero."""
    log = probs.log()
    return (log - log.amax(-1, keepdim=True)).clamp(min=ZERO_MASS_LOGIT)


def _integrate(
    flow: Flow, z: Tensor, rows: Tensor, steps: int = 250, control: StepControl = _CONTROL
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow the flow from z (N, V); also returns which flows still move, and which of these are stuck: they chatter
    along a jump of the drift.

    A linearly implicit Euler step of length h solves (I − h J) Δ = h b, with b the drift and J its Jacobian. One step
    `once` and two half steps `twice` (with the same J) differ by about the error of the latter, and 2·twice − once is
    of second order. While the path bends, steps are short, so that the flow stays in its basin. As h grows, Δ tends to
    −J⁻¹ b: a step of Newton's method, which ends at the zero."""
    z = z.clone()
    step = torch.full((len(z),), control.first, dtype=z.dtype)
    live = torch.arange(len(z))
    for _ in range(min(steps, _WORK // z.shape[-1])):
        if not len(live):
            break
        here, at, h = z[live], rows[live], step[live, None]
        b, jacobian = flow.linear(here, at)
        p = torch.softmax(here, -1)
        alive = p / (p + 1e-4)  # errors of a vanishing token's logit count little: it moves no other probability
        once, first = jacobian.step(h, h * b), jacobian.step(h / 2, h / 2 * b)
        halfway = flow.rate(here + first.nan_to_num(0.0, 0.0, 0.0).clamp(-50, 50), at)
        twice = first + jacobian.step(h / 2, h / 2 * halfway)
        error = (alive * (twice - once)).abs().amax(-1).nan_to_num(torch.inf, torch.inf)
        # Along an unstable direction, where J has an eigenvalue λ > 0, the step divides by 1 − h λ: beyond h = 1/λ it
        # would turn round to the saddle, as Newton's method does. The sign of det(I − 2 h J) tells where h > 1/(2λ).
        leaves = jacobian.keeps_orientation(2 * h)
        good = (error <= control.tolerance) & ((alive * twice).abs().amax(-1) < control.farthest) & leaves
        z[live[good]] = _centred(here + 2 * twice - once)[good]
        change = control.safety * (control.tolerance / error.clamp(min=1e-30)).sqrt()
        change = change.clamp(control.shrink, control.grow)
        step[live] = torch.where(good, change * h[:, 0], change.clamp(max=control.refused) * h[:, 0])
        at_rest = ((b.abs() <= 1e-8 * p) | ((p < 1e-9) & (b < -1e-6 * p))).all(-1)
        live = live[(step[live] < control.arrived) & (z[live].amin(-1) > ZERO_MASS_LOGIT) & ~at_rest]
    return z, live, live[step[live] < control.short]


def _centred(z: Tensor) -> Tensor:
    return z - z.amax(-1, keepdim=True)


def _descend(flow: Flow, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Follow stuck flows by explicit steps along b/p, whose length shrinks by 0.7 from stage to stage: around a point
    where the drift jumps, they circle ever closer. Where b/p is large the whole step is shortened, which moves no
    point at which the two sides of a jump balance (Filippov's sliding mode). Also returns whether they do circle, (N,):
    then the drift averages out over the last stage, to less than a tenth of its size."""
    step = 0.5
    for _ in range(_STAGES):
        total, size = torch.zeros_like(z), torch.zeros_like(z)
        for _ in range(_STEPS):
            p = torch.softmax(z, -1)
            way = (flow.rate(z, rows) / p).clamp(-1e4, 1e4)
            way = way * (2 / way.abs().amax(-1, keepdim=True)).clamp(max=1)
            z = _centred(z + step * way).clamp(min=ZERO_MASS_LOGIT)
            total, size = total + p * way, size + (p * way).abs()
        step *= 0.7
    rising = torch.where(torch.softmax(z, -1) < 1e-7, total.clamp(min=0), total)
    return z, rising.abs().amax(-1) < 0.1 * size.amax(-1)


def _classify(flow: Flow, z: Tensor, rows: Tensor, settled: Tensor) -> EndPoint:
    """What kind of point each of z (N, V) is, after its last digits are found; `settled` says of which the shrinking
    steps have shown that they attract."""
    z = _centred(z)
    p = torch.softmax(z, -1)
    gone = (p < 1e-7) & (flow.rate(z, rows) < -1e-6 * p)  # still falling, at a rate that does not vanish
    z = torch.where(gone, ZERO_MASS_LOGIT, z)
    z = _polish(flow, z, rows, gone)
    zero = (flow.rate(z, rows).abs().amax(-1) < 1e-11) & ~_fades(flow, z, rows, gone)
    # Tokens that are gone were still falling: only the remaining ones can make the point unstable. A point that
    # shrinking steps close in on attracts: an unstable one would have sent them away.
    stable = torch.where(zero, flow.attracts(z, rows, gone), settled)
    never = torch.zeros_like(zero)
    return EndPoint(torch.where(gone, 0.0, torch.softmax(z, -1)), zero | settled, stable, zero, never)


def _fades(flow: Flow, z: Tensor, rows: Tensor, gone: Tensor) -> Tensor:
    """Whether the drift is small only because a token has become rare, (N,): nothing answers what pushes it down, and
    Newton's next step, 1/a of a logit where the push goes with p^a, is no smaller than the last one."""
    rate, jacobian = flow.linear(z, rows)
    falls = (rate < -0.5 * flow.size(z, rows) / flow.unit[rows]) & ~gone
    falls &= (~gone).sum(-1, keepdim=True) > 1  # the last one has all mass
    if not bool(falls.any()):
        return falls.any(-1)
    return (falls & (jacobian.newton(rate.masked_fill(gone, 0.0), gone).abs() > 1e-3)).any(-1)


def _polish(flow: Flow, z: Tensor, rows: Tensor, gone: Tensor, steps: int = 4) -> Tensor:
    """Newton's method on the logits of the tokens that remain; a step is kept where it makes the drift smaller."""
    b = flow.rate(z, rows)
    for _ in range(steps):
        move = flow.linear(z, rows)[1].newton(b.masked_fill(gone, 0.0), gone)
        there = z - move.masked_fill(gone, 0.0).clamp(-1, 1)
        b_there = flow.rate(there, rows)
        better = b_there.abs().amax(-1, keepdim=True) < b.abs().amax(-1, keepdim=True)
        if not bool(better.any()):
            break
        z, b = torch.where(better, there, z), torch.where(better, b_there, b)
    return z
