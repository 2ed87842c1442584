"""`qunify compare A B`: is one method another one?"""

from __future__ import annotations

import argparse
from typing import Any

from qunify.cli._base import Command, UsageError
from qunify.cli._settings import NAME, add_set, methods


class Compare(Command):
    help = "say how two methods are related, with a proof or a token that separates them"
    example = "compare gem temperature_ce --set temperature=0.7"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("a", metavar="A", help=f"a method: {NAME}")
        parser.add_argument("b", metavar="B", help="another")
        parser.add_argument(
            "--alias",
            action="append",
            default=[],
            metavar="CONTEXT=CONTEXT",
            help="count two contexts as one, e.g. reference_logits=teacher_logits",
        )
        add_set(parser)

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        from qunify.comparison import compare

        a, b = methods([args.a, args.b], args.set)
        try:
            return described(compare(a, b, alias=dict(_pair(text) for text in args.alias)))
        except ValueError as error:
            raise UsageError(str(error)) from None

    def render(self, data: dict[str, Any]) -> str:
        return text(data)


def _pair(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise UsageError(f"--alias: expected CONTEXT=CONTEXT, got {text!r}")
    return name, source


def described(verdict: Any) -> dict[str, Any]:
    """An Equivalence as plain data."""
    return {
        "a": verdict.a,
        "b": verdict.b,
        "level": verdict.level,
        "sentence": str(verdict),
        "proved": verdict.proved,
        "factor": None if verdict.factor is None else str(verdict.factor),
        "same_direction": verdict.same_direction,
        "same_optimum": verdict.same_optimum,
        "silent_a": verdict.silent_a,
        "silent_b": verdict.silent_b,
        "steps": [step.latex for step in verdict.steps],
        "argument": [step.plain for step in verdict.steps],
        "ties": list(verdict.ties),
        "witness": None if verdict.witness is None else str(verdict.witness),
        "witness_tokens": [_token(point) for point in verdict.witness.points] if verdict.witness else [],
    }


def _token(point: Any) -> dict[str, Any]:
    """A token of the witness as plain data: probabilities and contexts as fractions, gradients as numbers."""

    def plain(x: Any) -> Any:
        return [*map(str, x)] if isinstance(x, tuple) else str(x)

    return {
        "p": plain(point.probs),
        "label": point.label,
        "contexts": {name: plain(x) for name, x in point.context.items()},
        "gradient_a": list(point.gradient_a),
        "gradient_b": list(point.gradient_b),
    }


def text(data: dict[str, Any]) -> str:
    lines = [
        data["sentence"],
        f"  same direction  {_yes(data['same_direction'])}",
        f"  same optimum    {_yes(data['same_optimum'])}",
    ]
    lines += [f"  {name} is silent at tokens where the other teaches" for name in _silent(data)]
    lines += ["  Argument", *(f"    {step}" for step in data["argument"])] if data["argument"] else []
    if data["witness"]:
        lines.append(f"  Witness, {data['witness']}")
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _silent(data: dict[str, Any]) -> list[str]:
    return [data[side] for side in ("a", "b") if data[f"silent_{side}"]]
