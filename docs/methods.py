"""The catalogue as text: the table in README.md (`python -m docs.methods` rewrites it) and the page for Sphinx."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import qunify
from qunify import catalogue
from qunify.qmap import QMap, range_text

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- methods:begin -->", "<!-- methods:end -->"

SIMPLEX = {
    "always": "always a distribution",
    "sometimes": "signed at some tokens",
    "never": "always signed",
}


def table() -> str:
    """Every method in one Markdown table, folded away under its own count."""
    maps = [qunify.get(name) for name in qunify.names()]
    lines = ["| Method | Loss | Pulls | Source |", "|---|---|---|---|"]
    for m in maps:
        lines.append(f"| {m.title}<br>`{m.name}` | {code(m.loss_text)} | {code(m.pulls_text)} | {m.source} |")
    summary = f"<summary>All {len(maps)} methods, in {len(catalogue.families())} families</summary>"
    return "\n".join(["<details>", summary, "", *lines, "", "</details>"])


def page() -> str:
    """Every method in full, one section per family."""
    sections = []
    for family in catalogue.families():
        sections.append(f"## {family.capitalize()}\n")
        sections += [entry(qunify.get(name)) for name in qunify.names(family)]
    return "\n".join(sections)


def entry(m: QMap) -> str:
    facts = {
        "Loss": code(m.loss_text),
        "Pulls": code(m.pulls_text),
        "Contexts": ", ".join(map(code, m.needs or ())) or "none",
        "Link": m.link,
        "Unit target": SIMPLEX[m.simplex] if m.shift_invariant else "none: the loss is not shift-invariant",
        "Source": m.source,
        "Releases": m.release,
    }
    return "\n".join(
        [
            f"### {m.title}\n",
            f"`{m.name}`: {m.summary}\n",
            f"$$\n{m.formula}\n$$\n",
            *(f"- **{name}**: {fact}" for name, fact in facts.items() if fact),
            *_parameters(m),
            "",
        ]
    )


def _parameters(m: QMap) -> Iterable[str]:
    for f in dataclasses.fields(m):  # type: ignore[arg-type]
        yield f"- **{f.name}** = {f.default!r}, {range_text(f)}: {f.metadata['doc']}"


def code(text: str) -> str:
    """Inline code that may stand in a table cell."""
    return f"`{text}`".replace("|", r"\|")


def filled(readme: str) -> str:
    """The README with the table between its markers as the catalogue now has it."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    text = filled(README.read_text(encoding="utf-8"))
    unfinished = README.with_name(f".{os.getpid()}.{README.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(README)


if __name__ == "__main__":
    main()
