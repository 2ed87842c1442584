"""Tests find faults that are planted for them: each row names a mistake, and a test that must not pass with it.

Where a tolerance was widened, a selection became empty, NaN is filtered away, or a result is held against itself, the
fault stays unfound and the row fails. Without its fault every one of these tests passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import qunify as qu
from analyses.kit import runner
from qunify import QTarget
from qunify.catalogue.identities import IDENTITIES
from qunify.maps import QMap
from qunify.synthetic import Population
from qunify.training import Loss
from tests import (
    test_ambiguity,
    test_calibration,
    test_conformance,
    test_contract,
    test_digits,
    test_equivalence,
    test_findings,
    test_fine_tuned_studies,
    test_identities,
    test_loss,
    test_noise,
    test_oracles,
    test_population_studies,
    test_precise,
    test_properties,
    test_synthetic,
)
from tests.battery import batch

pytestmark = pytest.mark.slow

Plant = Callable[[pytest.MonkeyPatch], None]
DFT = qu.get("dft")


class Fault(NamedTuple):
    what: str
    plant: Plant
    found_by: Callable[[], object]


# ---- ways to plant ------------------------------------------------------------------------------------------
def instead(where: Any, name: str, change: Callable[[Any], Any]) -> Plant:
    """A function or a method gives what `change` makes of its result."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(where, name)
        patch.setattr(where, name, lambda *args, **kwargs: change(original(*args, **kwargs)))

    return plant


def gradient(change: Callable[[Tensor], Tensor]) -> Plant:
    """Every method gives another gradient."""
    return instead(QMap, "__call__", lambda q: dataclasses.replace(q, gradient=change(q.gradient)))


def weight(factor: float, m: QMap = DFT) -> Plant:
    """A gate pulls with another weight than its loss has."""
    return instead(type(m), "weight", lambda w: w * factor)


def at_ignored(q: QTarget) -> QTarget:
    return dataclasses.replace(q, gradient=q.gradient.where(q.mask[..., None], 1e-300))


def nan_at_certainty(q: QTarget) -> QTarget:
    return dataclasses.replace(q, gradient=q.gradient.where(q.gradient != 0, torch.nan))


def from_another_noise(patch: pytest.MonkeyPatch) -> None:
    original = Population.sample

    def sample(self: Population, *args: Any, **kwargs: Any) -> Any:
        return original(dataclasses.replace(self, noise=self.noise.roll(1, -1)), *args, **kwargs)

    patch.setattr(Population, "sample", sample)


def without_a_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table[~((table["method"] == "dft") & (table["seed"] == table["seed"].max()))]


class Reversed:
    """In place of a source of chance: a shuffle that turns the order around."""

    def shuffle(self, order: list[int]) -> None:
        order.reverse()


def plain(test: Any) -> Any:
    """A property, to be asked of a given batch in place of drawn ones."""
    return test.hypothesis.inner_test


IDENTITY = next(i for i in IDENTITIES if i.left.name == "tailr" and {t.name for t in i.right} == {"dft"})
NOISE = next((study, f) for study, f in test_findings.ALL if f.title == "Robust is not calibrated")
SIMPLEX = runner.read("simplex", runner.FIGURES)[["A", "B", "C"]]
GEM = ("scaled", "gem", qu.get("temperature_ce", temperature=0.7), True)

FAULTS = [
    Fault(
        "pulls off by a part in 10^8",
        weight(1 + 1e-8),
        lambda: test_conformance.test_loss_gradient_equals_the_sum_of_pulls(DFT, 24),
    ),
    Fault(
        "targets that sum to one and a little",
        gradient(lambda g: g + 1e-11),
        lambda: test_conformance.test_target_sums_to_one_exactly_if_declared_shift_invariant(DFT),
    ),
    Fault(
        "a residual where trust is one",
        instead(QTarget, "in_gauge", lambda g: g._replace(residual=g.residual.nan_to_num(0.5))),
        lambda: test_conformance.test_nothing_remains_where_trust_is_one_and_something_elsewhere("fixed"),
    ),
    Fault(
        "NaN where the model is certain",
        instead(QMap, "__call__", nan_at_certainty),
        lambda: test_contract.test_huge_logits_never_give_nan("dft"),
    ),
    Fault(
        "a trace of a gradient at ignored tokens",
        instead(QMap, "__call__", at_ignored),
        lambda: test_contract.test_ignored_positions_are_zero_and_do_not_matter("dft"),
    ),
    Fault(
        "float32 with four digits",
        gradient(lambda g: g if g.dtype == torch.float64 else g * (1 + 1e-4)),
        lambda: test_contract.test_every_float_type("dft", torch.float32),
    ),
    Fault(
        "cross-entropy to nine digits",
        weight(1 + 1e-9, qu.get("sft")),
        lambda: test_oracles.test_torch_cross_entropy(),
    ),
    Fault(
        "a divergence to nine digits",
        instead(QMap, "__call__", lambda q: dataclasses.replace(q, loss=q.loss * (1 + 1e-9))),
        lambda: test_oracles.test_fifty_digits_on_the_extremes("kd"),
    ),
    Fault(
        "float64 with ten digits",
        gradient(lambda g: g * (1 + 1e-10)),
        lambda: test_precise.test_float64_has_the_digits_it_claims(DFT),
    ),
    Fault(
        "a module whose gradient is not that of its value",
        weight(1 + 1e-7),
        lambda: test_loss.test_values_and_gradients_are_those_of_the_published_loss(DFT),
    ),
    Fault(
        "a module whose gradient is NaN at one token",
        instead(type(DFT), "weight", lambda w: w.index_fill(0, torch.tensor([7]), torch.nan)),
        lambda: test_loss.test_values_and_gradients_are_those_of_the_published_loss(DFT),
    ),
    Fault(
        "a reduction that counts one more token in ten thousand",
        instead(Loss, "forward", lambda loss: loss if loss.dim() else loss * (1 - 1e-4)),
        lambda: test_loss.test_reductions_count_kept_tokens(),
    ),
    Fault(
        "tokens that see each other",
        gradient(lambda g: g + 1e-9 * g.sum(0) if g.dim() > 1 else g),
        lambda: plain(test_properties.test_tokens_do_not_see_each_other)("dft", batch(5)),
    ),
    Fault(
        "a gradient that depends on the tokens' numbers",
        gradient(lambda g: g * (1 + 1e-6 * torch.arange(g.shape[-1]))),
        lambda: plain(test_properties.test_renaming_the_vocabulary_renames_the_target)("dft", batch(5), Reversed()),
    ),
    Fault(
        "an identity to nine digits",
        weight(1 + 1e-9, qu.get("tailr")),
        lambda: test_identities.test_identity(IDENTITY),
    ),
    Fault(
        "a regret a thousandth too large",
        instead(test_calibration, "against_truth", lambda found: found | {"regret": found["regret"] * 1.001}),
        lambda: test_calibration.test_zeros_valid_tokens_and_ties(),
    ),
    Fault(
        "a divergence that is always zero, which it is between equals only",
        instead(test_calibration, "against_truth", lambda found: found | {"kl": 0 * found["kl"]}),
        lambda: plain(test_calibration.test_laws_of_the_exact_metrics)(seed=3, vocab=5),
    ),
    Fault(
        "labels drawn from another noise than is stated",
        from_another_noise,
        lambda: test_synthetic.test_labels_follow_the_observed_distribution("class"),
    ),
    Fault(
        "a share of wrong labels that is one label off",
        instead(test_digits, "corrupted", lambda labels: np.append(labels[1:], labels[:1])),
        lambda: test_digits.test_exactly_a_fifth_of_the_labels_is_wrong("redrawn", 0),
    ),
    Fault(
        "a rate of noise that is a thousandth too high",
        instead(test_noise.noise, "break_even", lambda rate: rate * 1.001),
        lambda: test_noise.test_break_even(),
    ),
    Fault(
        "a coverage two hundredths too large",
        instead(test_ambiguity.runs, "against", lambda found: found | {"coverage_4": found["coverage_4"] + 0.02}),
        lambda: test_ambiguity.test_coverage_is_that_of_drawn_samples(),
    ),
    Fault(
        "committed rows off in the fifth digit",
        instead(test_population_studies, "committed", lambda table: table.assign(A=table["A"] + 1e-5)),
        lambda: test_population_studies.same(SIMPLEX, test_population_studies.committed("simplex")),
    ),
    Fault(
        "rows that say the same, taken for rows that say otherwise",
        lambda patch: patch.setitem(test_findings.OTHERWISE, NOISE[1].title, lambda table: table),
        lambda: test_findings.test_other_rows_would_not(*NOISE),
    ),
    Fault(
        "a method without one of its seeds",
        instead(test_fine_tuned_studies, "rows", without_a_seed),
        lambda: test_fine_tuned_studies.test_the_committed_rows_are_those_of_a_full_run("sequence"),
    ),
    Fault(
        "a factor that the way back does not undo",
        instead(test_equivalence, "compare", lambda verdict: dataclasses.replace(verdict, factor=verdict.factor + 1)),
        lambda: test_equivalence.test_known_verdicts(*GEM),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.found_by()  # passes as things are
    fault.plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        fault.found_by()
