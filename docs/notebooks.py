"""A page with cells as a notebook: MyST-NB's own conversion, less what only the web page can show."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook

EXERCISES = Path(__file__).with_name("exercises.py")
#: The line by which a page gets the check of its exercises, which a notebook brings along.
IMPORT = re.compile(r"^from docs\.exercises import .*\n?", re.M)
#: Where a cell uses it; what stands before it is the lesson.
USE = re.compile(r"\bcheck\(")
BEFORE = "The next cell holds what checks the exercises. Run it once."
NOTE = "*A page of the documentation of qunify {version}, as a notebook. It needs Python with qunify installed.*"


def convert(page: str, version: str) -> str:
    """The notebook of a MyST page, as JSON: the same for the same page."""
    notebook = read_myst_markdown_notebook(page)
    cells = [nbformat.v4.new_markdown_cell(NOTE.format(version=version)), *notebook.cells]
    if any(IMPORT.search(cell.source) for cell in cells):
        first = next(
            i for i, cell in enumerate(cells) if cell.cell_type == "code" and USE.search(IMPORT.sub("", cell.source))
        )
        checking = nbformat.v4.new_code_cell(EXERCISES.read_text(encoding="utf-8").rstrip())
        checking.metadata["tags"] = ["hide-cell"]
        cells[first:first] = [nbformat.v4.new_markdown_cell(BEFORE), checking]
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"  # as they are made, identifiers are drawn at random
        cell.source = plain(cell.source) if cell.cell_type == "markdown" else IMPORT.sub("", cell.source)
        if {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", ())):
            cell.metadata["jupyter"] = {"source_hidden": True}
    notebook.cells = cells
    return nbformat.writes(notebook) + "\n"


def plain(text: str) -> str:
    """Text without labels and roles; a link into the site keeps its words, as the site is not beside a notebook."""
    text = re.sub(r"^\([\w:-]+\)=\n", "", text, flags=re.M)
    text = re.sub(r"\{math\}`([^`]+)`", r"$\1$", text)
    text = re.sub(r"\{\w+(?::\w+)*\}`([^`<]+?)\s*(?:<[^`>]*>)?`", r"\1", text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text)
