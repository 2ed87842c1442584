"""What the study found of several right answers."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding
from analyses.kit.words import percent
from analyses.studies.ambiguity import EARLY, SEEN, Reading
from analyses.studies.ambiguity.runs import CONTEXTS, RATE, STEPS, VALID


def _answers_words(t: pd.DataFrame) -> str:
    read = Reading(t)
    seen = {m: VALID * read.trained(f"coverage_{SEEN}", m) for m in ("sft", "gem", "target_sft", "dft")}
    kept = percent(read.trained("entropy_kept", "dft"), read.half("entropy_kept", "dft"))
    early = percent(read.trained("entropy_kept", "dft", step=EARLY), read.half("entropy_kept", "dft", step=EARLY))
    return (
        f"Gradient descent on a table at rate {RATE / CONTEXTS:g} per context, {STEPS[-1]} steps: of {VALID} right "
        f"answers {SEEN} samples show {seen['sft']:.1f} after SFT, {seen['gem']:.1f} after GEM, "
        f"{seen['target_sft']:.1f} after Target-SFT and {seen['dft']:.1f} after DFT, which keeps {kept} of the entropy "
        f"among them. After {EARLY} steps it still keeps {early}."
    )


def _answers_hold(t: pd.DataFrame) -> bool:
    read = Reading(t)
    gem, sft, target, gce, dft = (
        read.trained("entropy_kept", name) for name in ("gem", "sft", "target_sft", "gce", "dft")
    )
    return gem > 1 > sft > 0.9 > target > 0.7 and target > gce > dft and dft < 0.1


FINDINGS = (Finding("Of several right answers DFT keeps one", _answers_words, _answers_hold),)
