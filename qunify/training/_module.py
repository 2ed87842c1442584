"""Any method as a loss module: the published value, and the gradient that its pulls give in closed form."""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from qunify import catalogue
from qunify.maps import Method, QMap, check_params, logit_gradient
from qunify.token import read

Reduction = Literal["none", "mean", "sum"]


class Loss(nn.Module):
    """A method as a module; made by `qunify.loss`.

    Called as `loss(logits, labels, num_items_in_batch=None, **context)`. Autograd does not trace a method's own
    computation: for the backward pass one gradient of the logits is kept, in their type. Contexts are constants.
    """

    def __init__(self, method: Method, reduction: Reduction = "mean", ignore_index: int = -100) -> None:
        super().__init__()
        self.method = catalogue.as_method(method, "loss")
        self.reduction, self.ignore_index = checked_reduction(reduction, "loss"), ignore_index

    # How many rows are kept depends on the labels' values, unknown to a compiled graph: torch.compile breaks it here.
    @torch.compiler.disable
    def forward(
        self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **context: Any
    ) -> Tensor:
        """The loss in nats, float32 or better.

        Parameters
        ----------
        logits : Tensor, (…, V)
        labels : Tensor of int, (…)
            Not shifted here: the label of a position is the token to be predicted there.
        num_items_in_batch : int or Tensor, optional
            How many labels count in the whole batch, over all of its accumulation steps: a mean divides by this number.
        **context
            What the method needs, by the usual names.

        Raises
        ------
        ValueError
            For what a call of the method refuses, and for `num_items_in_batch` where the reduction is no mean.
        """
        divisor = denominator(self.method.name, self.reduction, labels != self.ignore_index, num_items_in_batch)
        if not torch.is_grad_enabled():  # or a gradient would be computed in vain
            logits = logits.detach()
        losses: Tensor = _PerToken.apply(logits, labels, self.method, self.ignore_index, context)
        return losses if self.reduction == "none" else losses.sum() / divisor

    def extra_repr(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.method.params.items())
        return f"{self.method.name}({inside}), reduction={self.reduction!r}, ignore_index={self.ignore_index}"

    def get_extra_state(self) -> Tensor:
        """Method and parameters, as the bytes of a JSON text: a tensor, so that any format can hold it."""
        text = json.dumps({"method": self.method.name, "params": self.method.params})
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        saved, name = json.loads(bytes(state.tolist()).decode()), self.method.name
        if saved["method"] != name:
            raise ValueError(f"{name}: state: expected that of {name}, got {saved['method']}")
        check_params(self.method, saved["params"], "state")
        if saved["params"] != self.method.params:
            self.method = self.method.replace(**saved["params"])


class _PerToken(torch.autograd.Function):
    """Losses (…) of logits (…, V), zero at ignored positions."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, m: QMap, ignore_index: int, context: Mapping[str, Any]
    ) -> Tensor:
        t, layout = read(m.name, m.needs, logits.detach(), labels, ignore_index, context)
        loss = torch.empty_like(t.index, dtype=t.support.dtype)
        g = torch.empty(t.support.shape, dtype=logits.dtype, device=logits.device) if ctx.needs_input_grad[0] else None
        for at, block in t.blocks():
            loss[at] = m.loss(block)
            if g is not None:
                g[at] = logit_gradient(block, m.pulls(block)).to(g.dtype)
        ctx.name = m.name
        if g is not None:
            ctx.save_for_backward(layout.spread(g))
        return layout.spread(loss[:, 0])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives(ctx.name)
        (g,) = ctx.saved_tensors
        return (upstream[..., None] * g).to(g.dtype), None, None, None, None


def loss(method: Method, reduction: Reduction = "mean", *, ignore_index: int = -100, **params: Any) -> Loss:
    """A method as a loss module, `nn.Module`.

    Parameters
    ----------
    method : str, QMap or function
        An id of the catalogue or a class of QMaps, with its parameters as keywords; any QMap, also a designed one; or a
        Python loss `(logits, labels, **context)` giving one loss per token.
    reduction : {"mean", "sum", "none"}
        The mean is over kept tokens: label not `ignore_index`; tokens of weight zero count.
    ignore_index : int
        The label of positions that do not count.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        Unknown parameter, one out of range or given beside a QMap, or an unknown reduction.

    Examples
    --------
    >>> import torch, qunify as qu
    >>> criterion = qu.loss("focal", focusing=1.0)
    >>> logits = torch.randn(2, 3, 5, requires_grad=True)
    >>> criterion(logits, torch.tensor([[0, 1, -100], [4, -100, -100]])).backward()
    """
    return Loss(catalogue.as_method(method, "loss", **params), reduction, ignore_index)


def checked_reduction(reduction: Reduction, name: str) -> Reduction:
    """The reduction; ValueError unless it is one of the three."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"{name}: reduction: expected none, mean or sum, got {reduction!r}")
    return reduction


def denominator(name: str, reduction: Reduction, kept: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """The number that the sum of losses is divided by; `kept` (bool) marks the tokens that count."""
    if reduction == "mean":
        if num_items_in_batch is None:
            return kept.sum().clamp(min=1)
        given = num_items_in_batch
        is_number = isinstance(given, numbers.Real | Tensor) and not isinstance(given, bool)
        items = torch.as_tensor(given if is_number else 0, device=kept.device)
        if items.dim() != 0 or not bool((items > 0) & (items < torch.inf)):
            raise ValueError(
                f"{name}: num_items_in_batch: expected a finite positive number, got {num_items_in_batch!r}"
            )
        return items
    if num_items_in_batch is not None:
        raise ValueError(
            f"{name}: num_items_in_batch: expected none with reduction {reduction!r}, which does not divide"
        )
    return torch.ones((), device=kept.device)


def refuse_second_derivatives(name: str) -> None:
    """RuntimeError in a backward pass whose gradient is to be differentiated again. It is given in closed form, without
    a graph of its own, and would be taken for a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{name}: create_graph: expected False, got True: its gradient cannot be differentiated again, as "
            "a gradient penalty asks; write the loss out in PyTorch for that"
        )
