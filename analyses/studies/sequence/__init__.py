"""Fifteen methods on hidden Markov sequences, each measured against the exact next-token distribution.

A small transformer is pretrained on a few sequences of a chain: the *reference*, and where every run starts. The
*teacher* has about twice the parameters and read four times as many. Each method then trains on new sequences, every
one once, with its default parameters, the same batches and the same rate of Adam: on right ones alone (*clean*), or
with a fifth of them written by a chain that emits other tokens (*mixed*), fluent and wrong from end to end. What
stands before a token tells the two apart better the more of it there is, so that the distance from the truth is
measured place by place, by the forward recursion and not by samples.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qunify as qu
from analyses.kit import cache, runner
from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from analyses.kit.words import title, within
from analyses.studies.sequence.runs import (
    COLUMNS,
    CONDITIONS,
    ENTROPY_GAP,
    FULL,
    KL,
    PLACES,
    TRUST,
    VARIATION,
    method_rows,
    start_rows,
)
from qunify import plots

LEVELS = ("reference", "teacher", "exact")
DIGEST = (KL, VARIATION, ENTROPY_GAP)

Values = dict[Any, float]  # by (condition, method, metric, tokens_before)


def rows(full: bool) -> pd.DataFrame:
    """One row per measurement: condition, method, seed, step, metric, tokens_before, value. The training takes long,
    so that only the full run does it; the quick one reads what it found."""
    if not full:
        return runner.read("sequence", runner.FIGURES)
    tables = []
    for seed in FULL.seeds:  # one seed after the other: its models are kept no longer than needed
        tables.append(cache.part("sequence", f"{seed}-start", functools.partial(start_rows, FULL, seed)))
        for condition in CONDITIONS:
            for name in FULL.methods:
                make = functools.partial(method_rows, FULL, name, condition, seed)
                tables.append(cache.part("sequence", f"{seed}-{condition}-{name}", make))
    table = pd.concat(tables, ignore_index=True)[COLUMNS]
    return table.astype({"seed": int, "step": int, "value": float})


def summary(table: pd.DataFrame, when: Literal["start", "end"] = "end") -> pd.DataFrame:
    """Mean and half-width of the 95 % interval over seeds (Student), by (condition, method, metric, tokens_before).

    `when`: the last measurement or the first; they differ for what is measured twice, which is trust.
    """
    key = ["condition", "method", "metric", "tokens_before"]
    steps = table.groupby([*key, "seed"])["step"]
    chosen = table[table["step"] == steps.transform("max" if when == "end" else "min")]
    return intervals(chosen, key).sort_index()


def ranking(mean: Values, condition: str) -> list[str]:
    """The fine-tuned methods, nearest to the truth first."""
    near = {m: v for (c, m, metric, where), v in mean.items() if (c, metric, where) == (condition, KL, "all")}
    return sorted(near.keys() - set(LEVELS), key=lambda method: near[method])


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """Means over all places at the end, a row per method, nearest to the truth on mixed data first; ± is half of the
    95 % interval."""
    found, start = summary(table), summary(table, "start")["mean"].to_dict()
    mean, half = found["mean"].to_dict(), found["half"].to_dict()
    order = ["reference", "teacher", *ranking(mean, "mixed")]
    columns: dict[str, list[Any]] = {"method": list(order)}
    for condition in CONDITIONS:
        columns[f"KL, {condition}"] = [mean.get((condition, m, KL, "all")) for m in order]
        columns[f"KL, {condition} ±"] = [half.get((condition, m, KL, "all")) for m in order]
        columns[f"entropy gap, {condition}"] = [mean.get((condition, m, ENTROPY_GAP, "all")) for m in order]
    columns["total variation, mixed"] = [mean.get(("mixed", m, VARIATION, "all")) for m in order]
    for metric in TRUST.values():
        columns[f"{metric}, at the start"] = [start.get(("mixed", m, metric, "all")) for m in order]
    return pd.DataFrame(columns)


def see(table: pd.DataFrame) -> str:
    found = summary(table)
    mean: Values = found["mean"].to_dict()
    half: Values = found["half"].to_dict()
    start: Values = summary(table, "start")["mean"].to_dict()

    def told(condition: str, method: str, metric: str = KL, where: str = "all") -> str:
        key = condition, method, metric, where
        return within(mean[key], half[key])

    best, worst = ranking(mean, "mixed")[0], ranking(mean, "mixed")[-1]
    label_only = [m for m in ranking(mean, "mixed") if "teacher_logits" not in qu.get(m).needs]
    early, late = list(PLACES.values())[1], list(PLACES.values())[-1]
    share = mean["mixed", "data", "share wrong", "all"]
    right, wrong = (start["mixed", "dft", TRUST[which], "all"] for which in (True, False))
    return (
        f"The model all start from is {told('clean', 'reference')} nats (KL) from the exact next-token distribution; "
        f"on right sequences SFT comes to {told('clean', 'sft')}, and with {100 * share:.0f} % of them wrong to "
        f"{told('mixed', 'sft')}, {told('mixed', 'sft', where=early)} after {early} tokens and "
        f"{told('mixed', 'sft', where=late)} after {late}, when the wrong ones can be told apart. "
        f"Nearest on mixed data is {title(best)} ({told('mixed', best)}), without a teacher {title(label_only[0])} "
        f"({told('mixed', label_only[0])}), farthest {title(worst)} ({told('mixed', worst)}). "
        f"DFT's trust does tell right from wrong sequences at the start, {right:.2f} to {wrong:.2f}, and yet its "
        f"entropy ends {abs(mean['mixed', 'dft', ENTROPY_GAP, 'all']):.2f} nats "
        f"{'below' if mean['mixed', 'dft', ENTROPY_GAP, 'all'] < 0 else 'above'} the truth's."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Distance from the truth by place, for clean and for mixed data, and the entropy gap of each method."""
    found = summary(table)
    mean: Values = found["mean"].to_dict()
    half: Values = found["half"].to_dict()
    with plots.style():
        figure = Figure(figsize=(15.5, 7.0))
        places = ((0.055, 0.235), (0.41, 0.235), (0.835, 0.155))  # left edges and widths
        clean, mixed, gap = (figure.add_axes((left, 0.16, width, 0.765)) for left, width in places)
        share = mean["mixed", "data", "share wrong", "all"]
        for ax, condition in ((clean, "clean"), (mixed, "mixed")):
            draw_places(ax, condition, mean)
        mixed.sharey(clean)
        draw_gap(gap, mean, half)
        for ax, title in (
            (clean, "Trained on right sequences"),
            (mixed, f"{100 * share:.0f} % of the sequences wrong"),
            (gap, "Entropy gap, nats"),
        ):
            ax.set_title(title, fontsize=13, weight="bold", pad=12)
            ax.tick_params(labelsize=11)
            ax.xaxis.label.set_fontsize(11.5)
        clean.set_ylabel("KL from the exact next-token distribution, nats", fontsize=11.5)
        for ax, condition in ((clean, "clean"), (mixed, "mixed")):
            label_places(ax, condition, mean)
        figure.text(0.5, 0.018, footnote(table), ha="center", color=plots.SOFT, fontsize=11)
    return figure


def draw_places(ax: Axes, condition: str, mean: Values) -> None:
    """A line per method, and two in grey: where all start, and who knows exactly how mixed data are made."""
    places = list(PLACES.values())
    start = [mean["clean", "reference", KL, place] for place in places]
    ax.plot(start, color=plots.SOFT, linewidth=3)
    order = ranking(mean, condition)
    for method in order:
        look = plots.line(method)
        ax.plot(
            [mean[condition, method, KL, place] for place in places], **look.kwargs, marker=look.marker, markersize=5
        )
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.75 * min(mean["clean", method, KL, place] for method in order for place in places))
    if CONDITIONS[condition] > 0:  # on clean data this one is at 0
        exact = [mean[condition, "exact", KL, place] for place in places]
        ax.plot(exact, color=plots.SOFT, linestyle=":", linewidth=2.4)
        ax.annotate("exact for mixed data", (1, exact[1]), (6, 2), textcoords="offset points", color=plots.SOFT)
    ax.set_xticks(range(len(places)), places)
    ax.set_xlabel("tokens before the predicted one")


def label_places(ax: Axes, condition: str, mean: Values) -> None:
    last = list(PLACES.values())[-1]
    x = len(PLACES) - 1
    ends = [
        plots.EndLabel(x, mean[condition, m, KL, last], title(m), plots.colour(m)) for m in ranking(mean, condition)
    ]
    ends.append(plots.EndLabel(x, mean["clean", "reference", KL, last], "start", plots.SOFT))
    plots.label_ends(ax, ends, size=11)


def draw_gap(ax: Axes, mean: Values, half: Values) -> None:
    """A row per method, nearest on mixed data on top: a ring for clean data, a dot for mixed."""
    order = ranking(mean, "mixed")
    for y, method in enumerate(order):
        colour = plots.colour(method)
        clean, mixed = (("clean", method, ENTROPY_GAP, "all"), ("mixed", method, ENTROPY_GAP, "all"))
        ax.errorbar(mean[mixed], y, xerr=half[mixed], fmt="o", color=colour, markersize=6)
        ax.plot(mean[clean], y, "o", color=colour, markersize=11, fillstyle="none", markeredgewidth=1.6)
    ax.axvline(0, color=plots.SOFT, linewidth=1, zorder=0)
    plots.name_methods(ax, order, [title(method) for method in order], size=11.5)
    plots.lanes(ax, len(order))
    ax.set_xlabel("○ clean, ● mixed\nbelow 0: surer than the truth")


def footnote(table: pd.DataFrame) -> str:
    return (
        f"A small transformer on hidden Markov sequences, {table['step'].max()} steps from one start; means over "
        f"{table['seed'].nunique()} seeds, a chain each (right: with the 95 % interval)"
    )


STUDY = Study(
    name="sequence",
    title=(
        "Hidden Markov sequences: how far each method ends from the exact next-token distribution. In the table, ± is "
        "half of the 95 % interval over seeds."
    ),
    question="How far from the true next-token distribution does each method end, place by place?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
