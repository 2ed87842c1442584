"""The files of this checkout that a module imports, directly or not: what a result depends on, read from the source.

Imports inside functions count. A package that loads its names lazily states where they live in an `if TYPE_CHECKING:`
block of its `__init__.py`: after `import qunify as qu`, `qu.optimum` leads to the file that defines `optimum` and to no
other. Where a name cannot be followed, its whole package counts, and so it does where a package goes through its own
files (`pkgutil.iter_modules(__path__)`), as that of the methods does. What else is imported under a name made at run
time (`importlib.import_module`) is not seen; a test keeps the list of the files that do so.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: A module and the dotted name that is wanted of it: ("qunify", "training.Stack"). "" is the module alone, and "*" any
#: name that it has.
Wish = tuple[str, str]


def closure(modules: Iterable[str], root: Path) -> list[Path]:
    """The Python files below `root` that these modules (`analyses.studies.noise`) import, and their own, sorted."""
    found = _Closure(root)
    for module in modules:
        if not found.add(module):
            raise ModuleNotFoundError(f"no module {module} in {root}", name=module)
    return sorted(found.files)


@dataclass
class _Closure:
    root: Path
    files: set[Path] = field(default_factory=set)
    known: dict[str, bool] = field(default_factory=dict)  # module → whether it lies below the root
    granted: set[Wish] = field(default_factory=set)

    def add(self, module: str) -> bool:
        """Add a module, the packages around it and all that they import; False if it is no module below the root."""
        if module not in self.known:
            place = self.root.joinpath(*module.split("."))
            path = next((p for p in (place / "__init__.py", place.with_suffix(".py")) if p.exists()), None)
            self.known[module] = path is not None
            if path is not None:
                self.files.add(path)
                package = module.rpartition(".")[0]
                self.add(package or module)
                source = _read(path.read_bytes(), module if path.name == "__init__.py" else package)
                for wish in source.wishes:
                    self.grant(wish)
                for file in sorted(place.glob("*.py")) if source.reads_its_folder else ():
                    self.add(f"{module}.{file.stem}".removesuffix(".__init__"))
        return self.known[module]

    def grant(self, wish: Wish) -> None:
        module, asked = wish
        if wish in self.granted or not self.add(module):
            return
        self.granted.add(wish)
        name, _, rest = asked.partition(".")
        folder = self.root.joinpath(*module.split("."))
        if not name or not folder.is_dir():
            return
        source = _read((folder / "__init__.py").read_bytes(), module)
        if name in source.lazy:
            home, there = source.lazy[name]
            self.grant((home, _dotted(there, rest)))
        if self.add(f"{module}.{name}"):
            self.grant((f"{module}.{name}", rest))
        elif name not in source.lazy and name not in source.bound:
            for path in folder.rglob("*.py"):
                self.add(".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__"))


@dataclass(frozen=True)
class _Source:
    """What one file imports when it runs, which names it binds, where names live that it loads when first used, and
    whether it goes through the files beside it."""

    wishes: frozenset[Wish]
    bound: frozenset[str]
    lazy: dict[str, Wish]
    reads_its_folder: bool


@functools.cache
def _read(source: bytes, package: str) -> _Source:
    """`package`: where the file lies, from which relative imports are counted."""
    run, typed = _split(ast.parse(source))
    imports = [found for node in run for found in _imports(node, package)]
    names: dict[str, list[Wish]] = {}
    for called, wish in imports:
        names.setdefault(called, []).append(wish)
    bound = {node.name for node in run if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.id for node in run if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    wishes = [*(wish for _, wish in imports), *_uses(run, names)]
    lazy = dict(found for node in typed for found in _imports(node, package))
    reads_its_folder = any(isinstance(node, ast.Name) and node.id == "__path__" for node in run)
    return _Source(frozenset(wishes), frozenset([*bound, *names]), lazy, reads_its_folder)


def _split(tree: ast.Module) -> tuple[list[ast.AST], list[ast.AST]]:
    """The nodes that run, and those that only a type checker reads."""
    run: list[ast.AST] = []
    typed: list[ast.AST] = []

    def visit(node: ast.AST, into: list[ast.AST]) -> None:
        into.append(node)
        unread: list[ast.stmt] = []
        if isinstance(node, ast.If):
            test = ast.unparse(node.test).replace("typing.", "")
            unread = {"TYPE_CHECKING": node.body, "not TYPE_CHECKING": node.orelse}.get(test, [])
        for child in ast.iter_child_nodes(node):
            visit(child, typed if child in unread else into)

    visit(tree, run)
    return run, typed


def _imports(node: ast.AST, package: str) -> Iterator[tuple[str, Wish]]:
    """What an import binds, and to what: `import a.b as c` binds `c` to `a.b`, while `import a.b` binds `a`."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name, (alias.name, "")
            if not alias.asname:
                top = alias.name.partition(".")[0]
                yield top, (top, "")
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        around = parts[: len(parts) - node.level + 1] if node.level else []
        module = _dotted(*around, node.module or "")
        for alias in node.names:
            yield alias.asname or alias.name, (module, alias.name)


def _uses(nodes: list[ast.AST], names: dict[str, list[Wish]]) -> Iterator[Wish]:
    """What is asked of imported names: after `import qunify as qu`, `qu.training.Stack` asks for `training.Stack.*` of
    qunify. Of a package that is handed on as a whole, as in `vars(qu)`, everything may be asked."""
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner and _is_dotted(node):
            head, *rest = ast.unparse(node).split(".")
            for module, name in names.get(head, []):
                yield module, _dotted(name, *rest, "*")


def _dotted(*names: str) -> str:
    return ".".join(filter(None, names))


def _is_dotted(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_dotted(node.value))
