"""The study that holds a small transformer against an exact truth."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch

import qunify as qu
from analyses.studies import sequence
from analyses.studies.sequence.runs import (
    COLUMNS,
    CONDITIONS,
    ENTROPY_GAP,
    FULL,
    KL,
    OLD_EVERY,
    PLACES,
    TRUST,
    VARIATION,
    Plan,
    distances,
    method_rows,
    mixture,
    probabilities,
    start_rows,
    task,
    world,
)
from qunify import plots
from qunify.synthetic import HiddenMarkov
from qunify.training import TransformerSize

pytestmark = pytest.mark.slow

SMALL = TransformerSize(8, width=16, layers=1, heads=2)
TINY = Plan(
    seeds=(0, 1),
    states=3,
    vocab=8,
    length=12,
    reference=SMALL,
    teacher=dataclasses.replace(SMALL, width=24),
    pretraining_rate=1e-2,
    pretraining_batch=4,
    reference_steps=6,
    teacher_steps=12,
    steps=OLD_EVERY,
    batch=8,
    rate=1e-3,
    test=6,
    watched=40,
    methods=("sft", "dft", "kd", "psft"),
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    tables = []
    for seed in TINY.seeds:
        tables.append(start_rows(TINY, seed))
        tables += [method_rows(TINY, name, c, seed) for c in CONDITIONS for name in TINY.methods]
    return pd.concat(tables, ignore_index=True)


# ---- the transformer --------------------------------------------------------------------------------------
def some_tokens(n: int = 3, length: int = 10) -> torch.Tensor:
    return torch.randint(8, (n, length), generator=torch.Generator().manual_seed(0))


# ---- the truth --------------------------------------------------------------------------------------------
def test_the_mixture_is_bayes_rule() -> None:
    chain, other = (HiddenMarkov.random(3, 8, seed=seed) for seed in (0, 1))
    tokens = some_tokens()
    found = mixture(chain, other, 0.3).next_token(tokens)
    ours, theirs = chain.next_token(tokens), other.next_token(tokens)

    def likelihood(predicted: torch.Tensor) -> torch.Tensor:
        """Of all the tokens before each place, (N, T)."""
        seen = predicted.gather(-1, tokens[..., None])[..., 0].cumprod(-1)
        return torch.cat([torch.ones(len(tokens), 1, dtype=torch.float64), seen[:, :-1]], -1)

    wrong = 0.3 * likelihood(theirs)
    wrong = (wrong / (wrong + 0.7 * likelihood(ours)))[..., None]
    torch.testing.assert_close(found, (1 - wrong) * ours + wrong * theirs, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(mixture(chain, other, 0.0).next_token(tokens), ours, rtol=1e-12, atol=1e-14)


def test_distances_are_told_place_by_place() -> None:
    truth = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64).expand(2, 7, 4)
    probs = truth.clone()
    probs[:, 3:] = 0.25  # places with four to seven tokens before
    found = {(row["metric"], row["tokens_before"]): row["value"] for row in distances(probs, truth)}
    gap = 0.5 * torch.tensor(2.0).log().item()  # log 4 − 1.5 log 2
    assert found[KL, "1"] == found[KL, "2–3"] == pytest.approx(0, abs=1e-12)
    assert found[KL, "4–7"] == pytest.approx(gap)
    assert found[ENTROPY_GAP, "4–7"] == pytest.approx(gap)
    assert found[VARIATION, "4–7"] == pytest.approx(0.25)
    assert found[KL, "all"] == pytest.approx(gap * 4 / 7)
    assert (KL, "8–15") not in found


def test_places_cover_the_sequence_once() -> None:
    covered = [i for first, last in PLACES for i in range(first, last + 1)]
    assert covered == list(range(1, FULL.length))


def test_a_fifth_of_the_mixed_sequences_is_wrong_and_the_right_ones_are_shared() -> None:
    clean, mixed = (task(FULL_DATA, 0, condition) for condition in CONDITIONS)
    assert clean[1].all()
    assert (~mixed[1]).double().mean().item() == pytest.approx(0.2, abs=0.02)
    same = (clean[0].tokens == mixed[0].tokens).all(1)
    assert torch.equal(same, mixed[1])
    w = world(FULL_DATA, 0)
    assert torch.equal(w.other.emission.sort(-1).values, w.chain.emission.sort(-1).values)
    wrong = mixed[0].tokens[~mixed[1]]

    def loss(chain: HiddenMarkov) -> float:
        return -chain.next_token(wrong).gather(-1, wrong[..., None]).log().mean().item()

    assert loss(w.other) < loss(w.chain) - 0.3


#: The full plan's data with models as small as they come.
FULL_DATA = dataclasses.replace(
    FULL,
    reference=dataclasses.replace(SMALL, vocab=24),
    teacher=dataclasses.replace(SMALL, vocab=24),
    reference_steps=1,
    teacher_steps=1,
)


# ---- rows -------------------------------------------------------------------------------------------------
def test_rows_are_complete(table: pd.DataFrame) -> None:
    assert list(table) == COLUMNS
    assert table["value"].notna().all()
    assert not table.duplicated(COLUMNS[:-1]).any()
    assert set(table["method"]) == {"data", "exact", "reference", "teacher", *TINY.methods}
    assert set(table["metric"]) == {KL, VARIATION, ENTROPY_GAP, "share wrong", *TRUST.values()}
    assert (table[table["metric"] == KL]["value"] >= 0).all()


def test_rows_are_the_same_twice(table: pd.DataFrame) -> None:
    again = method_rows(TINY, "psft", "mixed", 1)
    key = (table["method"] == "psft") & (table["condition"] == "mixed") & (table["seed"] == 1)
    pd.testing.assert_frame_equal(table[key].reset_index(drop=True), again, check_exact=True)


def test_a_cell_is_what_the_definition_gives(table: pd.DataFrame) -> None:
    w = world(TINY, 0)
    p, truth = probabilities(w.teacher, w.test), w.chain.next_token(w.test)[:, 1:]
    expected = (truth * (truth / p).log()).sum(-1)[:, 3:7].mean().item()
    cell = table[(table["method"] == "teacher") & (table["seed"] == 0) & (table["metric"] == KL)]
    assert cell.set_index("tokens_before")["value"]["4–7"] == pytest.approx(expected, abs=1e-6)


def test_who_knows_the_chain_is_exact_on_clean_data_alone(table: pd.DataFrame) -> None:
    exact = table[(table["method"] == "exact") & (table["metric"] == KL)].groupby("condition")["value"]
    assert exact.max()["clean"] == pytest.approx(0, abs=1e-6)
    assert exact.max()["mixed"] > 0.01


def test_trust_that_does_not_depend_on_the_model(table: pd.DataFrame) -> None:
    trust = table[table["metric"].isin(TRUST.values())].groupby("method")["value"].agg(["min", "max"])
    assert list(trust.loc["sft"]) == [1, 1]
    assert list(trust.loc["kd"]) == [0, 0]


# ---- picture -------------------------------------------------------------------------------------------------
def test_the_figure_ranks_the_methods_it_was_given() -> None:
    committed = sequence.rows(full=False)
    figure = sequence.STUDY.draw(committed)
    plots.render(figure, "png")
    mean = sequence.summary(committed)["mean"].to_dict()
    shown = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert shown == [qu.get(name).title for name in sequence.ranking(mean, "mixed")]
