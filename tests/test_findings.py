"""Findings: each statement holds of the committed rows, and would be withdrawn if they said otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import pytest

from analyses.kit import findings, runner
from analyses.kit.findings import Finding
from analyses.kit.story import STUDIES
from analyses.studies.ten_settings import findings as ten_settings
from docs import findings as pages

ALL = [(study, finding) for study in STUDIES for finding in findings.of(study)]
TITLES = [finding.title for _, finding in ALL]
each = pytest.mark.parametrize(("study", "finding"), ALL, ids=TITLES)


@pytest.mark.slow
@each
def test_the_rows_support_it(study: str, finding: Finding) -> None:
    assert finding.holds(findings.committed(study))


Rows = Callable[[pd.DataFrame], pd.DataFrame]


def swapped(column: str, one: object, other: object) -> Rows:
    """The same rows with two values of a column exchanged: every row stays, and says it of the other."""

    def swap(table: pd.DataFrame) -> pd.DataFrame:
        assert {one, other} <= set(table[column])
        return table.assign(**{column: table[column].replace({one: other, other: one})})

    return swap


def off(table: pd.DataFrame) -> pd.DataFrame:
    some = table["method"].isin(table["method"].unique()[:8])
    return table[some].assign(distance=0.01, nearest=0.01)


#: Rows, as complete as the committed ones, that say otherwise.
OTHERWISE: dict[str, Rows] = {
    "Training ends where the drift says": off,
    "DFT ends in the commonest token, whatever its share": swapped("method", "dft", "sft"),
    "Who sharpens and who flattens can be predicted": lambda t: t.assign(**{"entropy gap": -t["entropy gap"]}),
    "Noise does not break a loss before memorising does": swapped("step", 60, 400),
    "A popular claim that does not hold here: a bounded loss is robust": swapped("setting", "dft", "sft"),
    "Robust is not calibrated": swapped("setting", "dft", "sft"),
    "Of several right answers DFT keeps one": swapped("method", "dft", "sft"),
    "A loss that trusts belief learns late what the model does not believe, and one with a threshold never": swapped(
        "method", "dft", "sft"
    ),
    "Trust in what is believed is paid in steps where the belief is wrong": swapped("method", "dft", "sft"),
    "A popular claim that does not hold here: a KL anchor is how to keep what was known": lambda t: t.assign(
        learned=0.5
    ),
    "Trust that tells right from wrong does not by itself lead to the truth": swapped("method", "dft", "sft"),
    "A popular claim that does not hold at this scale: the model's belief tells right demonstrations from wrong ones": (
        swapped("method", "dft", "iw_sft")
    ),
    "Target-SFT has the best mean rank, but is not first everywhere": swapped("method", "target_sft", "sft"),
    "It is above SFT in all ten settings": swapped("method", "target_sft", "sft"),
    "The p-loss wins at mathematics, and not where facts have changed": swapped("method", "dft", "sft"),
    "Some change places from setting to setting; Target-SFT hardly": swapped("method", "target_sft", "dft"),
    "A tuned power of p comes close without a teacher": swapped("method", "target_sft", "sft"),
    "Much of the ranking is sharpness": swapped("method", "dft", "sft"),
    "Trust carries Target-SFT in arithmetic, its teacher where facts have changed": swapped(
        "method", ten_settings.BASE, "trust 1"
    ),
    "The method designed for slips ends nearer to the truth, not higher": swapped("method", "posterior", "dft"),
    "A real model learns to stop under every loss rehearsed, whatever it asks of the end of turn": swapped(
        "method", "dft", "sft"
    ),
    "DFT makes real demonstrations less likely than they were": swapped("method", "dft", "sft"),
    "The first step foretells a rehearsal; what is asked does not": swapped("quantity", "influence", "trust"),
    "A real model's trust does not tell wrong solutions from right ones": lambda t: t.assign(low=0.6),
    "Label smoothing of ε is two losses, and a few more": lambda t: t.assign(
        found=t["found"].replace("label_smoothing(smoothing=0.1*V/(V - 1))", "label_smoothing(smoothing=0.1)")
    ),
    "At a temperature, some multiply by T², and some divide by V": lambda t: t.assign(
        factor=t["factor"].replace("0.25", "1.0")
    ),
    "Distillation from a teacher's top k is several losses": lambda t: t.assign(
        found="kd(temperature=1)", level="identical", factor="1.0"
    ),
    "Where no token is kept, some losses are no number and some are 0": lambda t: t.assign(none_kept="0"),
    "The first step foretells what training does to a real model, far from perfectly": swapped(
        "group", "special tokens", "white space"
    ),
    "Of what falls the first step foretells less than half": swapped("recipe", "profit", "sft"),
    "Who learns the format is seen in the first step, and not in what is asked": swapped("recipe", "dft", "sft"),
    "How much is asked hardly tells how far a model moves": swapped("recipe", "dft", "sft"),
    "What the first step misses is not the optimiser's doing: kinds of token pull at each other": swapped(
        "recipe", "dft, plain descent", "sft, plain descent"
    ),
    "Further training goes on where the first steps went": swapped("recipe", "dft, 200 steps", "sft, 200 steps"),
    "Wrong solutions are learned as right ones are": lambda t: t.assign(
        value=t["value"].where(t["quantity"] != "more", 1.0)
    ),
    "An anchor is not seen in the first step": swapped("recipe", "dft", "sft"),
    "DFT learns to stop and unlearns the format": swapped("recipe", "dft", "sft"),
    "DFT is right more often than the start, and far too sure": swapped("recipe", "dft", "sft"),
    "Theory tells groups of methods apart, not their order within": swapped("method", "dft", "sft"),
}


def test_where_training_ends_is_counted_as_it_is_said() -> None:
    t = findings.committed("theory_vs_training")
    ends, corner = (finding.words(t) for finding in findings.of("theory_vs_training"))
    untied = t.groupby(["seed", "state"])["predicted 0"].transform(len) > 0  # all, then without the one tie
    tie = t[(t["method"] == "dft") & (t["optima"] == 0)][["seed", "state"]].drop_duplicates()
    assert len(tie) == 1
    untied &= ~((t["seed"] == tie["seed"].item()) & (t["state"] == tie["state"].item()))
    by = t[untied].pivot_table(index=["method", "seed", "state"], columns="optimiser", values="distance")
    reached = by.le(0.001).assign(nearer=by.min(axis=1) <= 0.001).groupby("method").all().sum()
    assert (reached["nearer"], reached["sgd"], reached["adam"]) == (93, 75, 90)
    assert "for 93 methods; gradient descent alone does so for 75, Adam alone for 90." in ends
    adam = t[untied & (t["optimiser"] == "adam")]
    elsewhere = (adam["method"] == "dft_undetached") & (adam["distance"] > 0.5) & (adam["nearest"] < 0.001)
    assert f"Adam takes dft_undetached to another of its optima in {elsewhere.sum()} of 19 states" in ends
    most = adam[adam["method"] == "dft"][[f"trained {k}" for k in range(5)]].max(axis=1)
    assert f"{most.mean():.4f} there on average, {most.min():.4f} at least" in corner


def test_every_finding_has_rows_that_say_otherwise() -> None:
    assert set(OTHERWISE) == set(TITLES)
    assert len(TITLES) == len(set(TITLES))


@pytest.mark.slow
@each
def test_other_rows_would_not(study: str, finding: Finding) -> None:
    """Nothing is caught here: rows at which a finding breaks down are not rows that refuse it."""
    assert not finding.holds(OTHERWISE[finding.title](findings.committed(study)))


def test_every_file_of_findings_is_told() -> None:
    written = {path.parent.name for path in (runner.ROOT / "analyses" / "studies").rglob("findings.py")}
    assert written == {study for study, _ in ALL}
    assert len(ALL) >= 20


@pytest.mark.slow
def test_numbers_are_worded_and_none_is_missing() -> None:
    page = pages.page()
    on_it = [(study, finding) for study, finding in ALL if study not in pages.APART]
    titles = re.findall(r"^## (\d+)\. (.*)$", page, flags=re.MULTILINE)
    assert titles == [(str(number), finding.title) for number, (_, finding) in enumerate(on_it, 1)]
    assert len(titles) >= 10
    assert "nan" not in page.lower()
    assert len(re.findall(r"\d", page)) > 100
    for study, _ in on_it:
        assert (runner.FIGURES / f"{study}.png").exists()
        assert f"{{download}}`figures/{study}.csv <../figures/{study}.csv>`" in page
        picture = re.escape(f"../figures/{study}.png")
        (told,) = re.findall(rf"\[!\[([^\]]*)\]\({picture}\){{.study}}\]\({picture}\)", page)
        assert len(told) > 100, "the words in place of the figure say what it shows"


@pytest.mark.slow
def test_a_page_apart_tells_its_own() -> None:
    for study in pages.APART:
        told = pages.told(study)
        assert len(re.findall(r"^### \d+\. ", told, flags=re.MULTILINE)) == len(findings.of(study)) > 3
        assert "nan" not in told.lower()
