"""Is X just Y? Every pair of methods at default parameters, decided, proved or separated by a token."""

from __future__ import annotations

import functools
import itertools
from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import qunify as qu
from analyses.kit import cache
from analyses.kit.study import Study
from qunify import plots
from qunify.comparison import LEVELS, compare

#: From the same to nothing in common, told apart by lightness too.
COLOURS = {
    "identical": "#000000",
    "scaled": "#882255",
    "directional": "#0072B2",
    "optimum": "#E69F00",
    "distinct": "#EDEDED",
}
MEANING = {
    "identical": "identical: equal gradients",
    "scaled": "scaled: a learning rate apart",
    "directional": "directional: one direction, other weights",
    "optimum": "optimum: other paths, one end",
    "distinct": "distinct",
}
SHARED = "white"  # the dot on pairs that share direction and optimum


def rows(full: bool) -> pd.DataFrame:
    """One row per pair, the method that comes first in the catalogue as `a`. One size only."""
    names = qu.names()
    tables = [cache.part("equivalence", name, functools.partial(_against, i)) for i, name in enumerate(names[:-1])]
    return pd.concat(tables, ignore_index=True)


def _against(i: int) -> pd.DataFrame:
    """One method against all that follow it."""
    names = qu.names()
    found = []
    for a, b in itertools.product(names[i : i + 1], names[i + 1 :]):
        v = compare(a, b)
        found.append(
            {
                "a": a,
                "b": b,
                "level": v.level,
                "same_direction": v.same_direction,
                "same_optimum": v.same_optimum,
                "factor": "" if v.factor is None else str(v.factor),
                "proved": v.proved,
                "silent_a": v.silent_a,
                "silent_b": v.silent_b,
                "ties": "; ".join(v.ties),
                "witness": "" if v.witness is None else str(v.witness),
            }
        )
    return pd.DataFrame(found)


#: Inches for the row of one method, points of its name, and of the legend; the share of the width that the grid has.
PER_METHOD, NAMES, LARGE, WIDE = 0.112, 7.5, 15.0, 0.72


def draw(table: pd.DataFrame) -> Figure:
    order, blocks = ordered(table)
    place = {name: i for i, name in enumerate(order)}
    grid = np.zeros((len(order), len(order)))
    dots = []
    for a, b, level, optimum in zip(table["a"], table["b"], table["level"], table["same_optimum"], strict=True):
        i, j = place[a], place[b]
        grid[i, j] = grid[j, i] = LEVELS.index(level)
        if optimum and level == "directional":
            dots += [(i, j), (j, i)]
    with plots.style():
        width = PER_METHOD * len(order) / WIDE
        figure = Figure(figsize=(width, width + 0.4))
        ax = figure.add_axes((0.135, 0.03, WIDE, 0.74))
        ax.imshow(grid, cmap=ListedColormap([COLOURS[k] for k in LEVELS]), vmin=-0.5, vmax=4.5, aspect="auto")
        ax.scatter([j for _, j in dots], [i for i, _ in dots], s=3, color=SHARED, linewidths=0)
        ax.set_xticks(range(len(order)), order, rotation=90, fontsize=NAMES)
        ax.set_yticks(range(len(order)), order, fontsize=NAMES)
        ax.xaxis.tick_top()
        ax.tick_params(length=0, pad=2, labelcolor=plots.INK)
        ax.spines[:].set_visible(False)
        _outline(ax, blocks)
        _legend(figure, table)
    return figure


def _outline(ax: Axes, blocks: list[tuple[str, int, int]]) -> None:
    """A frame round every class, named beside the grid."""
    last = -10.0
    for name, start, end in blocks:
        box = {"fill": False, "edgecolor": plots.INK, "linewidth": 0.9}
        if name != "others":
            ax.add_patch(Rectangle((start - 0.5, start - 0.5), end - start, end - start, **box))  # type: ignore[arg-type]
        middle = max((start + end - 1) / 2, last + 2.4)
        last = middle
        ax.annotate(
            f"{name} ({end - start})", xy=(1, (start + end - 1) / 2), xytext=(1.015, middle),
            xycoords=("axes fraction", "data"), textcoords=("axes fraction", "data"), fontsize=LARGE * 0.8, va="center",
            arrowprops={"arrowstyle": "-", "color": plots.FAINT, "lw": 0.8}, annotation_clip=False,
        )  # fmt: skip


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    counts = Counter(table["level"])
    x = 0.135
    figure.text(
        x,
        0.983,
        f"How {len(table)} pairs of methods are related, at default parameters",
        fontsize=LARGE * 1.2,
        va="top",
    )
    for i, level in enumerate(LEVELS):
        y = 0.952 - 0.019 * i
        figure.text(x, y, "■", color=COLOURS[level], fontsize=LARGE * 1.2, va="center")
        figure.text(x + 0.022, y, f"{MEANING[level]}  ({counts[level]})", fontsize=LARGE, va="center")
    both = int((table["same_optimum"] & (table["level"] == "directional")).sum())
    figure.text(x + 0.45, 0.952, "■", color=COLOURS["directional"], fontsize=LARGE * 1.2, va="center")
    figure.text(x + 0.4562, 0.952, "●", color=SHARED, fontsize=LARGE * 0.45, va="center")
    figure.text(x + 0.472, 0.952, f"the same optimum too  ({both})", fontsize=LARGE, va="center")


def ordered(table: pd.DataFrame) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Methods in an order that shows classes, and where each class begins and ends: those that share a direction, the
    ones among them and beside them that settle at the truth, other common optima, and the rest."""
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    alike, settle = _partners(table, "same_direction"), _partners(table, "same_optimum")
    gates = [n for n in names if n in alike["sft"]]
    truth = [n for n in names if n in settle["sft"]]
    order = (
        [n for n in gates if n not in truth] + [n for n in gates if n in truth] + [n for n in truth if n not in gates]
    )
    blocks = [("gates: one direction", 0, len(gates)), ("the truth", len(order) - len(truth), len(order))]
    teacher = [n for n in names if n in settle["kd"]]
    for title, group in (("the teacher", teacher), ("others", [n for n in names if n not in {*order, *teacher}])):
        blocks.append((title, len(order), len(order) + len(group)))
        order += group
    return order, blocks


def _partners(table: pd.DataFrame, column: str) -> dict[str, set[str]]:
    """Every method, and the ones it shares this with, itself among them."""
    found = {name: {name} for name in (*table["a"], *table["b"])}
    shared = table[table[column]]
    for a, b in zip(shared["a"], shared["b"], strict=True):
        found[a].add(b)
        found[b].add(a)
    return found


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """How many pairs at each level, and an example with its reason."""
    out = []
    for level in LEVELS:
        group = table[table["level"] == level]
        if len(group):
            first = group.iloc[0]
            out.append(
                {
                    "Level": MEANING[level],
                    "Pairs": len(group),
                    "Proved": int(group["proved"].sum()),
                    "For example": f"{first['a']}, {first['b']}",
                }
            )
    return pd.DataFrame(out)


def see(table: pd.DataFrame) -> str:
    counts = Counter(table["level"])
    measured = int((~table["proved"]).sum())
    same = table[table["level"].isin(["identical", "scaled"])]
    pairs = ", ".join(f"{a} and {b}" for a, b in zip(same["a"], same["b"], strict=True))
    return (
        f"Of {len(table)} pairs only {len(same)} are one method under two names ({pairs}). {counts['directional']} "
        "differ in nothing but how hard they pull: every gate shares its ray with every other one that never pushes. "
        f"{counts['optimum']} more take other paths to one end, the truth or the teacher. All pairs are decided"
        + (f"; {measured} on numbers alone." if measured else ", by a proof or by a token that separates them.")
    )


STUDY = Study(
    name="equivalence",
    title="What every pair of methods shares, at default parameters. Frames are classes; a dot marks a common optimum",
    question="Is X just Y?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
    methods=qu.names,
)
