"""What a command is: arguments in, plain data out, and a way to read that data in a terminal."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from typing import Any


class UsageError(Exception):
    """The user asked for something that is not there. One sentence; the command line exits 2."""


class Command(ABC):
    """`compute` gives what `--json` prints; `render` gives what people read, made from the same data."""

    help: str

    @abstractmethod
    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments. Runs at every start, `--help` included: nothing slow here."""

    @abstractmethod
    def compute(self, args: argparse.Namespace) -> Any:
        """Lists, dicts, strings, finite numbers and None. Raises UsageError."""

    @abstractmethod
    def render(self, data: Any) -> str: ...

    def status(self, data: Any) -> int:
        """The exit status, for commands that pass or fail."""
        return 0
