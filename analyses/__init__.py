"""The analyses: one question each, one tidy table and one figure. `python -m analyses` runs them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.study import Study

#: Every study, in the order in which the report tells them.
STUDIES = (
    "worked_example",
    "paper_table",
    "targets",
    "gradients",
    "gates",
    "equivalence",
    "family",
    "peers",
    "simplex",
    "theory_vs_training",
    "dynamics",
    "calibration_bias",
    "noise",
    "ambiguity",
    "prior_conflict",
    "sequence",
    "digits",
    "demonstrations",
    "ten_settings",
    "cost",
)


def load(name: str) -> Study:
    """The study of this name. Imported only now: a broken study fails alone."""
    return importlib.import_module(f"analyses.{name}").STUDY
