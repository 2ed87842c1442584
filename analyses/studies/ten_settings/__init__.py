"""Five reasoning tasks, two sizes of model, eighteen methods: the claim of Xie et al. 2026 tested at a small scale.

A transformer pretrained on a mixture of all tasks, with old facts and sloppy work, is fine-tuned on demonstrations of
one of them that have slips, go on in more than one right way, and contradict what it was taught. The teacher is larger
and was trained on text without slips. Every method gets the same tuning; then 16 solutions of each of 100 new problems
are drawn at temperature 1 and verified.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy  # which loads scipy.stats, in a second, when it is first used
import torch
from joblib import Parallel, delayed
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.kit import cache, runner
from analyses.kit.study import Study
from analyses.kit.words import title
from analyses.studies.ten_settings.ablations import COOLED, VARIANTS, cooled, variant
from analyses.studies.ten_settings.runs import (
    FULL,
    METHODS,
    NAME,
    TEACHERS,
    TINY,
    TINY_CELL,
    Choice,
    Plan,
    before_fine_tuning,
    cell,
    chosen,
    steps_timed,
    time_per_step,
    trained,
    tuned,
)
from analyses.studies.ten_settings.tasks import TASKS
from analyses.studies.ten_settings.theory import predicted
from qunify import plots

SETTING = ["task", "size"]
RESAMPLED = 2000
#: The paper's own method.
OWN = "target_sft"

Setting = tuple[str, str]


# ---- rows ------------------------------------------------------------------------------------------------------------
def rows(full: bool) -> pd.DataFrame:
    """A row per finished run; its column `part` says of what: a cell, the models before fine-tuning (start), the
    tuning, an ablation, or theory. It takes hours, so that the quick run reads the rows of the full one."""
    if not full:
        return runner.read(NAME, runner.FIGURES)
    return experiment(FULL, os.cpu_count() or 1)


def experiment(plan: Plan, workers: int) -> pd.DataFrame:
    """All runs, in as many processes as there are workers; finished ones are kept, so that a stopped run goes on."""
    torch.set_num_threads(1)
    models = [(name, seed) for seed in plan.claim_seeds for name in ("teacher", *plan.sizes)]
    models += [(name, seed) for seed in plan.seeds for name in TEACHERS]
    found = _all(workers, [functools.partial(_part, "model", trained, plan, name, seed) for name, seed in models])
    tuning = _all(workers, [functools.partial(_part, "tuning", tuned, plan, t, m) for t in TASKS for m in METHODS])
    choices = {(str(t["task"].iloc[0]), str(t["method"].iloc[0])): chosen(t) for t in tuning}
    places = [(task, size) for task in TASKS for size in plan.sizes]
    runs = [functools.partial(_in_setting, plan, t, z, seed, choices) for seed in plan.claim_seeds for t, z in places]
    theory = [functools.partial(_part, "theory", predicted, plan, t, z, choices) for t, z in places]
    single = [
        _part("tiny", cell, TINY, *TINY_CELL),
        _part("pace", time_per_step, plan),
        _part("step", steps_timed, plan, choices),
    ]
    return pd.concat([*found, *tuning, *_all(workers, runs), *_all(workers, theory), *single], ignore_index=True)


def _in_setting(plan: Plan, task: str, size: str, seed: int, choices: Mapping[tuple[str, str], Choice]) -> pd.DataFrame:
    """All runs in one setting with one seed; they share models and data, which one process makes once."""
    methods = [method for method in METHODS if seed in plan.seeds_of(method)]
    found = [_part("start", before_fine_tuning, plan, task, size, seed)]
    found += [_part("cell", cell, plan, task, size, choices[task, method], seed) for method in methods]
    if task in plan.ablated and size == next(iter(plan.sizes)) and seed in plan.seeds:
        rate = choices[task, OWN].rate
        found += [_part("ablation", variant, plan, task, size, name, rate, seed) for name in VARIANTS]
        found += [_part("cooled", cooled, plan, task, size, choices[task, method], seed) for method in COOLED]
    return pd.concat(found)


def _part(part: str, make: Callable[..., pd.DataFrame], plan: Plan, *args: Any) -> pd.DataFrame:
    """The table that `make` gives, kept in a file named after the part and the arguments."""
    torch.set_num_threads(1)
    words = [getattr(arg, "method", arg) for arg in args if isinstance(arg, str | int | Choice)]
    name = "-".join(str(word).replace(" ", "") for word in (part, *words))
    return cache.part(NAME, name, lambda: make(plan, *args)).assign(part=part)


def _all(workers: int, jobs: list[functools.partial[pd.DataFrame]]) -> list[pd.DataFrame]:
    return list(Parallel(n_jobs=workers)(delayed(job)() for job in jobs))


# ---- what the rows say -----------------------------------------------------------------------------------------------
def part(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["part"] == name]


def settings(table: pd.DataFrame) -> list[Setting]:
    """Tasks in their order, the small model first."""
    found = set(part(table, "cell")[SETTING].itertuples(index=False, name=None))
    return sorted(found, key=lambda setting: (list(TASKS).index(setting[0]), setting[1]))


def rows_of(table: pd.DataFrame, name: str, task: str, size: str) -> pd.DataFrame:
    """The rows of a part in one setting, by seed."""
    rows = part(table, name)
    return rows[(rows["task"] == task) & (rows["size"] == size)].sort_values("seed")


def on_shared_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows on seeds that every method has: some seeds are harder, so that other means would not compare."""
    return rows[rows["seed"].isin(FULL.seeds)]


def means(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """By method, the mean of a column over the seeds that every method has."""
    return {
        str(method): float(value) for method, value in on_shared_seeds(rows).groupby("method")[column].mean().items()
    }


def overall(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A row per method: the mean over the ten settings of means over the seeds that all have."""
    each = on_shared_seeds(part(table, "cell")).groupby([*SETTING, "method"])[list(columns)].mean()
    return each.groupby("method").mean()


def right_shares(rows: pd.DataFrame) -> np.ndarray:
    """The share of right solutions of every test problem, (rows, problems), read off the letters in `right`."""
    return np.array([[ord(letter) - ord("a") for letter in row] for row in rows["right"]]) / FULL.samples


def resampled(shares: np.ndarray, draws: int = RESAMPLED) -> np.ndarray:
    """Means over seeds and problems drawn anew, (draws,): the same draws for every array of the same shape, so that
    differences of two are paired."""
    draw = np.random.default_rng(0)
    seeds, problems = shares.shape
    chosen_seeds = draw.integers(seeds, size=(draws, seeds))
    chosen_problems = draw.integers(problems, size=(draws, seeds, problems))
    return shares[chosen_seeds[:, :, None], chosen_problems].mean((1, 2))


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """Average@16, a row per setting and a column per method."""
    found = {setting: means(rows_of(table, "cell", *setting), "average") for setting in settings(table)}
    return pd.DataFrame.from_dict(found, orient="index")


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The place of every method in every setting; 1 is the highest Average@16, equal ones share."""
    return averages(table).rank(axis=1, ascending=False)


def order(table: pd.DataFrame) -> list[str]:
    """Methods by mean rank, best first."""
    return [str(method) for method in ranks(table).mean().sort_values(kind="stable").index]


def critical_difference(methods: int = len(METHODS), blocks: int = len(TASKS)) -> float:
    """The critical difference of Nemenyi's test (Demšar, JMLR 7, 2006): mean ranks of two methods that differ by less
    cannot be told apart at 5 %. It is q √(k (k + 1) / 6N) for k methods and N blocks, q being the studentised range
    over √2. A block is a task: the models of both sizes share its demonstrations, teacher, tuning and problems."""
    q = scipy.stats.studentized_range.ppf(0.95, methods, np.inf) / 2**0.5
    return float(q * (methods * (methods + 1) / (6 * blocks)) ** 0.5)


def lead(table: pd.DataFrame, task: str, size: str, other: str, method: str = OWN) -> tuple[float, float, float]:
    """Average@16 of a method less that of another, paired over seeds and problems: the mean and its 95 % interval.

    The interval is Student's, by the bootstrap's standard error: percentiles of so few seeds would be too narrow.
    """
    rows = rows_of(table, "cell", task, size)
    a, b = (right_shares(rows[rows["method"] == name]) for name in (method, other))
    seeds = min(len(a), len(b))
    apart = a[:seeds] - b[:seeds]
    # drawing n seeds anew has n − 1 nths of the variance
    error = float(resampled(apart).std() * (seeds / (seeds - 1)) ** 0.5)
    mean, half = float(apart.mean()), float(scipy.stats.t.ppf(0.975, seeds - 1)) * error
    return mean, mean - half, mean + half


def predicted_and_measured(table: pd.DataFrame, task: str, size: str) -> pd.DataFrame:
    """By method, the share of solutions whose every step is valid: as theory predicts it for the models of a seed, and
    as it was measured on that seed."""
    theory, rows = rows_of(table, "theory", task, size), rows_of(table, "cell", task, size)
    predictions = theory.set_index("method")["predicted"]
    measured = rows[rows["seed"] == FULL.seeds[0]].set_index("method")["valid"]
    return pd.DataFrame({"predicted": predictions, "measured": measured[predictions.index]})


def foresight(table: pd.DataFrame, among: Sequence[str] = METHODS) -> dict[Setting, float]:
    """By setting: Spearman's correlation over methods of what theory predicts with what was measured."""
    found = {}
    for setting in settings(table):
        pair = predicted_and_measured(table, *setting)
        pair = pair[pair.index.isin(among)]
        found[setting] = float(scipy.stats.spearmanr(pair["predicted"], pair["measured"]).statistic)
    return found


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """A row per method, best mean rank first; means over the ten settings of means over seeds."""
    found = overall(table, list(COLUMNS)).loc[order(table)].rename(columns=COLUMNS)
    best = averages(table).idxmax(axis=1).value_counts()
    found.insert(0, "mean rank", ranks(table).mean())
    found.insert(1, "best in", best.reindex(found.index, fill_value=0))
    step = part(table, "step").set_index("method")["step_seconds"]
    found["time of a step by SFT's"] = step / step["sft"]
    return found.reset_index(names="method")


#: Of the digest.
COLUMNS = {
    "average": "Average@16",
    "passed": "pass@16",
    "greedy": "greedy",
    "valid": "all steps valid",
    "kl_truth": "KL from the truth",
    "smooth_ece": "smooth ECE",
    "kl_start": "KL from the start",
    "forgotten": "loss on pretraining text, change",
}


def see(table: pd.DataFrame) -> str:
    mean, count = averages(table), len(settings(table))
    best = mean.idxmax(axis=1)
    first, other = order(table)[0], order(table)[1]
    place = ranks(table)[OWN]
    rho = list(foresight(table).values())
    return (
        f"Target-SFT has the highest Average@16 in {(best == OWN).sum()} of {count} settings; its place lies between "
        f"{place.min():.0f} and {place.max():.0f} of {mean.shape[1]}. By mean rank {title(first)} "
        f"({ranks(table)[first].mean():.2f}) leads before {title(other)} ({ranks(table)[other].mean():.2f}); ranks "
        f"less than {critical_difference():.1f} apart cannot be told apart. Where theory says each method ends "
        f"goes with the share of valid solutions by a rank correlation between {min(rho):.2f} and {max(rho):.2f}."
    )


# ---- the picture -----------------------------------------------------------------------------------------------------
def draw(table: pd.DataFrame) -> Figure:
    """Average@16 in every setting; why: trust at the start; mean ranks; and what theory foresees."""
    with plots.style():
        figure = Figure(figsize=(17, 22.5))
        rows = figure.subplots(
            3,
            len(TASKS),
            gridspec_kw={"top": 0.965, "bottom": 0.335, "left": 0.1, "right": 0.985, "wspace": 0.08, "hspace": 0.2},
        )
        names = order(table)
        for ax, (task, size) in zip(rows[:2].T.flat, settings(table), strict=True):
            draw_setting(ax, table, names, task, size)
        for ax, task in zip(rows[2], TASKS, strict=True):
            draw_trust(ax, table, names, task)
        for ax in rows[:, 1:].flat:
            ax.set_yticklabels([])
        rows[2, 2].legend(
            *rows[2, -1].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=3
        )
        ranked, theory = (figure.add_axes((left, 0.05, width, 0.225)) for left, width in ((0.1, 0.42), (0.63, 0.33)))
        draw_ranks(ranked, table, names)
        draw_theory(theory, table)
        figure.text(0.5, 0.008, FOOTNOTE, ha="center", color=plots.SOFT, fontsize=11)
    return figure


NUMBERS = 1.19  #: where the shares stand in figures: beside bars, intervals and lines, which end at 1


def draw_setting(ax: Axes, table: pd.DataFrame, names: list[str], task: str, size: str) -> None:
    """A bar per method, in this order, with its interval; lines: where the model starts, and the teacher."""
    rows = on_shared_seeds(rows_of(table, "cell", task, size))
    mean = means(rows, "average")
    for y, method in enumerate(names):
        low, high = percentile_interval(resampled(right_shares(rows[rows["method"] == method])))
        ax.barh(y, mean[method], color=plots.colour(method), height=0.78)
        ax.plot([low, high], [y, y], color=plots.INK, linewidth=1.1)
        weight = "bold" if mean[method] == max(mean.values()) else "normal"
        ax.text(NUMBERS, y, f"{100 * mean[method]:.0f}", ha="right", va="center", fontsize=11.5, weight=weight)
    levels = means(rows_of(table, "start", task, size), "average")
    for which, dash in (("pretrained", ":"), ("teacher", "--")):
        ax.axvline(levels[which], color=plots.SOFT, linestyle=dash, linewidth=1.2, zorder=0)
    ax.set_title(f"{TASKS[task].title}\n{size}", fontsize=11.5, weight="bold")
    ax.set_yticks(range(len(names)), [title(method) for method in names], fontsize=10)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, NUMBERS)
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    ax.grid(visible=False)


def draw_ranks(ax: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Mean rank, with the ranks in the ten settings behind it."""
    found = ranks(table)
    for y, method in enumerate(names):
        ax.plot(found[method], np.full(len(found), y), "|", color=plots.colour(method), alpha=0.6, markersize=9)
        ax.plot(found[method].mean(), y, "o", color=plots.colour(method), markersize=8)
    width, first = critical_difference(), found[names[0]].mean()
    ax.plot([first, first + width], [-1.1, -1.1], color=plots.INK, linewidth=3, solid_capstyle="butt")
    ax.annotate(
        "not told apart from the first at 5 %",
        (first + width, -1.1),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    ax.set_title("Rank in the ten settings, and its mean", fontsize=12.5, weight="bold", pad=10)
    _methods(ax, names)
    ax.set_ylim(len(names) - 0.4, -1.8)
    ax.set_xlabel("1: highest Average@16")


#: The column of trust → its mark and its name.
GROUPS: Mapping[str, tuple[str, str]] = {
    "trust_worked": ("o", "right"),
    "trust_conflict": ("D", "right, pretraining taught otherwise"),
    "trust_slipped": ("x", "a slip"),
}


def draw_trust(ax: Axes, table: pd.DataFrame, names: list[str], task: str) -> None:
    """Mean trust before the first step in worked-out tokens of demonstrations, by the models of both sizes."""
    cells = part(table, "cell")
    found = on_shared_seeds(cells[cells["task"] == task]).groupby("method")[list(GROUPS)].mean().dropna(axis=1)
    for y, method in enumerate(names):
        values = found.loc[method]
        ax.plot([values.min(), values.max()], [y, y], color=plots.FAINT, linewidth=3, zorder=0)
        for column, value in values.items():
            marker, _ = GROUPS[str(column)]
            fill = "none" if marker == "D" else "full"
            ax.plot(value, y, marker, color=plots.colour(method), markersize=7, fillstyle=fill)
    for column in found:
        marker, name = GROUPS[str(column)]
        ax.plot([], [], marker, color=plots.SOFT, label=name, fillstyle="none" if marker == "D" else "full")
    ax.set_title(f"{TASKS[task].title}:\ntrust at the start", fontsize=11.5, weight="bold")
    ax.set_xlim(-0.06, 1.09)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    _methods(ax, names)


def draw_theory(ax: Axes, table: pd.DataFrame) -> None:
    """A dot per method and setting."""
    ax.plot([0, 1], [0, 1], color=plots.SOFT, linewidth=1, zorder=0)
    for setting in settings(table):
        for method, pair in predicted_and_measured(table, *setting).iterrows():
            ax.plot(*pair, "o", color=plots.colour(str(method)), markersize=5.5, alpha=0.8)
    rho = list(foresight(table).values())
    ax.set_xlabel("predicted")
    ax.set_ylabel("measured")
    ax.set_title("Solutions with every step valid:\ntheory and measurement", fontsize=12.5, weight="bold", pad=10)
    text = f"rank correlation {min(rho):.2f} to {max(rho):.2f},\nsetting by setting"
    ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", fontsize=10)


def _methods(ax: Axes, names: list[str]) -> None:
    plots.name_methods(ax, names, [title(method) for method in names], size=10.5)
    plots.lanes(ax, len(names))
    ax.set_ylim(len(names) - 0.4, -0.6)


FOOTNOTE = (
    f"Average@16 over {FULL.test} problems and {len(FULL.seeds)} seeds, in per cent, with 95 % intervals. Dotted: the "
    f"pretrained model; dashed: the teacher. Trust: in right tokens that had to be worked out, and in wrong ones."
)


STUDY = Study(
    name=NAME,
    title="Ten reasoning settings: Average@16 of eighteen methods, their ranks, and why",
    question="Does Target-SFT win everywhere, as its paper reports, and why?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
