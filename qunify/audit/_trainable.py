"""The part of a model that is thought to be trained: a new adapter, the last blocks, or all of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

#: "adapter": the model's own, else a new one of rank 8 on every linear layer but the head; or the last so many blocks.
Trainable = Literal["adapter", "all"] | int
RANK, ALPHA = 8, 16


def check_trainable(trainable: Any) -> None:
    if trainable in ("adapter", "all") or (
        isinstance(trainable, int) and not isinstance(trainable, bool) and trainable >= 1
    ):
        return
    raise ValueError(
        f"audit: trainable: expected 'adapter', 'all' or a number of blocks of at least 1, got {trainable!r}"
    )


def check_blocks(model: Any, trainable: Trainable) -> None:
    """ValueError for a model without so many blocks."""
    if isinstance(trainable, int) and (there := len(_blocks(model))) < trainable:
        raise ValueError(f"audit: trainable: expected a model of at least {trainable} blocks, got {there}")


def _blocks(model: Any) -> list[nn.Module]:
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return [*max(lists, key=len, default=nn.ModuleList())]


def describe(trainable: Trainable) -> str:
    if isinstance(trainable, str):
        return {"adapter": "an adapter (LoRA)", "all": "all parameters"}[trainable]
    return f"the last {trainable} blocks" if trainable > 1 else "the last block"


@contextmanager
def training(model: Any, trainable: Trainable, seed: int) -> Iterator[tuple[Any, list[nn.Parameter]]]:
    """The model to call, in evaluation mode, and its parameters that are thought to train: the others need no gradient.

    Afterwards the model is as it was: a new adapter is gone, changed parameters have their values again.

    """
    needed = {p: p.requires_grad for p in model.parameters()}
    fresh = trainable == "adapter" and not isinstance(model, PeftModel)
    called = _with_adapter(model, seed) if fresh else model
    try:
        chosen = {*_parameters(called, trainable)}
        for p in called.parameters():
            p.requires_grad_(p in chosen)
        trained = [p for p in called.parameters() if p in chosen]
        before = [] if fresh else [p.detach().clone() for p in trained]
        try:
            yield called.eval(), trained
        finally:
            for p, value in zip(trained, before, strict=not fresh):
                p.data.copy_(value)
    finally:
        if fresh:
            called.unload()
            vars(model).pop("peft_config", None)
        for p, needs in needed.items():
            p.requires_grad_(needs)


def _with_adapter(model: Any, seed: int) -> PeftModel:
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied heads and names that peft does not know
        torch.manual_seed(seed)
        wrapped: PeftModel = get_peft_model(model, config)
    return wrapped


def _parameters(model: Any, trainable: Trainable) -> Iterator[nn.Parameter]:
    if trainable == "adapter":
        mark = str(model.base_model.prefix)
        yield from (p for name, p in model.named_parameters() if mark in name)
    elif trainable == "all":
        yield from model.parameters()
    else:
        for block in _blocks(model)[-trainable:]:
            yield from block.parameters()
