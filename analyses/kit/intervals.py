"""Means over seeds with their 95 % intervals (Student)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.special import stdtrit


def intervals(table: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """`mean`, `half` (half the width of the interval; NaN for one seed) and `n`, a row per group of `by`."""
    values = table.groupby(list(by), sort=False)[value]
    half = values.sem() * stdtrit(values.count() - 1, 0.975)  # the quantile, without the seconds that scipy.stats loads
    return pd.DataFrame({"mean": values.mean(), "half": half, "n": values.count()})


def interval(values: pd.Series) -> tuple[float, float]:
    """The mean of one value per seed, and half the width of its interval."""
    found = intervals(pd.DataFrame({"value": values.to_numpy(), "all": "all"}), ["all"]).iloc[0]
    return float(found["mean"]), float(found["half"])
