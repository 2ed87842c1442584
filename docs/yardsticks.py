"""By what methods are compared on the page that asks which to take: one yardstick per measurement of a study.

A yardstick gives the studies' rows one shape, a value per seed and method. Who is first, who is last, and whether an
interval tells two apart is worked out here, once for all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

import qunify as qu
from analyses.kit import findings
from analyses.kit.findings import Mean, at
from analyses.kit.intervals import interval
from analyses.kit.real import MODEL
from analyses.kit.words import percent
from analyses.studies.ambiguity import SEEN
from analyses.studies.ambiguity import runs as ambiguity
from analyses.studies.demonstrations import PEOPLE
from analyses.studies.demonstrations import runs as demonstrations
from analyses.studies.digits import ACCURACY
from analyses.studies.digits import data as digits_data
from analyses.studies.digits import runs as digits
from analyses.studies.dynamics import SAME
from analyses.studies.dynamics import runs as dynamics
from analyses.studies.noise import WATCHED
from analyses.studies.noise import runs as noise
from analyses.studies.prior_conflict import LONG, SHOWN, STEPS
from analyses.studies.real_audit import runs as real_audit
from analyses.studies.real_model.recipes import SEEDS
from analyses.studies.real_model.recipes import STEPS as REAL_STEPS
from analyses.studies.sequence import runs as sequence
from analyses.studies.ten_settings import on_shared_seeds, part
from analyses.studies.ten_settings.findings import KNOWLEDGE
from analyses.studies.ten_settings.runs import FULL, METHODS
from analyses.studies.ten_settings.tasks import TASKS
from qunify import catalogue
from qunify.catalogue import PAPER
from qunify.training import SmallTransformer, TransformerSize

#: Of every study, by its name.
Rows = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Yardstick:
    """One measurement of one study.

    Attributes
    ----------
    what : str
        What is measured, in a fine-tuner's words.
    read : callable
        From the study's rows to a table, a row per seed and a column per method.
    show : callable
        A value in words.
    higher : bool
        Whether more is better.
    """

    study: str
    what: str
    read: Callable[[pd.DataFrame], pd.DataFrame]
    show: Callable[[float], str]
    higher: bool = True

    def on(self, rows: Rows) -> Comparison:
        """The comparison of methods that these rows give."""
        return Comparison(self.read(rows[self.study]).dropna(axis=1), self.higher)


@dataclass(frozen=True)
class Comparison:
    """Methods by one yardstick: `values` has a row per seed and a column per method, infinite where never reached."""

    values: pd.DataFrame
    higher: bool

    @functools.cached_property
    def order(self) -> list[str]:
        """Methods by their mean, best first."""
        return [str(m) for m in self.values.mean().sort_values(ascending=not self.higher, kind="stable").index]

    @property
    def seeds(self) -> int:
        return len(self.values)

    def mean(self, method: str) -> float:
        return float(self.values[method].mean())

    def ahead(self, method: str, other: str) -> Mean:
        """By how much a method is better than another, seed by seed: the mean, and half of its 95 % interval."""
        by = (self.values[method] - self.values[other]) * (1 if self.higher else -1)
        found = interval(by)
        return found if math.isfinite(found[0]) else (found[0], 0.0)

    def apart(self, method: str, other: str) -> int:
        """1 where the interval puts the method above the other, −1 where below, 0 where it cannot tell."""
        by, half = self.ahead(method, other)
        return (by > half) - (by < -half)

    @functools.cached_property
    def level(self) -> list[str]:
        """The methods that the interval cannot tell from the first, best first."""
        first, *others = self.order
        return [m for m in others if not self.apart(first, m)]

    def asking(self, teacher: bool) -> list[str]:
        """The methods that ask a teacher, or those that ask none, best first."""
        return [m for m in self.order if asks_a_teacher(m) == teacher]


#: What was compared, by its yardstick.
Seen = Mapping[Yardstick, Comparison]


def compared(yardsticks: Sequence[Yardstick], rows: Rows) -> Seen:
    return {y: y.on(rows) for y in yardsticks}


def asks_a_teacher(method: str) -> bool:
    return method in catalogue.names() and "teacher_logits" in qu.get(method).needs


def committed(yardsticks: Sequence[Yardstick]) -> dict[str, pd.DataFrame]:
    """The committed rows of the studies that these are of."""
    return {study: findings.committed(study) for study in {y.study for y in yardsticks}}


# ---- reading the studies --------------------------------------------------------------------------------------------
def _wide(rows: pd.DataFrame, column: str, method: str = "method") -> pd.DataFrame:
    return rows.pivot_table(index="seed", columns=method, values=column, aggfunc="mean")


def _ambiguity(t: pd.DataFrame) -> pd.DataFrame:
    """At the defaults, after all steps on the most labels."""
    trained = at(t, kind=ambiguity.TRAINED, step=t["step"].max(), labels=t["labels"].max())
    own = trained["method"].map({m: ambiguity.parameter(qu.get(m)) for m in trained["method"].unique()})
    default = (trained["parameter"] == own) | (trained["parameter"].isna() & own.isna())
    return ambiguity.VALID * _wide(trained[default], f"coverage_{SEEN}")


def _calibration(t: pd.DataFrame) -> pd.DataFrame:
    return _wide(t[t["parameter"].isna()], "kl")


def _sequence(condition: str, t: pd.DataFrame) -> pd.DataFrame:
    end = at(t, condition=condition, metric=sequence.KL, tokens_before="all", step=t["step"].max())
    return _wide(end[end["method"].isin(PAPER)], "value")


def _noise(kind: str, t: pd.DataFrame) -> pd.DataFrame:
    """Without the one method that is told how many labels are wrong."""
    end = at(t, kind=kind, rate=WATCHED[kind], start=noise.REFERENCE, step=t["step"].max())
    return _wide(end[end["setting"] != noise.INFORMED], "accuracy", "setting")


def _digits(condition: str, t: pd.DataFrame) -> pd.DataFrame:
    return _wide(at(digits.tuned(at(t, condition=condition, metric=ACCURACY), t), step=t["step"].max()), "value")


def _demonstrations(t: pd.DataFrame) -> pd.DataFrame:
    end = at(t, metric=demonstrations.NLL, text=PEOPLE, tokens="all", step=t["step"].max())
    return _wide(end[end["method"].isin(PAPER)], "value")


def _conflict(column: str, step: int, t: pd.DataFrame) -> pd.DataFrame:
    kind, rightness = SHOWN
    here = at(t, noise=kind, rightness=rightness, default=True, step=step)
    both = here.assign(everywhere=rightness * here["kept"] + (1 - rightness) * here["learned"])
    return _wide(both, column)


def _steps(case: str, t: pd.DataFrame) -> pd.DataFrame:
    """The paper's methods that aim at the label, but for those that are SFT here: others settle at their teacher, who
    is less sure."""
    alone = [m for m in PAPER if not asks_a_teacher(m) and m not in SAME]
    rows = at(t, case=case).fillna({"steps": math.inf})
    return _wide(rows[rows["method"].isin(alone)], "steps")


def _settings(column: str, among: Sequence[str], t: pd.DataFrame) -> pd.DataFrame:
    """Means over the settings of these tasks."""
    cells = on_shared_seeds(part(t, "cell"))
    return _wide(cells[cells["task"].isin(among) & cells["method"].isin(METHODS)], column)


# ---- how values are worded ------------------------------------------------------------------------------------------
def _nats(value: float) -> str:
    return f"{value:.3g} nats"


def _answers(value: float) -> str:
    return f"{value:.2f}"


def _counted(value: float) -> str:
    return f"{value:.0f} steps" if math.isfinite(value) else "never"


# ---- the yardsticks -------------------------------------------------------------------------------------------------
def _share(x: float) -> str:
    return percent(x, digits=0)


#: How the ten settings count: over samples as the model draws them, or its likeliest tokens.
IN_SAMPLES, IN_ONE = f"right among {FULL.samples} samples a problem", "right where the likeliest token is always taken"

ANSWERS = Yardstick(
    "ambiguity",
    f"right answers among {SEEN} samples, of {ambiguity.VALID}",
    _ambiguity,
    _answers,
)
CALIBRATION = Yardstick("calibration_bias", "distance from the true probabilities (KL)", _calibration, _nats, False)
CLEAN, MIXED = (
    Yardstick(
        "sequence",
        f"distance from the true next-token probabilities (KL), {_share(share)} of the sequences wrong",
        functools.partial(_sequence, condition),
        _nats,
        False,
    )
    for condition, share in sequence.CONDITIONS.items()
)
UNIFORM, PARTNER = (
    Yardstick(
        "noise",
        f"accuracy, {_share(WATCHED[kind])} of the labels {words}",
        functools.partial(_noise, kind),
        percent,
    )
    for kind, words in (("uniform", "drawn at random"), ("class", "moved to one other class"))
)
REDRAWN, CONFUSED = (
    Yardstick(
        "digits",
        f"accuracy on handwritten digits, {_share(digits_data.NOISE)} of the labels {words}",
        functools.partial(_digits, condition),
        percent,
    )
    for condition, words in (("redrawn", "drawn at random"), ("confused", "changed to a digit that looks alike"))
)
PEOPLES = Yardstick(
    "demonstrations",
    "loss on people's solutions, trained on models' solutions of which many are wrong",
    _demonstrations,
    _nats,
    False,
)
SAMPLED, GREEDY, TRUTH = (
    Yardstick("ten_settings", what, functools.partial(_settings, column, tuple(TASKS)), show, higher)
    for what, column, show, higher in (
        (IN_SAMPLES, "average", percent, True),
        (IN_ONE, "greedy", percent, True),
        ("distance from the distribution of right solutions (KL)", "kl_truth", _nats, False),
    )
)
FACTS, FACTS_GREEDY = (
    Yardstick(
        "ten_settings",
        f"{what}, tasks whose facts have changed",
        functools.partial(_settings, column, tuple(KNOWLEDGE)),
        percent,
    )
    for what, column in ((IN_SAMPLES, "average"), (IN_ONE, "greedy"))
)
LEARNED, LEARNED_LATE, EVERYWHERE, EVERYWHERE_LATE = (
    Yardstick("prior_conflict", what, functools.partial(_conflict, column, step), percent)
    for what, column, step in (
        (f"right where the model was wrong, after {STEPS} steps", "learned", STEPS),
        (f"right where the model was wrong, after {LONG} steps", "learned", LONG),
        (f"right everywhere, half of it known before, after {STEPS} steps", "everywhere", STEPS),
        (f"right everywhere, half of it known before, after {LONG} steps", "everywhere", LONG),
    )
)
RARE, DENIED = (
    Yardstick(
        "dynamics",
        f"steps until a token that the model gives {percent(dynamics.CASES[case])} has {_share(dynamics.GOAL)}{more}",
        functools.partial(_steps, case),
        _counted,
        False,
    )
    for case, more in (("hard", ""), ("wrong", ", where the model is sure of another"))
)


# ---- at what scale --------------------------------------------------------------------------------------------------
def _millions(*sizes: TransformerSize) -> str:
    count = [sum(p.numel() for p in SmallTransformer(size).parameters()) / 1e6 for size in sizes]
    return " and ".join(f"{n:.2f}" for n in count) + " M parameters"


#: What was trained, by study: in a word, and in full.
KIND: dict[str, str] = {
    "ambiguity": "tables",
    "calibration_bias": "linear models",
    "sequence": "small transformers",
    "noise": "small networks",
    "digits": "small networks",
    "demonstrations": "small transformers",
    "prior_conflict": "tables",
    "dynamics": "single tokens",
    "ten_settings": "small transformers",
}
SCALE: dict[str, str] = {
    "ambiguity": "tables of probabilities",
    "calibration_bias": "linear models",
    "theory_vs_training": "tables of probabilities",
    "sequence": f"a transformer of {_millions(sequence.FULL.reference)}",
    "noise": f"networks of {noise.NETWORK.hidden} hidden units",
    "digits": f"networks of {digits.WIDTH} hidden units",
    "demonstrations": f"a transformer of {_millions(demonstrations.FULL.reference)}, real text",
    "real_audit": f"{MODEL.name}, {real_audit.STEPS} steps of an adapter at one rate, one seed",
    "real_model": f"{MODEL.name}, {REAL_STEPS} steps of an adapter at two rates, one to {SEEDS} seeds",
    "prior_conflict": "tables of probabilities",
    "dynamics": "one softmax",
    "ten_settings": f"transformers of {_millions(FULL.small, FULL.large)}, five tasks",
}
