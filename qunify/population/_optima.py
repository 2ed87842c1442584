"""Where training ends: the drift of a method over a population, and the distributions it comes to rest at."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qunify import catalogue
from qunify._lib import html
from qunify._lib.arrays import tensor_of
from qunify._lib.simple import three_digits
from qunify._lib.tolerances import ARRIVED, SAME_POINT
from qunify.maps import Method, QMap
from qunify.population._gradient_flow import EndPoint, Flow, follow, is_stable_zero, logits_of
from qunify.population._known_optima import ClosedForm, closed_form_of, known_value
from qunify.population._separable import Separable, SeparableFlow, separable_optima, separated_flow
from qunify.token import PER_TOKEN, read

_VERTEX_STARTS = 8  # starts near single tokens, at most
_STARTED = 2**17  # tokens of all starts together: beyond 10⁴ tokens there are fewer starts
_VERTICES = 500  # of single tokens at which training may end, the likeliest are listed
_FOLLOWED = 64  # the largest vocabulary in which a flow is followed by a Jacobian of V² numbers: half a minute
_SUMMED = 2**12  # the largest vocabulary in which gradients of all labels are added up: some seconds
_ENTRIES = 2**23  # numbers of all Jacobians at a time, and of what they are made of
_SHOWN = 20  # tokens that are printed of a point
_FACED = 5  # the largest vocabulary at which starts on every face are tried, where theory allows several optima


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where a method's drift comes to rest, for the truth or truths of shape (…, V). Numbers are float64.

    Attributes
    ----------
    probs : Tensor, (…, V)
        The point reached from the start; where the flow never comes to rest, where it was last.
    all : tuple of Tensor
        Every stable zero found, (n, V) for each truth in turn; `probs` comes first if it is one. Of single tokens,
        the 500 likeliest at most.
    stable, converged : Tensor of bool, (…)
        Whether `probs` attracts what starts near it, and whether the drift vanishes there at all. Neither where it
        only fades: labels pushed by a power of their probability fall ever more slowly, and never arrive.
    cut : Tensor of bool, (…)
        Whether steps ran out before the flow came to an end, as they do in large vocabularies: then `probs` is a point
        on its way, and nothing is known of where it leads.
    exists : Tensor of bool, (…)
        Whether any stable zero was found.
    basin : tuple of Tensor or None
        Where `optimum` was asked for them: the share of random starts, uniform on the simplex, that the flow leads to
        each of `all`, (n,) for each truth in turn. What is missing to 1 led to none of them.
    """

    probs: Tensor
    all: tuple[Tensor, ...]
    stable: Tensor
    exists: Tensor
    converged: Tensor
    cut: Tensor
    basin: tuple[Tensor, ...] | None
    _flow: Flow = field(repr=False)

    @property
    def closed_form(self) -> str | None:
        """The optimum in LaTeX, where theory has it for all truths: η is the truth, C the number at which p* sums to
        1, and x₊ = max(x, 0). Derived when asked for, in up to a second."""
        known = closed_form_of(self._flow)
        return None if known is None else known.latex

    def __str__(self) -> str:
        """The points reached, to three digits, and whether training would stay there."""
        points = self.probs.reshape(-1, self.probs.shape[-1]).tolist()
        known = zip(*(x.flatten().tolist() for x in (self.stable, self.converged, self.cut)), strict=True)
        return "\n".join(_said(p, *x) for p, x in zip(points, known, strict=True))

    def _repr_latex_(self) -> str:
        points, cut = self.probs.reshape(-1, self.probs.shape[-1]).tolist(), self.cut.flatten().tolist()
        lines = [
            f"{'p' if way else 'p^*'}=({', '.join(_first(p, html.number, chr(92) + 'dots'))})"
            for p, way in zip(points, cut, strict=True)
        ]
        return html.array([*([self.closed_form] if self.closed_form else []), *lines])


def _said(point: list[float], stable: bool, rests: bool, cut: bool) -> str:
    """A point reached, and what is known of it."""
    numbers = ", ".join(_first(point, three_digits, "…"))
    if cut:
        return f"on its way at p = ({numbers}) when steps ran out: where it leads is not known"
    return f"p* = ({numbers}), {'stable' if stable else 'not stable' if rests else 'not at rest yet'}"


def _first(point: list[float], written: Callable[[float], str], more: str) -> list[str]:
    """The numbers of the first tokens, as they are written, and that there are more."""
    return [*map(written, point[:_SHOWN]), *[more] * (len(point) > _SHOWN)]


@torch.no_grad()
def drift(m: Method, probs: Any, truth: Any, **context: Any) -> Tensor:
    """E over y ~ truth of Q − p, the expected step of the logits.

    Where the labels are drawn from the model itself, as in on-policy distillation, the truth is the model:
    `drift(m, probs, probs)`.

    Parameters
    ----------
    m
        An id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token.
    probs, truth : array of float, (…, V)
        Distributions; they broadcast. At probability zero the drift is its limit.
    **context
        By the usual names: logits and masks (V,) or (…, V), numbers per token a number or (…).

    Returns
    -------
    Tensor, (…, V)
        It sums to zero. Where the drift separates by token it takes time linear in V, elsewhere V².

    Raises
    ------
    ValueError
        If either is not a distribution, a context is missing, the method is not shift-invariant, or its drift must be
        added up over the labels of a vocabulary too large for that.
    """
    m = catalogue.as_method(m, "drift")
    probs, truth = _distribution(m, "probs", probs), _distribution(m, "truth", truth)
    try:
        probs, truth = torch.broadcast_tensors(probs, truth)
    except RuntimeError:
        raise ValueError(
            f"{m.name}: probs and truth: expected shapes that broadcast, got {tuple(probs.shape)} and "
            f"{tuple(truth.shape)}"
        ) from None
    flow = _flow(m, truth, context)
    if flow.vocab > _FOLLOWED:  # below, all labels in turn are the quicker
        flow = separated_flow(flow) or flow
    if flow.vocab > _SUMMED and not isinstance(flow, SeparableFlow):
        raise ValueError(
            f"{m.name}: expected at most {_SUMMED} tokens where the drift does not separate by token, got "
            f"{flow.vocab}: gradients of all labels are added up, in a time that grows with V²"
        )
    rows = torch.arange(len(flow.truth))
    return flow.drift(logits_of(probs.reshape(flow.truth.shape)), rows).reshape(probs.shape)


@torch.no_grad()
def optimum(m: Method, truth: Any, start: Any = None, *, basins: int = 0, **context: Any) -> Optimum:
    """The distribution at which training settles when the labels are drawn from `truth`.

    Where theory writes the optimum down, or solves it by one root because the drift separates by token, it is the only
    one, and exact. Elsewhere the flow dz/dt = drift is followed from `start` to its end, and from other starts (the
    truth, and near every token), so that methods with several optima show them; stability is decided by the Jacobian
    of the drift. Detached losses have no minimiser, only this. Where the drift separates, time and memory are linear in
    V, and beyond 10⁴ tokens there are fewer other starts; elsewhere following the flow grows with V³, and more than 64
    tokens are refused.

    Parameters
    ----------
    m
        An id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token.
    truth : array of float, (…, V)
    start : array of float, (…, V), optional
        Where training begins, every probability positive; uniform by default.
    basins : int
        How many random starts tell what share of the simplex leads to which optimum; 0 leaves `basin` out. They also
        find optima that the usual starts miss. The flow of each is followed, 64 of them in about a second. Seeded.
    **context
        As for `drift`.

    Raises
    ------
    ValueError
        If the truth or the start is not a distribution, the start has a zero, a context is missing, the method is not
        shift-invariant, or its flow must be followed in a vocabulary too large for that.
    """
    m = catalogue.as_method(m, "optimum")
    truth = _distribution(m, "truth", truth)
    flow = _flow(m, truth, context)
    begin = None if start is None else _start(m, start, truth.shape)
    draws = _draws(m, flow, basins)
    found, reached = _search(flow, begin, draws)
    lead = truth.shape[:-1]
    return Optimum(
        probs=reached.probs.reshape(truth.shape),
        all=tuple(found),
        stable=reached.stable.reshape(lead),
        exists=torch.tensor([len(f) > 0 for f in found]).reshape(lead),
        converged=reached.converged.reshape(lead),
        cut=reached.cut.reshape(lead),
        basin=_basins(flow, draws, found) if basins else None,
        _flow=flow,
    )


@torch.no_grad()
def closed_form(m: QMap, truth: Tensor, **context: Any) -> ClosedForm | None:
    """The optimum at truths (B, V) written down, where theory has it for all of them."""
    return closed_form_of(flow_of(m, truth, context))


@dataclass(frozen=True, eq=False)
class StablePoints:
    """The stable zeros of one method's drift at truths (B, V)."""

    points: tuple[Tensor, ...]  # B tensors (n, V)
    form: ClosedForm | None
    _flow: Flow

    @torch.no_grad()
    def rests_at(self, i: int, points: Tensor) -> bool:
        """Whether every one of points (n, V) is a stable zero at truth i, also one that the search did not find."""
        return len(points) == 0 or bool(is_stable_zero(self._flow, points, torch.full((len(points),), i)).all())


@torch.no_grad()
def stable_points_of(m: QMap, truth: Tensor, **context: Any) -> StablePoints:
    """Where the drift of a method comes to rest for truths (B, V)."""
    flow = flow_of(m, truth, context)
    return StablePoints(tuple(_search(flow)[0]), closed_form_of(flow), flow)


def _search(flow: Flow, begin: Tensor | None = None, *others: Tensor) -> tuple[list[Tensor], EndPoint]:
    """The stable zeros of each truth, and where `begin` (B, V), uniform by default, leads; found from there, from
    `others` (B, S, V) and from those of `_default_starts`. An optimum that theory writes down, or finds as the root of
    one equation, is the only one: then no flow is followed."""
    first = torch.full_like(flow.truth, 1 / flow.vocab) if begin is None else begin
    only = known_value(flow)
    exact = separable_optima(flow) if only is None else None
    if exact is not None and bool(exact.unique.all()):
        only = exact.probs
    if only is not None:
        certain = torch.ones(len(first), dtype=torch.bool)
        return list(only[:, None]), EndPoint(only, certain, certain, certain, ~certain)
    starts = torch.cat([first[:, None], _default_starts(flow, exact), *others], 1)
    if exact is not None and flow.vocab <= _FACED:
        starts = torch.cat([starts, _faces(flow)], 1)
    count, many, v = starts.shape
    ends = _ends(flow, starts)
    found = []
    for i in range(count):
        mine = slice(i * many, (i + 1) * many)
        stable = ends.stable[mine]
        reached, well = ends.probs[mine][stable], ends.exact[mine][stable]
        points = _distinct(reached, well)
        if exact is not None:
            likeliest = flow.truth[i].topk(min(v, _VERTICES)).indices.sort().values
            alone = likeliest[exact.vertex_is_stable[i, likeliest]]
            alone = alone[(points[:, alone] < 1 - SAME_POINT).all(0)]  # no other entry is farther from a single token
            corners = torch.zeros(len(alone), v, dtype=points.dtype).scatter_(-1, alone[:, None], 1.0)
            inner = int(stable[:2].sum())  # whither the first start and the truth lead: they come before single tokens
            inner = len(_distinct(reached[:inner], well[:inner]))
            points = torch.cat([points[:inner], corners, points[inner:]])
        found.append(points)
    return found, EndPoint(*(x[::many] for x in ends))


def _ends(flow: Flow, starts: Tensor) -> EndPoint:
    """Where the flow leads from starts (B, S, V), one after the other, (B S, …)."""
    b, s, v = starts.shape
    if v > _FACED:  # below, a matrix is the quicker Jacobian
        flow = separated_flow(flow) or flow
    if v > _FOLLOWED and not isinstance(flow, SeparableFlow):
        raise ValueError(
            f"{flow.m.name}: expected at most {_FOLLOWED} tokens where the drift neither separates by token nor has an "
            f"optimum in a formula, got {v}: its flow must be followed, in time and memory that grow with V³"
        )
    rows = torch.arange(b).repeat_interleave(s)
    size = 1 if isinstance(flow, SeparableFlow) else v**2
    pieces = zip(
        logits_of(starts.reshape(-1, v)).split(k := max(_ENTRIES // (v * size), 1)), rows.split(k), strict=True
    )
    return EndPoint(*map(torch.cat, zip(*(follow(flow, z, at) for z, at in pieces), strict=True)))


def _distinct(points: Tensor, exact: Tensor) -> Tensor:
    """The points (n, V) without those that repeat an earlier one; those on a jump of the drift, which are not `exact`,
    are known less well."""
    kept: list[Tensor] = []
    for point, well in zip(points, exact.tolist(), strict=True):
        if all(float((point - other).abs().max()) > (SAME_POINT if well else ARRIVED) for other in kept):
            kept.append(point)
    return torch.stack(kept) if kept else points


def _default_starts(flow: Flow, exact: Separable | None) -> Tensor:
    """The truth, moved a little inside, and for each of the likeliest tokens a point near its vertex; (B, S, V). Of
    vertices that theory knows to be stable there is nothing to find out."""
    v = flow.vocab
    inside = 0.999 * flow.truth + 0.001 / v
    likely = flow.truth.argsort(dim=-1, descending=True, stable=True)[:, :_VERTEX_STARTS]
    if exact is not None:
        likely = likely[:, ~exact.vertex_is_stable.gather(-1, likely).all(0)]
    near = 0.1 / v + 0.9 * torch.nn.functional.one_hot(likely, v).double()
    return torch.cat([inside[:, None], near], 1)[:, : max(_STARTED // v - 1, 0)]


def _draws(m: QMap, flow: Flow, count: int) -> Tensor:
    """Random distributions, uniform on the simplex and the same for every truth, (B, S, V)."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(f"{m.name}: basins: expected a number of starts, 0 or more, got {count!r}")
    r = torch.Generator().manual_seed(0)
    waits = -torch.rand(count, flow.vocab, generator=r, dtype=torch.float64).clamp(min=1e-300).log()
    return (waits / waits.sum(-1, keepdim=True)).expand(len(flow.truth), -1, -1)


def _basins(flow: Flow, draws: Tensor, found: list[Tensor]) -> tuple[Tensor, ...]:
    """What share of draws (B, S, V) the flow leads to each point found."""
    b, s, v = draws.shape
    ends = _ends(flow, draws).probs.view(b, s, v)
    near = [(end[:, None] - points[None]).abs().amax(-1) < ARRIVED for end, points in zip(ends, found, strict=True)]
    return tuple(n.double().mean(0) for n in near)


def _faces(flow: Flow) -> Tensor:
    """The truth given that the token is in a set, moved a little inside, for every set of at least two; (B, S, V)."""
    v = flow.vocab
    sets = torch.tensor([s for s in itertools.product((0.0, 1.0), repeat=v) if sum(s) >= 2], dtype=torch.float64)
    shares = flow.truth[:, None] * sets + 1e-3 / v
    return shares / shares.sum(-1, keepdim=True)


def flow_of(m: QMap, truth: Any, context: dict[str, Any]) -> Flow:
    """The flow of a method at truths (…, V), B of them in all; ValueError where either or a context does not fit."""
    return _flow(m, _distribution(m, "truth", truth), context)


def _flow(m: QMap, truth: Tensor, context: dict[str, Any]) -> Flow:
    if not m.shift_invariant:
        raise ValueError(f"{m.name}: not shift-invariant, so it has no target and no population optimum")
    lead = truth.shape[:-1]
    spread = {k: _spread(k, value, truth) for k, value in context.items() if value is not None}
    labels = torch.zeros(lead, dtype=torch.long)
    t, _ = read(m.name, m.needs, torch.zeros_like(truth), labels, -100, spread)
    return Flow(m, truth.reshape(-1, truth.shape[-1]), t.given)


def _spread(name: str, value: Any, truth: Tensor) -> Tensor:
    """A context given once, repeated for every truth; a shape that does not fit is left for `read` to complain of."""
    value = tensor_of(value)
    value = value.to(torch.float64) if value.is_floating_point() else value
    shape = truth.shape[:-1] if name in PER_TOKEN else truth.shape
    return value.expand(shape) if value.shape in (shape[-1:] if value.dim() else (), ()) else value


def _start(m: QMap, start: Any, shape: torch.Size) -> Tensor:
    """Distributions of this shape, or one for all, none of them on the boundary; (B, V)."""
    p = _distribution(m, "start", start)
    p = p.expand(shape) if p.shape == shape[-1:] else p
    if p.shape != shape:
        raise ValueError(f"{m.name}: start: expected shape {tuple(shape)}, got {tuple(p.shape)}")
    if not bool((p > 0).all()):
        raise ValueError(
            f"{m.name}: start: expected every probability positive, got a zero, which training never leaves"
        )
    return p.reshape(-1, shape[-1])


def _distribution(m: QMap, argument: str, value: Any) -> Tensor:
    p = tensor_of(value)
    if not p.is_floating_point():
        p = p.to(torch.float64)
    p = p.detach().to("cpu", torch.float64)
    if p.dim() == 0 or p.shape[-1] < 2:
        raise ValueError(f"{m.name}: {argument}: expected shape (…, V) with V ≥ 2, got {tuple(p.shape)}")
    if not bool((p >= 0).all()):
        raise ValueError(f"{m.name}: {argument}: expected probabilities of 0 or more, got {float(p.min()):g}")
    total = p.sum(-1)
    if not bool(((total - 1).abs() < 1e-5).all()):
        worst = total.flatten()[(total.flatten() - 1).abs().argmax()]
        raise ValueError(f"{m.name}: {argument}: expected probabilities that sum to 1, got a sum of {float(worst):g}")
    return p / total[..., None]
