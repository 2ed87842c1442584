"""Run every benchmark; print a table and write it, with the machine and the versions, beside the code or into --out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import qunify
from benchmarks import audit, cost, equivalence, gradients, populations, report, startup
from benchmarks.timing import Result
from qunify._lib import files

BENCHMARKS = {
    "gradients": gradients.run,
    "equivalence": equivalence.run,
    "populations": populations.run,
    "cost": cost.run,
    "audit": audit.run,
    "startup": startup.run,
    "report": report.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results.json and results.md go")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}, expected some of {', '.join(BENCHMARKS)}")
    results = [result for name in args.names or BENCHMARKS for result in BENCHMARKS[name]()]
    text = table(results)
    print(text)
    out = args.out or Path(__file__).parent
    record = {"machine": machine(), "results": [dataclasses.asdict(r) for r in results]}
    files.write(out / "results.json", (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    files.write(out / "results.md", text.encode())


def table(results: list[Result]) -> str:
    """Markdown: what was measured, its median and spread, the bar, and whether it is met."""
    lines = ["| measured | median | spread | n | at most | |", "|---|--:|--:|--:|--:|---|"]
    for r in results:
        bar = "" if r.at_most is None else f"{r.at_most:g} {r.unit}"
        met = "" if r.at_most is None else "met" if r.value <= r.at_most else "**missed**"
        spread = f"{r.low:.3g}–{r.high:.3g}" if r.n > 1 else ""
        name = r.name.replace("  ", "&emsp;", 1) if r.name.startswith("  ") else r.name
        lines.append(f"| {name} | {r.value:.3g} {r.unit} | {spread} | {r.n} | {bar} | {met} |")
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    return "\n".join([*lines, "", f"{about}.", ""])


def machine() -> dict[str, Any]:
    return {
        "qunify": qunify.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
