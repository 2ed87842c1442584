"""The study of several right answers: rows that can be made again, words that follow, theory where it should hold."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch

import qunify as qu
from analyses.kit import runner
from analyses.studies import ambiguity
from analyses.studies.ambiguity import runs
from qunify.synthetic import ambiguous


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return runner.read("ambiguity", runner.FIGURES)


@pytest.fixture(scope="module")
def quick() -> pd.DataFrame:
    return ambiguity.rows(False)


@pytest.mark.slow
def test_the_quick_rows_are_those_of_the_full_run(quick: pd.DataFrame, committed: pd.DataFrame) -> None:
    both = quick.merge(committed, on=list(runs.KEYS), how="left", suffixes=("", "_full"), validate="one_to_one")
    trained = 2 * 7 * 3
    assert len(both) == len(quick) == trained + 2 + 5 + 2 * 2
    for metric in runs.METRICS:
        pd.testing.assert_series_equal(both[metric], both[f"{metric}_full"], check_names=False, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_words_and_digest_come_from_the_table(quick: pd.DataFrame, committed: pd.DataFrame) -> None:
    for table in (quick, committed):
        see = ambiguity.see(table)
        assert 1 <= len(re.findall(r"[.!?](?:\s|$)", see)) <= 4
        assert "nan" not in see
        assert 5 <= len(ambiguity.digest(table)) <= 40


def test_the_committed_rows_are_complete(committed: pd.DataFrame) -> None:
    assert set(committed["mode"]) == {"full"}
    trained = committed[committed["kind"] == runs.TRAINED]
    cells = trained.groupby(["method", "parameter", "labels", "step"], dropna=False)["seed"].nunique()
    assert (cells == 10).all()
    assert len(cells) == (14 + 13) * 2 * len(runs.STEPS)
    assert not trained[list(runs.METRICS)].isna().any(axis=None)


def test_what_is_seen_is_read_from_the_rows(committed: pd.DataFrame) -> None:
    end = committed[(committed["labels"] == 64) & (committed["step"] == 1000)]
    at_defaults = end[
        [pd.isna(p) or p == runs.parameter(qu.get(m)) for m, p in zip(end["method"], end["parameter"], strict=True)]
    ]
    kept = at_defaults.groupby("method")["entropy_kept"].mean()
    see = ambiguity.see(committed)
    for name in ("sft", "gem", "target_sft", "gce", "dft"):
        assert f"{name} {'keeps ' if name == 'sft' else ''}{100 * kept[name]:.1f} ± " in see
    wrong = 1 - at_defaults[at_defaults["method"] == "label_smoothing"]["valid_mass"].mean()
    assert f"{100 * wrong:.0f} % of the mass." in see


def test_training_on_many_labels_ends_where_theory_says(committed: pd.DataFrame) -> None:
    """Up to what 64 labels tell of the truth; gem at a small β and profit come late or depend on the start."""
    table = committed.assign(parameter=committed["parameter"].fillna(-1))
    table = table[~table["method"].isin(["profit", "gem"])]
    end = table[(table["kind"] == runs.TRAINED) & (table["labels"] == 64) & (table["step"] == 1000)]
    measured = end.groupby(["method", "parameter"])[["entropy_kept", "valid_mass"]].mean()
    theory = table[table["kind"] == runs.THEORY].groupby(["method", "parameter"])[["entropy_kept", "valid_mass"]].mean()
    assert len(measured) == len(theory) == 14 - 2 + 10
    assert ((measured - theory).abs() < 0.06).all(axis=None)
    # Finite samples never show more entropy than there is, on average.
    assert (measured["entropy_kept"] - theory["entropy_kept"])[["sft", "eaft", "gce", "focal"]].max() < 0.03


def test_coverage_is_that_of_drawn_samples() -> None:
    probs = torch.tensor([0.5, 0.2, 0.1, 0.2], dtype=torch.float64)
    truth = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    found = runs.against(probs[None, None], truth[None])
    g = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(probs.expand(20000, -1), 4, replacement=True, generator=g)
    seen = torch.stack([(drawn == k).any(-1) for k in range(3)]).double().mean()
    assert float(found["coverage_4"]) == pytest.approx(float(seen), abs=0.01)
    assert float(found["valid_mass"]) == pytest.approx(0.8)


def test_the_truth_keeps_all_and_one_token_nothing() -> None:
    truth = ambiguous(5, 8, 4).truth
    leader = torch.nn.functional.one_hot(truth.argmax(-1), 8).double()
    found = runs.against(torch.stack([truth, leader]), truth)
    torch.testing.assert_close(found["entropy_kept"], torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found["coverage_64"][1], torch.tensor(0.25, dtype=torch.float64))


def test_counts_are_the_labels_drawn() -> None:
    w = runs.world(3)
    data = runs.observed(w, 16, 3)
    assert data.counts is not None
    assert data.counts.reshape(runs.CONTEXTS, runs.VALID).sum(-1).eq(16).all()
    assert w.valid[data.inputs, data.labels].all()
