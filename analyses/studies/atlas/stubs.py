"""Imports that a library makes and its losses do not use: stand-ins while it is loaded, errors once a loss runs."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_loading = True


class Stub:
    """Stands for something that is imported. As a decorator it leaves what it decorates, as a base class nothing."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = self.__dict__["__name__"] = self.__dict__["__qualname__"] = name

    def __getattr__(self, name: str) -> Any:
        _check(f"{self._name}.{name}")
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(f"{self._name}.{name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        _check(self._name)
        if len(arguments) == 1 and not named and (inspect.isfunction(arguments[0]) or inspect.isclass(arguments[0])):
            return arguments[0]
        return Stub(f"{self._name}()")

    def __getitem__(self, key: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __bool__(self) -> bool:
        return False

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return ()


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__path__:  # a package that is really there: its own files first
            try:
                return importlib.import_module(f"{self.__name__}.{name}")
            except ModuleNotFoundError as missing:
                if missing.name != f"{self.__name__}.{name}":
                    raise
        _check(f"{self.__name__}.{name}")
        return Stub(f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, stubs: Sequence[str], bare: Sequence[str], folder: Path) -> None:
        self.stubs, self.bare, self.folder = tuple(stubs), tuple(bare), folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        stubbed = any(name == s or name.startswith(f"{s}.") for s in self.stubs)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if stubbed or name in self.bare else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        there = module.__name__ in self.bare
        module.__path__ = [str(self.folder.joinpath(*module.__name__.split(".")))] if there else []


def install(stubs: Sequence[str], bare: Sequence[str], folder: Path) -> None:
    """From now on these modules, and all below them, are stand-ins; the `bare` packages are there, their own
    `__init__` not run."""
    sys.meta_path.insert(0, _Finder(stubs, bare, folder))


def close() -> None:
    """From now on a stand-in that is used is an error: what runs must be the library's own."""
    global _loading
    _loading = False


def _check(name: str) -> None:
    if not _loading:
        raise RuntimeError(f"{name} is a stand-in that the loss was not to use")
