"""The folder `findings/`: its list is complete, and each script says what it must and needs nothing of ours.

Whether what the scripts state still holds is theirs to say: they install other people's packages, so no test runs them.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def told(script: str) -> str:
    """What a script shows, in one line."""
    return script.splitlines()[1].removeprefix("# ")


def lacking(script: str) -> list[str]:
    """What a script should have and has not."""
    top, _, rest = script.partition("set -euo pipefail\n")
    program = rest.partition("<<'END'\n")[2].removesuffix("END\n")
    packages = re.findall(r"^ +(?:\"\$python\" -m pip install --quiet )?((?:[\w\[\]-]+==\S+ ?)+)", rest, re.M)
    imported = {a.name for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Import) for a in node.names}
    imported |= {str(node.module) for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)}
    needs = {
        "a guess, the truth, the source and what to do instead": all(
            re.search(rf"^# {word:8} \S", top, re.M) for word in ("Guess", "Truth", "Source", "Instead")
        ),
        "versions": bool(packages) and all("==" in word for line in packages for word in line.split()),
        "a folder that it removes": "mktemp -d" in rest and "trap 'rm -rf" in rest,
        "an exit by what it saw": program.rstrip().endswith("raise SystemExit(not holds)"),
        "nothing of ours": not any(name.split(".")[0] == "qunify" for name in imported),
        "lines of at most 120": all(len(line) <= 120 for line in script.splitlines()),
    }
    return [what for what, there in needs.items() if not there]


def test_the_list_names_every_script_and_says_what_it_shows() -> None:
    rows = dict(re.findall(r"^\| \[`\w+`\]\((\w+\.sh)\) \| (.*) \|$", README, re.M))
    assert len(rows) > 10
    assert rows == {path.name: told(path.read_text(encoding="utf-8")) for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_its_parts(path: Path) -> None:
    assert lacking(path.read_text(encoding="utf-8")) == []
    assert os.access(path, os.X_OK)


def test_what_a_script_lacks_is_found() -> None:
    script = SCRIPTS[0].read_text(encoding="utf-8")
    for old, new, what in (
        ("# Truth  ", "# Thing  ", "a guess, the truth, the source and what to do instead"),
        ("==", ">=", "versions"),
        ("mktemp -d", "echo /", "a folder that it removes"),
        ("SystemExit(not holds)", "SystemExit(0)", "an exit by what it saw"),
        ("<<'END'\n", "<<'END'\nimport qunify.maps\n", "nothing of ours"),
        ("\nset -euo", "\n#" + 120 * "-" + "\nset -euo", "lines of at most 120"),
    ):
        assert what in lacking(script.replace(old, new))
