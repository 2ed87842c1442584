"""Small networks, M models of each at once: parameters have a leading axis of models, gradients are written by hand.

A network maps inputs (M, N, …) to logits (M, N, V), and logit gradients back to parameter gradients, without autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Parameters = dict[str, Tensor]  # each (M, …), float64 or float32


class Network(ABC):
    """The shape of a small model with V = `vocab` outputs."""

    vocab: int

    @abstractmethod
    def start(self, seed: int) -> Parameters:
        """One model's parameters before training, without the leading axis, float64."""

    @abstractmethod
    def check(self, inputs: Tensor) -> None:
        """ValueError unless these are inputs of one model, without the leading axis."""

    def represent(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The inputs of the last layer: hidden units if there are any, else `inputs` as they are."""
        return inputs

    @abstractmethod
    def logits(self, parameters: Parameters, hidden: Tensor) -> Tensor:
        """Logits (M, N, V) from the inputs of the last layer."""

    @abstractmethod
    def backward(self, parameters: Parameters, inputs: Tensor, hidden: Tensor, gradient: Tensor) -> Parameters:
        """The gradients of the parameters, from `gradient` (M, N, V), that of the logits."""


@dataclass(frozen=True)
class Tabular(Network):
    """One free softmax per state; inputs are states, (M, N) integers. Begins at the uniform distribution."""

    states: int
    vocab: int

    def start(self, seed: int) -> Parameters:
        return {"logits": torch.zeros(self.states, self.vocab, dtype=torch.float64)}

    def check(self, inputs: Tensor) -> None:
        whole = inputs.dim() == 1 and not inputs.is_floating_point() and inputs.dtype != torch.bool
        if not whole or not bool(((inputs >= 0) & (inputs < self.states)).all()):
            raise ValueError(
                f"Tabular: inputs: expected states (N,), integers in [0, {self.states}), got {tuple(inputs.shape)} of "
                f"{inputs.dtype}"
            )

    def logits(self, parameters: Parameters, hidden: Tensor) -> Tensor:
        return parameters["logits"].gather(1, hidden[..., None].expand(-1, -1, self.vocab))

    def backward(self, parameters: Parameters, inputs: Tensor, hidden: Tensor, gradient: Tensor) -> Parameters:
        total = torch.zeros_like(parameters["logits"])
        return {"logits": total.scatter_add_(1, inputs[..., None].expand_as(gradient), gradient)}


@dataclass(frozen=True)
class Linear(Network):
    """Softmax regression; inputs are features, (M, N, D). Begins at zero, the uniform distribution."""

    features: int
    vocab: int

    def start(self, seed: int) -> Parameters:
        shapes = {"weight": (self.features, self.vocab), "bias": (self.vocab,)}
        return {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}

    def check(self, inputs: Tensor) -> None:
        _check_features("Linear", inputs, self.features)

    def logits(self, parameters: Parameters, hidden: Tensor) -> Tensor:
        return torch.baddbmm(parameters["bias"][:, None], hidden, parameters["weight"])

    def backward(self, parameters: Parameters, inputs: Tensor, hidden: Tensor, gradient: Tensor) -> Parameters:
        return {"weight": inputs.mT @ gradient, "bias": gradient.sum(1)}


@dataclass(frozen=True)
class TwoLayer(Network):
    """One hidden layer; inputs are features (M, N, D). Weights begin Gaussian, of variance 1 / fan-in.

    `activation` of the hidden units is "tanh" or "relu"; ValueError for another one.
    """

    features: int
    hidden: int
    vocab: int
    activation: Literal["tanh", "relu"] = "tanh"

    def __post_init__(self) -> None:
        if self.activation not in ("tanh", "relu"):
            raise ValueError(f"TwoLayer: activation: expected tanh or relu, got {self.activation!r}")

    def start(self, seed: int) -> Parameters:
        g = torch.Generator().manual_seed(seed)

        def gaussian(fan_in: int, fan_out: int) -> Tensor:
            return torch.randn(fan_in, fan_out, generator=g, dtype=torch.float64) / fan_in**0.5

        return {
            "weight": gaussian(self.features, self.hidden),
            "bias": torch.zeros(self.hidden, dtype=torch.float64),
            "head": gaussian(self.hidden, self.vocab),
            "head_bias": torch.zeros(self.vocab, dtype=torch.float64),
        }

    def check(self, inputs: Tensor) -> None:
        _check_features("TwoLayer", inputs, self.features)

    def represent(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        sums = torch.baddbmm(parameters["bias"][:, None], inputs, parameters["weight"])
        return sums.tanh_() if self.activation == "tanh" else sums.relu_()

    def logits(self, parameters: Parameters, hidden: Tensor) -> Tensor:
        return torch.baddbmm(parameters["head_bias"][:, None], hidden, parameters["head"])

    def backward(self, parameters: Parameters, inputs: Tensor, hidden: Tensor, gradient: Tensor) -> Parameters:
        back = gradient @ parameters["head"].mT
        if self.activation == "tanh":
            back.addcmul_(back * hidden, hidden, value=-1)  # tanh′ = 1 − tanh²
        else:
            back *= hidden > 0
        return {
            "weight": inputs.mT @ back,
            "bias": back.sum(1),
            "head": hidden.mT @ gradient,
            "head_bias": gradient.sum(1),
        }


def _check_features(network: str, inputs: Tensor, features: int) -> None:
    if inputs.dim() != 2 or inputs.shape[1] != features or not inputs.is_floating_point():
        raise ValueError(
            f"{network}: inputs: expected features (N, {features}) in floating point, got {tuple(inputs.shape)} of "
            f"{inputs.dtype}"
        )
