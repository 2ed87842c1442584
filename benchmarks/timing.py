"""Ratios of times taken side by side, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ROUNDS = 9


@dataclass(frozen=True)
class Result:
    """One measured quantity: its median and spread over `n` rounds, and the most it may be."""

    name: str
    value: float
    low: float
    high: float
    n: int
    unit: str  # "×" for a ratio, "s" for seconds
    at_most: float | None = None
    sizes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, values: list[float], unit: str, **more: Any) -> Result:
        return cls(name, statistics.median(values), min(values), max(values), len(values), unit, **more)


def sandwiched(base: list[float], variant: list[float]) -> list[float]:
    """Each variant's time over the mean of the two base times around it; base has one more."""
    return [v / ((before + after) / 2) for before, v, after in zip(base, variant, base[1:], strict=False)]


def alternate(
    base: Callable[[], Any], variant: Callable[[], Any], rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """Seconds of base, variant, base, variant, …, base, both warmed up first."""
    base(), variant()
    base_times, variant_times = [seconds(base)], []
    for _ in range(rounds):
        variant_times.append(seconds(variant))
        base_times.append(seconds(base))
    return base_times, variant_times


def seconds(f: Callable[[], Any]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def python(*arguments: str) -> Callable[[], subprocess.CompletedProcess[bytes]]:
    """A fresh interpreter with these arguments."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
