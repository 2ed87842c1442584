"""Fine-tune one digit network per method, condition, learning rate and seed, and measure it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import qunify as qu
from analyses.studies.digits.data import CLASSES, CONDITIONS, Images, Split, stack
from analyses.studies.digits.model import Context, Networks, batches, train
from qunify.catalogue import PAPER

WIDTH = 64  # hidden units of the reference, and so of every model that is fine-tuned
TEACHER_WIDTH = 256
PRETRAINING_STEPS = 300
PRETRAINING_RATE = 3e-3
CHECKPOINTS = 5

#: Measured on the training images on the way. Trust is that of the unit gauge, where all of the fifteen have one.
WATCHED = ("trust in right labels", "trust in wrong labels", "wrong labels memorised")

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is run. `steps` is a multiple of CHECKPOINTS · REFRESH, so that psft is measured on its way."""

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


def pretrained(seeds: list[int], split: Split, width: int) -> Networks:
    networks = Networks.fresh(seeds, width)
    order = batches(seeds, split.trusted.labels.shape[1], PRETRAINING_STEPS)
    for _ in train(qu.get("sft"), networks, split.trusted, order, PRETRAINING_RATE, {}, PRETRAINING_STEPS):
        pass
    return networks


def fine_tuned(
    name: str, conditions: list[str], lr: float, plan: Plan, reference: Networks, teacher: Networks
) -> Iterator[Row]:
    runs = [(condition, seed) for condition in conditions for seed in plan.seeds]
    owner = torch.arange(len(plan.seeds)).repeat(len(conditions))  # (R,) which seed's reference and teacher
    split = stack(runs)
    networks = reference.copies(owner)
    context = context_for(split.train, reference.copies(owner), teacher.copies(owner))
    order = batches([seed for _, seed in runs], split.train.labels.shape[1], plan.steps)
    method = qu.get(name)
    for step, given in train(method, networks, split.train, order, lr, context, plan.steps // CHECKPOINTS):
        logits = networks.logits(split.train.pixels)
        trust = method(logits, split.train.labels, **given).trust
        learned = (logits.argmax(-1) == split.train.labels).double()
        wrong = split.train.wrong
        watched = (_mean_where(trust, ~wrong), _mean_where(trust, wrong), _mean_where(learned, wrong))
        for metric, values in zip(WATCHED, watched, strict=True):
            yield from _each(runs, step, metric, values)
    yield from _final(runs, networks, split, plan.steps)


def context_for(data: Images, reference: Networks, teacher: Networks) -> Context:
    """What the methods that need more than a label are given; nothing here knows which labels are wrong.

    token_weight (iw_sft): the importance ratio reference(y | x) / frequency(y), scaled to mean 1: how much more
    likely the reference makes the label than a policy that does not see the image.
    token_mask (cft): an image is critical where the reference's entropy is above the median.
    """
    logits = reference.logits(data.pixels)
    probs = logits.softmax(-1)
    frequency = torch.nn.functional.one_hot(data.labels, CLASSES).double().mean(1)  # (R, 10)
    ratio = probs.gather(-1, data.labels[..., None])[..., 0] / frequency.gather(-1, data.labels)
    entropy = -torch.special.xlogy(probs, probs).sum(-1)
    return {
        "reference_logits": logits,
        "teacher_logits": teacher.logits(data.pixels),
        "token_weight": ratio / ratio.mean(1, keepdim=True),
        "token_mask": (entropy > entropy.quantile(0.5, dim=1, keepdim=True)).double(),
    }


def _final(runs: list[tuple[str, int]], networks: Networks, split: Split, step: int = 0) -> Iterator[Row]:
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
