"""A causal language model in two parts: the backbone that gives last hidden states, and the head that reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from peft import PeftModel
from torch import Tensor, nn

from qunify.training import logits_of

T = TypeVar("T")


def core(model: Any) -> Any:
    """The causal language model itself, where adapters have been put around it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@dataclass(frozen=True, eq=False)
class Head:
    """logits = softcap · tanh(scale · (h Wᵀ + b) / softcap), without the tanh where there is no cap."""

    weight: Tensor  # (V, d)
    bias: Tensor | None  # (V,)
    scale: float
    softcap: float | None

    @classmethod
    def of(cls, model: Any) -> Head:
        output = core(model).get_output_embeddings()
        config = core(model).config.get_text_config()
        return cls(output.weight, getattr(output, "bias", None), _scale(config), _softcap(config))

    @property
    def vocab(self) -> int:
        return self.weight.shape[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, V), in float32 or better."""
        product = hidden.to(self.weight.dtype) @ self.weight.T
        return logits_of(
            product.to(torch.promote_types(product.dtype, torch.float32)), self.bias, self.scale, self.softcap
        )


def _scale(config: Any) -> float:
    """What a model multiplies its logits by; each family of models has its own name for it."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None or config.model_type == "minicpm3":  # which divides what the head reads
        return 1.0
    return float(divisor if config.model_type == "hyperclovax" else 1 / divisor)


def _softcap(config: Any) -> float | None:
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)


@contextmanager
def reading(model: Any, f: Callable[[Tensor], T]) -> Iterator[list[T]]:
    """Calls of the model meanwhile stop short of its head: what f gives of the hidden states that reach it, (B, T, d),
    goes into the list. f runs in the place of the head, where wrappers have the head's weight at hand."""
    head, found = core(model).get_output_embeddings(), []

    @torch.compiler.disable
    def instead(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found.append(f(hidden))
        return hidden[..., :1]  # goes on as logits, which nobody reads

    own = vars(head).get("forward")
    head.forward = instead
    try:
        yield found
    finally:
        del head.forward
        if own is not None:
            head.forward = own


def last_hidden(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The last hidden states, (B, T, d), without running the head."""
    with reading(model, lambda hidden: hidden) as found:
        core(model)(**inputs)
    if len(found) != 1:
        raise ValueError(f"expected one call of the output head, got {len(found)}")
    return found[0]
