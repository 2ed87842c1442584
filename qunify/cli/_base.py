"""What a command is: arguments in, plain data out, and a way to read that data in a terminal."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qunify._lib import files


class UsageError(Exception):
    """The user asked for something that is not there. One sentence; the command line exits 2."""


class Command(ABC):
    """`compute` gives what `--json` prints; `render` gives what people read, made from the same data."""

    help: str
    stopped: str = "stopped"  # what Ctrl-C is answered with
    example: str  # what may follow `qunify`; the help ends with it

    @abstractmethod
    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments. Runs at every start, `--help` included: nothing slow here."""

    @abstractmethod
    def compute(self, args: argparse.Namespace) -> Any:
        """Lists, dicts, strings, finite numbers and None; None alone where another process says it. Raises
        UsageError."""

    @abstractmethod
    def render(self, data: Any) -> str: ...

    def status(self, data: Any) -> int:
        """The exit status, for commands that pass or fail."""
        return 0


def output(out: Path, endings: Sequence[str], option: str = "--out") -> Path:
    """A file that can be written, to judge by its name; UsageError that names the option otherwise."""
    if out.suffix.lower() not in endings:
        raise UsageError(f"{option} {out}: expected a file name that ends in {', '.join(endings)}")
    if out.is_dir():
        raise UsageError(f"{option} {out}: expected a file name, got a folder")
    if not out.parent.is_dir():
        raise UsageError(f"{option} {out}: the folder {out.parent} does not exist")
    return out


def write(out: Path, content: bytes, option: str = "--out") -> dict[str, Any]:
    """The file, complete or not at all, and what is to be said of it; UsageError where it cannot be written."""
    replaced = out.exists()
    try:
        files.write(out, content)
    except OSError as error:
        raise UsageError(f"{option} {out}: cannot be written ({error.strerror})") from None
    return {"file": str(out), "bytes": len(content), "replaced": replaced}


def wrote(data: dict[str, Any]) -> str:
    """What `write` did, in words."""
    size, instead = f"{data['bytes'] / 1000:.0f} kB", ", in place of the one that was there" * data["replaced"]
    return f"wrote {data['file']} ({size}{instead})"
