"""An audit of a real model on real demonstrations, and of solutions of which it is known whether they are right.

SmolLM2-135M-Instruct (`make real`) reads people's solutions of GSM8K. For each kind of token: how much of a method's
push goes there (*asked*), by how much the first step through an adapter moves it (*done*), and by how much it has moved
after a few steps, on demonstrations held out (*rehearsed*). Then it reads solutions that language models wrote, and
each method's mean trust is asked which are wrong.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from analyses.kit import runner
from analyses.kit.real import END, MARKS, NAMED
from analyses.kit.study import Study
from analyses.kit.words import minus, percent, title
from analyses.studies.real_audit.runs import RATE, REHEARSED, STEPS, measured
from qunify import plots

SCALE = {"influence_adam": 1e-4}  # the rate for which Adam's first step is told


def rows(full: bool) -> pd.DataFrame:
    """One row per measurement: text, method, group, quantity, value, low, high, n. The model takes an hour, so that
    only the full run calls it; the quick one reads what it found."""
    return measured() if full else runner.read("real_audit", runner.FIGURES)


def value(table: pd.DataFrame, method: str, quantity: str, group: str = "all") -> pd.Series:
    """The row of one measurement."""
    at = (table["method"] == method) & (table["quantity"] == quantity) & (table["group"] == group)
    (row,) = table[at].to_dict("records")
    return pd.Series(row)


def groups(table: pd.DataFrame) -> list[str]:
    """Least likely first."""
    first = table[(table["quantity"] == "u") & (table["method"] == "sft")]
    return list(first.sort_values("value")["group"])


def best(table: pd.DataFrame, quantity: str = "auc") -> pd.Series:
    """The method whose trust tells wrong solutions best."""
    return table[table["quantity"] == quantity].sort_values("value", na_position="first").iloc[-1]


def foretold(table: pd.DataFrame, quantity: str) -> tuple[float, int]:
    """Spearman's rank correlation, over methods and kinds of token, of a quantity before training with the change that
    was rehearsed; and of how many pairs. "push ratio" is the share of the push per share of the tokens."""
    wide = table[table["method"].isin(REHEARSED) & (table["group"] != "all")].pivot_table(
        index=["method", "group"], columns="quantity", values="value"
    )
    wide["push ratio"] = wide["push"] / wide["share"]
    pairs = wide[[quantity, "rehearsed"]].dropna()
    return float(pairs.corr("spearman").to_numpy()[0, 1]), len(pairs)


def see(table: pd.DataFrame) -> str:
    patience = value(table, "dft", "patience", END)["value"]
    end, marks = (value(table, "dft", "rehearsed", group) for group in (END, MARKS))
    before, after = (value(table, "dft", quantity)["value"] for quantity in ("nll_before", "nll_after"))
    sft = value(table, "sft", "nll_after")["value"]
    told, wrong = best(table), value(table, "data", "wrong")
    moved = minus(format(marks["value"], "+.1f"))
    right, low, high = (percent(told[name], digits=0) for name in ("value", "low", "high"))
    return (
        f"Were every token free, the end of turn would take DFT {patience:.0f} times as long as SFT. After {STEPS} "
        f"steps of an adapter its mean log u has risen by {end['value']:.1f} nats on held-out demonstrations, that of "
        f"the calculator marks has changed by {moved}, and the mean −log u of all tokens has gone from {before:.2f} "
        f"to {after:.2f} (SFT: {sft:.2f}). Of {wrong['n']:.0f} solutions by language models "
        f"{percent(wrong['value'], digits=0)} are wrong; the method whose trust tells them best, "
        f"{title(told['method'])}, trusts the wrong one less in {right} of pairs ({low} to {high}), where half is "
        "chance."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Kinds of token in rows: asked, done, rehearsed. Beside them, how well trust tells wrong solutions."""
    order = groups(table)
    with plots.style():
        figure = Figure(figsize=(14.5, 6.6))
        grid = figure.add_gridspec(
            1, 5, width_ratios=(1, 1, 1, 0.42, 1), wspace=0.08, left=0.13, right=0.985, bottom=0.19, top=0.88
        )
        asked, done, rehearsed, trust = (figure.add_subplot(grid[i]) for i in (0, 1, 2, 4))
        _lanes(asked, table, order, "push ratio")
        _lanes(done, table, order, "influence_adam")
        _lanes(rehearsed, table, order, "rehearsed")
        asked.set_xscale("log", base=2)
        asked.xaxis.set_major_formatter(ScalarFormatter())
        done.set_xscale("symlog", linthresh=0.01)
        done.set_xlim(-0.004, 2.5)
        asked.set_title("Asked", weight="bold")
        done.set_title("Done", weight="bold")
        rehearsed.set_title("Rehearsed", weight="bold")
        asked.set_xlabel("share of the method's push\nper share of the tokens")
        done.set_xlabel("change of mean log u by Adam's\nfirst step at a rate of 10⁻⁴, nats")
        rehearsed.set_xlabel(f"change of mean log u after {STEPS} steps\nat a rate of {RATE:g}, held out, nats")
        names = [NAMED.get(group, group) for group in order]
        asked.set_yticks(range(len(order)), names)
        for ax in (done, rehearsed):
            ax.set_yticks(range(len(order)), [""] * len(order))
            ax.axvline(0, color=plots.SOFT, linewidth=1, zorder=0)
        asked.axvline(1, color=plots.SOFT, linewidth=1, zorder=0)
        _trust(trust, table)
        named = [
            Line2D([], [], color=plots.colour(name), marker="o", linestyle="", label=title(name)) for name in REHEARSED
        ]
        figure.legend(handles=named, loc="lower left", bbox_to_anchor=(0.13, 0.0), ncols=len(named), frameon=False)
    return figure


def _lanes(ax: Axes, table: pd.DataFrame, order: list[str], quantity: str) -> None:
    """A lane for each kind of token, in it a dot for each method, with its interval where there is one."""
    for y, group in enumerate(order):
        for i, method in enumerate(REHEARSED):
            at = y + 0.13 * (i - (len(REHEARSED) - 1) / 2)
            if quantity == "push ratio":
                push, share = (value(table, method, name, group)["value"] for name in ("push", "share"))
                ax.plot(push / share, at, "o", color=plots.colour(method), markersize=6)
                continue
            found = value(table, method, quantity, group)
            x, low, high = (found[name] * SCALE.get(quantity, 1) for name in ("value", "low", "high"))
            if low == low:
                ax.plot([low, high], [at, at], color=plots.colour(method), linewidth=1.6)
            ax.plot(x, at, "o", color=plots.colour(method), markersize=6)
    plots.lanes(ax, len(order))


def _trust(ax: Axes, table: pd.DataFrame) -> None:
    """How often the wrong one of two solutions is trusted less: the methods shown, and the best of all."""
    order = list(dict.fromkeys([*(name for name in REHEARSED if name != "sft"), str(best(table)["method"])]))
    for y, method in enumerate(order):
        for quantity, fill, shift in (("auc", "full", -0.14), ("auc, same question", "none", 0.14)):
            found = value(table, method, quantity)
            ax.plot([found["low"], found["high"]], [y + shift] * 2, color=plots.colour(method), linewidth=1.6)
            ax.plot(found["value"], y + shift, "o", color=plots.colour(method), fillstyle=fill, markersize=7)
    ax.axvline(0.5, color=plots.SOFT, linewidth=1, zorder=0)
    ax.text(0.5, 1.01, "chance", transform=ax.get_xaxis_transform(), ha="center", color=plots.SOFT, fontsize=11)
    ax.set_title("Wrong solutions told by trust", weight="bold", pad=22)
    ax.set_xlabel("pairs of which the wrong one is\ntrusted less: ● any, ○ of one question")
    plots.name_methods(ax, order, [title(method) for method in order])
    plots.lanes(ax, len(order))


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each kind of token, least likely first, and in it the methods that were rehearsed."""
    found = []
    for group in groups(table):
        row: dict[str, Any] = {"tokens": NAMED.get(group, group)}
        row |= {name: value(table, "sft", name, group)["value"] for name in ("share", "u")}
        for method in REHEARSED:
            row |= {
                f"{method}: {name}": value(table, method, name, group)["value"] for name in ("patience", "rehearsed")
            }
        found.append(row)
    return pd.DataFrame(found)


STUDY = Study(
    name="real_audit",
    title=(
        "SmolLM2-135M-Instruct on GSM8K before any training: what methods ask of each kind of token, what their first "
        "step does, and what a few steps came to."
    ),
    question="Does what a loss asks of a token tell what training does to it, on a real model and real text?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
