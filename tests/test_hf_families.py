"""A step of the trainer for a dozen families of models, and the table of all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from docs import families as pages
from tests import families

pytestmark = pytest.mark.slow

#: Heads of several kinds (scaled, capped, tied, with a layer before them), states, experts, and backbones whose
#: attribute is not what the class says.
DOZEN = (
    "llama", "llama4", "llama4_text", "mixtral", "qwen3_moe", "gpt2", "bloom", "bert", "bart", "gemma2", "cohere",
    "minicpm3", "mamba", "granite",
)  # fmt: skip


@pytest.mark.parametrize("kind", DOZEN)
def test_a_family_takes_a_step_whose_loss_is_that_of_its_own_logits(kind: str, tmp_path: Path) -> None:
    loss, expected = families.step(families.model(kind), tmp_path)
    assert loss == pytest.approx(expected, rel=1e-3)


def test_what_cannot_train_is_refused_in_words() -> None:
    row = families.tried("prophetnet")
    assert row["outcome"] == "refused"
    assert row["words"].startswith("ValueError: sft: model: expected logits that are a head of the last hidden states")


def test_every_family_that_could_be_made_trains_or_is_refused() -> None:
    rows = pd.read_csv(pages.ROWS, keep_default_na=False)
    assert set(rows.outcome) <= {"trains", "refused", "not made small"}
    assert (rows[rows.outcome == "refused"].words.str.startswith("ValueError: sft: model: expected ")).all()
    assert set(DOZEN) <= set(rows[rows.outcome == "trains"].family)
    assert f"{(rows.outcome == 'trains').sum()} take a step of SFT" in pages.page()
