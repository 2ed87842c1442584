"""A page with cells as a notebook: the same cells, and the text without what only a web page can show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

EXERCISES = Path(__file__).with_name("exercises.py")
#: The line by which a page gets the check of its exercises, which a notebook brings along.
IMPORT = re.compile(r"^from docs\.exercises import .*\n?", re.M)
NOTE = "*A page of the documentation of qunify {version}, as a notebook. It needs Python with qunify installed.*"
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,}|:{3,})(?:\{(?P<name>[\w:-]+)\}(?P<argument>.*)|(?P<info>.*))$")
HIDDEN = {"jupyter": {"source_hidden": True}}
#: Directives that say nothing outside the page.
SILENT = ("toctree", "eval-rst", "include", "contents")


class Cell(NamedTuple):
    kind: str  # "code" or "markdown"
    source: str
    metadata: Mapping[str, Any] = {}


def convert(page: str, version: str) -> str:
    """The notebook of a MyST page, as JSON."""
    cells = list(_cells(_body(page).splitlines()))
    if any(IMPORT.search(cell.source) for cell in cells):
        checks = Cell("code", EXERCISES.read_text(encoding="utf-8").rstrip(), HIDDEN)
        cells = [c._replace(source=IMPORT.sub("", c.source)) if c.kind == "code" else c for c in cells]
        cells.insert(1, checks)
    cells.insert(1, Cell("markdown", NOTE.format(version=version)))
    found = {
        "cells": [_json(i, cell) for i, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _json(i: int, cell: Cell) -> dict[str, Any]:
    common = {"id": f"cell-{i}", "metadata": cell.metadata, "source": cell.source.splitlines(keepends=True)}
    if cell.kind == "code":
        return {"cell_type": "code", "execution_count": None, "outputs": [], **common}
    return {"cell_type": "markdown", **common}


def _body(page: str) -> str:
    return re.sub(r"\A---\n.*?^---\n", "", page, flags=re.S | re.M)


def _cells(lines: list[str]) -> Iterator[Cell]:
    """The title first, then code and text in turn; a heading begins a new cell of text."""
    text: list[str] = []

    def flush() -> Iterator[Cell]:
        source = plain("\n".join(text)).strip("\n")
        if source:
            yield Cell("markdown", source)
        text.clear()

    i = 0
    while i < len(lines):
        found = FENCE.match(lines[i])
        if found is None:
            if lines[i] == "+++" or (lines[i].startswith("#") and text):
                yield from flush()
            if lines[i] != "+++":
                text.append(lines[i])
            if lines[i].startswith("# "):
                yield from flush()
            i += 1
            continue
        inside, i = _fenced(lines, i, found["fence"])
        if found["name"] == "code-cell":
            yield from flush()
            yield _code(inside)
        elif found["name"]:
            text += _directive(found["name"], found["argument"].strip(), inside)
        else:
            text += [lines[i - len(inside) - 2], *inside, lines[i - 1]]
    yield from flush()


def _fenced(lines: list[str], start: int, fence: str) -> tuple[list[str], int]:
    """What a fence holds, and the line after it."""
    for end in range(start + 1, len(lines)):
        if lines[end].strip() and set(lines[end].strip()) == {fence[0]} and len(lines[end].strip()) >= len(fence):
            return lines[start + 1 : end], end + 1
    raise ValueError(f"a fence is not closed: {lines[start]!r}")


def _options(inside: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options of a directive, and what follows them."""
    if inside and inside[0] == "---":
        end = inside.index("---", 1)
        return yaml.safe_load("\n".join(inside[1:end])) or {}, inside[end + 1 :]
    at = next((i for i, line in enumerate(inside) if not re.match(r":[\w-]+:", line)), len(inside))
    return yaml.safe_load("\n".join(line[1:] for line in inside[:at])) or {}, inside[at:]


def _code(inside: list[str]) -> Cell:
    options, source = _options(inside)
    metadata = {key: value for key, value in options.items() if key in ("tags", "jupyter")}
    if {"hide-input", "hide-cell"} & set(metadata.get("tags", ())):
        metadata = {**HIDDEN, **metadata}
    return Cell("code", "\n".join(source).strip("\n"), metadata)


def _directive(name: str, argument: str, inside: list[str]) -> list[str]:
    """Formulas stay formulas, a box becomes a quotation, a figure its caption."""
    _, body = _options(inside)
    if name in SILENT:
        return []
    if name == "math":
        return ["$$", *body, "$$"]
    nested = "\n".join(body)
    text = "\n".join(cell.source for cell in _cells(body)) if re.search(r"^[`:~]{3}", nested, re.M) else nested
    if name in ("container", "div", "figure", "image"):
        return text.splitlines()
    title = argument if name in ("admonition", "dropdown", "exercise", "solution", "card") else name.capitalize()
    return ["", *(f"> {line}".rstrip() for line in [f"**{title}**", "", *text.strip().splitlines()]), ""]


def plain(text: str) -> str:
    """Text without labels, comments and roles; a link into the site keeps its words."""
    text = re.sub(r"^\([\w:-]+\)=\n", "", text, flags=re.M)
    text = re.sub(r"^%.*\n?", "", text, flags=re.M)
    text = re.sub(r"\{math\}`([^`]+)`", r"$\1$", text)
    text = re.sub(r"\{\w+(?::\w+)*\}`([^`<]+?)\s*(?:<[^`>]*>)?`", r"\1", text)
    text = re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text)
    return re.sub(r"(?<=\))\{[.#][^}]*\}", "", text)
