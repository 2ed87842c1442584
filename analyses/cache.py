"""Finished parts of a long study, kept until what made them changes: a stopped run goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pandas as pd

from analyses import runner
from qunify import files

FOLDER = runner.ROOT / "build" / "cache"


def part(study: str, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that `make` gives, from the cache if the same code and versions have made it before.

    Every value is read back from text, so that a cached run and a fresh one give the same table. Parts that other
    code made are removed.
    """
    here = FOLDER / study / runner.key(study, full=True).split()[-1]
    path = here / f"{name}.csv"
    if not path.exists():
        for stale in (FOLDER / study).glob("*"):
            if stale != here:
                shutil.rmtree(stale, ignore_errors=True)
        files.write(path, make().to_csv(index=False, lineterminator="\n").encode())
    return pd.read_csv(path, keep_default_na=False, dtype=str)
