"""The logit gradient of each of the paper's methods, at five telling tokens and compared on many realistic ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

import qunify as qu
from analyses.kit import tokens
from analyses.kit.study import Study
from qunify import plots
from qunify.catalogue import PAPER

QUICK, FULL = {"tokens": 400, "vocab": 500, "seeds": 2}, {"tokens": 2000, "vocab": 2000, "seeds": 5}


def rows(full: bool) -> pd.DataFrame:
    """Two kinds of rows: `gradient` (method, token, word) and `cosine` (method, other, seed)."""
    size = FULL if full else QUICK
    pairs = [_cosines(tokens.realistic(size["tokens"], size["vocab"], seed), seed) for seed in range(size["seeds"])]
    cosines = pd.concat(pairs, ignore_index=True).assign(kind="cosine", tokens=size["tokens"], vocab=size["vocab"])
    table = pd.concat([_gradients(), cosines], ignore_index=True)
    return table.astype({"seed": "Int64", "tokens": "Int64", "vocab": "Int64", "shared": "Int64"})


def _gradients() -> pd.DataFrame:
    batch = tokens.telling()
    out = []
    for name in PAPER:
        gradient = qu.get(name)(batch.logits, batch.labels, **batch.context).gradient
        for i, token in enumerate(tokens.TELLING):
            for k, word in enumerate(tokens.WORDS):
                row = {"kind": "gradient", "method": name, "token": token.title, "word": word}
                out.append(row | {"observed": word == token.label, "value": gradient[i, k].item()})
    return pd.DataFrame(out)


def _cosines(batch: tokens.Batch, seed: int) -> pd.DataFrame:
    results = [qu.get(name)(batch.logits, batch.labels, **batch.context) for name in PAPER]
    gradients = torch.stack([result.gradient for result in results], 1)  # (N, 15, V)
    products = gradients @ gradients.mT  # (N, 15, 15)
    per_token = _cosine(products)
    shared = per_token.isfinite().sum(0)  # a gate may be shut, and then has no direction
    mean, over_all = per_token.nanmean(0), _cosine(products.sum(0))
    return pd.DataFrame(
        {"method": a, "other": b, "seed": seed, "shared": int(shared[i, j])}
        | {"value": mean[i, j].item(), "over_all": over_all[i, j].item()}
        for i, a in enumerate(PAPER)
        for j, b in enumerate(PAPER)
    )


def _cosine(products: Tensor) -> Tensor:
    """(…, n, n) inner products → cosines; NaN where a vector is zero."""
    sizes = products.diagonal(dim1=-2, dim2=-1).sqrt()
    return products / (sizes[..., :, None] * sizes[..., None, :])


def _matrices(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean cosine per token and over all tokens, method × method, the nearest to SFT first."""
    cosines = table[table["kind"] == "cosine"]
    per_token, over_all = (
        cosines.pivot_table(index="method", columns="other", values=column, aggfunc="mean")
        for column in ("value", "over_all")
    )
    names = over_all["sft"].sort_values(ascending=False).index
    return per_token.loc[names, names], over_all.loc[names, names]


def draw(table: pd.DataFrame) -> Figure:
    per_token, over_all = _matrices(table)
    with plots.style():
        figure = Figure(figsize=(11, 14))
        grid = figure.add_gridspec(2, 1, height_ratios=[5, 8.2], hspace=0.22)
        grid.update(left=0.14, right=0.985, top=0.945, bottom=0.012)
        titles = table["token"].dropna().unique()
        columns = grid[0].subgridspec(1, len(titles), wspace=0.06)
        strips = [figure.add_subplot(columns[i]) for i in range(len(titles))]
        limit = table.loc[table["kind"] == "gradient", "value"].abs().max()
        for ax, title in zip(strips, titles, strict=True):
            shades = _strip(ax, table[table["token"] == title], list(over_all.index), limit)
        plots.name_methods(strips[0], list(over_all.index), [qu.get(name).title for name in over_all.index])
        head = "Step on the logits at five tokens, the gradient with its sign turned (▲ the observed word)"
        figure.text(0.01, 0.985, head, fontsize=12)
        scale = figure.colorbar(shades, cax=figure.add_axes((0.72, 0.983, 0.2, 0.008)), orientation="horizontal")
        scale.set_ticks([-limit, 0, limit], labels=[f"lowers it by {limit:.1f}", "0", f"raises it by {limit:.1f}"])
        scale.ax.tick_params(labelsize=9, length=0)
        _heatmap(figure.add_subplot(grid[1]), per_token, over_all)
    return figure


def _strip(ax: Axes, table: pd.DataFrame, order: list[str], limit: float) -> AxesImage:
    words = list(table["word"].unique())
    wide = table.pivot_table(index="method", columns="word", values="value").loc[order, words]
    shades = ax.imshow(-wide.to_numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    observed = words.index(table.loc[table["observed"].astype(bool), "word"].iloc[0])
    ax.plot(observed, len(order) - 0.35, marker="^", color=plots.INK, clip_on=False, markersize=6)
    ax.set_title(table["token"].iloc[0], fontsize=10)
    ax.set_xticks(range(len(words)), words, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks([])
    ax.tick_params(length=0, pad=7)
    for side in ax.spines.values():
        side.set_visible(False)
    return shades


def _heatmap(ax: Axes, per_token: pd.DataFrame, over_all: pd.DataFrame) -> None:
    n = len(over_all)
    below = np.tril(np.ones((n, n), dtype=bool), -1)
    values = np.where(below, over_all, per_token)
    np.fill_diagonal(values, np.nan)
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        name = str(over_all.index[i])
        title = qu.get(name).title.replace(" ", "\n")
        text, size = (title, 7.5) if i == j else (f"{value:.2f}".replace("-", "−"), 9)
        colour = plots.as_text(plots.colour(name)) if i == j else "white" if value > 0.65 else plots.INK
        ax.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    ax.set_xticks([])
    plots.name_methods(ax, list(over_all.index), [qu.get(name).title for name in over_all.index])
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    what = "Cosine of two methods' gradients: above the diagonal token by token (mean), below over all tokens at once"
    ax.set_title(what, fontsize=12)


def digest(table: pd.DataFrame) -> pd.DataFrame:
    per_token, over_all = _matrices(table)
    return pd.DataFrame(
        {
            "Method": [qu.get(name).title for name in over_all.index],
            "Cosine with SFT, token by token": per_token["sft"].to_numpy(),
            "Cosine with SFT, over all tokens": over_all["sft"].to_numpy(),
            "Nearest other method": [qu.get(over_all.loc[name].drop(name).idxmax()).title for name in over_all.index],
            "Its cosine": [over_all.loc[name].drop(name).max() for name in over_all.index],
        }
    )


def see(table: pd.DataFrame) -> str:
    per_token, over_all = _matrices(table)
    cosines = table[table["kind"] == "cosine"]
    same = [name for name in per_token.index if per_token["sft"][name] > 1 - 1e-9]
    return (
        f"{len(same)} of the {len(per_token)} methods move every token in exactly SFT's direction and differ only in "
        f"how much each token counts, which alone lowers the cosine with SFT over all tokens as far as "
        f"{over_all['sft'][same].min():.2f}. The direction itself turns where part of the target lies elsewhere: "
        f"{per_token['sft'].min():.2f} per token for {qu.get(str(per_token['sft'].idxmin())).title}. "
        f"Means over {cosines['seed'].nunique()} seeds of "
        f"{cosines['tokens'].iloc[0]:.0f} Zipf-like tokens, V = {cosines['vocab'].iloc[0]:.0f}."
    )


STUDY = Study(
    name="gradients",
    title="Logit gradients of the fifteen methods, and how alike they are",
    question="Which methods push the logits the same way?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
