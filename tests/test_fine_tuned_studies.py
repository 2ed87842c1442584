"""The two studies that fine-tune small transformers: their committed rows are whole, and words and digest are read
from them."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
import pytest
from scipy import stats

from analyses.kit import runner
from analyses.studies import demonstrations, sequence
from analyses.studies.demonstrations import runs as demonstrations_runs
from analyses.studies.sequence import runs as sequence_runs
from qunify.catalogue import PAPER


class Committed(NamedTuple):
    study: ModuleType
    plan: Any
    beside: set[str]  # who has rows beside the methods
    cell: list[str]  # the columns that say which model was trained, but for the seed
    where: dict[str, str]  # the rows of which a sentence speaks
    since: str  # what SFT is compared with there; nothing if empty
    sentence: str
    ranked: str  # the column that the digest is sorted by


STUDIES = {
    "demonstrations": Committed(
        demonstrations,
        demonstrations_runs.FULL,
        {"data", "reference", "teacher"},
        ["method"],
        {"metric": demonstrations_runs.NLL, "text": demonstrations.PEOPLE, "tokens": "all"},
        "reference",
        "SFT changes that by {:+.3f} ± {:.3f}",
        "held-out loss",
    ),
    "sequence": Committed(
        sequence,
        sequence_runs.FULL,
        {"data", "exact", "reference", "teacher"},
        ["method", "condition"],
        {"metric": sequence_runs.KL, "condition": "clean", "tokens_before": "all"},
        "",
        "SFT comes to {:.3f} ± {:.3f}",
        "KL, mixed",
    ),
}
EVERY = pytest.mark.parametrize("name", STUDIES)


def rows(name: str) -> pd.DataFrame:
    return STUDIES[name].study.rows(full=False)


@EVERY
def test_the_committed_rows_are_those_of_a_full_run(name: str) -> None:
    it, table = STUDIES[name], rows(name)
    assert set(table["mode"]) == {"full"}
    assert set(table["method"]) == {*it.beside, *PAPER}
    trained = table[table["method"].isin(PAPER)].groupby(it.cell)["seed"].nunique()
    assert len(trained) == len(PAPER) * (1 if it.cell == ["method"] else table["condition"].nunique())
    assert trained.eq(len(it.plan.seeds)).all()
    assert table["step"].max() == it.plan.steps
    assert (runner.FIGURES / f"{name}.csv").stat().st_size < 500_000


@EVERY
def test_the_words_follow_the_table(name: str) -> None:
    it, table = STUDIES[name], rows(name)
    spoken_of = (table[list(it.where)] == pd.Series(it.where)).all(axis=1)
    assert not table[spoken_of].duplicated(["seed", "method"]).any()
    for more in (0.0, 5.0):  # as committed, and with SFT five nats further off
        moved = table.assign(value=table["value"] + more * (spoken_of & (table["method"] == "sft")))
        of = moved[spoken_of].pivot_table(index="seed", columns="method", values="value")
        values = of["sft"] - (of[it.since] if it.since else 0)
        assert len(values) == len(it.plan.seeds)
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        said = it.study.STUDY.see(moved)
        assert it.sentence.format(values.mean(), (interval.high - interval.low) / 2).replace("-", "−") in said
        assert "nan" not in said


@EVERY
def test_the_digest_has_a_row_per_method(name: str) -> None:
    digest = STUDIES[name].study.STUDY.digest(rows(name))
    assert digest["method"].tolist()[:2] == ["reference", "teacher"]
    assert sorted(digest["method"][2:]) == sorted(PAPER)
    assert digest[STUDIES[name].ranked][2:].is_monotonic_increasing
