"""`qunify plot`: one picture of one or more methods, as a file."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from qunify.cli._base import Command, UsageError, output, write, wrote
from qunify.cli._settings import NAME, add_set, methods

FORMATS = (".png", ".svg", ".pdf")


class Plot(Command):
    help = "draw the targets and weights of methods into a file"
    example = "plot sft dft focal --out three.pdf"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("names", nargs="+", metavar="NAME", help=f"a method: {NAME}")
        add_set(parser)
        parser.add_argument("--out", type=Path, metavar="FILE", help="a .png, .svg or .pdf (default: NAME.png, here)")

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        out = output(args.out or Path("-".join(name.rpartition(":")[2] for name in args.names) + ".png"), FORMATS)
        maps = methods(args.names, args.set)
        from qunify import plots

        try:
            figure = plots.overview(maps)
        except ValueError as error:
            raise UsageError(str(error)) from None
        drawn = io.BytesIO()
        figure.savefig(drawn, format=out.suffix[1:].lower())
        shown = [{"id": m.name, "parameters": m.params} for m in maps]
        return {**write(out, drawn.getvalue()), "methods": shown}

    def render(self, data: dict[str, Any]) -> str:
        return wrote(data)
