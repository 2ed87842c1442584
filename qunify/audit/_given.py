"""What an audit is asked for, checked before any model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from qunify.audit._encoding import Encoded
from qunify.catalogue import as_method, get, names, numbered
from qunify.hf import Head, digit_values
from qunify.maps import Method, QMap


def chosen_methods(methods: Sequence[Method] | None, given: Mapping[str, Any]) -> dict[str, QMap]:
    """Every method by the name of its columns."""
    there = {name for name, value in given.items() if value is not None}
    if methods is None:
        return {name: get(name) for name in names() if set(get(name).needs) <= there}
    if not methods:
        raise ValueError("audit: methods: expected at least one, got none")
    maps = [as_method(method, "audit") for method in methods]
    called: list[str] = []
    for m in maps:
        settings = "(" + ", ".join(f"{key}={value}" for key, value in m.params.items()) + ")"
        called.append(f"{m.name}{settings}" if m.name in called and m.params else m.name)
    found: dict[str, QMap] = {}
    for m, name in zip(maps, numbered(called, maps), strict=True):
        missing = [name for name in m.needs if name not in there]
        if missing:
            needed = " and a ".join(name.removesuffix("_logits") for name in missing if name in given)
            told = f"expected a {needed}, got none" if needed else "no audit has that"
            raise ValueError(f"audit: methods: {m.name} needs {', '.join(missing)}: {told}")
        if name in found:
            raise ValueError(f"audit: methods: expected different methods, got {name} twice")
        found[name] = m
    return found


def with_digits(
    chosen: Mapping[str, QMap], tokenizer: Any, vocab: int, named: bool
) -> tuple[dict[str, QMap], Tensor | None]:
    """The methods, and what each token is as a number, (V,), where one of them asks. Where no token is a digit, methods
    that were not `named` and ask are left out.

    Raises
    ------
    ValueError
        Such a method that was named.
    """
    asking = [name for name, m in chosen.items() if "token_values" in m.needs]
    if not asking:
        return dict(chosen), None
    try:
        return dict(chosen), digit_values(tokenizer, vocab)
    except ValueError as error:
        if named:
            raise ValueError(f"audit: methods: {asking[0]} needs {error}") from None
        return {name: m for name, m in chosen.items() if name not in asking}, None


_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no", "", "none"}


def flags(rows: Sequence[Mapping[str, Any]], flag: str | None) -> pd.Series | None:
    if flag is None:
        return None
    values = []
    for number, row in enumerate(rows, start=1):
        if flag not in row:
            raise ValueError(f"audit: flag: no column {flag!r} in row {number}; there are {', '.join(row)}")
        text = str(row[flag]).strip().lower().removesuffix(".0")
        if text not in _TRUE | _FALSE:
            raise ValueError(f"audit: flag: row {number}: expected true or false, got {row[flag]!r}")
        values.append(text in _TRUE)
    return pd.Series(values)


def check_device(device: str | torch.device | None) -> None:
    """ValueError unless there is such a device."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"audit: device: expected one that torch has here, got {device}: {said}") from None


def check_apart(models: Mapping[str, Any]) -> None:
    """ValueError where a reference or a teacher is the very model that a rehearsal trains, and would move with it."""
    for what, other in models.items():
        if what != "model" and not isinstance(other, str | Path) and other is models["model"]:
            raise ValueError(
                f"audit: {what}: expected another model than the one that the rehearsal trains, got the same: give its "
                "folder, or a copy"
            )


def positions_of(model: Any) -> int | None:
    """The tokens that a model is made for, where its configuration says so."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found


def check_positions(model: Any, encoded: Sequence[Encoded]) -> None:
    """ValueError where a demonstration is longer than a table of positions: beyond that there is none to look up."""
    positions, words = positions_of(model), model.get_input_embeddings()
    tables = (m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding) and m is not words)
    if positions is None or not any(positions <= rows <= positions + 2 for rows in tables):  # OPT's has two more
        return
    if over := sum(len(e.ids) > positions for e in encoded):
        raise ValueError(
            f"audit: max_length: expected at most the {positions} positions that the model has, as {over} "
            f"demonstration{'s are' if over > 1 else ' is'} longer"
        )


def check_vocabularies(models: Mapping[str, Any], encoded: Sequence[Encoded]) -> None:
    vocab = Head.of(models["model"]).vocab
    for what, other in models.items():
        if Head.of(other).vocab != vocab:
            hint = (
                ": answers recorded by `qunify record` may come from one of another size" if what == "teacher" else ""
            )
            raise ValueError(
                f"audit: {what}: expected the model's vocabulary of {vocab} tokens, got one of {Head.of(other).vocab}"
                f"{hint}"
            )
    largest = max(max(e.ids) for e in encoded if e.ids)
    if largest >= vocab:
        raise ValueError(f"audit: tokenizer: expected ids below the model's {vocab}, got {largest}: another model's?")
