"""Which recipe to take: every sentence holds of the committed rows, and would be withdrawn if they said otherwise."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analyses.kit import findings
from analyses.kit.story import STUDIES
from docs import findings as pages
from docs import which_recipe, yardsticks
from docs._ext import studies
from docs.which_recipe import EVERY, SITUATIONS, STATEMENTS, Statement
from docs.yardsticks import Comparison, Rows, compared
from tests.test_findings import swapped

DOCS = Path(which_recipe.__file__).parent
TITLES = [s.title for s in STATEMENTS]
each = pytest.mark.parametrize("statement", STATEMENTS, ids=TITLES)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return yardsticks.committed(EVERY)


@pytest.fixture(scope="module")
def page() -> str:
    return f"{which_recipe.table()}\n\n{which_recipe.sections()}"


@pytest.mark.slow
@each
def test_the_rows_support_it(rows: Rows, statement: Statement) -> None:
    assert statement.holds(compared(EVERY, rows))


def exchanged(one: str, other: str, *names: str) -> Callable[[Rows], Rows]:
    """The rows of these studies with two methods exchanged."""

    def exchange(rows: Rows) -> Rows:
        column = {name: "setting" if name == "noise" else "method" for name in names}
        return {**rows, **{name: swapped(column[name], one, other)(rows[name]) for name in names}}

    return exchange


#: Rows, as complete as the committed ones, that say otherwise.
OTHERWISE: dict[str, Callable[[Rows], Rows]] = {
    "Keep them with SFT; DFT loses them": exchanged("dft", "sft", "calibration_bias"),
    "GEM shows more of them in tables, and ends farther from the truth elsewhere": exchanged("gem", "sft", "sequence"),
    "The studies disagree on DFT": exchanged("dft", "sft", "demonstrations"),
    "Two losses that ask the starting model are nowhere behind SFT here": exchanged("iw_sft", "dft", "sequence"),
    "Before changing the loss, look at how you sample": exchanged("profit", "sft", "ten_settings"),
    "A loss that trusts belief learns last what contradicts it": exchanged("dft", "sft", "prior_conflict"),
    "Stopped late, the order is another": exchanged("dft", "sft", "prior_conflict"),
    "A softer trust is the compromise without a teacher": exchanged("beyond_log", "dft", "prior_conflict"),
    "A teacher helps in some comparisons, and a blurred one sets back in others": exchanged(
        "kd_hybrid", "sft", "calibration_bias"
    ),
    "Which loss with a teacher depends on what counts": exchanged("target_sft", "kd", "ten_settings"),
    "SFT is the quickest at a token that the model does not expect": exchanged("dft", "sft", "dynamics"),
    "Start with SFT": exchanged("sft", "label_smoothing", "ten_settings"),
    "With a teacher, a mixture has the best balance": exchanged("kd_hybrid", "dft", "sequence", "demonstrations"),
}


def test_every_statement_has_rows_that_say_otherwise() -> None:
    assert set(OTHERWISE) == set(TITLES)
    assert len(TITLES) == len(set(TITLES))


@pytest.mark.slow
@each
def test_other_rows_would_not(rows: Rows, statement: Statement) -> None:
    assert not statement.holds(compared(EVERY, OTHERWISE[statement.title](rows)))


# ---- comparisons ----------------------------------------------------------------------------------------------------
def test_a_comparison_by_hand() -> None:
    """Two seeds: Student's factor is 12.706, so that a half-width is 12.706 times half of the spread."""
    values = pd.DataFrame({"a": [0.9, 0.8], "b": [0.5, 0.4], "c": [0.7, 0.8], "d": [0.1, 0.1]})
    more = Comparison(values, higher=True)
    assert more.order == ["a", "c", "b", "d"]
    assert more.ahead("a", "c") == pytest.approx((0.1, 12.7062 * 0.1), rel=1e-4)
    assert (more.apart("a", "c"), more.apart("a", "b"), more.apart("b", "a")) == (0, 1, -1)
    assert more.level == ["c"]
    assert Comparison(values, higher=False).order == ["d", "b", "c", "a"]
    assert Comparison(values, higher=False).apart("b", "a") == 1


def test_what_never_arrives_is_last() -> None:
    c = Comparison(pd.DataFrame({"a": [math.inf] * 2, "b": [3.0, 4.0], "c": [math.inf] * 2}), higher=False)
    assert c.order[0] == "b"
    assert (c.apart("b", "a"), c.apart("a", "b"), c.apart("a", "c")) == (1, -1, 0)
    assert c.level == []


@pytest.mark.parametrize(
    ("yardstick", "method", "mean"),
    [
        (yardsticks.ANSWERS, "sft", 3.72),  # 16 samples then show 3.7 of the 4 right answers with sft
        (yardsticks.UNIFORM, "dft", 0.86),
        (yardsticks.CONFUSED, "iw_sft", 0.957),
        (yardsticks.MIXED, "kd", 0.021),
        (yardsticks.LEARNED, "dft", 0.024),
        (yardsticks.LEARNED_LATE, "dft", 0.732),
        (yardsticks.DENIED, "dft", 1073),
        (yardsticks.SAMPLED, "sft", 0.80),
        (yardsticks.GREEDY, "target_sft", 0.977),
    ],
)
def test_yardsticks_read_what_the_studies_say(
    rows: Rows, yardstick: yardsticks.Yardstick, method: str, mean: float
) -> None:
    """As `see` of the study, and its findings, word them."""
    assert yardstick.on(rows).mean(method) == pytest.approx(mean, rel=0.02)


def test_every_comparison_has_every_seed(rows: Rows) -> None:
    for y in EVERY:
        assert y.on(rows).seeds == (3 if y.study == "ten_settings" else rows[y.study]["seed"].nunique())
        assert {"sft", "dft"} <= set(y.on(rows).order)


def test_methods_are_counted_against_sft(rows: Rows) -> None:
    seen = compared(EVERY, rows)
    assert which_recipe.against("sft", EVERY, seen) == {0: len(EVERY)}
    assert which_recipe.against("dft", which_recipe.BY_HEART, seen) == {1: 4}
    assert which_recipe.against("posterior", which_recipe.ONCE, seen).total() == 0


# ---- the page -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_table_has_every_situation_and_a_section(page: str) -> None:
    assert len(SITUATIONS) == 6
    for it in SITUATIONS:
        assert f"| {{ref}}`{it.title} <{which_recipe.anchor(it)}>` |" in page
        assert f"({which_recipe.anchor(it)})=\n## {it.title}\n" in page
        assert all(f"- **{s.title}.** " in page for s in it.statements)
    assert "nan" not in page.lower()


@pytest.mark.slow
def test_rows_and_studies_are_linked(page: str) -> None:
    linked = re.findall(r"\{download\}`(\S+) <\.\./(\S+)>`", page)
    assert len(linked) > 15
    assert all(shown == file and (DOCS.parent / file).is_file() for shown, file in linked)
    assert {y.study for y in EVERY} <= {Path(file).stem for _, file in linked}
    told = studies.page() + pages.page() + "".join(map(pages.told, pages.APART)) + page
    targets = set(re.findall(r"^\((\S+)\)=$", told, flags=re.MULTILINE))
    used = set(re.findall(r"\{ref\}`[^`]* <(\S+)>`", page))
    assert used <= targets
    assert {studies.anchor(y.study) for y in EVERY} <= used


def test_findings_are_the_studies_own() -> None:
    for it in SITUATIONS:
        for study, name in it.told:
            assert study in STUDIES
            assert which_recipe.named(study, name) in findings.of(study)
    with pytest.raises(ValueError, match="not enough values"):
        which_recipe.named("noise", "No such finding")


@pytest.mark.parametrize("module", [which_recipe, yardsticks], ids=["which_recipe", "yardsticks"])
def test_no_number_is_typed(module: object) -> None:
    """No text in the source has a digit, but in how a number is rounded."""
    assert typed(Path(str(module.__file__)).read_text()) == []  # type: ignore[attr-defined]


def typed(source: str) -> list[str]:
    tree = ast.parse(source)
    formats = [f.format_spec for f in ast.walk(tree) if isinstance(f, ast.FormattedValue) and f.format_spec]
    rounded = {n for spec in formats for n in ast.walk(spec)}
    alone = {s.value for s in ast.walk(tree) if isinstance(s, ast.Expr)}  # docstrings
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [str(n.value) for n in texts if n not in rounded | alone and re.search(r"\d", str(n.value))]


def test_a_typed_number_is_seen() -> None:
    assert typed('"""7"""\nx = f"{y:.2f} and"\nz = f"3 of {x}" + "none"') == ["3 of "]
