"""The page of the command line: the help of every command as it stands, and an example that runs on the page."""

from __future__ import annotations

import argparse
import os
from unittest import mock

from qunify import cli

WIDTH = 80  # columns of what is shown
#: What is run on the page for a command; one without an entry shows its help alone.
EXAMPLES = {
    "list": "list --family smoothing",
    "show": "show target_sft --set eta=0.3",
    "compare": "compare gem temperature_ce --set temperature_ce.temperature=0.7",
    "check": "check my_losses.py:mine dft --require directional",
    "identify": "identify my_losses.py:mine",
}


def page() -> str:
    """MyST: a section for each command, in the order of `qunify --help`."""
    with mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)}):
        parser = cli._parser()
        parts = [_help(parser)]
        for name, sub in _commands(parser).items():
            parts += [f"## qunify {name}\n", _help(sub)]
            if name in EXAMPLES:
                parts.append(_example(EXAMPLES[name]))
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def _help(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_help().rstrip()}\n```\n"


def _example(words: str) -> str:
    return f"```sh\nqunify {words}\n```\n\n```{{code-cell}} ipython3\n:tags: [remove-input]\nrun({words!r})\n```\n"


def run(words: str) -> None:
    """What the page does in place of a terminal, whose output a notebook's is not."""
    with mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)}):
        assert cli.main(words.split()) == 0, words
