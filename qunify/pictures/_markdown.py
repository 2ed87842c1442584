"""Markdown: a text that is safe inside it, tables, and the HTML of a whole text with its formulas and pictures.

The page of a method is written once, in the Markdown that MyST reads too, with formulas between dollar signs. Here it
becomes HTML that loads nothing: formulas as MathML, pictures as data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from qunify.pictures import _mathml


def plain(text: object) -> str:
    """A text in one line of which no character means anything to Markdown: `a_b` becomes `a\\_b`."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = re.sub(r"([\\`*_{}\[\]<>$|~#!&^])|^(?=[-+=])", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", line)  # a numbered list


def code(text: object) -> str:
    """Inline code, also in the cell of a table. Its fence is longer than every run of backticks inside."""
    line = " ".join(str(text).split()).replace("|", r"\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def linked(text: str) -> str:
    """A text with its arXiv numbers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "--:") -> str:
    """A table of Markdown cells. The first column is set to the left, the others as `align` says."""
    lines = [head, [":--", *[align] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html(text: str, pictures: Mapping[str, str]) -> str:
    """The HTML of a Markdown text. `pictures` has the HTML of each image by its address, where alt="" stands for the
    description; an image with another address is only described. HTML in the text is shown as it is written."""
    md = MarkdownIt("commonmark", {"html": False}).enable("table")
    md.inline.ruler.before("escape", "formula", _inline)
    md.block.ruler.before("fence", "formula", _block, {"alt": ["paragraph"]})

    def image(tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        alt = escape(md.renderer.renderInlineAsText(tokens[i].children, options, env))  # type: ignore[attr-defined]
        shown = pictures.get(str(tokens[i].attrs["src"]))
        return alt if shown is None else shown.replace('alt=""', f'alt="{alt}"')

    rules: dict[str, Callable[..., str]] = {
        "image": image,
        "formula": lambda tokens, i, options, env: _mathml.mathml(tokens[i].content),
        "display": lambda tokens, i, options, env: (
            f'<div class="formula" tabindex="0">{_mathml.mathml(tokens[i].content, display=True)}</div>\n'
        ),
        "table_open": lambda *_: '<div class="table" tabindex="0"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }
    md.renderer.rules.update(rules)  # type: ignore[attr-defined]
    return md.render(text)


def _inline(state: StateInline, silent: bool) -> bool:
    """$…$ on one line, without a space inside the dollars."""
    found = re.compile(r"\$(?! )([^$\n]+?)(?<! )\$").match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.push("formula", "", 0).content = found[1]
    state.pos = found.end()
    return True


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Lines between two lines that are $$ alone."""

    def line(i: int) -> str:
        return state.src[state.bMarks[i] + state.tShift[i] : state.eMarks[i]].strip()

    if line(start) != "$$":
        return False
    close = next((i for i in range(start + 1, end) if line(i) == "$$"), None)
    if close is None:
        return False
    if not silent:
        token = state.push("display", "", 0)
        token.content = " ".join(map(line, range(start + 1, close)))
        token.map = [start, close + 1]
        state.line = close + 1
    return True
