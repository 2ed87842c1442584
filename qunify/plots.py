"""Pictures: one colour per method everywhere, direct labels, data in and axes out. No global state.

Figures are made inside `with style():` and written by `render`, which gives the same bytes every time. The style is
data beside this file, `style.mplstyle` and over it `dark.mplstyle`; on a dark background colours are lighter.
"""

from __future__ import annotations

import colorsys
import dataclasses
import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.typing import ColorType
from scipy.optimize import isotonic_regression

from qunify import catalogue
from qunify.maps import Method, QMap, QTarget
from qunify.samples import alike

#: Of the light style; what is drawn here takes those of the style in force.
INK, SOFT, FAINT = "#1b1b1b", "#6b6b6b", "#d9d9d9"
READABLE = 4.0  # contrast with the background that a method's colour has on a dark one, and as text on a light one

Dash = str | tuple[float, tuple[float, ...]]

_SOLID, _LONG, _SHORT, _DOTS, _DASHDOT = "-", (0, (7, 2)), (0, (3, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5))


@dataclass(frozen=True)
class Line:
    """How a method is drawn: a colour, and a dash and a marker that tell it apart without colour."""

    colour: str
    dash: Dash
    marker: str

    @property
    def kwargs(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.dash}


#: The paper's fifteen: hues of Okabe & Ito and of Paul Tol's muted set, no two alike in colour and dash.
_PAPER = {
    "sft": Line("#1b1b1b", _SOLID, "o"),
    "dft": Line("#0072B2", _SOLID, "s"),
    "beyond_log": Line("#56B4E9", _LONG, "^"),
    "profit": Line("#332288", _DOTS, "v"),
    "eaft": Line("#009E73", _SOLID, "D"),
    "iw_sft": Line("#999933", _DASHDOT, "P"),
    "cft": Line("#7F7F7F", _DOTS, "X"),
    "label_smoothing": Line("#E69F00", _SOLID, "<"),
    "sft_kl": Line("#CC6677", _LONG, ">"),
    "asft": Line("#882255", _SHORT, "p"),
    "psft": Line("#117733", _DASHDOT, "h"),
    "gem": Line("#CC79A7", _SOLID, "*"),
    "kd": Line("#44AA99", _LONG, "d"),
    "kd_hybrid": Line("#A6761D", _SHORT, "H"),
    "target_sft": Line("#D55E00", _SOLID, "8"),
}  # fmt: skip

#: Every other method takes its family's hue, in one of a few depths by its place there.
_HUES = {
    "gates": "#0072B2", "smoothing": "#E69F00", "anchored": "#CC6677", "designed": "#D55E00", "distillation": "#009E73",
    "scores": "#882255", "warped": "#AA4499", "penalties": "#7F5F3F", "policy": "#4477AA", "unlearning": "#B8860B",
    "sequence": "#228833", "ranks": "#6A51A3",
}  # fmt: skip
#: For families to come, in their order.
_MORE_HUES = ("#2F6F8F", "#A0522D", "#5F7F2F")
#: A name outside the catalogue: a map of somebody's own.
_OWN = Line("#DC267F", _DASHDOT, "o")
_DEPTHS = (0.38, 0.52, 0.28, 0.62, 0.45)
_DASHES: tuple[Dash, ...] = (_SOLID, _LONG, _SHORT, _DASHDOT)
_MARKERS = "osD^vP"


def line(name: str) -> Line:
    """Colour, dash and marker of a method; a name outside the catalogue has its own."""
    look = _on_light(name)
    return dataclasses.replace(look, colour=_on_dark(look.colour)) if is_dark() else look


def colour(name: str) -> str:
    """A method's colour, `#rrggbb`."""
    return line(name).colour


def _on_light(name: str) -> Line:
    if name in _PAPER:
        return _PAPER[name]
    entry = catalogue.ENTRIES.get(name)
    if entry is None:
        return _OWN
    i = catalogue.names(entry.family).index(name)
    hue, _, saturation = colorsys.rgb_to_hls(*to_rgb(_hue(entry.family)))
    shade = to_hex(colorsys.hls_to_rgb(hue, _DEPTHS[i % len(_DEPTHS)], saturation))
    return Line(shade, _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)])


def _hue(family: str) -> str:
    others = [f for f in catalogue.families() if f not in _HUES]
    return _HUES.get(family) or _MORE_HUES[others.index(family) % len(_MORE_HUES)]


def as_text(shade: ColorType) -> str:
    """A colour in which words can be read: the same hue, as much darker as it takes, or lighter on a dark page."""
    return _told_from(to_hex(shade), to_hex(_rc("dark")["axes.facecolor"]) if is_dark() else "#ffffff")


def _on_dark(shade: str) -> str:
    """The same hue, as much lighter as it takes to be read; what is ink on a light page is ink on a dark one."""
    rc = _rc("dark")
    return to_hex(rc["text.color"]) if shade == INK else _told_from(shade, to_hex(rc["axes.facecolor"]))


@functools.cache
def _told_from(shade: str, background: str) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(shade))
    away = 0.01 if _luminance(background) < 0.2 else -0.01
    while contrast(shade, background) < READABLE:
        lightness += away
        shade = to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))
    return shade


def contrast(a: ColorType, b: ColorType) -> float:
    """The contrast ratio of two colours, from 1 to 21, as the Web Content Accessibility Guidelines define it."""
    darker, lighter = sorted((_luminance(a), _luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: ColorType) -> float:
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@functools.cache
def _rc(name: str) -> mpl.RcParams:
    return mpl.rc_params_from_file(Path(__file__).with_name(f"{name}.mplstyle"), use_default_template=False)


@contextmanager
def style(dark: bool | None = None) -> Iterator[None]:
    """The look of every figure, while it is made, light or dark (by default as the settings outside, which are left
    alone)."""
    dark = is_dark() if dark is None else dark
    with mpl.rc_context({**_rc("style"), **(_rc("dark") if dark else {})}):
        yield
        interactive = mpl.is_interactive()
    mpl.interactive(interactive)  # a notebook's backend sets it when it is first loaded, which may have been in there


def is_dark() -> bool:
    """Whether the style in force writes light on dark."""
    return _luminance(mpl.rcParams["text.color"]) > 0.2


def render(figure: Figure, kind: Literal["png", "svg"], note: str = "", *, transparent: bool = False) -> bytes:
    """A picture file's content: the same bytes for the same figure. `note` is kept in its description."""
    dateless = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    metadata = {**dateless, "Description": note or None}
    buffer = io.BytesIO()
    with style(dark=_luminance(figure.get_facecolor()) < 0.2):  # as `Picture.savefig`
        figure.savefig(buffer, format=kind, transparent=transparent, metadata=metadata)
    return buffer.getvalue()


def light_and_dark(draw: Callable[[], bytes], method: str) -> tuple[bytes, bytes]:
    """An SVG of one method for light pages and for dark ones: drawn once, in colours of the style and of the method,
    which are then exchanged."""
    with style(dark=False):
        light = draw()
    colour = _on_light(method).colour
    shades = dict(_rc("style")) | {"ground": "white", "method": colour, "text": _told_from(colour, "#ffffff")}
    dark = _on_dark(colour)
    others = dict(_rc("dark")) | {"ground": _rc("dark")["axes.facecolor"], "method": dark, "text": dark}
    exchanged = {to_hex(shades[key]): to_hex(other).encode() for key, other in others.items() if key in shades}
    return light, re.sub(rb"#[0-9a-f]{6}\b", lambda found: exchanged.get(found[0].decode(), found[0]), light)


@dataclass(frozen=True)
class EndLabel:
    """A label for the end of a line: the point it belongs to, in data coordinates, and its text."""

    x: float
    y: float
    text: str
    colour: str


def label_ends(ax: Axes, labels: Sequence[EndLabel], *, size: float = 9, gap: float = 0.03) -> Axes:
    """Write labels to the right of the axes, each as near its line's end as the others allow.

    Call it last: limits and the size of the axes must be final. `gap` is the free space, as a share of the width.
    """
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    height = ax.get_window_extent().height / ax.figure.dpi * 72  # points
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = [to_axes.transform((label.x, label.y)) for label in labels]
    for label, (x, y), at in zip(labels, ends, spread([y for _, y in ends], 1.3 * size / height), strict=True):
        leader = {"arrowstyle": "-", "color": label.colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        ax.annotate(
            label.text,
            xy=(x, y),
            xytext=(1 + gap, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=as_text(label.colour),
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops=leader,
        )
    return ax


def lanes(ax: Axes, count: int) -> Axes:
    """One lane per method along the y axis, the first on top: faint lines in place of the axis."""
    ax.set_ylim(count - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def name_methods(
    ax: Axes, methods: Sequence[str], names: Sequence[str] | None = None, *, at: Sequence[float] = (), size: float = 0
) -> Axes:
    """Write methods along the y axis, each in its colour: `names` for them, or their ids, at 0, 1, … or `at`."""
    ax.set_yticks(at or range(len(methods)), names or methods)
    for label, method in zip(ax.get_yticklabels(), methods, strict=True):
        label.set(color=as_text(colour(method)), **({"fontsize": size} if size else {}))
    return ax


def spread(positions: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """The positions nearest to the given ones that lie `gap` apart, and within [low, high] if there is room."""
    if len(positions) == 0:
        return []
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    # With the steps taken off, "at least a gap apart" reads "in increasing order".
    packed = isotonic_regression(np.asarray(positions, dtype=float)[order] - steps).x
    packed = np.clip(packed, low, max(low, high - steps[-1])) + steps
    placed = np.empty_like(packed)
    placed[order] = packed
    return placed.tolist()


def bars(ax: Axes, p: Sequence[float], q: Sequence[float], label: int, colour: str) -> Axes:
    """One target: Q filled, p outlined over it, the observed token marked by a triangle below the axis."""
    at, ink = np.arange(len(p)), mpl.rcParams["text.color"]
    ax.bar(at, q, width=0.8, color=colour, alpha=0.85, linewidth=0)
    ax.bar(at, p, width=0.8, fill=False, edgecolor=ink, linewidth=0.9)
    ax.axhline(0, color=ink, linewidth=0.6)
    ax.plot(label, -0.02, marker="^", color=ink, markersize=5, clip_on=False, transform=ax.get_xaxis_transform())
    ax.set_xlim(-0.6, len(p) - 0.4)
    return ax


#: What `overview` looks at: a label and two other tokens, 3 : 1 between them, and another model's opinion.
_OTHERS = (0.75, 0.25)
_OTHER_MODEL = (0.6, 0.1, 0.3)
_TELLING = {"confident and wrong": 0.1, "undecided": 0.4}  # u = p_y


class Picture(Figure):
    """A figure that a notebook shows as the value of a cell, also where none of its settings asks for that, and that
    is saved in its own look whatever the settings are: letters of a PDF as TrueType, not Type 3."""

    def _repr_png_(self) -> bytes:
        return render(self, "png")

    def savefig(self, fname: Any, *, transparent: bool | None = None, **kwargs: Any) -> None:
        with style(dark=_luminance(self.get_facecolor()) < 0.2):  # ticks take their colour only when they are drawn
            super().savefig(fname, transparent=transparent, **kwargs)


def overview(maps: Method | Sequence[Method], width: Literal["page", "column"] = "page") -> Figure:
    """One to six methods on a vocabulary of three: how hard they pull on the label, and the target they set.

    Left: the step −∂L/∂z_y on the label's logit against u = p_y. Right: at two telling tokens, the unit-gauge target
    next to the prediction, or "no target" for a loss that is not shift-invariant. Every other model that a method
    asks for (reference, teacher, old, prior) is one fixed distribution, named in the caption.

    Parameters
    ----------
    maps
        Each an id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token; or
        one alone.
    width
        "page": as wide as the methods need. "column": 3.3 inches, as of a paper in two columns, for up to three
        methods; the targets stand below the curves, and what the caption says is left to the paper's.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        If there are no methods, or more than six; more than three for a column.
    """
    several = [maps] if isinstance(maps, str) or callable(maps) else maps
    methods = [catalogue.as_method(m, "overview") for m in several]
    if width not in ("page", "column"):
        raise ValueError(f"overview: width: expected 'page' or 'column', got {width!r}")
    if not 1 <= len(methods) <= 6:
        raise ValueError(f"overview: expected one to six methods, got {len(methods)}")
    if width == "column" and len(methods) > 3:
        raise ValueError(f"overview: expected one to three methods in a column, got {len(methods)}")
    with style(), mpl.rc_context(_COLUMN if width == "column" else {}):
        if width == "column":
            figure = Picture(figsize=(3.3, 3.9))
            curves = figure.add_axes((0.115, 0.625, 0.56, 0.315))
            grid = figure.add_gridspec(len(_TELLING), len(methods), left=0.185, right=0.985, top=0.445, bottom=0.045)
        else:
            across = 6.4 + 1.75 * len(methods)  # inches: the curves, their labels, and one column for each method
            figure = Picture(figsize=(across, 4.6))
            curves = figure.add_axes((0.6 / across, 0.25, 3.4 / across, 0.6))
            grid = figure.add_gridspec(len(_TELLING), len(methods), left=6.25 / across, right=1 - 0.1 / across)
            grid.update(top=0.85, bottom=0.25)
            soft = mpl.rcParams["axes.edgecolor"]
            figure.text(0.6 / across, 0.12, _caption(int(13 * across)), fontsize=8.5, color=soft, va="top")
        grid.update(wspace=0.12, hspace=0.3)
        looks = [_look(methods, i) for i in range(len(methods))]
        names = catalogue.numbered([m.name for m in methods], methods)
        ends = _draw_steps(curves, methods, names, looks)
        for i, (m, name, look) in enumerate(zip(methods, names, looks, strict=True)):
            _column(figure, [grid[j, i] for j in range(len(_TELLING))], m, name, look.colour)
        _share_limits(figure.axes[1:], len(_TELLING))
        label_ends(curves, ends, size=0.9 * mpl.rcParams["font.size"])
    return figure


_COLUMN: Any = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "xtick.major.pad": 2,
}


def _draw_steps(ax: Axes, methods: Sequence[QMap], names: Sequence[str], looks: Sequence[Line]) -> list[EndLabel]:
    """The step on the label's logit against its probability; the names for the ends of the lines."""
    u = torch.linspace(0.002, 0.998, 250, dtype=torch.float64)
    steps = [-_ask(m, u).gradient[:, 0] for m in methods]
    for step, look in zip(steps, looks, strict=True):
        ax.plot(u, step, **look.kwargs)
    ax.axhline(0, color=mpl.rcParams["axes.edgecolor"], lw=0.8)
    ax.set_xlim(0, 1)
    ax.set_xlabel("$u = p_y$")
    ax.set_title("Step on the label's logit, $-\\partial L/\\partial z_y$", pad=9)
    return [EndLabel(1, float(s[-1]), n, o.colour) for n, s, o in zip(names, steps, looks, strict=True)]


def _ask(m: QMap, u: torch.Tensor) -> QTarget:
    """The method at tokens whose label, token 0, has probability u (N,)."""
    p = torch.stack([u, *[share * (1 - u) for share in _OTHERS]], -1)
    elsewhere = torch.tensor(_OTHER_MODEL, dtype=torch.float64).log()
    batch = alike(p.log(), torch.zeros(len(u), dtype=torch.long), elsewhere, torch.tensor([0.0, 0.0, 1.0]))
    return m(batch.logits, batch.labels, **batch.context)


def _column(figure: Figure, places: Sequence[SubplotSpec], m: QMap, name: str, colour: str) -> None:
    """The method's targets at the telling tokens, one below the other."""
    u = torch.tensor(list(_TELLING.values()), dtype=torch.float64)
    for place, at, target in zip(places, u.tolist(), _ask(m, u).target, strict=True):
        ax = figure.add_subplot(place)
        p = [at, *[share * (1 - at) for share in _OTHERS]]
        bars(ax, p, target.nan_to_num(nan=0.0).tolist(), 0, colour)
        if not m.shift_invariant:
            ax.text(
                0.95,
                0.92,
                "no target",
                transform=ax.transAxes,
                ha="right",
                va="top",
                color=as_text(colour),
                fontsize=0.9 * mpl.rcParams["font.size"],
            )
        ax.set_xticks(range(len(p)), ["y", "k", "l"])
        ax.tick_params(axis="x", length=0, pad=6)
    figure.axes[-len(places)].set_title(
        _wrapped(m, name), fontsize=0.95 * mpl.rcParams["font.size"], color=as_text(colour)
    )


def _share_limits(panels: Sequence[Axes], rows: int) -> None:
    """One scale for all panels, written at the first column only."""
    low, high = min(ax.get_ylim()[0] for ax in panels), max(1.0, *(ax.get_ylim()[1] for ax in panels))
    for i, ax in enumerate(panels):
        ax.set_ylim(low, high)
        ax.label_outer()
        if i >= rows:
            ax.tick_params(labelleft=False)
    for ax, (what, at) in zip(panels, _TELLING.items(), strict=False):
        ax.set_ylabel(f"{what}\n$u$ = {at:g}", fontsize=0.9 * mpl.rcParams["font.size"])


def _look(maps: Sequence[QMap], i: int) -> Line:
    """The method's own look; a second setting of the same method, or map of somebody's own, gets another dash."""
    names = [m.name if catalogue.has(m) else "" for m in maps]
    own = line(names[i])
    earlier = names[:i].count(names[i])
    others = [dash for dash in _DASHES if dash != own.dash]
    return dataclasses.replace(own, dash=others[(earlier - 1) % len(others)]) if earlier else own


def settings(m: QMap) -> str:
    """A method's parameters in words: `kl_weight 0.1, base log`."""
    shown = {key: f"{value:g}" if isinstance(value, float) else value for key, value in m.params.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _wrapped(m: QMap, name: str) -> str:
    return "\n".join([name, *textwrap.wrap(settings(m), 20)])


def _caption(columns: int) -> str:
    shares = " : ".join(f"{share:g}" for share in _OTHERS)
    other = ", ".join(f"{x:g}" for x in _OTHER_MODEL)
    text = (
        f"Vocabulary: y (the label, ▲), k and l, which share the rest {shares}. Filled: target Q; outlined: prediction "
        f"p. Reference, teacher, old and prior, where asked for: ({other}); token weights 1; l is the negative token."
    )
    return "\n".join(textwrap.wrap(text, columns))
