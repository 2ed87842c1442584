"""The page of an audit: sentences, groups, methods, demonstrations as text coloured by trust, in one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qunify._lib.page import environment
from qunify.audit._tables import SHARES
from qunify.audit._words import number, percent, signed
from qunify.catalogue import PAPER, get, names

#: At most so many methods have their trust in the text, and so many tokens of demonstrations are shown.
SHOWN, TOKENS = 8, 30_000
DISTRUSTED = 10
ADAM_RATE = 1e-4  # for which the page tells Adam's first step
LEVELS = 10  # of trust in the text: 0 is none, 9 is full
NO_TRUST = "-"  # of a method without one, and so without colour


def page(
    tokens: pd.DataFrame,
    methods: pd.DataFrame,
    groups: pd.DataFrame,
    examples: pd.DataFrame,
    about: dict[str, Any],
    sentences: tuple[str, ...],
) -> str:
    shown = _shown([str(name) for name in methods["method"]])
    telling = _telling(tokens, shown)
    return (
        environment([Path(__file__).parent])
        .get_template("audit.html.j2")
        .render(
            sentences=sentences,
            about=about,
            shown=shown,
            groups=_groups(groups, shown),
            moves=_moves(groups, shown),
            methods=[_method(row) for row in methods.to_dict("records")],
            has_flag="auc" in methods,
            agreement=_agreement(methods, shown),
            distrusted=_distrusted(tokens, examples, telling),
            telling=telling,
            codes=[_code(name) for name in shown],
            texts=_texts(tokens, examples, shown),
            number=number,
            percent=percent,
        )
    )


def _shown(methods: list[str]) -> list[str]:
    """Those of the paper first, sft at the head."""
    return sorted(methods, key=lambda name: (name != "sft", name not in PAPER))[:SHOWN]


def _code(name: str) -> str:
    """How `hf.SFTTrainer` is told of a method, in Python: its id, its id and parameters, or a function's name."""
    base, _, parameters = name.removesuffix(")").partition("(")
    if base not in names():
        return f"method={name}"  # a function or a map of the user's own
    params = f", method_params=dict({parameters})" if parameters else ""
    models = [need.removesuffix("_logits") for need in get(base).needs if need.endswith("_logits")]
    others = "".join(f', {model}_model="path/to/{model}"' for model in models)
    return f'method="{base}"{params}{others}'


def _telling(tokens: pd.DataFrame, shown: list[str]) -> str:
    """The method whose trust differs most between tokens: SFT's, say, is 1 everywhere and tells nothing."""
    spread = tokens[[f"trust_{name}" for name in shown]].std().fillna(0.0)
    return shown[int(spread.to_numpy().argmax())]


def _groups(groups: pd.DataFrame, shown: list[str]) -> list[dict[str, Any]]:
    found = []
    for group, rows in groups.groupby("group", sort=False):
        by = rows.set_index("method")
        first = rows.iloc[0]
        cells = [
            {name: by.loc[method, name] for name in ("trust", "push", "patience")} | {"method": method}
            for method in shown
        ]
        found.append({"name": group, "share": first["share"], "u": first["u"], "cells": cells})
    return found


def _moves(groups: pd.DataFrame, shown: list[str]) -> list[dict[str, Any]]:
    """Per group a row for each of: a step of descent, Adam's first step, the rehearsal; those there are."""
    lines = [
        (name, column)
        for name, column in (
            ("done, descent", "influence"), ("done, Adam", "influence_adam"), ("rehearsed", "rehearsed"),
        )
        if column in groups
    ]  # fmt: skip
    found = []
    for group, rows in groups.groupby("group", sort=False):
        by = rows.set_index("method").loc[shown]
        told = [{"name": name, "cells": [_move(cell, column) for _, cell in by.iterrows()]} for name, column in lines]
        if told:
            found.append({"name": group, "rows": told})
    return found


def _move(row: pd.Series, column: str) -> dict[str, Any]:
    value = row[column] * (ADAM_RATE if column == "influence_adam" else 1)
    text = "–" if math.isnan(value) else signed(value)
    if column == "rehearsed" and not math.isnan(row["rehearsed_low"]):
        text += f" [{signed(row['rehearsed_low'])}, {signed(row['rehearsed_high'])}]"
    return {"text": text, "falls": value < 0}


def _method(row: dict[Any, Any]) -> dict[str, Any]:
    shares = [0.0 if math.isnan(row[name]) else row[name] for name in SHARES]
    starts = np.concatenate([[0.0], np.cumsum(shares)])[:-1]
    return {**row, "bars": [(100 * a, 100 * b) for a, b in zip(starts, shares, strict=True)]}


def _agreement(methods: pd.DataFrame, shown: list[str]) -> tuple[list[str], list[list[float]]]:
    """Cosines of gradients, methods ordered so that neighbours agree."""
    table = methods.set_index("method").loc[shown, [f"cosine_{name}" for name in shown]].to_numpy(float)
    order, left = [0], set(range(1, len(shown)))
    while left:
        following = max(left, key=lambda i: (np.nan_to_num(table[order[-1], i], nan=-1.0), -i))
        order.append(following)
        left.remove(following)
    return [shown[i] for i in order], table[np.ix_(order, order)].tolist()


def _distrusted(tokens: pd.DataFrame, examples: pd.DataFrame, method: str) -> dict[str, Any]:
    rows = examples.nsmallest(DISTRUSTED, f"trust_{method}")
    texts = tokens.groupby("example")["text"].agg("".join)
    return {
        "method": method,
        "rows": [
            {**row, "trust": row[f"trust_{method}"], "text": " ".join(texts[row["example"]].split())[:160]}
            for row in rows.to_dict("records")
        ],
    }


def _texts(tokens: pd.DataFrame, examples: pd.DataFrame, shown: list[str]) -> list[dict[str, Any]]:
    """Demonstrations as pieces of text, with a digit of trust, or NO_TRUST, per piece and method, until TOKENS are
    shown."""
    found, count = [], 0
    columns = [f"trust_{name}" for name in shown]
    for example, rows in tokens.groupby("example", sort=True):
        if count and count + len(rows) > TOKENS:
            break
        count += len(rows)
        trust = rows[columns].to_numpy(float)
        levels = np.clip(np.nan_to_num(trust) * LEVELS, 0, LEVELS - 1).astype(int).astype(str)
        digits = ["".join(column) for column in np.where(np.isnan(trust), NO_TRUST, levels).T]
        found.append({"example": example, "pieces": [*rows["text"]], "digits": digits})
    return found
