"""Time and memory of the fused loss, against the products that no exact way can save, and against others' losses."""

from __future__ import annotations

import os
from typing import Any

import torch

from benchmarks.heads import TWO_HEADS, WAYS, Problem, peak_memory
from benchmarks.timing import Result, alternate, sandwiched

ROUNDS = 7
TOKENS = CHUNK = 512
WIDTH = 512
VOCABULARIES = (32_000, 152_000)
MEMORY = {"tokens": 1024, "vocab": 65_536, "width": WIDTH, "chunk": CHUNK}

#: Ways, the floor (or the other way) that each is held against, and the most it may take.
BARS = [
    *((way, "mm3", 1.15) for way in ("sft", "dft", "label_smoothing", "gem")),
    *((way, "mm4", 1.2) for way in TWO_HEADS),
    ("a Python loss", "mm3", 1.8),
    ("sft", "torch, chunked CE", 1.0),
    ("sft", "TRL, nll", 0.5),
    ("dft", "TRL, dft", 0.5),
]
MEGABYTE = 2**20


def run() -> list[Result]:
    torch.set_num_threads(os.cpu_count() or 1)
    found = []
    for vocab in VOCABULARIES:
        x = Problem.of(TOKENS, vocab, WIDTH, CHUNK)
        sizes = {"tokens": TOKENS, "vocabulary": vocab, "width": WIDTH, "chunk": CHUNK, "threads": os.cpu_count()}
        for way, base, most in BARS:
            if base.startswith("TRL") and vocab > VOCABULARIES[0]:
                continue
            ratios = sandwiched(*alternate(WAYS[base](x), WAYS[way](x), ROUNDS))
            name = f"{way} / {base}, V = {vocab // 1000}k"
            found.append(Result.of(name, ratios, "×", at_most=most, sizes=sizes))
    return found + memory()


def memory() -> list[Result]:
    """Peaks beyond the inputs, each over what the gradients and one or two chunks of logits take."""
    rows = MEMORY["tokens"] + MEMORY["vocab"]
    found = []
    for way in ("sft", "dft", "label_smoothing", "gem", *TWO_HEADS):
        chunks = 2 if way in TWO_HEADS else 1
        held = 4 * (rows * MEMORY["width"] + chunks * MEMORY["chunk"] * MEMORY["vocab"]) / MEGABYTE
        found.append(_ratio(f"memory of {way} / gradients and {chunks} chunk{'s'[: chunks - 1]}", way, held, 1.1))
    trl = peak_memory("TRL, dft", **MEMORY)
    return [*found, _ratio("memory of dft / TRL, dft", "dft", trl, 0.25)]


def _ratio(name: str, way: str, base: float, most: float) -> Result:
    peak = peak_memory(way, **MEMORY)
    sizes: dict[str, Any] = MEMORY | {"MiB": round(peak, 1)}
    return Result.of(name, [peak / base], "×", at_most=most, sizes=sizes)
