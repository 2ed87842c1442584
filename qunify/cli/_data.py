"""What commands that read a model and demonstrations take in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

from qunify.cli._base import UsageError


def add_model_and_data(parser: argparse.ArgumentParser, model: str) -> None:
    """`--model`, of which the help says what it is, `--data`, and how to read both."""
    say = parser.add_argument
    say(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"{model}: a folder with safetensors weights, or a GGUF file",
    )
    kinds = "jsonl, json, csv, tsv, parquet, or a datasets folder"
    say("--data", type=Path, required=True, metavar="FILE", help=kinds)
    say("--tokenizer", type=Path, metavar="DIR", help="(default: the model's)")
    say("--prompt", metavar="COLUMN", help="the prompt's column, where it is called otherwise")
    say("--completion", metavar="COLUMN", help="the completion's column")
    say("--limit", type=int, metavar="N", help="take the first N demonstrations")
    say("--max-length", type=int, metavar="N", help="cut demonstrations off after N tokens")
    say("--device", metavar="NAME", help="cpu, cuda (default: cpu)")


def audit_package() -> ModuleType:
    """`qunify.audit`, which takes seconds to load; UsageError where what it needs is not installed."""
    try:
        from qunify import audit
    except ImportError as error:
        raise UsageError(str(error)) from None
    return audit
