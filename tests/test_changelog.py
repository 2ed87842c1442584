"""What CHANGELOG.md says of moved names is true: each is where it says, and no longer where it was."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from qunify.token import Distribution, Token

TEXT = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """The rows of the table with this head, each cell as it is written."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.M)
    return [line.strip("| ").split(" | ") for line in table.splitlines()]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def is_there(module: str, name: str = "") -> bool:
    """Whether `from module import name` works, or `import module`."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # a library that is missing says nothing of ours
        return False
    return not name or hasattr(found, name)


def untrue(was: str, names: str, now: str) -> list[str]:
    """What a row has wrong. A name that has another one now is written `old` → `new`."""
    wrong = []
    for name in names.split(", "):
        old, new = code(name)[0], code(name)[-1]
        wrong += [f"{was}.{old} is still there"] * is_there(was, old)
        wrong += [f"{now}.{new} is not there"] * (not is_there(now, new))
    return wrong


MOVED = [
    pytest.param(*row, marks=[pytest.mark.slow] * ("`qunify.hf`" in row), id=f"{code(row[0])[0]} to {code(row[2])[0]}")
    for row in rows("module | names | now in")
]


@pytest.mark.parametrize(("was", "names", "now"), MOVED)
def test_moved_names_are_where_it_is_said(was: str, names: str, now: str) -> None:
    assert untrue(code(was)[0], names, code(now)[0]) == []


def test_modules_that_are_said_to_be_gone_are_gone() -> None:
    table = [(code(modules), code(package)) for modules, package in rows("modules | their work is done in")]
    gone = [module for modules, _ in table for module in modules if ".hf." not in module]
    assert len(gone) > 40
    assert [module for module in gone if is_there(module)] == []
    assert [package for _, (package,) in table if package != "qunify.hf" and not is_there(package)] == []
    moved = {code(row.values[0])[0] for row in MOVED}  # type: ignore[arg-type]
    assert moved - {module for modules, _ in table for module in modules} == {"qunify.population"}


def test_words_of_a_token_are_those_it_is_said_to_have() -> None:
    classes = {"Token": Token, "Distribution": Distribution}
    table = [(*code(old)[0].split("."), code(new)[0]) for old, new in rows("name | now")]
    assert len(table) >= 10
    assert [old for owner, old, _ in table if hasattr(classes[owner], old)] == []
    assert [new for owner, _, new in table if not hasattr(classes[owner], new)] == []


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (("qunify.qmap", "`QMap`", "qunify"), []),
        (("qunify.qmap", "`Designed` → `design`, `Gate`", "qunify.token"), ["design", "Gate"]),
        (("qunify.token", "`Token`", "qunify.token"), ["Token"]),
    ],
)
def test_a_row_that_is_not_true_is_found(row: tuple[str, str, str], wrong: list[str]) -> None:
    assert [sentence.split()[0].rpartition(".")[2] for sentence in untrue(*row)] == wrong
