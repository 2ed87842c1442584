"""What other people's losses are: `identify` on the code that libraries ship, against what its name says."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pandas as pd
import sympy as sp
from matplotlib.figure import Figure

import qunify as qu
from analyses.kit import cache, runner
from analyses.kit.study import Study
from analyses.studies.peers.losses import Peer, peers
from qunify import plots
from qunify.comparison import Match, Matches

#: Where the columns of the picture begin, in inches.
COLUMNS = {0.25: "library", 1.9: "function", 4.6: "as called", 7.2: "its name says", 9.75: "it is"}

MISCOUNTED = "as named, miscounted"

#: What a comparison of name and finding can say, and the colour it has.
AGREEMENT = {
    "as named": "#0072B2",
    "as named, scaled": "#56B4E9",
    MISCOUNTED: "#CC79A7",
    "other parameters": "#E69F00",
    "another method": "#D55E00",
    "has another name here": "#009E73",
    "not in the catalogue": "#7F7F7F",
}


def rows(full: bool) -> pd.DataFrame:
    """One row per loss. It needs the libraries and takes minutes, so that only the full run makes it; the quick one
    reads what that one found."""
    if not full:
        return runner.read("peers", runner.FIGURES)
    found = [cache.part("peers", f"{i:02d}", functools.partial(row, peer)) for i, peer in enumerate(peers())]
    return pd.concat(found, ignore_index=True)


def row(peer: Peer) -> pd.DataFrame:
    found = qu.identify(peer.loss, peer.contexts)
    best = closest(found, peer.claim)
    return pd.DataFrame(
        [
            {
                "library": peer.library,
                "library_version": "" if peer.library == "known bug" else metadata.version(peer.library),
                "function": peer.function,
                "setting": peer.setting,
                "claim": peer.claim + (_listed(peer.params) if peer.claim else ""),
                "found": best.name + _listed(best.params) if best else "",
                "level": best.level if best else "none",
                "factor": "" if best is None else str(best.factor),
                "error": "" if best is None else f"{best.error:.2g}",
                "agreement": agreement(peer, best, " ".join(found.diagnosis.notes)),
                "reduction": found.diagnosis.reduction,
                "verdict": found.verdict,
                "notes": " ".join(found.diagnosis.sentences()),
            }
        ]
    )


def closest(found: Matches, claim: str) -> Match | None:
    """The best match, among equals the one that is claimed; None below `directional`."""
    exact = [m for m in found if m.level == found[0].level and m.level != "near"] if found else []
    return next((m for m in exact if m.name == claim), exact[0] if exact else None)


def agreement(peer: Peer, best: Match | None, notes: str = "") -> str:
    """How the finding and the name go together, in a word of AGREEMENT."""
    if best is None or best.level == "directional":
        return "not in the catalogue"
    if best.name != peer.claim:
        return "another method" if peer.claim else "has another name here"
    if "the accumulation bug" in notes:
        return MISCOUNTED
    if any(not _same(best.params.get(k), v) for k, v in peer.params.items()):
        return "other parameters"
    return "as named" if best.level == "identical" else "as named, scaled"


def _same(found: Any, claimed: Any) -> bool:
    if isinstance(claimed, str) or isinstance(found, str | sp.Basic):
        return bool(found == claimed)
    return found is not None and abs(found - claimed) < 1e-3


def _listed(params: Any) -> str:
    shown = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items()]
    return f"({', '.join(shown)})" if shown else ""


def draw(table: pd.DataFrame) -> Figure:
    table = table.astype(object).fillna("")
    height = 0.27 * len(table) + 1.5
    with plots.style():
        figure = Figure(figsize=(12.5, height))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_xlim(0, 12.5)
        ax.set_ylim(height, 0)
        ax.set_axis_off()
        ax.text(0.25, 0.35, "What the losses of installed libraries are", fontsize=14, va="center")
        _key(figure, table)
        for x, heading in COLUMNS.items():
            ax.text(x, 1.15, heading, fontsize=9.5, color=plots.SOFT, va="center")
        previous = ""
        for i, told in enumerate(table.to_dict("records")):
            y = 1.45 + 0.27 * i
            if told["library"] != previous:
                ax.plot([0.25, 12.3], [y - 0.135] * 2, color=plots.FAINT, lw=0.8)
                ax.text(0.25, y, told["library"], fontsize=9.5, fontweight="bold", va="center")
                previous = told["library"]
            _, function, called, claim, found = COLUMNS
            ax.text(function, y, _cut(told["function"].rpartition(".")[2], 2.6), fontsize=9, va="center")
            ax.text(called, y, _cut(told["setting"].replace("distillation_", ""), 2.5), fontsize=9, va="center")
            ax.text(claim, y, _cut(told["claim"] or "–", 2.3), fontsize=9, va="center")
            ax.plot(found - 0.15, y, marker="s", color=AGREEMENT[told["agreement"]], markersize=8)
            ax.text(found, y, _cut(_finding(told), 3.2), fontsize=8.5, va="center")
    return figure


def _finding(told: Mapping[Any, Any]) -> str:
    if told["agreement"] == "not in the catalogue":
        return "a gate of its own" if "It is a gate" in told["notes"] else "none of the catalogue"
    factor = "" if told["factor"] in ("1", "1.0") else f"{_short(told['factor'])} × "
    return factor + told["found"].replace("*", "·")


def _short(factor: str) -> str:
    return f"{float(factor):.4g}" if re.fullmatch(r"[\d.e-]+", factor) else factor


def _cut(text: str, inches: float) -> str:
    most = int(inches / 0.075)
    return text if len(text) <= most else text[: most - 1] + "…"


def _key(figure: Figure, table: pd.DataFrame) -> None:
    counts = Counter(table["agreement"])
    ax, x = figure.axes[0], 0.25
    for word, colour in AGREEMENT.items():
        if counts[word]:
            ax.plot(x + 0.08, 0.75, marker="s", color=colour, markersize=8)
            ax.text(x + 0.2, 0.75, f"{word} ({counts[word]})", fontsize=9, va="center")
            x += 0.68 + 0.063 * len(word)


def digest(table: pd.DataFrame) -> pd.DataFrame:
    shown = {"library": "Library", "function": "Function", "setting": "As called", "claim": "Its name says"}
    shown |= {"found": "It is", "level": "Level", "agreement": "Agreement"}
    return table[list(shown)].astype(object).fillna("").rename(columns=shown)


def see(table: pd.DataFrame) -> str:
    table = table.astype(object).fillna("")
    shipped = table[table["library"] != "known bug"]
    counts = Counter(shipped["agreement"])
    named = counts["as named"] + counts["as named, scaled"]
    bugs = table[table["library"] == "known bug"]
    said = "; ".join(
        f"{bug['function'].rpartition('.')[2]} is {_finding(bug)}, {bug['agreement']}"
        for bug in bugs.to_dict("records")
    )
    return (
        f"Of {len(shipped)} losses as {shipped['library'].nunique()} libraries ship them, {named} are what their name "
        f"says, {counts['other parameters']} have other parameters, {counts['another method']} are another method, "
        f"{counts['has another name here']} have names of their own for methods of the catalogue, and "
        f"{counts['not in the catalogue']} are none of it. {len(bugs)} known bugs are told apart: {said}."
    )


STUDY = Study(
    name="peers",
    title="What `identify` says of other people's code, beside what its name says",
    question="Are the losses in released libraries what their names say?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
