"""What other people's losses are: the committed rows hold, the bugs are named, and a wrong name is noticed."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from analyses.kit import runner
from analyses.studies import peers
from analyses.studies.peers.losses import Peer
from analyses.studies.peers.losses import peers as all_peers

pytestmark = pytest.mark.slow

FOUND = list(all_peers())


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return runner.read("peers", runner.FIGURES).astype(object).fillna("")


def rerun(function: str, setting: str = "") -> pd.Series:
    peer = next(p for p in FOUND if p.function.endswith(function) and p.setting == setting)
    return peers.row(peer).iloc[0]


def test_every_loss_is_in_the_committed_table(committed: pd.DataFrame) -> None:
    # The rows name the losses with known bugs by where their file lay when they were written.
    functions = committed["function"].str.replace("analyses.peers_losses.", "analyses.studies.peers.losses.")
    assert [(p.function, p.setting) for p in FOUND] == list(zip(functions, committed["setting"], strict=True))
    assert len({p.function for p in FOUND if p.library != "known bug"}) >= 12


@pytest.mark.parametrize(
    ("function", "setting"),
    [("functional.cross_entropy", "label_smoothing=0.3"), ("SFTTrainer.compute_loss", "loss_type=dft"),
     ("generalized_jsd_loss", "beta=0.1"), ("entmax15_loss", ""), ("sampled_token_self_distillation_loss",
     "distillation_alpha=1.0")],
)  # fmt: skip
def test_committed_rows_come_out_again(committed: pd.DataFrame, function: str, setting: str) -> None:
    row = rerun(function, setting)
    before = committed[committed["function"].str.endswith(function) & (committed["setting"] == setting)].iloc[0]
    for column in ("claim", "found", "level", "agreement", "reduction"):
        assert str(row[column]) == str(before[column])


def test_known_bugs_are_named() -> None:
    undetached, ignored, others = (rerun(name) for name in ("gradient", "items_ignored", "over_the_others"))
    assert (undetached["found"], undetached["level"], undetached["agreement"]) == (
        "dft_undetached", "identical", "another method",
    )  # fmt: skip
    assert (ignored["found"], ignored["agreement"]) == ("sft", "as named, miscounted")
    assert "the accumulation bug" in ignored["notes"]
    assert others["found"] == "label_smoothing(smoothing=0.1*V/(V - 1))"
    assert (others["level"], others["agreement"]) == ("identical", "other parameters")


@pytest.mark.parametrize(
    ("claim", "params", "says"),
    [
        ("label_smoothing", {"smoothing": 0.1}, "as named"),
        ("label_smoothing", {"smoothing": 0.2}, "other parameters"),
        ("focal", {"focusing": 2.0}, "another method"),
    ],
)
def test_a_wrong_name_is_noticed(claim: str, params: dict[str, float], says: str) -> None:
    right = next(p for p in FOUND if p.setting == "label_smoothing=0.1")
    wrong: Peer = dataclasses.replace(right, claim=claim, params=params)
    assert peers.row(wrong).iloc[0]["agreement"] == says
