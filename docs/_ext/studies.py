"""The page on the report: every study with its question, its figure and what it found."""

from __future__ import annotations

from analyses.kit import runner
from analyses.kit.story import STUDIES
from docs.findings import linked_figure, linked_rows, seen


def page() -> str:
    """Markdown: a section per study whose figure is committed; every number in it comes from the study's rows."""
    parts = []
    for name in STUDIES:
        if not (runner.FIGURES / f"{name}.png").exists():
            continue
        parts.append(f"({anchor(name)})=\n## {runner.load(name).question}\n")
        parts.append(linked_figure(name))
        parts.append(f"{seen(name)} Rows: {linked_rows(name)}; alone, `python -m analyses {name}`.\n")
    return "\n".join(parts)


def anchor(study: str) -> str:
    """By which another page refers to a study."""
    return f"study-{study}"
