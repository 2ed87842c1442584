"""What is computed for the page of one method: numbers at one token, curves, the drift on three tokens, a verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import qunify as qu
from qunify import catalogue
from qunify.catalogue import signature
from qunify.maps import LossFunctionMap, Method, QMap, range_text
from qunify.pictures import _one_token
from qunify.population import (
    SIMPLEX_NAMES,
    SIMPLEX_TRUTH,
    SIMPLEX_WORLD,
    Properness,
    simplex_context,
    simplex_grid,
    simplex_moves,
    simplex_paths,
)
from qunify.samples import ordinary

#: The unit target in words, by what a catalogue entry says of it.
SIMPLEX = {
    "always": "always a distribution",
    "sometimes": "signed at some tokens",
    "never": "always signed",
}
NO_TARGET = "none: the loss is not shift-invariant"


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
class Parameter:
    """One parameter, as the method has it. What was not declared with `param` has neither range nor meaning."""

    name: str
    value: Any
    default: Any = None
    range: str = ""
    doc: str = ""

    @property
    def changed(self) -> bool:
        return self.default is not None and self.value != self.default


@dataclass(frozen=True)
class Facts:
    """One method at the parameters it has."""

    m: QMap
    id: str  # with the parameters that are not at their defaults: gem(beta=0.5)
    parameters: tuple[Parameter, ...]
    target: str  # the unit target in words
    example: dict[str, Any]
    curve: Curve
    field: Field | None  # none for a loss without a target
    closed_form: str | None  # LaTeX
    verdict: Properness

    @property
    def year(self) -> int | None:
        return year(self.m)

    @property
    def heading(self) -> str:
        """The title of a class; a map made by `design` and a function have no title but their name."""
        return (self.m.title if type(self.m).name == self.m.name else "") or self.m.name

    @property
    def summary(self) -> str:
        """In a sentence: of a class from its docstring, of a function the first line of its own."""
        if isinstance(self.m, LossFunctionMap):
            return (self.m.function.__doc__ or "").strip().partition("\n")[0]
        return self.m.summary

    @property
    def family(self) -> str:
        return "a loss function" if isinstance(self.m, LossFunctionMap) else self.m.family

    @property
    def is_entry(self) -> bool:
        return catalogue.has(self.m)

    @property
    def has_target(self) -> bool:
        return self.field is not None


@torch.no_grad()
def of(method: Method) -> Facts:
    """The facts of an id, a QMap or a loss function `(logits, labels, **contexts)`."""
    m = catalogue.as_method(method, "method_page")
    verdict = qu.is_proper(m)
    has_target = m.shift_invariant and verdict.direction != "no target"
    field = _field(m) if has_target else None
    return Facts(
        m=m,
        id=signature(m),
        parameters=parameters(m),
        target=unit_target(m) if has_target else NO_TARGET,
        example=_one_token.example(m) | ({} if has_target else {"gauges": {}}),
        curve=curve(m, has_target),
        field=field,
        closed_form=None if field is None else field.end.closed_form,
        verdict=verdict,
    )


def parameters(m: QMap) -> tuple[Parameter, ...]:
    """The parameters of any QMap: of the catalogue, of a user's own class, or designed."""
    declared = {f.name: f for f in m.parameters() if "doc" in f.metadata}
    return tuple(
        Parameter(name, value, f.default, range_text(f), f.metadata["doc"])
        if (f := declared.get(name))
        else Parameter(name, value)
        for name, value in m.params.items()
    )


def year(m: QMap) -> int | None:
    """The year of the method's source: the first one named, arXiv numbers apart."""
    found = re.search(r"(?<![\d:.])(?:19|20)\d\d(?![\d.])", m.source)
    return None if found is None else int(found[0])


def unit_target(m: QMap) -> str:
    """A catalogue entry says what its target is, which the tests hold it to; of any other map it is measured."""
    if catalogue.has(m):
        return SIMPLEX[m.simplex]
    batch = ordinary(5)
    inside = m(batch.logits, batch.labels, **batch.context).in_simplex
    signed = int((~inside).sum())
    if signed == 0:
        return f"a distribution at each of {len(inside)} random tokens"
    return f"signed at {signed} of {len(inside)} random tokens"


def curve(m: QMap, has_target: bool, points: int = 401) -> Curve:
    """What the page draws on its left."""
    u = torch.linspace(0.0025, 0.9975, points, dtype=torch.float64)
    gradient, trust, is_gate = _one_token.along(m, u, mass=sum(_one_token.WEIGHTS))
    trust = trust if has_target else torch.full_like(u, torch.nan)
    return Curve(u, -gradient[:, _one_token.LABEL], trust, has_target and is_gate)


def _field(m: QMap) -> Field:
    given = simplex_context(m.needs)
    points = simplex_grid()
    return Field(
        points=points,
        moves=simplex_moves(m, points, **given),
        paths=simplex_paths(m, **given),
        end=qu.optimum(m, SIMPLEX_TRUTH, **given),
        named={name: SIMPLEX_WORLD[name] for name in SIMPLEX_NAMES if name in m.needs},  # type: ignore[misc]
    )
