"""Methods with parameters, as the command line names them: NAME and --set [METHOD.]PARAM=VALUE.

A NAME is an id of the catalogue, or MODULE:NAME or path/to/file.py:NAME for what stands in somebody's own code.
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Mapping, Sequence
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
        help="set a parameter; may be repeated, and METHOD may be left out where only one has it",
    )


def methods(names: Sequence[str], assignments: Sequence[str]) -> list[QMap]:
    """The named methods, with the parameters that `--set` gives them. UsageError says what does not fit."""
    from qunify.catalogue import ALIASES, get

    found = {name: method_of(name) for name in names}
    known = {name: ALIASES[name].defaults if name in ALIASES else m.params for name, m in found.items()}
    chosen: dict[str, dict[str, Any]] = {name: {} for name in names}
    for assignment in assignments:
        method, param, value = _parsed(assignment)
        chosen[_meant(method, param, known, assignment)][param] = value
    try:
        return [
            get(name, **chosen[name])
            if name in ALIASES
            else found[name].replace(**chosen[name])
            if chosen[name]
            else found[name]
            for name in names
        ]
    except ValueError as error:
        raise UsageError(error.args[0]) from None


def _meant(method: str, param: str, found: Mapping[str, Mapping[str, Any]], assignment: str) -> str:
    """Which of the named methods, with their parameters, a setting is for: the one named, or the only one with such a
    parameter."""
    if len(found) == 1 and not method:
        return next(iter(found))
    of_their_own = {name.rpartition(":")[2]: name for name in found}  # the last part of such a name says enough
    if method in found or method in of_their_own:
        return method if method in found else of_their_own[method]
    having = [name for name, params in found.items() if param in params]
    if len(having) == 1 and not method:
        return having[0]
    if having:
        wanted = " or ".join(f"{name}.{param}=…" for name in having)
        raise UsageError(f"--set {assignment}: expected {wanted}, got {method or 'no method'}")
    known = {key: f"{name}.{key}" for name, params in found.items() for key in params}
    near = difflib.get_close_matches(param, known, 1) or list(known)
    wanted = f"expected {' or '.join(f'{known[key]}=…' for key in near)}" if near else "none of them has parameters"
    raise UsageError(f"--set {assignment}: no parameter {param!r} of {' or '.join(found)}, {wanted}")


def method_of(name: str) -> QMap:
    """An id of the catalogue, or as MODULE:NAME a class, a QMap or a loss function of the user's own."""
    from qunify import catalogue

    try:
        return catalogue.as_method(load(name) if ":" in name else name, name)
    except KeyError as error:  # the catalogue's own sentence, which has the near match
        said = error.args[0].replace("qunify.names() lists them", "`qunify list` has them")
        raise UsageError(f"{said} (a method of your own is MODULE:NAME or path/to/file.py:NAME)") from None
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
