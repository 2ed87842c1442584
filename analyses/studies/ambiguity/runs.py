"""Train tables on contexts that have four right answers, and measure how many of them are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from qunify.calibration import against_truth
from qunify.maps import QMap
from qunify.synthetic import Population, ambiguous
from qunify.training import Data, Job, Stack, Tabular, sweep

CONTEXTS, VOCAB, VALID = 40, 16, 4
STRENGTH, RIGHTNESS = 0.5, 0.75  # of the pretrained model: half sure, and that of the wrong tokens at a quarter
TEACHER_SMOOTHING, TEACHER_ERROR = 0.1, 0.5
NETWORK = Tabular(CONTEXTS, VOCAB)
RATE = 0.5 * CONTEXTS  # the mean is over all contexts: half a unit of the flow's time per step
STEPS = (10, 30, 100, 1000)
ANSWERS = (1, 2, 4, 8, 16, 32, 64)  # samples taken
PREDICTED = 3  # contexts per seed, where the optimum depends on another model or on the start; elsewhere one does
DEPENDS_ON_START = "profit"  # what begins below its threshold is never learned

PRIOR, TRAINED, THEORY = "prior", "trained", "theory"

#: Of the paper's fifteen all but iw_sft and cft, which are sft if no token is set apart, and psft, which needs an old
#: model that is renewed on the way.
DEFAULTS = (
    *("sft", "dft", "beyond_log", "profit", "eaft", "label_smoothing", "sft_kl", "asft", "gem", "kd", "kd_hybrid"),
    *("target_sft", "focal", "gce"),
)
PATHS: dict[str, tuple[str, tuple[float, ...]]] = {
    "gce": ("q", (0.3, 0.5, 0.9)),
    "gem": ("beta", (0.3, 0.5, 0.9)),
    "label_smoothing": ("smoothing", (0.05, 0.2, 0.4)),
    "target_sft": ("eta", (0.1, 0.25, 0.75, 1.0)),
}
KEYS = ("method", "parameter", "labels", "kind", "seed", "step")


@dataclass(frozen=True)
class Plan:
    """How much is run. `labels` per context."""

    seeds: tuple[int, ...]
    labels: tuple[int, ...]
    methods: tuple[QMap, ...]
    steps: tuple[int, ...] = STEPS


def methods(names: tuple[str, ...], paths: Mapping[str, tuple[str, tuple[float, ...]]]) -> tuple[QMap, ...]:
    """Each at its defaults, and along one parameter."""
    along = [qu.get(name, **{key: value}) for name, (key, values) in paths.items() for value in values]
    return (*(qu.get(name) for name in names), *along)


def parameter(m: QMap) -> float:
    """Where a method stands on its path; NaN for one without."""
    return float(m.params[PATHS[m.name][0]]) if m.name in PATHS else float("nan")


def run(plan: Plan) -> pd.DataFrame:
    """A row per method, parameter, labels, seed and step: trained, prior, and the population optimum."""
    worlds = {seed: world(seed) for seed in plan.seeds}
    jobs = [
        Job(m, data, seed, RATE, {"parameter": parameter(m), "labels": labels, "truth": worlds[seed].truth}, start)
        for seed in plan.seeds
        for labels in plan.labels
        for data, start in [(observed(worlds[seed], labels, seed), {"logits": prior(worlds[seed]).log()})]
        for m in plan.methods
    ]
    table = sweep(NETWORK, jobs, plan.steps, measured).assign(kind=TRAINED)
    if (table["diverged"] >= 0).any():
        raise ValueError("ambiguity: expected every run to stay finite, got one that did not")
    untrained = [{"kind": PRIOR, "seed": s, **_numbers(prior(w), w.truth)} for s, w in worlds.items()]
    whole = pd.concat([table, pd.DataFrame(untrained), theory(plan, worlds)], ignore_index=True)
    whole = whole.fillna({"labels": 0, "step": 0}).astype({"labels": int, "step": int})
    return whole[[*KEYS, *METRICS]].round(5)


def world(seed: int) -> Population:
    return ambiguous(CONTEXTS, VOCAB, VALID, seed=seed).believing(STRENGTH, RIGHTNESS, seed)


def prior(w: Population) -> Tensor:
    assert w.prior is not None
    return w.prior


def teacher(w: Population, seed: int) -> Tensor:
    """Logits of a teacher that knows the truth, smoothed, with a Gaussian error on every logit."""
    g = torch.Generator().manual_seed(seed)
    smoothed = (1 - TEACHER_SMOOTHING) * w.truth + TEACHER_SMOOTHING / VOCAB
    return smoothed.log() + TEACHER_ERROR * torch.randn(smoothed.shape, generator=g, dtype=torch.float64)


def observed(w: Population, labels: int, seed: int) -> Data:
    """So many labels per context, as counts of every right answer."""
    drawn = w.sample(labels, seed)
    seen = torch.zeros(CONTEXTS, VOCAB, dtype=torch.float64)
    seen.index_put_((drawn.contexts, drawn.labels), torch.ones(len(drawn.labels), dtype=torch.float64), accumulate=True)
    contexts, tokens = w.valid.nonzero(as_tuple=True)
    context = {"reference_logits": prior(w).log()[contexts], "teacher_logits": teacher(w, seed)[contexts]}
    return Data(contexts, tokens, context, counts=seen[contexts, tokens])


def measured(stack: Stack) -> dict[str, Tensor]:
    return against(stack.probs(torch.arange(CONTEXTS)), torch.stack([job.tags["truth"] for job in stack.jobs]))


METRICS = ("entropy_kept", "valid_mass", "kl", *(f"coverage_{n}" for n in ANSWERS))


def against(probs: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Means over contexts, (M, S, V) to (M,).

    `entropy_kept`: entropy among the right answers as a share of the truth's. `coverage_n`: expected share of the right
    answers that n samples show.
    """
    found = against_truth(probs, truth)
    right = truth > 0
    among = torch.where(right, probs, 0)
    among = among / among.sum(-1, keepdim=True)
    kept = torch.special.entr(among).sum(-1) / torch.special.entr(truth).sum(-1)
    seen = {f"coverage_{n}": torch.where(right, 1 - (1 - probs) ** n, 0).sum(-1) / right.sum(-1) for n in ANSWERS}
    values = {"entropy_kept": kept, "valid_mass": found["valid_mass"], "kl": found["kl"], **seen}
    return {name: value.mean(-1) for name, value in values.items()}


def theory(plan: Plan, worlds: Mapping[int, Population]) -> pd.DataFrame:
    """Where each method comes to rest from the prior, with labels without end."""
    found = []
    for m in plan.methods:
        varies = bool(m.needs) or m.name == DEPENDS_ON_START
        for seed in plan.seeds if varies else plan.seeds[:1]:
            w, at = worlds[seed], slice(PREDICTED if varies else 1)
            asked: dict[str, Any] = {"reference_logits": prior(w).log(), "teacher_logits": teacher(w, seed)}
            end = qu.optimum(m, w.truth[at], start=prior(w)[at], **{name: asked[name][at] for name in m.needs})
            facts = {"method": m.name, "parameter": parameter(m), "kind": THEORY, "seed": seed}
            found.append({**facts, **_numbers(end.probs, w.truth[at])})
    return pd.DataFrame(found)


def _numbers(probs: Tensor, truth: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in against(probs[None], truth[None]).items()}
