"""Pieces of HTML and LaTeX by which notebooks show the package's objects, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; floats to four digits."""
    head = "".join(f"<th>{escape(str(h))}</th>" for h in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_cell(x))}</td>' for x in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def array(lines: Sequence[str], columns: str = "l") -> str:
    """Lines of a formula below each other."""
    body = r"\\".join(lines)
    return rf"$\begin{{array}}{{{columns}}}{body}\end{{array}}$"


def number(x: float) -> str:
    """Three digits, in LaTeX."""
    if not isfinite(x):
        return r"\text{none}" if x != x else (r"\infty" if x > 0 else r"-\infty")
    digits, _, exponent = f"{x:.3g}".partition("e")
    return rf"{digits}\cdot 10^{{{int(exponent)}}}" if exponent else digits


def words(text: str) -> str:
    """Plain text inside a formula."""
    escaped = "".join(rf"\{c}" if c in "#$%&_{}" else c for c in text.replace("\\", "/"))
    return rf"\text{{{escaped}}}"


def _cell(x: object) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)
