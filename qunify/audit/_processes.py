"""The processes that torchrun or Accelerate has started: which one this is, and what they tell one another."""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")


def count() -> int:
    """How many there are; 1 without a launcher."""
    return _told("WORLD_SIZE", 1)


def rank() -> int:
    return _told("RANK", 0)


def _told(name: str, alone: int) -> int:
    """By torch, where they have met; by the launcher, where they have not."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size() if name == "WORLD_SIZE" else distributed.get_rank()
    return int(os.environ[name]) if distributed.is_available() and distributed.is_torchelastic_launched() else alone


def is_main_process() -> bool:
    """Whether this is the process that writes files, the first of those that torchrun or Accelerate has started."""
    return rank() == 0


def own_device(device: str | torch.device | None) -> str | torch.device | None:
    """Of the graphics cards, where one is asked for, that of this process."""
    if count() > 1 and str(device) == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@functools.cache
def _group() -> Any:
    """They wait for one another as long as it takes."""
    long = timedelta(days=30)
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=long)
    return distributed.new_group(backend="gloo", timeout=long)


def gathered(found: T) -> list[T]:
    """What every process has found, in their order."""
    if count() == 1:
        return [found]
    every: list[Any] = [None] * count()
    distributed.all_gather_object(every, found, group=_group())
    return every


def told(found: T | None) -> T:
    """What the first process has found, in every one."""
    one: list[Any] = [found]
    if count() > 1:
        distributed.broadcast_object_list(one, src=0, group=_group())
    return one[0]
