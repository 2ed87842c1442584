"""What the study found of who sharpens and who flattens."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding
from analyses.studies.calibration_bias import SMALL, summary


def _bias(t: pd.DataFrame) -> tuple[int, int, pd.DataFrame]:
    """Methods for which the theory names a bias, those that are off in its direction, and the means of all."""
    s = summary(t)
    told = s[s["predicted"].abs() > SMALL]
    return len(told), int((told["predicted"] * told["entropy gap"] > 0).sum()), s


def _bias_words(t: pd.DataFrame) -> str:
    told, right, s = _bias(t)
    gap, error = s["entropy gap"].to_dict(), s["smooth_ece"].to_dict()
    return (
        f"The theory names a bias of at least {SMALL:g} nats for {told} methods, and trained models are off in that "
        f"direction for {right} of them: label smoothing by {gap['label_smoothing']:+.2f} nats of entropy, focal loss "
        f"by {gap['focal']:+.2f}, DFT by {gap['dft']:+.2f} (smooth calibration error {error['dft']:.3f}, where SFT has "
        f"{error['sft']:.3f})."
    )


def _bias_holds(t: pd.DataFrame) -> bool:
    told, right, _ = _bias(t)
    return right == told


FINDINGS = (Finding("Who sharpens and who flattens can be predicted", _bias_words, _bias_holds),)
