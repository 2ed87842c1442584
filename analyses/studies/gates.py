"""Every gate of the catalogue: how hard it pulls toward the label, against the label's probability."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

import qunify as qu
from analyses.kit import tokens
from analyses.kit.study import Study
from qunify import plots, samples
from qunify.maps import LossFunction, QMap
from qunify.token import read

VOCAB = 1000
LOWEST = 1e-4  # of u
POINTS, THINNED = 1601, 8  # a curve's shape is judged on all points, one in eight is kept
BAND = "#eef1f4"  # colour of weights between 0 and 1
SHOWN = 5.0  # what is larger, up or down, leaves its panel
ELSEWHERE = 0.1  # the label's probability under the reference, the teacher, the old policy
SPLIT = 0.5  # what the other tokens share out: the second likeliest takes this part, the third this part of the rest, …

#: Settings other than the defaults, where the defaults hide the method's shape.
SETTINGS = {"threshold": {"low": 0.1, "high": 0.8}}

SHAPES = {
    "flat": "Constant",
    "rising": "Rises, never above 1",
    "falling": "Falls, never above 1",
    "humped": "Peaks in between",
    "dipping": "Dips in between",
    "jump": "Switched on or off",
    "above": "Exceeds 1",
    "negative": "Turns negative",
    "pushing": "Unlearns: below 0",
}

#: Probabilities of a rare, an unlikely, an undecided and a sure label, for the digest.
LEVELS = (0.001, 0.1, 0.5, 0.99)


def rows(full: bool) -> pd.DataFrame:
    """One row per gate and u: its weight w = −g_y/(1 − u), which is its trust in the unit gauge. One size only."""
    logits = _row(_probabilities())
    labels = torch.zeros(len(logits), dtype=torch.long)
    u = logits.softmax(-1)[:, 0]
    kept = _kept(u)
    # Other models do not follow this one's u; every token counts fully; none is negative.
    elsewhere = _row(torch.tensor([ELSEWHERE], dtype=torch.float64))[0]
    batch = samples.alike(logits, labels, elsewhere, torch.zeros_like(elsewhere))
    tables = []
    for name in gates():
        result = qu.get(name, **SETTINGS.get(name, {}))(batch.logits, batch.labels, **batch.context)
        weight = -result.gradient[:, 0] / (1 - u)
        trust = result.in_gauge("unit").trust
        columns = {"u": u, "weight": weight, "trust": trust}
        table = pd.DataFrame({key: value[kept].numpy() for key, value in columns.items()})
        tables.append(table.assign(method=name, shape=shape(weight)))
    return pd.concat(tables, ignore_index=True)[["method", "shape", "u", "weight", "trust"]]


def gates() -> list[str]:
    """The methods that look at one position, and whose gradient, measured by automatic differentiation, is w (p − δ) at
    every token."""
    batch = tokens.realistic(64, 40, seed=0)
    found = []
    for name in qu.names():
        m = qu.get(name)
        if m.shift_invariant and not m.pools:
            context: dict[str, Any] = {key: batch.context[key] for key in m.needs}
            result = qu.induced(_loss_function(m), batch.logits, batch.labels, **context)
            if not result.in_gauge("unit").trust.isnan().any():
                found.append(name)
    return found


def _loss_function(m: QMap) -> LossFunction:
    def loss(logits: Tensor, labels: Tensor, **context: Tensor) -> Tensor:
        t, _ = read(m.name, m.needs, logits, labels, -100, context)
        return (m.loss(t) + torch.zeros_like(t.p_label))[:, 0]

    return loss


def shape(weight: Tensor) -> str:
    """A curve in one word of SHAPES; `weight` is sampled along increasing u."""
    steps = weight.diff()
    tolerance = 1e-9
    if weight.min() < -tolerance:
        return "negative" if weight.max() > tolerance else "pushing"
    if steps.abs().max() > 0.4:
        return "jump"
    if weight.max() > 1 + 1e-6:
        return "above"
    if steps.abs().max() < tolerance:
        return "flat"
    if (steps > -tolerance).all():
        return "rising"
    if (steps < tolerance).all():
        return "falling"
    return "humped" if weight.max() > max(weight[0], weight[-1]) + tolerance else "dipping"


def _probabilities() -> Tensor:
    """u from LOWEST to nearly 1, in steps even in log u, and LEVELS."""
    even = torch.logspace(math.log10(LOWEST), 0, POINTS, dtype=torch.float64)
    u, _ = torch.cat([even, torch.tensor(LEVELS, dtype=torch.float64)]).clamp(max=1 - 1e-6).sort()
    return u


def _kept(u: Tensor) -> Tensor:
    """Which points go into the table: one in THINNED, LEVELS and the last."""
    kept = torch.arange(len(u)) % THINNED == 0
    for level in (*LEVELS, 1.0):
        kept[(u - level).abs().argmin()] = True
    return kept


def _row(u: Tensor) -> Tensor:
    """(n,) → (n, VOCAB): log-probabilities that give the label, token 0, the probability u."""
    # A geometric rest, SPLIT of it to the first token, SPLIT of what remains to the next, …
    rest = torch.arange(VOCAB - 1, dtype=torch.float64) * torch.tensor(SPLIT, dtype=torch.float64).log()
    others = torch.log_softmax(rest, -1) + (1 - u[:, None]).log()
    return torch.cat([u[:, None].log(), others], -1)


def draw(table: pd.DataFrame) -> Figure:
    cells = table.drop_duplicates("method").set_index("method")["shape"]
    order = sorted(cells.index, key=lambda name: list(SHAPES).index(cells[name]))
    columns, lines = 5, -(-len(order) // 5)
    height = 2.3 * lines + 1.15
    with plots.style():
        figure = Figure(figsize=(11, height))
        axes = figure.subplots(lines, columns, sharex=True)
        figure.subplots_adjust(
            left=0.04, right=0.99, top=1 - 1.25 / height, bottom=0.6 / height, hspace=0.85, wspace=0.22
        )
        figure.text(
            0.04,
            1 - 0.25 / height,
            "Weight w of the pull toward the label, g = w (p − δ); in the unit gauge it is the trust γ.   "
            "Shaded: 0 ≤ w ≤ 1.   Dotted: w = u (dft).",
            fontsize=11,
        )
        for ax in axes.flat[len(order) :]:
            ax.set_axis_off()
        dft = table[table["method"] == "dft"]
        told = set()
        for ax, name in zip(axes.flat, order, strict=False):
            group = table[table["shape"] == cells[name]]
            ax.axhspan(0, 1, color=BAND, zorder=0)
            ax.plot(dft["u"], dft["weight"], color=plots.SOFT, lw=1, ls=":")
            _panel(ax, group[group["method"] == name], name)
            low, high = (float(x) for x in group["weight"].clip(-SHOWN, SHOWN).agg(["min", "max"]))
            bottom, top = min(0.0, 1.15 * low) - 0.04, max(1.0, high) * 1.06
            ax.set_ylim(bottom, top)
            ax.yaxis.set_major_locator(MultipleLocator(0.5 if top - bottom < 2 else 1 if top - bottom < 6 else 2))
            if cells[name] not in told:
                heading = {"fontsize": 10.5, "fontweight": "bold", "annotation_clip": False}
                ax.annotate(SHAPES[cells[name]], (0, 1.5), xycoords="axes fraction", **heading)
            told.add(cells[name])
        for ax in axes.flat[len(order) - columns : len(order)]:
            ax.set_xlabel("$u = p_y$")
            ax.tick_params(labelbottom=True)
    return figure


def sign_changes(curve: pd.DataFrame) -> list[float]:
    """Where a gate's weight turns from negative to positive, on the straight line between two points of its table."""
    u, w = curve["u"].to_numpy(), curve["weight"].to_numpy()
    before = np.flatnonzero((w[:-1] < 0) & (w[1:] >= 0))
    return [float(u[i] - w[i] * (u[i + 1] - u[i]) / (w[i + 1] - w[i])) for i in before]


def _panel(ax: Axes, curve: pd.DataFrame, name: str) -> None:
    colour = plots.colour(name)
    ax.plot(curve["u"], curve["weight"], color=colour, lw=2.2)
    ax.axhline(0, color=plots.SOFT, lw=0.8)
    blank = {"facecolor": BAND, "edgecolor": "none", "pad": 1}
    for u in sign_changes(curve):
        ax.plot(u, 0, marker="o", color=colour, markerfacecolor="white", markersize=7, zorder=5)
        ax.annotate(
            f"0 at u = {u:.2f}",
            (u, 0),
            xytext=(-6, 6),
            textcoords="offset points",
            ha="right",
            color=colour,
            bbox=blank,
        )
    if curve["weight"].min() > SHOWN:  # nothing of it is in the panel
        ax.text(0.5, 0.6, f"w ≥ {curve['weight'].min():.2g}", transform=ax.transAxes, ha="center", color=colour)
    ax.set_xscale("log")
    ax.set_xlim(LOWEST, 1)
    ax.set_xticks([1e-4, 1e-2, 1])
    ax.minorticks_off()
    ax.tick_params(labelsize=8)
    ax.set_title(name, fontsize=10.5, color=plots.as_text(colour), pad=26)
    settings = plots.settings(qu.get(name, **SETTINGS.get(name, {})))
    ax.text(
        0,
        1.04,
        "\n".join(textwrap.wrap(settings, 28)),
        transform=ax.transAxes,
        fontsize=8,
        linespacing=1.05,
        color=plots.SOFT,
    )


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """Each gate's weight on a rare, an undecided and a sure token."""
    out = []
    for name, curve in table.groupby("method", sort=False):
        near = {u: curve["weight"].iloc[int((curve["u"] / u - 1).abs().to_numpy().argmin())] for u in LEVELS}
        out.append(
            {"Method": qu.get(str(name)).title, "Shape": SHAPES[curve["shape"].iloc[0]]}
            | {f"w at u = {u:g}": w for u, w in near.items()}
            | {"Smallest": curve["weight"].min(), "Largest": curve["weight"].max()}
        )
    return pd.DataFrame(out)


def see(table: pd.DataFrame) -> str:
    lowest, highest = (table.groupby("method", sort=False)["weight"].agg(how) for how in ("min", "max"))
    above, negative = int((highest > 1 + 1e-6).sum()), int((lowest < -1e-9).sum())
    most = str(highest.idxmax())
    unlearned = {name: changes[-1] for name, curve in table.groupby("method") if (changes := sign_changes(curve))}
    below = " and ".join(
        f"{qu.get(str(name)).title} unlearns labels below u = {u:.2f}" for name, u in unlearned.items()
    )
    return (
        f"All {len(highest)} gates move the same label and differ only in how hard. {above} of them exceed 1 somewhere "
        f"(most of all {qu.get(most).title}, {highest.max():.2f}), so that their unit target can leave the simplex; "
        f"{negative} turn{'s' if negative == 1 else ''} negative{'; ' * bool(below)}{below}."
    )


STUDY = Study(
    name="gates",
    title=(
        f"Weight w of every gate against the label's probability u, on a vocabulary of {VOCAB}. Shaded: weights "
        "between 0 and 1; dotted: w = u (DFT). A model that a method compares with gives the label probability "
        f"{ELSEWHERE:g}."
    ),
    question="How hard does each gate pull toward the label, from tokens the model doubts to tokens it is sure of?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
    methods=gates,
)
