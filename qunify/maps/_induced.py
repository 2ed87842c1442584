"""The target that any Python loss teaches, from its gradient by automatic differentiation."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from qunify.maps._calling import Calling, LossFunction, Run, name_of, tried, type_name
from qunify.maps._pulls import Gated, Pulled
from qunify.maps._qmap import FromFunctions, Pulls, QMap
from qunify.maps._remembered import remembered
from qunify.maps._target import QTarget, finish
from qunify.samples import two_tokens
from qunify.token import CONTEXTS, PER_TOKEN, Layout, TensorToken, Token, as_tensor, read

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
    def calling(self) -> Calling:
        return _calling(self)

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Measured, on a small batch."""
        return _shift_invariant(self)

    def __call__(self, logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any) -> QTarget:
        given = {name: context.get(name) for name in self.needs}
        t, layout = _read(self.name, logits, labels, ignore_index, given)
        found = self.calling.each(*_arguments(t, self.needs)) if len(t.index) else _of_none(t)
        return _target(t, layout, found, self.calling.rounding)

    def loss(self, t: Token) -> Tensor:
        t = _of_tensors(self.name, t)
        return self.calling.each(*_arguments(t, self.needs)).losses.to(t.logits.dtype)[:, None]

    def pulls(self, t: Token) -> Pulls:
        t = _of_tensors(self.name, t)
        return (self.calling.gradient(*_arguments(t, self.needs)).to(t.logits.dtype),)


def _of_tensors(name: str, t: Token) -> TensorToken:
    if not isinstance(t, TensorToken):
        raise TypeError(f"{name}: a function of tensors has no symbols")
    return t


def computed_in(*maps: QMap) -> str:
    """The narrowest type that the functions among some maps compute in."""
    types = [m.calling.precision for m in maps if isinstance(m, LossFunctionMap)]
    return type_name(max([torch.float64, *types], key=lambda x: torch.finfo(x).eps))


def judged_alone(*maps: QMap) -> bool:
    """Whether tokens interact in a function among some maps, so that each token is given to it alone."""
    return any(isinstance(m, LossFunctionMap) and m.calling.apart for m in maps)


def measured_in(precision: str, proved: bool) -> str:
    """How something is known, as verdicts say it: `measured, to the rounding of float32`."""
    return "proved" if proved else "measured" + (f", to the rounding of {precision}" * (precision != "float64"))


@remembered
def _calling(m: LossFunctionMap) -> Calling:
    return Calling.of(m.function, m.needs)


@remembered
def _shift_invariant(m: LossFunctionMap) -> bool:
    t = two_tokens()
    return bool(m(t.logits.double(), t.index[:, 0], **loss_arguments(t.given)).shift_invariant)


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


def induced(
    loss_fn: LossFunction | QMap, logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any
) -> QTarget:
    """The target that any loss function implies.

    Parameters
    ----------
    loss_fn : callable
        `loss_fn(logits, labels, **context)` → one loss per token, shape (…), in nats. It sees the kept rows
        only, as (N, V) and (N,), in float64 whatever the input, so that what is measured is not rounding. A QMap stands
        for its published loss.
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
        If `loss_fn` is neither, or the losses have the wrong shape, are not finite, or do not depend on the logits
        differentiably.
    """
    if isinstance(loss_fn, type) or not callable(loss_fn):
        expected = "a function (logits, labels, …) or a QMap, such as qunify.get gives of an id"
        raise ValueError(f"induced: loss_fn: expected {expected}, got {loss_fn!r}")
    loss_fn = published(loss_fn) if isinstance(loss_fn, QMap) else loss_fn
    t, layout = _read(name_of(loss_fn), logits, labels, ignore_index, context)
    if not len(t.index):
        return _target(t, layout, _of_none(t), torch.float64)
    found, precision, widened = tried(loss_fn, *_arguments(t, t.given), reduced=False)
    return _target(t, layout, found, torch.float64 if widened else precision)


def _read(
    who: str, logits: Any, labels: Any, ignore_index: int, context: Mapping[str, Any]
) -> tuple[TensorToken, Layout]:
    """The kept rows, in float64."""
    given = {name: _double(who, name, x) for name, x in context.items()}
    return read(who, None, _double(who, "logits", logits), labels, ignore_index, given)


def _arguments(t: TensorToken, names: Iterable[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits, labels and these contexts as a loss function takes them."""
    given = {name: t.given[name].double() for name in names}
    return t.logits.double().masked_fill(~t.allowed, -torch.inf), t.index[:, 0], loss_arguments(given)


def _of_none(t: TensorToken) -> Run:
    return Run(t.p_label[:, 0], t.policy.probs)


def _target(t: TensorToken, layout: Layout, found: Run, computed_in: torch.dtype) -> QTarget:
    rounding = rounding_of_zeros(found.gradient, computed_in, t.policy.probs, found.losses)
    invariant = found.gradient.sum(-1, keepdim=True).abs() <= rounding
    return finish(found.losses[:, None], _measured(t, found.gradient, rounding), layout, invariant)


def _double(who: str, name: str, x: Any) -> Any:
    if x is None:  # a missing context: `read` complains of it by name
        return None
    tensor = as_tensor(who, name, x)
    return tensor.double() if tensor.is_floating_point() else tensor


def loss_arguments(context: Mapping[str, Tensor]) -> dict[str, Any]:
    """Contexts as a loss function takes them: one number per token is (N,), where a Token has (N, 1)."""
    return {name: x[:, 0] if name in PER_TOKEN else x for name, x in context.items()}


def rounding_of_zeros(
    gradient: Tensor, computed_in: torch.dtype, probs: Tensor, losses: Tensor | None = None
) -> Tensor:
    """How far from 0 rounding can leave an entry of gradients (N, V) by automatic differentiation that should be 0,
    (N, 1): a share of its row's sum of magnitudes, which grows where the prediction is nearly certain, since a softmax
    passes on differences that cancel there; and a smaller share of the largest row or loss of the batch."""
    eps = torch.finfo(computed_in).eps
    rows = gradient.abs().sum(-1, keepdim=True)
    sizes = rows[:, 0] if losses is None else torch.cat([losses.abs(), rows[:, 0]])
    doubt = (1 - probs.amax(-1, keepdim=True)).clamp(min=eps)
    return (eps**0.75 + 8 * eps / doubt) * rows + 64 * eps * (sizes.amax() if sizes.numel() else 0.0)


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
