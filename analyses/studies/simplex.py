"""Where training goes on the simplex of three tokens: the drift, the paths of trained models, and where they end."""

from __future__ import annotations

from statistics import mean
from typing import Any

import mpltern  # noqa: F401 (registers the ternary projection)
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

import qunify as qu
from analyses.kit.study import Study
from analyses.kit.words import listed
from qunify import plots
from qunify.maps import QMap
from qunify.population import (
    SIMPLEX_NAMES,
    SIMPLEX_STARTS,
    SIMPLEX_TOKENS,
    SIMPLEX_TRUTH,
    SIMPLEX_WORLD,
    simplex_context,
    simplex_grid,
    simplex_moves,
)
from qunify.training import Data, Job, Stack, Tabular

CONTEXTS = ("reference_logits", "teacher_logits", "old_logits")  # what the methods below ask for

METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sft", {}),
    ("dft", {}),
    ("focal", {}),
    ("agce", {}),
    ("label_smoothing", {"smoothing": 0.3}),
    ("gem", {}),
    ("profit", {}),
    ("psft", {}),
    ("sft_kl", {"kl_weight": 1.0}),
    ("asft", {"kl_weight": 1.0}),
    ("kd_hybrid", {}),
    ("target_sft", {}),
)

LABELS = 20_000  # per path, drawn anew for each
LR, STEPS = 0.5, 1500  # the rate falls to zero by a cosine, so that a jump in the drift can be met
MILESTONES = (0, *sorted({round(1.17**k) for k in range(47)} - {0, STEPS}), STEPS)
UP = np.array([0.07, -0.035, -0.035])  # a line of text, on the plane
PALE = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.5}
CLOSE = 0.02  # total variation between a prediction and a model trained on a finite sample


def rows(full: bool) -> pd.DataFrame:
    """The drift on a grid, points along the path of each trained model, and the stable optima. One size only."""
    tables = [_field(), _paths(), _optima()]
    return pd.concat(tables, ignore_index=True)


def _table(method: str, kind: str, probs: Tensor, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"method": method, "kind": kind, **dict(zip(SIMPLEX_TOKENS, probs.T.tolist(), strict=True)), **more}
    )


def _field() -> pd.DataFrame:
    """The direction in which the probabilities move, at interior points."""
    p, tables = simplex_grid(), []
    for name, params in METHODS:
        m = qu.get(name, **params)
        dp = simplex_moves(m, p, **simplex_context(m.needs))
        moves = {f"d{t}": column.tolist() for t, column in zip(SIMPLEX_TOKENS, dp.T, strict=True)}
        tables.append(_table(name, "drift", p, **moves))
    return pd.concat(tables, ignore_index=True)


def _paths() -> pd.DataFrame:
    """One tabular model per method and start, trained by gradient descent on all of its labels."""
    jobs = []
    for name, params in METHODS:
        for seed, start in enumerate(SIMPLEX_STARTS):
            g = torch.Generator().manual_seed(seed)
            labels = torch.multinomial(
                torch.tensor(SIMPLEX_TRUTH, dtype=torch.float64), LABELS, replacement=True, generator=g
            )
            counts = torch.bincount(labels, minlength=3)
            everywhere = {k: v.expand(3, -1) for k, v in simplex_context(CONTEXTS).items()}
            data = Data(torch.zeros(3, dtype=torch.long), torch.arange(3), everywhere, counts)
            begin = {"logits": torch.tensor([start], dtype=torch.float64).log()}
            jobs.append(Job(qu.get(name, **params), data, seed, LR, start=begin))
    stack = Stack(Tabular(1, 3), jobs, decay=STEPS)
    tables = []
    for step in MILESTONES:
        p = stack.run(step - stack.step).probs(torch.zeros(1, dtype=torch.long))[:, 0]
        seen = [{"method": j.method.name, "kind": "path", "path": j.seed, "step": step} for j in jobs]
        tables.append(pd.DataFrame(seen).assign(**dict(zip(SIMPLEX_TOKENS, p.T.tolist(), strict=True))))
    return pd.concat(tables, ignore_index=True)


def _optima() -> pd.DataFrame:
    tables = []
    for name, params in METHODS:
        m = qu.get(name, **params)
        tables.append(_table(name, "optimum", qu.optimum(m, SIMPLEX_TRUTH, **simplex_context(m.needs)).all[0]))
    return pd.concat(tables, ignore_index=True)


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Where each path ends, and its total variation from the nearest predicted optimum."""
    last = table[(table["kind"] == "path") & (table["step"] == table["step"].max())].reset_index(drop=True)
    distances = []
    for end in last.itertuples():
        optima = table[(table["kind"] == "optimum") & (table["method"] == end.method)]
        apart = sum((optima[t] - getattr(end, t)).abs() for t in SIMPLEX_TOKENS) / 2
        distances.append(float(apart.min()))
    return last.assign(distance=distances)


def draw(table: pd.DataFrame) -> Figure:
    columns = 4
    lines = -(-len(METHODS) // columns)
    height = 3.35 * lines + 0.85
    with plots.style():
        figure = Figure(figsize=(13, height))
        for i, (name, params) in enumerate(METHODS):
            ax = figure.add_subplot(lines, columns, i + 1, projection="ternary")
            _panel(ax, table[table["method"] == name], qu.get(name, **params))
        figure.subplots_adjust(
            left=0.02, right=0.98, top=1 - 0.62 / height, bottom=0.75 / height, hspace=0.42, wspace=0.1
        )
        key = "✚ the truth   ◇ another model   ○ start   ● stable optimum"
        key += f"   — a model trained on {LABELS:,} labels drawn from the truth"
        figure.text(0.5, 0.2 / height, key, ha="center", fontsize=12)
    return figure


def _panel(ax: Any, table: pd.DataFrame, m: QMap) -> None:
    colour = plots.colour(m.name)
    field = table[table["kind"] == "drift"]
    moves = field[[f"d{t}" for t in SIMPLEX_TOKENS]].to_numpy()
    size = (moves**2).sum(-1, keepdims=True) ** 0.5
    arrows = 0.075 * moves / size * (size / (size + 0.02))  # the direction; length only tells slow from fast
    ax.quiver(
        *field[list(SIMPLEX_TOKENS)].to_numpy().T, *arrows.T, color="#b4b4b4", width=0.005, scale=1, scale_units="xy",
        angles="xy", zorder=1,
    )  # fmt: skip
    for _, path in table[table["kind"] == "path"].groupby("path"):
        ax.plot(*path[list(SIMPLEX_TOKENS)].to_numpy().T, color=colour, lw=2.2, zorder=3)
        ax.plot(*path.iloc[:1][list(SIMPLEX_TOKENS)].to_numpy().T, "o", color=colour, mfc="white", ms=6, zorder=4)
    optima = table[table["kind"] == "optimum"][list(SIMPLEX_TOKENS)].to_numpy().T
    ax.plot(*optima, "o", color=colour, ms=12, mec="white", mew=1.2, zorder=6, clip_on=False)
    ax.plot(*[[x] for x in SIMPLEX_TRUTH], "P", color=plots.INK, ms=9, mec="white", mew=1, zorder=7)
    for need, name in SIMPLEX_NAMES.items():
        if need in m.needs:
            p = np.array(SIMPLEX_WORLD[need])
            ax.plot(*p[:, None], "D", color="white", mec=plots.INK, ms=6, mew=1.1, zorder=5)
            ax.text(*(p - UP), name, ha="center", va="center", fontsize=9.5, zorder=5, bbox=PALE)
    for axis in (ax.taxis, ax.laxis, ax.raxis):
        axis.set_ticks([])
    for spine in ax.spines.values():
        spine.set_color(plots.SOFT)
    for corner, name in zip(np.eye(3), SIMPLEX_TOKENS, strict=True):
        at = corner + (UP if name == SIMPLEX_TOKENS[0] else -UP)
        ax.text(*at, name, ha="center", va="center", fontsize=10.5, color=plots.SOFT)
    settings = f"\n{plots.settings(m)}" if m.params else ""
    ax.text(1.05, 0.48, -0.53, f"{m.name}{settings}", va="top", color=plots.as_text(colour), fontsize=11.5)


def see(table: pd.DataFrame) -> str:
    last = ends(table)
    arrived = last["distance"] < CLOSE
    optima = table[table["kind"] == "optimum"].groupby("method").size()
    several = [f"{n} has {optima[n]}" for n, _ in METHODS if optima[n] > 1]
    at_truth = [n for n, _ in METHODS if optima[n] == 1 and _off_truth(table, n) < CLOSE]
    return (
        f"Of {len(METHODS)} methods only {listed(at_truth)} end{'s' * (len(at_truth) == 1)} at the truth alone. "
        f"{int(arrived.sum())} of {len(last)} trained models end within {CLOSE:g} in total variation of an "
        f"optimum that the drift predicts. {listed(several)} stable optima: there the start "
        f"decides."
    )


def _off_truth(table: pd.DataFrame, method: str) -> float:
    optimum = table[(table["kind"] == "optimum") & (table["method"] == method)][list(SIMPLEX_TOKENS)].to_numpy()[0]
    return float(abs(optimum - np.array(SIMPLEX_TRUTH)).sum() / 2)


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """A row per method: its first optimum, how many there are, and how near the paths end."""
    last = ends(table)
    out = []
    for name, params in METHODS:
        optima = table[(table["kind"] == "optimum") & (table["method"] == name)][list(SIMPLEX_TOKENS)].to_numpy()
        mine = last[last["method"] == name]["distance"]
        out.append(
            {"Method": name, "Settings": plots.settings(qu.get(name, **params))}
            | {f"p*({t})": x for t, x in zip(SIMPLEX_TOKENS, optima[0], strict=True)}
            | {"Stable optima": len(optima), "Mean TV at the end": mean(mine), "Largest": max(mine)}
        )
    return pd.DataFrame(out)


STUDY = Study(
    name="simplex",
    title="Twelve losses on three tokens: where the drift leads (arrows), and where trained models go (lines)",
    question="Where does training end?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
