"""The wheel, as somebody gets it who installs nothing but qunify."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

SCRIPT = """
import importlib.util
import torch, qunify as qu
assert not any(importlib.util.find_spec(name) for name in ("transformers", "sklearn", "distributed", "pytest"))
q = qu.get("target_sft")(torch.randn(2, 3, 5), torch.randint(0, 5, (2, 3)), teacher_logits=torch.randn(2, 3, 5))
assert q.target.shape == (2, 3, 5) and bool(q.in_simplex.all())
assert len(qu.names()) >= 60
from qunify import pictures, plots, symbolic
assert "<h1>" in pictures.method_page("sft") and "<h1>" in pictures.html(pictures.Page("x", (), ()))
from qunify.cli import main
main(["list"])
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def required(name: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """The distributions that this one requires without extras, and those that they require."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.name not in found and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            found[requirement.name] = metadata.distribution(requirement.name)
            required(requirement.name, found)
    return found


def core_environment(at: Path) -> Path:
    """The Python of an environment that holds what qunify requires and no more; linked to, which saves minutes."""
    venv.create(at)
    (site,) = at.glob("lib/python*/site-packages")
    for dist in required("qunify", {}).values():
        for top in {f.parts[0] for f in dist.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():  # some share a namespace
                (site / top).symlink_to(str(dist.locate_file(top)))
    return at / "bin" / "python"


@pytest.mark.slow
def test_wheel_works_with_the_core_dependencies_alone(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("qunify-*.whl")
    python = core_environment(tmp_path / "core")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    run(*pip, "check", cwd=tmp_path)  # whether all that the wheel requires is there
    out = run(python, "-I", "-c", SCRIPT, cwd=tmp_path)
    assert "target_sft" in out
    installed = run(*pip, "list", "--format", "freeze", cwd=tmp_path)
    assert "transformers" not in installed
    assert "scikit-learn" not in installed


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, qunify; print([m for m in ('torch', 'numpy', 'sympy', 'matplotlib') if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"
