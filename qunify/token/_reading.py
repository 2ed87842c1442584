"""The only place that validates a call: shapes, types and ranges of its arguments, before any arithmetic."""

from __future__ import annotations

import difflib
import functools
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunify._lib.arrays import for_torch
from qunify.token._base import CONTEXTS, PER_TOKEN, SHARED
from qunify.token._pools import Pooling
from qunify.token._tensors import TensorToken

#: The keyword that says which positions are one sequence, for methods that look beyond the position.
SEQUENCES = "sequence_ids"


@dataclass(frozen=True)
class Layout:
    """Which positions of a batch were kept: from (…, V) to the N kept rows, and from rows back to (…, V)."""

    mask: Tensor  # (…), bool

    def rows(self, x: Tensor) -> Tensor:
        """(…, V) or (…) → the kept rows, (N, V) or (N,)."""
        flat = x.reshape((self.mask.numel(), *x.shape[self.mask.dim() :]))
        return flat if bool(self.mask.all()) else flat[self.mask.reshape(-1)]

    def spread(self, rows: Tensor) -> Tensor:
        """(N, V) or (N,) → (…, V) or (…), zero at ignored positions."""
        shape = self.mask.shape + rows.shape[1:]
        if len(rows) == self.mask.numel():
            return rows.reshape(shape)
        out = rows.new_zeros((self.mask.numel(), *rows.shape[1:]))
        out[self.mask.reshape(-1)] = rows
        return out.reshape(shape)


def read(
    method: str,
    needs: tuple[str, ...] | None,
    logits: Any,
    labels: Any,
    ignore_index: int,
    context: Mapping[str, Any],
) -> tuple[TensorToken, Layout]:
    """Validate one call and return its kept rows as a Token.

    `needs` names the contexts the method uses (None: whichever it asks for); other known contexts are
    accepted and left alone, so that one call can serve many methods. Rows whose label is `ignore_index` are
    dropped before anything is computed, so that even NaN may stand in them. `sequence_ids`, integers (…) among the
    contexts, says which positions are one sequence; by default those along the last dimension of the labels are.

    Raises
    ------
    ValueError
        One sentence naming method, argument, what was expected and what came.
    """
    logits = as_tensor(method, "logits", logits)
    labels = as_tensor(method, "labels", labels, logits.device)
    if not isinstance(ignore_index, numbers.Integral) or isinstance(ignore_index, bool):
        raise ValueError(f"{method}: ignore_index: expected an integer, got {ignore_index!r}")
    if not logits.is_floating_point():
        raise ValueError(f"{method}: logits: expected floating point, got {_short(logits.dtype)}")
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{method}: logits: expected shape (…, V) with V ≥ 1, got {tuple(logits.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{method}: labels: expected integers, got {_short(labels.dtype)}")
    lead, vocab = logits.shape[:-1], logits.shape[-1]
    if labels.shape != lead:
        raise ValueError(
            f"{method}: labels: expected shape {tuple(lead)} to match logits {tuple(logits.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    context = dict(context)
    sequences = context.pop(SEQUENCES, None)
    for name in context:
        if name not in CONTEXTS:
            near = difflib.get_close_matches(name, (*CONTEXTS, SEQUENCES), 1)
            hint = f", did you mean {near[0]}?" if near else f"; known contexts are {', '.join(CONTEXTS)}"
            raise ValueError(f"{method}: unknown context {name!r}{hint}")
    wanted = tuple(context) if needs is None else needs
    for name in wanted:
        if context.get(name) is None:
            raise ValueError(f"{method}: missing context, expected the keyword argument {name}")

    labels = labels.long()
    layout = Layout(labels != ignore_index)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    kept_labels = layout.rows(labels)
    outside = (kept_labels < 0) | (kept_labels >= vocab)
    if bool(outside.any()):
        raise ValueError(
            f"{method}: labels: expected values in [0, {vocab}) or ignore_index={ignore_index}, "
            f"got {int(kept_labels[outside][0])}"
        )
    kept_logits = checked_logits(method, "logits", layout.rows(logits), dtype)
    given = {}
    for name in wanted:
        value = as_tensor(method, name, context[name], logits.device)
        expected = lead if name in PER_TOKEN else logits.shape
        if name.endswith("_logits") and not value.is_floating_point():
            raise ValueError(f"{method}: {name}: expected floating point, got {_short(value.dtype)}")
        if name in SHARED and value.shape == (vocab,):  # one for every token
            value = value.expand(expected)
        if value.shape != expected:
            raise ValueError(f"{method}: {name}: expected shape {tuple(expected)}, got {tuple(value.shape)}")
        rows = layout.rows(value)
        given[name] = (
            checked_logits(method, name, rows, dtype)
            if name.endswith("_logits")
            else checked_number(method, name, rows, dtype)
        )
    pooling = functools.partial(pooling_of, method, sequences, layout)
    if sequences is not None:
        pooling()  # complains of what does not fit, whatever the method
    return TensorToken(kept_logits, kept_labels, given, method, pooling=pooling), layout


def pooling_of(method: str, sequences: Any, layout: Layout) -> Pooling:
    """Which of the kept positions are one sequence: those of one number in `sequences` (…), or, without it, those along
    the last dimension of the labels. All of them are one batch.

    Raises
    ------
    ValueError
        A wrong shape, no integers, one number in two rows, or a negative number, which no sequence has, where a label
        is kept.
    """
    mask = layout.mask
    length = mask.shape[-1] if mask.dim() else 1
    rows = torch.arange(mask.numel(), device=mask.device).div(max(length, 1), rounding_mode="floor").reshape(mask.shape)
    ids = rows
    if sequences is not None:
        ids = as_tensor(method, SEQUENCES, sequences, mask.device)
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(f"{method}: {SEQUENCES}: expected integers, got {_short(ids.dtype)}")
        if ids.shape != mask.shape:
            expected = f"shape {tuple(mask.shape)} to match the labels"
            raise ValueError(f"{method}: {SEQUENCES}: expected {expected}, got {tuple(ids.shape)}")
        kept, row_of = layout.rows(ids.long()), layout.rows(rows)
        if bool((kept < 0).any()):
            got = int(kept[kept < 0][0])
            raise ValueError(f"{method}: {SEQUENCES}: expected a number from 0 wherever a label is kept, got {got}")
        pairs = torch.stack([kept, row_of]).unique(dim=1)
        twice = pairs[0, 1:][pairs[0, 1:] == pairs[0, :-1]]
        if len(twice):
            raise ValueError(f"{method}: {SEQUENCES}: expected a sequence in one row, got {int(twice[0])} in two")
    kept = layout.rows(ids.long())
    return Pooling(kept, torch.zeros_like(kept))


def as_tensor(method: str, name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """A tensor, array or list of numbers as a tensor; ValueError naming the argument for anything else."""
    try:
        tensor = torch.as_tensor(for_torch(value) if isinstance(value, np.ndarray) else value, device=device)
    except (TypeError, ValueError, RuntimeError):
        got = type(value).__name__ + (f" of {value.dtype}" if isinstance(value, np.ndarray) else "")
        raise ValueError(f"{method}: {name}: expected a tensor or an array, got {got}") from None
    if tensor.layout != torch.strided:
        raise ValueError(f"{method}: {name}: expected a dense tensor, got {tensor.layout}")
    if tensor.is_complex():
        raise ValueError(f"{method}: {name}: expected real numbers, got {_short(tensor.dtype)}")
    return tensor


def checked_logits(method: str, name: str, rows: Tensor, dtype: torch.dtype) -> Tensor:
    rows = rows.to(dtype)
    if rows.numel():
        peak = rows.detach().amax(-1)  # NaN propagates through amax
        if bool(peak.isnan().any()):
            raise ValueError(f"{method}: {name}: expected finite numbers or -inf, got NaN")
        if bool((peak == torch.inf).any()):
            raise ValueError(f"{method}: {name}: expected finite numbers or -inf, got +inf")
        if bool((peak == -torch.inf).any()):
            raise ValueError(f"{method}: {name}: expected a finite logit in every row, got a row of -inf")
    return rows


def checked_number(method: str, name: str, rows: Tensor, dtype: torch.dtype) -> Tensor:
    rows = rows.to(dtype)
    no_number = rows.isinf() if name == "token_values" else ~rows.isfinite()
    if bool(no_number.any()):
        expected = "finite numbers, or NaN where a token is none" if name == "token_values" else "finite numbers"
        raise ValueError(f"{method}: {name}: expected {expected}, got {rows[no_number][0].item()}")
    if name.endswith("_mask") and not bool(((rows == 0) | (rows == 1)).all()):
        wrong = rows[(rows != 0) & (rows != 1)][0].item()
        raise ValueError(f"{method}: {name}: expected only 0 and 1 (or booleans), got {wrong:g}")
    return rows[:, None] if rows.dim() == 1 else rows


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
