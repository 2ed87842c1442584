"""The target that any Python loss teaches, from its gradient by automatic differentiation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qunify.maps._pulls import Gated, Pulled
from qunify.maps._qmap import FromFunctions, Pulls, QMap
from qunify.maps._remembered import remembered
from qunify.maps._target import QTarget, finish
from qunify.samples import two_tokens
from qunify.token import CONTEXTS, TensorToken, Token, as_tensor, read

LossFunction = Callable[..., Tensor]
#: What is taken wherever a method is asked for: an id of the catalogue, a QMap or its class, or a loss function.
Method = str | QMap | type[QMap] | LossFunction


class LossFunctionMap(FromFunctions):
    """Somebody's loss function, measured by automatic differentiation."""

    family = "foreign"
    title = "Loss function"
    summary = "Measured by automatic differentiation."
    function: LossFunction

    @classmethod
    def of(cls, function: LossFunction) -> LossFunctionMap:
        """With the contexts that its signature names."""
        try:
            taken = inspect.signature(function).parameters
        except (TypeError, ValueError):  # some built-in functions have no signature
            taken = {}  # type: ignore[assignment]
        return cls(name=name_of(function), function=function, needs=tuple(n for n in CONTEXTS if n in taken))

    def __repr__(self) -> str:
        return f"<{self.name}, a loss function>"

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Measured, on a small batch."""
        return _shift_invariant(self)

    def __call__(self, logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any) -> QTarget:
        given = {name: context.get(name) for name in self.needs}
        return induced(self.function, logits, labels, ignore_index=ignore_index, **given)

    def loss(self, t: Token) -> Tensor:
        return self._run(t)[0]

    def pulls(self, t: Token) -> Pulls:
        return (self._run(t)[1],)

    def _run(self, t: Token) -> tuple[Tensor, Tensor]:
        if not isinstance(t, TensorToken):
            raise TypeError(f"{self.name}: a function of tensors has no symbols")
        given = loss_arguments({name: t.given[name] for name in self.needs})
        q = induced(self.function, t.logits, t.index[:, 0], **given)
        return q.loss[:, None], q.gradient.to(t.logits.dtype)


@remembered
def _shift_invariant(m: LossFunctionMap) -> bool:
    t = two_tokens()
    given = loss_arguments({name: t.given[name] for name in m.needs})
    return bool(induced(m.function, t.logits, t.index[:, 0], **given).shift_invariant)


def name_of(function: LossFunction) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def published(m: QMap) -> LossFunction:
    """A method's published loss as a function such as `induced` takes: of logits (N, V), labels (N,) and contexts, one
    loss per token."""
    if isinstance(m, LossFunctionMap):
        return m.function

    def loss(logits: Tensor, labels: Tensor, **context: Tensor) -> Tensor:
        given = {name: value[:, None] if value.dim() == 1 else value for name, value in context.items()}
        losses: Tensor = m.loss(TensorToken(logits, labels, given, m.name))
        return (losses + 0 * logits.sum(-1, keepdim=True))[:, 0]  # so that autograd takes a constant loss, too

    loss.__name__ = m.name
    return loss


def induced(loss_fn: LossFunction, logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any) -> QTarget:
    """The target that any loss function implies.

    Parameters
    ----------
    loss_fn : callable
        `loss_fn(logits, labels, **context)` → one loss per token, shape (…), in nats. It sees the kept rows
        only, as (N, V) and (N,), in float64 whatever the input, so that what is measured is not rounding.
    logits, labels, context
        As for a QMap; exactly the contexts given are passed on.

    Returns
    -------
    QTarget
        `shift_invariant` is measured (per token: where it fails, the target is NaN; `violation` has the size).
        Trust is measured where the target is a gate (one ratio Q_k/p_k for every k ≠ y) and NaN elsewhere. The
        fixed gauge needs the pulls that a gradient is made of, which are not known here: it is NaN.

    Raises
    ------
    ValueError
        If `loss_fn` is no function, or the losses have the wrong shape, are not finite, or do not depend on the logits
        differentiably.
    """
    if not callable(loss_fn):
        raise ValueError(f"induced: loss_fn: expected a function (logits, labels, …), got {loss_fn!r}")
    who = name_of(loss_fn)
    logits, context = _double(who, "logits", logits), {name: _double(who, name, x) for name, x in context.items()}
    t, layout = read(who, None, logits, labels, ignore_index, context)
    if int(layout.mask.sum()):
        rows = t.logits.masked_fill(~t.allowed, -torch.inf).requires_grad_()
        losses, gradient = _differentiate(who, loss_fn, rows, t.index[:, 0], t)
    else:
        losses, gradient = t.p_label[:, 0], t.policy.probs
    # A loss that casts its logits to float32 inside gives a gradient of that precision.
    single = bool((gradient.float().to(gradient.dtype) == gradient).all())
    rounding = rounding_of_zeros(gradient, torch.float32 if single else gradient.dtype, losses)
    invariant = gradient.sum(-1, keepdim=True).abs() <= rounding
    return finish(losses[:, None], _measured(t, gradient, rounding), layout, invariant)


def _double(who: str, name: str, x: Any) -> Any:
    if x is None:  # a missing context: `read` complains of it by name
        return None
    tensor = as_tensor(who, name, x)
    return tensor.double() if tensor.is_floating_point() else tensor


def loss_arguments(context: Mapping[str, Tensor]) -> dict[str, Any]:
    """Contexts as a loss function takes them: one number per token is (N,), where a Token has (N, 1)."""
    return {name: x[:, 0] if name.startswith("token_") else x for name, x in context.items()}


def check_losses(who: str, losses: Any, *shapes: tuple[int, ...], advice: str = "") -> None:
    """ValueError unless a loss function gave a tensor of one of these shapes: one loss per token comes first."""
    got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    if got not in shapes:
        reduced = ", or their mean or sum" if () in shapes else ""
        hint = f"; {advice}" if advice else ""
        raise ValueError(f"{who}: expected one loss per token, shape {shapes[0]}{reduced}, got {got}{hint}")


def _differentiate(
    who: str, loss_fn: LossFunction, rows: Tensor, labels: Tensor, t: TensorToken
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        losses = loss_fn(rows, labels, **loss_arguments(t.given))
        check_losses(who, losses, tuple(labels.shape), advice="return the losses before they are reduced")
        if not losses.requires_grad:
            raise ValueError(f"{who}: expected losses that depend differentiably on the logits, got none that do")
        (gradient,) = torch.autograd.grad(losses.sum(), rows)
    for what, value in (("losses", losses), ("gradient", gradient)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{who}: expected finite {what}, got {value[~value.isfinite()][0].item()}")
    return losses.detach().to(rows.dtype), gradient


def rounding_of_zeros(gradient: Tensor, computed_in: torch.dtype, losses: Tensor | None = None) -> Tensor:
    """How far from 0 rounding can leave an entry of gradients (N, V) by automatic differentiation that should be 0,
    (N, 1): a share of its row's sum of magnitudes, and a smaller share of the largest row or loss of the batch."""
    eps = torch.finfo(computed_in).eps
    rows = gradient.abs().sum(-1, keepdim=True)
    sizes = rows[:, 0] if losses is None else torch.cat([losses.abs(), rows[:, 0]])
    return eps**0.75 * rows + 64 * eps * (sizes.amax() if sizes.numel() else 0.0)


def _measured(t: TensorToken, gradient: Tensor, rounding: Tensor) -> Pulled:
    """A gradient as pulls: where it is a gate, its weight is the pull toward the label; elsewhere pulls are unknown."""
    p, gate = t.policy.probs, Gated.of(gradient, t.policy.probs, t.index, rounding)
    on_label = torch.where(gate.holds, gate.weight, torch.nan)
    return Pulled(
        policy=p,
        gradient=gradient,
        on_label=on_label,
        off_label_sum=torch.zeros_like(p),
        off_label=torch.zeros_like(on_label),
        weights=torch.full_like(on_label, torch.nan),
        magnitude=gradient.abs(),
        log_conditioning=1 - t.policy.log,
    )
