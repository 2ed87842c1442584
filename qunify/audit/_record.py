"""A teacher's answers to demonstrations, once and for all: the likeliest tokens at every token that is trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from qunify._lib.digests import digest
from qunify.audit import _demonstrations, _processes
from qunify.audit._encoding import Encoded, encode_all
from qunify.audit._forward import batches, logits
from qunify.audit._given import check_device
from qunify.audit._models import check_model, load_model, load_tokenizer
from qunify.hf import Answers, Head

#: Demonstrations that are written together: those of like length among them go through the model together.
WINDOW = 32


def record(
    model: Any,
    demonstrations: Any,
    out: str | Path,
    tokenizer: Any = None,
    top_k: int = 20,
    *,
    prompt: str | None = None,
    completion: str | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    batch_tokens: int = 4096,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write what a model says to every demonstration, for `audit.run(teacher=…)` and `SFTTrainer(teacher_answers=…)`.

    A jsonl file. Its first line says what it was made of; after it stands a line for each demonstration: `ids`, all of
    its tokens; `positions`, those of the tokens that are trained on; and for each of these `tokens`, the `top_k`
    likeliest and the token itself, with their `logprobs` in nats, to six digits.

    Finished lines are kept beside `out`, under its name and `.partial`, until the file is complete. A run that was
    stopped goes on after them.

    Parameters
    ----------
    model, demonstrations, tokenizer, prompt, completion, limit, max_length, batch_tokens, device
        As for `qunify.audit.run`.
    out : path
        The file to write.
    top_k : int
        Tokens at each position; of the vocabulary, if that has fewer.

    Returns
    -------
    dict
        `file`; how many `demonstrations` and `tokens` it answers; `kept`, the demonstrations found finished.

    Raises
    ------
    ValueError
        One sentence for what is missing or does not fit, as `run`; and for finished lines, or a file at `out`, of
        another model, other data or other options, or of something else: nothing is written over.
    """
    for name, number in (("top_k", top_k), ("limit", limit)):
        if number is not None and number < (1 if name == "top_k" else 0):
            raise ValueError(f"record: {name}: expected a number of at least {int(name == 'top_k')}, got {number}")
    if (processes := _processes.count()) > 1:
        raise ValueError(f"record: expected to be the only process, got {processes}: start it without a launcher")
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    rows = _demonstrations.rows(demonstrations)[:limit]
    given = _demonstrations.examples(rows, prompt, completion) if rows else []
    check_model(model, "model")
    read = load_tokenizer(tokenizer, model)
    encoded = encode_all(given, read, max_length)
    if out.is_file() and not _header_of(out):
        raise ValueError(f"record: {out}: expected no file, or recorded answers, got another file: choose another name")
    check_device(device)
    if not any(any(e.counted) for e in encoded):
        raise ValueError(f"record: demonstrations: expected a token to train on, got none in {len(given)}")
    with partial.open("a"):  # whether it can be written is known before the model is loaded
        pass
    try:
        teacher = load_model(model, device)
        vocab = Head.of(teacher).vocab
        largest = max(max(e.ids, default=0) for e in encoded)
        if largest >= vocab:
            raise ValueError(
                f"record: tokenizer: expected ids below the model's {vocab}, got {largest}: another model's?"
            )
        made_of = {
            "format": 1,
            "model": digest(dict(teacher.state_dict())),
            "data": digest([(e.ids, e.counted) for e in encoded]),
            "top_k": min(top_k, vocab),
            "vocab": vocab,
        }
        about = {"file": str(out), "demonstrations": len(encoded), "tokens": sum(sum(e.counted) for e in encoded)}
        if _finished(out, made_of) == len(encoded):
            return {**about, "kept": len(encoded)}
        kept = _resumable(partial, made_of)
        with partial.open("a", encoding="utf-8") as file:
            if kept is None:
                file.write(json.dumps({Answers.HEADER: made_of}) + "\n")
            _answer(teacher, encoded, kept or 0, min(top_k, vocab), file, batch_tokens, progress)
        partial.replace(out)
        return {**about, "kept": kept or 0}
    finally:
        if partial.exists() and not partial.stat().st_size:
            partial.unlink()


def _answer(
    teacher: Any, encoded: Sequence[Encoded], start: int, top_k: int, file: IO[str], tokens: int, progress: bool
) -> None:
    """Add the lines from `start` on, in their order."""
    lengths = [len(e.ids) for e in encoded]
    with tqdm(total=sum(lengths), initial=sum(lengths[:start]), unit="tok", desc="record", disable=not progress) as bar:
        for first in range(start, len(encoded), WINDOW):
            window = range(first, min(first + WINDOW, len(encoded)))
            lines: dict[int, dict[str, Any]] = {
                i: {"ids": encoded[i].ids, "positions": [], "tokens": [], "logprobs": []} for i in window
            }
            for batch in batches([i for i in window if any(encoded[i].counted)], encoded, tokens):
                for found, ids, at in logits({"model": teacher}, [encoded[i] for i in batch]):
                    listed = _likeliest(found["model"], ids, top_k)
                    for (b, t), (names, values) in zip(at, listed, strict=True):
                        line = lines[batch[b]]
                        for key, value in (("positions", t), ("tokens", names), ("logprobs", values)):
                            line[key].append(value)
                bar.update(sum(lengths[i] for i in batch))
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines.values())
            file.flush()


def _likeliest(z: Tensor, ids: Tensor, top_k: int) -> list[tuple[list[int], list[float]]]:
    """At each row of logits (n, V) the likeliest tokens and the one that stands there, without those ruled out."""
    log_p = z.log_softmax(-1)
    if bool(log_p.isnan().any()):
        raise ValueError("record: model: expected logits that are numbers, got NaN")
    values, tokens = log_p.topk(top_k)
    own = log_p.gather(-1, ids[:, None])
    extra = (tokens != ids[:, None]).all(-1, keepdim=True)
    values = torch.cat([values, own.where(extra, -torch.inf)], -1).cpu()
    tokens = torch.cat([tokens, ids[:, None]], -1).cpu()
    there = values > -torch.inf
    return [
        (row[some].tolist(), [round(value, 6) for value in numbers[some].tolist()])
        for row, numbers, some in zip(tokens, values, there, strict=True)
    ]


# ---- going on ------------------------------------------------------------------------------------------------------
def _finished(path: Path, made_of: dict[str, Any]) -> int | None:
    """How many demonstrations a complete file answers; None where there is none, ValueError for one of another
    making."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        _check_making(path, _header(file.readline()), made_of)
        return sum(1 for _ in file)


def _check_making(path: Path, header: dict[str, Any], made_of: dict[str, Any]) -> None:
    other = [key for key in made_of if header.get(key) != made_of[key]]
    if other:
        raise ValueError(
            f"record: {path}: expected answers begun with the same model, data and options, got another "
            f"{' and '.join(other)}: remove the file to begin anew"
        )


def _resumable(partial: Path, made_of: dict[str, Any]) -> int | None:
    """How many finished lines there are, what comes after the last of them cut off; None where not even the first is.

    Raises
    ------
    ValueError
        Lines of another making.
    """
    end, lines = 0, 0
    with partial.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            if not lines:
                _check_making(partial, _header(line), made_of)
            end, lines = end + len(line), lines + 1
    with partial.open("r+b") as file:
        file.truncate(end)
    return lines - 1 if lines else None


def _header_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return _header(file.readline())


def _header(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)[Answers.HEADER]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
