"""What the losses of released libraries are: `identify` on installed code, each in an environment of its own."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from analyses.kit import cache, runner
from analyses.kit._closure import closure
from analyses.kit.study import Study
from analyses.studies.atlas import asking, environments, libraries, pictures, shipped, stubs, treatment, words
from analyses.studies.atlas.shipped import LIBRARIES, Library

assert libraries  # it enters them
#: What a row depends on beside `identify` and the adapters of its library.
ASKING = tuple(module.__name__ for module in (asking, shipped, stubs, treatment))


def rows(full: bool) -> pd.DataFrame:
    """One row per loss. The libraries take minutes to install and to ask, so that only the full run does; the quick
    one reads what that one found."""
    if not full:
        return runner.read("atlas", runner.FIGURES)
    return pd.concat([asked(library) for _, library in sorted(LIBRARIES.items())], ignore_index=True)


def asked(library: Library) -> pd.DataFrame:
    """The rows of one library, kept until it, its adapters or `identify` change."""
    own = [Path(sys.modules[module].__file__ or "") for module in (*ASKING, library.losses.__module__)]
    key = runner.made_of([*closure(["qunify.comparison._identification"], runner.ROOT), *own])
    version = environments.found(library) if library.here else library.version
    return cache.part("atlas", f"{library.name}-{version}", functools.partial(environments.ask, library), key)


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """What each loss is called, and what it is."""
    shown = {"library": "Library", "function": "Function", "setting": "As called", "says": "Its name says"}
    shown |= {"is": "It is", "normaliser": "Divided by", "ignored": "Left-out tokens"}
    return words.told(table)[list(shown)].rename(columns=shown)


def see(table: pd.DataFrame) -> str:
    table = table.astype(object).fillna("")
    counts = Counter(table["agreement"])
    named, factor, nearly = (
        counts[asking.NAMED],
        counts[asking.SCALED] + counts[asking.MISCOUNTED],
        counts[asking.NEARLY],
    )
    renamed = counts[asking.RENAMED] + counts[asking.OURS]
    return (
        f"{len(table)} losses as {table['library'].nunique()} libraries ship them: {named} are what their name says, "
        f"{factor} are so but for a factor, and {nearly} nearly or at most tokens; {counts[asking.OTHERWISE]} have "
        f"other parameters than those that they were given; {renamed} have another name here, or are a sum. Another "
        f"method, random, or none of the catalogue: {counts[asking.ANOTHER]}, {counts[asking.RANDOM]} and "
        f"{counts[asking.NONE]}."
    )


STUDY = Study(
    name="atlas",
    title="What `identify` says of the losses that libraries ship, beside what their names say",
    question="Are the losses in released libraries what their names say?",
    rows=rows,
    draw=pictures.draw,
    see=see,
    digest=digest,
    more={"epsilon": pictures.which_epsilon, "distillation": pictures.distillation},
)
