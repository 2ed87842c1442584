"""What the study found of label noise."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analyses.kit.findings import Finding, Mean, difference, mean
from analyses.kit.words import percent, points, within
from analyses.studies.noise.runs import RATE, STEPS, TRAINING

HARD: dict[str, Any] = {"kind": "uniform", "rate": 0.6, "step": STEPS[-1]}

_NOISE = f"{100 * HARD['rate']:.0f} %"


def _where(setting: str, **more: object) -> dict[str, object]:
    return HARD | {"setting": setting, "start": "reference"} | more


def _at(t: pd.DataFrame, setting: str, column: str, **more: object) -> Mean:
    return mean(t, column, **_where(setting, **more))


def _predicted_accuracy(t: pd.DataFrame) -> float:
    told = t[(t["start"] == "theory") & t["setting"].isin(["sft", "dft", "gce", "beyond_log"])]
    return float(told[(told["kind"] == "uniform") | (told["rate"] < 0.5)]["accuracy"].min())


def _memorised_words(t: pd.DataFrame) -> str:
    late, early = _at(t, "sft", "accuracy"), _at(t, "sft", "accuracy", step=STEPS[0])
    return (
        f"With labels without end, SFT, DFT, GCE and beyond-log all keep {percent(_predicted_accuracy(t), digits=0)} "
        f"accuracy or more at every rate of uniform noise tried, and at class noise below one half. With {TRAINING} "
        f"labels of which {_NOISE} are replaced, SFT (Adam at rate {RATE:g}) has {percent(*early)} after {STEPS[0]} "
        f"steps and {percent(*late)} after {STEPS[-1]}, having learned {percent(*_at(t, 'sft', 'memorised'))} of the "
        "wrong labels by heart. What breaks is memorising."
    )


def _memorised_holds(t: pd.DataFrame) -> bool:
    lost, half = difference(t, "accuracy", _where("sft", step=STEPS[0]), _where("sft"))
    sft, dft = (_at(t, name, "memorised")[0] for name in ("sft", "dft"))
    return _predicted_accuracy(t) > 0.95 and lost > half and sft > 2 * dft


def _bounded(t: pd.DataFrame) -> dict[str, Mean]:
    """Accuracy above SFT's."""
    return {name: difference(t, "accuracy", _where(name), _where("sft")) for name in ("beyond_log", "gce", "dft")}


def _bounded_words(t: pd.DataFrame) -> str:
    found = {name: points(*gain) for name, gain in _bounded(t).items()}
    return (
        f"With {_NOISE} of the labels replaced, after {STEPS[-1]} steps, accuracy differs from SFT's by "
        f"{found['beyond_log']} under beyond-log, {found['gce']} under GCE and {found['dft']} under DFT. All three are "
        "bounded, so that being bounded does not decide it; their gain follows how little they weigh a token that the "
        "model does not believe."
    )


def _bounded_holds(t: pd.DataFrame) -> bool:
    (bounded, half), (gce, _), (dft, dft_half) = _bounded(t).values()
    return abs(bounded) < min(half, 0.03) and dft > max(dft_half, gce) and gce > 0.05


def _sure_words(t: pd.DataFrame) -> str:
    dft, sft = (within(*_at(t, name, "overconfidence"), 2, sign=True) for name in ("dft", "sft"))
    errors = [f"{_at(t, name, 'smooth_ece')[0]:.2f}" for name in ("dft", "sft")]
    return (
        f"At the same noise, after as many steps, DFT is {dft} too sure of itself and SFT {sft}; smooth calibration "
        f"errors are {' and '.join(errors)}. Here accuracy under noise is bought with calibration."
    )


def _sure_holds(t: pd.DataFrame) -> bool:
    (dft, half), (sft, _) = (_at(t, name, "overconfidence") for name in ("dft", "sft"))
    told, _ = _at(t, "sft", "overconfidence", start="theory", step=0)
    apart, _ = difference(t, "smooth_ece", _where("dft"), _where("sft"))
    return dft > max(half, 0.1) and 0.1 > sft > told and apart > 0


FINDINGS = (
    Finding("Noise does not break a loss before memorising does", _memorised_words, _memorised_holds),
    Finding("A popular claim that does not hold here: a bounded loss is robust", _bounded_words, _bounded_holds),
    Finding("Robust is not calibrated", _sure_words, _sure_holds),
)
