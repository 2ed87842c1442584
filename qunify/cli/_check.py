"""`qunify check A B`: does my loss do what this method does? The exit status serves one's CI."""

from __future__ import annotations

import argparse
from typing import Any

from qunify.cli._base import Command, UsageError
from qunify.cli._compare import described, text
from qunify.cli._settings import NAME, add_set, methods


class Check(Command):
    help = "compare a loss function of your own with a method; exit 1 below the required level"
    example = "check my_losses.py:mine dft --require directional"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("a", metavar="A", help=f"your loss: {NAME}")
        parser.add_argument("b", metavar="B", help="the method that it should be, named in the same way")
        parser.add_argument(
            "--require",
            default="identical",
            choices=("identical", "scaled", "directional", "optimum"),
            help="the level that must hold (default: identical)",
        )
        add_set(parser)

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        from qunify.comparison import compare

        a, b = methods([args.a, args.b], args.set)
        try:
            verdict = compare(a, b)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return described(verdict) | {"required": args.require, "passed": verdict.meets(args.require)}

    def render(self, data: dict[str, Any]) -> str:
        mark = "passed" if data["passed"] else "failed"
        return f"{text(data)}\n  {mark}: {data['required']} required"

    def status(self, data: dict[str, Any]) -> int:
        return 0 if data["passed"] else 1
