"""What is learned where a prior was wrong, against what is kept where it was right, from few noisy labels.

Every context has two right continuations and five labels, three in ten of them noise. The model begins at a prior that
is sure, and right at a share of the contexts only; a teacher, as sure, is right at other ones. No method is told
where. Models are tables, one softmax per context, so that nothing learned in one context helps or hurts in another:
what a method keeps and learns cannot depend on how often the prior is right (but for iw_sft, whose weights are scaled
to mean 1 over all labels), only which of two methods is better can. All contexts are trained by plain gradient descent
with one learning rate, 1 per context. cft is left out: the prior is equally unsure everywhere, so that nothing but
chance could choose the critical labels. psft keeps the prior as its old policy throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import qunify as qu
from analyses.intervals import intervals
from analyses.prior_conflict_worlds import CONTEXTS, LABELS, ODDS, RATE, VOCAB, Noise, World, best, world
from analyses.study import Study
from qunify import plots, population
from qunify.catalogue import PAPER
from qunify.qmap import QMap
from qunify.training import Job, Stack, Tabular, sweep

#: The parameter of each method that is varied, and its values besides the default.
CURVES: dict[str, tuple[str, tuple[float, ...]]] = {
    "beyond_log": ("alpha", (0.1, 0.25, 0.75, 0.9)),
    "label_smoothing": ("smoothing", (0.3, 0.5)),
    "sft_kl": ("kl_weight", (0.03, 0.3, 1.0, 2.0)),
    "asft": ("kl_weight", (0.003, 0.01, 0.03, 0.3, 1.0)),
    "psft": ("clip", (0.5, 1.0, 3.0)),
    "gem": ("beta", (0.3, 0.5, 0.85)),
    "kd_hybrid": ("mix", (0.1, 0.25, 0.75, 0.9)),
    "target_sft": ("eta", (0.05, 0.1, 0.25, 0.75, 1.0)),
}
RATE_PER_CONTEXT = 1.0
STEPS, LONG = 30, 300  # when all are measured; after LONG in the full size only, and for one condition
PATH = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30)  # and SFT, to compare with stopping early
RIGHTNESS = (0.2, 0.5, 0.8)
SHOWN: tuple[Noise, float] = ("uniform", 0.5)
CONDITIONS: tuple[tuple[Noise, float], ...] = (*(("uniform", r) for r in RIGHTNESS), ("annotator", 0.5))
TAUGHT = ("kd", "kd_hybrid", "target_sft")  # these also see the teacher
QUICK, FULL = (0, 1), tuple(range(10))
NUMBERS = ["kept", "learned", "kept_kl", "learned_kl", "predicted_kept", "predicted_learned"]
COLUMNS = ["noise", "rightness", "seed", "method", "setting", "default", "step", *NUMBERS]


def methods() -> list[QMap]:
    """Every method at its default, followed by its curve."""
    found = []
    for name in PAPER:
        if name != "cft":
            key, values = CURVES.get(name, ("", ()))
            found += [qu.get(name), *(qu.get(name, **{key: value}) for value in values)]
    return found


def rows(full: bool) -> pd.DataFrame:
    """A row per condition, seed, setting and step. "labels", "prior" and "best…" are what the methods are measured by."""
    conditions, seeds = (CONDITIONS, FULL) if full else ((SHOWN,), QUICK)
    tables = [_measured(noise, r, seeds, LONG if full and (noise, r) == SHOWN else STEPS) for noise, r in conditions]
    return pd.concat(tables, ignore_index=True)[COLUMNS].round(dict.fromkeys(NUMBERS, 5))


def _measured(noise: Noise, rightness: float, seeds: tuple[int, ...], steps: int) -> pd.DataFrame:
    worlds = [world(noise, rightness, seed) for seed in seeds]
    maps = methods()
    jobs = [
        Job(m, w.data, seed, RATE_PER_CONTEXT * CONTEXTS, {"i": i, "setting": setting(m), "default": _is_default(m)}, start)
        for seed, w in zip(seeds, worlds, strict=True)
        for start in [{"logits": w.prior.log()}]
        for i, m in enumerate(maps)
    ]

    def measure(stack: Stack) -> dict[str, Tensor]:
        of_seed = dict(zip(seeds, worlds, strict=True))
        probs = stack.probs(torch.arange(CONTEXTS))
        found = [_both(of_seed[job.seed], p) for job, p in zip(stack.jobs, probs, strict=True)]
        return {key: torch.stack([f[key] for f in found]) for key in found[0]}

    table = sweep(Tabular(CONTEXTS, VOCAB), jobs, sorted({*PATH, steps}), measure, size=len(jobs))
    if bool((table["diverged"] >= 0).any()):
        raise ArithmeticError("prior_conflict: expected every model to stay finite, one diverged")
    path = (table["method"] == "sft") & ((noise, rightness) == SHOWN)
    kept = path | table["step"].isin((STEPS, LONG))
    ends = [{"seed": s, "i": i, **_predicted(m, w)} for s, w in zip(seeds, worlds, strict=True) for i, m in enumerate(maps)]
    table = table[kept].merge(pd.DataFrame(ends), on=["seed", "i"])
    levels = [{"seed": seed, **row} for seed, w in zip(seeds, worlds, strict=True) for row in _levels(w)]
    return pd.concat([table, pd.DataFrame(levels)]).assign(noise=noise, rightness=rightness)


def setting(m: QMap) -> str:
    """The varied parameter of a method and its value."""
    key = CURVES.get(m.name, ("", ()))[0]
    return f"{key} {m.params[key]:g}" if key else "no parameter"


def _is_default(m: QMap) -> bool:
    return m == qu.get(m.name)


def _both(w: World, probs: Tensor) -> dict[str, Tensor]:
    kept, learned = w.mass(probs)
    kept_kl, learned_kl = w.divergence(probs)
    return {"kept": kept, "learned": learned, "kept_kl": kept_kl, "learned_kl": learned_kl}


def _predicted(m: QMap, w: World) -> dict[str, float]:
    """Where training would end, by the closed form of the optimum for each context's labels, where there is one."""
    every = {
        "reference_logits": w.prior.log(),
        "old_logits": w.prior.log(),
        "teacher_logits": w.teacher.log(),
        "token_weight": torch.ones(CONTEXTS),
    }
    context: dict[str, Any] = {name: every[name] for name in m.needs}
    if population.closed_form(m, w.empirical, **context) is None:
        return {"predicted_kept": math.nan, "predicted_learned": math.nan}
    ends = torch.cat(list(population.settled(m, w.empirical, **context).points))
    kept, learned = w.mass(ends)
    return {"predicted_kept": float(kept), "predicted_learned": float(learned)}


def _levels(w: World) -> Iterator[dict[str, Any]]:
    fixed = {"default": True, "step": 0}
    for name, probs in (("prior", w.prior), ("labels", w.empirical), ("teacher", w.teacher)):
        yield {"method": name, "setting": "no parameter", **fixed, **{k: float(v) for k, v in _both(w, probs).items()}}
    for name, taught in (("best", False), ("best_with_teacher", True)):
        found = w.mass(best(w, teacher=taught))
        for odds, kept, learned in zip(ODDS, *found, strict=True):
            yield {"method": name, "setting": f"odds {odds:g}", **fixed, "kept": float(kept), "learned": float(learned)}


# ---- what the rows say ------------------------------------------------------------------------------------------
def means(table: pd.DataFrame, step: int, shown: tuple[str, float] = SHOWN) -> pd.DataFrame:
    """`kept`, `learned` and the half-widths of their intervals, a row per method and setting, after so many steps."""
    here = table[(table["noise"] == shown[0]) & (table["rightness"] == shown[1]) & (table["step"] == step)]
    by = ["method", "setting", "default"]
    kept, learned = (intervals(here, by, value) for value in ("kept", "learned"))
    found = {"kept": kept["mean"], "learned": learned["mean"], "kept ±": kept["half"], "learned ±": learned["half"]}
    return pd.DataFrame(found).reset_index()


def frontier(points: pd.DataFrame) -> pd.DataFrame:
    """Those settings than which none keeps and learns more, by growing "kept"."""
    ordered = points.sort_values(["kept", "learned"], ascending=False)
    best_before = ordered["learned"].cummax().shift(fill_value=-math.inf)
    return ordered[ordered["learned"] > best_before].iloc[::-1]


def untaught(points: pd.DataFrame) -> pd.DataFrame:
    return points[~points["method"].isin(TAUGHT)]


def stopped_early(table: pd.DataFrame, kept: float) -> float:
    """What SFT has learned when, on its way, it keeps so much: on the straight line between two steps."""
    way = pd.concat([means(table, step) for step in (0, *PATH)])
    way = way[way["method"].isin(("prior", "sft"))].sort_values("kept")
    return float(np.interp(kept, way["kept"], way["learned"]))


def overall(points: pd.DataFrame, rightness: float) -> pd.Series:
    """Probability of a right continuation over all contexts, were the prior right at this share of them."""
    return rightness * points["kept"] + (1 - rightness) * points["learned"]


def choices(points: pd.DataFrame) -> list[tuple[str, float]]:
    """Which default is best overall as the prior is right more often, and from which share of the contexts on."""
    found: list[tuple[str, float]] = []
    for i in range(1001):
        at = i / 1000
        name = str(points.loc[overall(points, at).idxmax(), "method"])
        if not found or found[-1][0] != name:
            found.append((name, at))
    return found


def defaults(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["default"].astype(bool) & points["method"].isin(PAPER)]


def shift(table: pd.DataFrame) -> pd.DataFrame:
    """How far each setting's means move as the prior is right more often: the largest less the smallest."""
    every = pd.concat([means(table, STEPS, ("uniform", r)) for r in RIGHTNESS])
    every = every[every["method"].isin(PAPER)]
    spread = every.groupby(["method", "setting"], sort=False)[["kept", "learned"]]
    return spread.max() - spread.min()


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """The defaults and the levels, after STEPS, where training would end, and after LONG."""
    short, far = means(table, STEPS), means(table, LONG).set_index("method")
    levels = means(table, 0)
    out = pd.concat([levels[levels["method"].isin(("prior", "labels", "teacher"))], defaults(short)])
    here = table[(table["noise"] == SHOWN[0]) & (table["rightness"] == SHOWN[1]) & table["default"].astype(bool)]
    ends = here.groupby("method")[["predicted_kept", "predicted_learned"]].mean()
    late = defaults(far.reset_index()).set_index("method")
    for what in ("kept", "learned"):
        out[f"{what} after {LONG}"] = out["method"].map(late[what])
        out[f"{what} at the optimum"] = out["method"].map(ends[f"predicted_{what}"])
    return out.drop(columns=["setting", "default"]).rename(columns=str.capitalize).reset_index(drop=True)
