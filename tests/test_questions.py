"""What the catalogue says of its parameters: the glossary's table is made of it, its letters are those of formulas."""

from __future__ import annotations

import re

import pytest

from docs import methods
from qunify import catalogue

ROW = re.compile(r"^\| `(?P<method>\w+)` \| `(?P<name>\w+)` = (?P<default>\S+) \| (?P<letter>.*?) ?\| .*\|$", re.M)


def test_the_glossary_has_a_row_for_every_parameter() -> None:
    rows = [(row["method"], row["name"], row["default"], row["letter"]) for row in ROW.finditer(methods.parameters())]
    assert ("label_smoothing", "smoothing", "0.1", "λ") in rows
    assert ("threshold", "base", "log", "") in rows
    assert [(method, name) for method, name, _, _ in rows] == [
        (name, f.name) for name, entry in catalogue.ENTRIES.items() for f in entry.parameters()
    ]


@pytest.mark.parametrize("name", catalogue.ENTRIES)
def test_letters_are_those_of_the_formulas(name: str) -> None:
    entry = catalogue.ENTRIES[name]
    for f in entry.parameters():
        letter, said = f.metadata["letter"], f"{entry.loss_text} {entry.pulls_text} {f.metadata['doc']}"
        assert not letter or re.search(rf"(?<!\w){letter}(?!\w)", said), f"{f.name}: {letter}"


@pytest.mark.parametrize("name", catalogue.ENTRIES)
def test_a_telling_value_is_in_range_and_off_the_default(name: str) -> None:
    entry = catalogue.ENTRIES[name]
    told = entry(**entry.telling())  # else a ValueError
    assert [key for key in entry.telling() if getattr(told, key) == getattr(entry(), key)] == []
