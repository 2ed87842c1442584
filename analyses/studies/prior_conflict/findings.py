"""What the study found of a prior that is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyses.kit.findings import Finding, Mean, at, mean
from analyses.kit.words import percent
from analyses.studies.prior_conflict import RATE_PER_CONTEXT

HALF = {"noise": "uniform", "rightness": 0.5}


def _learned(t: pd.DataFrame, method: str, step: int) -> Mean:
    return mean(t, "learned", **HALF, default=True, method=method, step=step)


def _belief_words(t: pd.DataFrame) -> str:
    sft, early, late, cut = (
        percent(*_learned(t, *of)) for of in (("sft", 30), ("dft", 30), ("dft", 300), ("profit", 300))
    )
    return (
        f"A table, one softmax per context, gradient descent at rate {RATE_PER_CONTEXT:g} per context: where the "
        f"pretrained model was wrong, SFT gives a right continuation {sft} of the time after 30 steps, DFT {early}, "
        f"and after 300 steps DFT has {late}: it is late, not deaf. ProFiT, whose weight below its threshold is zero, "
        f"has {cut}."
    )


def _belief_holds(t: pd.DataFrame) -> bool:
    early, late, cut = (_learned(t, *of)[0] for of in (("dft", 30), ("dft", 300), ("profit", 300)))
    return early < 0.1 < 0.6 < late and cut < 0.05


def _anchor(t: pd.DataFrame) -> tuple[float, float, float]:
    """What SFT + KL of weight 1 keeps and has learned after 30 steps, and what SFT has learned when it keeps as
    much."""
    half = at(t, **HALF)
    anchored = at(half, method="sft_kl", setting="kl_weight 1", step=30)
    kept, learned = float(anchored["kept"].mean()), float(anchored["learned"].mean())
    way = half[(half["method"] == "sft") & (half["step"] <= 30)].groupby("step")[["kept", "learned"]].mean()
    way = way.sort_values("kept")
    return kept, learned, float(np.interp(kept, way["kept"], way["learned"]))


def _anchor_words(t: pd.DataFrame) -> str:
    kept, learned, stopped = map(percent, _anchor(t))
    return (
        f"SFT with a KL anchor of weight 1 keeps {kept} where the prior was right and learns {learned} where it was "
        f"wrong. SFT stopped as soon as it keeps no more than that has learned {stopped}. In a model whose contexts "
        "share nothing, the anchor holds back what is to be learned as much as what is to be kept."
    )


def _anchor_holds(t: pd.DataFrame) -> bool:
    _, learned, stopped = _anchor(t)
    return learned < stopped - 0.05


FINDINGS = (
    Finding(
        "A loss that trusts belief learns late what the model does not believe, and one with a threshold never",
        _belief_words,
        _belief_holds,
    ),
    Finding(
        "A popular claim that does not hold here: a KL anchor is how to keep what was known",
        _anchor_words,
        _anchor_holds,
    ),
)
