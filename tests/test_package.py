"""The wheel, as somebody gets it who installs nothing but qunify."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCRIPT = """
import torch, qunify as qu
q = qu.get("target_sft")(torch.randn(2, 3, 5), torch.randint(0, 5, (2, 3)), teacher_logits=torch.randn(2, 3, 5))
assert q.target.shape == (2, 3, 5) and bool(q.in_simplex.all())
assert len(qu.names()) >= 60
from qunify import plots, report, symbols
from qunify.cli import main
main(["list"])
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_wheel_works_with_the_core_dependencies_alone(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("qunify-*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    out = run(python, "-c", SCRIPT, cwd=tmp_path)
    assert "target_sft" in out
    installed = run(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path)
    assert "transformers" not in installed
    assert "scikit-learn" not in installed


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, qunify; print([m for m in ('torch', 'numpy', 'sympy', 'matplotlib') if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"
