"""What was foretold, held against what came: what is learned, how far a model moves, what other ways to train say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analyses.kit.real import END, MARKS
from analyses.studies.real_model import correlation, foretold_of, names_of, pairs, rank_correlation, value
from analyses.studies.real_model.flagged import EVERY
from analyses.studies.real_model.recipes import DESCENT, FLAGGED, LONGER, MAIN, PLAIN, SEEDS, STEPS, WAYS, WHOLE

#: A kind of token is learned where the geometric mean of its probability has come above one half.
LEARNED = float(np.log(0.5))


def learned(table: pd.DataFrame) -> pd.DataFrame:
    """A row per recipe and kind of token that the model did not expect, the end of turn and the calculator marks:
    whether it was foretold to be learned, by patience (`asked`) and by Adam's first step (`done`), what the first step
    of gradient descent was to do (`influence`), and whether it was learned (`came`)."""
    found = pairs(table)
    found = found[found["group"].isin([END, MARKS])].rename(columns=lambda name: str(name).removeprefix("learns, "))
    log_u = [
        value(table, recipe, "log u", group) for recipe, group in zip(found["recipe"], found["group"], strict=True)
    ]
    found = found.assign(log_u=log_u, came=np.array(log_u) > LEARNED, asked=found["asked"] > 0, done=found["done"] > 0)
    return found[["recipe", "group", "asked", "done", "influence", "came", "log_u"]].reset_index(drop=True)


def furthest(table: pd.DataFrame) -> tuple[float, float, float, int]:
    """The rank correlation over recipes of the push at step 0 with the KL from the start on other texts at the end,
    with its interval and how many recipes there are."""
    push = foretold_of("push")
    names = [name for name in names_of(table) if name in push.index]
    far = [value(table, name, "KL from the start", "elsewhere") for name in names]
    return rank_correlation(pd.DataFrame({"recipe": names, "push": push[names].to_numpy(), "far": far}), "push", "far")


def by_seed(table: pd.DataFrame) -> tuple[list[float], float, float]:
    """Of the main recipes: the rank correlation of the first step with training, for each seed; and the median and the
    greatest standard deviation over seeds of what a kind of token has gained, in nats."""
    of_seed = [(table["seed"] == seed) | (table["recipe"] == "start") for seed in range(SEEDS)]
    own = [table[rows].assign(seed=0) for rows in of_seed]  # further seeds have the one rate that was chosen
    found = [one[one["recipe"].isin(MAIN)] for one in map(pairs, own)]
    spread = np.std([one["trained"] for one in found], axis=0, ddof=1)
    return [correlation(one, "influence")[0] for one in found], float(np.median(spread)), float(spread.max())


def in_other_ways(table: pd.DataFrame) -> pd.DataFrame:
    """A row per way to train: the rank correlation of what the first step foretold for it with what it did, with its
    interval and how many pairs there are; and how many signs it had right. Of the recipes that each way has trained."""
    common = set(WAYS[DESCENT][1]) & set(WAYS[WHOLE][1])
    rows = []
    for way in (PLAIN, DESCENT, WHOLE):
        found = pairs(table, way=way)
        found = found[found["recipe"].isin(common)]
        quantity = f"influence, {way.name}" if way is WHOLE else "influence"
        right = int(((found[quantity] > 0) == (found["trained"] > 0)).sum())
        rows.append({"way": way.name, "correlation": correlation(found, quantity), "n": len(found), "right": right})
    return pd.DataFrame(rows)


def longer(table: pd.DataFrame) -> pd.DataFrame:
    """A row per main recipe and kind of token, as of `pairs`: `trained` is the change after all of the further steps,
    `before` that after the first `STEPS` of the same training."""
    found = pairs(table, way=LONGER)
    short = pairs(table, way=replace(LONGER, steps=STEPS))
    return found.assign(before=short["trained"])


def alone(table: pd.DataFrame) -> pd.DataFrame:
    """A row per recipe and kind of token that was also trained alone: what the first step foretold among all kinds, in
    nats per unit of rate, and its gain among all and alone, in nats."""
    rows = []
    for way in (way for way in WAYS if way.only):
        among, by_itself = (pairs(table, way=w).set_index(["recipe", "group"]) for w in (PLAIN, way))
        for at in ((name, way.only) for name in WAYS[way][1]):
            foretold_, gain = among.loc[at, ["influence", "trained"]]
            rows.append({
                "recipe": at[0], "group": at[1], "foretold": foretold_, "among": gain,
                "alone": by_itself.loc[at, "trained"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def on_flagged(table: pd.DataFrame, part: str = EVERY, place: str = "trained on") -> pd.DataFrame:
    """A row per recipe: how much mean log u rose in right and in wrong solutions, by how much more in the right one of
    a question, with the standard error over questions, and the number of these."""
    group = f"{part}, {place}"
    rows = []
    for name in WAYS[FLAGGED][1]:
        at = table[(table["recipe"] == f"{name}, {FLAGGED.name}") & (table["group"] == group)].set_index("quantity")
        rows.append({"recipe": name, **at["value"], "n": int(at["n"].iloc[0])})
    return pd.DataFrame(rows)
