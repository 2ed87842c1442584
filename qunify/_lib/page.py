"""HTML pages that stand alone: what all of them share is `page.html.j2`, which a page's own template extends."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import jinja2


def environment(folders: Sequence[Path], *, escape: bool = True) -> jinja2.Environment:
    """What renders the templates in `folders`, and `page.html.j2`, which they may extend. What fills them is escaped as
    HTML unless they are of another kind. It is kept, and so are the templates that it has read."""
    return _environment(tuple(folders), escape)


@functools.cache
def _environment(folders: tuple[Path, ...], escape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(folders), jinja2.PackageLoader("qunify._lib", ".")]),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
