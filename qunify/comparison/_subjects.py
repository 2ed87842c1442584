"""Fixed tokens on which an unknown loss is tried, and the careful calling of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify.maps import (
    FEW,
    Calling,
    Gated,
    LossFunction,
    QMap,
    logit_gradient,
    name_of,
    remembered,
    rounding_of_zeros,
    type_name,
)
from qunify.samples import ROWS, Batch, along_u, spread_over_u
from qunify.token import CONTEXTS


@torch.no_grad()
def gradient_of(m: QMap, batch: Batch) -> Tensor:
    """A method's gradient at every token of a batch, (N, V)."""
    return logit_gradient(batch.token, m.pulls(batch.token))


OUTLIER = 100  # times the middle gradient


@dataclass(frozen=True)
class Subject:
    """A loss under examination: how it is called, and what it does to one token alone."""

    calling: Calling
    notes: tuple[str, ...]  # how it treats a batch, in sentences

    @property
    def contexts(self) -> tuple[str, ...]:
        return self.calling.contexts

    @property
    def name(self) -> str:
        return name_of(self.calling.function)

    def __call__(self, p: Batch, **context: Tensor) -> Measured:
        """The gradient at every token of a batch; `context` replaces contexts of the batch."""
        given = {name: p.context[name] for name in self.contexts} | context
        return Measured(p, self.calling.gradient(p.logits, p.labels, given), self.calling.rounding)

    def together(self, p: Batch) -> Measured:
        """The same where all tokens are given at once, also where they interact."""
        given = {name: p.context[name] for name in self.contexts} | self.calling.items(len(p.labels))
        return Measured(p, self.calling.run(p.logits, p.labels, given).gradient, self.calling.rounding)


@dataclass(frozen=True)
class Measured:
    """The gradient of a loss at every token of a probe, and what can be read off it."""

    batch: Batch
    gradient: Tensor  # (N, V)
    dtype: torch.dtype  # what it was computed in, which says how large rounding is

    @functools.cached_property
    def rounding(self) -> Tensor:
        return rounding_of_zeros(self.gradient, self.dtype, self.batch.token.policy.probs)  # (N, 1)

    @property
    def violation(self) -> Tensor:
        """|Σ_k g_k|, (N,): how far a loss is from being shift-invariant."""
        return self.gradient.sum(-1).abs()

    @property
    def shift_invariant(self) -> bool:
        return bool((self.violation <= self.rounding[:, 0]).all())

    @property
    def target(self) -> Tensor:
        """Q = p − g, (N, V)."""
        return self.batch.token.policy.probs - self.gradient

    @property
    def in_simplex(self) -> Tensor:
        return (self.target >= -self.rounding).all(-1)  # (N,)

    @functools.cached_property
    def gate(self) -> Gated:
        t = self.batch.token
        return Gated.of(self.gradient, t.policy.probs, t.index, self.rounding)

    @property
    def is_gate(self) -> bool:
        return bool(self.gate.holds.all())

    @functools.cached_property
    def _size(self) -> Tensor:
        """The length of every gradient, (N, 1), also of numbers whose squares are infinite."""
        largest = self.gradient.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(self.gradient.dtype).tiny)
        return largest * (self.gradient / largest).norm(dim=-1, keepdim=True)

    @property
    def outliers(self) -> Tensor:
        """Where the gradient is more than a hundred times as large as at the middle token, (N,). Beside such tokens, as
        of a loss that grows like 1/u, nothing that happens elsewhere would count."""
        middle = self._size.median()
        return (self._size[:, 0] > OUTLIER * middle) & bool(middle)

    @property
    def importance(self) -> Tensor:
        """What each token's numbers are multiplied by, (N, 1), where outliers are to count, but for no more than a
        hundred: the middle one has the length 1."""
        middle = self._size.median()
        return OUTLIER / self._size.clamp(min=OUTLIER * middle) if bool(middle) else torch.ones_like(self._size)


@remembered
def is_gate(m: QMap) -> bool:
    """Whether a method's gradient is w (p − δ), by its class or in effect, at tokens of two vocabularies."""
    few = (spread_over_u(5, seed=0)[:60], spread_over_u(24, seed=0)[:12])
    return all(Measured(b, gradient_of(m, b), torch.float64).is_gate for b in few)


class Jump(NamedTuple):
    """A jump of a gate's weight: at the label probability u, from one value to another."""

    u: float
    below: float
    above: float


#: What the other models give the label where ratios to it are to be large.
RARE = 1e-3


def jumps_of(subject: Subject, most: int = 8, elsewhere: float | None = None) -> tuple[Jump, ...]:
    """The largest jumps of a gate's weight as u moves and the rest of the token stays, the first first; `elsewhere` as
    in `along_u`."""
    ends = torch.logspace(-6, -3, 151, dtype=torch.float64)
    u = torch.cat([ends[:-1], torch.linspace(0.001, 0.999, 1000, dtype=torch.float64), (1 - ends[:101]).flip(0)])
    u = u[u < 1 - 1e-5]
    weight = _weight(subject, u, elsewhere)
    rise = weight.diff().abs()
    usual = (
        torch.nn.functional.max_pool1d(rise[None, None], 3, 1, 1)[0, 0].median().clamp(min=1e-3 * weight.abs().max())
    )
    found = []
    for i in rise.argsort(descending=True)[:most].tolist():
        if rise[i] < 10 * usual:
            break
        at, height = u[i : i + 2], rise[i]
        for _ in range(4):
            at = torch.linspace(float(at[0]), float(at[1]), 33, dtype=torch.float64)
            k = int(_weight(subject, at, elsewhere).diff().abs().argmax())
            at = at[k : k + 2]
        below, above = _weight(subject, at, elsewhere).tolist()
        if abs(above - below) > height / 2:  # else it is only steep
            found.append(Jump(float(at.mean()), below, above))
    return tuple(sorted(found))


def _weight(subject: Subject, u: Tensor, elsewhere: float | None) -> Tensor:
    return subject(along_u(u, elsewhere)).gate.weight[:, 0]


def beside(jumps: Sequence[Jump], elsewhere: float | None = None) -> Batch:
    """Tokens close to jumps, on both sides: a threshold can only be read off tokens on either side of it."""
    away = torch.logspace(-7, -3, 9, dtype=torch.float64)
    near = [torch.empty(0, dtype=torch.float64), *(x for j in jumps for x in (j.u - away, j.u + away))]
    return along_u(torch.cat(near).clamp(1e-9, 1 - 1e-5), elsewhere)


def examine(loss_fn: LossFunction, contexts: Sequence[str]) -> Subject:
    """How a loss wants to be called, and what it does with a batch.

    Raises
    ------
    ValueError
        It cannot be called with the contexts named, or gives no finite, differentiable loss, or no gradient that two
        calls agree on.
    """
    contexts = (contexts,) if isinstance(contexts, str) else tuple(contexts)
    try:
        return _examined(loss_fn, contexts)
    except ValueError as error:
        for arranged in ARRANGEMENTS:
            try:
                subject = _examined(arranged.on_rows(loss_fn), contexts)
            except ValueError:
                continue
            if bool(subject(spread_over_u(5, 0)[:FEW]).gradient.any()):
                return replace(subject, notes=(arranged.note, *subject.notes))
        small, large = (_runs(loss_fn, contexts, vocab) for vocab in (min(ROWS), max(ROWS)))
        if large and not small:
            sizes = ", ".join(map(str, ROWS))
            raise ValueError(
                f"{error}; it is tried with vocabularies of {sizes}: of a top-k take min(k, V)"
            ) from error.__cause__
        raise


def _runs(loss_fn: LossFunction, contexts: tuple[str, ...], vocab: int) -> bool:
    p = spread_over_u(vocab, 0)[:FEW]
    try:
        loss_fn(p.logits.clone(), p.labels.clone(), **{name: p.context[name].clone() for name in contexts})
    except Exception:
        return False
    return True


def _examined(loss_fn: LossFunction, contexts: tuple[str, ...]) -> Subject:
    how = Calling.of(loss_fn, contexts)
    how.check_repeatable()
    if how.rounding in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"{name_of(loss_fn)}: computes in {type_name(how.precision)}, whose rounding hides which loss it is; "
            "compute it in float32 or float64"
        )
    p = spread_over_u(5, 0)[:FEW]
    given = {name: p.context[name] for name in how.contexts}
    behaviour = _Behaviour(
        how,
        items=_use_of_items(how, p, given) if "num_items_in_batch" in how.accepted else "not taken",
        ignored=_use_of_ignored(how, p, given) if how.reduction == "mean" else "",
        unnamed=tuple(name for name in how.accepted if name in CONTEXTS and name not in how.contexts),
    )
    return Subject(how, behaviour.sentences())


class Arrangement(NamedTuple):
    """Another way than rows, logits (N, V) and labels (N,), in which a loss may want its tokens."""

    note: str
    twice: bool  # each token is there once more, for its label to meet the logits before it
    flat: bool  # one sequence of all tokens; else each token is a sequence of its own

    def on_rows(self, loss_fn: LossFunction) -> LossFunction:
        """The same loss as a function of rows."""

        @functools.wraps(loss_fn)
        def loss(logits: Tensor, labels: Tensor, **context: Any) -> Any:
            n = len(labels)
            arranged = {k: self._arranged(x) if isinstance(x, Tensor) else x for k, x in context.items()}
            losses = loss_fn(self._arranged(logits), self._arranged(labels, -100), **arranged)
            if not isinstance(losses, Tensor) or losses.dim() == 0:
                return losses
            if self.flat:
                return losses[::2]
            return losses.reshape(n, -1).sum(1) if losses.numel() in (n, (1 + self.twice) * n) else losses

        loss.__name__ = name_of(loss_fn)
        return loss

    def _arranged(self, x: Tensor, first: int | None = None) -> Tensor:
        """What the tokens have, in this arrangement; `first` is the label of a position that none comes before."""
        before = x if first is None else torch.full_like(x, first)
        x = torch.stack([before, x.detach()], 1) if self.twice else x[:, None]
        return x.flatten(0, 1) if self.flat else x


_SHIFTS = (
    "It shifts: the logits of a position are compared with the label of the next one. Give it no labels that are "
    "shifted already."
)
ARRANGEMENTS = (
    Arrangement("It takes sequences, logits (B, T, V); here each token is one of length 1.", twice=False, flat=False),
    Arrangement(_SHIFTS, twice=True, flat=False),
    Arrangement(_SHIFTS, twice=True, flat=True),
)


@dataclass(frozen=True)
class _Behaviour:
    """What a loss does with a batch, found by comparing it with its tokens one at a time."""

    how: Calling
    items: str  # what it does with num_items_in_batch: a key of _ITEMS, or "not taken"
    ignored: str  # what a mean does with ignored tokens: a key of _IGNORED, or "" where nothing is to be said
    unnamed: tuple[str, ...]  # contexts in its signature that the caller has not named

    def sentences(self) -> tuple[str, ...]:
        said = []
        how = self.how
        if how.reduction != "none":
            said.append(_REDUCTIONS[how.reduction].format(factor=f"{how.ratio:.4g}", rows=FEW))
        if how.precision != torch.float64:
            said.append(_PRECISION.format(type=type_name(how.precision)))
        if not how.separate:
            said.append(_INTERACTING)
        if self.items != "not taken":
            said.append(_ITEMS[self.items])
        elif how.reduction == "mean":
            said.append(_NO_ITEMS)
        if self.ignored:
            said.append(_IGNORED[self.ignored])
        if self.unnamed:
            said.append(
                f"Its signature also has {', '.join(self.unnamed)}, left at the default: name them in contexts."
            )
        return tuple(said)


_REDUCTIONS = {
    "sum": "It returns the sum over tokens.",
    "mean": "It returns the mean over tokens.",
    "other": "It returns one number for the batch: on {rows} tokens each counts {factor} times what it counts alone, "
    "which is neither their sum nor their mean.",
}
_PRECISION = "It computes in {type}: what is said of it holds to the rounding of {type}."
_INTERACTING = (
    "Its tokens interact: a token's gradient changes with the others in the batch; here each is judged alone."
)
_ITEMS = {
    "divides": "It divides by num_items_in_batch where that is given.",
    "ignores": "It takes num_items_in_batch and ignores it: with gradient accumulation every micro-batch counts the "
    "same, however few items it has (the accumulation bug).",
    "other": "It takes num_items_in_batch and does something other than dividing by it.",
}
_NO_ITEMS = (
    "It takes no num_items_in_batch, so with gradient accumulation every micro-batch counts the same, "
    "however few items it has."
)
_IGNORED = {
    "refused": "It does not accept the label -100 of ignored tokens.",
    "counted": "It divides by all tokens, the ignored ones (label -100) included.",
}


def _use_of_items(how: Calling, p: Batch, given: dict[str, Tensor]) -> str:
    """What it does with num_items_in_batch, by giving it the number and twice the number: a key of _ITEMS."""
    once, twice = (how.run(p.logits, p.labels, {**given, "num_items_in_batch": n}).gradient for n in (FEW, 2 * FEW))
    if _same(once, 2 * twice):
        return "divides"
    return "ignores" if _same(once, twice) else "other"


def _use_of_ignored(how: Calling, p: Batch, given: dict[str, Tensor]) -> str:
    """What a mean does where half of the labels are -100: a key of _IGNORED, or "" where it leaves them out."""
    labels = p.labels.clone()
    labels[FEW // 2 :] = -100
    try:
        half, whole = (how.run(p.logits, y, {**given, **how.items(FEW)}).gradient for y in (labels, p.labels))
    except ValueError:
        return "refused"
    kept = slice(0, FEW // 2)
    return "counted" if _same(half[kept], whole[kept]) else ""


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= 1e-5 * b.norm())
