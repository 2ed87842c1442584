"""A short name for a value, by which what was computed from it is found again."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def digest(value: Any) -> str:
    """24 hexadecimal digits, the same for equal numbers, texts, arrays, dataclasses and collections of these; of a
    function or a class they tell the name alone. TypeError, with the name of its type, for any other object."""
    h = hashlib.sha256()
    for piece in _pieces(value):
        h.update(len(piece).to_bytes(8))
        h.update(piece)  # a model's weights among them, which are not copied
    return h.hexdigest()[:24]


def _pieces(x: Any) -> Iterator[bytes | memoryview]:
    """What tells a value from every other, piece by piece: its type, its size, and what it holds."""
    kind = x if isinstance(x, type) or inspect.isroutine(x) else type(x)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(x, Tensor):
        yield f"{x.dtype} {tuple(x.shape)}".encode()
        yield x.detach().cpu().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(x, np.ndarray | np.generic) and x.dtype != object:
        yield f"{x.dtype} {x.shape}".encode()
        yield x.tobytes()
    elif isinstance(x, str | bytes | int | float | Path | torch.dtype | None):
        yield repr(x).encode()
    elif dataclasses.is_dataclass(x) and kind is not x:
        yield from _pieces({f.name: getattr(x, f.name) for f in dataclasses.fields(x)})
    elif isinstance(x, Mapping | list | tuple):
        items = sorted(x.items(), key=str) if isinstance(x, Mapping) else x
        yield str(len(items)).encode()
        for item in items:
            yield from _pieces(item)
    elif kind is not x:
        raise TypeError(kind.__name__)
