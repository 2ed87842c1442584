"""Where does a loss act? A condition on the token without which it is silent: the label's rank, or its probability."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qunify.comparison._subjects import Jump, Measured, Subject
from qunify.samples import ROWS, Batch, spread_over_u

Flags = np.ndarray[Any, np.dtype[np.bool_]]  #: (N,)


@dataclass(frozen=True)
class Condition:
    """A loss acts where this holds, and nowhere else.

    Attributes
    ----------
    words : str
        For instance "where the label is among the teacher's 3 likeliest tokens".
    holds : function
        Of a batch, (N,) of bool.
    """

    words: str
    holds: Callable[[Batch], Flags]


def condition_of(
    subject: Subject, measured: Sequence[Measured], used: Sequence[str], jumps: Sequence[Jump]
) -> Condition | None:
    """The condition under which a loss has a gradient at these tokens; None where it always has, or nothing plain tells
    when."""
    acts = [_acts(q) for q in measured]
    together = np.concatenate(acts)
    if together.all() or not together.any():
        return None
    candidates = [*_by_rank(subject, used), *_by_probability(measured, acts, jumps)]
    for condition in candidates:
        if all(np.array_equal(condition.holds(q.batch), a) for q, a in zip(measured, acts, strict=True)):
            return condition
    return None


def _acts(q: Measured) -> Flags:
    found: Flags = q.gradient.any(dim=-1).numpy()
    return found


def _by_rank(subject: Subject, used: Sequence[str]) -> Iterator[Condition]:
    """Read off one token of the largest vocabulary, with each of its tokens as the label in turn."""
    vocab = max(ROWS)
    one = spread_over_u(vocab, 0)[torch.zeros(vocab, dtype=torch.long)]
    every = Batch(one.logits, torch.arange(vocab), one.context)
    acts = _acts(subject(every))
    whose = {"": "", **{name: f"{name.removesuffix('_logits')}'s " for name in used if name.endswith("_logits")}}
    for name, of in whose.items():
        inside = acts[np.argsort(_ranks(every, name))]
        k = int(inside.argmin() if inside[0] else inside.argmax())  # tokens before the first that is otherwise
        if k and (inside[k:] != inside[0]).all():
            among = "among" if inside[0] else "not among"
            words = f"where the label is {among} the {of}{k} likeliest tokens"
            yield Condition(words, functools.partial(_is_within, name, k, bool(inside[0])))


def _is_within(name: str, k: int, inside: bool, p: Batch) -> Flags:
    return (_ranks(p, name) <= k) == inside


def _ranks(p: Batch, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of the label in a context's logits, or in the model's own: 1 is the likeliest."""
    z = p.context[name] if name else p.logits
    found: np.ndarray[Any, np.dtype[np.int64]] = (1 + (z > z.gather(1, p.labels[:, None])).sum(-1)).numpy()
    return found


def _by_probability(measured: Sequence[Measured], acts: Sequence[Flags], jumps: Sequence[Jump]) -> Iterator[Condition]:
    """An interval of u; its ends are the jumps that were measured, or of what lies between two tokens the number with
    the fewest digits."""
    u, there = np.concatenate([_u(q.batch) for q in measured]), np.concatenate(acts)
    low, high = u[there].min(), u[there].max()
    below, above = u[u < low], u[u > high]
    ends = [
        _between(float(a), float(b), jumps) for a, b in ((below.max(initial=-1.0), low), (high, above.min(initial=2.0)))
    ]
    said = [f"{end:.6g}" if 0 < end < 1 else "" for end in ends]
    if any(said):
        words = " < ".join(x for x in (said[0], "u", said[1]) if x) if all(said) else f"u {'>' if said[0] else '<'} "
        words += "" if all(said) else "".join(said)
        yield Condition(f"where {words}", functools.partial(_is_between, ends[0], ends[1]))


def _is_between(low: float, high: float, p: Batch) -> Flags:
    return (_u(p) > low) & (_u(p) < high)


def _u(p: Batch) -> np.ndarray[Any, np.dtype[np.float64]]:
    found: np.ndarray[Any, np.dtype[np.float64]] = p.token.p_label[:, 0].numpy()
    return found


def _between(low: float, high: float, jumps: Sequence[Jump]) -> float:
    if low < 0 or high > 1:  # no token beyond
        return low if low < 0 else high
    for j in jumps:
        if low <= j.u <= high:
            return next((x for x in (round(j.u, d) for d in range(1, 6)) if abs(x - j.u) < 1e-7), j.u)
    return next((x for x in (round((low + high) / 2, d) for d in range(1, 7)) if low <= x <= high), (low + high) / 2)
