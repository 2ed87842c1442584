"""`qunify check MODULE:FUNCTION NAME`: does my loss do what this method does? The exit status serves one's CI."""

from __future__ import annotations

import argparse
from typing import Any

from qunify.commands import compare, functions, settings
from qunify.commands.base import Command, UsageError


class Check(Command):
    help = "compare a loss function of your own with a method; exit 1 below the required level"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("function", metavar="MODULE:FUNCTION", help="takes (logits, labels, **contexts by name)")
        parser.add_argument("name", metavar="NAME", help="id of a method")
        parser.add_argument(
            "--require",
            default="identical",
            choices=("identical", "scaled", "directional", "optimum"),
            help="the level that must hold (default: identical)",
        )
        settings.add_set(parser)

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        from qunify import equivalence

        (m,) = settings.methods([args.name], args.set)
        try:
            verdict = equivalence.compare(functions.load(args.function), m)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return compare.described(verdict) | {"required": args.require, "passed": verdict.meets(args.require)}

    def render(self, data: dict[str, Any]) -> str:
        mark = "passed" if data["passed"] else "failed"
        return f"{compare.text(data)}\n  {mark}: {data['required']} required"

    def status(self, data: dict[str, Any]) -> int:
        return 0 if data["passed"] else 1
