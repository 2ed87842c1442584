"""A method in somebody's own file works wherever one of the catalogue does, and is taken for none of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sympy as sp
import torch
from torch import Tensor

import qunify as qu
from qunify import catalogue, hf, plots, testing
from qunify.cli import main

SOURCE = '''
from __future__ import annotations

import torch
import qunify as qu


class Cubed(qu.Gate):
    """Cubed: trust the label by a power of its probability, one third by default."""

    power: float = qu.param(1 / 3, low=0, doc="exponent of the trust")

    def loss(self, t):
        return -t.stop(t.p_label**self.power) * t.log_p_label

    def weight(self, t):
        return t.exp(self.power * t.log_p_label)


class Bare(qu.QMap):
    share: float = 0.3
    kind: str = "plain"
    needs = ("teacher_logits",)

    def loss(self, t):
        return -(1 - self.share) * t.log_p_label + self.share * t.cross_entropy(t.teacher, t.policy)

    def pulls(self, t):
        return (1 - self.share, t.label), (self.share, t.teacher)


class InTensors(qu.QMap):
    def loss(self, t):
        return -torch.sigmoid(t.p_label.detach()) * t.log_p_label

    def pulls(self, t):
        return ((torch.sigmoid(t.p_label), t.label),)


class DFT(qu.Gate):
    """Not DFT, though it bears its id: this is sft."""

    name = "dft"

    def loss(self, t):
        return -t.log_p_label

    def weight(self, t):
        return 1


class Child(type(qu.get("focal"))):
    def weight(self, t):
        return 1


def loss(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


half = qu.design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.uniform, a=0.5)
number = 3
'''

TRUTH = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
LOGITS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TEACHER = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 5])
OF_THEIR_OWN = ("Cubed", "Bare", "InTensors", "DFT", "Child", "half", "loss")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "random.py").write_text(SOURCE)  # called as a module of Python's own
    return folder


@pytest.fixture(scope="module")
def own(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("somebodys", folder / "random.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["somebodys"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(m: Any, rows: Tensor) -> dict[str, Any]:
    return {"teacher_logits": rows} if "teacher_logits" in catalogue.as_method(m, "test").needs else {}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x == "Cubed" else pytest.mark.slow) for x in OF_THEIR_OWN]
)
def test_it_works_everywhere(name: str, own: ModuleType) -> None:
    m = getattr(own, name)
    read = catalogue.as_method(m, "test")
    context = given(m, TEACHER)
    population = given(m, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert qu.compare(m, m).level == "identical"
    assert qu.compare(m, "sft").level in ("identical", "scaled", "directional", "distinct")
    assert str(qu.is_proper(m))
    assert qu.identify(m).name == read.name
    assert qu.optimum(m, TRUTH, **population).probs.shape == (3,)
    assert qu.drift(m, TRUTH, TRUTH, **population).sum().abs() < 1e-9
    logits = LOGITS.clone().requires_grad_()
    qu.loss(m, "sum")(logits, LABELS, **context).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, read(LOGITS, LABELS, **context).gradient)
    testing.assert_equivalent(m, read)
    plots.overview([m, "sft", m])
    assert hf.loss(m, teacher=torch.nn.Linear(1, 1) if population else None).method == read


@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_the_fused_loss_is_that_of_the_logits(name: str, own: ModuleType) -> None:
    m = getattr(own, name)
    teacher = {"teacher": TEACHER} if given(m, TEACHER) else {}
    hidden, weight = LOGITS, torch.eye(6, dtype=torch.float64)
    fused = qu.linear_loss(hidden, weight, LABELS, m, **teacher)
    torch.testing.assert_close(fused, qu.loss(m)(LOGITS, LABELS, **given(m, TEACHER)))


def test_what_is_known_of_it(own: ModuleType) -> None:
    assert (own.Cubed().title, own.Cubed.name, own.Cubed.family) == ("Cubed", "Cubed", "somebodys")
    assert (own.Bare.title, own.Bare.summary, own.Child.name) == ("Bare", "", "Child")
    cubed = qu.compare(own.Cubed(power=0.5), "beyond_log")
    assert (cubed.a, cubed.level, cubed.proved) == ("Cubed(power=0.5)", "identical", True)
    assert qu.is_proper(own.Cubed).direction == "sharpening"
    assert qu.identify(own.Cubed)[0].params["alpha"] == pytest.approx(1 / 3)
    assert qu.optimum(own.Cubed(power=0.5), TRUTH).closed_form == r"p^*\propto \eta^{2}"
    assert dict(qu.subsumes(own.Cubed, "beyond_log") or {}) == {"power": sp.Symbol("alpha")}
    assert dict(qu.subsumes("beyond_log", own.Cubed) or {}) == {"alpha": sp.Symbol("power")}
    assert dict(qu.subsumes("beyond_log", own.Cubed(power=0.25)) or {}) == {"alpha": sp.Rational(1, 4)}
    assert dict(qu.subsumes("kd_hybrid", own.Bare(share=0.25)) or {}) == {"mix": sp.Rational(1, 4)}
    assert dict(qu.subsumes(own.Bare, qu.get("kd_hybrid", mix=0.25)) or {})["share"] == sp.Rational(1, 4)


def test_a_body_of_tensors_is_measured_and_a_function_too(own: ModuleType) -> None:
    for m in (own.InTensors, own.loss):
        assert not qu.compare(m, "sft").proved
        assert not qu.is_proper(m).proved
        assert qu.optimum(m, TRUTH).closed_form is None
    assert qu.compare(own.loss, "sft").level == "identical"
    torch.testing.assert_close(qu.optimum(own.loss, TRUTH).probs, TRUTH)
    assert not catalogue.as_method(lambda logits, labels: (logits**2).mean(-1), "test").shift_invariant
    with pytest.raises(ValueError, match="not shift-invariant, so it has no target"):
        qu.optimum(lambda logits, labels: (logits**2).mean(-1), TRUTH)
    with pytest.raises(ValueError, match=r"subsumes: special: .* qunify.design makes a QMap"):
        qu.subsumes("agce", own.loss)


def test_one_that_bears_an_id_is_not_taken_for_the_entry(own: ModuleType) -> None:
    mine = own.DFT()
    assert not catalogue.has(mine)
    assert catalogue.has(qu.get("dft"))
    assert qu.compare(mine, "sft").level == "identical"
    assert qu.compare(mine, "dft").level == "directional"
    assert qu.is_proper(mine).strict
    assert not qu.is_proper("dft").unbiased, "what was found of one is not told of the other"
    assert qu.optimum(mine, TRUTH).closed_form == r"p^*=\eta"
    torch.testing.assert_close(qu.optimum(mine, TRUTH).probs, TRUTH)
    assert qu.identify(mine)[0].name == "sft"
    assert dict(qu.subsumes("beyond_log", mine) or {}) == {"alpha": 0}
    figure = plots.overview([mine, "dft"])
    assert figure.axes[0].lines[0].get_color() != plots.colour("dft")


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (3, "expected an id of the catalogue, a QMap or a loss function, got 3"),
        (torch.nn.CrossEntropyLoss, "expected an id of the catalogue, a QMap or a loss function, got <class"),
        (qu.Gate, "Gate: Can't instantiate abstract class"),
    ],
)
def test_what_is_no_method_is_refused(method: Any, sentence: str) -> None:
    for ask in (lambda: qu.compare("sft", method), lambda: qu.is_proper(method), lambda: qu.identify(method)):
        with pytest.raises(ValueError, match=sentence):
            ask()


def test_parameters_go_to_a_class_and_to_nothing_else(own: ModuleType) -> None:
    assert qu.loss(own.Cubed, power=0.5).method == own.Cubed(power=0.5)
    with pytest.raises(ValueError, match="Cubed: unknown parameter 'pwoer', expected power"):
        qu.loss(own.Cubed, pwoer=0.5)
    with pytest.raises(ValueError, match="Cubed: parameter power: expected a number in"):
        qu.loss(own.Cubed, power=-1)
    with pytest.raises(ValueError, match="loss: parameters power: expected none beside a QMap"):
        qu.loss(own.Cubed(), power=0.5)
    with pytest.raises(ValueError, match="loss: parameters power: expected none beside a function: bind them first"):
        qu.loss(own.loss, power=0.5)


# ---- in a terminal -------------------------------------------------------------------------------------------
def printed(capsys: pytest.CaptureFixture[str], folder: Path, words: str) -> str:
    status = main([word.replace("OWN", f"{folder}/random.py") for word in words.split()])
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), words
    return " ".join(out.split())


@pytest.mark.slow
def test_the_command_line_takes_it(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = printed(capsys, folder, "show OWN:Cubed --set power=0.5")
    assert "Cubed · random Trust the label" in page
    assert "power = 0.5 (default 0.333" in page
    assert "Simplex a distribution at each of 240 random tokens" in page
    assert "g_y − h_y = 0" in printed(capsys, folder, "show OWN:Cubed --derive")
    for name in ("Bare", "InTensors", "half", "loss"):
        assert json.loads(printed(capsys, folder, f"show OWN:{name} --json"))["source"] in ("", "qunify.design")
    same = printed(capsys, folder, "compare OWN:Cubed beyond_log --set Cubed.power=0.3 --set beyond_log.alpha=0.3")
    assert "Cubed(power=0.3) and beyond_log(alpha=0.3) have the same gradient at every token (proved)." in same
    assert "passed: identical required" in printed(capsys, folder, "check OWN:loss OWN:DFT")
    assert "Bare is identical to kd_hybrid(mix=0.3)" in printed(capsys, folder, "identify OWN:Bare")
    out = tmp_path / "own.svg"
    printed(capsys, folder, f"plot OWN:Cubed OWN:half sft --out {out}")
    assert "Cubed" in out.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("show OWN:Cubd", "has no Cubd, did you mean Cubed?"),
        ("show OWN:number", "expected a loss function or a QMap, got int"),
        ("show OWN:Cubed --set pwoer=1", "Cubed: unknown parameter 'pwoer', expected power"),
        ("show OWN:half --set b=1", "half: unknown parameter 'b', expected a"),
        ("show OWN:InTensors --derive", "InTensors: a derivation needs symbols"),
        ("show OWN:loss --derive", "loss: a derivation needs symbols"),
        ("compare OWN:Cubed sft --set pwoer=1", "no parameter 'pwoer' of"),
        ("compare Cubed sft", "unknown method 'Cubed'"),
    ],
)
def test_command_errors_are_one_sentence(
    words: str, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("OWN", f"{folder}/random.py") for word in words.split()]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
