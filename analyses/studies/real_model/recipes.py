"""What is trained: the fifteen of the paper, `posterior`, `gce` and `mixce`, with what each of them is given; and the
same in other ways, which say why training did what was not foretold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from analyses.kit.real import MARKS
from qunify.catalogue import get
from qunify.maps import QMap

#: The grid of learning rates; of each recipe the one is taken whose model is right in more tokens of `choice`.
RATES = (2e-4, 1e-3)
STEPS, PER_STEP, MEASURED = 50, 4, (10, 25, 50)
LATER = (100, 200)  # where more steps are made, measured there as well


@dataclass(frozen=True)
class Way:
    """How a recipe is trained where it is not as all are: `name` says it after the recipe's own name.

    `only` is the one kind of token that is trained on. `flagged`: on language models' solutions, right and wrong ones
    of the same questions, rather than on people's. After the first `STEPS` the demonstrations are further ones, so that
    none comes twice.
    """

    name: str = ""
    all_parameters: bool = False
    plain_descent: bool = False
    only: str = ""
    flagged: bool = False
    steps: int = STEPS


PLAIN = Way()


@dataclass(frozen=True)
class Recipe:
    """A method, its parameters, which teacher it has ("tuned" or "noisy"), and the way in which it is trained."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = ""
    way: Way = PLAIN

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.method, "noisy teacher" * (self.teacher == "noisy"), self.way.name)))

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
WORDS, SPACE = "first pieces of words", "white space"
OLD_EVERY = 5  # steps until PSFT's older policy is the present one again
PATIENT = 10  # times as long as SFT: a method that needs longer for a kind of token is foretold not to learn it
SEEDS = 3  # of the main recipes, each at its own rate

DESCENT = Way("plain descent", plain_descent=True)
WHOLE = Way("all parameters", all_parameters=True)
FLAGGED = Way("flagged solutions", flagged=True)
LONGER = Way(f"{max(LATER)} steps", steps=max(LATER))
#: With the learning rate of every recipe, 0 for its own, and the recipes.
WAYS = {
    DESCENT: (0.1, ("sft", "dft", "gem", "asft")),
    WHOLE: (2e-5, ("sft", "dft")),
    FLAGGED: (0.0, MAIN),
    LONGER: (0.0, MAIN),
    Way(f"{MARKS} alone", only=MARKS): (0.0, ("dft",)),
    Way(f"{WORDS} alone", only=WORDS): (0.0, ("dft",)),
    Way(f"{SPACE} alone", only=SPACE): (0.0, ("gem",)),
}


def otherwise() -> list[tuple[Recipe, float]]:
    """What is trained in other ways, and at which rate."""
    own = {recipe.name: recipe for recipe in RECIPES}
    return [(replace(own[name], way=way), rate) for way, (rate, names) in WAYS.items() for name in names]
