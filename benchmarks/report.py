"""How long the main job takes once it is set up: every analysis at quick size, from nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.timing import Result, python, seconds


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        took = seconds(python("-m", "analyses", "--out", str(Path(folder) / "report")))
    return [Result.of("make report, after set-up", [took], "s", at_most=55)]
