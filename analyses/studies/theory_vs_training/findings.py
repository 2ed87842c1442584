"""What the study found of where training ends."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding, at
from analyses.studies.theory_vs_training import AGREE, NONE, VOCAB, reasons, untied


def _agreement(t: pd.DataFrame) -> tuple[int, int, int, int]:
    """Methods, those with an optimum, those that reach it, and those off it without a reason."""
    why = reasons(t)["Above 0.001, because"].fillna("")
    none = int((why == NONE).sum())
    return len(why), len(why) - none, int((why == "").sum()), int(why.str.contains("unexplained").sum())


def _agreement_words(t: pd.DataFrame) -> str:
    methods, predicted, reached, unexplained = _agreement(t)
    return (
        f"Of {methods} methods {predicted} have an optimum at every truth tried. Trained on labels, tabular models end "
        f"within {AGREE:g} total variation of it for {reached} of them, at every seed and state. "
        "The rest are still on their way to a place that is approached ever more slowly, or went to another of "
        f"several optima; {unexplained} are unexplained."
    )


def _agreement_holds(t: pd.DataFrame) -> bool:
    _, predicted, reached, unexplained = _agreement(t)
    return reached > 0.8 * predicted and unexplained == 0


def _corner(t: pd.DataFrame) -> tuple[float, float]:
    """The least probability of the likeliest token that is predicted for dft, and its mean after training."""
    dft = at(untied(t), method="dft", optimiser="adam")
    predicted, trained = (dft[[f"{what} {k}" for k in range(VOCAB)]] for what in ("predicted", "trained"))
    return float(predicted.max(axis=1).min()), float(trained.max(axis=1).mean())


def _corner_words(t: pd.DataFrame) -> str:
    predicted, trained = _corner(t)
    sft = at(t, method="sft", optimiser="adam")[[f"trained {k}" for k in range(VOCAB)]]
    return (
        f"Whatever the shares of the labels, the theory puts all of DFT's mass on the commonest one ({predicted:.3f} "
        f"or more), and trained models have {trained:.3f} there; SFT on the same labels has "
        f"{sft.max(axis=1).mean():.3f}, which is their share."
    )


def _corner_holds(t: pd.DataFrame) -> bool:
    predicted, trained = _corner(t)
    return predicted > 0.999 and trained > 0.98


FINDINGS = (
    Finding("Training ends where the drift says", _agreement_words, _agreement_holds),
    Finding("DFT ends in one token, whatever the truth", _corner_words, _corner_holds),
)
