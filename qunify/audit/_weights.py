"""What a method trusts, written beside the demonstrations as the column `weight` of a trainer's data."""

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
    if source is None:
        raise ValueError("audit: weights: expected an audit that has just run, got one read from a folder")
    column = f"trust_{method}"
    known = [str(c) for c in tokens if str(c).startswith("trust_") and tokens[c].notna().all()]
    if column not in known:
        has = ", ".join(name.removeprefix("trust_") for name in known)
        raise ValueError(f"audit: weights: expected a method of this audit that has a trust ({has}), got {method!r}")
    if per not in ("example", "token"):
        raise ValueError(f"audit: weights: expected per 'example' or 'token', got {per!r}")
    by = tokens.groupby("example")[column]
    rows = _of_examples(source, by.mean()) if per == "example" else _of_tokens(source, by.agg(list))
    return files.write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _of_examples(source: Source, weights: pd.Series) -> list[dict[str, Any]]:
    return [{**row, "weight": float(weights.get(i, 0.0))} for i, row in enumerate(source.rows)]


def _of_tokens(source: Source, weights: pd.Series) -> list[dict[str, Any]]:
    found = []
    for i, e in enumerate(source.encoded):
        if i not in weights.index:
            continue
        whole = [0.0] * len(e.ids)
        for t, weight in zip(e.places, weights[i], strict=True):
            whole[t] = weight
        labels = [token if counts else -100 for token, counts in zip(e.ids, e.counted, strict=True)]
        found.append({"input_ids": e.ids, "labels": labels, "weight": whole})
    return found
