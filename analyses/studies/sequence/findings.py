"""What the study found of hidden Markov sequences."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding, Mean, mean
from analyses.kit.words import within
from analyses.studies.sequence.runs import KL, TRUST


def _kl(t: pd.DataFrame, method: str, step: int = 120) -> Mean:
    condition = "clean" if method == "reference" else "mixed"  # where all start from has seen neither
    return mean(t, "value", condition=condition, method=method, metric=KL, tokens_before="all", step=step)


def _sequence_words(t: pd.DataFrame) -> str:
    start, sft, dft, kd = (within(*_kl(t, *of)) for of in (("reference", 0), ("sft",), ("dft",), ("kd",)))
    trust = {
        which: mean(t, "value", condition="mixed", method="dft", metric=metric, tokens_before="all", step=0)[0]
        for which, metric in TRUST.items()
    }
    return (
        f"A small transformer on hidden Markov sequences, a fifth of them wrong, begins {start} nats from the exact "
        f"next-token distribution. SFT brings it to {sft}, a teacher that read only right ones to {kd}, and DFT away, "
        f"to {dft}, although its trust does tell right sequences ({trust[True]:.2f}) from wrong ones "
        f"({trust[False]:.2f}) at the start."
    )


def _sequence_holds(t: pd.DataFrame) -> bool:
    (start, _), (sft, half), (dft, _) = _kl(t, "reference", 0), _kl(t, "sft"), _kl(t, "dft")
    return sft + half < start < 1 < dft


FINDINGS = (
    Finding("Trust that tells right from wrong does not by itself lead to the truth", _sequence_words, _sequence_holds),
)
