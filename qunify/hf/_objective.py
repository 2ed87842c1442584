"""A forward pass that ends in a loss: the head is read inside it, where wrappers have its weight at hand."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import Tensor

from qunify.hf._heads import Head, core, reading

#: From hidden states (B, T, d) and the head to a loss and what was observed on the way, or any two things.
Objective = Callable[[Tensor, Head], tuple[Any, Any]]


def add_objective(model: Any) -> None:
    """Let `model(**inputs, objective=f)` give f(hidden, head) and the experts' auxiliary loss, if there is one."""
    model = core(model)
    forward = type(model).forward

    @functools.wraps(forward)
    def fused(self: Any, *args: Any, objective: Objective | None = None, **kwargs: Any) -> Any:
        if objective is None:
            return forward(self, *args, **kwargs)
        with reading(self, lambda hidden: objective(hidden, Head.of(self))) as found:
            outputs = forward(self, *args, **kwargs)
        return *found[0], getattr(outputs, "aux_loss", None)

    model.forward = types.MethodType(fused, model)  # bound, so that a copy of the model calls itself


def parts(hidden: Tensor, head: Head) -> tuple[Tensor, Head]:
    """The objective that gives hidden states and head as they are, for models that are asked and not trained."""
    return hidden, head
