"""`qunify show`: everything about one method, and what it teaches at one small token."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qunify._lib.simple import three_digits
from qunify.cli import _terminal as terminal
from qunify.cli._base import Command, UsageError, output, write, wrote
from qunify.cli._settings import NAME, add_set, methods
from qunify.pictures import LABEL, TOKENS, curve, example, stated

if TYPE_CHECKING:
    from qunify.maps import QMap

SIMPLEX_SENTENCES = {
    "always": "always: the unit target is a distribution",
    "sometimes": "sometimes: at some tokens an entry of the unit target is negative",
    "never": "never: the unit target always has a negative entry",
}

GAUGES_TOLD = (
    "g = s (p − Q): the three Q are points on one ray from p, as the gradient is (unit), by the declared weights "
    "(fixed), and as far as a distribution can go (boundary). γ is the share of Q that is trust in the label."
)


class Show(Command):
    help = "show one method: formulas, parameters, and the target it teaches"
    example = "show target_sft --set eta=0.3"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help=f"a method: {NAME}")
        add_set(parser)
        way = parser.add_mutually_exclusive_group()
        way.add_argument("--derive", action="store_true", help="derive the pulls from the loss, step by step")
        way.add_argument("--html", type=Path, metavar="FILE", help="write its page with pictures, to open in a browser")

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        out = args.html and output(args.html, (".html", ".htm"), "--html")
        (m,) = methods([args.name], args.set)
        try:
            if out:
                return _page(m, out)
            return {**_facts(m), "derivation": _derivation(m)} if args.derive else _numbers(m)
        except ValueError as error:  # what a user's own loss does wrong, in the sentence that names it
            raise UsageError(" ".join(str(error).split())) from None

    def render(self, data: dict[str, Any]) -> str:
        if "file" in data:
            return f"{wrote(data)}: open it in a browser"
        if "derivation" in data:
            return _derivation_page(data)
        example = data["example"]
        blocks: list[Any] = [
            terminal.heading(" · ".join(dict.fromkeys(filter(None, (data["id"], data["title"], data["family"]))))),
            *([_sentence(data["summary"])] if data["summary"] else []),
            "",
            terminal.pairs(_fact_lines(data)),
            "",
            terminal.heading("At one token"),
            terminal.indented(stated(data["needs"])),
            "",
        ]
        if data["shift_invariant"]:
            unit = example["gauges"]["unit"]
            blocks += [*_target_table(example), "", terminal.indented(GAUGES_TOLD)]
            blocks += ["", "  p next to Q in the unit gauge"]
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


def _page(m: QMap, out: Path) -> dict[str, Any]:
    from qunify.pictures import method_page

    return write(out, method_page(m).encode(), "--html")


def _numbers(m: QMap) -> dict[str, Any]:
    facts, properness = _facts(m), _properness(m)
    if properness["direction"] == "no target":  # also of a loss that does not know it
        facts["shift_invariant"] = False
    return {**facts, "properness": properness, "example": example(m), "curve": curve(m)}


def _facts(m: QMap) -> dict[str, Any]:
    from qunify.catalogue import elsewhere, has
    from qunify.pictures import parameters, unit_target

    return {
        "id": m.name,
        "title": m.title,
        "summary": m.summary,
        "family": m.family,
        "loss": m.loss_text,
        "formula": m.formula,
        "pulls": m.pulls_text,
        "parameters": [dataclasses.asdict(p) for p in parameters(m)],
        "elsewhere": elsewhere(m),
        "needs": list(m.needs),
        "link": m.link,
        "simplex": m.simplex if has(m) else unit_target(m),
        "shift_invariant": m.shift_invariant,
        "source": m.source,
        "release": m.release,
    }


def _properness(m: QMap) -> dict[str, Any]:
    from qunify.population import is_proper
    from qunify.symbolic import as_text

    v = is_proper(m)
    names = ("unbiased", "proved", "attracts", "proper", "strict", "direction", "bias")
    formula = None if v.formula is None else as_text(v.formula)
    return {"verdict": str(v), **{name: getattr(v, name) for name in names}, "formula": formula}


def _derivation(m: QMap) -> dict[str, Any]:
    from qunify.symbolic import loss_to_pulls

    try:
        found = loss_to_pulls(m)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return {
        "proved": found.proved,
        "holds_off_ties": found.holds_off_ties,
        "reason": found.reason,
        "steps": [{"words": s.words, "latex": s.latex, "text": s.plain} for s in found.steps],
    }


def _derivation_page(data: dict[str, Any]) -> str:
    found = data["derivation"]
    blocks: list[Any] = [terminal.heading(f"{data['id']} · {data['title']} · from the loss to its pulls")]
    given = data["parameters"]
    numbers = [f"{p['name']} = {p['value']}{' (the default)' * (p['value'] == p['default'])}" for p in given]
    if numbers:
        blocks += ["", f"Letters of parameters are numbers below: {', '.join(numbers)}."]
    for step in found["steps"]:
        if step["words"]:
            blocks += ["", f"{step['words']}:"]
        blocks.append(terminal.indented(step["text"]))
    blocks += ["", "Proved." if found["proved"] else f"Not proved: {found['reason']}."]
    return terminal.text(*blocks)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _fact_lines(data: dict[str, Any]) -> list[tuple[str, str]]:
    simplex = data["simplex"]  # what an entry says of itself, and of any other map what was measured
    if simplex in SIMPLEX_SENTENCES:
        changed = any(p["value"] != p["default"] for p in data["parameters"])
        simplex = SIMPLEX_SENTENCES[simplex] + (" (at the default parameters)" if changed else "")
    lines = [(name, data[name.lower()]) for name in ("Loss", "Pulls") if data[name.lower()]]
    for i, p in enumerate(data["parameters"]):
        given = f" (default {p['default']})" if p["default"] not in (None, p["value"]) else ""
        told = f", {p['range']}: {p['doc']}" if p["range"] else ""
        lines.append(("" if i else "Parameters", f"{p['name']} = {p['value']}{given}{told}"))
    if not data["parameters"]:
        lines.append(("Parameters", "none"))
    lines += [
        *([("Elsewhere", ", ".join(data["elsewhere"]))] if data["elsewhere"] else []),
        ("Contexts", ", ".join(data["needs"]) or "none"),
        ("Link", data["link"]),
        ("Simplex", simplex if data["shift_invariant"] else "no target"),
        ("At p = truth", data["properness"]["verdict"]),
        *([("Drift b_k", data["properness"]["formula"])] if data["properness"]["formula"] else []),
    ]
    return lines + [(name, data[name.lower()]) for name in ("Source", "Release") if data[name.lower()]]


def _token(k: int) -> str:
    return f"{TOKENS[k]} (label)" if k == LABEL else TOKENS[k]


def _gradient_table(example: dict[str, Any]) -> list[str]:
    p, gradient = example["p"], example["gradient"]
    rows = [["", "p", "gradient"]]
    rows += [[_token(k), three_digits(p[k]), three_digits(gradient[k])] for k in range(len(TOKENS))]
    rows.append(["sum", f"{sum(p):.3g}", f"{sum(gradient):.3g}"])
    return ["  " + line for line in terminal.columns(rows, right=True)]


def _target_table(example: dict[str, Any]) -> list[str]:
    gauges = example["gauges"]
    rows = [["", "p", *(f"Q {name}" for name in gauges)]]
    for k in range(len(TOKENS)):
        values = [example["p"][k], *(gauge["target"][k] for gauge in gauges.values())]
        rows.append([_token(k), *map(three_digits, values)])
    for symbol, key in (("trust γ", "trust"), ("scale s", "scale")):
        rows.append([symbol, "", *(three_digits(g[key]) for g in gauges.values())])
    return ["  " + line for line in terminal.columns(rows, right=True)]
