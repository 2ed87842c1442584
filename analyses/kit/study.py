"""What a study is: a question, the rows that answer it, and the picture of those rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


def as_it_is(table: pd.DataFrame) -> pd.DataFrame:
    """The digest of a study whose table is short enough to print."""
    return table


@dataclass(frozen=True)
class Study:
    """A study's file, or the `__init__.py` of its folder, exposes one of these as `STUDY`.

    `rows(full)` computes the tidy table, deterministically; `draw`, `see` and `digest` get that table as read
    back from its CSV, with the columns of provenance added, and use nothing else.
    """

    name: str
    title: str
    question: str
    rows: Callable[[bool], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    see: Callable[[pd.DataFrame], str]  # one to three sentences; every number in them comes from the table
    digest: Callable[[pd.DataFrame], pd.DataFrame] = as_it_is  # the few rows worth printing
    more: Mapping[str, Callable[[pd.DataFrame], Figure]] = field(default_factory=dict)  # further pictures, by name
    methods: Callable[[], Iterable[str]] = tuple  # entries of the catalogue that a full run has rows of

    def missing(self, table: pd.DataFrame) -> list[str]:
        """Methods without rows: those added to the catalogue since the study was last run. Rows name their methods in
        the columns `method`, `a` and `b`, or `general` and `special`."""
        columns = [c for c in ("method", "a", "b", "general", "special") if c in table]
        there = {name for column in columns for name in table[column]}
        return [name for name in self.methods() if name not in there]
