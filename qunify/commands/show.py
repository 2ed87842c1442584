"""`qunify show`: everything about one method, and what it teaches at one small token."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from qunify import terminal
from qunify.commands import one_token, settings
from qunify.commands.base import Command
from qunify.commands.one_token import LABEL, TOKENS

if TYPE_CHECKING:
    from qunify.qmap import QMap

SIMPLEX = {
    "always": "always: the unit target is a distribution",
    "sometimes": "sometimes: at some tokens an entry of the unit target is negative",
    "never": "never: the unit target always has a negative entry",
}


class Show(Command):
    help = "show one method: formulas, parameters, and the target it teaches"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a method, as `qunify list` names it")
        settings.add_set(parser)
        parser.add_argument("--derive", action="store_true", help="derive the pulls from the loss, step by step")

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        (m,) = settings.methods([args.name], args.set)
        if args.derive:
            return {**_facts(m), "derivation": _derivation(m)}
        return {
            **_facts(m),
            "properness": _properness(m),
            "example": one_token.example(m),
            "curve": one_token.curve(m),
        }

    def render(self, data: dict[str, Any]) -> str:
        if "derivation" in data:
            return _derivation_page(data)
        example = data["example"]
        blocks: list[Any] = [
            terminal.heading(f"{data['id']} · {data['title']} · {data['family']}"),
            _sentence(data["summary"]),
            "",
            terminal.pairs(_fact_lines(data)),
            "",
            terminal.heading("At one token"),
            terminal.indented(one_token.stated(data["needs"])),
            "",
        ]
        if data["shift_invariant"]:
            unit = example["gauges"]["unit"]
            blocks += [*_target_table(example), "", "  p next to Q in the unit gauge"]
            blocks += terminal.paired_bars(
                list(TOKENS), ("p", "Q"), list(zip(example["p"], unit["target"], strict=True))
            )
        else:
            blocks += [
                *_gradient_table(example),
                "",
                terminal.indented("No target: the gradient does not sum to zero."),
            ]
        curve = data["curve"]
        if curve["weight"]:
            blocks += ["", terminal.indented("Weight w in the gradient w (p − δ), as u = p_y goes from 0 to 1")]
        else:
            pull = "−g_y = Q_y − u" if data["shift_invariant"] else "−g_y"
            blocks += ["", terminal.indented(f"Pull on the label's logit, {pull}, as u = p_y goes from 0 to 1")]
        blocks += terminal.curve(curve["weight"] or curve["pull"], axis=("0", "u", "1"))
        return terminal.text(*blocks)


def _facts(m: QMap) -> dict[str, Any]:
    from qunify.qmap import range_text

    return {
        "id": m.name,
        "title": m.title,
        "summary": m.summary,
        "family": m.family,
        "loss": m.loss_text,
        "formula": m.formula,
        "pulls": m.pulls_text,
        "parameters": [
            {
                "name": f.name,
                "value": getattr(m, f.name),
                "default": f.default,
                "range": range_text(f),
                "doc": f.metadata["doc"],
            }
            for f in dataclasses.fields(m)  # type: ignore[arg-type]
        ],
        "needs": list(m.needs or ()),
        "link": m.link,
        "simplex": m.simplex,
        "shift_invariant": m.shift_invariant,
        "source": m.source,
        "release": m.release,
    }


def _properness(m: QMap) -> dict[str, Any]:
    from qunify import notation
    from qunify.properness import is_proper

    v = is_proper(m)
    names = ("unbiased", "proved", "attracts", "proper", "strict", "direction", "bias")
    formula = None if v.formula is None else notation.text(v.formula)
    return {"verdict": str(v), **{name: getattr(v, name) for name in names}, "formula": formula}


def _derivation(m: QMap) -> dict[str, Any]:
    from qunify.derivation import derive

    found = derive(m)
    return {
        "proved": found.proved,
        "holds_off_ties": found.holds_off_ties,
        "reason": found.reason,
        "steps": [step._asdict() for step in found.steps],
    }


def _derivation_page(data: dict[str, Any]) -> str:
    found = data["derivation"]
    blocks: list[Any] = [terminal.heading(f"{data['id']} · {data['title']} · from the loss to its pulls")]
    for step in found["steps"]:
        if step["words"]:
            blocks += ["", f"{step['words']}:"]
        blocks.append(terminal.indented(step["text"]))
    blocks += ["", "Proved." if found["proved"] else f"Not proved: {found['reason']}."]
    return terminal.text(*blocks)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _fact_lines(data: dict[str, Any]) -> list[tuple[str, str]]:
    at_defaults = all(p["value"] == p["default"] for p in data["parameters"])
    simplex = SIMPLEX[data["simplex"]] + ("" if at_defaults else " (at the default parameters)")
    lines = [("Loss", data["loss"]), ("Pulls", data["pulls"])]
    for i, p in enumerate(data["parameters"]):
        given = "" if p["value"] == p["default"] else f" (default {p['default']})"
        lines.append(("" if i else "Parameters", f"{p['name']} = {p['value']}{given}, {p['range']}: {p['doc']}"))
    if not data["parameters"]:
        lines.append(("Parameters", "none"))
    lines += [
        ("Contexts", ", ".join(data["needs"]) or "none"),
        ("Link", data["link"]),
        ("Simplex", simplex if data["shift_invariant"] else "no target"),
        ("At p = truth", data["properness"]["verdict"]),
        *([("Drift b_k", data["properness"]["formula"])] if data["properness"]["formula"] else []),
        ("Source", data["source"]),
    ]
    return lines + ([("Release", data["release"])] if data["release"] else [])


def _token(k: int) -> str:
    return f"{TOKENS[k]} (label)" if k == LABEL else TOKENS[k]


def _gradient_table(example: dict[str, Any]) -> list[str]:
    p, gradient = example["p"], example["gradient"]
    rows = [["", "p", "gradient"]]
    rows += [[_token(k), terminal.number(p[k]), terminal.number(gradient[k])] for k in range(len(TOKENS))]
    rows.append(["sum", f"{sum(p):.3g}", f"{sum(gradient):.3g}"])
    return ["  " + line for line in terminal.columns(rows, right=True)]


def _target_table(example: dict[str, Any]) -> list[str]:
    gauges = example["gauges"]
    rows = [["", "p", *(f"Q {name}" for name in gauges)]]
    for k in range(len(TOKENS)):
        values = [example["p"][k], *(gauge["target"][k] for gauge in gauges.values())]
        rows.append([_token(k), *map(terminal.number, values)])
    for symbol, key in (("trust γ", "trust"), ("scale s", "scale")):
        rows.append([symbol, "", *(terminal.number(g[key]) for g in gauges.values())])
    return ["  " + line for line in terminal.columns(rows, right=True)]
