"""A package's public names, stated once: the imports that type checkers see are made when a name is first used.

A package whose parts take long to load says in its `__init__.py`

    if TYPE_CHECKING:
        from qunify.catalogue import get
    else:
        __getattr__, __dir__ = exported(__name__)

and then `package.get`, `dir(package)` and `package.__all__` work as if it had imported `get` at once.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def exported(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, from what its source imports under `if TYPE_CHECKING`.

    `__all__` too comes from `__getattr__`, so that the source is read only when the first name is asked for.
    """
    module = sys.modules[package]

    @functools.cache
    def homes() -> dict[str, str]:
        return _imported(module.__spec__.loader.get_source(package))  # type: ignore[union-attr]

    def get(name: str) -> Any:
        if name == "__all__":
            value: Any = sorted(homes())
        elif name in homes():
            value = getattr(importlib.import_module(homes()[name]), name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(module, name, value)  # next time Python finds it without asking here
        return value

    def names() -> list[str]:
        """All of these, and what Python itself or an import of one of its modules has put there."""
        own = {k for k, v in vars(module).items() if k.startswith("__") or (isinstance(v, ModuleType) and k[0] != "_")}
        return sorted(own | homes().keys())

    return get, names


def _imported(source: str) -> dict[str, str]:
    """{name: module} of every `from module import name` under `if TYPE_CHECKING`."""
    import ast

    blocks = [n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {alias.name: str(n.module) for n in imports for alias in n.names}
