"""`qunify identify`: what is this loss?"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from qunify.cli import _terminal as terminal
from qunify.cli._base import Command, UsageError
from qunify.cli._settings import NAME, method_of

if TYPE_CHECKING:
    from qunify.comparison import Match


class Identify(Command):
    help = "say which method a loss function of your own is, or comes near to"
    example = "identify my_losses.py:mine"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("function", metavar="A", help=f"a function (logits, labels, …) or a method: {NAME}")
        parser.add_argument(
            "--contexts",
            default="",
            metavar="A,B",
            help="the context names it takes; by default those of its signature",
        )
        parser.add_argument("--top", type=int, default=5, metavar="N", help="how many matches to print (default: 5)")

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        loss_fn = method_of(args.function)
        import qunify

        contexts = tuple(name.strip() for name in args.contexts.split(",") if name.strip())
        try:
            found = qunify.identify(loss_fn, contexts, top=args.top)
        except ValueError as error:
            raise UsageError(" ".join(str(error).split())) from error
        d = found.diagnosis
        return {
            "function": args.function,
            "verdict": found.verdict,
            "matches": [_plain(m) for m in found],
            "sum": [{"id": m.name, "parameters": m.params, "factor": c} for c, m in found.sum.terms]
            if found.sum
            else None,
            "diagnosis": {
                "sentences": d.sentences(),
                "reduction": d.reduction,
                "tokens_interact": d.apart,
                "contexts_used": list(d.used),
                "contexts_unused": list(d.unused),
                "silent": d.silent,
                "shift_invariant": d.shift_invariant,
                "violation": d.violation,
                "share_in_simplex": d.in_simplex if math.isfinite(d.in_simplex) else None,
                "gate": d.gate,
                "weight_depends_on_u_alone": d.on_u_alone,
                "jumps": [j._asdict() for j in d.jumps],
                "curve": {"u": list(d.curve[0]), "weight": list(d.curve[1])} if d.curve else None,
            },
        }

    def render(self, data: dict[str, Any]) -> str:
        blocks: list[Any] = [terminal.heading(data["verdict"])]
        also = data["matches"][0 if data["sum"] else 1 :]
        if also:
            blocks += ["", "Also", *(terminal.indented(m["sentence"]) for m in also)]
        blocks += ["", "Measured", *(terminal.indented(s) for s in data["diagnosis"]["sentences"])]
        curve = data["diagnosis"]["curve"]
        if curve:
            blocks += ["", terminal.indented("Weight w in the gradient w (p − δ), as u = p_y goes from 0 to 1")]
            blocks += terminal.curve(curve["weight"], axis=("0", "u", "1"))
        return terminal.text(*blocks)


def _plain(m: Match) -> dict[str, Any]:
    """Numbers as numbers, expressions in V as text."""

    def plain(x: Any) -> Any:
        return x if isinstance(x, (int, float, str)) else str(x)

    return {
        "id": m.name,
        "parameters": {k: plain(v) for k, v in m.params.items()},
        "level": m.level,
        "error": m.error,
        "factor": plain(m.factor),
        "share": m.share,
        "weights": list(m.weights),
        "where": m.where,
        "elsewhere": _plain(m.elsewhere) if m.elsewhere else None,
        "sentence": str(m),
    }
