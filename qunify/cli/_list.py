"""`qunify list`: the catalogue, in columns or as a table for a paper."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from qunify.cli import _terminal as terminal
from qunify.cli._base import Command, UsageError

COLUMNS = ("id", "title", "family", "needs", "parameters")


class List(Command):
    help = "list the methods of the catalogue"
    example = "list --family smoothing"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--family", metavar="F", help="only this family, e.g. gates or distillation")
        parser.add_argument(
            "--latex",
            action="store_true",
            help="a table for a paper: loss, pulls, optimum, whether it is proper; of all methods it takes a while",
        )

    def compute(self, args: argparse.Namespace) -> Any:
        import qunify

        try:
            names = qunify.names(args.family)
        except KeyError as error:
            raise UsageError(error.args[0]) from None
        if args.latex:
            return {"latex": _latex(names)}
        return [
            {"id": m.name, "title": m.title, "family": m.family, "needs": list(m.needs), "parameters": m.params}
            for m in map(qunify.get, names)
        ]

    def render(self, data: Any) -> str:
        if isinstance(data, dict):
            return str(data["latex"])
        rows = [[d["id"], d["title"], d["family"], ", ".join(d["needs"]), _settings(d["parameters"])] for d in data]
        return terminal.table(COLUMNS, rows, pretty=sys.stdout.isatty())


def _settings(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _latex(names: Sequence[str]) -> str:
    r"""A longtable (packages longtable, booktabs and amsmath), in ASCII, each method at its default parameters."""
    import torch

    import qunify
    from qunify._lib import html
    from qunify.population import SIMPLEX_TRUTH, closed_form, simplex_context

    lines = [
        r"% needs \usepackage{longtable,booktabs,amsmath,amssymb}; u is the label's probability, p the prediction, z",
        r"% the logits, V their number, eta the truth; sg counts as a constant; a pull w -> D adds w (p - D)",
        r"\begin{longtable}{lllll}",
        r"\toprule Method & Loss & Pulls & Optimum & Proper \\ \midrule \endhead",
    ]
    for m in map(qunify.get, names):
        ends = closed_form(m, torch.tensor(SIMPLEX_TRUTH), **simplex_context(m.needs)) if m.shift_invariant else None
        title, pulls = html.in_ascii(m.title), html.in_ascii(m.pulls_text)
        row = (title, rf"$\displaystyle {m.formula}$", pulls, f"${ends.latex}$" if ends else "--", _proper(m))
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}"])


def _proper(m: Any) -> str:
    from qunify.population import is_proper

    verdict = is_proper(m)
    if verdict.direction == "no target":
        return "no target"
    if verdict.proper:
        return "strictly" if verdict.strict else "not strictly"
    return "no, unbiased" if verdict.unbiased else "no"
