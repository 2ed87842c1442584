"""Models that stay constant in a call: a frozen one, the policy without its adapter, the policy of some steps ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from qunify.hf.heads import Head, core, last_hidden
from qunify.qmap import QMap

#: A frozen model, or the policy without its adapter.
Given = nn.Module | Literal["base"]
MODELS = ("reference_logits", "teacher_logits")  # the contexts that such a model gives
#: Entered, it gives the model to call: in evaluation mode, without gradients.
Use = Callable[[], AbstractContextManager[nn.Module]]


@contextmanager
def constant(model: nn.Module) -> Iterator[nn.Module]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, was in training.items():
            module.training = was


def check(model: nn.Module, name: str, argument: str) -> None:
    """ValueError unless the logits of two tokens are what the head makes of their last hidden states: not so where
    something lies between the two, or where an adapter changes the head or adds virtual tokens."""
    head = Head.of(model)
    weight = head.weight
    if weight.is_meta or not weight.numel() or isinstance(weight, DTensor):
        return  # it lies elsewhere, or in parts
    tokens = {"input_ids": torch.tensor([[0, 1]], device=weight.device)}
    with constant(model):
        parts = head.logits(last_hidden(model, tokens))
        whole = model(**tokens).logits.to(parts.dtype)
    rounding = 1e-3 if weight.dtype == torch.float32 else 1e-6 if weight.dtype == torch.float64 else 0.05
    if whole.shape != parts.shape or not torch.allclose(whole, parts, rtol=rounding, atol=rounding * whole.std()):
        raise ValueError(f"{name}: {argument}: expected logits that are a head of the last hidden states, got others")


def needed(m: QMap, given: Mapping[str, Any], arguments: Mapping[str, str]) -> dict[str, Any]:
    """Of what is given for contexts, what the method needs: ValueError where that is None, or neither a model nor
    "base" where it should be. `arguments` says what each is called."""
    found = {context: value for context, value in given.items() if context in m.needs}
    for context, value in found.items():
        if value is None:
            raise ValueError(f"{m.name}: {arguments[context]}: expected one, which the method needs, got None")
        if context in MODELS and not (value == "base" or isinstance(value, nn.Module)):
            raise ValueError(f'{m.name}: {arguments[context]}: expected a model or "base", got {value!r}')
    return found


def use(given: Given, policy: nn.Module, name: str, argument: str) -> Use:
    """How to call a model that is constant while `policy` trains."""
    if core(given) is core(policy):
        raise ValueError(f"{name}: {argument}: expected another model than the one in training, got the same")
    if isinstance(given, nn.Module):
        return lambda: constant(given)
    if not isinstance(policy, PeftModel):
        raise ValueError(f'{name}: {argument}: expected a model, got "base" and a policy without an adapter')

    @contextmanager
    def base() -> Iterator[nn.Module]:
        with policy.disable_adapter(), constant(policy):
            yield policy

    return base


class Snapshot(TrainerCallback):
    """The policy as it was, taken again every few optimizer steps: a copy of what trains, put in place for a call."""

    def __init__(self, policy: nn.Module, every: int) -> None:
        self.policy, self.every = policy, every
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.values: list[torch.Tensor] = []

    def take(self) -> None:
        self.values = [p.detach().clone() for p in self.parameters]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.take()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            self.take()

    @contextmanager
    def use(self) -> Iterator[nn.Module]:
        if not self.values:  # evaluated before any training
            self.take()
        self._exchange()
        try:
            with constant(self.policy):
                yield self.policy
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for i, p in enumerate(self.parameters):
            p.data, self.values[i] = self.values[i], p.data
