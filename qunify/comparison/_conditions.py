"""Where is something so of a loss, say that it acts at all? A condition on the token: the label's rank, its
probability, or how sure the model is."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunify.comparison._subjects import Jump, Measured, Subject
from qunify.samples import ROWS, Batch, spread_over_u

Flags = np.ndarray[Any, np.dtype[np.bool_]]  #: (N,)

#: Numbers of a token, (N, 1), that may have to lie in an interval, as they are written in the condition.
NUMBERS: dict[str, Callable[[Any], Tensor]] = {
    "u": lambda t: t.p_label,
    "max p": lambda t: t.policy.probs.amax(-1, keepdim=True),
    "entropy": lambda t: t.entropy(t.policy),
    "entropy / log V": lambda t: t.entropy(t.policy) / math.log(t.policy.probs.shape[-1]),
}


@dataclass(frozen=True)
class Condition:
    """Something that tells tokens apart.

    Attributes
    ----------
    words : str
        For instance "where the label is among the teacher's 3 likeliest tokens".
    holds : function
        Of a batch, (N,) of bool.
    """

    words: str
    holds: Callable[[Batch], Flags]

    @property
    def others(self) -> Condition:
        """That it does not hold."""
        return Condition(f"not {self.words}", lambda p: ~self.holds(p))


def condition_of(
    subject: Subject, measured: Sequence[Measured], used: Sequence[str], jumps: Sequence[Jump]
) -> Condition | None:
    """The condition under which a loss has a gradient at these tokens; None where it always has, or nothing plain tells
    when."""
    for condition in conditions_of(_acts, subject, measured, used, jumps):
        if all(np.array_equal(condition.holds(q.batch), _acts(q)) for q in measured):
            return condition
    return None


def conditions_of(
    so: Callable[[Measured], Flags],
    subject: Subject,
    measured: Sequence[Measured],
    used: Sequence[str],
    jumps: Sequence[Jump],
) -> Iterator[Condition]:
    """Plain conditions under which something is `so`, (N,) of bool, at all of these tokens: the label's rank by the
    model or by another, its probability, and how sure the model is. By chance it may be so where they do not hold, too.
    """
    flags = [so(q) for q in measured]
    together = np.concatenate(flags)
    if together.all() or not together.any():
        return
    by_number = (_by_number(name, measured, together, jumps if name == "u" else ()) for name in NUMBERS)
    for condition in itertools.chain(_by_rank(so, subject, used), *by_number):
        if not any((condition.holds(q.batch) & ~f).any() for q, f in zip(measured, flags, strict=True)):
            yield condition


def _acts(q: Measured) -> Flags:
    found: Flags = q.gradient.any(dim=-1).numpy()
    return found


def _by_rank(so: Callable[[Measured], Flags], subject: Subject, used: Sequence[str]) -> Iterator[Condition]:
    """Read off one token of the largest vocabulary, with each of its tokens as the label in turn."""
    vocab = max(ROWS)
    one = spread_over_u(vocab, 0)[torch.zeros(vocab, dtype=torch.long)]
    every = Batch(one.logits, torch.arange(vocab), one.context)
    flags = so(subject(every))
    whose = {"": "", **{name: f"{name.removesuffix('_logits')}'s " for name in used if name.endswith("_logits")}}
    for name, of in whose.items():
        otherwise = np.flatnonzero(~flags[np.argsort(_ranks(every, name))])
        if not len(otherwise):
            continue
        for k, inside in ((int(otherwise[0]), True), (int(otherwise[-1]) + 1, False)):
            if 0 < k < vocab:
                words = f"where the label is {'' if inside else 'not '}among the {of}{k} likeliest tokens"
                yield Condition(words, functools.partial(_is_within, name, k, inside))


def _is_within(name: str, k: int, inside: bool, p: Batch) -> Flags:
    return (_ranks(p, name) <= k) == inside


def _ranks(p: Batch, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of the label in a context's logits, or in the model's own: 1 is the likeliest."""
    z = p.context[name] if name else p.logits
    found: np.ndarray[Any, np.dtype[np.int64]] = (1 + (z > z.gather(1, p.labels[:, None])).sum(-1)).numpy()
    return found


def _by_number(name: str, measured: Sequence[Measured], flags: Flags, jumps: Sequence[Jump]) -> Iterator[Condition]:
    """The interval of a number with the most tokens; its ends are the jumps that were measured, or of what lies between
    two tokens the number with the fewest digits."""
    x = np.concatenate([_numbers(name, q.batch) for q in measured])
    order = np.argsort(x)
    x, so = x[order], flags[order]
    starts = np.flatnonzero(np.diff(so, prepend=~so[0]))  # of the runs of tokens that are alike
    lengths = np.diff(starts, append=len(x)) * so[starts]
    first, count = starts[lengths.argmax()], lengths.max()
    end = first + count
    low = _between(x[first - 1], x[first], jumps) if first else -np.inf
    high = _between(x[end - 1], x[end], jumps) if end < len(x) else np.inf
    yield from _interval(name, low, high)


def at_jumps(jumps: Sequence[Jump]) -> Iterator[Condition]:
    """Below the only jump of a gate's weight, or between two."""
    if len(jumps) in (1, 2):
        low, high = [-np.inf, *map(_plain, jumps)][-2:]
        yield from _interval("u", low, high)


def _interval(name: str, low: float, high: float) -> Iterator[Condition]:
    """The condition that a number lies between two others; none where every number does."""
    said = [f"{end:.6g}" if np.isfinite(end) else "" for end in (low, high)]
    one = f"{name} {'>' if said[0] else '<'} {''.join(said)}"
    words = f"{said[0]} < {name} < {said[1]}" if all(said) else one
    if any(said):
        yield Condition(f"where {words}", functools.partial(_is_between, name, low, high))


def _is_between(name: str, low: float, high: float, p: Batch) -> Flags:
    x = _numbers(name, p)
    return (x > low) & (x < high)


def _numbers(name: str, p: Batch) -> np.ndarray[Any, np.dtype[np.float64]]:
    found: np.ndarray[Any, np.dtype[np.float64]] = NUMBERS[name](p.token)[:, 0].numpy()
    return found


def _between(low: float, high: float, jumps: Sequence[Jump]) -> float:
    for j in jumps:
        if low <= j.u <= high:
            return _plain(j)
    middle = (low + high) / 2
    return float(next((x for x in (round(middle, d) for d in range(1, 7)) if low <= x <= high), middle))


def _plain(jump: Jump) -> float:
    """Where it is, with no more digits than it was read off with."""
    return next((x for x in (round(jump.u, d) for d in range(1, 6)) if abs(x - jump.u) < 1e-7), jump.u)
