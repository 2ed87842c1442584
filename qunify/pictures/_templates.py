"""The templates of this folder: pages of HTML, and Markdown that becomes a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from qunify._lib import page


def environment(*, markdown: bool = False, folders: Sequence[Path] = ()) -> jinja2.Environment:
    """What renders them, and templates in `folders`, which may extend them. What fills HTML is escaped; Markdown has
    the filters `plain`, `code` and `linked` for texts that are not its own, `capital` and `full_stop` for sentences.
    """
    found = page.environment([*folders, Path(__file__).parent], escape=not markdown)
    if markdown:
        from qunify.pictures import _markdown

        found.filters |= {
            "plain": _markdown.plain,
            "code": _markdown.code,
            "linked": _markdown.linked,
            "capital": lambda text: f"{text[:1].upper()}{text[1:]}",
            "full_stop": lambda text: f"{text.rstrip('.')}.",
        }
    return found
