"""The explorer: one page on which models and targets are moved by hand. Its formulas are the catalogue's, traced."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from typing import Any

import jinja2

import qunify
from qunify import catalogue, plots
from qunify.explorer._writer import catalogue_script
from qunify.maps import QMap
from qunify.token import CONTEXTS, MOST_TERMS

NEAREST = 1e-6  # how near the open end of a range may be approached


def shown() -> dict[str, type[QMap]]:
    """The methods that the page has, by id: those that look at one position, as it does."""
    return {name: cls for name, cls in catalogue.ENTRIES.items() if not cls.pools}


def page() -> str:
    """The whole page as HTML: it loads nothing from anywhere."""
    template = jinja2.Template(_asset("page.html.j2"), keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    data = {name: about(cls()) for name, cls in shown().items()}
    return template.render(
        version=qunify.__version__,
        style=_asset("style.css"),
        runtime=_asset("runtime.js"),
        formulas=catalogue_script(shown()),
        data=json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
        app=_asset("app.js"),
    )


def about(m: QMap) -> dict[str, Any]:
    """What the page says of a method, and how it draws it."""
    line = plots.line(m.name)
    return {
        "name": m.name,
        "title": m.title,
        "summary": m.summary,
        "family": m.family,
        "loss": m.loss_text,
        "pulls": m.pulls_text,
        "source": m.source,
        "needs": [CONTEXTS[name] for name in m.needs],
        "shift_invariant": m.shift_invariant,
        "colour": line.colour,
        "dash": " ".join(f"{2 * x:g}" for x in line.dash[1]) if isinstance(line.dash, tuple) else "none",
        "params": [_parameter(f) for f in m.parameters()],
    }


def _parameter(f: dataclasses.Field[Any]) -> dict[str, Any]:
    """A parameter's default and range, and the part of the range that its slider covers."""
    limits, default = f.metadata, f.default
    fact: dict[str, Any] = {"name": f.name, "default": default, "doc": limits["doc"]}
    if limits["choices"]:
        return fact | {"choices": list(limits["choices"])}
    assert isinstance(default, int | float)
    whole = isinstance(default, int)
    least, most = limits["low"], limits["high"]
    if limits["above"] is not None:
        least = limits["above"] + NEAREST
    if limits["below"] is not None:
        most = limits["below"] - NEAREST
    if whole and most is None and default < MOST_TERMS:  # it may count terms, each of which is traced
        most = MOST_TERMS - 1
    reach = 3 * max(abs(default), 1)
    return fact | {
        "integer": whole,
        "least": least,
        "most": most,
        "from": -reach if least is None else least,
        "to": reach if most is None else most,
    }


def _asset(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
