"""Do two methods settle at the same places? Proved where theory has one closed form for both, else measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qunify import catalogue
from qunify._lib.tolerances import ROUNDING, SAME_OPTIMUM
from qunify.maps import Alias, NotFinite, QMap, judged_alone, remembered
from qunify.population import FirstZeros, StablePoints, closed_form, first_zeros_of, stable_points_of
from qunify.samples import SIZES, aliased, around_truths, sizes
from qunify.symbolic import Step

#: Truths over four tokens, from nearly certain to nearly flat, none with a tie; at the first, margins are passed.
TRUTHS = (
    (0.79, 0.15, 0.05999, 1e-5),
    (0.85, 0.08, 0.04, 0.03),
    (0.55, 0.25, 0.15, 0.05),
    (0.4, 0.3, 0.2, 0.1),
    (0.28, 0.26, 0.24, 0.22),
)

#: Tokens of one more truth, for what is not of the catalogue, whose own k nobody can read: the k likeliest tokens are
#: all tokens where there are four.
MORE = 24


@dataclass(frozen=True)
class SharedOptima:
    """Whether two methods have the same stable population optima, and how that is known."""

    same: bool
    proved: bool = False
    steps: tuple[Step, ...] = ()


@remembered
def _stable(m: QMap, alias: Alias = (), vocab: int = 4) -> StablePoints:
    truths = torch.tensor(TRUTHS, dtype=torch.float64) if vocab == 4 else _flat(vocab)
    return stable_points_of(m, truths, **_context(m, truths, alias))


def _flat(vocab: int) -> torch.Tensor:
    """A truth (1, V) of which no token has much."""
    falling = torch.arange(vocab, 0, -1, dtype=torch.float64)[None] ** -1
    return falling / falling.sum()


@remembered
def _first(m: QMap, alias: Alias = ()) -> FirstZeros:
    truths = torch.tensor(TRUTHS, dtype=torch.float64)
    return first_zeros_of(m, truths, **_context(m, truths, alias))


@remembered
def _in_small_vocabularies_only(m: QMap, alias: Alias = ()) -> bool:
    """Whether the closed form holds at TRUTHS, but not in vocabularies larger than a parameter of the method: top-k
    distillation has the teacher as its optimum while V ≤ k."""
    large = max(sizes(m))
    if _stable(m, alias).form is None or large == max(SIZES):
        return False
    truth = _flat(large)
    return closed_form(m, truth, **_context(m, truth, alias)) is None


def _context(m: QMap, truths: torch.Tensor, alias: Alias) -> dict[str, torch.Tensor]:
    context = aliased(around_truths(truths), alias)
    return {name: context[name] for name in m.needs}


def share_optima(a: QMap, b: QMap, alias: Alias = ()) -> SharedOptima:
    """Both methods' optima side by side. A loss that is not shift-invariant has none; of a function whose tokens
    interact, or that stops being finite near certainty, none is found."""
    if judged_alone(a, b):
        return SharedOptima(False)
    if not (a.shift_invariant and b.shift_invariant) or clearly_apart(a, b, alias):
        return SharedOptima(False)
    try:
        return SharedOptima(False) if apart_after_one_search(a, b, alias) else side_by_side(a, b, alias)
    except NotFinite:
        return SharedOptima(False)


def clearly_apart(a: QMap, b: QMap, alias: Alias = ()) -> bool:
    """Whether a stable zero of one drift is clearly none of the other's: then no search is needed."""
    try:
        x, y = _first(a, alias), _first(b, alias)
        return x.moved_by(y) or y.moved_by(x)
    except NotFinite:
        return False


def apart_after_one_search(a: QMap, b: QMap, alias: Alias = ()) -> bool:
    """Whether a stable zero of one drift is none that a search for all of the other's finds, nor one that it missed.
    What is searched is the drift of which none is known."""
    known, searched = (a, b) if len(_first(a, alias).rows) else (b, a)
    x, y = _first(known, alias), _stable(searched, alias)
    return not all(_among(y, i, point) for i, point in zip(x.rows.tolist(), x.probs, strict=True))


def _among(x: StablePoints, i: int, point: torch.Tensor) -> bool:
    near = (x.points[i] - point).abs().amax(-1) < SAME_OPTIMUM
    return bool(near.any()) or x.rests_at(i, point[None])


def side_by_side(a: QMap, b: QMap, alias: Alias = ()) -> SharedOptima:
    """The verdict after a search for all stable zeros of both."""
    if _in_small_vocabularies_only(a, alias) or _in_small_vocabularies_only(b, alias):
        return SharedOptima(False)
    x, y = _stable(a, alias), _stable(b, alias)
    if x.form is not None and y.form is not None and x.form.key == y.form.key:
        return SharedOptima(True, True, (Step(x.form.latex, "one closed form for both optima"),))
    if not _same_everywhere(x, y):
        return SharedOptima(False)
    tried = f"{len(TRUTHS)} truths over 4 tokens"
    if not (catalogue.has(a) and catalogue.has(b)):
        if not _same_everywhere(_stable(a, alias, MORE), _stable(b, alias, MORE)):
            return SharedOptima(False)
        tried += f" and one over {MORE}"
    said = f"the same stable optima at {tried}, to {SAME_OPTIMUM:g}, by numbers"
    return SharedOptima(True, False, (Step(rf"\text{{{said}}}", said),))


def _same_everywhere(x: StablePoints, y: StablePoints) -> bool:
    """Whether there are stable points, and the same of both at every truth."""
    return any(map(len, x.points)) and all(_same_points(i, x, y) for i in range(len(x.points)))


def _same_points(i: int, x: StablePoints, y: StablePoints) -> bool:
    """Whether every stable point of one method is one of the other. One that the other's search did not find is tested
    by itself, unless closed forms say that both searches found all."""
    p, q = x.points[i], y.points[i]
    known = x.form is not None and y.form is not None
    near = (p[:, None] - q[None]).abs().amax(-1) < (ROUNDING if known else SAME_OPTIMUM)
    alone_p, alone_q = p[~near.any(1)], q[~near.any(0)]
    if known:
        return len(alone_p) == len(alone_q) == 0
    return y.rests_at(i, alone_p) and x.rests_at(i, alone_q)
