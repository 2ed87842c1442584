"""Which families of causal language models train, as `python -m tests.families` found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from qunify.pictures._markdown import table

ROWS = Path(__file__).with_name("families.csv")


def page() -> str:
    """MyST: how many train, which, and what was said of the others."""
    rows = pd.read_csv(ROWS, keep_default_na=False)
    trains, others = rows[rows.outcome == "trains"], rows[rows.outcome != "trains"]
    (version,) = rows.transformers.unique()
    counts = ", ".join(f"{len(part)} {outcome}" for outcome, part in others.groupby("outcome"))
    told = zip(others.family, others.outcome, others.words, strict=True)
    said = [(f"`{family}`", outcome, words.replace("|", "\\|")) for family, outcome, words in told]
    return (
        f"Of {len(rows)} families of causal language models in transformers {version}, tried small and with random "
        f"weights, {len(trains)} take a step of SFT whose loss is the cross-entropy of the model's own logits"
        f"{'; the others: ' + counts if len(others) else ''}. `python -m tests.families` tries them.\n\n"
        f"They train: {', '.join(f'`{family}`' for family in trains.family)}.\n\n"
        + table(["family", "outcome", "what was said"], said)
        + "\n"
    )
