"""What a page of the catalogue says of its method, computed: numbers at one token, a curve, a field, an end."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import qunify as qu
from analyses.studies.simplex import NAMED, REFERENCE, STARTS, TRUTH, inside, moved
from qunify.commands import one_token
from qunify.properness import Properness
from qunify.qmap import QMap
from qunify.token import CONTEXTS

#: What methods ask for in the world of three tokens, beside the truth: distributions, numbers, and the tokens to be
#: avoided.
WORLD: dict[str, tuple[float, ...] | float] = {
    **{need: probs for need, _, probs in NAMED},
    "prior_logits": REFERENCE,
    "token_weight": 1.0,
    "token_mask": 1.0,
    "negative_mask": (0.0, 0.0, 1.0),
}
#: What the distributions of that world are called.
NAMES = {need: name for need, name, _ in NAMED} | {"prior_logits": "prior"}
STEP = 0.02  # of a path, in probability
NEAR = 1e-4  # two distributions closer than this are called the same


@dataclass(frozen=True)
class Curve:
    """What the method does to the label's logit while u = p_y goes from 0 to 1 and the others keep their shares."""

    u: Tensor  # (N,)
    pull: Tensor  # −g_y, (N,)
    trust: Tensor  # γ in the unit gauge, (N,); NaN where there is none
    gate: bool  # whether the gradient is one weight times p − δ: then the trust is that weight


@dataclass(frozen=True)
class Field:
    """Where training leads on three tokens."""

    points: Tensor  # (N, 3)
    moves: Tensor  # dp/dt there, (N, 3)
    paths: Tensor  # (steps, starts, 3)
    end: qu.Optimum
    named: dict[str, tuple[float, ...]]  # the other distributions that the method asks for


@dataclass(frozen=True)
class Facts:
    """One method at its default parameters."""

    m: QMap
    example: dict[str, Any]
    curve: Curve
    field: Field | None  # none for a loss without a target
    closed_form: str | None
    verdict: Properness

    @property
    def year(self) -> int:
        return year(self.m)

    @property
    def summary(self) -> str:
        text = self.m.summary
        return text[:1].upper() + text[1:]


@torch.no_grad()
def of(name: str) -> Facts:
    m = qu.get(name)
    field = _field(m) if m.shift_invariant else None
    return Facts(
        m=m,
        example=one_token.example(m),
        curve=curve(m),
        field=field,
        closed_form=None if field is None else field.end.closed_form,
        verdict=qu.is_proper(m),
    )


def year(m: QMap) -> int:
    """The year of the method's source: the first one named, arXiv numbers apart."""
    found = re.search(r"(?<![\d:.])(?:19|20)\d\d(?![\d.])", m.source)
    if found is None:
        raise ValueError(f"{m.name}: source: expected a year, got {m.source!r}")
    return int(found[0])


# ---- along u ------------------------------------------------------------------------------------------------------


def curve(m: QMap, points: int = 401) -> Curve:
    u = torch.linspace(0.0025, 0.9975, points, dtype=torch.float64)
    q, is_gate = one_token.along(m, u, mass=sum(one_token.WEIGHTS))
    return Curve(u, -q.gradient[:, one_token.LABEL], q.trust, m.shift_invariant and is_gate)


# ---- on three tokens ----------------------------------------------------------------------------------------------


def _given(m: QMap) -> dict[str, Tensor]:
    """What the method needs there."""
    values = {name: torch.tensor(WORLD[name], dtype=torch.float64) for name in m.needs}
    return {name: value.log() if name.endswith("_logits") else value for name, value in values.items()}


def _field(m: QMap) -> Field:
    given = _given(m)

    def moves(p: Tensor) -> tuple[Tensor, Tensor]:
        """The drift, and what it does to the probabilities."""
        dz = qu.drift(m, p, TRUTH, **given)
        return dz, moved(p, dz)

    points = inside()
    named = {name: value for name, value in WORLD.items() if name in m.needs and name in NAMES}
    return Field(points, moves(points)[1], _paths(moves), qu.optimum(m, TRUTH, **given), named)


def _paths(moves: Callable[[Tensor], tuple[Tensor, Tensor]], steps: int = 90) -> Tensor:
    """Gradient flow from STARTS in steps of equal length, which shrink where it turns back: there it has arrived."""
    z = torch.tensor(STARTS, dtype=torch.float64).log()
    length = torch.full((len(z), 1), STEP, dtype=torch.float64)
    before, path = torch.zeros_like(z), [z.softmax(-1)]
    for _ in range(steps):
        b, dp = moves(path[-1])
        length = torch.where((before * dp).sum(-1, keepdim=True) < 0, length / 2, length)
        z = z + (length * b / dp.norm(dim=-1, keepdim=True).clamp(min=1e-6)).clamp(-1, 1)
        path.append(z.softmax(-1))
        before = dp
    return torch.stack(path)


# ---- in words -----------------------------------------------------------------------------------------------------


def numbers(values: Sequence[float] | Tensor) -> str:
    return f"({', '.join(f'{x:.3f}' for x in torch.as_tensor(values).tolist())})"


def ending(facts: Facts) -> str:
    """Where training ends in the world of three tokens, in words."""
    field = facts.field
    if field is None:
        return "The loss is not shift-invariant: it has no target, and so no drift toward one."
    points = field.end.all[0]
    if len(points) == 0:
        return "No stable zero of the drift was found: there is no point that training by it alone would return to."
    if len(points) > 1:
        listed = ", ".join(numbers(p) for p in points)
        reached = f"From the uniform distribution training reaches {numbers(field.end.probs)}."
        if not bool(field.end.converged):
            reached = "From the uniform distribution none of them is reached."
        return f"The drift has {len(points)} stable zeros, {listed}, and the start decides between them. {reached}"
    point = points[0]
    words = f"Training settles at $p^*$ = {numbers(point)}: {_told(facts, point)}."
    if float((field.end.probs - point).abs().max()) > NEAR:
        words += f" From the uniform distribution it is not reached: the flow was last at {numbers(field.end.probs)}."
    return words


def _place(facts: Facts, point: Tensor) -> str:
    """Of a point that training settles at, in a few words."""
    truth = torch.tensor(TRUTH, dtype=torch.float64)
    assert facts.field is not None

    def same(other: Sequence[float] | Tensor) -> bool:
        return float((point - torch.as_tensor(other, dtype=torch.float64)).abs().max()) < NEAR

    if same(truth):
        return "the truth"
    for name, value in facts.field.named.items():
        if same(value):
            return f"the {NAMES[name]}"
    if float(point.max()) > 1 - NEAR:
        return "the likeliest token" if point.argmax() == truth.argmax() else "one token"
    gap = _entropy(point) - _entropy(truth)
    return "as spread out as the truth" if abs(gap) < NEAR else f"{'flatter' if gap > 0 else 'sharper'} than the truth"


def _told(facts: Facts, point: Tensor) -> str:
    """The same in a sentence's words."""
    place = _place(facts, point)
    if place == "the truth":
        return "the truth itself"
    if place.endswith("token"):
        return f"all mass on {place}"
    if place.endswith("the truth"):
        apart = float((point - torch.tensor(TRUTH, dtype=torch.float64)).abs().sum() / 2)
        return f"{place}, and {apart:.3f} from it in total variation"
    return f"{place}, whatever the labels say"


def _entropy(p: Tensor) -> float:
    return float(-torch.xlogy(p, p).sum())


def rest(facts: Facts) -> str:
    """How training by it ends, in one of a few words, for the index."""
    if facts.field is None:
        return "no target"
    points = facts.field.end.all[0]
    if len(points) == 0:
        return "no stable zero"
    if len(points) > 1:
        return "several, as the start decides"
    return _place(facts, points[0])


assert set(WORLD) == set(CONTEXTS)
