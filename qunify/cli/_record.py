"""`qunify record`: a teacher's likeliest tokens at every token of the demonstrations, as a file to distil from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qunify.cli._base import Command, UsageError, output
from qunify.cli._data import add_model_and_data, audit_package


class Record(Command):
    help = "write down what a teacher says to your demonstrations, once, to audit with and to distil from"
    stopped = "stopped: the same command goes on where it was"
    example = "record --model path/to/teacher --data demonstrations.jsonl --top-k 20 --out answers.jsonl"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_model_and_data(parser, "the teacher")
        say = parser.add_argument
        say("--top-k", type=int, default=20, metavar="K", help="tokens at each position (default: %(default)s)")
        say(
            "--out",
            type=Path,
            default=Path("answers.jsonl"),
            metavar="FILE",
            help="a .jsonl file; a run that was stopped goes on (default: %(default)s)",
        )

    def compute(self, args: argparse.Namespace) -> dict[str, Any]:
        out = output(args.out, (".jsonl",))
        audit = audit_package()
        try:
            return audit.record(
                args.model, args.data, out, args.tokenizer, args.top_k, prompt=args.prompt, completion=args.completion,
                limit=args.limit, max_length=args.max_length, device=args.device, progress=not args.json,
            )  # fmt: skip
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from None
        except ValueError as error:
            raise UsageError(str(error)) from None

    def render(self, data: dict[str, Any]) -> str:
        before = f" ({data['kept']:,} of them were finished)" if data["kept"] else ""
        return f"wrote {data['file']}: {data['tokens']:,} tokens of {data['demonstrations']:,} demonstrations{before}"
