"""Fifteen methods learn handwritten digits from labels of which a fifth are wrong.

Every run starts from the *reference*, as fine-tuning does: a small network trained on a clean tenth of the images.
The *teacher* is four times as wide and was trained on the same tenth. Each method then trains on 917 further
images with noisy labels, with its default parameters, the same batches, the same number of steps and the same
optimiser: Adam, which hardly notices the scale of a gradient, so that small weights do not mean slow learning.
The quick size has one learning rate for all. The full size tries the same few for every method and seed, and
takes the one that agrees best with held-out labels as noisy as the training labels: nothing tells a method which
labels are wrong. What iw_sft weighs by and cft leaves out is said in `qunify.training.weights_and_mask`.
"""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from analyses.kit.words import percent, title
from analyses.studies.digits.data import CONDITIONS
from analyses.studies.digits.runs import Plan, run, tuned
from qunify import plots

QUICK = Plan(seeds=tuple(range(5)), steps=400, rates=(3e-3,))
FULL = Plan(seeds=tuple(range(10)), steps=1200, rates=(3e-4, 1e-3, 3e-3))

NOISY = tuple(condition for condition in CONDITIONS if condition != "clean")
ACCURACY, RIGHT, WRONG = "accuracy", "trust in right labels", "trust in wrong labels"
FINAL = (ACCURACY, "negative log-likelihood", "calibration error")
DIGEST = (*FINAL, RIGHT, WRONG, "wrong labels memorised")

MOVED = 0.05  # a change of trust that the picture can show

Values = dict[Any, float]  # by (condition, method, metric)


def rows(full: bool) -> pd.DataFrame:
    """One row per measurement: condition, method, seed, lr, step, metric, value."""
    return run(FULL if full else QUICK)


def summary(table: pd.DataFrame, when: Literal["start", "end"] = "end") -> pd.DataFrame:
    """Mean and half-width of the 95 % interval over seeds (Student), by (condition, method, metric).

    `when`: the last measurement or the first; they differ for trust and memorisation, which are watched on the way.

    Methods are taken at their tuned learning rate. The half-width is NaN for a single seed.
    """
    fixed = table[table["lr"].isna()]  # the reference, the teacher and the data have no learning rate
    measured = pd.concat([fixed, tuned(table[table["lr"].notna()], table)])
    steps = measured.groupby(["condition", "method", "seed", "metric"])["step"]
    chosen = steps.transform("max" if when == "end" else "min")
    return intervals(measured[measured["step"] == chosen], ["condition", "method", "metric"]).sort_index()


def ranking(mean: Values, condition: str) -> list[str]:
    """The fine-tuned methods, best accuracy first."""
    accuracy = {m: value for (c, m, metric), value in mean.items() if (c, metric) == (condition, ACCURACY)}
    return sorted(accuracy, key=lambda method: -accuracy[method])


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """Means at the end, a row per condition and method, best accuracy first; ± is half of the 95 % interval."""
    found = summary(table).drop(index="data", level="method").reset_index()
    mean, half = (
        found.pivot_table(index=["condition", "method"], columns="metric", values=v) for v in ("mean", "half")
    )
    columns = {}
    for metric in DIGEST:
        columns[metric] = mean[metric]
        if metric in FINAL:
            columns[f"{metric} ±"] = half[metric]
    wide = pd.DataFrame(columns).reset_index()
    wide["condition"] = pd.Categorical(wide["condition"], list(CONDITIONS))
    return wide.sort_values(["condition", ACCURACY], ascending=[True, False], ignore_index=True)


def see(table: pd.DataFrame) -> str:
    mean: Values = summary(table)["mean"].to_dict()

    def share(condition: str, method: str, metric: str = ACCURACY) -> str:
        return percent(mean[condition, method, metric])

    redrawn, confused = (ranking(mean, condition)[0] for condition in NOISY)
    memorised = "wrong labels memorised"
    return (
        f"With {share('redrawn', 'data', 'share of labels wrong')} of the labels redrawn at random, SFT reaches "
        f"{share('redrawn', 'sft')} on clean test images and {title(redrawn)}, the highest mean, "
        f"{share('redrawn', redrawn)}; with as many confused with a digit that looks alike, SFT reaches "
        f"{share('confused', 'sft')} and {title(confused)} {share('confused', confused)}, where the model all "
        f"start from had {share('clean', 'reference')} and SFT on right labels has {share('clean', 'sft')}. "
        f"Of the wrong labels among the confused, SFT ends up repeating {share('confused', 'sft', memorised)} and "
        f"{title(confused)} {share('confused', confused, memorised)}, whose trust is "
        f"{mean['confused', confused, RIGHT]:.2f} in the right labels and {mean['confused', confused, WRONG]:.2f} in "
        f"the wrong ones. EAFT, whose trust is the model's uncertainty, puts {mean['confused', 'eaft', RIGHT]:.2f} in "
        f"the right labels and {mean['confused', 'eaft', WRONG]:.2f} in the wrong ones."
    )


def draw(table: pd.DataFrame) -> Figure:
    """A block per kind of noise, methods sorted by accuracy: accuracy beside trust in right and in wrong labels."""
    found = summary(table)
    mean: Values = found["mean"].to_dict()
    half: Values = found["half"].to_dict()
    start: Values = summary(table, "start")["mean"].to_dict()
    with plots.style():
        figure = Figure(figsize=(13.5, 7.2))
        widths = (1, 1, 0.55, 1, 1)  # the third is a gap
        grid = figure.add_gridspec(1, 5, width_ratios=widths, wspace=0.07)
        figure.subplots_adjust(left=0.118, right=0.988, bottom=0.155, top=0.845)
        accuracy = [figure.add_subplot(grid[0]), figure.add_subplot(grid[3])]
        trust = [figure.add_subplot(grid[1]), figure.add_subplot(grid[4])]
        for condition, left, right in zip(NOISY, accuracy, trust, strict=True):
            order = ranking(mean, condition)
            draw_accuracy(left, condition, order, mean, half)
            draw_trust(right, condition, order, mean, start)
            share = mean[condition, "data", "share of labels wrong"]
            heading = f"{100 * share:.0f} % of the labels {CONDITIONS[condition]}"
            left.text(0, 1.13, heading, transform=left.transAxes, fontsize=13.5, weight="bold")
        for panels in (accuracy, trust):  # one scale for both kinds of noise
            panels[0].sharex(panels[1])
            panels[0].autoscale()
            panels[1].autoscale()
        for ax in (*accuracy, *trust):
            plots.lanes(ax, len(order))
            ax.tick_params(axis="x", labelsize=11)
            ax.xaxis.label.set_fontsize(11.5)
        figure.text(0.5, 0.018, footnote(table), ha="center", color=plots.SOFT, fontsize=11)
    return figure


def footnote(table: pd.DataFrame) -> str:
    """How the numbers were made, from the table alone."""
    rates = [f"{rate:g}" for rate in sorted(table["lr"].dropna().unique())]
    choice = f" chosen from {', '.join(rates)} on noisy held-out labels" if len(rates) > 1 else f" {rates[0]} for all"
    seeds, steps = table["seed"].nunique(), table["step"].max()
    return f"Mean and 95 % interval over {seeds} seeds; {steps} steps of Adam from one start, learning rate{choice}"


def draw_accuracy(ax: Axes, condition: str, order: list[str], mean: Values, half: Values) -> None:
    """Mean and interval of each method, a row each, and the levels to measure them by."""
    for y, method in enumerate(order):
        key = condition, method, ACCURACY
        ax.errorbar(mean[key], y, xerr=half[key], fmt="o", color=plots.colour(method), markersize=7)
    plots.name_methods(ax, order, [title(method) for method in order], size=12.5)
    levels = (
        ("reference", "start ", "right", 1.01),
        ("teacher", "teacher ", "right", 1.05),
        ("sft", " SFT on right labels", "left", 1.01),
    )
    for method, text, side, height in levels:
        level = mean["clean", method, ACCURACY]
        ax.axvline(level, ymax=height + 0.03, color=plots.SOFT, linewidth=1, zorder=0, clip_on=False)
        ax.text(level, height, text, transform=ax.get_xaxis_transform(), ha=side, color=plots.SOFT, fontsize=11)
    ax.set_xlabel("accuracy on clean images")
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def draw_trust(ax: Axes, condition: str, order: list[str], mean: Values, start: Values) -> None:
    """Mean trust, a row per method: a ring for the wrong labels, a dot for the right ones, a bar where each began."""
    for y, method in enumerate(order):
        right, wrong = (mean[condition, method, metric] for metric in (RIGHT, WRONG))
        colour = plots.colour(method)
        ax.plot([wrong, right], [y, y], color=colour, linewidth=2, alpha=0.5)
        for metric in (RIGHT, WRONG):
            if abs(start[condition, method, metric] - mean[condition, method, metric]) > MOVED:
                ax.plot(start[condition, method, metric], y, "|", color=colour, markersize=13, markeredgewidth=1.6)
        ax.plot(right, y, "o", color=colour, markersize=7)
        ax.plot(wrong, y, "o", color=colour, markersize=11, fillstyle="none", markeredgewidth=1.6)
    ax.set_yticks(range(len(order)), [""] * len(order))
    ax.set_xlabel("trust in ○ wrong, ● right labels\n| where it began, if it moved")


STUDY = Study(
    name="digits",
    title=(
        "A fifth of the labels wrong: what each method makes of it. In the table, ± is half of the 95 % interval over "
        "seeds. iw-SFT weighs labels by the model all start from, and that one has seen right labels only."
    ),
    question="Which methods learn from real images when some of the labels are wrong?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
