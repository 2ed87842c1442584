"""Special cases and limits: found, proved, and not found where there are none."""

from __future__ import annotations

from typing import Any

import pytest
import sympy as sp
import torch

import qunify as qu
from qunify.comparison import Bindings, subsumes
from qunify.comparison._ranges import Condition
from tests.battery import batch

gamma, q, alpha, epsilon, V = sp.symbols("gamma q alpha epsilon V")
eta, beta, temperature, noise = sp.symbols("eta beta temperature noise")
VOCAB = sp.Symbol("V", integer=True, positive=True)

#: (general, special, bindings, factor)
CASES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("beyond_log", "sft", {"alpha": 0}, 1),
    ("gem", "sft", {"beta": 1}, 1),
    ("target_sft", "dft", {"eta": 0}, 1),
    ("agce", "sft", {"a": 0, "q": 0}, 1),
    ("agce", "gce", {"a": 0, "q": q}, 1),
    ("agce", "luffy", {"a": gamma, "q": -1}, gamma),
    ("agce", "tailr", {"a": gamma / (1 - gamma), "q": 0}, 1 / (1 - gamma)),
    ("agce", "forward_correction", {"a": noise / ((1 - noise) * VOCAB), "q": 0}, 1),
    (
        "tailr",
        "forward_correction",
        {"gamma": noise / (noise + (1 - noise) * VOCAB)},
        (1 - noise) * VOCAB / (noise + (1 - noise) * VOCAB),
    ),
    ("talr", "gce", {"temperature": 1 / q, "floor": 0}, 1),
    ("aue", "chord_phi", {"a": 1, "q": 2}, 1),
    ("poly1", "mixce", {"epsilon": (1 - eta) / eta}, eta),
    ("temperature_ce", "gem", {"temperature": beta}, beta),
    ("confidence_penalty", "bootstrap_soft", {"weight": (beta - 1) / beta}, beta),
    ("bi_tempered", "brier", {"t1": 0, "t2": 1}, 2),
    ("kd_hybrid", "kd", {"mix": 1}, 1),
    ("jsd", "reverse_kl", {"beta": 1}, 1),
    ("mbls", "sft", {"weight": 0, "margin": 10}, 1),
    ("threshold", "profit", {"low": sp.Symbol("threshold"), "high": 1, "base": "log"}, 1),
]


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, str):
        return bool(found == expected)
    return sp.simplify(sp.sympify(found) - sp.sympify(expected)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("general", "special", "values", "factor"), CASES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_special_cases_are_found_and_proved(general: str, special: str, values: dict[str, Any], factor: Any) -> None:
    found = subsumes(general, special)
    assert found is not None
    assert (found.proved, found.limit) == (True, False)
    assert found.keys() == values.keys()
    assert all(same(found[k], v) for k, v in values.items()), found
    assert same(found.factor, factor)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("general", "special", "parameter", "end", "factor"),
    [
        ("luffy", "mae", "gamma", sp.oo, gamma),
        ("ael", "mae", "a", sp.oo, sp.Symbol("a")),
        ("phuber_ce", "sft", "tau", sp.oo, 1),
        ("js_noisy", "sft", "prior", 0, 1),
        ("js_noisy", "mae", "prior", 1, 1),
        ("infosft", "dft", "certain", 1, 1),
        ("minor_sft", "sft", "beta", 0, 2 / beta),
    ],
)
def test_limits_are_found_and_proved(general: str, special: str, parameter: str, end: Any, factor: Any) -> None:
    found = subsumes(general, special)
    assert found is not None
    assert (found.limit, found.proved) == (True, True)
    assert found[parameter] == end
    assert str(sp.simplify(found.factor)) == str(sp.simplify(factor))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("general", "special"),
    [
        ("focal", "dft"),
        ("gce", "talr"),
        ("agce", "kd"),
        ("kd", "sft"),
        ("sft", "dft"),
        ("dft", "dft"),
        ("kd", "z_loss"),
    ],
)
def test_nothing_is_found_where_there_is_nothing(general: str, special: str) -> None:
    assert subsumes(general, special) is None


def test_a_limit_is_found_near_which_large_terms_cancel() -> None:
    """(a^α − b^α)/α is known to a few digits alone where α is nearly 0."""
    found = subsumes("abkd", "reverse_kl")
    assert found is not None
    assert (found.limit, found["alpha"], found["beta"], found.factor) == (True, 0, 1, 1)


def test_what_holds_in_small_vocabularies_only_is_a_limit() -> None:
    found = subsumes("topk_kd", "kd")
    assert found is not None
    assert found.limit
    assert found["k"] == sp.oo


def test_bindings_make_the_gradients_equal() -> None:
    """On tokens that were not searched."""
    found = subsumes("agce", "tailr")
    assert found is not None
    b = batch(24)
    point = {gamma: 0.4}
    general = qu.get("agce", **{k: float(sp.sympify(v).subs(point)) for k, v in found.items()})
    special = qu.get("tailr", gamma=0.4)
    scaled = float(found.factor.subs(point)) * general(b.logits, b.labels).gradient
    torch.testing.assert_close(scaled, special(b.logits, b.labels).gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("general", "special", "where"),
    [
        ("mixce", "poly1", epsilon >= 0),
        ("symmetric_ce", "poly1", epsilon >= 0),
        ("talr", "gce", q > 0),
        ("idft", "gce", q >= 0),
        ("agce", "tailr", gamma < 1),
        ("gce", "beyond_log", sp.true),
    ],
)
def test_bindings_say_where_they_are_in_range_and_positive(general: str, special: str, where: Any) -> None:
    """Within the condition they make the gradients equal, outside it they are refused or have another factor."""
    found = subsumes(general, special)
    assert found is not None
    assert found.where == where
    assert (f" where {next(iter(where.free_symbols), '')}" in str(found)) == (where != sp.true)
    b = batch(5)
    for value in (-1.5, -0.5, 0.0, 0.25, 1.0, 3.0):
        point = {sp.Symbol(f.name): value for f in qu.get(special).parameters()}
        try:
            m = qu.get(special, **{str(k): v for k, v in point.items()})
        except ValueError:  # out of the special method's own range
            continue
        values = {k: sp.sympify(v).subs(point) for k, v in found.items()}
        factor = found.factor.subs(point)
        if found.where.subs(point) == sp.true:
            scaled = (
                float(factor) * qu.get(general, **{k: float(v) for k, v in values.items()})(b.logits, b.labels).gradient
            )
            torch.testing.assert_close(scaled, m(b.logits, b.labels).gradient, rtol=1e-9, atol=1e-12)
            assert factor > 0
        else:
            with pytest.raises((ValueError, TypeError)):  # out of range, or infinite
                qu.get(general, **{k: float(v) for k, v in values.items()})


def test_a_whole_number_that_comes_nearer_without_end_is_given_up() -> None:
    """The more tokens slips are drawn from, the nearer `posterior` is to SFT: there is no last one to find. Where there
    are no slips, how many there are does not matter."""
    assert str(subsumes("posterior", "sft")) == "sft = posterior(noise → 0) (measured)"


def test_values_that_are_never_in_range_are_no_special_case() -> None:
    found = {"eta": 1 + q**2}
    assert Condition(qu.get("mixce").__class__, qu.get("gce"), ("q",), found, sp.S.One).in_words() == (sp.Eq(q, 0))
    assert (
        Condition(qu.get("mixce").__class__, qu.get("gce"), ("q",), {"eta": 2 + q**2}, sp.S.One).in_words() == sp.false
    )


def test_ties_of_a_special_case_are_named() -> None:
    found = subsumes("threshold", "profit")
    assert found is not None
    assert found.ties == ("p_y = threshold",)
    assert str(found).endswith(", ties apart: p_y = threshold")


def test_a_setting_of_ones_own() -> None:
    assert dict(subsumes("agce", qu.get("luffy", gamma=0.25)) or {}) == {"a": sp.Rational(1, 4), "q": -1}


def test_bindings_read_as_a_sentence() -> None:
    assert str(subsumes("agce", "luffy")) == "luffy = gamma · agce(a=gamma, q=-1)"
    assert str(subsumes("js_noisy", "sft")) == "sft = js_noisy(prior → 0)"
    smoothed = subsumes("agce", "forward_correction")
    assert str(smoothed) == "forward_correction = agce(a=noise/(V*(1 - noise)), q=0) where noise < 1"
    assert isinstance(subsumes("beyond_log", "sft"), Bindings)
    with pytest.raises(KeyError, match="did you mean agce"):
        subsumes("agcee", "sft")
    with pytest.raises(ValueError, match="subsumes: method: expected an id of the catalogue"):
        subsumes("agce", 5)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError,
        match=r"subsumes: special: expected an id or a QMap; .* and qunify.design makes a QMap",
    ):
        subsumes("agce", lambda logits, labels: logits.sum(-1))
    half = qu.design("half", trust=lambda t: t.p_label, residual=lambda t: t.uniform)
    with pytest.raises(ValueError, match="subsumes: general: expected a class that says in which range"):
        subsumes(half, "sft")
