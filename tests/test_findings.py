"""Findings: each statement holds of the committed rows, and would be withdrawn if they said otherwise."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from docs import findings, ten_settings
from docs.findings import FINDINGS, Finding

ALL = (*FINDINGS, *ten_settings.FINDINGS)
TITLES = [finding.title for finding in ALL]


@pytest.mark.parametrize("finding", ALL, ids=TITLES)
def test_the_rows_support_it(finding: Finding) -> None:
    assert finding.holds(findings.table(finding.study))


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows under other methods' names: every method takes the place of the one after next."""
    column = "setting" if "setting" in table and "method" not in table else "method"
    names = list(dict.fromkeys(table[column].dropna()))
    other = dict(zip(names, names[2:] + names[:2], strict=True))
    return table.assign(**{column: table[column].map(other)})


@pytest.mark.parametrize("finding", ALL, ids=TITLES)
def test_other_rows_would_not(finding: Finding) -> None:
    table = findings.table(finding.study)
    if finding.title == "Training ends where the drift says":
        some = table["method"].isin(table["method"].unique()[:8])
        other = table[some].assign(distance=0.01, nearest=0.01)
    elif finding.study == "calibration_bias":
        other = table.assign(**{"entropy gap": -table["entropy gap"]})
    elif finding.title.startswith("Noise"):
        other = table.assign(accuracy=0.9)
    elif "KL anchor" in finding.title:
        other = table.assign(learned=0.5)
    else:
        other = renamed(table)
    try:
        held = finding.holds(other)
    except (IndexError, KeyError, ValueError):
        held = False  # the rows it speaks of are no longer there
    assert not held


def test_numbers_are_worded_and_none_is_missing() -> None:
    page = findings.page()
    assert page.count("\n## ") + page.startswith("## ") == len(FINDINGS) >= 10
    assert "nan" not in page.lower()
    assert len(re.findall(r"\d", page)) > 100
    for finding in FINDINGS:
        assert (findings.runner.FIGURES / f"{finding.study}.png").exists()
        assert f"figures/{finding.study}.csv" in page
