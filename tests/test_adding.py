"""To add a method is to write its class: in a copy of the repository two are added, and nothing else is touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CATALOGUE = Path("qunify", "catalogue")

#: The body of CONTRIBUTING's example goes to the end of a family, and under another name into a family of its own.
CALLED = {"Cautious": "Wary", "cautious": "wary"}
FAMILY = '"""Reserved: trust grows with the model\'s own."""\n\nfrom __future__ import annotations\n\n'

#: Tests that run once for every method are run for these two; the others where they are of the catalogue as a whole, or
#: of what was committed before.
SELECTION = """
from qunify.catalogue import ENTRIES
from qunify.maps import QMap

ADDED = {"cautious", "wary"}
WHOLE = {"test_questions", "test_readme", "test_plots", "test_equivalence_studies", "test_population_studies",
         "test_dynamics"}
NAMED = {"test_every_parameter_is_tried_off_its_default", "test_names_and_families",
         "test_no_family_has_the_name_of_a_method", "test_studies_of_the_catalogue_say_what_they_lack",
         "test_list_has_a_line_for_every_method", "test_every_concrete_class_is_in_the_catalogue"}

def methods(item):
    values = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    return {v.name if isinstance(v, QMap) else v for v in values if isinstance(v, QMap | str)}

def pytest_collection_modifyitems(config, items):
    def wanted(item):
        whole = item.module.__name__.rpartition(".")[2] in WHOLE or item.originalname in NAMED
        return methods(item) & ADDED or (whole and not methods(item) & (set(ENTRIES) - {"z_loss", "chord_phi"}))

    kept = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("copy") / "qunify"
    left = shutil.ignore_patterns(".*", "build", "dist", "shared", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=left)
    found = re.search(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    example = another = found[1]
    with (copy / CATALOGUE / "smoothing.py").open("a", encoding="utf-8") as smoothing:
        smoothing.write(f"\n\n{example[example.index('class ') :]}")
    for name, called in CALLED.items():
        another = another.replace(name, called)
    (copy / CATALOGUE / "reserved.py").write_text(FAMILY + another, encoding="utf-8")
    (copy / "selection.py").write_text(SELECTION, encoding="utf-8")
    return copy


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run([sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_tests_pass_with_nothing_else_written(copy: Path) -> None:
    done = run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-p", "selection", "-m", "not slow", "tests")
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 150, done.stdout[-400:]


#: What is asked of the copy, in one process: to load torch takes longer than to answer.
ASKED = """
import qunify as qu
from analyses.__main__ import main as analyses
from docs.methods import main as methods
from qunify import catalogue, plots
print(len(qu.names()), *catalogue.families())
print(qu.names()[-1], "cautious" in qu.names("smoothing"), plots.colour("wary"))
print(methods(["--check"]))
analyses(["--stale", "equivalence"])
"""


@pytest.mark.slow
def test_both_are_there_and_what_is_due_is_told(copy: Path) -> None:
    done = run(copy, "-c", ASKED)
    first, second, due, *stale = done.stdout.splitlines()
    assert first.endswith(" reserved"), done.stderr  # after the families whose order is told
    assert second.startswith("wary True #")
    assert (due, "python -m docs.methods" in done.stderr) == ("1", True)
    assert "cautious, " in "".join(stale)
    assert "wary" in "".join(stale)
