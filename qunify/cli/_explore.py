"""`qunify explore`: the explorer, as one file to open in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qunify.cli._base import Command, output, write


class Explore(Command):
    help = "write a page on which models and targets are moved by hand"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--out",
            type=Path,
            default=Path("explorer.html"),
            metavar="FILE",
            help="an .html file (default: %(default)s)",
        )

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        out = output(args.out, (".html", ".htm"))
        from qunify import explorer

        page = explorer.page().encode()
        write(out, page)
        return {"file": str(out), "bytes": len(page)}

    def render(self, data: dict[str, Any]) -> str:
        return f"wrote {data['file']} ({data['bytes'] / 1000:.0f} kB): open it in a browser"
