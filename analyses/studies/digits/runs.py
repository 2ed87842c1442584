"""Fine-tune one digit network per method, condition, learning rate and seed, and measure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import qunify as qu
from analyses.studies.digits.data import CLASSES, CONDITIONS, Split, stack
from qunify.catalogue import PAPER
from qunify.training import Data, Job, Parameters, Stack, TwoLayer, weights_and_mask

PIXELS = 64
WIDTH = 64  # hidden units of the reference, and so of every model that is fine-tuned
TEACHER_WIDTH = 256
PRETRAINING_STEPS = 300
PRETRAINING_RATE = 3e-3
BATCH = 64
OLD_EVERY = 10  # steps between two snapshots of the old policy
CHECKPOINTS = 5

#: Measured on the training images on the way. Trust is that of the unit gauge, where all of the fifteen have one.
WATCHED = ("trust in right labels", "trust in wrong labels", "wrong labels memorised")

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is run. `steps` is a multiple of CHECKPOINTS · OLD_EVERY, so that psft is measured on its way."""

    seeds: tuple[int, ...]
    steps: int
    rates: tuple[float, ...]
    methods: tuple[str, ...] = PAPER


def run(plan: Plan) -> pd.DataFrame:
    """One row per measurement: condition, method, seed, lr, step, metric, value.

    Accuracy and the like are measured at the end, for every learning rate; trust and memorisation also on the
    way, for the tuned learning rate only.
    """
    seeds = list(plan.seeds)
    clean = [("clean", seed) for seed in seeds]
    split = stack(clean)
    reference = pretrained(seeds, split, WIDTH)
    teacher = pretrained(seeds, split, TEACHER_WIDTH)
    noisy = [(condition, seed) for condition in CONDITIONS for seed in seeds]
    shares = stack(noisy).train.wrong.double().mean(1)
    found: list[Row] = [{"method": "data"} | row for row in _each(noisy, 0, "share of labels wrong", shares)]
    for name, networks in (("reference", reference), ("teacher", teacher)):
        found += [{"method": name} | row for row in _final(clean, networks, split)]
    for name in plan.methods:
        # Right labels are for plain SFT alone: the level that the noise takes away.
        conditions = [c for c in CONDITIONS if c != "clean" or name == "sft"]
        for lr in plan.rates:
            measured = fine_tuned(name, conditions, lr, plan, reference, teacher)
            found += [{"method": name, "lr": lr} | row for row in measured]
    table = pd.DataFrame(found, columns=["condition", "method", "seed", "lr", "step", "metric", "value"])
    on_the_way = table["metric"].isin(WATCHED)
    watched = tuned(table[on_the_way], table).dropna(subset="value")  # where no label is wrong, none is measured
    return pd.concat([table[~on_the_way], watched], ignore_index=True)


def tuned(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Those rows whose learning rate agrees best with the noisy validation labels, for each condition, method, seed.

    `table` holds the agreements; of equals, the smallest rate wins. Rows without a learning rate are left out.
    """
    run = ["condition", "method", "seed"]
    agreement = table[table["metric"] == "agreement with noisy validation"].dropna(subset="lr").sort_values("lr")
    best = agreement.sort_values("value", ascending=False, kind="stable").drop_duplicates(run)
    return rows.merge(best[[*run, "lr"]], on=[*run, "lr"])


def network(width: int) -> TwoLayer:
    return TwoLayer(PIXELS, width, CLASSES, activation="relu")


def fresh(seed: int, width: int) -> Parameters:
    """Gaussian weights of variance 2 / fan-in below the hidden units and 1 / fan-in above them."""
    draw = np.random.default_rng((seed, width))
    below = draw.standard_normal((PIXELS, width)) * (2 / PIXELS) ** 0.5
    above = draw.standard_normal((width, CLASSES)) * (1 / width) ** 0.5
    return {
        "weight": torch.from_numpy(below),
        "bias": torch.zeros(width, dtype=torch.float64),
        "head": torch.from_numpy(above),
        "head_bias": torch.zeros(CLASSES, dtype=torch.float64),
    }


def order(seed: int, images: int, steps: int) -> Tensor:
    """Which images each step sees, (steps, BATCH); it depends on the seed alone, so that methods are paired."""
    return torch.from_numpy(np.random.default_rng((seed, 2)).integers(images, size=(steps, BATCH)))


def pretrained(seeds: Sequence[int], split: Split, width: int) -> Stack:
    images = split.trusted
    jobs = [
        Job(
            qu.get("sft"),
            Data(images.pixels[i], images.labels[i]),
            lr=PRETRAINING_RATE,
            start=fresh(seed, width),
            order=order(seed, images.labels.shape[1], PRETRAINING_STEPS),
        )
        for i, seed in enumerate(seeds)
    ]
    return Stack(network(width), jobs, optimiser="adam").run(PRETRAINING_STEPS)


def fine_tuned(
    name: str, conditions: list[str], lr: float, plan: Plan, reference: Stack, teacher: Stack
) -> Iterator[Row]:
    """Measurements of one method, in all conditions and for all seeds at once."""
    runs = [(condition, seed) for condition in conditions for seed in plan.seeds]
    owner = list(range(len(plan.seeds))) * len(conditions)  # which seed's reference and teacher
    split = stack(runs)
    images = split.train
    context = context_for(
        images.labels, *(model.logits(images.pixels[: len(plan.seeds)])[owner] for model in (reference, teacher))
    )
    jobs = [
        Job(
            qu.get(name),
            Data(images.pixels[i], images.labels[i], {key: value[i] for key, value in context.items()}),
            lr=lr,
            start={key: value[owner[i]] for key, value in reference.parameters.items()},
            order=order(seed, images.labels.shape[1], plan.steps),
        )
        for i, (_, seed) in enumerate(runs)
    ]
    networks = Stack(network(WIDTH), jobs, optimiser="adam", old_every=OLD_EVERY)
    every = plan.steps // CHECKPOINTS
    for step in range(0, plan.steps + 1, every):
        networks.run(step - networks.step)
        trust = networks.trust()
        learned = (networks.logits(images.pixels).argmax(-1) == images.labels).double()
        watched = (
            _mean_where(trust, ~images.wrong),
            _mean_where(trust, images.wrong),
            _mean_where(learned, images.wrong),
        )
        for metric, values in zip(WATCHED, watched, strict=True):
            yield from _each(runs, step, metric, values)
    yield from _final(runs, networks, split, plan.steps)


def context_for(labels: Tensor, reference_logits: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
    """What the methods that need more than a label are given, for labels (R, N) and logits (R, N, V); nothing here
    knows which labels are wrong. What iw_sft weighs by and cft leaves out is said in `weights_and_mask`."""
    each = zip(reference_logits, labels, strict=True)
    weight, mask = (torch.stack(x) for x in zip(*(weights_and_mask(*run) for run in each), strict=True))
    return {
        "reference_logits": reference_logits,
        "teacher_logits": teacher_logits,
        "token_weight": weight,
        "token_mask": mask,
    }


def _final(runs: list[tuple[str, int]], networks: Stack, split: Split, step: int = 0) -> Iterator[Row]:
    logits = networks.logits(split.test.pixels)
    right = (logits.argmax(-1) == split.test.truth).double()
    held_out = networks.logits(split.validation.pixels).argmax(-1) == split.validation.labels
    yield from _each(runs, step, "accuracy", right.mean(1))
    yield from _each(runs, step, "negative log-likelihood", _nll(logits, split.test.truth))
    yield from _each(runs, step, "calibration error", _calibration_error(logits, right))
    yield from _each(runs, step, "agreement with noisy validation", held_out.double().mean(1))


def _nll(logits: Tensor, truth: Tensor) -> Tensor:
    """(R, N, V), (R, N) → mean over the images, in nats, (R,)."""
    return cross_entropy(logits.transpose(1, 2), truth, reduction="none").mean(1)


def _calibration_error(logits: Tensor, right: Tensor) -> Tensor:
    """Smooth calibration error of the most likely digit's probability, (R,)."""
    from relplot import smECE  # takes seconds to import

    confidence = logits.softmax(-1).amax(-1)
    return torch.tensor([smECE(c.numpy(), r.numpy()) for c, r in zip(confidence, right, strict=True)])


def _mean_where(x: Tensor, chosen: Tensor) -> Tensor:
    """Mean of x (R, N) over the chosen images of each run, (R,); NaN where none is chosen: no label is wrong."""
    return torch.where(chosen, x, 0.0).sum(1) / chosen.sum(1)


def _each(runs: list[tuple[str, int]], step: int, metric: str, values: Tensor) -> Iterator[Row]:
    for (condition, seed), value in zip(runs, values.tolist(), strict=True):
        yield {"condition": condition, "seed": seed, "step": step, "metric": metric, "value": value}
