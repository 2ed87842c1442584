"""What a step through the head costs: time and memory against vocabulary and tokens, with the floor drawn."""

from __future__ import annotations

import os
import statistics
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.kit import runner
from analyses.kit.study import Study
from benchmarks.heads import WAYS, Problem, peak_memory
from benchmarks.timing import alternate, sandwiched
from qunify import plots

WIDTH = CHUNK = 512
TOKENS, VOCAB = 1024, 32_768  # where the other of the two varies
SIZES = {"vocabulary": (8_192, 16_384, 32_768, 65_536), "tokens": (512, 1024, 2048)}
FLOOR, FLOOR_OF_TWO = "mm3", "mm4"
SHOWN = ("sft", "dft", "target_sft", "a Python loss", "torch, chunked CE", "TRL, dft", "all logits, CE")
ROUNDS = 3

#: Others' ways, and the look of their lines; the methods have their own.
LOOKS: dict[str, dict[str, Any]] = {
    FLOOR: {"color": plots.INK, "lw": 1.2, "ls": ":"},
    FLOOR_OF_TWO: {"color": plots.SOFT, "lw": 1.2, "ls": ":"},
    "a Python loss": {"color": "#0072B2", "ls": "--", "marker": "s"},
    "torch, chunked CE": {"color": "#7F7F7F", "ls": "-.", "marker": "^"},
    "TRL, dft": {"color": "#CC79A7", "ls": "--", "marker": "v"},
    "all logits, CE": {"color": "#009E73", "ls": "-.", "marker": "D"},
}
SAID = {
    FLOOR: "floor: three products",
    FLOOR_OF_TWO: "floor with a second head",
    "target_sft": "target_sft, with a teacher's head",
}


def rows(full: bool) -> pd.DataFrame:
    """One row per way and size. Times are the machine's, so that only the full run measures; the quick one reads."""
    if not full:
        return runner.read("cost", runner.FIGURES)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        found = [
            row | {"varied": varied}
            for varied, sizes in SIZES.items()
            for size in sizes
            for row in _measured(size if varied == "tokens" else TOKENS, size if varied == "vocabulary" else VOCAB)
        ]
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(found)


def _measured(tokens: int, vocab: int) -> list[dict[str, Any]]:
    x = Problem.of(tokens, vocab, WIDTH, CHUNK)
    found = []
    for way in (FLOOR, FLOOR_OF_TWO, *SHOWN):
        base_times, times = alternate(WAYS[FLOOR](x), WAYS[way](x), ROUNDS)
        ratios = sandwiched(base_times, times)
        found.append(
            {
                "way": way,
                "tokens": tokens,
                "vocabulary": vocab,
                "ratio": statistics.median(ratios),  # to the floor
                "low": min(ratios),
                "high": max(ratios),
                "milliseconds": 1e3 * statistics.median(times),
                "mebibytes": peak_memory(way, tokens, vocab, WIDTH, CHUNK),
                "rounds": ROUNDS,
                "threads": torch.get_num_threads(),
            }
        )
    return found


def at(table: pd.DataFrame, way: str, column: str, tokens: int = TOKENS, vocab: int = VOCAB) -> float:
    chosen = table[(table["way"] == way) & (table["tokens"] == tokens) & (table["vocabulary"] == vocab)]
    return float(chosen[column].iloc[0])


def see(table: pd.DataFrame) -> str:
    widest, most = SIZES["vocabulary"][-1], SIZES["tokens"][-1]
    threads = int(table["threads"].iloc[0])
    over = max(at(table, way, "ratio", vocab=widest) for way in ("sft", "dft"))
    second = at(table, "target_sft", "ratio", vocab=widest) / at(table, FLOOR_OF_TWO, "ratio", vocab=widest)
    whole, own, trl = (at(table, way, "mebibytes", tokens=most) for way in ("all logits, CE", "dft", "TRL, dft"))
    return (
        f"On {threads} CPU cores and a vocabulary of {widest:,}, one step of SFT or DFT by qunify.linear_loss takes "
        f"{over:.2f} times the three matrix products that no exact way can save, and Target-SFT {second:.2f} times the "
        f"four that it needs. For {most:,} tokens it holds {own:,.0f} MiB beyond its inputs, all logits at once "
        f"{whole:,.0f} and TRL's kernel {trl:,.0f}."
    )


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """At the usual size and at the largest vocabulary."""
    out = []
    for way in (FLOOR, FLOOR_OF_TWO, *SHOWN):
        line: dict[str, Any] = {"Way": SAID.get(way, way)}
        for vocab in (VOCAB, SIZES["vocabulary"][-1]):
            line |= {
                f"× floor, V = {vocab:,}": at(table, way, "ratio", vocab=vocab),
                f"ms, V = {vocab:,}": at(table, way, "milliseconds", vocab=vocab),
                f"MiB, V = {vocab:,}": at(table, way, "mebibytes", vocab=vocab),
            }
        out.append(line)
    return pd.DataFrame(out)


def draw(table: pd.DataFrame) -> Figure:
    with plots.style():
        figure = Figure(figsize=(13, 8.4))
        axes = figure.subplots(2, 2, sharex="col")
        figure.subplots_adjust(left=0.075, right=0.80, top=0.93, bottom=0.13, wspace=0.12, hspace=0.14)
        for j, (varied, sizes) in enumerate(SIZES.items()):
            for i, column in enumerate(("ratio", "mebibytes")):
                _panel(axes[i, j], table[table["varied"] == varied], varied, column, ends=j == 1)
            axes[0, j].set_title(
                f"{TOKENS:,} tokens" if varied == "vocabulary" else f"a vocabulary of {VOCAB:,}",
                loc="left",
                fontsize=13,
            )
            axes[1, j].set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes[1, j].set_xticks([], minor=True)
            axes[1, j].set_xlabel({"vocabulary": "tokens in the vocabulary", "tokens": "tokens in the batch"}[varied])
        axes[0, 0].set_ylabel("time of a step, × three products")
        axes[1, 0].set_ylabel("peak memory beyond the inputs, MiB")
        figure.text(
            0.015, 0.02,
            f"Loss and gradients of hidden states and head. Width {WIDTH}, chunks of {CHUNK} rows, float32, "
            f"{int(table['threads'].iloc[0])} CPU cores; medians of {int(table['rounds'].iloc[0])} rounds, each beside "
            "the floor;\nbars from the least to the most.",
            color=plots.SOFT, fontsize=10.5,
        )  # fmt: skip
    return figure


def _panel(ax: Axes, table: pd.DataFrame, varied: str, column: str, ends: bool) -> None:
    labels = []
    for way in (FLOOR, FLOOR_OF_TWO, *SHOWN):
        line = table[table["way"] == way].sort_values(varied)
        x, y = (line[name].to_numpy(dtype=float) for name in (varied, column))
        look = LOOKS.get(way) or {"color": plots.colour(way), "marker": "o", "lw": 2.4}
        ax.plot(x, y, **{"lw": 1.8, "ms": 6, **look})
        if column == "ratio" and way not in (FLOOR, FLOOR_OF_TWO):
            ax.vlines(x, line["low"], line["high"], color=look["color"], lw=1)
        labels.append(plots.EndLabel(float(x[-1]), float(y[-1]), SAID.get(way, way), look["color"]))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    top = table[column].to_numpy(dtype=float)
    ticks = 2.0 ** np.arange(np.floor(np.log2(top.min())), np.ceil(np.log2(top.max())) + 1)
    ax.set_yticks(ticks, [f"{t:,g}" for t in ticks])
    ax.set_yticks([], minor=True)
    if ends:
        plots.label_ends(ax, labels)


STUDY = Study(
    name="cost",
    title="Time and peak memory of one step from hidden states through the head to loss and gradients.",
    question="What does any of this cost beside plain cross-entropy?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
