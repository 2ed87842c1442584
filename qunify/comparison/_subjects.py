"""Fixed tokens on which an unknown loss is tried, and the careful calling of it."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify.maps import Gated, LossFunction, QMap, check_losses, logit_gradient, name_of, remembered, rounding_of_zeros
from qunify.samples import Batch, along_u, spread_over_u
from qunify.token import CONTEXTS

FEW = 8  # rows of the batch on which is found out how a loss reduces it


@torch.no_grad()
def gradient_of(m: QMap, batch: Batch) -> Tensor:
    """A method's gradient at every token of a batch, (N, V)."""
    return logit_gradient(batch.token, m.pulls(batch.token))


@dataclass(frozen=True)
class Subject:
    """A loss under examination: how it is called, how it reduces, and what it does to one token alone."""

    loss_fn: LossFunction
    contexts: tuple[str, ...]
    needs_items: bool  # num_items_in_batch is a required argument
    reduction: str  # none, mean, sum or other
    notes: tuple[str, ...]  # how it treats a batch, in sentences
    apart: bool  # rows must be given one at a time
    dtype: torch.dtype  # float32 or float64: what it computes in

    @property
    def name(self) -> str:
        return name_of(self.loss_fn)

    def __call__(self, p: Batch, **context: Tensor) -> Measured:
        """The gradient at every token of a batch; `context` replaces contexts of the batch."""
        given = {name: p.context[name] for name in self.contexts} | context
        if self.apart:
            rows = [
                _gradient(self.loss_fn, p[i : i + 1], _rows(given, i) | self._items(1)) for i in range(len(p.labels))
            ]
            return Measured(p, torch.cat(rows), self.dtype)
        gradient = _gradient(self.loss_fn, p, given | self._items(len(p.labels)))
        return Measured(p, gradient * (len(p.labels) if self.reduction == "mean" else 1), self.dtype)

    def _items(self, n: int) -> dict[str, int]:
        return {"num_items_in_batch": n} if self.needs_items else {}


@dataclass(frozen=True)
class Measured:
    """The gradient of a loss at every token of a probe, and what can be read off it."""

    batch: Batch
    gradient: Tensor  # (N, V)
    dtype: torch.dtype  # what it was computed in, which says how large rounding is

    @functools.cached_property
    def rounding(self) -> Tensor:
        return rounding_of_zeros(self.gradient, self.dtype)  # (N, 1)

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


def jumps_of(subject: Subject, most: int = 8) -> tuple[Jump, ...]:
    """The largest jumps of a gate's weight that depends on u alone, the first first."""
    ends = torch.logspace(-6, -3, 151, dtype=torch.float64)
    u = torch.cat([ends[:-1], torch.linspace(0.001, 0.999, 1000, dtype=torch.float64), (1 - ends[:101]).flip(0)])
    u = u[u < 1 - 1e-5]
    weight = _weight(subject, u)
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
            k = int(_weight(subject, at).diff().abs().argmax())
            at = at[k : k + 2]
        below, above = _weight(subject, at).tolist()
        if abs(above - below) > height / 2:  # else it is only steep
            found.append(Jump(float(at.mean()), below, above))
    return tuple(sorted(found))


def _weight(subject: Subject, u: Tensor) -> Tensor:
    return subject(along_u(u)).gate.weight[:, 0]


def beside(jumps: Sequence[Jump]) -> Batch:
    """Tokens close to jumps, on both sides: a threshold can only be read off tokens on either side of it."""
    away = torch.logspace(-7, -3, 9, dtype=torch.float64)
    near = [torch.empty(0, dtype=torch.float64), *(x for j in jumps for x in (j.u - away, j.u + away))]
    return along_u(torch.cat(near).clamp(1e-9, 1 - 1e-5))


def call(loss_fn: LossFunction, logits: Tensor, labels: Tensor, **context: Any) -> Any:
    """The function's own value; what it raises comes back with the function's name and the same message.

    Raises
    ------
    ValueError
    """
    try:
        return loss_fn(logits, labels, **context)
    except Exception as error:
        given = f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}{''.join(f', {k}' for k in context)}"
        raise ValueError(
            f"{name_of(loss_fn)} raised {type(error).__name__} when called with {given}{_said(error)}"
        ) from error


def _said(error: Exception) -> str:
    return f": {error}" if str(error) else ""


def examine(loss_fn: LossFunction, contexts: Sequence[str]) -> Subject:
    """How a loss wants to be called, and what it does with a batch.

    Raises
    ------
    ValueError
        It cannot be called with the contexts named, or gives no finite, differentiable loss, or no gradient that two
        calls agree on.
    """
    contexts = (contexts,) if isinstance(contexts, str) else tuple(contexts)
    accepted, needs_items = _signature(loss_fn, contexts)
    try:
        return _examined(loss_fn, contexts, accepted, needs_items)
    except ValueError:
        for arranged in ARRANGEMENTS:
            try:
                subject = _examined(arranged.on_rows(loss_fn), contexts, accepted, needs_items)
            except ValueError:
                continue
            if bool(subject(spread_over_u(5, 0)[:FEW]).gradient.any()):
                return replace(subject, notes=(arranged.note, *subject.notes))
        raise


def _examined(
    loss_fn: LossFunction, contexts: tuple[str, ...], accepted: tuple[str, ...], needs_items: bool
) -> Subject:
    p = spread_over_u(5, 0)[:FEW]
    given = {name: p.context[name] for name in contexts}
    items = {"num_items_in_batch": FEW} if needs_items else {}
    shape = _shape(loss_fn, call(loss_fn, p.logits.clone().requires_grad_(), p.labels, **given, **items))
    together = _gradient(loss_fn, p, given | items)
    one = {"num_items_in_batch": 1} if needs_items else {}
    alone = torch.cat([_gradient(loss_fn, p[i : i + 1], _rows(given, i) | one) for i in range(FEW)])
    _check_repeatable(loss_fn, contexts, needs_items)
    if bool(together.any()) and not bool(alone.any()):
        raise ValueError(
            f"{name_of(loss_fn)}: expected the gradient of a token given alone, got none: does it compare the logits "
            "of a position with the label of the next one? Give it logits and labels that line up"
        )

    ratio = float((together * alone).sum() / (alone**2).sum()) if bool(alone.any()) else 1.0
    separate = bool((together - ratio * alone).norm() <= 1e-5 * together.norm())
    if shape:
        reduction = "none"
        separate &= abs(ratio - 1) < 1e-5
    else:
        known = {"sum": 1.0, "mean": 1 / FEW}
        reduction = next((k for k, v in known.items() if separate and abs(ratio / v - 1) < 1e-5), "other")
    behaviour = _Behaviour(
        reduction,
        ratio,
        separate,
        items=_use_of_items(loss_fn, p, given) if "num_items_in_batch" in accepted else "not taken",
        ignored=_use_of_ignored(loss_fn, p, given, items, together) if reduction == "mean" else "",
        unnamed=tuple(name for name in accepted if name in CONTEXTS and name not in contexts),
    )
    apart = not separate or reduction == "other"
    dtype = _precision(loss_fn, together)
    return Subject(loss_fn, contexts, needs_items, reduction, behaviour.sentences(), apart, dtype)


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

    reduction: str  # none, sum, mean or other
    ratio: float  # a token's gradient in the batch over its gradient alone
    separate: bool  # that ratio is the same for all tokens
    items: str  # what it does with num_items_in_batch: a key of _ITEMS, or "not taken"
    ignored: str  # what a mean does with ignored tokens: a key of _IGNORED, or "" where nothing is to be said
    unnamed: tuple[str, ...]  # contexts in its signature that the caller has not named

    def sentences(self) -> tuple[str, ...]:
        said = []
        if self.reduction != "none":
            said.append(_REDUCTIONS[self.reduction].format(factor=f"{self.ratio:.4g}", rows=FEW))
        if not self.separate:
            said.append(_INTERACTING)
        if self.items != "not taken":
            said.append(_ITEMS[self.items])
        elif self.reduction == "mean":
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


def _signature(loss_fn: LossFunction, contexts: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The names it accepts after logits and labels, and whether it insists on num_items_in_batch."""
    who = name_of(loss_fn)
    for name in contexts:
        if name not in CONTEXTS:
            near = difflib.get_close_matches(name, CONTEXTS, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(CONTEXTS)}"
            raise ValueError(f"{who}: contexts: unknown context {name!r}, {hint}")
    try:
        parameters = list(inspect.signature(loss_fn).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature: the call will tell
        return (), False
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)][2:]
    accepted = tuple(p.name for p in named)
    for name in contexts:
        if name not in accepted and not anything:
            takes = ", ".join(accepted) or "no argument besides logits and labels"
            raise ValueError(
                f"{who}: contexts: it takes no argument {name}; leave it out of contexts, or rename its own ({takes})"
            )
    required = [p.name for p in named if p.default is p.empty and p.name not in contexts]
    missing = [name for name in required if name in CONTEXTS]
    if missing:
        raise ValueError(f"{who}: needs {', '.join(missing)}; add contexts=({', '.join(map(repr, missing))},)")
    unknown = [name for name in required if name != "num_items_in_batch"]
    if unknown:
        raise ValueError(
            f"{who}: needs {', '.join(unknown)}, which is no known context; bind it with functools.partial, "
            f"or rename it to one of {', '.join(CONTEXTS)}"
        )
    return accepted, "num_items_in_batch" in required


def _check_repeatable(loss_fn: LossFunction, contexts: tuple[str, ...], needs_items: bool) -> None:
    """ValueError where two calls with the same arguments give other gradients."""
    p = spread_over_u(24, 0)
    given = {name: p.context[name] for name in contexts} | (
        {"num_items_in_batch": len(p.labels)} if needs_items else {}
    )
    if not _same(*(_gradient(loss_fn, p, given) for _ in range(2))):
        raise ValueError(
            f"{name_of(loss_fn)}: expected the same gradient from two calls on the same tokens, got two: it is random, "
            "or remembers its calls. Sum over what it samples in place of sampling (on estimators such as k1, k2 and "
            "k3 see the documentation's Questions: Does the reverse KL need samples from the student?), or seed it at "
            "every call"
        )


def _shape(loss_fn: LossFunction, losses: Any) -> tuple[int, ...]:
    """The shape of what it returned, (FEW,) or (); ValueError for anything but differentiable losses."""
    who = name_of(loss_fn)
    advice = f"return a tensor with one number for each of the {FEW} rows of logits"
    check_losses(who, losses, (FEW,), (), advice=advice)
    if not losses.requires_grad:
        raise ValueError(
            f"{who}: expected losses that depend differentiably on the logits, got none that do; "
            "look for .detach(), .item(), argmax or torch.no_grad() on the way"
        )
    return losses.shape


def _gradient(loss_fn: LossFunction, p: Batch, given: dict[str, Any]) -> Tensor:
    """The gradient of the sum of the losses by the logits, (N, V); ValueError where it is none or not finite."""
    logits = p.logits.clone().requires_grad_()
    with torch.enable_grad():
        losses = call(loss_fn, logits, p.labels, **given).sum()
        try:
            (gradient,) = torch.autograd.grad(losses, logits, allow_unused=True)
        except RuntimeError as error:
            raise ValueError(
                f"{name_of(loss_fn)}: expected losses that can be differentiated, got {type(error).__name__} in the "
                f"backward pass{_said(error)}"
            ) from error
    if gradient is None:
        raise ValueError(
            f"{name_of(loss_fn)}: expected losses that depend differentiably on the logits, got losses that "
            "depend on something else; use the logits argument itself"
        )
    for what, value in (("losses", losses.detach()), ("gradient", gradient)):
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{name_of(loss_fn)}: expected a finite {what.removesuffix('es')} on ordinary logits, got "
                f"{value[~value.isfinite()][0].item()}; look for the log or the power of a number that may be 0, "
                "and use log_softmax"
            )
    return gradient


def _precision(loss_fn: LossFunction, gradient: Tensor) -> torch.dtype:
    """The precision that a loss computes in: float32 if every number of its gradient fits one, else float64."""
    various = len(gradient.unique()) > FEW
    for half in (torch.bfloat16, torch.float16):
        if various and bool((gradient == gradient.to(half)).all()):
            raise ValueError(
                f"{name_of(loss_fn)}: computes in {str(half).removeprefix('torch.')}, whose rounding hides which loss "
                "it is; compute it in float32 or float64"
            )
    return torch.float32 if various and bool((gradient == gradient.float()).all()) else torch.float64


def _rows(given: dict[str, Tensor], i: int) -> dict[str, Any]:
    return {k: v[i : i + 1] for k, v in given.items()}


def _use_of_items(loss_fn: LossFunction, p: Batch, given: dict[str, Tensor]) -> str:
    """What it does with num_items_in_batch, by giving it the number and twice the number: a key of _ITEMS."""
    once, twice = (_gradient(loss_fn, p, given | {"num_items_in_batch": n}) for n in (FEW, 2 * FEW))
    if _same(once, 2 * twice):
        return "divides"
    return "ignores" if _same(once, twice) else "other"


def _use_of_ignored(
    loss_fn: LossFunction, p: Batch, given: dict[str, Tensor], items: dict[str, int], together: Tensor
) -> str:
    """What a mean does where half of the labels are -100: a key of _IGNORED, or "" where it leaves them out."""
    labels = p.labels.clone()
    labels[FEW // 2 :] = -100
    try:
        half = _gradient(loss_fn, Batch(p.logits, labels, p.context), given | items)
    except ValueError:
        return "refused"
    kept = slice(0, FEW // 2)
    return "counted" if _same(half[kept], together[kept]) else ""


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= 1e-5 * b.norm())
