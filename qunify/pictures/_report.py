"""One self-contained HTML page: headings, pictures, sentences and tables; no script and no outside address."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from qunify._lib import files
from qunify.pictures._templates import environment


@dataclass(frozen=True)
class Section:
    """One part of a page. Every text is plain and will be escaped; `svg` is a picture file's content."""

    anchor: str  # unique in the page; letters, digits, - and _
    heading: str
    text: str  # what to see
    title: str = ""  # caption of the picture
    svg: bytes | None = None
    alt: str = ""  # what the picture shows, for those who cannot see it
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Page:
    title: str
    lead: Sequence[str]  # sentences of the introduction
    sections: Sequence[Section]
    footer: Sequence[str] = ()


def html(page: Page) -> str:
    """The page as one string."""
    templates = environment()
    templates.filters |= {"data_url": _data_url, "columns": _columns, "records": _records, "cell": _cell}
    return templates.get_template("report.html.j2").render(page=page)


def write(page: Page, path: Path) -> Path:
    """Write the page; complete or not at all."""
    return files.write(path, html(page).encode())


def _data_url(svg: bytes) -> str:
    # As an image of its own: inlined side by side, two pictures' ids would clash.
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


#: Below this share of the largest number of its column, a number is what rounding leaves of 0.
ROUNDING = 1e-12


def _records(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    numbers = table.select_dtypes("float")
    plain = table.assign(**{str(c): x.where(x.abs() > ROUNDING * x.abs().max(), 0 * x) for c, x in numbers.items()})
    return list(plain.astype(object).itertuples(index=False, name=None))


def _columns(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Names, and whether to set them as numbers or as words."""
    numeric = table.select_dtypes("number").columns
    return [(str(name), "number" if name in numeric else "words") for name in table.columns]


def _cell(value: Any) -> str:
    """A table cell: three significant digits, yes and no, a dash for what is missing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value + 0.0:.3g}".replace("-", "−")  # no −0
    return "–" if value is None or value is pd.NA else str(value)
