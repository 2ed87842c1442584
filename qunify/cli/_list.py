"""`qunify list`: the catalogue."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from qunify.cli import _terminal as terminal
from qunify.cli._base import Command, UsageError

COLUMNS = ("id", "title", "family", "needs", "parameters")


class List(Command):
    help = "list the methods of the catalogue"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--family", metavar="F", help="only this family, e.g. gates or distillation")

    def compute(self, args: argparse.Namespace) -> list[dict[str, Any]]:
        import qunify

        try:
            names = qunify.names(args.family)
        except KeyError as error:
            raise UsageError(error.args[0]) from None
        return [
            {"id": m.name, "title": m.title, "family": m.family, "needs": list(m.needs), "parameters": m.params}
            for m in map(qunify.get, names)
        ]

    def render(self, data: list[dict[str, Any]]) -> str:
        rows = [[d["id"], d["title"], d["family"], ", ".join(d["needs"]), _settings(d["parameters"])] for d in data]
        return terminal.table(COLUMNS, rows, pretty=sys.stdout.isatty())


def _settings(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())
