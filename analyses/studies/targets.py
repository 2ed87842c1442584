"""The target that each of the paper's methods sets at five telling tokens, as one would explain it at a blackboard."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qunify as qu
from analyses.kit import tokens
from analyses.kit.study import Study
from qunify import plots
from qunify.catalogue import PAPER


def rows(full: bool) -> pd.DataFrame:
    """One row per method, token and word: prediction, unit-gauge target, gradient, and what else the token has. One
    size only."""
    batch = tokens.telling()
    p = batch.logits.softmax(-1)
    others = {name: batch.context[f"{name}_logits"].softmax(-1) for name in ("teacher", "reference", "old")}
    table = []
    for name in PAPER:
        result = qu.get(name)(batch.logits, batch.labels, **batch.context)
        for i, token in enumerate(tokens.TELLING):
            for k, word in enumerate(tokens.WORDS):
                row = {"method": name, "token": token.title, "word": word, "observed": word == token.label}
                numbers = {"p": p[i, k], "target": result.target[i, k], "gradient": result.gradient[i, k]}
                beside = {name: q[i, k] for name, q in others.items()}
                row |= {key: value.item() for key, value in (numbers | beside).items()}
                table.append(row | {"weight": token.weight, "critical": int(token.critical)})
    return pd.DataFrame(table)


def draw(table: pd.DataFrame) -> Figure:
    methods, titles = table["method"].unique(), table["token"].unique()
    words = list(table["word"].unique())
    with plots.style():
        figure = Figure(figsize=(10.5, 16.6))
        grid = figure.subplots(len(methods) + 1, len(titles))  # all alike, not shared: that takes seconds
        shown, axes = grid[0], grid[1:]
        figure.subplots_adjust(left=0.16, right=0.99, top=0.945, bottom=0.075, hspace=0.22, wspace=0.06)
        for ax, title in zip(shown, titles, strict=True):
            _others(ax, table[table["token"] == title].drop_duplicates("word"))
        shown[0].set_ylabel("other models", rotation=0, ha="right", va="center", fontsize=10.5, color=plots.SOFT)
        shown[0].yaxis.set_label_coords(-0.16, 0.5)
        for (method, token), cell in table.groupby(["method", "token"], sort=False):
            ax = axes[list(methods).index(method), list(titles).index(token)]
            observed = int(cell["observed"].to_numpy().argmax())
            plots.bars(ax, cell["p"].tolist(), cell["target"].tolist(), observed, plots.colour(str(method)))
            ax.tick_params(length=0, labelsize=8)
            ax.spines["bottom"].set_visible(False)
            ax.set_ylim(min(-0.05, table["target"].min() - 0.03), max(1.0, table["target"].max()) + 0.05)
            ax.set_yticks([0, 0.5, 1], ["0", "½", "1"])
            ax.set_xticks(range(len(words)), words, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
            ax.label_outer()
        for row, method in zip(axes, methods, strict=True):
            row[0].set_ylabel(
                qu.get(method).title,
                rotation=0,
                ha="right",
                va="center",
                fontsize=10.5,
                color=plots.as_text(plots.colour(method)),
            )
            row[0].yaxis.set_label_coords(-0.16, 0.5)
        for ax, title in zip(shown, titles, strict=True):
            label = table.loc[(table["token"] == title) & table["observed"], "word"].iloc[0]
            ax.set_title(f"{title}\nobserved: {label}", fontsize=10)
        for ax in axes[-1]:
            ax.tick_params(axis="x", pad=7)
        figure.text(
            0.01, 0.993, f"“{tokens.PROMPT}”   filled: target Q   outlined: prediction p   ▲ the observed word",
            fontsize=11, va="top",
        )  # fmt: skip
        each = table.drop_duplicates("token")
        weights, kept = (", ".join(f"{x:g}" for x in each[column]) for column in ("weight", "critical"))
        figure.text(
            0.01, 0.008,
            "First row: what methods look at besides, ● the teacher, ○ the reference, – the older policy (of PSFT). "
            f"Token by token,\niw-SFT has the weights {weights}, and CFT keeps the tokens with a 1: {kept}.",
            fontsize=9.5, color=plots.SOFT,
        )  # fmt: skip
    return figure


def _others(ax: Axes, table: pd.DataFrame) -> None:
    """The models beside the one that is trained, at one of the tokens."""
    for name, marker, fill in (("teacher", "o", "full"), ("reference", "o", "none"), ("old", "_", "full")):
        size = 8 if marker == "_" else 5
        ax.plot(range(len(table)), table[name], marker, color=plots.INK, fillstyle=fill, markersize=size)
    ax.set_xlim(-0.6, len(table) - 0.4)
    ax.set_ylim(-0.05, 1.05)
    ax.axhline(0, color=plots.INK, linewidth=0.6)
    ax.set_yticks([0, 0.5, 1], ["0", "½", "1"])
    ax.set_xticks([])
    ax.tick_params(length=0, labelsize=8)
    ax.spines["bottom"].set_visible(False)
    ax.label_outer()


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """The label's target: one row per method, one column per token."""
    observed = table[table["observed"]]
    wide = observed.pivot_table(index="method", columns="token", values="target").loc[
        list(PAPER), observed["token"].unique()
    ]
    first = observed.drop_duplicates("token").set_index("token")["p"].rename("p, the prediction")
    wide = pd.concat([first.to_frame().T, wide.rename(index=lambda name: qu.get(name).title)])
    return wide.rename_axis("Target of the observed word").reset_index()


def see(table: pd.DataFrame) -> str:
    label = table[table["observed"]].set_index(["method", "token"])["target"]
    wrong = "confident and wrong"
    p = table.loc[table["observed"] & (table["token"] == wrong), "p"].iloc[0]
    signed = table.loc[table["target"] < -1e-9, "method"].unique()
    return (
        f"Where the model is confident and wrong (p = {p:.2f} on the observed word), SFT asks for "
        f"{label['sft', wrong]:.2f} and DFT for {label['dft', wrong]:.2f}: a gate leaves the rest where the model has "
        "it, while Target-SFT shares it with the teacher, who knows the word, and so raises it to "
        f"{label['target_sft', wrong]:.2f}. "
        f"Bars below zero ({', '.join(qu.get(name).title for name in signed)}) are not distributions: the step pushes "
        "those words down faster than a unit step toward any distribution would."
    )


STUDY = Study(
    name="targets",
    title="Unit-gauge targets of the fifteen methods at five tokens",
    question="Which target does each method set at one concrete token?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
