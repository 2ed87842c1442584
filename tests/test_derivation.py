"""Every loss gives its pulls, for every V: proved by symbols, and the proof itself checked."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import sympy as sp

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.cli import main
from qunify.maps import QMap
from qunify.symbolic import loss_to_pulls, runs_on_symbols, with_fractions
from qunify.symbolic._gradients import gradient_of_loss
from qunify.symbolic._loss_to_pulls import OFF_TIES, prove
from qunify.symbolic._loss_to_pulls import steps as steps_
from qunify.symbolic._normal_form import vanishes
from qunify.token import LSE, SumOverOthers, SymbolicToken, V, evaluate, is_mask, per_token
from tests.battery import HARMLESS, entries_that_stop, every_setting, one_each, with_pulls

#: Entries that are proved at their default parameters and examples, but not with symbols in place of numbers, and why.
ONLY_AT_NUMBERS = {
    "psft": "which of the bounds 1 − ε and 1 + ε comes first is known of numbers only",
    "infosft": "that logit(u) < logit(P) is u < P is found for numbers only",
    "jsd": "the partial fractions of sums over a mixture are found for numbers only",
}


def general(m: QMap) -> QMap:
    """The same method with positive symbols for its real parameters."""
    return m.replace(**{k: sp.Symbol(k, positive=True) for k, v in m.params.items() if isinstance(v, float)})


@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_the_loss_gives_the_pulls_for_every_vocabulary(name: str) -> None:
    proof = prove(qu.get(name))
    assert proof.holds
    assert bool(proof.open_ties) == (name in OFF_TIES)


#: More than RANKED tokens in order: compared by numbers, as `test_conformance` does with these.
BEYOND_SYMBOLS = {"logistic_ranking,k=20", "hinge_ranking,k=20"}


@pytest.mark.slow
@pytest.mark.parametrize("m", [c for c in every_setting() if c.id not in {*ENTRIES, *BEYOND_SYMBOLS}])
def test_at_every_example_setting(m: QMap) -> None:  # the defaults are proved above
    assert prove(m).holds


def test_an_order_of_many_tokens_is_compared_by_numbers() -> None:
    """Pairs of five take symbols minutes."""
    for case in every_setting():
        if case.id in BEYOND_SYMBOLS:
            (m,) = case.values
            assert not runs_on_symbols(m)
            with pytest.raises(NotImplementedError, match="in symbols up to 4 tokens, got the one of rank 5"):
                prove(m)
            assert not qu.compare(m, m).proved
    assert runs_on_symbols(qu.get("hinge_ranking", k=4))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ENTRIES if any(isinstance(v, float) for v in qu.get(n).params.values())])
def test_with_symbols_for_parameters(name: str) -> None:
    try:
        proved = prove(general(qu.get(name))).holds
    except TypeError:  # a condition on the parameters that symbols do not decide
        proved = False
    assert proved == (name not in ONLY_AT_NUMBERS)


# ---- the proof can fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", one_each(entries_that_stop()))
def test_a_deleted_stop_gradient_is_not_proved(name: str) -> None:
    with mock.patch.object(SymbolicToken, "stop", lambda _, x: x):
        assert prove(qu.get(name)).holds == (name in HARMLESS)


@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_a_perturbed_weight_is_not_proved(name: str) -> None:
    m, factor = qu.get(name), 1 + SymbolicToken().p_label / 1000

    def perturbed(pulls: list[Any]) -> list[Any]:
        first, *others = pulls
        return [(first[0] * factor, first[1]) if isinstance(first, tuple) else first * factor, *others]

    with with_pulls(m, perturbed):
        assert not prove(m).holds


def test_a_failed_proof_gives_its_reason() -> None:
    with mock.patch.object(SymbolicToken, "stop", lambda _, x: x):
        found = loss_to_pulls(qu.get("dft"))
    assert not found.proved
    assert found.reason == "the gradient less the pulls does not reduce to zero"
    assert found.steps[-1].plain.startswith("h_k"), "no conclusion"


# ---- symbols.gradient against a loss that is written out and differentiated directly ------------------------


def written_out(expr: Any, size: int) -> sp.Expr:
    """The expression for a vocabulary of this size, the label token 0: every sum summand by summand."""
    expr = sp.sympify(expr)
    if isinstance(expr, SumOverOthers):
        return sp.Add(*[at(written_out(expr.args[0], size), j) for j in range(1, size)])
    if expr.is_Atom:
        return sp.Integer(size) if expr == V else expr
    return expr.func(*[written_out(a, size) for a in expr.args])


def at(expr: sp.Expr, j: int) -> sp.Expr:
    return expr.xreplace({s: entry(s, j) for s in expr.free_symbols if s.name.endswith("_k")})


def entry(symbol: sp.Symbol, j: int) -> sp.Symbol:
    name = symbol.name.removesuffix("_k").removesuffix("_y")
    return sp.Symbol(f"{name}_{j if j else 'y'}", **symbol.assumptions0)


def rationals(names: Sequence[sp.Symbol], size: int) -> dict[sp.Symbol, Any]:
    """Explicit fractions: distributions that sum to one, masks of 0 and 1."""
    r = random.Random(size)
    point: dict[sp.Symbol, Any] = {}
    for s in sorted(names, key=str):
        stem = s.name.rpartition("_")[0]
        if stem and s.is_positive:
            counts = [r.randint(1, 30) for _ in range(size)]
            point |= {
                entry(s.func(f"{stem}_k", **s.assumptions0), j): sp.Rational(c, sum(counts))
                for j, c in enumerate(counts)
            }
        elif is_mask(s):
            point |= {entry(s.func(f"{stem}_k", **s.assumptions0), j): sp.Integer((j + 1) % 2) for j in range(size)}
        else:
            point[s] = sp.Rational(-5 if s.is_negative else 2, 3)
    return point


WRITTEN_OUT = (
    "sft", "dkd", "reverse_kl", "skew_kl", "spherical", "mbls", "logit_norm", "unlikelihood", "tvd", "todi", "gem",
    "z_loss", "squentropy",
)  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("name", one_each(WRITTEN_OUT))
def test_gradient_agrees_with_direct_differentiation(name: str, size: int) -> None:
    m, t = with_fractions(qu.get(name)), SymbolicToken()
    loss = sp.sympify(m.loss(t))
    claimed = gradient_of_loss(loss, t.predictions.values())
    flat = written_out(loss, size)
    p = [entry(t.p_k, j) for j in range(size)]
    slopes = [evaluate(flat.diff(x)) for x in p]
    point = rationals([s for s in loss.free_symbols if s != V], size)
    expected = p[0] * (slopes[0] - sum(x * c for x, c in zip(p, slopes, strict=True)))
    expected += p[0] * evaluate(flat.diff(LSE))
    # Each side for itself: of a difference that is zero SymPy would look for ever more digits.
    found, expected = (sp.N(e.xreplace(point), 40) for e in (written_out(claimed.label, size), expected))
    assert abs(found - expected) < sp.Float("1e-30")


# ---- the normal form -----------------------------------------------------------------------------------------

x_y, x_k = per_token("x")
t_y, t_k = per_token("tea")
a = sp.Symbol("a", positive=True)


@pytest.mark.parametrize(
    "zero",
    [
        SumOverOthers(x_k**2 / (x_k + t_k)) + SumOverOthers(x_k * t_k / (x_k + t_k)) - (1 - x_y),
        sp.sqrt(x_y) * x_y ** sp.Rational(3, 2) - x_y**2,
        (2 - x_y) ** sp.Rational(1, 2) * (2 - x_y) ** sp.Rational(3, 2) - (2 - x_y) ** 2,
        x_y ** (a - 1) * x_y - x_y**a,
        sp.log(x_y / (1 - t_y)) - sp.log(3 * x_y) + sp.log(3 - 3 * t_y),
        sp.exp(a * sp.log(x_y) + t_y) - x_y**a * sp.exp(t_y),
    ],
)
def test_identities_vanish(zero: sp.Expr) -> None:
    assert vanishes(zero)
    assert not vanishes(zero + sp.Rational(1, 10**12))
    assert not vanishes(zero + x_y * t_y / 10**12)


# ---- what is shown -------------------------------------------------------------------------------------------


def test_the_steps_go_from_the_loss_to_the_difference() -> None:
    found = loss_to_pulls(qu.get("dft"))
    assert found.proved
    assert (found.holds_off_ties, found.reason) == (False, "")
    assert found.steps[0].latex == qu.get("dft").formula
    assert found.steps[-1].plain == "g_y − h_y = 0 and g_k − h_k = 0"
    written = [step.plain for step in found.steps]
    assert "∂L/∂p_y = −c/p_y" in written
    assert "h_k = p_k p_y" in written


def test_ties_are_named() -> None:
    found = loss_to_pulls(qu.get("psft"))
    assert found.holds_off_ties
    assert OFF_TIES["psft"] in found.steps[-1].words


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "jsd", "bi_tempered"])
def test_show_derives(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--derive"]) == 0
    page = capsys.readouterr().out
    assert page.rstrip().endswith("Proved.")
    assert "\\" not in page, "a terminal reads no LaTeX"
    assert main(["show", name, "--derive", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["derivation"]["steps"]
    assert steps[0]["latex"] == qu.get(name).formula


@pytest.mark.slow
def test_only_the_standardised_logits_are_too_long_to_write_out() -> None:
    written = {n: str(steps_(qu.get(n))) for n in ("logit_std_kd", "logit_norm", "akl")}
    cut = [n for n, steps in written.items() if "not written out" in steps]
    assert cut == ["logit_std_kd", "logit_norm"]
