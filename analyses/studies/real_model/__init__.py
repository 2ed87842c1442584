"""A real pretrained model: what an audit foretells before training, and what training then does.

SmolLM2-135M-Instruct (`make real`) learns from people's solutions of GSM8K, by LoRA in qunify's trainer. What an audit
says at step 0 of every method and every kind of token was written down first (`real_model_predictions.csv`); then the
methods were trained, and measured on demonstrations held out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.stats import rankdata

from analyses.kit import runner
from analyses.kit.real import END, MARKS, MODEL, NAMED
from analyses.kit.study import Study
from analyses.kit.words import minus, percent, title
from analyses.studies.real_model.recipes import MAIN, PER_STEP, PLAIN, RATES, RECIPES, STEPS, Way
from qunify import plots

#: What is foretold, and how it is called beside the picture. "rehearsed" is the change after the first ten steps.
FORETOLD = {
    "push ratio": "asked: share of the push\nper share of the tokens",
    "influence": "done: change of mean log u by the\nfirst step of descent, per unit rate",
    "rehearsed": "rehearsed: change of mean\nlog u after 10 steps, nats",
}
REHEARSAL = 10


def rows(full: bool) -> pd.DataFrame:
    """One row per measurement. Training takes more than an hour, so that only the full run does it; the quick one reads
    what it found."""
    if not full:
        return runner.read("real_model", runner.FIGURES)
    from analyses.studies.real_model.runs import measured

    return measured()


def foretold() -> pd.DataFrame:
    """What was written down before training."""
    return pd.read_csv(runner.FIGURES / "real_model_predictions.csv")


def foretold_of(quantity: str, group: str = "all") -> pd.Series:
    """One of these numbers, by recipe."""
    table = foretold()
    return table[(table["quantity"] == quantity) & (table["group"] == group)].set_index("recipe")["value"]


def value(
    table: pd.DataFrame, recipe: str, quantity: str, group: str = "all", step: int = STEPS, rate: float = 0
) -> float:
    """One measurement, by default at the end, at the recipe's own rate; at step 0 that of the start."""
    at = table[(table["recipe"] == ("start" if step == 0 else recipe)) & (table["group"] == group)]
    at = at[(at["quantity"] == quantity) & (at["step"] == step)]
    if step:
        at = at[at["rate"] == (rate or chosen(table, recipe))]
    return float(at["value"].mean())


def chosen(table: pd.DataFrame, recipe: str) -> float:
    """The rate after which the likeliest token is the label most often, on demonstrations set apart for that, with the
    seed that all rates have; of two that tie the smaller."""
    first = table[(table["recipe"] == recipe) & (table["seed"] == 0)]
    right = {rate: value(first, recipe, "accuracy, choice", rate=rate) for rate in sorted(set(first["rate"]))}
    return max(right, key=right.__getitem__)


def groups(table: pd.DataFrame) -> list[str]:
    """Kinds of token, least likely first."""
    start = table[(table["recipe"] == "start") & (table["quantity"] == "log u") & (table["group"] != "all")]
    return list(start.sort_values("value")["group"])


def names_of(table: pd.DataFrame) -> list[str]:
    there = set(table["recipe"])
    return [recipe.name for recipe in RECIPES if recipe.name in there]


def named(recipe: str) -> str:
    """What a recipe is called: "Posterior with a noisy teacher"."""
    method, _, teacher = recipe.partition(", ")
    return title(method) + (f" with a {teacher}" if teacher else "")


def colour(recipe: str) -> str:
    """That of its method."""
    return plots.colour(recipe.partition(",")[0])


def moved(table: pd.DataFrame, recipe: str, group: str, step: int = STEPS, rate: float = 0) -> float:
    """By how much the group's mean log u has changed since the start, in nats."""
    return value(table, recipe, "log u", group, step, rate) - value(table, recipe, "log u", group, 0)


def pairs(table: pd.DataFrame, rate: float = 0, way: Way = PLAIN) -> pd.DataFrame:
    """A row per recipe and kind of token: what was foretold of it, what ten steps came to, and what all steps of the
    way did. By default each recipe at its own rate; or the recipes that were trained in another way, in that way."""
    wide = foretold().pivot_table(index=["recipe", "group"], columns="quantity", values="value").reset_index()
    ran = {name: f"{name}, {way.name}" if way.name else name for name in names_of(table)}
    ran = {name: full for name, full in ran.items() if full in set(table["recipe"])}
    wide = wide[wide["recipe"].isin(ran) & (wide["group"] != "all")].reset_index(drop=True)
    log_u, rates = table[table["quantity"] == "log u"], {full: rate or chosen(table, full) for full in ran.values()}
    start = wide["group"].map(log_u[log_u["step"] == 0].groupby("group")["value"].mean())
    own = log_u[log_u["recipe"].map(rates) == log_u["rate"]].groupby(["step", "recipe", "group"])["value"].mean()
    at = pd.MultiIndex.from_arrays([wide["recipe"].map(ran), wide["group"]])
    for name, step in (("rehearsed", REHEARSAL), ("trained", way.steps)):
        wide[name] = own[step].reindex(at).to_numpy() - start
    return wide


def worst_first(found: pd.DataFrame) -> pd.DataFrame:
    """The pairs, those first whose place in the order the first step of gradient descent foretold worst."""
    apart = (found["influence"].rank() - found["trained"].rank()).abs()
    return found.loc[apart.sort_values(ascending=False, kind="stable").index]


def correlation(found: pd.DataFrame, quantity: str, draws: int = 1000) -> tuple[float, float, float, int]:
    """Spearman's rank correlation of a quantity with what training did, its 95 % interval over recipes drawn with
    replacement, and how many pairs there are."""
    return rank_correlation(found, quantity, "trained", draws)


def rank_correlation(found: pd.DataFrame, one: str, other: str, draws: int = 1000) -> tuple[float, float, float, int]:
    """Spearman's of two columns, its 95 % interval over recipes drawn with replacement, and how many rows have both."""
    found = found[["recipe", one, other]].dropna()
    parts = [part[[one, other]].to_numpy() for _, part in found.groupby("recipe")]
    rng = np.random.default_rng(0)
    drawn = [np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))]) for _ in range(draws)]
    low, high = np.nanquantile([_spearman(d) for d in drawn], [0.025, 0.975])
    return _spearman(np.concatenate(parts)), float(low), float(high), len(found)


def with_interval(r: float, low: float, high: float, n: int = 0) -> str:
    """A rank correlation in words; how many rows it is of is left out."""
    return minus(f"{r:.2f} [{low:.2f}, {high:.2f}]")


def _spearman(of: NDArray[np.float64]) -> float:
    """Of two columns: the correlation of their ranks."""
    return float(np.corrcoef(rankdata(of, axis=0), rowvar=False)[0, 1])


def see(table: pd.DataFrame) -> str:
    found = pairs(table)
    told = {name: correlation(found, name) for name in FORETOLD}
    words = {name: with_interval(*of) for name, of in told.items()}
    dft, sft = (-value(table, name, "log u") for name in ("dft", "sft"))
    start = -value(table, "sft", "log u", step=0)
    right = {name: percent(value(table, name, "accuracy"), digits=0) for name in ("sft", "dft")}
    return (
        f"Over {len(found)} pairs of a method and a kind of token, what {STEPS} steps of an adapter did to mean log u "
        f"has a rank correlation of {words['influence']} with the first step of gradient descent, worked out before "
        f"training, of {words['push ratio']} with what is asked, and of {words['rehearsed']} with the first "
        f"{REHEARSAL} steps. The mean −log u of held-out demonstrations went from {start:.2f} to {sft:.2f} under SFT "
        f"and to {dft:.2f} under DFT; the likeliest token is right at {right['sft']} and {right['dft']} of them."
    )


_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(table: pd.DataFrame) -> Figure:
    """What was foretold beside what training did, a point for each method and kind of token; and at the right the
    measures that the methods trade against each other."""
    found, kinds = pairs(table), groups(table)
    with plots.style():
        figure = Figure(figsize=(15.5, 7.6))
        grid = figure.add_gridspec(
            1, 5, width_ratios=(1, 1, 1, 0.28, 1.1), wspace=0.1, left=0.06, right=0.985, bottom=0.33, top=0.87
        )
        axes = [figure.add_subplot(grid[i]) for i in range(3)]
        for ax, quantity in zip(axes, FORETOLD, strict=True):
            _beside(ax, found, quantity, kinds)
            ax.set_yscale("symlog", linthresh=0.3)
            ax.set_yticks([-3, -1, -0.3, 0, 0.3, 1, 3], ["−3", "−1", "−0.3", "0", "0.3", "1", "3"])
            ax.set_ylim(*_reach(found["trained"]))
            ax.minorticks_off()
        axes[0].set_ylabel(f"change of mean log u\nafter {STEPS} steps, held out, nats")
        for ax in axes[1:]:
            ax.tick_params(labelleft=False)
        _trade(figure.add_subplot(grid[4]), table)
        foretold_of = [name for name in names_of(table) if name in set(found["recipe"])]
        others = [name for name in foretold_of if name not in MAIN]
        half = -(-len(others) // 2)
        shapes = zip(kinds, _MARKERS, strict=True)
        by_shape = [Line2D([], [], color=plots.SOFT, marker=m, linestyle="", label=NAMED.get(g, g)) for g, m in shapes]
        by_colour = ([_dot(name) for name in some] for some in (MAIN, others[:half], others[half:]))
        for handles, height in zip((*by_colour, by_shape), (0.15, 0.1, 0.05, 0.0), strict=True):
            count = len(handles)
            figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.05, height), ncols=count, frameon=False)
    return figure


def _dot(recipe: str) -> Line2D:
    return Line2D([], [], color=colour(recipe), marker="o", fillstyle=_fill(recipe), linestyle="", label=named(recipe))


def _fill(recipe: str) -> Any:
    """Beside the main methods hollow: some have nearly the colour of one of these. Half full with a noisy teacher."""
    if recipe in MAIN:
        return "full"
    return "bottom" if "noisy" in recipe else "none"


def _reach(values: pd.Series) -> tuple[float, float]:
    return 1.6 * float(min(values.min(), -0.1)), 1.6 * float(values.max())


def _beside(ax: Axes, found: pd.DataFrame, quantity: str, kinds: list[str]) -> None:
    for recipe, group, x, y in found[["recipe", "group", quantity, "trained"]].itertuples(index=False):
        marker = _MARKERS[kinds.index(group)]
        ax.plot(x, y, marker, color=colour(recipe), fillstyle=_fill(recipe), markersize=7, alpha=0.85)
    r, low, high, _ = correlation(found, quantity)
    ax.axhline(0, color=plots.SOFT, linewidth=1, zorder=0)
    what, _, where = FORETOLD[quantity].partition(": ")
    ax.set_title(f"{what.capitalize()}: {minus(f'{r:.2f}')}", weight="bold", pad=24)
    ax.text(
        0.5, 1.015, minus(f"rank correlation, 95 %: {low:.2f} to {high:.2f}"),
        transform=ax.transAxes, ha="center", color=plots.SOFT, fontsize=11,
    )  # fmt: skip
    ax.set_xlabel(where)
    if quantity == "influence":
        ax.set_xscale("symlog", linthresh=0.1)
        ax.set_xticks([-0.1, 0, 0.1, 1, 10], ["−0.1", "0", "0.1", "1", "10"])
        ax.set_xlim(*_reach(found[quantity]))
        ax.minorticks_off()
    elif quantity == "rehearsed":
        ax.set_xscale("symlog", linthresh=0.3)
        ax.set_xticks([-1, -0.3, 0, 0.3, 1, 3], ["−1", "−0.3", "0", "0.3", "1", "3"])
        ax.set_xlim(*_reach(found[quantity]))
        ax.minorticks_off()
    elif quantity == "push ratio":
        ax.set_xscale("log", base=2)
        ax.set_xticks([0.25, 0.5, 1, 2], ["¼", "½", "1", "2"])
        ax.minorticks_off()


_APART = 0.15  # nats: nearer to SFT than this a method has no label of its own


def _trade(ax: Axes, table: pd.DataFrame) -> None:
    """Mean −log u against the share of tokens whose label is the likeliest, at both rates."""
    x0, y0 = _likely_or_right(table, "start", 0)
    ax.plot(x0, y0, "*", color=plots.INK, markersize=13)
    ax.annotate("start", (x0, y0), (8, -3), textcoords="offset points", color=plots.INK)
    labelled: list[tuple[float, float]] = []
    as_sft, last = [], {name: _likely_or_right(table, name, max(RATES)) for name in names_of(table)}
    for recipe, end in last.items():
        points = [_likely_or_right(table, recipe, rate) for rate in RATES]
        own, line = colour(recipe), "-" if recipe in MAIN else ":"
        ax.plot(*zip(*points, strict=True), line, color=own, linewidth=1.4)
        for fill, (x, y) in zip(("none", "full"), points, strict=True):
            ax.plot(x, y, "o", color=own, fillstyle=fill, markersize=7)
        if abs(end[0] - last["sft"][0]) < _APART:
            as_sft.append(recipe)
        else:
            below = any(abs(end[0] - x) < _APART and end[1] <= y for x, y in labelled)
            labelled.append(end)
            at = min(points, key=lambda point: point[1]) if below else end
            _label(ax, recipe, at, plots.as_text(own), below=below)
    _label(ax, f"sft and {len(as_sft) - 1} more", last["sft"], plots.INK)
    ax.margins(x=0.13, y=0.1)
    ax.set_title("Likely or right", weight="bold", pad=24)
    ax.text(
        0.5, 1.015, f"rates: ○ {RATES[0]:g}, ● {RATES[1]:g}", transform=ax.transAxes, ha="center",
        color=plots.SOFT, fontsize=11,
    )  # fmt: skip
    ax.set_xlabel("mean −log u of held-out\ndemonstrations, nats")
    ax.set_ylabel("share of tokens whose label is the likeliest")


def _label(ax: Axes, text: str, at: tuple[float, float], colour: str, *, below: bool = False) -> None:
    where = (0, -19) if below else (0, 8)
    ax.annotate(text, at, where, textcoords="offset points", ha="center", color=colour)


def _likely_or_right(table: pd.DataFrame, recipe: str, rate: float) -> tuple[float, float]:
    """Mean −log u, and the share of tokens whose label is the likeliest; at rate 0 those of the start."""
    step = STEPS if rate else 0
    log_u, right = (value(table, recipe, quantity, step=step, rate=rate) for quantity in ("log u", "accuracy"))
    return -log_u, right


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """A row per recipe, each at its own rate, and the start."""
    found: list[dict[str, Any]] = []
    for recipe in ("start", *names_of(table)):
        step = 0 if recipe == "start" else STEPS
        ask = lambda quantity, group="all": value(table, recipe, quantity, group, step)  # noqa: B023, E731
        found.append({
            "recipe": recipe, "rate": 0.0 if step == 0 else chosen(table, recipe), "−log u": -ask("log u"),
            "end of turn": -ask("log u", END), "marks": -ask("log u", MARKS), "accuracy": ask("accuracy"),
            "smooth ECE": ask("smooth ECE"), "entropy": ask("entropy"),
            "KL from start": 0.0 if step == 0 else ask("KL from the start", "elsewhere"),
            "stops": ask("stops", "answers"), "marks well formed": ask("marks", "answers"),
            "sums right": ask("sums right", "answers"), "answer right": ask("answer right", "answers"),
        })  # fmt: skip
    return pd.DataFrame(found)


STUDY = Study(
    name="real_model",
    title=(
        f"{MODEL.name} on GSM8K: what an audit foretells before training, and what {STEPS} steps of {PER_STEP} "
        "demonstrations do."
    ),
    question="Does theory tell what training does to a real pretrained model?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
