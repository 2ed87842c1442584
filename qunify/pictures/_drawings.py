"""The pictures on the page of one method: transparent SVG, in the style in force."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from qunify import plots
from qunify.pictures._facts import Curve, Facts, Field
from qunify.pictures._one_token import LABEL
from qunify.plots import EndLabel
from qunify.population import SIMPLEX_NAMES, SIMPLEX_TOKENS, SIMPLEX_TRUTH

#: Corners of the simplex in the plane: A on top, B at the left, C at the right.
PLANE = np.array([[0.5, 3**0.5 / 2], [0.0, 0.0], [1.0, 0.0]])
SIZE = (3.9, 3.3)  # inches; two of them fill the width of a page
#: Letters that fit beside the axes, and those that a line may have at most.
LONGEST, MOST = 11, 13


def curve(facts: Facts) -> bytes:
    """The weight of a gate, or the pull on the label's logit and the trust of any other method, against u."""
    c, name = facts.curve, facts.m.name
    with plots.style():
        figure = Figure(figsize=SIZE)
        ax = figure.add_axes((0.12, 0.15, 0.61, 0.71))
        soft = rcParams["axes.edgecolor"]
        ax.axhline(0, color=rcParams["grid.color"], lw=0.8, zorder=0)
        ends = _gate(ax, c, name, soft) if c.gate else _other(ax, c, name, soft)
        at = (c.u - facts.example["p"][LABEL]).abs().argmin()
        shown = c.trust if c.gate else c.pull
        ax.plot(c.u[at], shown[at], "o", ms=6, color=plots.colour(name), mec=rcParams["axes.facecolor"])
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        ax.set_xlabel("probability of the label, $u = p_y$")
        ax.set_title("Weight $w$ in $g = w\\,(p - \\delta)$" if c.gate else "Pull on the label's logit, $-g_y$", pad=10)
        _label(ax, ends)
    return plots.render(figure, "svg", transparent=True)


def _label(ax: Axes, ends: list[EndLabel]) -> None:
    """Labels to the right of the axes: as `plots.label_ends`, without leaders and so without drawing all twice. A long
    one takes two lines."""
    low, high = ax.get_ylim()
    texts = [_broken(end.text) for end in ends]
    gap = 0.075 * max(text.count("\n") + 1 for text in texts)
    for end, text, at in zip(
        ends, texts, plots.spread([(end.y - low) / (high - low) for end in ends], gap), strict=True
    ):
        ax.text(
            1.03,
            at,
            text,
            color=plots.as_text(end.colour),
            fontsize=9,
            va="center",
            linespacing=1.0,
            transform=ax.transAxes,
        )


def _broken(name: str) -> str:
    """A name beside the axes: in two lines if it is long, broken at the underscore nearest its middle, and cut where
    a line would leave the picture. A dollar sign is no beginning of a formula."""
    places = [i + 1 for i, letter in enumerate(name) if letter == "_"]
    lines = [name]
    if len(name) > LONGEST and places:
        at = min(places, key=lambda i: abs(i - len(name) / 2))
        lines = [name[:at], name[at:]]
    return "\n".join(line if len(line) <= MOST else f"{line[: MOST - 1]}…" for line in lines).replace("$", r"\$")


def _gate(ax: Axes, c: Curve, name: str, soft: str) -> list[EndLabel]:
    """Its weight, over those of SFT and DFT."""
    ends = []
    for other, weight in (("sft", torch.ones_like(c.u)), ("dft", c.u)):
        if not torch.allclose(weight, c.trust):
            ax.plot(c.u, weight, color=soft, lw=1, ls=":", zorder=1)
            ends.append(EndLabel(1, float(weight[-1]), other, soft))
    ax.plot(c.u, c.trust, **{**plots.line(name).kwargs, "linestyle": "-"}, lw=2.4)
    return [EndLabel(1, float(c.trust[-1]), name, plots.colour(name)), *ends]


def _other(ax: Axes, c: Curve, name: str, soft: str) -> list[EndLabel]:
    """Its pull, over that of SFT, and its trust where it has one."""
    colour, ends = plots.colour(name), []
    ax.plot(c.u, 1 - c.u, color=soft, lw=1, ls=":", zorder=1)
    ax.plot(c.u, c.pull, color=colour, lw=2.4)
    ends = [EndLabel(1, float(c.pull[-1]), name, colour)]
    if not bool(c.trust.isnan().any()):
        ax.plot(c.u, c.trust, color=colour, lw=1.4, ls=(0, (3, 1.5)))
        ends.append(EndLabel(1, float(c.trust[-1]), "trust γ", colour))
    if abs(float(c.pull[0])) > 0.3:
        ax.text(0.03, 1.0, "sft", color=soft, fontsize=9, va="bottom")
    return ends


def field(facts: Facts) -> bytes:
    """The drift on three tokens, the paths of training from a few starts, and where they end."""
    assert facts.field is not None
    name = facts.m.name
    with plots.style():
        figure = Figure(figsize=SIZE)
        ax = figure.add_axes((0.02, 0.02, 0.96, 0.9))
        _triangle(ax)
        _arrows(ax, facts.field)
        _lines(ax, facts.field, plots.colour(name))
        _marks(ax, facts.field, plots.colour(name))
    return plots.render(figure, "svg", transparent=True)


def _triangle(ax: Axes) -> None:
    ax.set_aspect("equal")
    ax.set_xlim(-0.12, 1.12)
    ax.set_ylim(-0.11, 0.98)
    ax.axis("off")
    soft = rcParams["axes.edgecolor"]
    ax.fill(*PLANE.T, fill=False, edgecolor=soft, lw=1)
    for corner, text, (dx, dy) in zip(PLANE, SIMPLEX_TOKENS, ((0, 0.055), (-0.05, -0.03), (0.05, -0.03)), strict=True):
        ax.text(corner[0] + dx, corner[1] + dy, text, ha="center", va="center", color=soft, fontsize=10.5)


def _arrows(ax: Axes, f: Field) -> None:
    at, moves = f.points.numpy() @ PLANE, f.moves.numpy() @ PLANE
    size = np.hypot(*moves.T)[:, None]
    arrows = 0.075 * moves / np.maximum(size, 1e-12) * (size / (size + 0.02))  # length only tells slow from fast
    ax.quiver(
        *at.T, *arrows.T, color=rcParams["axes.edgecolor"], alpha=0.65, width=0.005, scale=1, scale_units="xy",
        angles="xy", headwidth=4, headlength=4.5, zorder=1,
    )  # fmt: skip


def _lines(ax: Axes, f: Field, colour: str) -> None:
    ways = np.moveaxis(f.paths.numpy() @ PLANE, 0, 1)
    ax.add_collection(LineCollection(list(ways), colors=colour, linewidths=1.8, capstyle="round", zorder=3))
    ax.plot(*ways[:, 0].T, "o", ms=4.5, color=colour, mfc=rcParams["axes.facecolor"], ls="none", zorder=4)


def _marks(ax: Axes, f: Field, colour: str) -> None:
    ink, ground = rcParams["text.color"], rcParams["axes.facecolor"]
    ends = f.end.all[0].numpy() @ PLANE
    ax.plot(*ends.T, "o", ms=11, color=colour, mec=ground, mew=1.2, ls="none", zorder=6, clip_on=False)
    truth = np.array(SIMPLEX_TRUTH) @ PLANE
    ax.plot(*truth, "P", ms=8.5, color=ink, mec=ground, mew=1, zorder=7)
    beside = {"color": ink, "fontsize": 8.5, "va": "center", "zorder": 8}
    halo = {"fc": ground, "ec": "none", "alpha": 0.7, "pad": 0.6}
    ax.text(truth[0] + 0.035, truth[1] + 0.03, "truth", bbox=halo, **beside)
    for need, probs in f.named.items():
        x, y = np.array(probs) @ PLANE
        ax.plot(x, y, "D", ms=6, color=ground, mec=ink, mew=1.1, zorder=5)
        ax.text(x + 0.04, y + 0.015, SIMPLEX_NAMES[need], bbox=halo, **beside)
