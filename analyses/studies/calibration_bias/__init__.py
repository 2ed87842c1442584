"""Who sharpens and who flattens: the bias that the theory predicts against that of trained models.

Classes are Gaussian clouds, so that the right answer is a distribution, known exactly, which a linear model can hold.
The teacher and the reference know the clouds and are less sure than they should be: the truth at temperatures 1.5 and
3.
"""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import qunify as qu
from analyses.kit import cache, runner
from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from qunify import calibration, plots
from qunify.catalogue import PAPER
from qunify.maps import QMap
from qunify.synthetic import Blobs
from qunify.training import Data, Job, Linear, Stack

BLOBS = Blobs.random(classes=5, features=4, separation=1.5, seed=0)
SEEDS = tuple(range(10))
TRAIN, TEST, BATCH, STEPS, LR = 4000, 2000, 128, 1500, 0.02
SMALL = 0.02  # nats: a bias worth the name
PREDICTED_AT = 200  # of the test points: the theory needs no more
TEMPERATURES = {"teacher_logits": 1.5, "reference_logits": 3.0, "old_logits": 3.0}

#: With every weight 1, as here, these two are sft.
LEFT_OUT = ("iw_sft", "cft")
MORE = ("focal", "gce", "brier", "spherical", "poly1", "luffy", "mixce", "symmetric_ce", "confidence_penalty")
METHODS = tuple(dict.fromkeys([n for n in PAPER if n not in LEFT_OUT] + list(MORE)))
ALONG: dict[str, tuple[str, tuple[float, ...]]] = {
    "label_smoothing": ("smoothing", (0.02, 0.1, 0.2, 0.4)),
    "focal": ("focusing", (0.5, 1, 2, 4)),
    "gem": ("beta", (0.3, 0.5, 0.7, 0.9)),
    "kd_hybrid": ("mix", (0.25, 0.5, 0.75, 1)),
    "beyond_log": ("alpha", (0.1, 0.3, 0.5, 0.7)),
    "target_sft": ("eta", (0.25, 0.5, 0.75, 1)),
}


def rows(full: bool) -> pd.DataFrame:
    """One row per setting and seed: predicted and measured. It takes minutes, so that only the full run makes it."""
    if not full:
        return runner.read("calibration_bias", runner.FIGURES)
    tables = []
    for name, parameter, value in cells():
        make = functools.partial(measured, name, parameter, value, SEEDS)
        tables.append(cache.part("calibration_bias", f"{name} {parameter} {value}", make))
    return pd.concat(tables, ignore_index=True)


def cells() -> list[tuple[str, str, float | None]]:
    """Method, parameter and value; the defaults have none."""
    found: list[tuple[str, str, float | None]] = [(name, "", None) for name in METHODS]
    return found + [(name, parameter, v) for name, (parameter, values) in ALONG.items() for v in values]


def others(truth: Tensor) -> dict[str, Tensor]:
    """The other models' logits, where the truth is (N, V)."""
    beliefs = {name: truth.log() / temperature for name, temperature in TEMPERATURES.items()}
    return beliefs | {"token_weight": torch.ones(len(truth), dtype=torch.float64)}


def measured(name: str, parameter: str, value: float | None, seeds: tuple[int, ...]) -> pd.DataFrame:
    """One setting: what the theory says at the test points, and linear models trained on labels, one per seed."""
    m = qu.get(name, **({parameter: value} if value is not None else {}))
    x, test = BLOBS.sample(TEST, seed=1_000_000)
    slope, gap = predicted(m, test.truth[:PREDICTED_AT])
    jobs = []
    for seed in seeds:
        features, population = BLOBS.sample(TRAIN, seed)
        drawn = population.sample(1, seed)
        labels = torch.empty(TRAIN, dtype=torch.long).scatter(0, drawn.contexts, drawn.labels)
        jobs.append(Job(m, Data(features, labels, others(population.truth)), seed, LR))
    stack = Stack(Linear(*BLOBS.centres.T.shape), jobs, batch=BATCH, optimiser="adam", decay=STEPS).run(STEPS)
    g = torch.Generator().manual_seed(2_000_000)
    happened = torch.multinomial(test.truth, 1, generator=g)[:, 0]
    out = []
    for job, p in zip(jobs, stack.probs(x), strict=True):
        exact = {k: float(v.mean()) for k, v in calibration.against_truth(p, test.truth).items()}
        seen = calibration.against_labels(p, happened)
        out.append(
            {"method": name, "parameter": parameter, "value": value, "seed": job.seed, "lr": LR}
            | {"predicted slope": slope, "predicted gap": gap, "entropy gap": exact["entropy_gap"]}
            | {"kl": exact["kl"], "regret": exact["regret"], "smooth_ece": seen["smooth_ece"], "brier": seen["brier"]}
        )
    return pd.DataFrame(out)


def predicted(m: QMap, truth: Tensor) -> tuple[float, float]:
    """Means over truths (N, V): how the entropy changes along the drift at the truth, and that of the optimum less
    that of the truth, in nats."""
    context: dict[str, Any] = {k: v for k, v in others(truth).items() if k in m.needs}
    dz = qu.drift(m, truth, truth, **context)
    dp = truth * (dz - (truth * dz).sum(-1, keepdim=True))
    slope = -(dp * truth.log()).sum(-1)
    found = qu.optimum(m, truth, **context)
    gap = calibration.against_truth(found.probs, truth)["entropy_gap"]
    return float(slope.mean()), float(gap.mean())


def draw(table: pd.DataFrame) -> Figure:
    """Left: measured against predicted bias, a dot per method. Right: along the parameter of six of them."""
    with plots.style():
        figure = Figure(figsize=(14, 7.4))
        left = figure.add_axes((0.055, 0.13, 0.37, 0.74))
        _methods(left, table[table["parameter"].isna()])
        grid = figure.add_gridspec(2, 3, left=0.615, right=0.985, bottom=0.13, top=0.87, wspace=0.3, hspace=0.42)
        for i, (name, (parameter, _)) in enumerate(ALONG.items()):
            _along(figure.add_subplot(grid[i]), table[table["method"] == name], name, parameter)
        figure.text(0.615, 0.94, "Entropy gap along a parameter: — predicted, ● trained", fontsize=12)
        note = (
            f"Linear models on {BLOBS.centres.shape[0]} Gaussian classes, {TRAIN} labels, {STEPS} steps of Adam; mean "
            f"and 95 % interval over {table['seed'].nunique()} seeds."
        )
        figure.text(0.055, 0.025, note, color=plots.SOFT, fontsize=10.5)
    return figure


def _methods(ax: Axes, table: pd.DataFrame) -> None:
    found = intervals(table, ["method"], "entropy gap")
    at = table.groupby("method", sort=False)["predicted gap"].first()
    low, high = min(at.min(), found["mean"].min()) - 0.06, max(at.max(), found["mean"].max()) + 0.1
    ax.axhline(0, color=plots.FAINT, lw=1)
    ax.axvline(0, color=plots.FAINT, lw=1)
    ax.plot([low, high], [low, high], color=plots.SOFT, lw=0.9, ls=":")
    ends = []
    for name in found.index:
        x, y, half = at[name], found.loc[name, "mean"], found.loc[name, "half"]
        ax.errorbar(x, y, yerr=half, fmt=plots.line(name).marker, color=plots.colour(name), ms=7.5)
        ends.append(plots.EndLabel(x, y, name, plots.colour(name)))
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_xlabel("predicted: entropy of the optimum − entropy of the truth (nats)")
    ax.set_ylabel("trained: entropy of the model − entropy of the truth (nats)")
    ax.text(0.02, 0.97, "flattens ↑", transform=ax.transAxes, color=plots.SOFT, va="top")
    ax.text(0.02, 0.03, "sharpens ↓", transform=ax.transAxes, color=plots.SOFT)
    ax.text(high, high, "as predicted ", color=plots.SOFT, ha="right", va="top", rotation=0, fontsize=9.5)
    plots.label_ends(ax, ends, size=9.5)


def _along(ax: Axes, table: pd.DataFrame, name: str, parameter: str) -> None:
    mine = table[table["parameter"] == parameter]
    found = intervals(mine, ["value"], "entropy gap")
    at = mine.groupby("value", sort=False)["predicted gap"].first()
    colour = plots.colour(name)
    ax.axhline(0, color=plots.FAINT, lw=1)
    ax.plot(at.index, at, color=colour, lw=1.8)
    ax.errorbar(found.index, found["mean"], yerr=found["half"], fmt="o", color=colour, ms=6.5)
    ax.set_title(name, color=plots.as_text(colour))
    ax.set_xlabel(parameter)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row per method at its defaults: prediction, measurement and its interval."""
    defaults = table[table["parameter"].isna()]
    out = pd.DataFrame({"slope": defaults.groupby("method", sort=False)["predicted slope"].first()})
    out["predicted"] = defaults.groupby("method", sort=False)["predicted gap"].first()
    for column in ("entropy gap", "smooth_ece", "kl"):
        found = intervals(defaults, ["method"], column)
        out[[column, f"{column} ±"]] = found[["mean", "half"]]
    return out


def see(table: pd.DataFrame) -> str:
    s = summary(table)
    told = s[s["predicted"].abs() > SMALL]
    right = int((told["predicted"] * told["entropy gap"] > 0).sum())
    slopes = int((told["slope"] * told["entropy gap"] > 0).sum())
    sharpest, flattest = str(s["entropy gap"].idxmin()), str(s["entropy gap"].idxmax())
    best = str(s["kl"].idxmin())
    gap, error, kl = (s[column].to_dict() for column in ("entropy gap", "smooth_ece", "kl"))
    return (
        f"The theory says of {len(told)} of {len(s)} methods that they sharpen or flatten by more than {SMALL:g} nats, "
        f"and trained models do so in the predicted sense for {right} of them; the drift at the truth alone, one step, "
        f"tells it for {slopes}. Most sharpened: {sharpest} ({gap[sharpest]:+.2f} nats, smooth calibration error "
        f"{error[sharpest]:.3f}); most flattened: {flattest} ({gap[flattest]:+.2f}); nearest the truth: {best} (KL "
        f"{kl[best]:.4f})."
    )


def digest(table: pd.DataFrame) -> pd.DataFrame:
    s = summary(table).sort_values("entropy gap").reset_index()
    names = {"method": "Method", "slope": "Entropy along the drift", "predicted": "Predicted gap"}
    names |= {"entropy gap": "Entropy gap", "entropy gap ±": "±", "smooth_ece": "Smooth ECE", "kl": "KL"}
    return s.rename(columns=names)[list(names.values())].round({"±": 6})  # of seeds alike, float32 leaves 3e-10


STUDY = Study(
    name="calibration_bias",
    title=(
        "Who sharpens and who flattens. Gaps are differences of entropy in nats, mean over test points; ± is half of "
        "the 95 % interval over seeds"
    ),
    question="Is a model calibrated after training?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
