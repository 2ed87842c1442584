"""The page of one method, of the catalogue or of a user's own: as Markdown, and as one HTML file that stands alone."""

from __future__ import annotations

import base64
import functools
import re
from typing import Any

import jinja2

import qunify
from qunify import plots
from qunify._lib.simple import three_digits
from qunify.maps import Method
from qunify.pictures import _drawings, _facts, _markdown, _one_token, _words
from qunify.pictures._facts import Facts, Parameter
from qunify.pictures._markdown import code, plain
from qunify.pictures._templates import environment


def method_page(method: Method) -> str:
    """The page that a method of the catalogue has, for any method: one HTML file that loads nothing from elsewhere.

    It has the loss and its pulls, two pictures, the target at one token in three gauges, where training ends, whether
    the loss is proper, what else the method is, and its parameters.

    Parameters
    ----------
    method : str, QMap or callable
        An id of the catalogue, a QMap with the parameters it has, or a loss function `(logits, labels, **contexts)`
        that gives one loss per token.

    Returns
    -------
    str
        HTML, for light and dark screens, for a phone and for paper. Everything that the method says of itself is
        escaped.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        Neither id, QMap nor function; parameters that are symbols; or a loss function that `qunify.induced` refuses.

    Examples
    --------
    >>> half = qunify.design("half", trust=lambda t: t.p_label / 2, residual=lambda t: t.policy)
    >>> "<h1>half</h1>" in method_page(half)
    True
    """
    facts = _facts.of(method)
    pictures = {name: _picture(*shades) for name, shades in drawn(facts).items()}
    body = _markdown.html(markdown(facts), pictures)
    return environment().get_template("method.html.j2").render(facts=facts, body=body, version=qunify.__version__)


def drawn(facts: Facts) -> dict[str, tuple[bytes, bytes]]:
    """The pictures of the page by name: an SVG file for light pages, and one for dark ones."""
    pictures = [_drawings.curve] if facts.field is None else [_drawings.curve, _drawings.field]
    return {d.__name__: plots.light_and_dark(functools.partial(d, facts), facts.m.name) for d in pictures}


def markdown(facts: Facts, templates: jinja2.Environment | None = None, name: str = "method.md.j2", **more: Any) -> str:
    """The page as Markdown with formulas between dollar signs. A site that has more to say gives a template of its own
    that extends `method.md.j2`, with the environment that finds it and what it is to be told."""
    m = facts.m
    text = (
        (templates or environment(markdown=True))
        .get_template(name)
        .render(
            facts=facts,
            m=m,
            year=facts.year,
            formula=_formula(m.formula),
            needs=[code(need) for need in m.needs],
            alternatives={name: plain(text) for name, text in _words.alternatives(facts).items()},
            caption=_words.caption(facts),
            stated=_one_token.stated(m.needs),
            token=_token_table(facts),
            reading=_words.reading(facts),
            ending=_words.ending(facts),
            legend=_words.legend(facts.closed_form or ""),
            identities=_words.identity_lines(m.name, more.get("link", code)) if facts.is_entry else [],
            parameters=_parameter_table(facts.parameters),
            **more,
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _formula(latex: str) -> str:
    """LaTeX in one line; none where it would end the formula on the page."""
    line = " ".join(latex.split())
    return "" if "$" in line else line


def _picture(light: bytes, dark: bytes) -> str:
    day, night = (f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for svg in (light, dark))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{night}">'
    return f'<picture>{source}<img src="{day}" alt=""></picture>'


def _token_table(facts: Facts) -> str:
    """Prediction, gradient, and the target, its trust and its residual in three gauges."""
    example = facts.example
    tokens, label = example["tokens"], example["label"]
    head = ["", *(f"{t} (label)" if k == label else t for k, t in enumerate(tokens)), "scale $s$", "trust $\\gamma$"]
    rows = [["prediction $p$", *map(three_digits, example["p"]), "", ""]]
    rows += [
        [name.removesuffix("_logits"), *map(three_digits, _softmax(value)), "", ""]
        for name, value in example["context"].items()
        if name.endswith("_logits")
    ]
    rows.append(["gradient $g$", *map(three_digits, example["gradient"]), "", ""])
    for what in ("target", "residual"):
        symbol = {"target": "$Q$", "residual": r"$\tilde\pi$"}[what]
        for name, gauge in example["gauges"].items():
            more = [three_digits(gauge["scale"]), three_digits(gauge["trust"])] if what == "target" else ["", ""]
            rows.append([f"{what} {symbol}, {name}", *map(three_digits, gauge[what]), *more])
    return _markdown.table(head, rows)


def _softmax(logits: list[float]) -> list[float]:
    import torch

    return torch.tensor(logits, dtype=torch.float64).softmax(-1).tolist()


def _parameter_table(parameters: tuple[Parameter, ...]) -> str:
    """Each with its value, and where that is another one, with its default."""
    if not parameters:
        return "It has none."
    rows = [(code(p.name), _value(p), plain(p.range), plain(p.doc)) for p in parameters]
    defaults = all(p.default is not None and not p.changed for p in parameters)
    return _markdown.table(["Parameter", "Default" if defaults else "Value", "Range", ""], rows, align="---")


def _value(p: Parameter) -> str:
    return code(repr(p.value)) + (f" (default {code(repr(p.default))})" if p.changed else "")
