"""Runs one study: rows to CSV, CSV to pictures. A file is complete or absent, and finished work is not repeated.

The SVG is written last and carries a stamp: the mode, a hash of the code and versions that made it, and hashes
of the CSV and the PNGs beside it. A study is finished when its stamp still fits.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import pandas as pd

import qunify
from analyses.kit._closure import closure
from analyses.kit.study import Study
from qunify._lib import files

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"  # what full runs wrote, committed
LIBRARIES = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "relplot", "matplotlib")


@dataclass(frozen=True)
class Outcome:
    """How one study went. `error` is one line, empty unless it failed."""

    name: str
    state: Literal["done", "unchanged", "failed"]
    seconds: float
    error: str = ""


def load(name: str) -> Study:
    """The study of this name. Imported only now: a broken study fails alone."""
    return importlib.import_module(f"analyses.studies.{name}").STUDY


def run(name: str, full: bool, out: Path, commit: str) -> Outcome:
    """Compute, write and draw one study into `out`, unless that is already done. Never raises for a bad study."""
    start = time.perf_counter()
    try:
        stamp = key(name, full)
        if _is_finished(name, out, stamp):
            return Outcome(name, "unchanged", time.perf_counter() - start)
        _produce(name, full, out, commit, stamp)
    except Exception as problem:
        return Outcome(name, "failed", time.perf_counter() - start, _one_line(problem))
    return Outcome(name, "done", time.perf_counter() - start)


def finished(name: str, full: bool, out: Path) -> bool:
    """Whether the files of this study in `out` are complete and what the present code makes in this mode."""
    return _is_finished(name, out, key(name, full))


def stale(name: str, out: Path = FIGURES) -> str:
    """Why the files of a study in `out` are not what a full run would write now, in a few words; "" if they are."""
    try:
        table = read(name, out)
    except OSError:
        return "never run"
    if missing := load(name).missing(table):
        return f"no rows of {', '.join(missing)}"
    return "" if finished(name, full=True, out=out) else "its code, or a library, has changed since"


def read(name: str, out: Path) -> pd.DataFrame:
    """A study's table as its CSV has it: only an empty field is a missing value."""
    return pd.read_csv(out / f"{name}.csv", keep_default_na=False, na_values=[""])


def current_commit() -> str:
    """The short hash of the checkout's commit, marked when the code differs from it; "unknown" outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "qunify", "analyses", "benchmarks")
        return git("rev-parse", "--short=10", "HEAD") + ("-modified" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _produce(name: str, full: bool, out: Path, commit: str, stamp: str) -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # the order of a sum, and so its last digit, depends on the number of threads
    study = load(name)
    table = _with_provenance(study.rows(full), full, commit)
    csv = table.to_csv(index=False, float_format="%.12g", lineterminator="\n").encode()
    out.mkdir(parents=True, exist_ok=True)
    files.write(out / f"{name}.csv", csv)
    draw(name, out, stamp)


def draw(name: str, out: Path, stamp: str) -> None:
    """The pictures of a study from the rows that lie in `out`; the SVG bears the stamp of the code that made these."""
    from qunify import plots

    study, table = load(name), read(name, out)
    figure = study.draw(table)
    drawn = {f"{name}.png": figure, **{f"{name}.{one}.png": draw(table) for one, draw in study.more.items()}}
    for file, picture in drawn.items():
        files.write(out / file, plots.render(picture, "png"))
    files.write(out / f"{name}.svg", plots.render(figure, "svg", note=" ".join([stamp, *_beside(name, out)])))


def _with_provenance(table: pd.DataFrame, full: bool, commit: str) -> pd.DataFrame:
    facts = {
        "seed": 0,
        "mode": "full" if full else "quick",
        "version": qunify.__version__,
        "torch": metadata.version("torch"),
        "commit": commit,
    }
    return table.assign(**{key: value for key, value in facts.items() if key not in table})


def key(name: str, full: bool) -> str:
    """The mode, and a hash of what the study depends on: the files that it and this runner import, and libraries."""
    mode = "full" if full else "quick"
    return f"{mode} {made_of(closure([f'analyses.studies.{name}', 'analyses.kit.runner'], ROOT))}"


def made_of(paths: Iterable[Path]) -> str:
    """A hash of these files of the checkout, and of the versions of libraries."""
    h = hashlib.sha256()
    for path in paths:
        h.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    for library in LIBRARIES:
        h.update(f"{library} {metadata.version(library)}".encode())
    return h.hexdigest()[:20]


def _is_finished(name: str, out: Path, stamp: str) -> bool:
    try:
        return " ".join([stamp, *_beside(name, out)]) in (out / f"{name}.svg").read_text()
    except OSError:
        return False


def _beside(name: str, out: Path) -> list[str]:
    """Hashes of the table and the pictures that lie beside the SVG of a study."""
    paths = [out / f"{name}.csv", out / f"{name}.png", *sorted(out.glob(f"{name}.*.png"))]
    return [_digest(path.read_bytes()) for path in paths]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def _one_line(problem: Exception) -> str:
    where = traceback.extract_tb(problem.__traceback__)[-1]
    message = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {message} ({Path(where.filename).name}, line {where.lineno})"
