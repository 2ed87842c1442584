"""Time and memory of the fused loss, against the products that no exact way can save, and against others' losses."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import qunify as qu
from benchmarks.heads import TWO_HEADS, WAYS, Problem, peak_memory
from benchmarks.timing import Result, alternate, sandwiched

ROUNDS = 7
TOKENS = CHUNK = 512
WIDTH = 512
#: And the most that a way may take of the floor: one without vectors of its own, GEM, and those with a second head.
VOCABULARIES = {32_000: (1.03, 1.06, 1.1), 152_000: (1.08, 1.12, 1.12)}
MEMORY = {"tokens": 1024, "vocab": 65_536, "width": WIDTH, "chunk": CHUNK}


def bars(vocab: int) -> list[tuple[str, str, float]]:
    """Ways, the floor (or the other way) that each is held against, and the most it may take."""
    plain, gem, two = VOCABULARIES[vocab]
    return [
        *((way, "mm3", plain) for way in ("sft", "dft", "label_smoothing")),
        ("gem", "mm3", gem),
        *((way, "mm4", two) for way in TWO_HEADS),
        ("a Python loss", "mm3", 1.8),
        ("sft", "torch, chunked CE", 1.0),
        *([("sft", "TRL, nll", 0.5), ("dft", "TRL, dft", 0.5)] if vocab == min(VOCABULARIES) else []),
    ]


def run() -> list[Result]:
    torch.set_num_threads(os.cpu_count() or 1)
    found = []
    for vocab in VOCABULARIES:
        x = Problem.of(TOKENS, vocab, WIDTH, CHUNK)
        sizes = {"tokens": TOKENS, "vocabulary": vocab, "width": WIDTH, "chunk": CHUNK, "threads": os.cpu_count()}
        for way, base, most in bars(vocab):
            ratios = sandwiched(*alternate(WAYS[base](x), WAYS[way](x), ROUNDS))
            name = f"{way} / {base}, V = {vocab // 1000}k"
            found.append(Result.of(name, ratios, "×", at_most=most, sizes=sizes))
    return found + half_silent() + memory()


def half_silent() -> list[Result]:
    """Half of the rows with a gradient of zero, against a step on the others alone. Whether they are left out before
    the head is known of labels, masks and weights; of a threshold on u only after it, so that a third stays."""
    x = Problem.of(2 * TOKENS, min(VOCABULARIES), WIDTH, CHUNK)
    half = (torch.arange(2 * TOKENS) % 2 == 0).float()
    rest = replace(x, hidden=x.hidden.detach()[::2].contiguous().requires_grad_(), labels=x.labels[::2])
    with torch.no_grad():
        u = (x.hidden @ x.weight.T).softmax(-1).gather(1, x.labels[:, None])
    profit = qu.get("profit", threshold=float(u.median()))
    ignored = torch.where(half > 0, x.labels, -100)
    ways: dict[str, tuple[Callable[[], Tensor], float]] = {
        "sft, ignored labels": (lambda: qu.linear_loss(x.hidden, x.weight, ignored, "sft", chunk_size=CHUNK), 1.03),
        "cft, by its mask": (
            lambda: qu.linear_loss(x.hidden, x.weight, x.labels, "cft", chunk_size=CHUNK, token_mask=half),
            1.03,
        ),
        "profit, by its threshold": (
            lambda: qu.linear_loss(x.hidden, x.weight, x.labels, profit, chunk_size=CHUNK),
            4 / 3 * 1.03,
        ),
    }
    sizes = {"tokens": 2 * TOKENS, "vocabulary": min(VOCABULARIES), "width": WIDTH, "chunk": CHUNK}
    found = []
    for way, (loss, most) in ways.items():

        def step(loss: Callable[[], Tensor] = loss) -> None:
            x.backward(loss())

        ratios = sandwiched(*alternate(WAYS["sft"](rest), step, ROUNDS))
        found.append(Result.of(f"half silent: {way} / sft on the rest", ratios, "×", at_most=most, sizes=sizes))
    return found


def memory() -> list[Result]:
    """Peaks beyond the inputs, each over that of the products alone, which is the processor's as well: its matrix
    library takes memory of its own."""
    floors = {way: "mm4" if way in TWO_HEADS else "mm3" for way in ("sft", "dft", "label_smoothing", "gem", *TWO_HEADS)}
    peaks = {way: peak_memory(way, **MEMORY) for way in (*floors, "mm3", "mm4", "TRL, dft")}

    def over(way: str, base: str, most: float) -> Result:
        sizes: dict[str, Any] = MEMORY | {"MiB": round(peaks[way], 1)}
        return Result.of(f"memory of {way} / {base}", [peaks[way] / peaks[base]], "×", at_most=most, sizes=sizes)

    return [*(over(way, base, 1.1) for way, base in floors.items()), over("dft", "TRL, dft", 0.25)]
