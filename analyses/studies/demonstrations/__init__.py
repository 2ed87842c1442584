"""Fifteen methods learn from natural solutions of word problems, right and wrong ones mixed.

A small transformer is pretrained on half of GSM8K's demonstrations: the *reference*, and where every run starts. The
*teacher* has twice the parameters and read the same half. Each method then trains on solutions that four language
models wrote for other questions, about half of them wrong, every solution once, with its default parameters, the same
batches and the same rate of Adam, which hardly notices the scale of a gradient. Only the tokens of the solutions are
trained on; which solutions are right is known to the measurement alone. What iw_sft weighs by and cft leaves out is
said in `qunify.training.weights_and_mask`.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.kit import cache, runner
from analyses.kit.intervals import interval, intervals
from analyses.kit.study import Study
from analyses.kit.words import minus, title, within
from analyses.studies.demonstrations.runs import (
    CALIBRATION,
    COLUMNS,
    ENTROPY,
    FULL,
    KL,
    NLL,
    SAME_QUESTION,
    TRUST,
    method_rows,
    start_rows,
)
from qunify import plots
from qunify.catalogue import PAPER

PEOPLE, RIGHT, WRONG = "held-out demonstrations", "train, right", "train, wrong"
MODELS = ("reference", "teacher")

#: The digest's columns: metric, text, tokens.
SHOWN = {
    "held-out loss": (NLL, PEOPLE, "all"),
    "calibration error": (CALIBRATION, PEOPLE, "all"),
    "entropy": (ENTROPY, PEOPLE, "all"),
    "KL to start": (KL, PEOPLE, "all"),
    "trust, right": (TRUST, RIGHT, "all"),
    "trust, wrong": (TRUST, WRONG, "all"),
    "right less wrong, same question": (SAME_QUESTION, "train", "all"),
    "trust, numbers of right": (TRUST, RIGHT, "numbers"),
    "trust, first wrong step": (TRUST, WRONG, "first wrong step"),
}
WITH_INTERVAL = ("calibration error", "right less wrong, same question")

MOVED = 0.03  # a change of trust that the picture can show

Values = dict[Any, float]  # by (method, metric, text, tokens)


def rows(full: bool) -> pd.DataFrame:
    """One row per measurement: method, seed, step, metric, text, tokens, value. The training takes long, so that only
    the full run does it; the quick one reads what it found."""
    if not full:
        return runner.read("demonstrations", runner.FIGURES)
    tables = []
    for seed in FULL.seeds:  # one seed after the other: its two pretrained models are kept no longer than needed
        tables.append(cache.part("demonstrations", f"{seed}-start", functools.partial(start_rows, FULL, seed)))
        for name in FULL.methods:
            make = functools.partial(method_rows, FULL, name, seed)
            tables.append(cache.part("demonstrations", f"{seed}-{name}", make))
    table = pd.concat(tables, ignore_index=True)[COLUMNS]
    return table.astype({"seed": int, "step": int, "value": float})


def summary(table: pd.DataFrame, when: Literal["start", "end"] = "end") -> pd.DataFrame:
    """Mean and half-width of the 95 % interval over seeds (Student), by (method, metric, text, tokens).

    `when`: the last measurement or the first; they differ for what is watched on the way, which is trust.
    """
    key = ["method", "metric", "text", "tokens"]
    steps = table.groupby([*key, "seed"])["step"]
    chosen = table[table["step"] == steps.transform("max" if when == "end" else "min")]
    return intervals(chosen, key).sort_index()


def change(table: pd.DataFrame, method: str, metric: str = NLL, text: str = PEOPLE) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of end less start, seed by seed: seeds differ in their questions."""
    chosen = table[(table["metric"] == metric) & (table["text"] == text) & (table["tokens"] == "all")]
    by_seed = chosen.pivot_table(index="seed", columns="method", values="value")
    return interval(by_seed[method] - by_seed["reference"])


def gap(table: pd.DataFrame, method: str, right: str = "all", wrong: str = "all") -> tuple[float, float]:
    """Mean and half-width of trust in these tokens of right solutions less that in those of wrong ones, at the end."""
    end = table[(table["method"] == method) & (table["metric"] == TRUST) & (table["step"] == table["step"].max())]
    by_seed = end.pivot_table(index="seed", columns=["text", "tokens"], values="value")
    return interval(by_seed[RIGHT, right] - by_seed[WRONG, wrong])


def ranking(table: pd.DataFrame) -> list[str]:
    """The fine-tuned methods, least held-out loss first."""
    mean: Values = summary(table)["mean"].to_dict()
    loss = {method: value for (method, *key), value in mean.items() if tuple(key) == (NLL, PEOPLE, "all")}
    return sorted(loss.keys() - set(MODELS), key=lambda method: loss[method])


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """Means at the end, a row per method, least held-out loss first; ± is half of the 95 % interval."""
    found = summary(table)
    mean, half = found["mean"].to_dict(), found["half"].to_dict()
    order = [*MODELS, *ranking(table)]
    columns: dict[str, list[Any]] = {"method": list(order)}
    for name, key in SHOWN.items():
        columns[name] = [mean.get((method, *key)) for method in order]
        if name in WITH_INTERVAL:
            columns[f"{name} ±"] = [half.get((method, *key)) for method in order]
        if name == "held-out loss":
            changes = [change(table, method) for method in order]
            columns["its change"], columns["its change ±"] = ([c[i] for c in changes] for i in (0, 1))
    return pd.DataFrame(columns)


def see(table: pd.DataFrame) -> str:
    found = summary(table)
    mean: Values = found["mean"].to_dict()
    half: Values = found["half"].to_dict()

    def told(method: str) -> str:
        return minus(within(*change(table, method), sign=True))

    moving = [name for name in table["method"].unique() if name in PAPER and _moves(table, name)]
    same = {name: (mean[key], half[key]) for name in moving if (key := (name, SAME_QUESTION, "train", "all"))}
    apart = [title(name) for name, (value, half_width) in same.items() if abs(value) > half_width]
    right, wrong = (mean["dft", TRUST, text, "all"] for text in (RIGHT, WRONG))
    steps = gap(table, "dft", "numbers", "first wrong step")
    best = ranking(table)[0]
    before, after = (mean[name, ENTROPY, PEOPLE, "all"] for name in ("reference", "dft"))
    return (
        f"With {100 * mean['data', 'share wrong', 'train', 'all']:.0f} % of the solutions wrong, trust hardly tells "
        f"right from wrong at this size: DFT ends with {right:.3f} in right and {wrong:.3f} in wrong solutions, "
        f"{within(*same['dft'])} apart where both answer the same question and {within(*steps)} apart between the "
        "numbers of right calculations and those of the first wrong step. "
        f"Of the {len(moving)} methods whose trust varies at all, {len(apart) or 'none'} "
        f"{'has' if len(apart) == 1 else 'have'} a difference on the same question whose 95 % interval leaves out 0"
        f"{' (' + ', '.join(apart) + ')' if apart else ''}. "
        f"Held-out demonstrations cost {mean['reference', NLL, PEOPLE, 'all']:.2f} nats a token at the start; SFT "
        f"changes that by {told('sft')}, {title(best)}, the best, by {told(best)}, and DFT by {told('dft')}, its "
        f"entropy going from {before:.2f} to {after:.2f} nats."
    )


def _moves(table: pd.DataFrame, name: str) -> bool:
    """Whether the method's trust depends on the token at all."""
    trust = table[(table["method"] == name) & (table["metric"] == TRUST)]["value"]
    return bool(trust.max() - trust.min() > 1e-6)


def draw(table: pd.DataFrame) -> Figure:
    """Methods sorted by held-out loss: the loss, then trust in right and wrong solutions, then at the numbers."""
    found = summary(table)
    mean: Values = found["mean"].to_dict()
    start: Values = summary(table, "start")["mean"].to_dict()
    order = ranking(table)
    with plots.style():
        figure = Figure(figsize=(13.5, 7.0))
        grid = figure.add_gridspec(1, 3, wspace=0.08, left=0.118, right=0.985, bottom=0.16, top=0.885)
        loss, whole, digits = (figure.add_subplot(grid[i]) for i in range(3))
        draw_loss(loss, order, table)
        draw_trust(whole, order, mean, start, ("all", "all"))
        draw_trust(digits, order, mean, start, ("numbers", "first wrong step"))
        loss.set_title("Change of held-out loss", fontsize=13, weight="bold", pad=26)
        whole.set_title("Trust in whole solutions", fontsize=13, weight="bold", pad=26)
        digits.set_title("Trust in the numbers of calculations", fontsize=13, weight="bold", pad=26)
        loss.set_xlabel("nats a token of people's demonstrations\nmean and 95 % interval")
        whole.set_xlabel("○ wrong, ● right solutions\n| where it began")
        digits.set_xlabel("○ first wrong step, ● right solutions\n| where it began")
        for ax in (loss, whole, digits):
            plots.lanes(ax, len(order))
            ax.tick_params(axis="x", labelsize=11)
            ax.xaxis.label.set_fontsize(11.5)
        figure.text(0.5, 0.018, footnote(table), ha="center", color=plots.SOFT, fontsize=11)
    return figure


def footnote(table: pd.DataFrame) -> str:
    share = summary(table)["mean"].to_dict()["data", "share wrong", "train", "all"]
    return (
        f"A transformer of about 0.1 M parameters, pretrained on half of GSM8K, then {table['step'].max()} steps on "
        f"language models' solutions, {100 * share:.0f} % of them wrong; {table['seed'].nunique()} seeds"
    )


def draw_loss(ax: Axes, order: list[str], table: pd.DataFrame) -> None:
    """How far each method moved the loss, a row each, and the levels to measure it by."""
    for y, method in enumerate(order):
        mean, half = change(table, method)
        ax.errorbar(mean, y, xerr=half, fmt="o", color=plots.colour(method), markersize=7)
    plots.name_methods(ax, order, [title(method) for method in order], size=12.5)
    for level, text, side in ((0.0, " start", "left"), (change(table, "teacher")[0], "teacher ", "right")):
        ax.axvline(level, ymax=1.03, color=plots.SOFT, linewidth=1, zorder=0, clip_on=False)
        ax.text(level, 1.01, text, transform=ax.get_xaxis_transform(), ha=side, color=plots.SOFT, fontsize=11)


def draw_trust(ax: Axes, order: list[str], mean: Values, start: Values, parts: tuple[str, str]) -> None:
    """A row per method: a ring for the wrong solutions, a dot for the right ones, a bar where each began."""
    for y, method in enumerate(order):
        colour = plots.colour(method)
        keys = [(method, TRUST, text, part) for text, part in zip((RIGHT, WRONG), parts, strict=True)]
        right, wrong = (mean[key] for key in keys)
        ax.plot([wrong, right], [y, y], color=colour, linewidth=2, alpha=0.5)
        for key, end in zip(keys, (right, wrong), strict=True):
            if abs(start[key] - end) > MOVED:
                ax.plot(start[key], y, "|", color=colour, markersize=13, markeredgewidth=1.6)
        ax.plot(right, y, "o", color=colour, markersize=6)
        ax.plot(wrong, y, "o", color=colour, markersize=11, fillstyle="none", markeredgewidth=1.6)
    ax.set_yticks(range(len(order)), [""] * len(order))


STUDY = Study(
    name="demonstrations",
    title=(
        "Word problems solved by language models, half of the solutions wrong: what each method makes of them. In the "
        "table, ± is half of the 95 % interval over seeds."
    ),
    question="Does any method trust the right demonstrations more than the wrong ones, on real text?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
