"""Files that are complete or absent."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STALE = 3600.0  # seconds: a file is written in far less
_ROOM = 2**16  # bytes that a folder must have room for: on a full disk an empty file can still be made


def write(path: Path, content: bytes) -> Path:
    """Write under a name of this process's own, then rename: a reader never meets half a file. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def prepared(folder: Path) -> Path:
    """The folder, made, and without what stopped processes left half-written; OSError unless it can be written to."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "writable", bytes(_ROOM)).unlink(missing_ok=True)
    for left in folder.glob("*.partial"):
        if time.time() - left.stat().st_mtime > _STALE:
            left.unlink(missing_ok=True)
    return folder
