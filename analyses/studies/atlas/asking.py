"""What `identify` says of one loss that a library ships, and what the loss does with a batch: a row of the table."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import sympy as sp
import torch

import qunify as qu
from analyses.studies.atlas.shipped import Library, Shipped
from analyses.studies.atlas.treatment import treatment
from qunify.comparison import Match, Matches

#: Levels beside those of a match: the loss is a sum of two entries, or none; it is random; it cannot be tried.
SUM, UNKNOWN, RANDOM, UNASKABLE = "sum", "none", "random", "cannot be asked"

#: What a comparison of name and finding can say.
NAMED, SCALED, MISCOUNTED, NEARLY = "as named", "as named, scaled", "as named, miscounted", "near its name"
OTHERWISE, ANOTHER, RENAMED, OURS = "other parameters", "another method", "has another name here", "a sum of methods"
NONE = "not in the catalogue"


def row(library: Library, shipped: Shipped) -> dict[str, Any]:
    torch.manual_seed(0)
    known = {
        "library": library.name,
        "library_version": metadata.version(library.name),
        "where": shipped.where,
        "setting": shipped.setting,
        "claim": shipped.claim + listed(shipped.params) if shipped.claim else "",
        "says": shipped.says or (qu.get(shipped.claim).title if shipped.claim else ""),
        "contexts": " ".join(shipped.contexts),
        "stand_ins": " ".join((*library.stubs, *library.bare)),
    }
    try:
        found = qu.identify(shipped.on_rows, shipped.contexts)
    except ValueError as error:
        level = RANDOM if "two calls" in str(error) else UNASKABLE
        return known | _nothing(level, str(error).replace("on_rows: ", ""))
    best = closest(found, shipped.claim)
    near = found[0] if found and best is None and not found.sum else None
    shown = best or near
    said = [n for n in found.diagnosis.notes if n.startswith("It computes in")]
    return known | {
        "method": shown.name if shown else "",
        "found": shown.name + listed(shown.params) if shown else _terms(found),
        "level": shown.level if shown else SUM if found.sum else UNKNOWN,
        "factor": _number(shown.factor) if shown else "",
        "error": f"{shown.error:.2g}" if shown else "",
        "share": f"{shown.share:.2g}" if shown else "",
        "agreement": agreement(shipped, found, best),
        "precision": said[0].split()[3].rstrip(":") if said else "float64",
        **treatment(shipped)._asdict(),
        "verdict": found.verdict.replace("on_rows", "it", 1),
        "notes": " ".join(found.diagnosis.sentences()),
    }


def _nothing(level: str, why: str) -> dict[str, Any]:
    empty = ("method", "found", "factor", "error", "share", "precision", "normaliser", "ignored", "none_kept", "notes")
    return dict.fromkeys(empty, "") | {"level": level, "agreement": level, "verdict": why}


def _number(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def _terms(found: Matches) -> str:
    """The sum that a loss is, without its error; "" if it is none."""
    return str(found.sum).rpartition(" (relative")[0] if found.sum else ""


def closest(found: Matches, claim: str) -> Match | None:
    """The best match, among equals the one that is claimed; None below `directional`."""
    exact = [m for m in found if m.level == found[0].level and m.level != "near"] if found else []
    return next((m for m in exact if m.name == claim), exact[0] if exact else None)


def agreement(shipped: Shipped, found: Matches, best: Match | None) -> str:
    """How the finding and the name go together."""
    if best is not None and best.level in ("weighted", "mostly"):
        return NEARLY if best.name == shipped.claim else NONE
    if best is None or best.level == "directional":
        if found.sum:
            return ANOTHER if shipped.claim else OURS
        near = bool(found) and found[0].name == shipped.claim and found[0].level == "near"
        return NEARLY if near else NONE
    if best.name != shipped.claim:
        return ANOTHER if shipped.claim else RENAMED
    if any("the accumulation bug" in note for note in found.diagnosis.notes):
        return MISCOUNTED
    if any(not _same(best.params.get(k), v) for k, v in shipped.params.items()):
        return OTHERWISE
    return NAMED if best.level == "identical" else SCALED


def _same(found: Any, claimed: Any) -> bool:
    if isinstance(claimed, str) or isinstance(found, str | sp.Basic):
        return bool(found == claimed)
    return found is not None and abs(found - claimed) < 1e-3


def listed(params: Any) -> str:
    shown = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items()]
    return f"({', '.join(shown)})" if shown else ""
