"""Demonstrations as a trainer reads them, and what a method trusts beside them, as the column `weight`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from qunify._lib import files
from qunify.audit._encoding import Encoded


@dataclass(frozen=True)
class Source:
    """Demonstrations as they were given, and as the model reads them."""

    rows: Sequence[Mapping[str, Any]]
    encoded: Sequence[Encoded]


def write(
    path: Path, source: Source | None, tokens: pd.DataFrame, method: str, per: Literal["example", "token"]
) -> Path:
    """See `Audit.write_weights`."""
    given, column = _given(source), f"trust_{method}"
    known = [str(c) for c in tokens if str(c).startswith("trust_") and tokens[c].notna().all()]
    if column not in known:
        has = ", ".join(name.removeprefix("trust_") for name in known)
        raise ValueError(f"audit: weights: expected a method of this audit that has a trust ({has}), got {method!r}")
    if per not in ("example", "token"):
        raise ValueError(f"audit: weights: expected per 'example' or 'token', got {per!r}")
    by = tokens.groupby("example")[column]
    rows = _of_examples(given, by.mean()) if per == "example" else _of_tokens(given, by.agg(list))
    return files.write(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode())


def _of_examples(source: Source, weights: pd.Series) -> list[dict[str, Any]]:
    return [{**row, "weight": float(weights.get(i, 0.0))} for i, row in enumerate(source.rows)]


def _of_tokens(source: Source, weights: pd.Series) -> list[dict[str, Any]]:
    found = []
    for i, row in training_rows(source).items():
        whole = [0.0] * len(row["input_ids"])
        for t, weight in zip(source.encoded[i].places, weights[i], strict=True):
            whole[t] = weight
        found.append({**row, "weight": whole})
    return found


def training_rows(source: Source | None) -> dict[int, dict[str, Any]]:
    """`input_ids` and `labels` of every demonstration that has a token to train on, by its number."""
    return {
        i: {"input_ids": e.ids, "labels": [t if counts else -100 for t, counts in zip(e.ids, e.counted, strict=True)]}
        for i, e in enumerate(_given(source).encoded)
        if any(e.counted)
    }


def _given(source: Source | None) -> Source:
    if source is None:
        raise ValueError("audit: demonstrations: expected an audit that has just run, got one read from a folder")
    return source
