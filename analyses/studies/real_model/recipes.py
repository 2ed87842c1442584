"""What is trained: the fifteen of the paper, `posterior`, `gce` and `mixce`, with what each of them is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qunify.catalogue import get
from qunify.maps import QMap

#: The grid of learning rates; of each recipe the one is taken whose model is right in more tokens of `choice`.
RATES = (2e-4, 1e-3)
STEPS, PER_STEP, MEASURED = 50, 4, (10, 25, 50)


@dataclass(frozen=True)
class Recipe:
    """A method, its parameters, and which teacher it has: "tuned" or "noisy"."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = ""

    @property
    def name(self) -> str:
        return f"{self.method}, noisy teacher" if self.teacher == "noisy" else self.method

    @property
    def map(self) -> QMap:
        return get(self.method, **self.params)


#: The seven whose differences the study is about.
MAIN = ("sft", "dft", "beyond_log", "gem", "asft", "eaft", "target_sft")
RECIPES = (
    *(Recipe(name, teacher="tuned" if name == "target_sft" else "") for name in MAIN),
    *(Recipe(name, teacher="tuned") for name in ("posterior", "kd", "kd_hybrid")),
    *(Recipe(name, teacher="noisy") for name in ("target_sft", "posterior")),
    *(Recipe(name) for name in ("profit", "label_smoothing", "sft_kl", "psft", "iw_sft", "cft", "gce", "mixce")),
)
OLD_EVERY = 5  # steps until PSFT's older policy is the present one again

#: What is trained: (recipe, rate, seed). The predictions are of all `RECIPES`.
PLAN = tuple((recipe, rate, 0) for recipe in RECIPES if recipe.name in (*MAIN, "gce", "mixce") for rate in RATES)
