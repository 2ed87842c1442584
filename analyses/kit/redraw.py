"""Committed rows drawn again in the present look, where running their study again would take hours."""

from __future__ import annotations

import re
from pathlib import Path

from analyses.kit import runner

#: What the SVG says of the code that made its rows.
STAMP = re.compile(r"(?:full|quick) [0-9a-f]{20}")


def redraw(name: str, out: Path) -> None:
    """Draw the pictures of a study in `out` from the rows that lie there. These stay as they are, and so does what is
    said of the code that made them: a stale study is stale still."""
    svg = out / f"{name}.svg"
    if not (svg.is_file() and svg.with_suffix(".csv").is_file()):
        raise ValueError(f"{name}: expected rows and a picture of them in {out}, got none; `--full` makes both")
    made = STAMP.search(svg.read_text(encoding="utf-8"))
    if made is None:
        raise ValueError(f"{svg}: expected a stamp of the code that made its rows, got none")
    runner.draw(name, out, made[0])
