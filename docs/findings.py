"""What the studies found, printed: each statement with its rows, and the figure where its study is first told."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator

from analyses.kit import findings, runner
from analyses.kit.story import STUDIES

FIGURES = "../figures"  # seen from the page
#: Studies that have a page of their own.
APART = ("ten_settings", "atlas", "real_model")


def page() -> str:
    """MyST: a section per finding, in the order of the report."""
    parts, numbers = [], itertools.count(1)
    for study in STUDIES:
        if study not in APART:
            figure = linked_figure(study)
            rows = f"Rows: {linked_rows(study)}, written by `python -m analyses {study} --full`.\n"
            for i, section in enumerate(sections(study, "##", numbers)):
                parts += [section, rows] if i else [section, figure, rows]
    return "\n".join(parts)


def linked_figure(study: str) -> str:
    """The committed figure, which leads to itself at full size; in its place, its title and what it shows in words."""
    picture = f"{FIGURES}/{study}.png"
    told = f"{runner.load(study).title}. {seen(study)}".translate({ord(c): None for c in "[]`*_$<>"})
    return f"[![{told}]({picture}){{.study}}]({picture})\n"


@functools.cache
def seen(study: str) -> str:
    """What the committed figure shows, in words."""
    return runner.load(study).see(findings.committed(study))


def linked_rows(study: str) -> str:
    return f"{{download}}`figures/{study}.csv <{FIGURES}/{study}.csv>`"


def told(study: str) -> str:
    """MyST: a smaller section per finding of one study."""
    return "\n".join(sections(study, "###", itertools.count(1)))


def sections(study: str, heading: str, numbers: Iterator[int]) -> Iterator[str]:
    rows = findings.committed(study)
    for finding, number in zip(findings.of(study), numbers, strict=False):
        yield f"({anchor(finding)})=\n{heading} {number}. {finding.title}\n\n{finding.words(rows)}\n"


def anchor(finding: findings.Finding) -> str:
    """By which another page refers to it."""
    return "finding-" + "-".join(re.findall(r"\w+", finding.title.lower()))
