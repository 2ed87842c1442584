"""Known verdicts at every level, symmetry, witnesses and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import qunify as qu
from qunify.cli import main
from qunify.equivalence import LEVELS, compare
from qunify.qmap import QMap
from qunify.testing import assert_equivalent


def m(name: str, **params: Any) -> QMap:
    return qu.get(name, **params)


VERDICTS = [
    ("identical", "dft", "mae", True),
    ("identical", m("gce", q=0.5), "beyond_log", True),
    ("identical", m("tailr", gamma=0), "sft", True),
    ("identical", m("tailr", gamma=1), "dft", True),
    ("identical", m("mixce", eta=0), "dft", True),
    ("identical", m("taylor_ce", order=1), "mae", True),
    ("identical", "chord_phi", m("aue", a=1, q=2), True),
    ("identical", m("gem", beta=1), "sft", True),
    ("identical", m("target_sft", eta=0), "dft", True),
    ("identical", m("kd_hybrid", mix=1), "kd", True),
    ("identical", m("taid", mix=1), "kd", True),
    ("identical", m("agce", a=0, q=0), "sft", True),
    ("identical", m("label_smoothing", smoothing=0), "sft", True),
    ("identical", m("jsd", beta=1), "reverse_kl", True),
    ("scaled", "gem", m("temperature_ce", temperature=0.7), True),
    ("scaled", "luffy", m("agce", a=0.1, q=-1), True),
    ("scaled", m("tailr", gamma=0.5), m("agce", a=1, q=0), True),
    ("scaled", m("bootstrap_soft", beta=0.5), m("confidence_penalty", weight=-1), True),
    ("directional", "sft", "dft", True),
    ("directional", "gce", "beyond_log", True),
    ("directional", "sft", "focal", True),
    ("directional", m("profit", threshold=0.4), "sft", True),
    ("optimum", "kd", "reverse_kl", True),
    ("optimum", "sft", "brier", True),
    ("optimum", "brier", "spherical", True),
    ("distinct", "kd", "sft", True),
    ("distinct", "dft", "label_smoothing", True),
    ("distinct", "target_sft", "kd_hybrid", True),
    ("distinct", "gem", "confidence_penalty", True),
]


@pytest.mark.parametrize(
    ("level", "a", "b", "proved"), VERDICTS, ids=lambda x: x.name if isinstance(x, QMap) else str(x)
)
def test_known_verdicts(level: str, a: str | QMap, b: str | QMap, proved: bool) -> None:
    there, back = compare(a, b), compare(b, a)
    assert there.level == back.level == level
    assert there.proved == proved
    assert there.same_optimum == back.same_optimum
    if there.factor is not None:
        assert there.factor * back.factor == 1
    assert (there.witness is None) == (level == "identical")
    assert there.silent_a == back.silent_b


def test_factor_and_sentence() -> None:
    verdict = compare("gem", m("temperature_ce", temperature=0.7))
    assert str(verdict.factor) == "10/7"
    assert str(verdict) == (
        "gem and temperature_ce(temperature=0.7) differ by the constant factor 10/7, a learning rate (proved)."
    )


def test_direction_and_optimum_are_independent() -> None:
    assert (compare("sft", "eaft").same_direction, compare("sft", "eaft").same_optimum) == (True, True)
    assert (compare("sft", "dft").same_direction, compare("sft", "dft").same_optimum) == (True, False)
    assert (compare("kd", "reverse_kl").same_direction, compare("kd", "reverse_kl").same_optimum) == (False, True)


def test_aliased_contexts() -> None:
    a, b = m("kd_hybrid", mix=0.5), m("sft_kl", kl_weight=1)
    assert compare(a, b).level == "distinct"
    verdict = compare(a, b, alias={"reference_logits": "teacher_logits"})
    assert (verdict.level, str(verdict.factor), verdict.proved) == ("scaled", "2", True)
    with pytest.raises(ValueError, match=r"compare: alias: expected names among .* got 'teacher'"):
        compare(a, b, alias={"teacher": "reference_logits"})


def test_silence_is_reported() -> None:
    verdict = compare("profit", "sft")
    assert (verdict.silent_a, verdict.silent_b) == (True, False)


def test_witness_is_exact_and_separates() -> None:
    witness = compare("kd", "sft").witness
    assert witness is not None
    (point,) = witness.points
    assert sum(point.probs) == 1
    assert witness.fails == "directional"
    p = torch.tensor([float(x) for x in point.probs], dtype=torch.float64)
    g = qu.get("sft")(p.log(), torch.tensor(point.label)).gradient
    assert torch.allclose(g, torch.tensor(point.gradient_b, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("name", ["sft", "dft", "gem", "label_smoothing", "kd", "brier", "target_sft"])
def test_a_copy_off_by_a_thousandth_is_never_identical(name: str) -> None:
    original = qu.get(name)

    class Perturbed(type(original)):  # type: ignore[misc]
        def pulls(self, t):  # type: ignore[no-untyped-def]
            (first, d), *others = [x if isinstance(x, tuple) else (None, x) for x in super().pulls(t)]
            others = [x if x[0] is not None else x[1] for x in others]
            return [(first * (1 + 0.001 * t.p_label), d), *others]

    assert compare(original, Perturbed(**original.params)).level not in ("identical", "scaled")


# ---- other people's functions -------------------------------------------------------------------------------


def twice_dft(logits: Tensor, labels: Tensor) -> Tensor:
    log_u = logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    return -2 * log_u.exp().detach() * log_u


def distil(logits: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
    teacher = teacher_logits.softmax(-1)
    return -(teacher * logits.log_softmax(-1)).sum(-1)


def test_functions_are_measured() -> None:
    verdict = compare("dft", twice_dft)
    assert (verdict.level, str(verdict.factor), verdict.proved) == ("scaled", "2", False)
    assert compare(distil, "kd").level == "identical"


def test_assert_equivalent() -> None:
    assert_equivalent(twice_dft, "dft", level="scaled")
    assert_equivalent(distil, "kd")
    with pytest.raises(AssertionError, match="expected identical: twice_dft and dft differ by the constant factor 1/2"):
        assert_equivalent(twice_dft, "dft")
    with pytest.raises(AssertionError, match="not scaled"):
        assert_equivalent("sft", "dft", level="scaled")
    with pytest.raises(ValueError, match="level: expected one of identical, scaled, directional, optimum, got 'same'"):
        assert_equivalent("sft", "dft", level="same")


# ---- command line -------------------------------------------------------------------------------------------


def test_compare_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "sft", "dft"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("sft and dft share their direction")
    assert "w_b = u ≥ 0" in said
    assert main(["compare", "gem", "temperature_ce", "--set", "temperature_ce.temperature=0.7", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["level"], data["factor"], data["proved"]) == ("scaled", "10/7", True)
    assert data["level"] in LEVELS
    assert main(["compare", "sft", "dtf"]) == 2
    assert "did you mean dft" in capsys.readouterr().err


def test_check_is_for_ci(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "def loss(logits, labels):\n    return -3 * logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]\n"
    )
    assert main(["check", f"{source}:loss", "sft", "--require", "scaled"]) == 0
    assert "passed: scaled required" in capsys.readouterr().out
    assert main(["check", f"{source}:loss", "sft"]) == 1
    assert "failed: identical required" in capsys.readouterr().out
    assert main(["check", f"{source}:lost", "sft"]) == 2
    assert "did you mean loss" in capsys.readouterr().err
