"""The studies of equivalence and of special cases: committed rows come out again, pictures say what the rows say."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest

import qunify as qu
from analyses.kit import cache, runner
from analyses.studies import equivalence, family
from qunify.comparison import LEVELS


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return runner.read("equivalence", runner.FIGURES)


@pytest.fixture(scope="module")
def edges() -> pd.DataFrame:
    return runner.read("family", runner.FIGURES)


def shown(pairs: pd.DataFrame) -> list[str]:
    """The methods that rows were made of: all of the catalogue, but for what has been added since."""
    return [name for name in qu.names() if name in {*pairs["a"], *pairs["b"]}]


def test_every_pair_is_decided_once(pairs: pd.DataFrame) -> None:
    names = shown(pairs)
    assert len(names) >= 71
    assert {frozenset(p) for p in zip(pairs["a"], pairs["b"], strict=True)} == {
        frozenset((a, b)) for a in names for b in names if a != b
    }
    assert len(pairs) == len(names) * (len(names) - 1) // 2
    assert set(pairs["level"]) == set(LEVELS)


def missing(pairs: pd.DataFrame) -> set[tuple[str, str]]:
    """Who shares the optima of one that shares another's, and not that other's."""
    found = set(pairs.loc[pairs["same_optimum"], ["a", "b"]].itertuples(index=False, name=None))
    found |= {(b, a) for a, b in found}
    return {(a, c) for a, b in found for also, c in found if b == also and a != c} - found


def test_optima_are_shared_transitively(pairs: pd.DataFrame) -> None:
    assert missing(pairs) == set()
    wrong = pairs["same_optimum"] & ~((pairs["a"] == "kd") & (pairs["b"] == "reverse_kl"))
    assert ("kd", "reverse_kl") in missing(pairs.assign(same_optimum=wrong))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mbls", "unlikelihood", "elr", "z_loss"])
def test_committed_verdicts_come_out_again(pairs: pd.DataFrame, name: str) -> None:
    again = equivalence._against(qu.names().index(name)).astype(str)
    again = again[again["b"].isin(shown(pairs))]
    before = pairs[pairs["a"] == name].astype(object).fillna("").astype(str)
    for column in ("b", "level", "same_direction", "same_optimum", "factor", "proved", "ties"):
        assert list(again[column]) == list(before[column]), column


def test_classes_are_what_the_rows_say(pairs: pd.DataFrame) -> None:
    order, blocks = equivalence.ordered(pairs)
    assert sorted(order) == sorted(shown(pairs))
    bounds = {title: (start, end) for title, start, end in blocks}
    start, end = bounds["gates: one direction"]
    gates = set(order[start:end])
    directional = {frozenset(p) for p in pairs.loc[pairs["same_direction"], ["a", "b"]].itertuples(index=False)}
    assert {frozenset(p) for p in itertools.combinations(gates, 2)} <= directional
    for other in {*order} - gates:  # one may share the way of a gate that is silent where it pushes
        assert not {frozenset((other, gate)) for gate in gates} <= directional, other
    start, end = bounds["the teacher"]
    assert {"kd", "reverse_kl", "jsd", "tvd"} <= set(order[start:end])


def test_what_is_said_is_counted(pairs: pd.DataFrame) -> None:
    said = equivalence.see(pairs)
    assert f"Of {len(pairs)} pairs" in said
    assert "dft and mae" in said
    assert int(equivalence.digest(pairs)["Pairs"].sum()) == len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("general", ["agce", "js_noisy", "threshold", "taylor_ce", "gem", "kd_hybrid"])
def test_committed_special_cases_come_out_again(edges: pd.DataFrame, general: str) -> None:
    """And for the last one no others."""
    before = edges[edges["general"] == general]
    again = family._below(general, () if general == "kd_hybrid" else tuple(before["special"]))
    again = again[again["special"].isin({*edges["general"], *edges["special"]})]
    assert list(again["statement"]) == list(before["statement"])
    assert list(again["proved"].astype(str)) == list(before["proved"].astype(str))


def test_a_line_of_the_tree_has_the_parameters_that_matter_and_apart_from_them_the_constant(
    edges: pd.DataFrame,
) -> None:
    assert family.binding("gamma → ∞", "gamma") == "gamma → ∞  (× gamma)"
    assert family.binding("a=1/(V*q)", "1") == "a=1/(V·q)"
    at = edges.set_index(["general", "special"])["at"]
    assert at["mbls", "sft"] == "weight=0", "the margin is at its default"


def test_the_tree_has_agce_as_its_hub(edges: pd.DataFrame) -> None:
    graph = family.tree(edges)
    assert "agce is the hub" in family.see(edges)
    assert graph.edges[("luffy",), ("agce",)]["at"] == "a=gamma, q=-1"
    assert (("sft",), ("agce",)) not in graph.edges, "it follows from smaller steps"
    assert any({"dft", "mae"} <= set(node) for node in graph)


def test_a_part_is_made_once_read_back_and_kept_when_the_code_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path)
    made = []

    def make() -> pd.DataFrame:
        made.append(1)
        return pd.DataFrame({"x": [True], "word": ["NA"]})

    first, second = cache.part("equivalence", "sft", make), cache.part("equivalence", "sft", make)
    assert len(made) == 1
    assert first.equals(second)
    assert list(first.loc[0]) == ["True", "NA"]
    with monkeypatch.context() as changed:
        changed.setattr(runner, "key", lambda name, full: "full other-code")
        cache.part("equivalence", "sft", make)
        assert len(made) == 2, "other code makes its own"
    cache.part("equivalence", "sft", make)
    assert len(made) == 2, "and leaves what was there"
