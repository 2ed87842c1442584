"""Every public door that takes a method × every kind of thing that is one: DFT, written in twelve ways.

Wherever it is let in it is DFT; where it is not, one sentence names what serves instead. The doors are those of the API
page and of the command line, so that a new one is missed here.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import qunify as qu
from qunify import audit, hf, pictures, plots, testing, training
from qunify.cli import main
from qunify.cli._commands import COMMANDS
from tests import small_llama, trainers
from tests.test_transformer import little_task

pytestmark = pytest.mark.slow

SOURCE = """
import functools

import torch
import qunify as qu


class Own(qu.QMap):
    def loss(self, t):
        return -t.stop(t.p_label) * t.log_p_label

    def pulls(self, t):
        return ((t.p_label, t.label),)


class OwnGate(qu.Gate):
    def loss(self, t):
        return -t.stop(t.p_label) * t.log_p_label

    def weight(self, t):
        return t.p_label


def powered(logits, labels, power=1.0):
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return (-power * ce).exp().detach() * ce


def plain(logits, labels):
    return powered(logits, labels)


def averaged(logits, labels):
    return powered(logits, labels).mean()


def halved(logits, labels):
    return powered(logits, labels) / 2


class Called:
    def __call__(self, logits, labels):
        return powered(logits, labels)


class Module(torch.nn.Module):
    def forward(self, logits, labels):
        return powered(logits, labels)


own, gate, called, module = Own(), OwnGate(), Called(), Module()
entry, same = qu.get("dft"), qu.get("mixce", eta=0)
bound = functools.partial(powered, power=1.0)
designed = qu.design("designed", trust=lambda t: t.p_label, residual=lambda t: t.policy)
"""
#: By the name in that file: an instance or a class of the catalogue or of one's own, a design, and loss functions.
OF_MAPS = ("entry", "same", "own", "gate", "Own", "designed")
FUNCTIONS = ("plain", "averaged", "called", "module", "bound")
CLASSES = ("Own",)

LOGITS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 5])
TRUTH = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doors") / "kinds.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def kinds(file: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("kinds", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["kinds"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kinds"]


# ---- the doors: each gives a number or a word that is the same for all kinds -----------------------------------------
def gradient(loss: Callable[[Tensor], Tensor], at: Tensor = LOGITS) -> Tensor:
    """A loss's value may differ between kinds, as a design's does: its gradient must not."""
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def of_a_trainer(m: Any) -> Tensor:
    criterion = m if isinstance(m, hf.CausalLoss) else hf.loss(m)
    return gradient(lambda z: criterion(SimpleNamespace(logits=z[None]), LABELS[None]))


def trained(m: Any, folder: str | None = None) -> Tensor:
    job = training.Job(m, training.Data(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2])), lr=0.5)
    return torch.tensor(training.sweep(training.Tabular(2, 3), [job], [3], chance, folder=folder, key="doors")["p"])


def chance(stack: training.Stack) -> dict[str, Tensor]:
    return {"p": stack.probs(torch.arange(2))[:, 0, 0]}


def fine_tuned(m: Any) -> Tensor:
    model = training.fine_tune(m, little_task(torch.float64), steps=1, batch=4, lr=0.1)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trust_on_the_way(m: Any) -> Tensor:
    task = little_task()
    return task.trust(m, task.reference, task.reference, torch.arange(2))


def answers(m: Any) -> int:
    texts = hf._answers.TokenTexts(None)
    line = hf._server_formats.Recorded([0, 1], True, [None, ([1], [-0.1])])
    found = hf.Answers(Path("answers.jsonl"), [(1, line)], texts)
    found.check(m, 6)
    return len(found.values)


def audited(m: Any) -> Tensor:
    rows = [{"question": "the cat sees", "answer": "a bird"}]
    table = audit.run(small_llama.model().eval(), rows, small_llama.tokenizer(), methods=[m]).tokens
    (column,) = (name for name in map(str, table) if name.startswith("push_"))
    return torch.tensor(table[column])


def asserted(a: Any, b: Any) -> bool:
    testing.assert_equivalent(a, b)
    return True


def stepped(m: Any, folder: str) -> Tensor:
    history = trainers.train(folder, method=m).state.log_history
    return torch.tensor(float(history[0]["grad_norm"]))


DOORS: dict[str, Callable[[Any, str], Any]] = {
    "qunify.induced loss_fn": lambda m, _: qu.induced(m, LOGITS, LABELS).gradient,
    "qunify.gradients maps": lambda m, _: qu.gradients([m], LOGITS, LABELS)[0],
    "qunify.compare a": lambda m, _: qu.compare(m, "dft").level,
    "qunify.compare b": lambda m, _: qu.compare("dft", m).level,
    "qunify.subsumes general": lambda m, _: str(qu.subsumes(m, "kd")),
    "qunify.subsumes special": lambda m, _: str(dict(qu.subsumes("beyond_log", m) or {})),
    "qunify.identify loss_fn": lambda m, _: qu.identify(m, top=1)[0].name,
    "qunify.testing.assert_equivalent a": lambda m, _: asserted(m, "dft"),
    "qunify.testing.assert_equivalent b": lambda m, _: asserted("dft", m),
    "qunify.drift m": lambda m, _: qu.drift(m, TRUTH, TRUTH),
    "qunify.optimum m": lambda m, _: qu.optimum(m, TRUTH).probs,
    "qunify.is_proper m": lambda m, _: qu.is_proper(m).direction,
    "qunify.loss method": lambda m, _: gradient(lambda z: qu.loss(m)(z, LABELS)),
    "qunify.training.Loss method": lambda m, _: gradient(lambda z: training.Loss(m)(z, LABELS)),
    "qunify.linear_loss method": lambda m, _: gradient(
        lambda h: qu.linear_loss(h, torch.eye(6, dtype=torch.float64), LABELS, m)
    ),
    "qunify.audit.run methods": lambda m, _: audited(m),
    "qunify.hf.loss method": lambda m, _: of_a_trainer(m),
    "qunify.hf.CausalLoss method": lambda m, _: of_a_trainer(hf.CausalLoss(m, {}, {})),
    "qunify.hf.Answers.check method": lambda m, _: answers(m),
    "qunify.hf.SFTTrainer method": stepped,
    "qunify.training.Job method": lambda m, _: trained(m),
    "qunify.training.Job method, kept in a folder": trained,
    "qunify.training.fine_tune method": lambda m, _: fine_tuned(m),
    "qunify.training.FineTuningTask.trust method": lambda m, _: trust_on_the_way(m),
    "qunify.plots.overview maps": lambda m, _: len(plots.overview([m]).axes),
    "qunify.pictures.method_page method": lambda m, _: "</svg>" in pictures.method_page(m),
}
#: What takes a method's class and is no door: it is made by one.
MADE = {"qunify.Bindings general"}

_MAP = r"qunify\.get (gives|makes one) of an id"
_DESIGN = r"identify finds out what a loss function is, and qunify\.design makes a QMap"
_EACH = "return the losses before they are reduced"
_NAMED = "QMaps such as qunify.design makes, and loss functions by a name of their own"
#: Who is not let in where, and what the sentence says that serves.
REFUSED: dict[str, dict[str, str]] = {
    "qunify.induced loss_fn": {**dict.fromkeys(("id", *CLASSES), _MAP), "averaged": _EACH},
    "qunify.gradients maps": dict.fromkeys(("id", *CLASSES, *FUNCTIONS), _MAP),
    "qunify.subsumes general": {**dict.fromkeys(FUNCTIONS, _DESIGN), "designed": "a QMap of your own"},
    "qunify.subsumes special": dict.fromkeys(FUNCTIONS, _DESIGN),
    "qunify.linear_loss method": {"averaged": _EACH},
    "qunify.hf.SFTTrainer method": {"averaged": _EACH},
    "qunify.training.Job method, kept in a folder": dict.fromkeys(("called", "module", "bound"), _NAMED),
}


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    return functools.cache(lambda door: DOORS[door](qu.get("dft"), str(tmp_path_factory.mktemp("entry"))))


@pytest.mark.parametrize("kind", ["id", *OF_MAPS, *FUNCTIONS])
@pytest.mark.parametrize("door", DOORS)
def test_every_kind_at_every_door(
    door: str, kind: str, kinds: ModuleType, entry: Callable[[str], Any], tmp_path: Path
) -> None:
    m = "dft" if kind == "id" else getattr(kinds, kind)
    if kind in REFUSED.get(door, {}):
        with pytest.raises(ValueError, match=REFUSED[door][kind]) as caught:
            DOORS[door](m, str(tmp_path))
        assert "\n" not in str(caught.value)
        return
    found, expected = DOORS[door](m, str(tmp_path)), entry(door)
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    else:
        assert found == expected


def test_a_folder_tells_functions_apart_by_their_names(kinds: ModuleType, tmp_path: Path) -> None:
    def sharper(power: float) -> Any:
        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return kinds.powered(logits, labels, power)

        return loss

    kept = trained(kinds.plain, str(tmp_path))
    assert not torch.equal(trained(kinds.halved, str(tmp_path)), kept)
    for m in (sharper(2), lambda z, y: kinds.powered(z, y, 2)):
        with pytest.raises(ValueError, match=f"{_NAMED}, got the function .*, of which two cannot be told apart"):
            trained(m, str(tmp_path))


def test_every_public_door_is_here() -> None:
    taking = {
        f"{name} {p.name}"
        for name, function in public()
        for p in inspect.signature(function).parameters.values()
        if re.search(r"\b(Method|QMap|LossFunction)\b", str(p.annotation))
    }
    assert taking == {door.partition(",")[0] for door in DOORS} | MADE


def public() -> Iterator[tuple[str, Any]]:
    """Every function, class and method of the API page, by its full name."""
    module = "qunify"
    for line in (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8").splitlines():
        what, _, name = line.removeprefix(".. ").partition(":: ")
        if what == "currentmodule":
            module = name
        elif what in ("autofunction", "autoclass"):
            where, _, last = (name if "." in name else f"{module}.{name}").rpartition(".")
            yield f"{where}.{last}", (found := getattr(importlib.import_module(where), last))
            for own, method in vars(found).items() if inspect.isclass(found) else ():
                function = getattr(method, "__func__", method)
                if not own.startswith("_") and inspect.isfunction(function):
                    yield f"{where}.{last}.{own}", function


# ---- the command line ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_llama.model().save_pretrained(folder)
    small_llama.tokenizer().save_pretrained(folder)
    (folder / "rows.jsonl").write_text(json.dumps({"question": "the cat sees", "answer": "a bird"}))
    return folder


#: Words for each command that takes a method, and what it prints of DFT.
CLI = {
    "show": ("show M", "label"),
    "compare": ("compare M dft", "have the same gradient at every token"),
    "check": ("check M dft", "passed: identical required"),
    "identify": ("identify M", "is identical to dft"),
    "plot": ("plot M --out OUT", "dft.svg"),
    "audit": ("audit --model MODEL --data DATA --methods M --out PAGE", "demonstration"),
}
WITHOUT_A_METHOD = {"list", "explore", "record"}


def test_every_command_is_here() -> None:
    assert set(CLI) | WITHOUT_A_METHOD == set(COMMANDS)


@pytest.mark.parametrize("kind", ["id", *OF_MAPS, *FUNCTIONS])
@pytest.mark.parametrize("command", CLI)
def test_every_kind_on_the_command_line(
    command: str, kind: str, file: Path, demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = CLI[command]
    places = {"M": "dft" if kind == "id" else f"{file}:{kind}", "OUT": f"{tmp_path}/dft.svg"}
    places |= {"MODEL": str(demonstrations), "DATA": f"{demonstrations}/rows.jsonl", "PAGE": f"{tmp_path}/page.html"}
    status = main([places.get(word, word) for word in words.split()])
    out, err = capsys.readouterr()
    assert status == 0, err
    assert said in " ".join(out.split())
