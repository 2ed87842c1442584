"""The documentation's page on the ten settings, where it is not written by hand: tables and numbers of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyses.kit.findings import committed
from analyses.kit.words import markdown, percent, title
from analyses.studies import ten_settings
from analyses.studies.ten_settings import SETTING, part
from analyses.studies.ten_settings.ablations import VARIANTS
from analyses.studies.ten_settings.findings import ablated
from analyses.studies.ten_settings.runs import CLAIM, FULL, NAME, OTHERS, RATES, training_recipe
from analyses.studies.ten_settings.tasks import CHANGED, TASKS, worlds, written


def card() -> str:
    """A row per task: an example as demonstrations have it, and the doses."""
    prior, taught = worlds(0)
    lines = ["| task | kind | a demonstration | more than one way | against pretraining |", "|---|---|---|---|---|"]
    for task in TASKS.values():
        draw = np.random.default_rng(0)
        question = task.question(draw)
        text = " ".join([*question, *written(task, question, taught, draw).tokens])
        lines.append(f"| {task.title} | {task.kind} | `{text}` | {task.ways} | {task.against} |")
    doses = (
        f"Doses: {100 * taught.slips:g} % of the worked-out tokens of demonstrations are slips, "
        f"{100 * prior.slips:g} % in pretraining, where {100 * prior.direct:g} % of the solutions are an answer "
        f"without work. Of facts, diseases and exceptions, {100 * CHANGED:g} % were drawn anew after pretraining."
    )
    return "\n".join([*lines, "", doses])


def how() -> str:
    """How methods were trained, tuned and measured."""
    return (
        f"The demonstrations, {FULL.demonstrations:,} of one task, always show the work and teach the new facts, with "
        f"slips. The teacher is larger and has read texts without slips that teach the new facts. Methods start from "
        f"the same weights and see the same batches, {FULL.steps} steps of {FULL.batch} demonstrations, with Adam at a "
        f"rate that falls to zero. What the frozen models say of the demonstrations is computed once.\n\n"
        f"Every method was tuned alike, at temperature 1: on {FULL.validation} validation problems, with the small "
        f"model and the first seed, {len(RATES)} rates, and at the better one two more values of its parameter, or two "
        f"more rates where it has none. {tuning()}\n\n"
        f"{FULL.samples} solutions of each of {FULL.test} problems are then drawn at temperature 1. A solution is "
        f"right if its answer is; in *reach*, which has no answer, if every step is."
    )


def seeds() -> str:
    """What means are over, and which models failed."""
    start = part(committed(NAME), "start")
    reach = start[start["task"] == "reach"]
    small = reach[(reach["size"] == next(iter(FULL.sizes))) & (reach["method"] == "pretrained")]
    teacher = reach[reach["method"] == "teacher"]
    few, many = len(FULL.seeds), len(FULL.claim_seeds)
    return (
        f"Means are over the {few} seeds that every method has; where two methods are compared, over all seeds that "
        f"both have, which are {many} for {', '.join(title(m) for m in CLAIM)} (the last two of {title('beyond_log')} "
        f"were added when it came second). Two models failed, and were kept: the small one of seed "
        f"{_worst(small)['seed']} solves {percent(_worst(small)['average'])} of *reach* before fine-tuning, where "
        f"others solve {percent(_others(small).min())} or more, so that this setting spreads widely, and so do its "
        f"ranks; and the teacher of seed {_worst(teacher)['seed']} solves {percent(_worst(teacher)['average'])} there, "
        f"where others solve {percent(_others(teacher).min())} or more."
    )


def _worst(rows: pd.DataFrame) -> pd.Series:
    return rows.sort_values("average", kind="stable").iloc[0]


def _others(rows: pd.DataFrame) -> pd.Series:
    return rows[rows["seed"] != _worst(rows)["seed"]]["average"]


def tuning() -> str:
    """How often the tuning ended at an edge of what it tried."""
    t = committed(NAME)
    chosen = part(t, "cell").drop_duplicates(["task", "method"])
    with_one = chosen[chosen["method"].isin(OTHERS)]
    edge, fast = int(with_one["value"].notna().sum()), int((with_one["rate"] == max(RATES)).sum())
    values = with_one.groupby("method")["value"]
    same = [title(str(m)) for m, some in values if some.notna().all() and some.min() == some.max()]
    return (
        f"Of {len(with_one)} choices of a parameter {edge} fell on the lowest or the highest of the three values "
        f"tried, and {fast} on the higher of the two rates; {', '.join(same)} took the same end on every task. Wider "
        f"grids could lift them. Choices rest on one seed and {4 * FULL.validation} solutions."
    )


# ---- tables ---------------------------------------------------------------------------------------------------------
def digest() -> str:
    """All methods, best mean rank first."""
    rows = ten_settings.digest(committed(NAME))
    head = [column for column in rows.columns if column != "method"]
    digits = {"mean rank": 1, "best in": 0, "time of a step by SFT's": 2}
    lines = [
        [title(row["method"]), *(f"{row[column]:.{digits.get(column, 3)}f}" for column in head)]
        for _, row in rows.iterrows()
    ]
    return markdown(["method", *head], lines)


def varied() -> str:
    """Target-SFT taken apart: the rows of its ablations."""
    t = committed(NAME)
    both = {"Average@16": ablated(t), "KL from the truth": ablated(t, "kl_truth")}
    lines = [
        [it.about, name, *(f"{each[name, task]:.3f}" for each in both.values() for task in FULL.ablated)]
        for name, it in VARIANTS.items()
    ]
    head = [f"{what}, {TASKS[task].title.lower()}" for what in both for task in FULL.ablated]
    return markdown(["varied", "", *head], lines)


def ledger() -> str:
    """What was run, on which machine, and how long one core or the accelerator took."""
    t = committed(NAME)
    at_home = t["torch"].str.contains("cpu")
    lines = [
        [name, *(cell for rows in (t[~at_home], t[at_home]) for cell in _cost(rows[rows["part"].isin(parts)]))]
        for name, parts in RUNS.items()
    ]
    head = ["", "16 cores and an H200: rows", "minutes of a core", "two cores: rows", "minutes of a core"]
    return markdown(head, lines) + f"\n\nAll of it on two cores: {hours(t):.1f} hours. " + LEDGER


#: What the ledger lists, and the parts of the table that belong to it.
RUNS = {
    "pretraining and teachers": ["model"],
    "tuning": ["tuning"],
    "cells, and where they start": ["cell", "start"],
    "ablations": ["ablation", "cooled"],
    "theory": ["theory"],
}
LEDGER = (
    "That is an estimate: models at the pace measured on one of them, every other run at the mean time of the cells "
    "of its size there, which is more than most of them take, and theory as it was measured."
)


def _cost(rows: pd.DataFrame) -> tuple[str, str]:
    minutes = rows[["training_seconds", "measuring_seconds"]].sum().sum() / 60
    return (str(len(rows)), f"{minutes:.0f}") if len(rows) else ("", "")


def hours(t: pd.DataFrame) -> float:
    """The whole experiment on two cores like the slower machine's."""
    pace = part(t, "pace").set_index("method")["step_seconds"]
    shapes = {**{size: name for name, size in FULL.sizes.items()}, FULL.teacher: "teacher"}
    models = part(t, "model")[["method", "seed"]].to_numpy()
    recipes = [training_recipe(FULL, str(name), int(seed)) for name, seed in models]
    seconds = sum(recipe.steps * pace[shapes[recipe.size]] for recipe in recipes)
    cells = part(t[t["torch"].str.contains("cpu")], "cell")
    each = (cells["training_seconds"] + cells["measuring_seconds"]).groupby(cells["size"]).mean()
    runs = t[t["part"].isin(["tuning", "start", "cell", "ablation"])]
    cooled = part(t, "cooled").drop_duplicates([*SETTING, "method", "seed"])
    seconds += sum(each[size] for size in pd.concat([runs, cooled])["size"])
    return float(seconds + part(t, "theory")["measuring_seconds"].sum()) / 3600 / 2
