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


_GREEK = ("alpha", "beta", "gamma", "delta", "varepsilon", "eta", "lambda", "pi", "sigma", "tau", "varphi")
_SIGNS = {
    "²": "^2", "₁": "_1", "₂": "_2", "′": "'", "ᵀ": r"^\top", "·": r"\cdot", "½": r"\tfrac12", "̃": r"{}^{\sim}",
    "Σ": r"\textstyle\sum", "ẑ": r"\hat z", "‖": r"\Vert", "→": r"\to", "∈": r"\in", "−": "-", "∘": r"\circ",
    "∝": r"\propto", "≠": r"\ne", "≤": r"\le", "⟨": r"\langle", "⟩": r"\rangle", "Δ": r"\Delta",
    "̂": r"{}^{\wedge}",
}  # fmt: skip
_IN_MATHS = _SIGNS | {letter: rf"\{name}" for letter, name in zip("αβγδεηλπστφ", _GREEK, strict=True)}


def in_ascii(text: str) -> str:
    """Plain text with signs of mathematics for LaTeX, outside of a formula: ASCII alone."""
    special = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    special |= {c: rf"\{c}" for c in "#$%&_{}"} | {c: f"${c}$" for c in "<>|"}
    return "".join(special.get(c) or (f"${_IN_MATHS[c]}$" if c in _IN_MATHS else c) for c in text)


def _cell(x: object) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)
