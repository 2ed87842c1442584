"""The tests are tested: their text shows no way to pass without having checked something.

What a text cannot show, such as a tolerance that is merely too wide, test_planted_faults finds by planting faults.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qunify.catalogue import ENTRIES
from qunify.maps import Gate, QMap
from tests.battery import every_setting

HERE = Path(__file__).parent

#: Why a test may be skipped: what the machine lacks. (file, what is said of it)
SKIPPED = [
    ("browser", "chromium and chromium-driver are not installed"),
    ("browser", "axe-core is not installed: make browser"),
    ("test_real_model", "`make real` fetches the model"),
    ("test_site", "the site is not built: make docs"),
    ("test_demonstrations", "needs GSM8K in $QUNIFY_DATA/gsm8k"),
    ("test_linear_properties", "reads /proc"),
]

WIDEST = 0.35  # of all tolerances, relative or absolute: the spread of a few draws in test_ten_settings
TOLERANCES = {"atol", "rtol", "abs", "rel", "abs_tol", "rel_tol", "tolerance"}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def files() -> dict[str, ast.Module]:
    return {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.py"))}


# ---- reading tests -------------------------------------------------------------------------------------------
def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def collected(tree: ast.Module) -> list[ast.FunctionDef]:
    return [f for f in functions(tree) if f.name.startswith("test_")]


def own(node: ast.AST) -> Iterator[ast.AST]:
    """Every node inside, but for those of functions that are only defined there."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTION | ast.Lambda):
            yield child
            yield from own(child)


def called(node: ast.AST) -> str:
    """The name of what is called, without what it hangs on: `close` of `torch.testing.close(…)`."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def checks(node: ast.AST, helpers: frozenset[str] = frozenset()) -> bool:
    """Whether it can fail: an assertion, an expected error, or a call of a helper that checks."""

    def itself(n: ast.AST) -> bool:
        name = called(n)
        return isinstance(n, ast.Assert) or name.startswith("assert_") or name in {"raises", "warns", "fail"} | helpers

    return itself(node) or any(itself(n) for n in own(node))


@functools.cache
def helpers(tree: ast.Module) -> frozenset[str]:
    """The functions of a file, tests included, that check something, if only by calling another that does."""
    found: frozenset[str] = frozenset()
    while (more := frozenset(f.name for f in functions(tree) if checks(f, found))) != found:
        found = more
    return found


def blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Every run of statements: bodies, branches, handlers."""
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            if isinstance(block := getattr(node, part, None), list) and block:
                yield block


# ---- what a test must not do: each of these gives the lines that do -----------------------------------------
def without_a_check(tree: ast.Module) -> list[int]:
    checking = helpers(tree)
    return [f.lineno for f in collected(tree) if f.name not in checking]


def early_ways_out(tree: ast.Module) -> list[int]:
    """A test returns only where the statement before it has checked something."""
    returns = {n for f in collected(tree) for n in own(f) if isinstance(n, ast.Return)}
    checked = {
        end for block in blocks(tree) for before, end in itertools.pairwise(block) if checks(before, helpers(tree))
    }
    return [statement.lineno for statement in returns - checked]


def never_reached(tree: ast.Module) -> list[int]:
    ends = ast.Return | ast.Raise | ast.Continue | ast.Break
    pairs = [pair for block in blocks(tree) for pair in itertools.pairwise(block)]
    return [after.lineno for end, after in pairs if isinstance(end, ends)]


def always_true(tree: ast.Module) -> list[int]:
    """`assert True`, `… or True`, an assertion of a pair, a length of at least 0, a thing that equals itself."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            inside = list(ast.walk(node.test))
            anyhow = [v for n in inside if isinstance(n, ast.BoolOp) and isinstance(n.op, ast.Or) for v in n.values]
            anyhow += [v for n in inside if isinstance(n, ast.IfExp) for v in (n.body, n.orelse) if true(v)]
            filled = isinstance(node.test, ast.Tuple | ast.List | ast.Dict | ast.JoinedStr)
            constant = any(isinstance(v, ast.Constant) and v.value for v in (node.test, *anyhow))
            if filled or constant or any(trivial(n) for n in inside if isinstance(n, ast.Compare)):
                found.append(node.lineno)
        elif called(node).startswith("assert_") or called(node) in {"equal", "allclose", "array_equal"}:
            assert isinstance(node, ast.Call)
            found += [node.lineno] if len(node.args) > 1 and itself(node.args[0], node.args[1]) else []
    return found


def true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def trivial(node: ast.Compare) -> bool:
    sides = [node.left, *node.comparators]
    for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
        if isinstance(operator, ast.Eq | ast.Is | ast.LtE | ast.GtE) and itself(left, right):
            return True
        if called(left) == "len" and isinstance(operator, ast.GtE) and getattr(right, "value", None) == 0:
            return True
    return False


def itself(a: ast.expr, b: ast.expr) -> bool:
    """Whether both are the same expression, approximately or not. A call made twice, as `rows() == rows()`, tells
    whether what it calls gives the same again."""
    a, b = (side.args[0] if isinstance(side, ast.Call) and called(side) == "approx" else side for side in (a, b))
    again = isinstance(a, ast.Call) and called(a) not in {"float", "int", "bool", "str", "len", "abs", "list", "sorted"}
    return ast.dump(a) == ast.dump(b) and not again and not isinstance(a, ast.Constant)


def swallowed(tree: ast.Module) -> list[int]:
    """Failures that are caught, and errors of any kind that count as the expected one."""
    of_any_kind = {"Exception", "BaseException"}
    failures = {*of_any_kind, "AssertionError", ""}
    found = []
    for n in ast.walk(tree):
        errors = {e for a in n.args for e in names(a)} if isinstance(n, ast.Call) else set()
        if (
            (isinstance(n, ast.ExceptHandler) and names(n.type) & failures)
            or (called(n) == "suppress" and errors & failures)
            or (called(n) == "raises" and errors & of_any_kind)
        ):
            found.append(n.lineno)  # type: ignore[attr-defined]
    return found


def names(node: ast.expr | None) -> set[str]:
    """The names of an exception or of a tuple of them; nothing where all are caught."""
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {ast.unparse(p) if p is not None else "" for p in parts}


def too_wide(tree: ast.Module) -> list[int]:
    """Tolerances written as a number above WIDEST: as an argument, as its default, or set aside under such a name."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if (isinstance(node, ast.keyword) and node.arg in TOLERANCES) or (
            isinstance(node, ast.Assign) and {getattr(t, "id", "") for t in node.targets} & TOLERANCES
        ):
            found.append(node.value)
        elif isinstance(node, ast.arguments):
            positional = zip(reversed(node.args), reversed(node.defaults), strict=False)
            by_name = zip(node.kwonlyargs, node.kw_defaults, strict=True)
            found += [default for argument, default in (*positional, *by_name) if argument.arg in TOLERANCES]
    values = [n for value in found if value is not None for n in ast.walk(value) if isinstance(n, ast.Constant)]
    return [n.lineno for n in values if isinstance(n.value, float) and n.value > WIDEST]


def skips(tree: ast.Module) -> list[str]:
    """What is said where a test is skipped or expected to fail, and "" where nothing is."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and getattr(node, "attr", "") in {"skip", "xfail", "skipif"}:
            call = next((n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.func is node), None)
            said = [] if call is None else [*call.args, *(k.value for k in call.keywords)]
            texts = [str(n.value) for n in said if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            found.append(texts[-1] if texts else "")
    return found


RULES = {
    "a test without a check": without_a_check,
    "a way out of a test before anything is checked": early_ways_out,
    "a statement that is never reached": never_reached,
    "an assertion that is always true": always_true,
    "a failure that is caught": swallowed,
    "a tolerance that forgives all": too_wide,
}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_breaks_a_rule(rule: str) -> None:
    broken = {f"{file}.py": lines for file, tree in files().items() if (lines := RULES[rule](tree))}
    assert broken == {}, rule


def test_tests_are_skipped_only_for_what_a_machine_lacks() -> None:
    found = [(file, reason) for file, tree in files().items() for reason in skips(tree)]
    assert sorted(found) == sorted(SKIPPED)


def test_no_file_is_skipped_because_an_installed_package_fails_to_import() -> None:
    wanted = {
        str(node.args[0].value)
        for tree in files().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called(node) == "importorskip" and isinstance(node.args[0], ast.Constant)
    }
    assert wanted
    installed = importlib.metadata.packages_distributions()
    for name in wanted:
        assert name.partition(".")[0] not in installed or importlib.import_module(name) is not None


def test_a_parametrisation_without_cases_is_an_error(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("empty_parameter_set_mark") == "fail_at_collect"


# ---- the rules find what they are there for ------------------------------------------------------------------
LOOSE = {
    "a test without a check": ["x = f()", "[f(x) for x in y]", "def g():\n        assert x"],
    "a way out of a test before anything is checked": [
        "if x:\n        return\n    assert y", "assert x\n    if y:\n        return\n    assert z",
        "for x in y:\n        if x: return\n        assert z",
    ],
    "a statement that is never reached": [
        "return\n    assert x", "for x in y:\n        continue\n        assert x", "raise E\n    assert x",
    ],
    "an assertion that is always true": [
        "assert True", "assert x < 1 or True", "assert (x < 1 or 1)", "assert 1",
        "assert (x, 'message')", "assert f(x if y else True)", "assert x == x", "assert 0 <= y <= y",
        "assert float(x[0]) == float(x[0])", "assert x.a == pytest.approx(x.a)", "assert len(x) >= 0",
        "torch.testing.assert_close(a / b, a / b, rtol=0, atol=0)", "assert torch.equal(a, a)",
    ],
    "a failure that is caught": [
        "try:\n        assert x\n    except AssertionError:\n        pass",
        "try:\n        f()\n    except:\n        pass",
        "with contextlib.suppress(Exception):\n        assert x", "with pytest.raises(Exception):\n        f()",
        "try:\n        f()\n    except (ValueError, Exception):\n        pass",
    ],
    "a tolerance that forgives all": [
        "atol = 1e9\n    close(x, y, atol=atol)", "assert x == approx(y, abs=0.5)", "close(x, y, rtol=0, atol=1e9)",
        "atol = 1e9 if m else 1e-9", "def same(a, atol=1.0):\n        pass",
    ],
}  # fmt: skip
SOUND = [
    "assert x", "with pytest.raises(ValueError, match='x'):\n        f()",
    "torch.testing.assert_close(a, b, atol=1e-9)",
    "for x in y:\n        if x:\n            continue\n        assert z", "assert rows(0) == rows(0)",
    "if x:\n        assert y\n        return\n    assert z",
    "try:\n        f()\n    except ValueError:\n        x = 1\n    assert x",
    "def g():\n        return 1\n    assert g() == 1", "assert x or y", "assert x == 1", "assert x == (1 if y else z)",
    "atol = 1e-6\n    assert close(x, y, atol=atol)", "assert all(x for x in y)", "assert x, y or 1",
]  # fmt: skip


def written(body: str) -> ast.Module:
    return ast.parse(f"def test_it():\n    {body}\n")


def test_every_rule_has_examples() -> None:
    assert set(LOOSE) == set(RULES)


@pytest.mark.parametrize(("rule", "body"), [(rule, body) for rule, bodies in LOOSE.items() for body in bodies])
def test_a_loosened_test_is_found(rule: str, body: str) -> None:
    assert RULES[rule](written(body)) != []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("body", SOUND)
def test_a_sound_test_is_left_alone(rule: str, body: str) -> None:
    assert RULES[rule](written(body)) == []


def test_a_skip_is_found_however_it_is_written() -> None:
    for text in ("@pytest.mark.skip\ndef test_x():\n    assert y", "pytestmark = pytest.mark.xfail", "pytest.skip()"):
        assert skips(ast.parse(text)) == [""]
    assert skips(ast.parse("@pytest.mark.skipif(x, reason='no y')\ndef test_x():\n    assert y")) == ["no y"]


def test_a_helper_counts_as_a_check_only_if_it_checks() -> None:
    assert without_a_check(ast.parse("def same(a, b):\n    assert a\ndef test_x():\n    same(1, 2)")) == []
    assert without_a_check(ast.parse("def same(a, b):\n    return a\ndef test_x():\n    same(1, 2)")) == [3]


# ---- what goes over the whole catalogue ----------------------------------------------------------------------
#: Tests that ask every entry, and those that ask every entry at every setting or every gate at every setting.
EVERY_ENTRY = {
    "test_conformance": (
        "needs_are_exactly_what_the_method_reads", "entry_carries_its_facts", "a_token_only_the_model_rules_out",
    ),
    "test_contract": (
        "every_float_type", "ignored_positions_are_zero_and_do_not_matter", "all_labels_ignored",
        "ruled_out_tokens_take_no_part", "only_the_label_allowed", "huge_logits_never_give_nan",
    ),
    "test_mutants": ("the_unbroken_entry_conforms", "broken_pulls_are_found"),
    "test_derivation": ("the_loss_gives_the_pulls_for_every_vocabulary", "a_perturbed_weight_is_not_proved"),
}  # fmt: skip
EVERY_SETTING = {
    "test_conformance": (
        "loss_gradient_equals_the_sum_of_pulls", "target_sums_to_one_exactly_if_declared_shift_invariant",
        "every_gauge_reproduces_the_gradient", "undefined_gauges", "simplex_is_as_declared",
    ),
    "test_precise": ("float64_has_the_digits_it_claims",),
    "test_loss": ("values_and_gradients_are_those_of_the_published_loss",),
}  # fmt: skip


def asked(file: str, test: str) -> list[Any]:
    """The methods, as ids or as maps, that a test is given."""
    function = getattr(importlib.import_module(f"tests.{file}"), f"test_{test}")
    (values,) = (mark.args[1] for mark in function.pytestmark if mark.args[0] in ("name", "m"))
    return [getattr(v, "values", (v,))[0] for v in values]


@pytest.mark.parametrize(("file", "test"), [(file, test) for file, tests in EVERY_ENTRY.items() for test in tests])
def test_every_entry_is_asked(file: str, test: str) -> None:
    assert asked(file, test) == list(ENTRIES)


@pytest.mark.parametrize(("file", "test"), [(file, test) for file, tests in EVERY_SETTING.items() for test in tests])
def test_every_setting_is_asked(file: str, test: str) -> None:
    assert asked(file, test) == [m for case in every_setting() for m in case.values]


def test_every_gate_is_asked() -> None:
    gates = [name for name, cls in ENTRIES.items() if issubclass(cls, Gate)]
    assert asked("test_conformance", "a_gate_is_measured_as_one") == gates
    everywhere: list[QMap] = asked("test_conformance", "float32_gauges_are_defined_where_float64_ones_are")
    assert [m.name for m in everywhere] == [m.name for c in every_setting() for m in c.values if isinstance(m, Gate)]
