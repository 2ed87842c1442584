"""Audits of SmolLM2-135M-Instruct on GSM8K: people's demonstrations, and language models' solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analyses.kit import cache
from analyses.kit.real import GROUPS, MODEL
from analyses.studies.demonstrations.data import WRITERS, read
from qunify.catalogue import get, names

DEMONSTRATIONS = 48
QUESTIONS = 50  # with a solution by each of the four writers
#: What is rehearsed, and by how many steps of Adam, at which rate.
REHEARSED, STEPS, RATE = ("sft", "dft", "beyond_log", "eaft", "gem"), 6, 1e-3
#: Those that need no second model.
METHODS = tuple(name for name in names() if not get(name).needs)

ROUNDED = 6  # decimals kept: the arithmetic is float32
COLUMNS = ["text", "method", "group", "quantity", "value", "low", "high", "n"]


def measured() -> pd.DataFrame:
    """All rows. Each audit and each rehearsal is kept when it is finished."""
    makers = (("asked", asked), ("moved", moved), ("solutions", solutions))
    table = pd.concat([cache.part("real_audit", name, make) for name, make in makers], ignore_index=True)[COLUMNS]
    numbers = {name: pd.to_numeric(table[name]).round(ROUNDED) for name in ("value", "low", "high")}
    return table.assign(**numbers, n=pd.to_numeric(table["n"]).astype(int))


def asked() -> pd.DataFrame:
    """What is asked of every group, and of all tokens, by every method without a second model."""
    found = _audit(_demonstrations(), METHODS, groups=GROUPS)
    by_group = _long(found.groups, ("share", "u", "trust", "push", "patience"), "tokens")
    below = found.methods[["push_below_0.001", "push_below_0.05"]].sum(axis=1)
    whole = found.methods.assign(below=below, tokens=len(found.tokens))
    return pd.concat([by_group, _long(whole, ("push", "in_simplex", "below"), "tokens")])


def moved() -> pd.DataFrame:
    """What a first step does to every group, and what so many steps of an adapter change on held-out demonstrations."""
    found = _audit(_demonstrations(), REHEARSED, groups=GROUPS, influence=True, rehearse=STEPS, rate=RATE)
    done = _long(found.groups, ("influence", "influence_adam"), "tokens")
    groups = _long(found.groups, ("rehearsed",), "held_out")
    groups[["low", "high"]] = found.groups[["rehearsed_low", "rehearsed_high"]].to_numpy()
    counted = found.methods.assign(n=found.about["rehearsal"]["held_out"])
    whole = _long(counted, ("rehearsed",), "n")
    whole[["low", "high"]] = found.methods[["rehearsed_low", "rehearsed_high"]].to_numpy()
    return pd.concat([done, groups, whole, _long(counted, ("nll_before", "nll_after"), "n")])


def solutions() -> pd.DataFrame:
    """How well each method's mean trust tells wrong solutions: the area under the curve, of all, and among the
    solutions of one question."""
    rows = [
        {
            "prompt": row["question"],
            "completion": row[writer]["solution"],
            "wrong": not row[writer]["is_correct"],
            "question": i,
        }
        for i, row in enumerate(read().solved[:QUESTIONS])
        for writer in WRITERS
    ]
    found = _audit(rows, METHODS, flag="wrong")
    table = _long(found.methods.assign(n=len(rows)), ("auc",), "n").assign(text="solutions")
    table[["low", "high"]] = found.methods[["auc_low", "auc_high"]].to_numpy()
    per = found.examples.assign(question=[rows[i]["question"] for i in found.examples["example"]])
    within = [_within(per, f"trust_{name}") for name in METHODS]
    same = pd.DataFrame({"method": METHODS, "group": "all", "quantity": "auc, same question"})
    same[["value", "low", "high", "n"]] = within
    share = pd.DataFrame(
        {"method": ["data"], "group": "all", "quantity": "wrong", "value": per["flag"].mean(), "n": len(per)}
    )
    return pd.concat([table, same.assign(text="solutions"), share.assign(text="solutions")])


def _within(per: pd.DataFrame, column: str, draws: int = 1000) -> tuple[float, float, float, int]:
    """The share of pairs of a wrong and a right solution of one question in which the wrong one is trusted less, with
    its bootstrap interval over questions; and how many pairs there are."""
    if per[column].isna().any():  # a loss without a target has no trust
        return np.nan, np.nan, np.nan, 0
    less, pairs = [], []
    for _, rows in per.groupby("question"):
        wrong, right = (rows.loc[rows["flag"] == flag, column].to_numpy() for flag in (True, False))
        less.append(((wrong[:, None] < right) + 0.5 * (wrong[:, None] == right)).sum())
        pairs.append(len(wrong) * len(right))
    a, b = np.array(less), np.array(pairs)
    drawn = np.random.default_rng(0).multinomial(len(a), np.full(len(a), 1 / len(a)), size=draws)
    low, high = np.quantile((drawn @ a) / (drawn @ b), [0.025, 0.975])
    return a.sum() / b.sum(), low, high, int(b.sum())


def _long(table: pd.DataFrame, quantities: tuple[str, ...], count: str) -> pd.DataFrame:
    """A row per quantity; `n` is the column `count`."""
    keys = [name for name in ("method", "group") if name in table]
    parts = [
        table[keys].assign(quantity=name, value=table[name].astype(float), n=table[count].astype(int))
        for name in quantities
    ]
    long = pd.concat(parts, ignore_index=True).assign(text="demonstrations", low=np.nan, high=np.nan)
    return long if "group" in long else long.assign(group="all")


def _audit(rows: list[dict[str, Any]], methods: tuple[str, ...], **how: Any) -> Any:
    from qunify import audit

    if not MODEL.is_dir():
        raise FileNotFoundError(f"real_audit: {MODEL} is not there: `make real` fetches it")
    return audit.run(MODEL, rows, methods=methods, keep=cache.FOLDER / "real_audit" / "parts", progress=True, **how)


def _demonstrations() -> list[dict[str, Any]]:
    return list(read().demonstrations[:DEMONSTRATIONS])
