"""The page stands alone, says what it was given, and lets nothing through."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from qunify import pictures

MALICIOUS = "<script>alert('x')</script>\"><img src=x onerror=y>"


class Tags(HTMLParser):
    """Every tag with its attributes, and whether each is closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "source"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page() -> pictures.Page:
    table = pd.DataFrame(
        {"name": [MALICIOUS, "b"], "value": [-0.123456, float("nan")], "good": [True, False], "n": [3, 12000]}
    )
    one = pictures.Section("one", MALICIOUS, MALICIOUS, MALICIOUS, b"<svg/>", MALICIOUS, table)
    two = pictures.Section("two", "A second question?", "Plain.")
    return pictures.Page(MALICIOUS, ("First.", "Second."), (one, two), (MALICIOUS,))


def test_text_is_escaped_everywhere(page: pictures.Page) -> None:
    written = pictures.html(page)
    assert "<script" not in written
    assert written.count("&lt;script&gt;") == 9  # title twice, contents, heading, text, caption, alt, cell, footer
    assert [tag for tag, _ in Tags(written).seen].count("img") == 1


def test_every_tag_is_closed(page: pictures.Page) -> None:
    assert Tags(pictures.html(page)).open == []


def test_nothing_is_loaded_from_outside(page: pictures.Page) -> None:
    written = pictures.html(page)
    for tag, attributes in Tags(written).seen:
        assert tag not in {"script", "link", "iframe"}
        for key in ("src", "href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#"))
    assert "url(" not in written
    assert "@import" not in written


def test_pictures_have_words_and_links_have_places(page: pictures.Page) -> None:
    seen = Tags(pictures.html(page)).seen
    assert all(attributes.get("alt") for tag, attributes in seen if tag == "img")
    places = {attributes["id"] for _, attributes in seen if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in seen if tag == "a"}
    assert links == {"one", "two"} <= places


def test_cells_are_short_and_plain(page: pictures.Page) -> None:
    written = pictures.html(page)
    for cell in ('number">−0.123<', 'number">–<', 'words">yes<', 'words">no<', 'number">12000<'):
        assert cell in written


def test_what_rounding_leaves_of_nothing_is_nothing() -> None:
    table = pd.DataFrame({"gap": [0.25, -9.52e-19], "deviation": [2e-16, 1e-16]})
    written = pictures.html(pictures.Page("t", (), (pictures.Section("one", "h", "t", table=table),)))
    assert re.findall(r'number">([^<]*)</td>', written) == ["0.25", "2e−16", "0", "1e−16"]


def test_it_reads_on_a_phone_and_on_paper(page: pictures.Page) -> None:
    written = pictures.html(page)
    assert 'name="viewport"' in written
    assert "@media print" in written


def test_the_file_is_whole_and_leaves_nothing_beside_it(page: pictures.Page, tmp_path: Path) -> None:
    path = pictures.write(page, tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == pictures.html(page)
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
