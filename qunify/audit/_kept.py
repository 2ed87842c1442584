"""Finished parts of an audit, kept in a folder, so that a stopped run goes on where it was."""

from __future__ import annotations

import contextlib
import io
import shutil
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import qunify
from qunify._lib import files
from qunify._lib.digests import digest
from qunify.catalogue import get, names
from qunify.maps import QMap

Arrays = dict[str, np.ndarray]


class Kept:
    """Parts by their names, each a file that is complete or absent, in a folder named after all that they depend on."""

    def __init__(self, folder: Path | None, *facts: Any) -> None:
        self.folder = None if folder is None else files.prepared(folder / digest((qunify.__version__, facts)))

    def get(self, name: str) -> Arrays | None:
        """The part, unless it is not there, or was changed by another hand."""
        path = None if self.folder is None else self.folder / f"{name}.npz"
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def put(self, name: str, made: Arrays) -> Arrays:
        if self.folder is not None:
            content = io.BytesIO()
            np.savez(content, **made)  # type: ignore[arg-type]
            files.write(self.folder / f"{name}.npz", content.getvalue())
        return made

    def of(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The part, made and kept unless it is there."""
        there = self.get(name)
        return self.put(name, make()) if there is None else there

    def clear(self) -> None:
        """Forget all parts, and the folder, unless it holds another run's."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()


def told(models: Mapping[str, Any], methods: Mapping[str, QMap]) -> tuple[Any, ...]:
    """What tells models and methods from others: all weights, and names and parameters. A method of one's own has no
    name that tells what it computes: what is kept for it is never found again."""
    weights = {name: dict(model.state_dict()) for name, model in models.items()}
    return weights, [
        (label, m.name, dict(m.params)) if m.name in names() and type(m) is type(get(m.name)) else uuid.uuid4().hex
        for label, m in methods.items()
    ]
