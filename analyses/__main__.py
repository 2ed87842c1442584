"""`python -m analyses [NAME…] [--full] [--stale] [--redraw] [--out DIR] [--jobs N]`: run them, and report."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from joblib import Parallel, delayed
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from analyses.kit import runner, story
from analyses.kit.redraw import redraw
from analyses.kit.story import STUDIES

REPORT = runner.ROOT / "build" / "report"
MARKS = {"done": "[green]✓[/]", "unchanged": "[dim]·[/]", "failed": "[red]✗[/]"}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all well; 1: a study failed; 2: wrong usage; 130: interrupted."""
    options = _parser().parse_args(arguments)
    names = tuple(dict.fromkeys([*options.names, *(options.only or [])])) or STUDIES
    for name in names:
        if name not in STUDIES:
            print(_unknown(name), file=sys.stderr)
            return 2
    if options.jobs < 1:
        print(f"--jobs: expected at least 1, got {options.jobs}", file=sys.stderr)
        return 2
    out = (options.out or (runner.FIGURES if options.full else REPORT)).resolve()
    console = Console()
    if options.stale:
        for name in names:
            if why := runner.stale(name, options.out or runner.FIGURES):
                console.print(f"{name}: {why}", soft_wrap=True, highlight=False)
        return 0
    if options.redraw:
        try:
            for name in names:
                redraw(name, options.out or runner.FIGURES)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    commit = runner.current_commit()
    try:
        outcomes = _run(names, options.full, out, options.jobs, commit, console)
        if out != runner.FIGURES:  # figures/ holds the committed tables and pictures, nothing else
            page = story.write(out, options.full, commit)
            console.print(f"Report: [bold]{escape(_short(page))}[/]", soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Stopped. Finished studies are kept; the same command goes on from here.")
        return 130
    return 1 if any(o.state == "failed" for o in outcomes) else 0


def _run(names: Sequence[str], full: bool, out: Path, jobs: int, commit: str, console: Console) -> list[runner.Outcome]:
    text = TextColumn("{task.description}")
    outcomes = []
    with Progress(
        SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        bar = progress.add_task("Studies", total=len(names))
        for outcome in _in_parallel(names, full, out, jobs, commit):
            outcomes.append(outcome)
            detail = outcome.error or ("unchanged" if outcome.state == "unchanged" else f"{outcome.seconds:.1f} s")
            progress.console.print(f"{MARKS[outcome.state]} {outcome.name}: {escape(detail)}", soft_wrap=True)
            progress.advance(bar)
    return outcomes


def _in_parallel(names: Sequence[str], full: bool, out: Path, jobs: int, commit: str) -> Iterator[runner.Outcome]:
    """Outcomes as they come. The story ends with its longest study, so the last is started first."""
    tasks = (delayed(runner.run)(name, full, out, commit) for name in reversed(names))
    return Parallel(n_jobs=min(jobs, len(names)), return_as="generator_unordered")(tasks)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, STUDIES, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(STUDIES)}"
    return f"unknown study {name!r}, {hint}"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analyses", description="Run the studies and write the report.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"studies to run (all): {', '.join(STUDIES)}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the same, after the options")
    parser.add_argument("--full", action="store_true", help="full sizes; writes figures/ unless --out says otherwise")
    parser.add_argument("--stale", action="store_true", help="say which of figures/ are stale and why; run nothing")
    parser.add_argument("--redraw", action="store_true", help="draw the rows of figures/ again; they stay as they are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (build/report)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (all cores)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
