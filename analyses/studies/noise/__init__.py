"""How much label noise each method bears: small networks on data whose truth is known exactly.

Six Gaussian classes in four dimensions. Every network is wide enough to learn its 240 labels by heart, and starts from
a *reference* trained on 30 right labels, as fine-tuning does; the reference is also the teacher. Those on the path from
cross-entropy to mean absolute error (`runs.PATH`) are also trained from scratch. A share of the labels is drawn
from all classes alike (uniform), or is the fixed partner of the right class (class). Predicted is the population
optimum at every point: labels without end, and a network that fits them all. iw_sft and cft, whose weights carry what
they know of the noise, are left out.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.kit import runner
from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from analyses.kit.words import percent, within
from analyses.studies.noise import runs
from qunify import plots
from qunify.plots import EndLabel

WATCHED = {"uniform": 0.6, "class": 0.4}  # the rates that words and digest speak of
SHOWN = ("sft", "gce", "dft", runs.INFORMED, "kd_hybrid", "target_sft")

FULL = runs.Plan(tuple(range(10)), runs.RATES, (*runs.ALONE, runs.INFORMED, *runs.ANCHORED), runs.PATH)

TITLES = {"uniform": "drawn from all classes alike", "class": "those of the right class's partner"}
PANELS = {
    "accuracy": "Accuracy, clean points",
    "overconfidence": "Confidence − chance to be right",
    "memorised": "Wrong labels repeated",
}
NAMES = {runs.INFORMED: "forward, told rate"}


def rows(full: bool) -> pd.DataFrame:
    """A row per kind, rate, setting, start, seed and step (`runs.run`). It takes minutes, so that only the full
    run makes it; the quick one reads what it found."""
    return runs.run(FULL) if full else runner.read("noise", runner.FIGURES)


def curves(table: pd.DataFrame, metric: str, *, last: bool = True) -> pd.DataFrame:
    """Mean and half-width over seeds by (kind, rate, setting, start), after all steps or the first few; no noise is the
    rate 0 of every kind."""
    trained = table[table["step"] == (table["step"].max() if last else table.loc[table["step"] > 0, "step"].min())]
    whole = pd.concat([trained, table[table["step"] == 0]])
    clean = whole[whole["kind"] == "none"]
    kinds = [whole[whole["kind"] != "none"], *(clean.assign(kind=kind) for kind in WATCHED)]
    found = intervals(pd.concat(kinds).dropna(subset=metric), ["kind", "rate", "setting", "start"], metric)
    return found.sort_index()


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows as after all steps, with `gain`: accuracy less that of the seed's own reference."""
    start = table[table["setting"] == runs.REFERENCE].set_index("seed")["accuracy"]
    return table.assign(gain=table["accuracy"] - table["seed"].map(start))


def break_even(gain: pd.Series) -> float:
    """The rate, by straight lines between those tried, from which training is worse than leaving the reference alone;
    infinite where it never is. `gain`: by rate, from 0 on."""
    if gain.iloc[0] < 0:
        return 0.0
    for (x, a), (y, b) in pairwise(gain.items()):
        if b < 0:
            return float(x) + float(y - x) * float(a / (a - b))  # type: ignore[operator,arg-type]
    return math.inf


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """A row per kind of noise at its watched rate and method; ± is half of the 95 % interval."""
    gain = curves(gains(table), "gain")
    by = {metric: curves(table, metric) for metric in runs.METRICS}
    early = curves(table, "accuracy", last=False)["mean"]
    found = []
    for kind, rate in WATCHED.items():
        here = gain.reset_index().query("kind == @kind and rate == @rate and start != @runs.THEORY")
        ranked = here.sort_values("mean", ascending=False)
        for setting, start in zip(ranked["setting"], ranked["start"], strict=True):
            at = kind, rate, setting, start
            says = kind, rate, setting, runs.THEORY
            even = break_even(gain.xs((kind, setting, start), level=("kind", "setting", "start"))["mean"])
            found.append(
                {
                    "noise": f"{kind} {rate:g}",
                    "method": setting,
                    "start": start,
                    "accuracy": by["accuracy"]["mean"][at],
                    "accuracy ±": by["accuracy"]["half"][at],
                    "predicted accuracy": by["accuracy"]["mean"].get(says),
                    f"after {_first(table)} steps": early.get(at),
                    "over the reference": gain["mean"][at],
                    "over the reference ±": gain["half"][at],
                    "break-even rate": "never" if math.isinf(even) else f"{even:.2f}",
                    "KL(truth‖model)": by["kl"]["mean"][at],
                    "overconfidence": by["overconfidence"]["mean"][at],
                    "predicted overconfidence": by["overconfidence"]["mean"].get(says),
                    "smooth ECE": by["smooth_ece"]["mean"][at],
                    "wrong labels repeated": by["memorised"]["mean"][at],
                }
            )
    return pd.DataFrame(found)


def see(table: pd.DataFrame) -> str:
    accuracy, gain, early = (
        curves(table, "accuracy"),
        curves(gains(table), "gain"),
        curves(table, "accuracy", last=False),
    )
    trust, learned = curves(table, "overconfidence")["mean"], curves(table, "memorised")["mean"]
    u, c = ("uniform", WATCHED["uniform"]), ("class", WATCHED["class"])
    fine, theory = runs.REFERENCE, runs.THEORY

    whole = functools.partial(percent, digits=0)

    def measured(cell: tuple[str, float], setting: str, start: str = fine) -> str:
        return whole(accuracy["mean"][*cell, setting, start])

    def over(cell: tuple[str, float], setting: str) -> str:
        mean, half = (100 * gain[part][*cell, setting, fine] for part in ("mean", "half"))
        return within(mean, half, 0, sign=True)

    least = min(accuracy["mean"][*cell, s, theory] for cell in (u, c) for s in ("sft", "beyond_log", "gce", "dft"))
    reference = whole(table.loc[table["setting"] == fine, "accuracy"].mean())
    return (
        f"With labels without end no loss of the label alone breaks at these rates, bounded or not: predicted accuracy "
        f"is {whole(least)} or more, for uniform noise of any rate below 1 and for a class's partner until one half. "
        f"With {runs.TRAINING} labels memorisation comes first: at uniform noise of {u[1]:g} sft repeats "
        f"{whole(learned[*u, 'sft', fine])} of the wrong labels and has {measured(u, 'sft')} (after {_first(table)} "
        f"steps {whole(early['mean'][*u, 'sft', fine])}), dft {whole(learned[*u, 'dft', fine])} and "
        f"{measured(u, 'dft')}; but beyond_log, bounded too, has {measured(u, 'beyond_log')}, the model all start from "
        f"{reference}, and dft from scratch {measured(u, 'dft', runs.SCRATCH)}. "
        f"Robust is not calibrated: there dft is {trust[*u, 'dft', fine]:.2f} too sure, and the "
        f"{trust[*u, 'sft', fine]:+.2f} of sft is what learning by heart leaves of the {trust[*u, 'sft', theory]:+.2f} "
        f"that theory predicts. "
        f"At class noise of {c[1]:g} training beats leaving the model alone by {over(c, 'target_sft')} points with "
        f"target_sft, {over(c, 'dft')} with dft, {over(c, 'gce')} with gce and {over(c, 'sft')} with sft."
    )


def draw(table: pd.DataFrame) -> Figure:
    """A row per kind of noise: accuracy, overconfidence and memorisation against the rate, theory dashed."""
    found = {metric: curves(table, metric) for metric in PANELS}
    with plots.style():
        figure = Figure(figsize=(14.5, 8.4))
        axes = figure.subplots(len(WATCHED), len(PANELS), sharey="col")
        figure.subplots_adjust(left=0.05, right=0.895, bottom=0.125, top=0.875, wspace=0.68, hspace=0.52)
        ends = {}
        for i, kind in enumerate(WATCHED):
            for ax, (metric, title) in zip(axes[i], PANELS.items(), strict=True):
                ends[ax] = draw_curves(ax, found[metric], kind)
                ax.set_title(title, fontsize=12, pad=8)
                ax.set_xlabel("share of labels replaced", fontsize=11)
                ax.tick_params(labelsize=10.5)
            draw_theory(axes[i], found, kind, ends)
            axes[i][0].text(
                0,
                1.19,
                f"Replaced labels are {TITLES[kind]}",
                transform=axes[i][0].transAxes,
                fontsize=14,
                weight="bold",
            )
        level = float(table.loc[table["setting"] == runs.REFERENCE, "accuracy"].mean())
        for ax in axes[:, 0]:
            ax.axhline(level, color=plots.SOFT, lw=1.2, ls=":")
            ends[ax].append(EndLabel(ax.get_xlim()[1], level, "the start of all", plots.SOFT))
            ax.set_ylim(0, 1.03)
        for ax in axes[:, 1]:
            ax.axhline(0, color=plots.SOFT, lw=0.8)
        for ax in axes[:, 2]:
            ax.set_ylim(0, 1.03)
        for ax, labels in ends.items():
            plots.label_ends(ax, labels, size=10, gap=0.05)
        figure.text(0.5, 0.015, footnote(table), ha="center", color=plots.SOFT, fontsize=11)
    return figure


def draw_curves(ax: Axes, found: pd.DataFrame, kind: str) -> list[EndLabel]:
    labels = []
    present = set(found.index.get_level_values("setting"))
    lines = [(s, runs.REFERENCE) for s in SHOWN if s in present] + [("dft", runs.SCRATCH)]
    for setting, start in lines:
        part = found.xs((kind, setting, start), level=("kind", "setting", "start"))
        look = plots.line(setting.removesuffix("_told"))
        colour, dash = look.colour, look.dash if start == runs.REFERENCE else ":"
        ax.plot(part.index, part["mean"], color=colour, ls=dash, lw=2, marker=look.marker, ms=4)
        ax.fill_between(
            part.index, part["mean"] - part["half"], part["mean"] + part["half"], color=colour, alpha=0.13, lw=0
        )
        name = NAMES.get(setting, setting) if start == runs.REFERENCE else f"{setting} from scratch"
        labels.append(EndLabel(float(part.index[-1]), float(part["mean"].iloc[-1]), name, colour))
    ax.set_xlim(0, float(part.index[-1]))
    return labels


def draw_theory(axes: list[Axes], found: dict[str, pd.DataFrame], kind: str, ends: dict[Axes, list[EndLabel]]) -> None:
    """Dashed: one accuracy for all losses that see the label alone, and the overconfidence of sft and dft."""

    def predicted(metric: str, setting: str) -> pd.Series:
        return found[metric].xs((kind, setting, runs.THEORY), level=("kind", "setting", "start"))["mean"]

    right = predicted("accuracy", "sft")
    axes[0].plot(right.index, right, color=plots.INK, lw=1.6, ls=(0, (4, 2)))
    ends[axes[0]].append(EndLabel(right.index[-1], right.iloc[-1], "theory, all three", plots.INK))
    for setting in ("sft", "dft"):
        gap = predicted("overconfidence", setting)
        axes[1].plot(gap.index, gap, color=plots.colour(setting), lw=1.6, ls=(0, (4, 2)))
        ends[axes[1]].append(EndLabel(gap.index[-1], gap.iloc[-1], f"theory: {setting}", plots.colour(setting)))


def _first(table: pd.DataFrame) -> int:
    return int(table.loc[table["step"] > 0, "step"].min())


def footnote(table: pd.DataFrame) -> str:
    seeds, steps = table["seed"].nunique(), table["step"].max()
    return (
        f"Mean and 95 % interval over {seeds} seeds; {steps} steps of Adam on {runs.TRAINING} labels, from a network "
        f"trained on {runs.TRUSTED} right ones; {runs.CLASSES} Gaussian classes in {runs.FEATURES} dimensions.\n"
        "Theory: the population optimum, which has one accuracy for sft, gce and dft"
    )


STUDY = Study(
    name="noise",
    title="Wrong labels: what theory allows, and what memorisation leaves of it",
    question="How much label noise does each method bear, and what does it do to calibration?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
