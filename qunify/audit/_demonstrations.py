"""Demonstrations as people keep them: a file, a folder of `datasets`, a dataset or a list of dicts, as rows of columns,
and each row as TRL takes it: `{"messages": [...]}`, or `{"prompt": ..., "completion": ...}`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

Row = dict[str, Any]

#: Columns of a question and its answer, as public data sets name them.
PAIRS = (
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("question", "response"),
)
CONVERSATIONS = ("messages", "conversations")
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def rows(source: Any) -> list[Row]:
    """The rows of a file, of a folder that `datasets` has saved, of a dataset, or of a list of dicts.

    Raises
    ------
    ValueError
        Nothing there, an ending that is not known, a broken line (with its number), or no rows.
    """
    if isinstance(source, str | Path):
        found = _read(Path(source))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        found = [dict(row) for row in source]
    else:
        raise ValueError(
            f"audit: demonstrations: expected a file, a dataset or a list of dicts, got {type(source).__name__}"
        )
    if not found:
        raise ValueError("audit: demonstrations: expected at least one row, got none")
    return found


def _read(path: Path) -> list[Row]:
    where = f"audit: demonstrations: {path}"
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise ValueError(f"{where}: no such file")
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        with path.open(encoding="utf-8-sig") as lines:
            return [_line(where, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if kind == ".json":
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}") from None
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise ValueError(f"{where}: expected a list of objects; for an object per line the ending is .jsonl")
        return found
    if kind in (".csv", ".tsv"):
        try:
            table = pd.read_csv(path, sep="\t" if kind == ".tsv" else ",", dtype=str, keep_default_na=False)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return table.to_dict("records")  # type: ignore[return-value]
    if kind == ".parquet":
        return _parquet(where, path)
    raise ValueError(f"{where}: expected a name that ends in {', '.join(ENDINGS)}, or a folder")


def _parquet(where: str, path: Path) -> list[Row]:
    from datasets import Dataset

    try:
        return list(Dataset.from_parquet(str(path), keep_in_memory=True))
    except Exception as error:  # of pyarrow, of datasets: whichever finds the fault
        raise ValueError(f"{where}: not a parquet file: {error}") from None


def _folder(path: Path) -> list[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(path))
    except FileNotFoundError:
        raise ValueError(
            f"audit: demonstrations: {path}: expected a folder written by datasets' save_to_disk"
        ) from None
    if isinstance(found, DatasetDict):
        if "train" not in found:
            raise ValueError(f"audit: demonstrations: {path}: expected a split `train`, got {', '.join(found)}")
        found = found["train"]
    return list(found)


def _line(where: str, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: line {number}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: line {number}: expected an object, got {type(row).__name__}")
    return row


def examples(found: list[Row], prompt: str | None = None, completion: str | None = None) -> list[Row]:
    """Each row as `{"messages": ...}` or as `{"prompt": ..., "completion": ...}`, by columns that are named here or by
    those that public data sets use.

    Raises
    ------
    ValueError
        Columns that are not there, with the nearest, or a value that is neither text nor messages, with its row.
    """
    columns = tuple(found[0])
    for option, name in (("prompt", prompt), ("completion", completion)):
        if name is not None and name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f", did you mean {near[0]}?" if near else f"; there are {', '.join(columns)}"
            raise ValueError(f"audit: {option}: no column {name!r}{hint}")
    if (prompt is None) != (completion is None):
        raise ValueError("audit: expected both the prompt's and the completion's column, got one")
    if prompt is None or completion is None:
        conversation = next((name for name in CONVERSATIONS if name in columns), None)
        if conversation is not None:
            return [_messages(i, row.get(conversation)) for i, row in enumerate(found, start=1)]
        pair = next((pair for pair in PAIRS if set(pair) <= set(columns)), None)
        if pair is None:
            known = "; ".join([*(" and ".join(pair) for pair in PAIRS), *CONVERSATIONS])
            raise ValueError(
                f"audit: demonstrations: expected columns {known}, or their names by `prompt` and `completion`, got "
                f"{', '.join(columns)}"
            )
        prompt, completion = pair
    return [_pair(i, row, prompt, completion) for i, row in enumerate(found, start=1)]


def _pair(number: int, row: Row, prompt: str, completion: str) -> Row:
    asked, said = row.get(prompt), row.get(completion)
    if prompt == "instruction" and row.get("input"):  # as Stanford Alpaca's: the instruction, then what it is about
        asked = f"{asked}\n\n{row['input']}"
    for name, value in ((prompt, asked), (completion, said)):
        if not isinstance(value, str) and not _is_conversation(value):
            raise ValueError(
                f"audit: demonstrations: row {number}: column {name!r}: expected text or messages, got "
                f"{type(value).__name__}; where `datasets` or pandas has read text as dates or numbers, give the file"
            )
    if isinstance(asked, str) != isinstance(said, str):
        raise ValueError(f"audit: demonstrations: row {number}: expected two texts or two lists of messages, got both")
    return {"prompt": asked, "completion": said}


def _messages(number: int, value: Any) -> Row:
    from trl import maybe_convert_to_chatml

    if isinstance(value, list):
        converted = maybe_convert_to_chatml({"messages": [dict(m) if isinstance(m, Mapping) else m for m in value]})
        value = converted["messages"]
    if not _is_conversation(value):
        raise ValueError(
            f"audit: demonstrations: row {number}: expected messages with `role` and `content` (or `from` and "
            f"`value`), got {value!r:.80}"
        )
    roles = {"human": "user", "gpt": "assistant"}  # ShareGPT's
    return {"messages": [{**m, "role": roles.get(m["role"], m["role"])} for m in value]}


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in value)
