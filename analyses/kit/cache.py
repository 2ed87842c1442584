"""Finished parts of a long study, tables and models, kept until what made them changes: a stopped run goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from analyses.kit import runner
from qunify._lib import files

FOLDER = runner.ROOT / "build" / "cache"


def part(study: str, name: str, make: Callable[[], pd.DataFrame], key: str = "") -> pd.DataFrame:
    """The table that `make` gives, from the cache if the same code and versions have made it before: those of the
    study, unless a `key` stands for what the part depends on.

    Every value is read back from text, so that a cached run and a fresh one give the same table.
    """
    path = _here(study, key) / f"{name}.csv"
    if not path.exists():
        files.write(path, make().to_csv(index=False, lineterminator="\n").encode())
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def trained(study: str, name: str, model: nn.Module, train: Callable[[], None]) -> None:
    """Give the model the parameters that `train` leaves in it."""
    path = _here(study) / f"{name}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as saved:
            model.load_state_dict({key: torch.from_numpy(saved[key]) for key in saved.files})
        return
    train()
    content = io.BytesIO()
    np.savez(content, **{key: value.numpy() for key, value in model.state_dict().items()})
    files.write(path, content.getvalue())


def _here(study: str, key: str = "") -> Path:
    """The folder of what the present code makes. What other versions made stays beside it, so that going back to one
    costs nothing; `make clean` removes it all."""
    here = FOLDER / study / (key or runner.key(study, full=True).split()[-1])
    here.mkdir(parents=True, exist_ok=True)
    return here
