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
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import qunify as qu
from analyses.kit import runner
from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from analyses.kit.words import percent
from analyses.studies.prior_conflict.data import (
    CONTEXTS,
    LABELS,
    ODDS,
    RATE,
    TEACHER_RIGHT,
    VOCAB,
    Noise,
    World,
    best,
    world,
)
from qunify import plots
from qunify.catalogue import PAPER
from qunify.maps import QMap
from qunify.population import closed_form, stable_points_of
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
STEPS, LONG = 30, 300  # when all are measured; after LONG for one condition only
PATH = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30)  # and SFT, to compare with stopping early
RIGHTNESS = (0.2, 0.5, 0.8)
SHOWN: tuple[Noise, float] = ("uniform", 0.5)
CONDITIONS: tuple[tuple[Noise, float], ...] = (*(("uniform", r) for r in RIGHTNESS), ("annotator", 0.5))
TAUGHT = ("kd", "kd_hybrid", "target_sft")  # these also see the teacher
NONE = "no parameter"  # the setting of a method without a curve
SEEDS = tuple(range(10))
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
    """A row per condition, seed, setting and step; "prior", "labels", "teacher" and "best…" are to compare with."""
    if not full:  # the predictions take minutes
        return runner.read("prior_conflict", runner.FIGURES)
    tables = [measured(noise, r, SEEDS, LONG if (noise, r) == SHOWN else STEPS) for noise, r in CONDITIONS]
    return pd.concat(tables, ignore_index=True)


def measured(noise: Noise, rightness: float, seeds: tuple[int, ...], steps: int) -> pd.DataFrame:
    """One condition."""
    worlds = [world(noise, rightness, seed) for seed in seeds]
    maps = methods()
    jobs = [
        Job(
            m,
            w.data,
            seed,
            RATE_PER_CONTEXT * CONTEXTS,
            {"i": i, "setting": setting(m), "default": _is_default(m)},
            start,
        )
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
    ends = [
        {"seed": s, "i": i, **predicted(m, w)} for s, w in zip(seeds, worlds, strict=True) for i, m in enumerate(maps)
    ]
    table = table[kept].merge(pd.DataFrame(ends), on=["seed", "i"])
    levels = [{"seed": seed, **row} for seed, w in zip(seeds, worlds, strict=True) for row in _levels(w)]
    whole = pd.concat([table, pd.DataFrame(levels)]).assign(noise=noise, rightness=rightness)
    return whole[COLUMNS].round(dict.fromkeys(NUMBERS, 5))


def setting(m: QMap) -> str:
    """The varied parameter of a method and its value."""
    key = CURVES.get(m.name, ("", ()))[0]
    return f"{key} {m.params[key]:g}" if key else NONE


def _is_default(m: QMap) -> bool:
    return m == qu.get(m.name)


def _both(w: World, probs: Tensor) -> dict[str, Tensor]:
    kept, learned = w.mass(probs)
    kept_kl, learned_kl = w.divergence(probs)
    return {"kept": kept, "learned": learned, "kept_kl": kept_kl, "learned_kl": learned_kl}


def predicted(m: QMap, w: World) -> dict[str, float]:
    """Where training would end, by the closed form of the optimum for each context's labels, where there is one."""
    every = {
        "reference_logits": w.prior.log(),
        "old_logits": w.prior.log(),
        "teacher_logits": w.teacher.log(),
    }
    if m.name == "iw_sft":  # its weight goes with the label, not with the context
        return {"predicted_kept": math.nan, "predicted_learned": math.nan}
    context: dict[str, Any] = {name: every[name] for name in m.needs}
    if closed_form(m, w.empirical, **context) is None:  # asked first: a search takes seconds
        return {"predicted_kept": math.nan, "predicted_learned": math.nan}
    ends = torch.cat(list(stable_points_of(m, w.empirical, **context).points))
    kept, learned = w.mass(ends)
    return {"predicted_kept": float(kept), "predicted_learned": float(learned)}


def _levels(w: World) -> Iterator[dict[str, Any]]:
    fixed = {"default": True, "step": 0}
    for name, probs in (("prior", w.prior), ("labels", w.empirical), ("teacher", w.teacher)):
        yield {"method": name, "setting": NONE, **fixed, **{k: float(v) for k, v in _both(w, probs).items()}}
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
        name = str(points["method"].iloc[int(overall(points, at).to_numpy().argmax())])
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
    return spread.max().sub(spread.min())


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


# ---- the picture ------------------------------------------------------------------------------------------------
#: What is written in the pictures after STEPS and after LONG: the text, beside which method and setting, where.
Place = tuple[str, str, str, float, float, Literal["left", "right", "center"]]
BOTH: tuple[Place, ...] = (
    ("sft_kl", "sft_kl", "kl_weight 1", 0.812, 0.36, "right"),
    ("label_smoothing", "label_smoothing", "smoothing 0.3", 0.478, 0.67, "left"),
    ("psft", "psft", "clip 3", 0.9, 0.345, "left"),
    ("profit", "profit", NONE, 1.012, 0.0, "left"),
)
PLACES: dict[int, tuple[Place, ...]] = {
    STEPS: (
        *BOTH,
        ("sft: the labels alone", "sft", NONE, 0.7, 0.8, "right"),
        ("eaft", "eaft", NONE, 0.7, 0.59, "left"),
        ("gem", "gem", "beta 0.5", 0.65, 0.555, "left"),
        ("kd", "kd", NONE, 0.795, 0.7, "left"),
        ("kd_hybrid", "kd_hybrid", "mix 0.9", 0.795, 0.66, "left"),
        ("beyond_log", "beyond_log", "alpha 0.25", 0.8, 0.795, "center"),
        ("α ½", "beyond_log", "alpha 0.5", 0.952, 0.62, "left"),
        ("target_sft", "target_sft", "eta 0.5", 0.862, 0.77, "left"),
        ("iw_sft", "iw_sft", NONE, 1.012, 0.12, "left"),
        ("dft", "dft", NONE, 1.012, 0.08, "left"),
        ("asft", "asft", "kl_weight 0.1", 1.012, 0.04, "left"),
    ),
    LONG: (
        *BOTH,
        ("sft, eaft", "sft", NONE, 0.7, 0.82, "right"),
        ("gem", "gem", "beta 0.5", 0.672, 0.64, "left"),
        ("kd", "kd", NONE, 0.795, 0.725, "left"),
        ("kd_hybrid", "kd_hybrid", "mix 0.9", 0.795, 0.685, "left"),
        ("beyond_log", "beyond_log", "alpha 0.5", 0.815, 0.875, "right"),
        ("α ¾", "beyond_log", "alpha 0.75", 0.947, 0.885, "left"),
        ("target_sft, η 0.05", "target_sft", "eta 0.05", 0.95, 0.985, "right"),
        ("iw_sft", "iw_sft", NONE, 1.012, 0.538, "left"),
        ("dft", "dft", NONE, 1.012, 0.732, "left"),
        ("asft", "asft", "kl_weight 0.3", 0.955, 0.42, "right"),
    ),
}
MARKS: Any = {"linestyle": "none", "clip_on": False, "zorder": 3}


def draw(table: pd.DataFrame) -> Figure:
    """The frontier after few and after many steps; then who is best overall, as the prior is right more often."""
    late = LONG if bool((table["step"] == LONG).any()) else STEPS  # the quick size ends early
    with plots.style():
        figure = Figure(figsize=(15, 6.4))
        axes = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 0.8))
        figure.subplots_adjust(left=0.055, right=0.905, top=0.93, bottom=0.19, wspace=0.31)
        for ax, step in zip(axes[:2], (STEPS, late), strict=True):
            _frontier(ax, table, step)
        _overall(axes[2], table)
        for ax in axes:
            ax.tick_params(labelsize=10.5)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
                axis.label.set_fontsize(12)
        figure.text(
            0.055, 0.025,
            f"Probability of a right continuation; means of {table['seed'].nunique()} seeds. {CONTEXTS} contexts with "
            f"{LABELS} labels each, {100 * RATE:.0f} % of them noise; V = {VOCAB}. Gradient descent, rate "
            f"{RATE_PER_CONTEXT:g} per context.\n● default   · other settings   ╌ sees a teacher that is right at "
            f"{100 * TEACHER_RIGHT:.0f} % of the contexts   ┈ SFT on its way from the prior   grey: the most that "
            "these labels and this prior allow",
            color=plots.SOFT, fontsize=11, linespacing=1.4,
        )  # fmt: skip
    return figure


def _frontier(ax: Axes, table: pd.DataFrame, step: int) -> None:
    points, levels = means(table, step), means(table, 0)
    limit = levels[levels["method"] == "best"]
    ax.plot(limit["kept"], limit["learned"], color=plots.FAINT, lw=7)
    way = pd.concat([means(table, at) for at in (0, *PATH)])
    way = way[way["method"].isin(("prior", "sft"))]
    ax.plot(way["kept"], way["learned"], color=plots.colour("sft"), lw=1.4, ls=(0, (1, 1.5)))
    for name in PAPER:
        mine = points[points["method"] == name]
        mine = mine.iloc[np.argsort([_number(text) for text in mine["setting"]])]
        colour, dash = plots.colour(name), (0, (4, 1.5)) if name in TAUGHT else "-"
        ax.plot(mine["kept"], mine["learned"], color=colour, ls=dash, zorder=2)
        ax.plot(mine["kept"], mine["learned"], ".", color=colour, ms=6, **MARKS)
        one = mine[mine["default"].astype(bool)]
        ax.plot(one["kept"], one["learned"], "o", color=colour, ms=9, **MARKS)
    start = cell(levels, "prior", NONE, "kept"), cell(levels, "prior", NONE, "learned")
    ax.plot(*start, "s", color=plots.INK, ms=10, mfc="white", mew=1.8, **MARKS)
    ax.text(start[0] - 0.017, 0.03, "start: the prior", ha="right", fontsize=10.5)
    if step == STEPS:
        ax.text(0.862, 0.5, "SFT,\nstopped\nearly", fontsize=10, va="center", linespacing=1.1)
        ax.text(
            float(limit["kept"].min()) - 0.012, 0.95, "the most possible", ha="right", fontsize=10.5, color=plots.SOFT
        )
    ax.set(xlim=(0.47, 1.0), ylim=(0, 1))
    ax.set_title(f"After {step} steps", fontsize=13.5, pad=10)
    ax.set_xlabel("kept: where the prior was right")
    ax.set_ylabel("learned: where the prior was wrong")
    for text, name, beside, x, y, side in PLACES[step]:
        end = cell(points, name, beside, "kept"), cell(points, name, beside, "learned")
        leader = {"arrowstyle": "-", "color": plots.colour(name), "lw": 0.7, "shrinkA": 1, "shrinkB": 3}
        ax.annotate(
            text, end, xytext=(x, y), ha=side, va="center", color=plots.as_text(plots.colour(name)), fontsize=10.5,
            arrowprops=leader, annotation_clip=False,
        )  # fmt: skip


def _number(text: str) -> float:
    """The value in a setting's name."""
    last = text.split()[-1]
    return float(last) if last[0].isdigit() else 0.0


def _overall(ax: Axes, table: pd.DataFrame) -> None:
    """A straight line per default: exact, as no context touches another. Dots: measured."""
    points = defaults(means(table, STEPS))
    share = np.linspace(0, 1, 101)
    highest = [float(overall(points, r).max()) for r in share]
    ax.plot(share, highest, color=plots.FAINT, lw=9, solid_capstyle="butt")
    ends = []
    for _, one in points.iterrows():
        colour = plots.colour(one["method"])
        ax.plot(
            [0, 1], [one["learned"], one["kept"]], color=colour, ls=(0, (4, 1.5)) if one["method"] in TAUGHT else "-"
        )
        ends.append(plots.EndLabel(1, one["kept"], one["method"], colour))
    for r in RIGHTNESS:
        measured = defaults(means(table, STEPS, ("uniform", r)))
        ax.scatter(
            [r] * len(measured), overall(measured, r), c=[plots.colour(m) for m in measured["method"]], s=16, zorder=3
        )
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_title(f"Overall, defaults, after {STEPS} steps", fontsize=13.5, pad=10)
    ax.set_xlabel("share of contexts where the prior is right")
    plots.label_ends(ax, ends, size=10.5, gap=0.06)


def see(table: pd.DataFrame) -> str:
    points = means(table, STEPS)
    points = points[points["method"].isin(PAPER)]

    def both(name: str, setting: str) -> tuple[float, float]:
        return cell(points, name, setting, "kept"), cell(points, name, setting, "learned")

    sft, gate, anchored = both("sft", NONE), both("beyond_log", "alpha 0.5"), both("sft_kl", "kl_weight 1")
    chosen = choices(untaught(defaults(points)))
    said = [
        f"After {STEPS} steps from a prior right at half of the contexts, SFT gives a right continuation "
        f"{percent(sft[0])} where the prior was right and {percent(sft[1])} where it was wrong; "
        f"{_list(frontier(untaught(points))['method'])} make up the frontier of the methods without a teacher "
        f"(beyond_log at its default: {percent(gate[0])} and {percent(gate[1])}), while an anchor does worse than "
        f"stopping: SFT + KL with weight 1 keeps {percent(anchored[0])} and learns {percent(anchored[1])}, SFT "
        f"stopped where it keeps as much {percent(stopped_early(table, anchored[0]))}.",
        "How often the prior is right moves no point, as contexts share nothing, and only decides which is best: among "
        "defaults without a teacher "
        + ", ".join(name if share == 0 else f"from {percent(share, digits=0)} on {name}" for name, share in chosen)
        + ".",
    ]
    if bool((table["step"] == LONG).any()):
        late = means(table, LONG)
        said.append(
            f"The ranking does depend on the steps: after {LONG}, DFT has learned "
            f"{percent(cell(late, 'dft', NONE, 'learned'))} instead of "
            f"{percent(cell(points, 'dft', NONE, 'learned'))}, beyond_log at alpha 0.75 keeps "
            f"{percent(cell(late, 'beyond_log', 'alpha 0.75', 'kept'))} and learns "
            f"{percent(cell(late, 'beyond_log', 'alpha 0.75', 'learned'))}, and profit, still at "
            f"{percent(cell(late, 'profit', NONE, 'learned'))}, never looks at what it does not believe."
        )
    return " ".join(said)


def cell(points: pd.DataFrame, method: str, setting: str, column: str) -> float:
    """One number of `means`."""
    return float(points.set_index(["method", "setting"])[column].to_dict()[method, setting])


def _list(methods: pd.Series) -> str:
    names = list(dict.fromkeys(methods))
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


STUDY = Study(
    name="prior_conflict",
    title=(
        "Kept against learned, from five labels per context of which three in ten are noise. All begin at a prior as "
        "sure where it is wrong as where it is right; kd, kd_hybrid and target_sft also see a teacher. Optimum: where "
        "training on these labels would end, where theory has a closed form. ± is half of the 95 % interval over "
        "seeds. cft is left out: nothing but chance could choose its critical labels here."
    ),
    question="Which methods learn what a prior had wrong without losing what it had right?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
