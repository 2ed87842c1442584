"""The house: which package may look into which, and what a name on the outside promises."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import qunify as qu

ROOT = Path(qu.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_FLOORS = 8  # of packages; a file beside them is no floor

Graph = dict[str, set[str]]


def module(path: Path) -> str:
    parts = ("qunify", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """The package, or the file beside the packages, that a module belongs to: `qunify.token._base` → `token`."""
    return name.split(".")[1] if "." in name else name


def imports(source: str, *, types: bool = False) -> Iterator[tuple[str, str]]:
    """(module, name) for every import of ours in a file, wherever it stands; those for types alone where asked."""
    tree = ast.parse(source)
    only_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in only_types and not types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "qunify":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "qunify")


def looks_into(source: str, own: str) -> set[str]:
    """The rooms that a file of room `own` imports from."""
    rooms = {room(f"{m}.{name}" if m == "qunify" else m) for m, name in imports(source, types=True)}
    return rooms & {room(module(p)) for p in FILES} - {own, "qunify"}


def trespasses(source: str, own: str) -> list[str]:
    """Imports of another room's private files."""
    return [
        f"{m}.{name}"
        for m, name in imports(source, types=True)
        if any(part.startswith("_") for part in f"{m}.{name}".split(".")[2:]) and room(m) not in (own, "_lib", "qunify")
    ]


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each room, above all it looks into; CycleError where two look into each other. A single file beside
    the packages is on the floor below it."""
    height: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        own = 0 if (ROOT / f"{name}.py").exists() else 1
        height[name] = own + max((height[below] for below in graph.get(name, ())), default=0)
    return height


def rooms() -> Graph:
    graph: Graph = {}
    for path in FILES:
        own = room(module(path))
        if own not in ("qunify", "__main__"):  # the public names, which look everywhere
            graph.setdefault(own, set()).update(looks_into(path.read_text(), own))
    return graph


def test_rooms_look_down_only_and_lie_on_few_floors() -> None:
    height = floors(rooms())
    assert max(height.values()) <= MOST_FLOORS
    walk = ("token", "maps", "symbolic", "population", "comparison", "cli")
    assert [height[name] for name in walk] == sorted(height[name] for name in walk)


def test_two_rooms_that_look_into_each_other_are_found() -> None:
    with pytest.raises(graphlib.CycleError):
        floors({"token": {"maps"}, "maps": {"token"}})
    assert floors({"a": {"b"}, "b": {"c"}})["a"] == 3


def test_files_of_a_package_form_no_cycle() -> None:
    known = {module(p) for p in FILES}
    graph = {
        module(p): {m if f"{m}.{name}" not in known else f"{m}.{name}" for m, name in imports(p.read_text())} & known
        for p in FILES
        if p.name != "__init__.py"
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError where there is one
    assert len(set(order) & set(graph)) > 80


@pytest.mark.parametrize("path", FILES, ids=module)
def test_a_private_file_is_imported_by_its_own_package_alone(path: Path) -> None:
    assert trespasses(path.read_text(), room(module(path))) == []


def test_a_look_into_a_private_file_is_found() -> None:
    assert trespasses("from qunify.token._base import Token", "maps") == ["qunify.token._base.Token"]
    assert trespasses("from qunify.token._base import Token", "token") == []


def _public(paths: Iterable[Path]) -> set[str]:
    return {part for p in paths for part in module(p).split(".")[1:] if not part.startswith("_")}


def test_no_public_file_bears_the_name_of_a_public_function() -> None:
    """Importing `qunify.identify` as a module would put it in the place of the function `qu.identify`."""
    top = {p for p in FILES if len(module(p).split(".")) == 2}
    package: ModuleType = qu
    functions = {name for name in package.__all__ if name.islower()}
    assert functions & _public(top) == set()


def test_files_inside_a_package_are_private() -> None:
    families = {p for p in FILES if p.parent.name == "catalogue"}  # a family is read from its file's name
    inside = {p for p in FILES if p.parent != ROOT and p.name != "__init__.py"} - families
    assert [module(p) for p in inside if not p.name.startswith("_") and p.parent.name != "_lib"] == []


# ---- what qunify/README.md says ----------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
WALK = [line for line in README.splitlines() if line.startswith("| `")]
PATHS = [line for line in README.splitlines() if line.startswith("- **")]
STUDY = "targets"  # for NAME


def walked(rows: list[str]) -> list[str]:
    """The rooms of a table whose first column has `room/` or `room.py`, in its order."""
    return [name for row in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", row.split(" | ")[0])]


def looks_ahead(order: list[str], graph: Graph) -> list[tuple[str, str]]:
    """(room, a room further down that it looks into)."""
    place = {name: i for i, name in enumerate(order)}
    return [(name, other) for name in order for other in graph.get(name, ()) if place[other] > place[name]]


def astray(rows: list[str], paths: list[str]) -> list[str]:
    """What a newcomer would not find: files to begin at, paths, and in brackets after a path what it defines."""
    begins = [(walked([row]), re.findall(r"`(\w+\.py)`", row.split(" | ")[2])) for row in rows]
    lost = [file for names, files in begins for file in files if not any((ROOT / r / file).exists() for r in names)]
    for path, name in re.findall(r"`([\w/]+\.\w+)`(?: \(`(\w+)`\))?", "\n".join(paths)):
        found = [file for top in (ROOT, ROOT.parent) if (file := top / path.replace("NAME", STUDY)).exists()]
        defined = [getattr(n, "name", "") for file in found if name for n in ast.parse(file.read_text()).body]
        lost += [path] if not found else [f"{path}: {name}"] if name and name not in defined else []
    return lost


def test_readme_of_the_package_names_every_room_once_in_the_order_of_the_imports() -> None:
    names = {room(module(p)) for p in FILES} - {"qunify", "__main__"}
    assert sorted(walked(WALK)) == sorted(names)
    below_all = {"_lib"}
    graph = {name: into - below_all for name, into in rooms().items()}
    assert looks_ahead(walked(WALK), graph) == []


def test_what_readme_of_the_package_leads_to_is_there() -> None:
    assert len(WALK) > 10
    assert len(PATHS) == 3
    assert astray(WALK, PATHS) == []


def test_what_is_not_there_is_found() -> None:
    assert looks_ahead(["maps", "token"], {"maps": {"token"}}) == [("maps", "token")]
    rows, paths = ["| `maps/`, `token/` | both | `_base.py`, `_none.py` |"], ["- `token/_base.py` (`Token`, no more)"]
    assert astray(rows, paths) == ["_none.py"]
    assert astray([], ["`token/_none.py`", "`token/_base.py` (`Nothing`)", "`figures/NAME.csv`"]) == [
        "token/_none.py",
        "token/_base.py: Nothing",
    ]
