"""`qunify explore`: the explorer, as one file to open in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qunify.cli._base import Command, output, write, wrote


class Explore(Command):
    help = "write a page on which models and targets are moved by hand"
    example = "explore --out explorer.html"

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

        return write(out, explorer.page().encode())

    def render(self, data: dict[str, Any]) -> str:
        return f"{wrote(data)}: open it in a browser"
