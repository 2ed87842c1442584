"""How the rows are worded in tables and beside pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

#: One row of the table, by column.
Row = Mapping[Any, Any]


def told(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the columns `function` and `is`, no value missing."""
    table = table.astype(object).fillna("")
    functions = [where.rpartition(".")[2] if not where.endswith("from_config") else where for where in table["where"]]
    return table.assign(**{"function": functions, "is": [finding(row) for row in table.to_dict("records")]})


def finding(row: Row) -> str:
    """What a loss is, in a few words: `¼ × kd(temperature=2)`."""
    if row["level"] in ("none", "directional"):
        return "a gate of its own" if "It is a gate" in row["notes"] else "none of the catalogue"
    if row["level"] == "random":
        return "random: no two calls agree"
    if row["level"] == "cannot be asked":
        return "not to be tried"
    if row["level"] == "near":
        return f"near {row['found']}, {float(row['error']):.1%} off"
    factor = short(row["factor"])
    what = f"{factor} × {nice(row['found'])}" if factor not in ("1", "") else nice(row["found"])
    if row["level"] == "weighted":
        return f"{what}, times a weight of the label"
    return what + (f" at {float(row['share']):.0%} of the tokens tried" if row["level"] == "mostly" else "")


def nice(found: str) -> str:
    return found.replace("*", "·")


def short(factor: str) -> str:
    """A factor with four digits, and simple fractions as such."""
    if not re.fullmatch(r"-?[\d.e-]+", factor):
        return nice(factor)
    known = {0.25: "1/4", 1 / 3: "1/3", 0.5: "1/2", 10 / 3: "10/3"}
    value = float(factor)
    return next((text for x, text in known.items() if abs(value - x) < 1e-5), f"{value:.4g}")
