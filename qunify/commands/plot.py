"""`qunify plot`: one picture of one or more methods, as a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from qunify.commands import settings
from qunify.commands.base import Command, UsageError, output

FORMATS = (".png", ".svg", ".pdf")


class Plot(Command):
    help = "draw the targets and weights of methods into a file"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("names", nargs="+", metavar="NAME", help="a method, as `qunify list` names it")
        settings.add_set(parser)
        parser.add_argument("--out", type=Path, metavar="FILE", help="a .png, .svg or .pdf (default: NAME.png, here)")

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        out = output(args.out or Path("-".join(args.names) + ".png"), FORMATS)
        maps = settings.methods(args.names, args.set)
        from qunify import plots

        try:
            figure = plots.overview(maps)
        except ValueError as error:
            raise UsageError(str(error)) from None
        unfinished = out.with_name(f".{os.getpid()}.{out.name}")
        try:
            with plots.style():
                figure.savefig(unfinished)
            unfinished.replace(out)
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from None
        finally:
            unfinished.unlink(missing_ok=True)
        return {"file": str(out), "methods": [{"id": m.name, "parameters": m.params} for m in maps]}

    def render(self, data: dict[str, Any]) -> str:
        return f"wrote {data['file']}"
