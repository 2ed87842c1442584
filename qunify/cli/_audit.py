"""`qunify audit`: what each recipe would ask of a model on demonstrations, as a page and a folder of tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qunify._lib import files
from qunify.cli._base import Command, UsageError, output
from qunify.cli._data import add_model_and_data, audit_package
from qunify.cli._settings import NAME, add_set, method_of, methods

if TYPE_CHECKING:
    from qunify.maps import QMap


class Audit(Command):
    help = "say what each recipe would ask of your model, on your data, before you train"
    stopped = "stopped: the same command goes on where it was"
    example = "audit --model path/to/model --data demonstrations.jsonl --methods sft,dft,eaft"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_model_and_data(parser, "a causal language model")
        say = parser.add_argument
        say("--reference", type=Path, metavar="DIR", help="a model that methods stay close to")
        say(
            "--teacher",
            type=Path,
            metavar="DIR|FILE",
            help="a model to distil from, or a .jsonl of its recorded answers",
        )
        say("--teacher-base", type=Path, metavar="DIR", help="what the teacher was before its own training")
        say("--methods", metavar="A,B,…", help=f"each {NAME} (default: all that what is given serves)")
        say(
            "--group", action="append", default=[], metavar="NAME=REGEX", help="a kind of token of your own; repeatable"
        )
        say("--flag", metavar="COLUMN", help="true of demonstrations that are known to be bad")
        say("--influence", action="store_true", help="what the first step of each method does")
        say("--rehearse", type=int, default=0, metavar="N", help="train by each method for N steps, and measure")
        say("--rate", type=float, default=2e-4, help="the rehearsal's learning rate (default: %(default)s)")
        say("--trainable", default="adapter", metavar="WHAT", help="adapter (default), all, or a number of last blocks")
        say(
            "--write-weights",
            metavar="[METHOD=]FILE",
            help="write the demonstrations, each with a method's mean trust as its `weight`, as jsonl",
        )
        say("--jobs", type=int, metavar="N", help="processes, each of which holds the model (default: 1)")
        add_set(parser)
        say("--out", type=Path, default=Path("audit.html"), metavar="FILE", help="an .html file (default: %(default)s)")

    def compute(self, args: argparse.Namespace) -> dict[str, Any] | None:
        out = output(args.out, (".html", ".htm"))
        groups = _groups(args.group)
        audit = audit_package()
        if args.set and not args.methods:
            raise UsageError(f"--set {args.set[0]}: expected --methods that names the method it is for")
        chosen = methods(args.methods.split(","), args.set) if args.methods else None
        weights = _weights(args, chosen)
        try:
            tables = files.prepared(out.with_suffix(""))
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from None
        try:
            found = audit.run(
                args.model, args.data, args.tokenizer, chosen, args.reference, args.teacher, groups, args.flag,
                teacher_base=args.teacher_base, influence=args.influence, rehearse=args.rehearse,
                trainable=_trainable(args.trainable), rate=args.rate, prompt=args.prompt, completion=args.completion,
                limit=args.limit, max_length=args.max_length, device=args.device, keep=tables / "unfinished",
                jobs=args.jobs, progress=not args.json,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(str(error)) from None
        if not audit.is_main_process():
            return None
        found.save(tables)
        found.page(out)
        if weights is not None:
            try:
                found.write_weights(*weights)
            except ValueError as error:
                raise UsageError(str(error)) from None
        return {"file": str(out), "tables": str(tables), "sentences": list(found.sentences), **found.about}

    def render(self, data: dict[str, Any]) -> str:
        return "\n".join([*data["sentences"], "", f"wrote {data['file']}, and the tables to {data['tables']}/"])


def _weights(args: argparse.Namespace, chosen: list[QMap] | None) -> tuple[Path, str] | None:
    """The file, and the method whose trust to write: the one named, or the only one beside sft."""
    given: str | None = args.write_weights
    if given is None:
        return None
    method, sign, file = given.rpartition("=")
    audited = {m.name: m for m in chosen or ()}
    if not sign:
        others = [name for name in audited if name != "sft"]
        if len(others) != 1:
            raise UsageError(f"--write-weights {given}: expected METHOD=FILE, as several methods are audited")
        (method,) = others
    elif audited and not any(method.partition("(")[0] == name for name in audited):
        expected = f"expected one of the methods audited ({', '.join(audited)})"
        raise UsageError(f"--write-weights {given}: {expected}, got {method!r}")
    m = audited.get(method.partition("(")[0]) or method_of(method)
    if not m.shift_invariant:
        raise UsageError(f"--write-weights {given}: {m.name} has no target, and so no trust")
    models = [name.removesuffix("_logits") for name in m.needs if name.endswith("_logits")]
    if missing := [name for name in models if getattr(args, name, None) is None]:
        raise UsageError(f"--write-weights {given}: {m.name} needs a {' and a '.join(missing)}, got none")
    out = output(Path(file), (".jsonl",), "--write-weights")
    if out.exists() and args.data.exists() and out.samefile(args.data):
        raise UsageError(f"--write-weights {given}: expected another file than the demonstrations themselves")
    return out, method


def _trainable(text: str) -> Any:
    return int(text) if text.isdigit() else text


def _groups(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, sign, pattern = text.partition("=")
        if not sign or not name:
            raise UsageError(f"--group {text}: expected NAME=REGEX")
        found[name] = pattern
    return found
