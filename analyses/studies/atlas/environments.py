"""The folder of a library: itself, pinned, without its dependencies, for a process of the project's own Python."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pandas as pd

from analyses.kit import runner
from analyses.studies.atlas.shipped import Library

FOLDER = runner.ROOT / "build" / "atlas"
WORKER = "analyses.studies.atlas.worker"
LONGEST = 1800  # seconds for all losses of one library


def folder(library: Library) -> Path:
    return FOLDER / f"{library.name}-{library.version}"


def build(library: Library) -> Path:
    """Where the library is, put there by pip if it was not.

    Raises
    ------
    RuntimeError
        Where pip cannot, in one sentence.
    """
    where = folder(library)
    if library.here or where.exists():
        return where
    partial = where.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(partial)]
    if library.python:  # as published for another Python; what is loaded of it runs on this one
        command += ["--only-binary", ":all:", "--python-version", library.python, "--ignore-requires-python"]
    wanted = [f"{library.name}=={library.version}", *library.also]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["pip said nothing"]
        shutil.rmtree(partial, ignore_errors=True)
        raise RuntimeError(f"{library.name} {library.version} could not be installed: {said[-1]}")
    partial.rename(where)
    return where


def check(library: Library, version: str) -> None:
    """RuntimeError, in one sentence, unless the library is there in the version of the committed rows."""
    there = found(library)
    if not there:
        raise RuntimeError(f"{library.name} is missing: expected version {version}; {_cure(library)}")
    if there != version:
        raise RuntimeError(f"{library.name}: expected version {version}, found {there}; {_cure(library)}")


def _cure(library: Library) -> str:
    if library.here:
        return "`make setup` installs it"
    where = folder(library)  # what is there is never touched again
    remove = f"remove build/atlas/{where.name}, and " if where.exists() else ""
    return f"{remove}`make atlas` installs it under build/atlas/"


def found(library: Library) -> str:
    """The version that is there, "" where the library is missing."""
    path = sys.path if library.here else [str(folder(library))]
    there = metadata.distributions(name=library.name, path=path)
    return next((d.version for d in there), "")


def ask(library: Library) -> pd.DataFrame:
    """A row for each of its losses, from a process that has the library's folder first on its path.

    Raises
    ------
    RuntimeError
        Where the process fails, or takes longer than LONGEST, in one sentence.
    """
    where = build(library)
    with tempfile.TemporaryDirectory() as into:
        answer = Path(into) / "rows.json"
        # Forked from one that has loaded torch and this project, and nothing of the libraries.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([WORKER])
        process = context.Process(target=_answer, args=(library.name, "" if library.here else str(where), str(answer)))
        process.start()
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            raise RuntimeError(f"{library.name} {library.version}: its losses took longer than {LONGEST} s")
        told = json.loads(answer.read_text()) if answer.exists() else "its process ended without a word"
    if isinstance(told, str):
        raise RuntimeError(f"{library.name} {library.version}: its losses could not be asked: {told}")
    return pd.DataFrame(told)


def _answer(name: str, folder: str, into: str) -> None:
    """In the new process: the rows of a library, or what went wrong, as JSON in the file `into`."""
    sys.path[:0] = [folder] if folder else []
    worker = importlib.import_module(WORKER)
    try:
        told = worker.answer(name)
    except Exception as problem:
        told = f"{type(problem).__name__}: {problem}"
    Path(into).write_text(json.dumps(told))
