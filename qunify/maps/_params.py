"""A method's parameters: default, range, meaning, letter, and a telling value."""

from __future__ import annotations

import dataclasses
import numbers
import sys
from collections.abc import Mapping
from typing import Any

from qunify.token import is_symbolic

_LARGEST_WHOLE = 2**63 - 1  # what a tensor can hold


def param(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] = (),
    letter: str = "",
    telling: Any = None,
    elsewhere: str = "",
    doc: str,
) -> Any:
    """A method's parameter: everything that is to be known of it, in the one place where it is declared.

    Parameters
    ----------
    default
        A float for a real number, an int for a whole one, a string for one of `choices`.
    low, high, above, below
        Its range: closed ends, or open ones.
    letter
        Its symbol in the docstring's formulas, as in "λ".
    telling
        A value that shows what the parameter does: off the default, and no round number by which another method could
        be taken for this one. `QMap.telling` gives those of all parameters.
    elsewhere
        What papers and libraries call it, for the glossary.
    doc
        Its meaning, in a few words.
    """
    facts = {"low": low, "high": high, "above": above, "below": below, "choices": choices, "doc": doc}
    return dataclasses.field(
        default=default, metadata=facts | {"letter": letter, "telling": telling, "elsewhere": elsewhere}
    )


def limits(f: dataclasses.Field[Any]) -> Mapping[str, Any]:
    """A parameter's range and meaning, as given to `param`. For a field declared without `param`: any size if it is a
    number, else its default alone."""
    if "doc" in f.metadata:
        return f.metadata
    free = isinstance(f.default, int | float) and not isinstance(f.default, bool)
    return {**dict.fromkeys(("low", "high", "above", "below")), "choices": () if free else (f.default,), "doc": ""}


def checked(method: str, f: dataclasses.Field[Any], value: Any) -> Any:
    """The parameter's value, or a ValueError naming it and its range. Symbols pass: they stand for any value. A number
    of SymPy stays the fraction that it is."""
    if not isinstance(value, (float, int, str)) and is_symbolic(value):
        if getattr(value, "is_number", False) is True:
            checked(method, f, int(value) if value.is_Integer else float(value))
        return value
    known = f.metadata
    if known["choices"]:
        if value not in known["choices"]:
            expected = " or ".join(repr(c) for c in known["choices"])
            raise ValueError(f"{method}: parameter {f.name}: expected {expected}, got {value!r}")
        return value
    whole = isinstance(f.default, int)
    kind = (int, numbers.Integral) if whole else (float, numbers.Real)
    fits = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and abs(value) <= (_LARGEST_WHOLE if whole else sys.float_info.max)  # type: ignore[operator]
        and (known["low"] is None or value >= known["low"])
        and (known["above"] is None or value > known["above"])
        and (known["high"] is None or value <= known["high"])
        and (known["below"] is None or value < known["below"])
    )
    if not fits:
        size = " of 64 bits" if whole and isinstance(value, int) and abs(value) > _LARGEST_WHOLE else ""
        raise ValueError(f"{method}: parameter {f.name}: expected {range_text(f)}{size}, got {value!r}")
    return int(value) if whole else float(value)


def range_text(f: dataclasses.Field[Any]) -> str:
    """A parameter's range in words: `a number in [0, 1]`."""
    known = limits(f)
    if known["choices"]:
        return " or ".join(repr(c) for c in known["choices"])
    left, right = "(-inf", "inf)"
    if known["low"] is not None:
        left = f"[{known['low']:g}"
    elif known["above"] is not None:
        left = f"({known['above']:g}"
    if known["high"] is not None:
        right = f"{known['high']:g}]"
    elif known["below"] is not None:
        right = f"{known['below']:g})"
    return f"{'an integer' if isinstance(f.default, int) else 'a number'} in {left}, {right}"
