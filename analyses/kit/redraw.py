"""Committed rows drawn again in the present look, where running their study again would take hours."""

from __future__ import annotations

import re
from pathlib import Path

from analyses.kit import runner
from qunify import plots
from qunify._lib import files

#: What the SVG says of the code that made its rows.
STAMP = re.compile(r"(?:full|quick) [0-9a-f]{20}")


def redraw(name: str, out: Path) -> None:
    """Draw the pictures of a study in `out` from the rows that lie there. These stay as they are, and so does what is
    said of the code that made them: a stale study is stale still."""
    svg = out / f"{name}.svg"
    made = STAMP.search(svg.read_text(encoding="utf-8"))
    if made is None:
        raise ValueError(f"{svg}: expected a stamp of the code that made its rows")
    study, table = runner.load(name), runner.read(name, out)
    figure = study.draw(table)
    drawn = {f"{name}.png": figure, **{f"{name}.{one}.png": draw(table) for one, draw in study.more.items()}}
    for file, picture in drawn.items():
        files.write(out / file, plots.render(picture, "png"))
    files.write(svg, plots.render(figure, "svg", note=" ".join([made[0], *runner.beside(name, out)])))
