"""The examples run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
ROOT = Path(__file__).resolve().parents[1]


def test_fine_tuning_end_to_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "finetune.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"(sft|dft|target_sft|designed) ", line)]
    assert [row[0] for row in rows] == ["sft", "dft", "target_sft", "designed"]
    for name, loss, trust, scale, inside, right in rows:
        assert (tmp_path / name / "model.safetensors").exists()
        assert float(loss) > 0
        assert float(scale) > 0
        assert inside == "100%"
        assert 0 <= float(right.rstrip("%")) <= 100
        assert (float(trust) == 1) == (name == "sft")
