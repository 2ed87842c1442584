"""The glossary's table of parameters is the catalogue's: every parameter, its default, its letter."""

from __future__ import annotations

import re
from pathlib import Path

from qunify import catalogue

GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
ROW = re.compile(r"^\| `(?P<method>\w+)` \| `(?P<name>\w+)` = (?P<default>\S+) \| (?P<letter>.*?) ?\|", re.M)


def test_every_parameter_is_in_the_glossary_with_its_default() -> None:
    rows = [(row["method"], row["name"], row["default"]) for row in ROW.finditer(GLOSSARY.read_text(encoding="utf-8"))]
    expected = [
        (name, f.name, f"{f.default:g}" if isinstance(f.default, float) else str(f.default))
        for name, entry in catalogue.ENTRIES.items()
        for f in entry.parameters()
    ]
    assert sorted(rows) == sorted(expected)


def test_letters_are_those_of_the_catalogue() -> None:
    for row in ROW.finditer(GLOSSARY.read_text(encoding="utf-8")):
        entry = catalogue.ENTRIES[row["method"]]
        meaning = next(f.metadata["doc"] for f in entry.parameters() if f.name == row["name"])
        said = f"{entry.loss_text} {entry.pulls_text} {meaning}"
        assert not row["letter"] or re.search(rf"(?<!\w){row['letter']}(?!\w)", said), f"{row['method']}: {row['name']}"
