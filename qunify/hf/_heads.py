"""A causal language model in two parts: the backbone that gives last hidden states, and the head that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from qunify.training import logits_of


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

    def gathered(self) -> Head:
        """The head with its weight whole, where sharding has split it: only a layer that runs gathers its weight."""
        if not isinstance(self.weight, DTensor):
            return self
        if self.weight.requires_grad:  # the gradient of the gathered weight would not reach the shards
            raise ValueError("SFTTrainer: model: expected a head that is whole where it trains, got one sharded alone")
        bias = self.bias.full_tensor() if isinstance(self.bias, DTensor) else self.bias
        return dataclasses.replace(self, weight=self.weight.full_tensor(), bias=bias)

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
    if divisor is None:
        return 1.0
    return float(divisor if config.model_type == "hyperclovax" else 1 / divisor)


def _softcap(config: Any) -> float | None:
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)


def last_hidden(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The last hidden states, (B, T, d), without running the head."""
    hidden: Tensor = core(model).base_model(**inputs).last_hidden_state
    return hidden
