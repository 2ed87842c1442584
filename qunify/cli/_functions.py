"""What stands in a user's own code, as the command line names it: MODULE:NAME or path/to/file.py:NAME."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from qunify.cli._base import UsageError


def load(spec: str) -> Callable[..., Any]:
    """A loss function, a QMap or a class of them. Its module is imported from the current folder, or from where Python
    looks for modules."""
    where, colon, name = spec.rpartition(":")
    if not (colon and where and name):
        raise UsageError(f"{spec}: expected MODULE:NAME or path/to/file.py:NAME")
    found: Any = _module(where)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), 1)
            raise UsageError(f"{where} has no {name}" + (f", did you mean {near[0]}?" if near else ""))
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{spec}: expected a loss function or a QMap, got {type(found).__name__}")
    return found


def _module(where: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _from_file(Path(where))
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(where)
        finally:
            sys.path.pop(0)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            raise UsageError(f"no module {where!r} in {Path.cwd()} or where Python looks for modules") from None
        raise UsageError(f"{where} cannot be imported: {error}") from error
    except UsageError:
        raise
    except SystemExit as error:
        guard = "what only the script should do belongs under if __name__ == '__main__'"
        raise UsageError(f"{where} cannot be imported: it ends the program; {guard}") from error
    except Exception as error:
        raise UsageError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    name = f"qunify file.{path.stem}"  # that of no module: a file may be called as one
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their annotations up there
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
