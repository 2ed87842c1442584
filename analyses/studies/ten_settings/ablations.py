"""Target-SFT taken apart: its teacher's share, its teacher, its trust, its residual; and solutions drawn cooler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

import qunify as qu
from analyses.studies.ten_settings.runs import (
    TEACHERS,
    Choice,
    Plan,
    about,
    cached,
    fine_tune,
    measured,
    model,
    setting,
    solved,
    table_of,
)
from qunify.maps import QMap

ETA = 0.5  # of all variants that do not say otherwise


def trusting(name: str, trust: Callable[[Any], Any]) -> QMap:
    return qu.design(name, trust=trust, residual=lambda t: t.geometric(t.policy, t.teacher, ETA))


@dataclass(frozen=True)
class Variant:
    about: str  # what is varied: eta, teacher or trust
    method: Callable[[], QMap]
    teacher: str = "teacher"


def _eta(value: float) -> Callable[[], QMap]:
    return lambda: qu.get("target_sft", eta=value)


VARIANTS: Mapping[str, Variant] = {
    **{f"eta {value:g}": Variant("eta", _eta(value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)},
    **{name: Variant("teacher", _eta(ETA), name) for name in TEACHERS},
    "trust √p": Variant("trust", lambda: trusting("trust √p", lambda t: t.power(t.p_label, 0.5))),
    "trust p²": Variant("trust", lambda: trusting("trust p²", lambda t: t.p_label**2)),
    "trust 1": Variant("trust", lambda: qu.get("sft")),
    "trust by entropy": Variant(
        "trust", lambda: trusting("trust by entropy", lambda t: 1 - t.entropy(t.policy) / t.log(t.vocab))
    ),
}


def variant(plan: Plan, name: str, size: str, which: str, rate: float, seed: int) -> pd.DataFrame:
    """One row: a model fine-tuned by a variant, and what is measured of it."""
    spec = VARIANTS[which]
    given = setting(plan, name, size, seed)
    task = given.task
    if spec.teacher != "teacher":
        task = cached(task.reference, model(plan, spec.teacher, seed), given.texts)
    begin = time.perf_counter()
    tuned = fine_tune(plan, task, spec.method(), rate, seed)
    seconds = {"training_seconds": time.perf_counter() - begin}
    row = about(name, size, Choice(which, rate), seed) | measured(plan, name, size, tuned, seed) | seconds
    return table_of([row])


#: Solutions are drawn at these temperatures from what these methods have trained.
TEMPERATURES = (1.0, 0.7, 0.5, 0.3)
COOLED = ("sft", "dft", "beyond_log", "target_sft", "posterior")


def cooled(plan: Plan, name: str, size: str, choice: Choice, seed: int) -> pd.DataFrame:
    """A row per temperature: how often solutions drawn at it are right."""
    model = fine_tune(plan, setting(plan, name, size, seed).task, choice.qmap, choice.rate, seed)
    of = about(name, size, choice, seed)
    return table_of(
        [of | {"temperature": t} | solved(plan, name, model, "test", plan.samples, seed, t) for t in TEMPERATURES]
    )
