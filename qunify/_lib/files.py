"""Files that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: bytes) -> Path:
    """Write under a name of this process's own, then rename: a reader never meets half a file. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
