"""How fast each method learns a token that the model believes, doubts, or is sure is another.

One label, always the same, for one softmax over ten tokens: gradient descent with one learning rate, counted in steps
until the label has probability 0.9. Only ratios mean something, as the learning rate is arbitrary: between methods at
one token, and between tokens of one method. Weights and masks per token are 1, so that iw_sft and cft are SFT here.
psft keeps the initial model as its old policy.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qunify as qu
from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from analyses.studies.dynamics import runs
from analyses.studies.dynamics.runs import CASES, GOAL, LIMIT, RATE, SURE, TEACHER, VOCAB
from qunify import plots
from qunify.catalogue import PAPER

QUICK, FULL = (0, 1), tuple(range(10))
SAME = ("iw_sft", "cft")  # as sft, at weight 1
#: Shown below the paper's: the quickest, two that begin as slowly as DFT, bounded ones, and ones that give up.
UNLEARNING = "unlearning"  # the family whose methods push away from the label
OTHERS = ("mile", "focal", "tailr", "phuber_ce", "deft", "minor_sft", "idft", "dft_undetached")


def methods(full: bool) -> tuple[str, ...]:
    """All that have a target; in the quick size the paper's, but for three that take long to come to rest."""
    if full:
        return tuple(name for name in qu.names() if qu.get(name).shift_invariant)
    return tuple(name for name in PAPER if name not in ("asft", "kd", "kd_hybrid"))


def rows(full: bool) -> pd.DataFrame:
    """A row per method, case and seed. `optimum` is p_y where the flow rests by theory, for the first seed of what was
    not learned."""
    seeds = FULL if full else QUICK
    tables = []
    for name in methods(full):
        m = qu.get(name)
        for case in CASES:
            t = runs.tokens(case, seeds)
            found = runs.learn_exactly(m, t)
            ends: list[float] = [math.nan] * len(seeds)
            if bool(found.steps[0].isnan()):
                ends[0] = float(runs.optimum(m, runs.tokens(case, seeds[:1])))
            columns = {"seed": seeds, "steps": found.steps, "end": found.end.round(decimals=6), "rested": found.rested}
            tables.append(pd.DataFrame({"method": name, "case": case, **columns, "optimum": ends}))
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean `steps` with the half-width of the interval, `end` and `optimum`, by (method, case).

    `steps` is infinite where one of the seeds did not learn.
    """
    by = ["method", "case"]
    found = intervals(table.fillna({"steps": math.inf}), by, "steps")[["mean", "half"]]
    rest = table.groupby(by, sort=False)
    return found.rename(columns={"mean": "steps"}).assign(end=rest["end"].mean(), optimum=rest["optimum"].first())


def cell(found: pd.DataFrame, method: Any, case: Any, column: str = "steps") -> float:
    return float(found[column].to_dict()[method, case])


def unlearned(found: pd.DataFrame, case: str) -> list[str]:
    return [str(m) for m, c in found.index if c == case and math.isinf(cell(found, m, c))]


def never(found: pd.DataFrame, case: str) -> list[str]:
    """What does not learn this token, though it aims at no teacher and predicts by the softmax."""
    return [m for m in unlearned(found, case) if not _aimed(m) and qu.get(m).link == "softmax"]


def _aimed(method: str) -> bool:
    """Whether the method has a teacher."""
    return "teacher_logits" in qu.get(method).needs


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """The methods of the picture: steps, those over SFT's, and those over the method's own at the easy token."""
    found = summary(table)
    out = []
    for name in [m for m in (*PAPER, *OTHERS) if (m, "easy") in found.index]:
        line: dict[str, Any] = {"Method": name}
        for case in CASES:
            line[f"{case.capitalize()}: steps"] = cell(found, name, case)
            line[f"{case}: ±"] = cell(found, name, case, "half")
        line["wrong: times SFT"] = cell(found, name, "wrong") / cell(found, "sft", "wrong")
        line["wrong ÷ easy"] = cell(found, name, "wrong") / cell(found, name, "easy")
        line["wrong: end"] = cell(found, name, "wrong", "end")
        line["wrong: optimum"] = cell(found, name, "wrong", "optimum")
        out.append(line)
    return pd.DataFrame(out).replace(math.inf, math.nan)


def see(table: pd.DataFrame) -> str:
    found = summary(table)
    sft, dft = ({case: cell(found, name, case) for case in CASES} for name in ("sft", "dft"))
    every = [cell(found, str(m), "wrong") for m in table["method"].unique()]
    slow = sum(10 * sft["wrong"] < n < math.inf for n in every)
    lost, hopeless = never(found, "wrong"), never(found, "easy")
    meant = [m for m in lost if qu.get(m).family == UNLEARNING]
    lost = [m for m in lost if m not in meant]
    others = [m for m in unlearned(found, "wrong") if m not in (*lost, *meant)]
    aimed = sum(_aimed(m) for m in others)
    return (
        f"SFT needs {sft['easy']:.0f} steps for a token it believes and {sft['wrong']:.0f} for one where it is sure "
        f"of another; DFT {dft['easy']:.0f} and {dft['wrong']:.0f}, {dft['wrong'] / sft['wrong']:.0f} times as many "
        f"as SFT. Of {len(every)} methods, {slow} need more than ten times SFT's steps for the wrong token, and "
        f"{len(lost)} do not learn it within {LIMIT:,} steps: {', '.join(lost)}"
        + (f" ({sum(m in hopeless for m in lost)} of them not even the easy one)" if {*lost} & {*hopeless} else "")
        + (f"; nor do the {len(meant)} that are made to unlearn" if meant else "")
        + (f"; {aimed} more settle nearer their teacher, who gives the label {TEACHER:g}" if aimed else "")
        + (f", and {len(others) - aimed} predict by another link than the softmax" if len(others) > aimed else "")
        + "."
    )


# ---- the picture ------------------------------------------------------------------------------------------------
LANE = 1.0e5 * 2.2  # where those stand that never reach the goal


def draw(table: pd.DataFrame) -> Figure:
    """A row per method: steps for the three tokens; on the right where those ended that never reached the goal."""
    found = summary(table)
    present = set(table["method"])

    def rank(name: str) -> tuple[bool, float]:
        every = [cell(found, name, case) for case in CASES]
        return math.isinf(max(every)), sum(math.log(min(n, 10 * LIMIT)) for n in every)

    blocks = [sorted((m for m in group if m in present and m not in SAME), key=rank) for group in (PAPER, OTHERS)]
    places = {name: float(i) for i, name in enumerate(blocks[0])}
    places |= {name: len(blocks[0]) + 0.8 + i for i, name in enumerate(blocks[1])}
    with plots.style():
        figure = Figure(figsize=(13, 8.2))
        ax = figure.subplots()
        figure.subplots_adjust(left=0.15, right=0.985, top=0.885, bottom=0.15)
        for name, y in places.items():
            _row(ax, found, name, y)
        ax.set_xscale("log")
        ax.set_xlim(6, 3.2e6)
        ax.set_ylim(max(places.values()) + 0.7, -0.7)
        ax.set_xticks([10, 100, 1000, 10_000, 100_000], ["10", "100", "1 000", "10 000", "100 000"])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("steps until the label has probability 90 %", fontsize=13, loc="left")
        plots.name_methods(ax, list(places), at=list(places.values()), size=12.5)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelsize=12)
        ax.spines["left"].set_visible(False)
        ax.spines["bottom"].set_bounds(6, LIMIT)
        for x in (10, 100, 1000, 10_000, 100_000):
            ax.axvline(x, color=plots.FAINT, lw=0.8, zorder=0)
        _headings(ax)
        if blocks[1]:
            ax.axhline(len(blocks[0]) - 0.1, color=plots.SOFT, lw=0.8)
        figure.text(
            0.015, 0.02,
            f"Means of {table['seed'].nunique()} seeds, intervals {intervals_told(found)}. One token of {VOCAB}; "
            f"learning rate {RATE:g}, so that only ratios count. The teacher gives the label {100 * TEACHER:.0f} %.\n"
            "Above the line the paper's methods at their defaults (iw_sft and cft are sft here), below it others.",
            color=plots.SOFT, fontsize=10.5, linespacing=1.4,
        )  # fmt: skip
    return figure


MARKS: dict[str, Any] = {
    "easy": {"marker": "o", "ms": 9, "mfc": "white", "mew": 2},
    "hard": {"marker": "D", "ms": 8},
    "wrong": {"marker": "o", "ms": 12},
}


MARKER = 0.07  # half of the smallest marker's width, as a share of the steps at which it stands


def intervals_told(found: pd.DataFrame) -> str:
    """Whether the markers of the picture cover the intervals, or what is drawn of them."""
    shown = found[found.index.get_level_values("method").isin([*PAPER, *OTHERS])]
    widest = (shown["half"] / shown["steps"]).max()
    return "narrower than the markers" if widest < MARKER else f"thin lines, up to ± {100 * widest:.0f} %"


def _lane(case: str) -> float:
    return float(LANE * 2.6 ** list(CASES).index(case))


def _row(ax: Axes, found: pd.DataFrame, name: str, y: float) -> None:
    colour = plots.colour(name)
    learned = {case: cell(found, name, case) for case in CASES if math.isfinite(cell(found, name, case))}
    for case, steps in learned.items():
        half = cell(found, name, case, "half")
        ax.plot([max(steps - half, 1), steps + half], [y, y], color=colour, lw=1)
    if learned:
        ax.plot([min(learned.values()), max(learned.values())], [y, y], color=colour, lw=2, alpha=0.45)
    for case in reversed(CASES):  # the small markers on top
        if case in learned:
            ax.plot(learned[case], y, color=colour, ls="none", **MARKS[case])
        else:
            end = cell(found, name, case, "end")
            ax.text(_lane(case), y, _percent(end), color=plots.as_text(colour), fontsize=11, ha="center", va="center")


def _percent(share: float) -> str:
    if share < 5e-4:
        return "0 %"
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def _headings(ax: Axes) -> None:
    """What the markers mean, above; the lane of those that never get there."""
    above: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False}
    told = {
        "easy": f"easy: begins at {_percent(CASES['easy'])}",
        "hard": f"hard: {_percent(CASES['hard'])}",
        "wrong": f"wrong: {_percent(CASES['wrong'])}, and {_percent(SURE)} on another token",
    }
    for case, x in (("easy", 7.0), ("hard", 90.0), ("wrong", 400.0)):
        ax.plot(x, 1.045, color=plots.INK, ls="none", **MARKS[case], **above)
        ax.text(1.25 * x, 1.045, told[case], fontsize=12, va="center", **above)
    ax.text(_lane("hard"), 1.09, f"never {_percent(GOAL)}: ends at", fontsize=12, ha="center", va="center", **above)
    for case in CASES:
        ax.text(_lane(case), 1.035, case, fontsize=11, ha="center", va="center", color=plots.SOFT, **above)
    ax.axvspan(LIMIT * 1.15, 3.2e6, color="#f4f4f4", zorder=-1, lw=0)


STUDY = Study(
    name="dynamics",
    title=(
        f"Steps until p_y ≥ {GOAL:g} when one label is shown again and again: an easy token (p_y = {CASES['easy']:g} "
        f"at the start), a hard one ({CASES['hard']:g}) and one where the model is sure of another "
        f"({CASES['wrong']:g} against {SURE:g}). Parameters at their defaults; ± is half of the 95 % interval over "
        f"seeds; empty: not within {LIMIT:,}."
    ),
    question="How long does it take to learn a token, and which tokens are never learned?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
    methods=functools.partial(methods, True),
)
