"""The smallest case worth doing by hand: SFT and DFT on a vocabulary of three, and where their targets lie."""

from __future__ import annotations

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qunify as qu
from analyses.kit.study import Study
from qunify import plots

#: Of what the label leaves, this share belongs to token k, the rest to a third token.
SHARE = 0.75

METHODS = ("sft", "dft")
QUANTITIES = {
    "g_y": "Gradient on the label, $g_y$",
    "g_k": "Gradient on another token, $g_k$",
    "Q_y": "Target of the label, $Q_y$",
    "Q_k": "Target of another token, $Q_k$",
}
FORMULAS = {
    ("sft", "g_y"): "−(1 − u)",
    ("sft", "g_k"): "pₖ",
    ("sft", "Q_y"): "1",
    ("sft", "Q_k"): "0",
    ("dft", "g_y"): "−u (1 − u)",
    ("dft", "g_k"): "u pₖ",
    ("dft", "Q_y"): "2u − u²",
    ("dft", "Q_k"): "(1 − u) pₖ",
}


def rows(full: bool) -> pd.DataFrame:
    """One row per method, u = p_y and quantity: the catalogue's value and the closed form. One size only."""
    u = torch.linspace(0.001, 0.999, 199, dtype=torch.float64)
    p = torch.stack([u, SHARE * (1 - u), (1 - SHARE) * (1 - u)], -1)
    labels = torch.zeros(len(u), dtype=torch.long)
    tables = []
    for name in METHODS:
        result = qu.get(name)(p.log(), labels)
        values = {
            "g_y": result.gradient[:, 0],
            "g_k": result.gradient[:, 1],
            "Q_y": result.target[:, 0],
            "Q_k": result.target[:, 1],
        }
        exact = _closed_form(name, u, p[:, 1])
        for quantity, value in values.items():
            columns = {"u": u, "p_k": p[:, 1], "value": value, "closed_form": exact[quantity]}
            table = pd.DataFrame({key: column.numpy() for key, column in columns.items()})
            tables.append(table.assign(method=name, quantity=quantity))
    table = pd.concat(tables, ignore_index=True)
    table["deviation"] = (table["value"] - table["closed_form"]).abs()
    return table[["method", "quantity", "u", "p_k", "value", "closed_form", "deviation"]]


def _closed_form(name: str, u: torch.Tensor, p_k: torch.Tensor) -> dict[str, torch.Tensor]:
    if name == "sft":
        return {"g_y": -(1 - u), "g_k": p_k, "Q_y": torch.ones_like(u), "Q_k": torch.zeros_like(u)}
    return {"g_y": -u * (1 - u), "g_k": u * p_k, "Q_y": 2 * u - u**2, "Q_k": (1 - u) * p_k}


def draw(table: pd.DataFrame) -> Figure:
    with plots.style():
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True)
        for ax, quantity in zip(axes.flat, QUANTITIES, strict=True):
            _panel(ax, table[table["quantity"] == quantity], quantity)
        for ax in axes[1]:
            ax.set_xlabel("$u = p_y$, the model's probability of the label")
        for ax, quantity in zip(axes.flat, QUANTITIES, strict=True):
            _label(ax, table[table["quantity"] == quantity], quantity)
    return figure


def _panel(ax: Axes, table: pd.DataFrame, quantity: str) -> None:
    for name, curve in table.groupby("method"):
        ax.plot(curve["u"], curve["value"], **plots.line(str(name)).kwargs)
    own = table[table["method"] == "sft"]
    if quantity.startswith("Q"):  # a target equal to the prediction would teach nothing
        own = table[table["method"] == "sft"]
        p = own["u" if quantity == "Q_y" else "p_k"]
        ax.plot(own["u"], p, color=plots.SOFT, lw=1, ls=":")
        at = len(own) // 4
        what = "the prediction, u" if quantity == "Q_y" else "the prediction, pₖ"
        down = -9 if quantity == "Q_y" else 9
        ax.annotate(
            what, (own["u"].iloc[at], p.iloc[at]), (8, down), textcoords="offset points", color=plots.SOFT, va="center"
        )
    else:
        ax.axhline(0, color=plots.SOFT, lw=1, ls=":")
    ax.set_title(QUANTITIES[quantity])
    ax.set_xlim(0, 1)


def _label(ax: Axes, table: pd.DataFrame, quantity: str) -> None:
    """Name each curve in the middle: SFT on its outer side, DFT on the side of SFT, clear of the dotted line."""
    wide = table.pivot_table(index="u", columns="method", values="value")
    middle = len(wide) // 2
    for name in METHODS:
        y, slope = wide[name].iloc[middle], wide[name].iloc[middle + 5] - wide[name].iloc[middle - 5]
        above = (y >= wide.iloc[middle].mean()) == (name == "sft")
        side = "center" if abs(slope) < 1e-3 else "right" if (slope > 0) == above else "left"
        ax.annotate(
            f"{qu.get(name).title}: {FORMULAS[name, quantity]}",
            (wide.index[middle], y),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha=side,
            va="bottom" if above else "top",
            color=plots.as_text(plots.colour(name)),
        )
    ax.margins(y=0.1)


def digest(table: pd.DataFrame) -> pd.DataFrame:
    worst = table.groupby(["method", "quantity"], sort=False)["deviation"].max().reset_index()
    half = table[(table["u"] - 0.5).abs() < 1e-9]
    return pd.DataFrame(
        {
            "Method": [qu.get(name).title for name in worst["method"]],
            "Quantity": worst["quantity"],
            "Closed form": [FORMULAS[key] for key in zip(worst["method"], worst["quantity"], strict=True)],
            "At u = ½": half["value"].to_numpy(),
            "Largest deviation": worst["deviation"],
        }
    )


def see(table: pd.DataFrame) -> str:
    label = table[table["quantity"] == "Q_y"]
    sft = label[label["method"] == "sft"]["value"]
    dft = label[label["method"] == "dft"]
    rare = dft.iloc[int((dft["u"] - 0.1).abs().to_numpy().argmin())]
    return (
        f"SFT asks for the label with probability {sft.mean():g} wherever the model stands; DFT asks for a little "
        f"more than the model already gives: {rare['value']:.2f} where the model has {rare['u']:.2f}. The rest of its "
        "target is the model's own prediction, shrunk, so an unlikely label is hardly learned. The catalogue agrees "
        f"with the formulas in the panels to {table['deviation'].max():.0e}."
    )


STUDY = Study(
    name="worked_example",
    title="Gradient and target of SFT and DFT on a vocabulary of three; dotted: what the model predicts, or zero",
    question="What do plain SFT and its probability-weighted form (DFT) teach at one token?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
