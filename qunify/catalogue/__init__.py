"""Every known method, one class each, one file per family. A class with a `name` in one of these files is an entry."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from qunify.catalogue import anchored, designed, distillation, gates, penalties, scores, smoothing, warped
from qunify.qmap import QMap

MODULES = (gates, smoothing, anchored, designed, distillation, scores, warped, penalties)

#: id → class, in catalogue order.
ENTRIES: dict[str, type[QMap]] = {
    cls.name: cls
    for module in MODULES
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, QMap) and cls.__module__ == module.__name__ and "name" in vars(cls)
}

#: The methods of the unifying table of Xie et al. 2026, in its order.
PAPER = (
    "sft", "dft", "beyond_log", "profit", "eaft", "iw_sft", "cft", "label_smoothing", "sft_kl", "asft", "psft",
    "gem", "kd", "kd_hybrid", "target_sft",
)  # fmt: skip


def families() -> tuple[str, ...]:
    """The families, in catalogue order."""
    return tuple(dict.fromkeys(cls.family for cls in ENTRIES.values()))


def names(family: str | None = None) -> tuple[str, ...]:
    """The ids of all methods, or of one family, in catalogue order."""
    if family is None:
        return tuple(ENTRIES)
    if family not in families():
        raise KeyError(f"unknown family {family!r}, expected one of {', '.join(families())}")
    return tuple(name for name, cls in ENTRIES.items() if cls.family == family)


def get(name: str, **params: Any) -> QMap:
    """The method with this id and these parameters.

    Raises
    ------
    KeyError
        Unknown id; the message names near matches.
    ValueError
        Unknown or out-of-range parameter; the message names it and its range.
    """
    if not isinstance(name, str) or name not in ENTRIES:
        near = difflib.get_close_matches(str(name).lower(), ENTRIES, 3)
        hint = f", did you mean {' or '.join(near)}?" if near else "; qunify.names() lists them"
        raise KeyError(f"unknown method {name!r}{hint}")
    cls = ENTRIES[name]
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in params:
        if key not in known:
            expected = " or ".join(known) or "none: it has no parameters"
            raise ValueError(f"{name}: unknown parameter {key!r}, expected {expected}")
    return cls(**params)


def as_method(method: str | QMap, caller: str, **params: Any) -> QMap:
    """The method of an id with its parameters, or the QMap itself; ValueError in the caller's name otherwise."""
    if isinstance(method, str):
        return get(method, **params)
    if not isinstance(method, QMap):
        raise ValueError(f"{caller}: method: expected an id or a QMap, got {method!r}")
    if params:
        raise ValueError(f"{caller}: parameters {', '.join(params)}: expected none beside a QMap, which has its own")
    return method
