"""Train on blobs whose labels are partly wrong, and measure against the exact posterior."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from qunify.calibration import against_truth
from qunify.maps import QMap
from qunify.population import stable_points_of
from qunify.synthetic import Blobs, Population, relabelled
from qunify.training import Data, Job, Parameters, Stack, TwoLayer, sweep

CLASSES, FEATURES = 6, 4
BLOBS = Blobs.random(CLASSES, FEATURES, separation=2.5, seed=0)
NETWORK = TwoLayer(FEATURES, 64, CLASSES)

TRUSTED, TRAINING, TESTED, PREDICTED = 30, 240, 1000, 200  # points; theory is asked at the first of those tested
PRETRAINING_STEPS, PRETRAINING_RATE = 200, 3e-3
STEPS, RATE, BATCH = (60, 400), 1e-2, 40

#: Shares of replaced labels, by kind of noise; without noise the kinds are one.
RATES = {"uniform": (0.2, 0.4, 0.6, 0.8), "class": (0.2, 0.3, 0.4, 0.5, 0.6)}

REFERENCE, SCRATCH, THEORY = "reference", "scratch", "theory"  # where a network starts; or none was trained
ALONE = ("sft", "beyond_log", "gce", "dft", "focal", "label_smoothing", "gem", "symmetric_ce", "forward_correction")
ANCHORED = ("sft_kl", "kd_hybrid", "target_sft")  # which ask the reference as well as the label
PATH = ("sft", "beyond_log", "gce", "dft")  # one loss, (1 − u^q)/q, at q = 0, 0.5, 0.7 and 1
INFORMED = "forward_correction_told"
RESOLVED = 1e-9  # probability
UNPREDICTED = "focal"  # its optimum has no closed form


KEYS = ("kind", "rate", "setting", "start", "seed", "step")
METRICS = ("accuracy", "kl", "overconfidence", "smooth_ece", "memorised")


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    seeds: tuple[int, ...]
    rates: Mapping[str, tuple[float, ...]]
    settings: tuple[str, ...]
    scratch: tuple[str, ...]


def method(setting: str, rate: float) -> QMap:
    """At its defaults, but for the one that is told the rate (the channel it assumes stays the uniform one)."""
    return qu.get("forward_correction", noise=rate) if setting == INFORMED else qu.get(setting)


@functools.lru_cache(maxsize=1)
def tested() -> tuple[Tensor, Population]:
    """Clean points, the same for all."""
    return BLOBS.sample(TESTED, seed=0)


def run(plan: Plan) -> pd.DataFrame:
    """A row per kind, rate, setting, start, seed and step: what was measured, and what theory predicts."""
    starts = dict(zip(plan.seeds, references(plan.seeds), strict=True))
    jobs = [
        Job(
            method(setting, rate),
            data,
            seed,
            RATE,
            {"kind": kind, "rate": rate, "setting": setting, "start": start, "wrong": wrong},
            start=starts[seed] if start == REFERENCE else None,
        )
        for seed in plan.seeds
        for kind, rate in cells(plan)
        for data, wrong in [training(kind, rate, seed, starts[seed])]
        for start, settings in ((REFERENCE, plan.settings), (SCRATCH, plan.scratch))
        for setting in settings
    ]
    table = sweep(NETWORK, jobs, STEPS, measured, batch=BATCH, optimiser="adam")
    if (table["diverged"] >= 0).any():
        raise ValueError("noise: expected every run to stay finite, got one that did not")
    table = table[(table["start"] == REFERENCE) | (table["step"] == STEPS[-1])]  # the file need not be larger
    whole = pd.concat([table, at_the_start(plan.seeds, starts), theory(plan, starts)], ignore_index=True)
    return whole[[*KEYS, *METRICS]].round(4)


def cells(plan: Plan) -> list[tuple[str, float]]:
    return [("none", 0.0), *((kind, rate) for kind, rates in plan.rates.items() for rate in rates)]


def labelled(points: Population, kind: str, rate: float) -> Population:
    return points if kind == "none" else relabelled(points, rate, kind)  # type: ignore[arg-type]


def references(seeds: tuple[int, ...]) -> list[Parameters]:
    """What fine-tuning starts from, and the teacher: a network trained on a few right labels, one for each seed."""
    jobs = []
    for seed in seeds:
        x, points = BLOBS.sample(TRUSTED, seed=1000 + seed)
        drawn = points.sample(1, seed)
        jobs.append(Job(qu.get("sft"), Data(x[drawn.contexts], drawn.labels), seed, PRETRAINING_RATE))
    done = Stack(NETWORK, jobs, optimiser="adam").run(PRETRAINING_STEPS).parameters
    return [{name: value[i].clone() for name, value in done.items()} for i in range(len(seeds))]


def logits(parameters: Parameters, inputs: Tensor) -> Tensor:
    """(M, N, V) of M models at inputs (M, N, D)."""
    return NETWORK.logits(parameters, NETWORK.represent(parameters, inputs))


def training(kind: str, rate: float, seed: int, reference: Parameters) -> tuple[Data, Tensor]:
    """The labels of one run, and which of them are wrong: replaced, and not by the likeliest class.

    A seed has the same points at all rates, and what is wrong at a low rate is also wrong at a higher one.
    """
    x, points = BLOBS.sample(TRAINING, seed=2000 + seed)
    drawn = labelled(points, kind, rate).sample(1, seed)
    x, best = x[drawn.contexts], points.truth[drawn.contexts].argmax(-1)
    asked = logits({name: value[None] for name, value in reference.items()}, x[None])[0]
    context = {"reference_logits": asked, "teacher_logits": asked}
    return Data(x, drawn.labels, context), ~drawn.clean & (drawn.labels != best)


def measured(stack: Stack) -> dict[str, Tensor]:
    """Per model: at clean test points against the truth, and the share of its wrong labels that it repeats."""
    x, points = tested()
    choice = logits(stack.parameters, torch.stack([job.data.inputs for job in stack.jobs])).argmax(-1)
    repeated = choice == torch.stack([job.data.labels for job in stack.jobs])
    wrong = torch.stack([job.tags["wrong"] for job in stack.jobs])
    memorised = (repeated & wrong).sum(-1) / wrong.sum(-1)  # NaN where nothing is wrong
    return against(stack.probs(x), points.truth) | {"memorised": memorised.double()}


def against(probs: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Means over the points, (M,): the share where the likeliest class is the truth's, and how far beliefs are off."""
    found = against_truth(probs, truth)
    confidence, choice = probs.max(-1)
    truth = truth.expand_as(probs)
    return {
        "accuracy": (choice == truth.argmax(-1)).double().mean(-1),
        "kl": found["kl"].mean(-1),
        "overconfidence": (confidence - truth.gather(-1, choice[..., None])[..., 0]).mean(-1),
        "smooth_ece": smooth_ece(confidence, truth.gather(-1, choice[..., None])[..., 0]),
    }


def smooth_ece(confidence: Tensor, chance: Tensor) -> Tensor:
    """Of the likeliest class, (M,): each point counts by the chance that it is right, which needs no drawn label."""
    from relplot import smECE

    pairs = zip(confidence.numpy(), chance.numpy(), strict=True)
    return torch.tensor([float(smECE(f, y)) for f, y in pairs], dtype=torch.float64)


def at_the_start(seeds: tuple[int, ...], starts: Mapping[int, Parameters]) -> pd.DataFrame:
    """The references themselves."""
    x, points = tested()
    stacked = {name: torch.stack([starts[seed][name] for seed in seeds]) for name in starts[seeds[0]]}
    found = against(logits(stacked, x.expand(len(seeds), *x.shape)).softmax(-1), points.truth)
    values = {name: value.tolist() for name, value in found.items()}
    return pd.DataFrame({"seed": seeds, **values}).assign(
        kind="none", rate=0.0, setting=REFERENCE, start=REFERENCE, step=0
    )


def theory(plan: Plan, starts: Mapping[int, Parameters]) -> pd.DataFrame:
    """The population optimum at the first test points: labels without end, and a network that can fit them all."""
    x, points = tested()
    x, truth = x[:PREDICTED], points.truth[:PREDICTED]
    truth = torch.where(
        truth < RESOLVED, 0.0, truth
    )  # of what is rarer, theory's numbers cannot tell a little from none
    truth = truth / truth.sum(-1, keepdim=True)
    found = []
    for kind, rate in cells(plan):
        observed = labelled(points, kind, rate).observed[:PREDICTED]
        for setting in (s for s in plan.settings if s != UNPREDICTED):
            m = method(setting, rate)
            for seed in plan.seeds if m.needs else plan.seeds[:1]:  # without a reference all seeds have one optimum
                asked = logits({k: v[None] for k, v in starts[seed].items()}, x[None])[0]
                rest = stable_points_of(m, observed, **dict.fromkeys(m.needs, asked)).points
                p = torch.stack([each[0] for each in rest])
                values = {name: float(value) for name, value in against(p[None], truth[None]).items()}
                facts = {"kind": kind, "rate": rate, "setting": setting, "start": THEORY}
                found.append({**facts, "seed": seed, "step": 0, **values})
    return pd.DataFrame(found)
