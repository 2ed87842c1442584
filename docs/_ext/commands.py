"""The page of the command line: the help of every command as it stands, and an example that is run for the page."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from qunify.cli import _parser, main
from qunify.cli._commands import COMMANDS

WIDTH = 80  # columns of what is shown
#: The file that the examples read.
MINE = '''\
# my_losses.py
def mine(logits, labels):
    """One minus the label's probability."""
    return 1 - logits.softmax(-1).gather(-1, labels[:, None])[:, 0]
'''
#: What is run for a command, as its help has it; one that writes a file shows its help alone.
_WRITES = ("plot", "explore", "audit", "record")
EXAMPLES = {name: command.example for name, command in COMMANDS.items() if name not in _WRITES}


def run(words: str) -> str:
    """What a command prints, in a folder that holds `my_losses.py`."""
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "my_losses.py").write_text(MINE, encoding="utf-8")
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed), _narrow():
            assert main(words.split()) == 0, words
    return printed.getvalue()


def page(run: Callable[[str], str] = run) -> str:
    """Markdown: the file of the examples, and a section for each command in the order of `qunify --help`."""
    with _narrow():
        parser = _parser()
        commands = {name: _help(sub) for name, sub in _commands(parser).items()}
        parts = [f"```python\n{MINE}```\n", _help(parser)]
    for name, text in commands.items():
        parts += [f"## qunify {name}\n", text]
        if name in EXAMPLES:
            parts.append(f"```sh\nqunify {EXAMPLES[name]}\n```\n\n```text\n{run(EXAMPLES[name]).rstrip()}\n```\n")
    return "\n".join(parts)


def _narrow() -> contextlib.AbstractContextManager[object]:
    return mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)})


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def _help(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_help().rstrip()}\n```\n"
