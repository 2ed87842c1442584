"""Demonstrations as people keep them: a file, a folder of `datasets`, a dataset or a list of dicts, as rows of columns,
and each row as TRL takes it: `{"messages": [...]}`, `{"prompt": ..., "completion": ...}`, or `{"text": ...}`."""

from __future__ import annotations

import contextlib
import difflib
import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from qunify._lib.jsonl import object_in

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
    ("input", "output"),
)
CONVERSATIONS = ("messages", "conversations")
TEXT = "text"  # without a prompt: all of it is trained on
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
#: What a chat template is given beside the messages, as TRL takes it from a row.
BESIDE = {"tools": list, "chat_template_kwargs": dict}


def rows(source: Any) -> list[Row]:
    """The rows of a file, of a folder that `datasets` has saved, of a dataset, of a data frame, or of a list of dicts.

    Raises
    ------
    ValueError
        Nothing there, an ending that is not known, a broken line (with its number), or no rows.
    """
    if isinstance(source, str | Path):
        found = _read(Path(source))
    elif isinstance(source, pd.DataFrame):
        found = [{str(name): value for name, value in row.items()} for row in source.to_dict("records")]
    elif hasattr(source, "num_rows") and isinstance(source, Mapping):
        found = _train(source, "audit: demonstrations")
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
    packed = path.suffix.lower() == ".gz"
    kind = (path.with_suffix("") if packed else path).suffix.lower()
    if kind == ".parquet" and not packed:
        return _parquet(where, path)
    if kind not in ENDINGS or kind == ".parquet":
        expected = f"{', '.join(ENDINGS)}, with .gz behind it or not,"
        raise ValueError(f"{where}: expected a name that ends in {expected} or a folder")
    try:
        with gzip.open(path, "rt", **_TEXT) if packed else path.open(**_TEXT) as file:
            return _rows(where, kind, file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: expected UTF-8: {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{where}: not a gzip file: {error}") from None


_TEXT: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}


def _rows(where: str, kind: str, file: TextIO) -> list[Row]:
    if kind in (".jsonl", ".ndjson"):
        return _lines(where, file)
    if kind == ".json":
        return _json(where, file.read())
    header = file.readline()
    file.seek(0)
    sign = "\t" if kind == ".tsv" else ";" if ";" in header and "," not in header else ","  # as Excel writes in Europe
    try:
        table = pd.read_csv(file, sep=sign, dtype=str, keep_default_na=False)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return table.to_dict("records")  # type: ignore[return-value]


def _lines(where: str, lines: Iterable[str]) -> list[Row]:
    return [_line(where, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _json(where: str, text: str) -> list[Row]:
    """A list of objects, also as the only one in an object; an object of columns; or an object a line."""
    try:
        found = json.loads(text)
    except ValueError as error:
        try:
            json.loads(text.strip().split("\n")[0])
        except ValueError:
            raise ValueError(f"{where}: not JSON: {error}") from None
        return _lines(where, text.split("\n"))
    if isinstance(found, dict) and any(name in found for name in CONVERSATIONS):
        return [found]
    if isinstance(found, dict):
        lists = {name: value for name, value in found.items() if isinstance(value, list)}
        tables = [value for value in lists.values() if _is_table(value)]
        if len(tables) == 1:
            return tables[0]
        if not tables and lists and len(lists) == len(found) and len({*map(len, lists.values())}) == 1:
            return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    if not _is_table(found):
        raise ValueError(f"{where}: expected a list of objects, an object with one, or an object of columns")
    return found


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


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
    return _train(found, f"audit: demonstrations: {path}") if isinstance(found, DatasetDict) else list(found)


def _train(splits: Mapping[str, Any], where: str) -> list[Row]:
    if "train" not in splits:
        raise ValueError(f"{where}: expected a split `train`, got {', '.join(splits)}")
    return list(splits["train"])


def _line(where: str, number: int, line: str) -> Row:
    try:
        return object_in(line.rstrip())
    except ValueError as error:
        raise ValueError(f"{where}: line {number}: {error}") from None


def examples(found: list[Row], prompt: str | None = None, completion: str | None = None) -> list[Row]:
    """Each row as `{"messages": ...}`, as `{"prompt": ..., "completion": ...}` or as `{"text": ...}`, by columns that
    are named here or by those that public data sets use.

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
            return [_messages(i, row.get(conversation)) | _beside(i, row) for i, row in enumerate(found, start=1)]
        pair = next((pair for pair in PAIRS if set(pair) <= set(columns)), None)
        if pair is None and TEXT in columns:
            return [{TEXT: _text(i, TEXT, row.get(TEXT))} for i, row in enumerate(found, start=1)]
        if pair is None:
            known = "; ".join([*(" and ".join(pair) for pair in PAIRS), *CONVERSATIONS, TEXT])
            raise ValueError(
                f"audit: demonstrations: expected columns {known}, or their names by `prompt` and `completion`, got "
                f"{', '.join(columns)}"
            )
        prompt, completion = pair
    return [_pair(i, row, prompt, completion) | _beside(i, row) for i, row in enumerate(found, start=1)]


def _beside(number: int, row: Row) -> Row:
    found = {}
    for name, kind in BESIDE.items():
        value = row.get(name)
        if isinstance(value, str) and value:
            with contextlib.suppress(ValueError):  # said below
                value = json.loads(value)
        if value and not isinstance(value, kind):
            raise ValueError(
                f"audit: demonstrations: row {number}: column {name!r}: expected a {kind.__name__}, or JSON of one, "
                f"got {value!r:.80}"
            )
        if value:
            found[name] = value
    return found


def _pair(number: int, row: Row, prompt: str, completion: str) -> Row:
    asked, said = row.get(prompt), row.get(completion)
    what = row.get("input") or row.get("context")
    if prompt == "instruction" and what:  # as Stanford's Alpaca and Dolly: the instruction, then what it is about
        asked = f"{asked}\n\n{what}"
    for name, value in ((prompt, asked), (completion, said)):
        if not _is_conversation(value):
            _text(number, name, value, "text or messages")
    if isinstance(asked, str) != isinstance(said, str):
        raise ValueError(f"audit: demonstrations: row {number}: expected two texts or two lists of messages, got both")
    return {"prompt": _plain(number, asked), "completion": _plain(number, said)}


def _text(number: int, column: str, value: Any, expected: str = "text") -> str:
    if not isinstance(value, str):
        raise ValueError(
            f"audit: demonstrations: row {number}: column {column!r}: expected {expected}, got "
            f"{type(value).__name__}; where `datasets` or pandas has read text as dates or numbers, give the file"
        )
    return value


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
    return {"messages": _plain(number, [{**m, "role": roles.get(m["role"], m["role"])} for m in value])}


def without_weight(given: list[Row]) -> int:
    """How many answers carry the weight 0 by which OpenAI's format leaves them out of training; TRL trains on them."""
    messages = (m for row in given for m in row.get("messages", ()) if m["role"] == "assistant")
    return sum(m.get("weight") == 0 for m in messages)


def _plain(number: int, value: Any) -> Any:
    """Text, or messages of text: parts are joined, and what is None is left out, as `datasets` fills up with it."""
    if isinstance(value, str):
        return value
    return [{k: v for k, v in m.items() if v is not None} | {"content": _content(number, m)} for m in value]


def _content(number: int, message: Mapping[str, Any]) -> str:
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            got = part.get("type") if isinstance(part, Mapping) else part
            raise ValueError(
                f"audit: demonstrations: row {number}: expected parts of text in a message, got {got!r:.80}"
            )
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def _is_conversation(value: Any) -> bool:
    """Messages; one that calls tools may say nothing."""
    return isinstance(value, list) and all(
        isinstance(m, Mapping) and "role" in m and bool({"content", "tool_calls"} & set(m)) for m in value
    )
