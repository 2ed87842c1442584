"""What every page of the built site must be: alone in the world, and with links that lead somewhere.

`python -m tests.check_site FOLDER` says what is wrong, a line each, and exits 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes by which a page loads something, by tag; "*" is any tag.
LOADS = {
    "*": ("src", "srcset", "poster", "background", "data-src"),
    "link": ("href",),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
#: Addresses in style sheets and in scripts that would be loaded.
IN_CSS = re.compile(r"""url\(\s*["']?([^"')\s]+)|@import\s+["']([^"']+)""")
IN_SCRIPT = re.compile(
    r"""(?:\bimport\s*(?:[\w{},*\s]+?\bfrom\s*)?\(?|\bfetch\(|\bimportScripts\(|\bnew\s+Worker\()\s*["'`]((?:https?:)?//[^"'`]+)"""
)
#: The addresses in a srcset: between them lie commas, and one may hold commas itself.
SOURCES = re.compile(r"(?:^|,)\s*(\S*[^\s,])(?:\s[^,]*)?")
#: Pages that scripts fill while they are looked at, so that their anchors cannot be read from the file.
SELF_MADE = ("explorer.html",)


class Page(HTMLParser):
    """What a page loads, what it links to, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self._inside = ""
        self.feed(text)

    @classmethod
    def at(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        for key in (*LOADS["*"], *LOADS.get(tag, ())):
            if key in given and not (tag == "link" and given.get("rel") == "canonical"):
                self.loaded += SOURCES.findall(given[key]) if key == "srcset" else given[key].split()[:1]
        if tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])
        self.loaded += addresses(given.get("style", ""), IN_CSS)
        self._inside = tag if tag in ("style", "script") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.loaded += addresses(data, {"style": IN_CSS, "script": IN_SCRIPT}[self._inside])


def addresses(text: str, pattern: re.Pattern[str]) -> list[str]:
    return [next(filter(None, found)) for found in (m.groups() for m in pattern.finditer(text))]


def problems(site: Path) -> list[str]:
    """What is wrong with a built site, a line each."""
    site = site.resolve()
    with ProcessPoolExecutor(2) as pool:
        paths = sorted([*site.rglob("*.html"), *site.rglob("*.svg")])
        read = dict(zip(paths, pool.map(Page.at, paths, chunksize=8), strict=True))
    pages = {path: page for path, page in read.items() if path.suffix == ".html"}
    found = [] if pages else [f"{site}: no page"]
    for path, page in pages.items():
        for kind, targets in (("loads", page.loaded), ("links to", page.links)):
            said = (_fault(path, target, kind == "loads", site, pages) for target in dict.fromkeys(targets))
            found += [f"{path.relative_to(site)}: {kind} {fault}" for fault in said if fault]
        if "&lt;Figure size" in path.read_text(encoding="utf-8"):
            found.append(f"{path.relative_to(site)}: shows the text of a figure in place of the figure")
    for path, pattern in _others(site):
        text = path.read_text(encoding="utf-8")
        targets = addresses(text, pattern)
        if path.suffix == ".svg":
            targets += read[path].loaded
        said = (_fault(path, target, True, site, pages) for target in dict.fromkeys(targets))
        found += [f"{path.relative_to(site)}: loads {fault}" for fault in said if fault]
    return found


def _others(site: Path) -> Iterator[tuple[Path, re.Pattern[str]]]:
    for suffix, pattern in ((".css", IN_CSS), (".js", IN_SCRIPT), (".svg", IN_CSS)):
        for path in sorted(site.rglob(f"*{suffix}")):
            yield path, pattern


def _fault(at: Path, target: str, loads: bool, site: Path, pages: dict[Path, Page]) -> str:
    """What is wrong with an address, or nothing."""
    parts = urlsplit(target)
    if parts.scheme == "data" or (not loads and parts.scheme in ("http", "https", "mailto")):
        return ""
    if parts.scheme or parts.netloc:
        return f"{target}, which is elsewhere" if loads else f"{target}, which a page should not"
    path = at if not parts.path else (at.parent / unquote(parts.path)).resolve()
    path = path / "index.html" if path.is_dir() else path
    if not path.is_relative_to(site) or not path.is_file():
        return f"{target}, which is not there"
    anchor = unquote(parts.fragment)
    if not loads and anchor and path in pages and path.name not in SELF_MADE and anchor not in pages[path].anchors:
        return f"{target}, an anchor that is not there"
    return ""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tests.check_site FOLDER", file=sys.stderr)
        return 2
    found = problems(Path(arguments[0]))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
