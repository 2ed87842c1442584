"""How many steps until one label is learned: gradient descent on single tokens, slow stretches skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import qunify as qu
from qunify.maps import QMap
from qunify.samples import every_context

VOCAB = 10
LABEL, RIVAL = 0, 1  # tokens: the one to learn, and the one a wrong model is sure of
RATE = 0.5  # learning rate
GOAL = 0.9  # a token is learned once its probability is this high
LIMIT = 100_000  # steps
TEACHER = 0.7  # probability of the label
CASES: dict[str, float] = {"easy": 0.6, "hard": 0.02, "wrong": 1e-3}  # p_y at the start
SURE = 0.98  # of the rival, in "wrong"

ONE_BY_ONE = 10_000  # so many steps are never skipped for what is learned in the end
SINGLE = 100  # so many steps are taken one by one
STRIDE = 0.02  # how far the fastest logit may move while steps are skipped
GROWTH = 1.25  # by how much a stretch may be longer than the one before
REST = 1e-7  # a largest gradient below this has come to rest: it could move no logit by 0.01 within LIMIT steps
TURNS = 10  # so often turned round, it has come to rest too


@dataclass(frozen=True, eq=False)
class Tokens:
    """N tokens to learn: where each begins, and the other models' logits there."""

    start: Tensor  # logits, (N, V)
    labels: Tensor  # (N,)
    context: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Learned:
    """When p_y first reached GOAL, and where it was in the end.

    Attributes
    ----------
    steps : Tensor, (N,)
        NaN where it never did within LIMIT.
    end : Tensor, (N,)
        p_y after LIMIT steps, or where the gradient vanished, or at the goal.
    rested : Tensor of bool, (N,)
        Whether the gradient vanished, or only turned to and fro, before LIMIT.
    """

    steps: Tensor
    end: Tensor
    rested: Tensor


def tokens(case: str, seeds: tuple[int, ...]) -> Tokens:
    """One token per seed. How the other tokens share what the label (and the rival) leave is random."""
    logits = []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        taken = [CASES[case], SURE] if case == "wrong" else [CASES[case]]
        shape = torch.randn(VOCAB - len(taken), generator=g, dtype=torch.float64).softmax(-1)
        logits.append(torch.cat([torch.tensor(taken, dtype=torch.float64), (1 - sum(taken)) * shape]).log())
    return given(torch.stack(logits))


def given(start: Tensor) -> Tokens:
    """What methods need besides: reference, old and prior are the initial model; the teacher gives the label TEACHER
    and the rest as the initial model does; weights are one; the likeliest other token is the negative one; tokens are
    numbers by their places."""
    p = start.softmax(-1)
    rest = p.clone()
    rest[:, LABEL] = 0
    teacher = (1 - TEACHER) * rest / rest.sum(-1, keepdim=True)
    teacher[:, LABEL] = TEACHER
    ones = torch.ones(len(start), dtype=torch.float64)
    negative = torch.nn.functional.one_hot(rest.argmax(-1), start.shape[-1]).double()
    values = torch.arange(start.shape[-1], dtype=torch.float64).expand_as(start)
    context = every_context(
        lambda name: teacher.log() if name == "teacher_logits" else start,
        weight=ones,
        mask=ones,
        negative=negative,
        values=values,
    )
    return Tokens(start, torch.full((len(start),), LABEL), context)


def learn(m: QMap, t: Tokens, *, rate: float = RATE, single: int = SINGLE) -> Learned:
    """Gradient descent until every token is learned, at rest, or out of steps.

    After SINGLE steps, many are taken at once: as many as move no logit by more than STRIDE, and GROWTH times those
    before at most, as long as the gradient does not turn round.
    """
    z, n = t.start.clone(), len(t.start)
    context: dict[str, Any] = {name: value for name, value in t.context.items() if name in m.needs}
    stretch, done = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    steps = torch.full((n,), torch.nan, dtype=torch.float64)
    u = z.softmax(-1)[:, LABEL]
    rested, turned = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.long)
    before = torch.zeros_like(z)
    while True:
        open_ = steps.isnan() & ~rested & (done < LIMIT)
        if not bool(open_.any()):
            return Learned(steps, u, rested)
        g = m(z, t.labels, **context).gradient
        size = g.abs().amax(-1)
        back = (g * before).sum(-1) < 0
        turned = turned + (back & (done >= single)).long()
        rested |= open_ & ((size < REST) | (turned > TURNS))
        longest = torch.minimum(STRIDE / (rate * size.clamp(min=1e-300)), LIMIT - done)
        longer = torch.minimum(GROWTH * stretch, longest).clamp(min=1.0)
        stretch = torch.where(back | (done < single), 1.0, longer)
        whole = torch.where(open_ & ~rested, stretch.floor(), 0.0)
        z = z - rate * whole[:, None] * g
        now = z.softmax(-1)[:, LABEL]
        reached = open_ & (now >= GOAL)
        share = (_odds(torch.tensor(GOAL)) - _odds(u)) / (_odds(now) - _odds(u))
        steps = torch.where(reached, (done + share * whole).ceil(), steps)
        done, u, before = done + whole, now, g


def learn_exactly(m: QMap, t: Tokens) -> Learned:
    """`learn`, and where that took long but got there, again step by step: skipping can overshoot an optimum that is
    only just above the goal."""
    found = learn(m, t)
    late = found.steps[~found.steps.isnan()]
    return learn(m, t, single=ONE_BY_ONE) if len(late) and float(late.max()) > SINGLE else found


def _odds(u: Tensor) -> Tensor:
    return torch.logit(u.double(), eps=1e-300)


def optimum(m: QMap, t: Tokens) -> Tensor:
    """p_y where the flow from the start comes to rest, by theory, (N,); NaN where it does not."""
    context: dict[str, Any] = {name: value for name, value in t.context.items() if name in m.needs}
    truth = torch.nn.functional.one_hot(t.labels, t.start.shape[-1]).double()
    found = qu.optimum(m, truth, t.start.softmax(-1), **context)
    return torch.where(found.converged, found.probs[:, LABEL], torch.nan)
