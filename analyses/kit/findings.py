"""What a study found: statements in words, each with the test of whether the committed rows still support it.

The `findings.py` beside a study has them as `FINDINGS`. A statement is worded by a function of the rows, so that no
number is typed; it is withdrawn, by a test, as soon as `holds` is false. The documentation prints them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from analyses.kit import runner
from analyses.kit.intervals import interval


@dataclass(frozen=True)
class Finding:
    """One statement. Both functions get the study's committed table; `holds` is the only test of what is claimed."""

    title: str
    words: Callable[[pd.DataFrame], str]
    holds: Callable[[pd.DataFrame], bool]


def of(study: str) -> tuple[Finding, ...]:
    """The findings of a study, in their order; none where there is no `findings.py` beside it."""
    if not (runner.ROOT / "analyses" / "studies" / study / "findings.py").exists():
        return ()
    return importlib.import_module(f"analyses.studies.{study}.findings").FINDINGS


def committed(study: str) -> pd.DataFrame:
    """The rows of the full run, as `figures/` has them."""
    return runner.read(study, runner.FIGURES)


# ---- reading rows -----------------------------------------------------------------------------------------------
#: A mean over seeds, and half of its 95 % interval.
Mean = tuple[float, float]


def at(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows in which each of these columns has this value."""
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def mean(table: pd.DataFrame, column: str, **where: object) -> Mean:
    """The mean of a column over the seeds, in the rows in which other columns have these values."""
    return interval(at(table, **where)[column])


def difference(table: pd.DataFrame, column: str, a: Mapping[str, object], b: Mapping[str, object]) -> Mean:
    """The mean over seeds of a column's value in the rows `a` less its value in the rows `b` of the same seed."""
    first, second = (at(table, **where).set_index("seed")[column] for where in (a, b))
    return interval(first - second)
