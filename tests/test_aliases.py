"""Names of other papers and trainers: each is the entry that it leads to, by what was published under it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping

import pytest
import sympy as sp
import torch

import qunify as qu
from docs.methods import aliases
from qunify.catalogue import ALIASES, ENTRIES, elsewhere
from qunify.catalogue.identities import Alias
from qunify.cli import main
from qunify.pictures._words import identity_lines
from qunify.token import evaluate, sg
from tests.battery import batch

U = sp.Symbol("u", positive=True)
W = sp.Symbol("w", real=True)


def weight(alias: Alias, values: Mapping[str, float], u: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """−u dL/du of the published loss, what is detached held fixed, at label probabilities and token weights, (N,)."""
    names = {key: sp.Symbol(key, positive=True) for key in alias.defaults}
    loss = sp.sympify(alias.loss, locals={"sg": sg, "u": U, "w": W, **names})
    found = evaluate(-U * loss.diff(U)).subs({names[key]: value for key, value in values.items()})
    return torch.as_tensor(sp.lambdify([U, W], found, "numpy")(u.numpy(), w.numpy())) + 0 * u


def settings(alias: Alias) -> list[dict[str, float]]:
    """The defaults, and each parameter at half and at three quarters of its default."""
    factors = itertools.product((1, 0.5, 0.75), repeat=len(alias.defaults))
    return [{k: v * f for (k, v), f in zip(alias.defaults.items(), each, strict=True)} for each in factors]


@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
def test_what_was_published_under_the_name_is_the_entry(alias: Alias) -> None:
    b = batch(5)
    p = torch.softmax(b.logits[:180], -1)
    u, labels = p.gather(1, b.labels[:180, None])[:, 0], b.labels[:180]
    context = {key: value[:180] for key, value in b.context.items()}
    for values in settings(alias):
        if alias.name == "alpha_loss" and values["alpha"] == 1:  # its limit there is the logarithm
            continue
        expected = weight(alias, values, u, context["token_weight"])[:, None] * (p - torch.eye(5)[labels])
        found = qu.get(alias.name, **values)(b.logits[:180], labels, **context).gradient
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    wrong = weight(alias, alias.defaults, u, context["token_weight"])[:, None] * (1.001 * p - torch.eye(5)[labels])
    assert not torch.allclose(qu.get(alias.name)(b.logits[:180], labels, **context).gradient, wrong, rtol=1e-6, atol=0)


def test_an_alias_leads_to_its_entry_everywhere() -> None:
    assert qu.get("trsft", alpha=0.2) == qu.get("phuber_ce", tau=5)
    assert qu.get("trsft") == qu.get("phuber_ce", tau=10)
    alpha = sp.Symbol("alpha", positive=True)
    assert qu.get("trsft", alpha=alpha).params == {"tau": 1 / alpha}
    verdict = qu.compare("sft_is", "dft")
    assert (verdict.level, verdict.proved, verdict.a) == ("identical", True, "dft")
    assert qu.subsumes("phuber_ce", "trsft") is None, "a method is no special case of itself"
    assert set(ALIASES).isdisjoint(ENTRIES)
    assert set(ALIASES).isdisjoint(qu.names())


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("trsft", {"tau": 2}, "trsft: unknown parameter 'tau', expected alpha"),
        ("sft_is", {"alpha": 2}, "sft_is: unknown parameter 'alpha', expected none: it has no parameters"),
        ("trsft", {"alpha": "x"}, "trsft: parameter alpha: expected a number, got 'x'"),
        ("trsft", {"alpha": True}, "trsft: parameter alpha: expected a number, got True"),
        ("trsft", {"alpha": 0}, r"trsft, which is phuber_ce\(tau=1/alpha\): 1/alpha has no value there"),
        (
            "trsft",
            {"alpha": 2},
            r"trsft, which is phuber_ce\(tau=1/alpha\): .*expected a number in \[1, inf\), got 0.5",
        ),
    ],
)
def test_parameters_are_those_of_the_name(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qu.get(name, **given)


def test_near_matches_know_the_other_names() -> None:
    with pytest.raises(KeyError, match="unknown method 'trstf', did you mean trsft"):
        qu.get("trstf")


def test_the_command_line_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "trsft", "phuber_ce", "--set", "alpha=0.2", "--set", "tau=5", "--require", "identical"]) == 0
    assert main(["check", "trsft", "phuber_ce", "--set", "trsft.alpha=0.3", "--require", "identical"]) == 1
    capsys.readouterr()
    assert main(["show", "trsft", "--set", "alpha=0.5", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["parameters"][0]["value"]) == ("phuber_ce", 2)
    assert shown["elsewhere"] == ["trsft (tau=1/alpha)"]
    assert main(["show", "trsft", "--set", "tau=5"]) == 2
    assert "trsft: unknown parameter 'tau', expected alpha" in capsys.readouterr().err


def test_pages_and_the_glossary_name_them() -> None:
    lines = identity_lines("phuber_ce", lambda name: f"`{name}`")
    assert lines[0].startswith("Trust-region SFT (`trsft(alpha)` in TRAPO, arXiv:2512.17636")
    assert lines[0].endswith("= `phuber_ce` `(tau=1/alpha)`")
    assert all(f"`{name}`" in aliases() for name in ALIASES)
    assert elsewhere(qu.get("wga")) == ["grad_ascent (power=0)"]
    assert elsewhere(qu.get("sft")) == []
