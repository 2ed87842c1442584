"""Methods with parameters, as the command line names them: NAME and --set [METHOD.]PARAM=VALUE.

A NAME is an id of the catalogue, or MODULE:NAME or path/to/file.py:NAME for what stands in somebody's own code.
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qunify.cli._base import UsageError
from qunify.cli._functions import load

if TYPE_CHECKING:
    from qunify.maps import QMap


#: What the help says of a NAME.
NAME = (
    "an id, as `qunify list` has it, or MODULE:NAME or path/to/file.py:NAME for a QMap or a loss function of your own"
)


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[METHOD.]PARAM=VALUE",
        help="set a parameter; may be repeated, and METHOD may be left out where there is only one",
    )


def methods(names: Sequence[str], assignments: Sequence[str]) -> list[QMap]:
    """The named methods, with the parameters that `--set` gives them. UsageError says what does not fit."""
    chosen: dict[str, dict[str, Any]] = {name: {} for name in names}
    for assignment in assignments:
        method, param, value = _parsed(assignment)
        if not method and len(chosen) == 1:
            method = names[0]
        if method not in chosen:  # of one's own the last part of its name says enough
            method = next((name for name in names if name.rpartition(":")[2] == method), method)
        if method not in chosen:
            near = difflib.get_close_matches(method, chosen, 1) or list(chosen)
            wanted = " or ".join(f"{name}.{param}=…" for name in near)
            raise UsageError(f"--set {assignment}: expected {wanted}, got {method or 'no method'}")
        chosen[method][param] = value
    return [method_of(name, **chosen[name]) for name in names]


def method_of(name: str, **params: Any) -> QMap:
    """An id of the catalogue, or as MODULE:NAME a class, a QMap or a loss function of the user's own."""
    from qunify import catalogue
    from qunify.maps import QMap

    given = load(name) if ":" in name else name
    try:
        if isinstance(given, QMap):  # one that is made already: the same at other parameters
            return given.replace(**params)
        return catalogue.as_method(given, name, **params)
    except KeyError as error:  # the catalogue's own sentence, which has the near match
        raise UsageError(f"{error.args[0]} (a method of your own is MODULE:NAME or path/to/file.py:NAME)") from None
    except ValueError as error:
        raise UsageError(error.args[0]) from None


def _parsed(assignment: str) -> tuple[str, str, int | float | str]:
    key, equals, text = assignment.partition("=")
    method, _, param = key.rpartition(".")
    if not (equals and param and text):
        raise UsageError(f"--set {assignment}: expected PARAM=VALUE or METHOD.PARAM=VALUE")
    value = _value(text)
    if isinstance(value, int | float) and not (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)):
        raise UsageError(f"--set {assignment}: expected a finite number of at most 64 bits")
    return method, param, value


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
