"""LaTeX formulas as MathML, which every browser draws by itself: no script, no font and no picture to load."""

from __future__ import annotations

import re
from html import escape, unescape
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element

#: latex2mathml sets the names of functions without the space that LaTeX leaves behind them: −logu.
_NAMED = re.compile(r"(\\(?:log|exp|ln|arg)(?:_\{[^{}]*\}|_\w)?)\s*(?=[A-Za-z]|\\(?!left|[bB]ig|,))")


def mathml(latex: str, *, display: bool = False) -> str:
    """A `<math>` element, which keeps the source as its annotation; the source alone where it cannot be read."""
    plain = f"<code>{escape(latex)}</code>"
    try:
        element = convert_to_element(_NAMED.sub(r"\1\\,", latex), display="block" if display else "inline")
    except Exception:  # anybody's formula comes here, and a page is worth more than one line of it
        return plain
    for part in element.iter():
        part.text = unescape(part.text or "")  # it writes symbols as entities, in the text itself
    if any("\\" in text for text in element.itertext()):  # a command that it does not know stands there as it is
        return plain
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in element)
    block = ' display="block"' if display else ""
    source = f'<annotation encoding="application/x-tex">{escape(latex)}</annotation>'
    return f"<math{block}><semantics>{body}{source}</semantics></math>"
