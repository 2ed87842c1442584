"""Handwritten digits with some of the training labels wrong: splits, noise, and stacks of them, one per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

CLASSES = 10
NOISE = 0.2  # share of the training and validation labels made wrong
TEST, VALIDATION, TRUSTED = 500, 200, 180  # images; the other 917 are for training

#: What was done to the labels: "20 % of the labels …".
CONDITIONS = {
    "clean": "left right",
    "redrawn": "redrawn among the other digits",
    "confused": "confused: 3 ↔ 8, 4 ↔ 9, 1 ↔ 7",
}

#: The digit each one is mistaken for; itself where people make no such mistake.
LOOKALIKE = np.array([0, 7, 2, 8, 9, 5, 6, 1, 3, 4])

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """One set of images for each of R runs."""

    pixels: Tensor  # (R, N, 64) float64 in [0, 1]
    labels: Tensor  # (R, N) as a method sees them
    truth: Tensor  # (R, N)

    @property
    def wrong(self) -> Tensor:
        """(R, N) bool."""
        return self.labels != self.truth


@dataclass(frozen=True)
class Split:
    """What R runs see: a trusted tenth with right labels, noisy training and validation sets, a clean test set."""

    trusted: Images
    train: Images
    validation: Images
    test: Images


def corrupted(truth: Labels, condition: str, rng: np.random.Generator) -> Labels:
    """Labels (N,) of which exactly round(NOISE · N) are wrong, in the way the condition names.

    Only six of the ten digits have a lookalike, so that under "confused" about a third of those six are wrong.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"corrupted: condition: expected one of {', '.join(CONDITIONS)}, got {condition!r}")
    labels = truth.copy()
    if condition == "clean":
        return labels
    count = round(NOISE * len(truth))
    if condition == "redrawn":
        hit = rng.choice(len(truth), count, replace=False)
        labels[hit] = (truth[hit] + rng.integers(1, CLASSES, count)) % CLASSES
    else:
        hit = rng.choice(np.flatnonzero(LOOKALIKE[truth] != truth), count, replace=False)
        labels[hit] = LOOKALIKE[truth[hit]]
    return labels


def stack(runs: Sequence[tuple[str, int]]) -> Split:
    """The split of every run (condition, seed); the images depend on the seed alone, so conditions are paired."""
    x, y = load_digits(return_X_y=True)
    cuts = np.cumsum((TEST, VALIDATION, TRUSTED))
    picks = [np.split(np.random.default_rng(seed).permutation(len(y)), cuts) for _, seed in runs]
    noise = [np.random.default_rng((seed, 1)) for _, seed in runs]

    def images(part: int, noisy: bool) -> Images:
        truth = [y[pick[part]] for pick in picks]
        labels = truth
        if noisy:
            labels = [corrupted(t, c, rng) for t, (c, _), rng in zip(truth, runs, noise, strict=True)]
        pixels = np.stack([x[pick[part]] for pick in picks]) / 16
        return Images(torch.from_numpy(pixels), torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(truth)))

    return Split(
        test=images(0, noisy=False),
        validation=images(1, noisy=True),
        trusted=images(2, noisy=False),
        train=images(3, noisy=True),
    )
