"""A forward pass that ends in a loss: the head is read inside it, where wrappers have its weight at hand."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import Tensor

from qunify.hf._heads import Head, core

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
        outputs = self.base_model(*args, **kwargs)
        loss, observed = objective(outputs.last_hidden_state, Head.of(self).gathered())
        return loss, observed, _auxiliary(self, outputs, kwargs)

    model.forward = types.MethodType(fused, model)  # bound, so that a copy of the model calls itself


def parts(hidden: Tensor, head: Head) -> tuple[Tensor, Head]:
    """The objective that gives hidden states and head as they are, for models that are asked and not trained."""
    return hidden, head


def _auxiliary(model: Any, outputs: Any, inputs: dict[str, Any]) -> Tensor | None:
    if not inputs.get("output_router_logits"):
        return None
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    found: Any = load_balancing_loss_func(
        outputs.router_logits, config.num_experts, config.num_experts_per_tok, inputs.get("attention_mask")
    )
    return found
