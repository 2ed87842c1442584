"""Many small networks trained side by side, each on its own images, by the logit gradient of any method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.studies.digits.data import CLASSES, Images
from qunify.qmap import QMap

PIXELS = 64
BATCH = 64
REFRESH = 10  # steps between two snapshots of the old policy

Context = dict[str, Any]  # context name → (R, N, …)


@dataclass(frozen=True)
class Networks:
    """R two-layer networks, 64 pixels → hidden units → 10 digits, in float64."""

    w1: Tensor  # (R, 64, H)
    b1: Tensor  # (R, 1, H)
    w2: Tensor  # (R, H, 10)
    b2: Tensor  # (R, 1, 10)

    @classmethod
    def fresh(cls, seeds: Sequence[int], width: int) -> Networks:
        """One network per seed, Gaussian weights with variance 2 / fan-in and 1 / fan-in."""
        draws = [np.random.default_rng((seed, width)) for seed in seeds]
        w1 = np.stack([rng.standard_normal((PIXELS, width)) * (2 / PIXELS) ** 0.5 for rng in draws])
        w2 = np.stack([rng.standard_normal((width, CLASSES)) * (1 / width) ** 0.5 for rng in draws])
        runs = len(seeds)
        return cls(
            torch.from_numpy(w1),
            torch.zeros(runs, 1, width, dtype=torch.float64),
            torch.from_numpy(w2),
            torch.zeros(runs, 1, CLASSES, dtype=torch.float64),
        )

    def copies(self, runs: Tensor) -> Networks:
        """New networks that start where those of the given runs (R',) stand."""
        return Networks(*(p.detach()[runs] for p in self.parameters()))

    def parameters(self) -> tuple[Tensor, ...]:
        return self.w1, self.b1, self.w2, self.b2

    def __call__(self, pixels: Tensor) -> Tensor:
        """(R, N, 64) → logits (R, N, 10)."""
        hidden = torch.baddbmm(self.b1, pixels, self.w1).relu()
        return torch.baddbmm(self.b2, hidden, self.w2)

    def logits(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return self(pixels)


def batches(seeds: Sequence[int], images: int, steps: int) -> Tensor:
    """Which images each step sees, (steps, R, BATCH); it depends on the seed alone, so that methods are paired."""
    picks = [np.random.default_rng((seed, 2)).integers(images, size=(steps, BATCH)) for seed in seeds]
    return torch.from_numpy(np.stack(picks, axis=1))


def train(
    method: QMap, networks: Networks, data: Images, order: Tensor, lr: float, context: Context, every: int
) -> Iterator[tuple[int, Context]]:
    """Train in place with Adam; yield (step, context) at step 0 and after every `every` steps.

    `context` holds what the method needs at each training image, (R, N, …); the old policy is added here, a
    snapshot taken every REFRESH steps. What is yielded is measured before the snapshot is renewed.
    """
    for p in networks.parameters():
        p.requires_grad_()
    optimiser = torch.optim.Adam(networks.parameters(), lr=lr)
    run = torch.arange(len(data.labels))[:, None]
    needs = method.needs
    old = {"old_logits": networks.logits(data.pixels)}
    for step, pick in enumerate(order):
        if step % every == 0:
            yield step, context | old
        if step % REFRESH == 0 and "old_logits" in needs:
            old = {"old_logits": networks.logits(data.pixels)}
        logits = networks(data.pixels[run, pick])
        given = {name: (context | old)[name][run, pick] for name in needs}
        q = method(logits.detach(), data.labels[run, pick], **given)
        optimiser.zero_grad()
        logits.backward(gradient=q.gradient / BATCH)
        optimiser.step()
    yield len(order), context | old
