"""How somebody's loss function is called: its arguments, its reduction, and the precision that it computes in.

It is given copies, which it may change in place. Its casts to narrower types are left out, once its own numbers are
seen to be the same to the rounding of these types: a verdict is on the loss as it is written.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from qunify.samples import spread_over_u
from qunify.token import CONTEXTS

LossFunction = Callable[..., Tensor]

FEW = 8  # rows on which is found out what it computes in and how it reduces a batch
TOKENS = 5  # the vocabulary of these rows
_NARROW = (torch.float32, torch.float16, torch.bfloat16)  # by their rounding


def name_of(function: LossFunction) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def type_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


class NotFinite(ValueError):
    """A loss or its gradient is NaN or infinite."""


class Run(NamedTuple):
    """What one call gave."""

    losses: Tensor  # (N,), or () where the function reduces them
    gradient: Tensor  # (N, V) of their sum


@dataclass(frozen=True)
class Calling:
    """How a loss function is called, and what it does with a batch."""

    function: LossFunction
    contexts: tuple[str, ...]
    accepted: tuple[str, ...]  # names of arguments after logits and labels
    needs_items: bool  # num_items_in_batch is a required argument
    reduction: str  # none, mean, sum or other
    ratio: float  # a token's gradient in a batch of FEW over its gradient alone
    separate: bool  # that ratio is the same for all tokens
    precision: torch.dtype  # what it computes in: float64 where it casts to nothing narrower
    widened: bool  # its casts are left out

    @classmethod
    def of(cls, function: LossFunction, contexts: tuple[str, ...]) -> Calling:
        """Found out by calling it on a few tokens.

        Raises
        ------
        ValueError
            It cannot be called with these contexts, or gives no finite, differentiable loss.
        """
        accepted, needs_items = _signature(function, contexts)
        p = spread_over_u(TOKENS, 0)[:FEW]
        given = {name: p.context[name] for name in contexts}
        items = {"num_items_in_batch": FEW} if needs_items else {}
        whole, precision, widened = tried(function, p.logits, p.labels, given | items)
        how = cls(function, contexts, accepted, needs_items, "none", 1.0, True, precision, widened)
        alone = torch.cat([r.gradient for r in how._apart(p.logits, p.labels, given)])
        unit = alone.abs().max().clamp(min=torch.finfo(alone.dtype).tiny)  # squares of gradients of 1e200 are infinite
        alone, together = alone / unit, whole.gradient / unit
        if bool(together.any()) and not bool(alone.any()):
            raise ValueError(
                f"{name_of(function)}: expected the gradient of a token given alone, got none: does it choose "
                "among the tokens of a batch, or compare the logits of a position with the label of the next one? Give "
                "it logits and labels that line up"
            )
        ratio = float((together * alone).sum() / (alone**2).sum()) if bool(alone.any()) else 1.0
        near = max(1e-5, torch.finfo(how.rounding).eps ** 0.75)
        separate = bool((together - ratio * alone).norm() <= near * together.norm())
        if whole.losses.dim():
            reduction = "none"
            separate &= abs(ratio - 1) < near
        else:
            known = {"sum": 1.0, "mean": 1 / FEW}
            reduction = next((k for k, v in known.items() if separate and abs(ratio / v - 1) < near), "other")
        return cls(function, contexts, accepted, needs_items, reduction, ratio, separate, precision, widened)

    def check_repeatable(self) -> None:
        """ValueError where two calls with the same arguments give other gradients."""
        p = spread_over_u(24, 0)
        given = {name: p.context[name] for name in self.contexts}
        once, again = (self.run(p.logits, p.labels, {**given, **self.items(len(p.labels))}).gradient for _ in range(2))
        if bool((once - again).norm() > 1e-5 * again.norm()):
            raise ValueError(
                f"{name_of(self.function)}: expected the same gradient from two calls on the same tokens, got two: it "
                "is random, or remembers its calls. Sum over what it samples in place of sampling (on estimators such "
                "as k1, k2 and k3 see the documentation's Questions: Does the reverse KL need samples from the "
                "student?), or seed it at every call"
            )

    @property
    def apart(self) -> bool:
        """Whether tokens must be given one at a time."""
        return not self.separate or self.reduction == "other"

    @property
    def rounding(self) -> torch.dtype:
        """The type to whose rounding a gradient is measured."""
        return torch.float64 if self.widened else self.precision

    def items(self, n: int) -> dict[str, int]:
        return {"num_items_in_batch": n} if self.needs_items else {}

    def run(self, logits: Tensor, labels: Tensor, context: Mapping[str, Any]) -> Run:
        """One call with these very arguments."""
        try:
            return run(self.function, logits, labels, context, _widened() if self.widened else None)
        except ValueError as error:
            vocab = logits.shape[-1]
            if error.__cause__ is None or vocab >= TOKENS:
                raise
            raise ValueError(
                f"{error}; with {TOKENS} tokens it ran, with {vocab} it does not: of a top-k take min(k, V)"
            ) from error.__cause__

    def gradient(self, logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """The gradient of every token's own loss, (N, V)."""
        if self.apart:
            return torch.cat([r.gradient for r in self._apart(logits, labels, context)])
        n = len(labels)
        return self.run(logits, labels, {**context, **self.items(n)}).gradient * (n if self.reduction == "mean" else 1)

    def each(self, logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> Run:
        """Every token's own loss, (N,), and its gradient, (N, V)."""
        if self.reduction == "none" and self.separate:
            return self.run(logits, labels, {**context, **self.items(len(labels))})
        runs = self._apart(logits, labels, context)
        return Run(torch.stack([r.losses.sum() for r in runs]), torch.cat([r.gradient for r in runs]))

    def _apart(self, logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> list[Run]:
        rows = [slice(i, i + 1) for i in range(len(labels))]
        return [self.run(logits[i], labels[i], {k: x[i] for k, x in context.items()} | self.items(1)) for i in rows]


def run(
    function: LossFunction,
    logits: Tensor,
    labels: Tensor,
    context: Mapping[str, Any],
    mode: Widened | None = None,
    *,
    reduced: bool = True,
) -> Run:
    """Losses, also `reduced` ones, and the gradient of their sum, from copies of the arguments.

    Raises
    ------
    ValueError
        What the function raises, with its name and the same message; or the losses have the wrong shape, are not
        finite, or do not depend on the logits differentiably.
    """
    who = name_of(function)
    leaf = logits.detach().clone().requires_grad_()
    given = {name: x.clone() if isinstance(x, Tensor) else x for name, x in context.items()}
    with torch.enable_grad(), mode or contextlib.nullcontext():
        try:
            losses = function(leaf.clone(), labels.clone(), **given)
        except Exception as error:
            names = "".join(f", {name}" for name in context)
            called = f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}{names}"
            what = type(error).__name__
            raise ValueError(f"{who} raised {what} when called with {called}{_said(error)}") from error
        check_losses(who, losses, tuple(labels.shape), reduced=reduced)
        if not losses.requires_grad:
            raise ValueError(
                f"{who}: expected losses that depend differentiably on the logits, got none that do; "
                "look for .detach(), .item(), argmax or torch.no_grad() on the way"
            )
        try:
            (gradient,) = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)
        except RuntimeError as error:
            what = f"{type(error).__name__} in the backward pass{_said(error)}"
            raise ValueError(f"{who}: expected losses that can be differentiated, got {what}") from error
    if gradient is None:
        raise ValueError(
            f"{who}: expected losses that depend differentiably on the logits, got losses that depend on something "
            "else; use the logits argument itself"
        )
    losses = losses.detach().to(logits.dtype)
    for what, value in (("losses", losses), ("gradient", gradient)):
        if not bool(value.isfinite().all()):
            raise NotFinite(
                f"{who}: expected finite {what}, got {value[~value.isfinite()][0].item()}; "
                "look for the log or the power of a number that may be 0, and use log_softmax"
            )
    return Run(losses, gradient)


def _said(error: Exception) -> str:
    return f": {error}" if str(error) else ""


def check_losses(who: str, losses: Any, shape: tuple[int, ...], *, reduced: bool = False) -> None:
    """ValueError unless a loss function gave a tensor of this shape, one loss per token, or `reduced` them to one."""
    got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    if got != shape and not (reduced and got == ()):
        expected = f"one loss per token, shape {shape}{', or their mean or sum' if reduced else ''}"
        advice = "the losses before they are reduced" if got == () else "a tensor with one number per row of logits"
        raise ValueError(f"{who}: expected {expected}, got {got}; return {advice}")


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


# ---- precision -----------------------------------------------------------------------------------------------


class Widened(TorchDispatchMode):
    """Every number is computed in float64: casts to narrower types are left out, and so are narrower constants."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Asked by torch, which hides the mode from its compiler: that would load the compiler, for seconds."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.asked = torch.float64  # the narrowest type to which a float64 was to be cast
        self.mended = False  # it gave float64 to an operation together with narrower tensors of its own

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        narrow = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype) and x in _NARROW]
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if narrow:
            if any(x.dtype == torch.float64 for x in tensors):
                self.asked = max(self.asked, *narrow, key=lambda x: torch.finfo(x).eps)
            args, kwargs = tree_map(_wide_type, args), tree_map(_wide_type, kwargs)
        try:
            made = func(*args, **kwargs)
        except RuntimeError:
            self.mended = True
            made = func(*tree_map(_wide, args), **tree_map(_wide, kwargs))
        return made if tensors else tree_map(_wide, made)


class _WidenedApart(Widened):
    """The same where a compiler is loaded, as it is for a loss that is compiled: it must not compile the mode too."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def _widened() -> Widened:
    return _WidenedApart() if "torch._dynamo" in sys.modules else Widened()


def _wide_type(x: Any) -> Any:
    return torch.float64 if isinstance(x, torch.dtype) and x in _NARROW else x


def _wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.dtype in _NARROW else x


class Tried(NamedTuple):
    """A first call."""

    run: Run
    precision: torch.dtype  # what the function computes in: float64 where it casts to nothing narrower
    widened: bool  # its casts were left out


def tried(
    function: LossFunction, logits: Tensor, labels: Tensor, context: Mapping[str, Any], *, reduced: bool = True
) -> Tried:
    """A function's casts may be left out where half of the digits of the narrower type stay the same, at the median
    token."""
    call = functools.partial(run, function, logits, labels, context, reduced=reduced)
    mode = _widened()
    try:
        wide = call(mode)
    except ValueError:  # what it does cannot be done in float64, or at all
        own = call()
        return Tried(own, _quantised(own.gradient), False)
    if mode.mended:
        return Tried(wide, mode.asked, True)
    if mode.asked == torch.float64:
        return Tried(wide, _quantised(wide.gradient), False)
    own = call()
    apart = (own.gradient - wide.gradient).norm(dim=-1) / wide.gradient.norm(dim=-1).clamp(min=1e-300)
    difference = float(apart.median()) if len(apart) else 0.0
    if difference <= 1e-12:
        return Tried(own, torch.float64, False)
    for dtype in _NARROW[_NARROW.index(mode.asked) :]:
        if difference <= torch.finfo(dtype).eps ** 0.5:
            return Tried(wide, dtype, True)
    return Tried(own, _quantised(own.gradient), False)


def _quantised(gradient: Tensor) -> torch.dtype:
    """The narrowest type that every number of a gradient fits."""
    various = len(gradient.unique()) > FEW
    fitting = (x for x in reversed(_NARROW) if various and bool((gradient == gradient.to(x)).all()))
    return next(fitting, torch.float64)
