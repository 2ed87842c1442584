"""The command line: `qunify COMMAND …`. One class per command, one file each; torch is loaded inside them only."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import qunify
from qunify.cli._base import UsageError
from qunify.cli._commands import COMMANDS
from qunify.cli._terminal import harmless

USAGE_ERROR = 2  # what argparse and most Unix tools exit with
INTERRUPTED = 130  # 128 + SIGINT
CLOSED_PIPE = 141  # 128 + SIGPIPE, as a program that the signal ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, what the command says, 2 for a usage error, 130 when
    it was stopped by Ctrl-C."""
    # An old terminal encoding may lack a symbol: an escape is better than a crash.
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except UsageError as error:
        print(harmless(f"qunify: {' '.join(str(error).split())}"), file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:
        # The reader left. Python flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def _run(argv: list[str]) -> int:
    _check_command(argv)
    args = _parser().parse_args(argv)
    command = COMMANDS[args.command]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a loss prints is no part of the result
            data = command.compute(args)
        if data is None:
            return 0
        if args.json:
            text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        else:
            text = command.render(harmless(data))
    except UsageError:
        raise
    except KeyboardInterrupt:
        print(f"qunify: {command.stopped}", file=sys.stderr)
        return INTERRUPTED
    except BaseException as error:  # a loss may raise anything, and even end the program: nothing has been found then
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"{args.command} came to no result: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        ) from error
    print(text, flush=True)
    return command.status(data)


def _check_command(argv: list[str]) -> None:
    """argparse would answer a misspelt command with the whole list; one near match helps more."""
    word = next((a for a in argv if not a.startswith("-")), None)
    if word is None and not {"-h", "--help", "--version"} & set(argv):
        raise UsageError(f"expected a command, one of {', '.join(COMMANDS)}; qunify --help says more")
    if word is not None and word not in COMMANDS:
        near = difflib.get_close_matches(word, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {word!r}, {hint}")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help says more)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="qunify", description="See the target distribution that a fine-tuning loss teaches.")
    parser.add_argument("--version", action="version", version=f"qunify {qunify.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.help, description=command.help, epilog=f"example: qunify {command.example}"
        )
        command.arguments(sub)
        sub.add_argument("--json", action="store_true", help="machine output on stdout, and nothing else")
    return parser
