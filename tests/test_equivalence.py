"""Known verdicts at every level, symmetry, witnesses and the command line."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import sympy as sp
import torch
from hypothesis import example, given, settings, strategies
from torch import Tensor

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.catalogue.identities import IDENTITIES, Identity, Term
from qunify.cli import main
from qunify.comparison import LEVELS, compare
from qunify.comparison._counterexamples import agree_in_decimals
from qunify.comparison._numeric import relate
from qunify.comparison._proofs import on_one_ray, proportional
from qunify.maps import QMap
from qunify.population import _known_optima
from qunify.population._separable import separable_optima
from qunify.symbolic import symbolic_gradient, vanishes_everywhere, with_names, without_names
from qunify.testing import assert_equivalent
from qunify.token import (
    SumOverOthers,
    SymbolicToken,
    SymbolicVector,
    TensorToken,
    Token,
    V,
    rational,
    sum_over_others,
)
from qunify.token._symbols import LOG_ZERO
from tests.battery import one_each


def m(name: str, **params: Any) -> QMap:
    return qu.get(name, **params)


VERDICTS = [
    ("identical", "dft", "mae", True),
    ("identical", m("gce", q=0.5), "beyond_log", True),
    ("identical", m("gce", q=0), "sft", True),
    ("identical", m("gce", q=1), "mae", True),
    ("identical", m("agce", a=0, q=0.7), "gce", True),
    ("identical", m("agce", a=3, q=1), "dft", True),
    ("identical", m("agce", a=0, q=0), "sft", True),
    ("identical", m("tailr", gamma=0), "sft", True),
    ("identical", m("tailr", gamma=1), "dft", True),
    ("identical", m("mixce", eta=0), "dft", True),
    ("identical", m("mixce", eta=1), "sft", True),
    ("identical", m("mixce", eta=0.2), m("symmetric_ce", ce_weight=0.2, rce_weight=0.2, log_zero=-4), True),
    ("identical", m("taylor_ce", order=1), "mae", True),
    ("identical", "taylor_ce", m("aue", a=2, q=2), True),
    ("identical", "chord_phi", m("aue", a=1, q=2), True),
    ("identical", m("poly1", epsilon=0), "sft", True),
    ("identical", m("talr", temperature=2, floor=0), "beyond_log", True),
    ("identical", m("talr", floor=1), "sft", True),
    ("identical", m("phuber_ce", tau=1), "mae", True),
    ("identical", m("focal", focusing=0), "sft", True),
    ("identical", m("idft", low=1, high=1), "dft", True),
    ("identical", m("mile", gamma=0), "sft", True),
    ("identical", m("gold", floor=1), "iw_sft", True),
    ("identical", m("profit", threshold=0.3), m("threshold", low=0.3), True),
    ("identical", m("gem", beta=1), "sft", True),
    ("identical", m("target_sft", eta=0), "dft", True),
    ("identical", m("kd_hybrid", mix=0), "sft", True),
    ("identical", m("kd_hybrid", mix=1), "kd", True),
    ("identical", m("taid", mix=1), "kd", True),
    ("identical", m("label_smoothing", smoothing=0), "sft", True),
    ("identical", m("jsd", beta=0), "kd", True),
    ("identical", m("jsd", beta=1), "reverse_kl", True),
    ("identical", m("skew_kl", skew=0), "kd", True),
    ("identical", m("bi_tempered", t1=1, t2=1), "sft", True),
    ("identical", m("asft", kl_weight=0), "dft", True),
    ("scaled", "gem", m("temperature_ce", temperature=0.7), True),
    ("scaled", "luffy", m("agce", a=0.1, q=-1), True),
    ("scaled", m("tailr", gamma=0.5), m("agce", a=1, q=0), True),
    ("scaled", m("bootstrap_soft", beta=0.5), m("confidence_penalty", weight=-1), True),
    ("scaled", "poly1", "mixce", True),
    ("scaled", "brier", m("bi_tempered", t1=0, t2=1), True),
    ("scaled", "dft", m("symmetric_ce", ce_weight=0), True),
    ("directional", "sft", "dft", True),
    ("directional", "gce", "beyond_log", True),
    ("directional", "sft", "focal", True),
    ("directional", m("profit", threshold=0.4), "sft", True),
    ("directional", "sft", "eaft", True),
    ("directional", "infosft", "js_noisy", True),
    ("directional", "margin_softmax", "dft", True),
    ("directional", "psft", "gold", True),
    ("optimum", "kd", "reverse_kl", True),
    ("optimum", "kd", "tvd", True),
    ("optimum", "jsd", "akl", True),
    ("optimum", "sft", "brier", True),
    ("optimum", "brier", "spherical", True),
    ("optimum", "mile", "brier", True),
    ("optimum", "beyond_log", "temperature_ce", True),
    ("optimum", "dft_undetached", "idft", False),
    ("distinct", "kd", "sft", True),
    ("distinct", "dft", "label_smoothing", True),
    ("distinct", "target_sft", "kd_hybrid", True),
    ("distinct", "gem", "confidence_penalty", True),
    ("distinct", "sft", "dft_undetached", True),
    ("distinct", "sft", "mbls", True),
    ("distinct", "sft", "unlikelihood", True),
    ("distinct", "sft", "z_loss", True),
    ("distinct", "z_loss", "squentropy", True),
    ("distinct", "topk_kd", "kd", True),
]


def test_there_are_verdicts_of_every_level() -> None:
    assert {v[0] for v in VERDICTS} == set(LEVELS)
    assert len(VERDICTS) >= 60


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


@settings(max_examples=40, deadline=None)
@example(sp.Rational(-127, 11), 1)  # of which only one is large
@given(strategies.fractions(-30, 30, max_denominator=10**5), strategies.integers(-3, 3))
def test_named_exponents_stand_for_their_numbers(c: Any, shift: int) -> None:
    """Powers with names for exponents are the same powers; and what holds of the numbers by adding up exponents holds
    of the names: u^c u^(shift − c) = u^shift."""
    u, c = SymbolicToken.p_y, sp.Rational(c)
    e = u**c + sp.exp(c) * u ** (shift - c) + (1 - u) ** (2 * c)
    assert sp.expand(without_names(with_names(e)) - e) == 0
    assert all(max(p.exp.q, abs(p.exp)) <= 12 for p in with_names(e).atoms(sp.Pow) if p.exp.is_Rational and p.exp.q > 1)
    together = sp.Mul(1 + u**c, u ** (shift - c)) - u ** (shift - c) - u**shift
    assert vanishes_everywhere(together).holds
    assert not vanishes_everywhere(together + u**c - u ** (c + sp.Rational(1, 99991))).holds


@pytest.mark.parametrize(
    "weight",
    [lambda t: 2 - t.log(t.weight), lambda t: 3 - 4 * t.log(t.weight) * t.p_label],
)
def test_the_logarithm_of_a_token_weight_has_no_sign(weight: Any) -> None:
    """The weight is negative at tokens of weight 20: no proof says that it is not."""
    own = qu.design("own", trust=weight, residual=lambda t: t.policy)
    g = own(torch.zeros(1, 2), torch.tensor([0]), token_weight=torch.tensor([20.0])).gradient
    assert g[0, 0] > 0
    verdict = compare(own, "sft")
    assert not (verdict.same_direction and verdict.proved)
    assert not verdict.same_optimum


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (m("target_sft", eta=0.5), m("target_sft", eta=0.50001)),
        (m("sft"), m("gem", beta=1.0000001)),
        (m("logit_adjustment", tau=1), m("logit_adjustment", tau=1.000001)),
        (m("bi_tempered", t2=1.4), m("bi_tempered", t2=1.400001)),
        (m("infosft", certain=0.93), m("infosft", certain=0.930001)),
        (m("sft"), m("label_smoothing", smoothing=1e-6)),
        (m("sft"), m("sft_kl", kl_weight=1e-6)),
    ],
)
def test_closed_forms_that_differ_in_a_parameter_are_two_optima(a: QMap, b: QMap) -> None:
    assert not compare(a, b).same_optimum


@pytest.mark.parametrize(
    ("a", "b", "level", "proved"),
    [
        (m("margin_softmax", margin=7.436), m("sft"), "directional", True),
        (m("temperature_ce", temperature=1.37234), m("gem", beta=1.37234), "scaled", True),
        (m("minor_sft", beta=0.695), m("sft"), "directional", True),
        (m("focal", focusing=1.37234), m("gce", q=0.4236), "directional", True),
        (m("cft"), m("minor_sft", beta=50.867), "directional", True),
        (m("ael", a=2.3105), m("forward_correction", noise=0.9906), "directional", True),
        (m("focal", focusing=2.8829), m("anti_focal", slope=1.8933, focusing=1.3664), "directional", False),
        (m("gem", beta=1 / 3), m("temperature_ce", temperature=1 / 3), "scaled", True),
        (m("beyond_log", alpha=0.4237), m("gce", q=0.4237), "identical", True),
    ],
)
def test_a_parameter_of_four_digits_or_a_long_series_has_its_verdict(
    a: QMap, b: QMap, level: str, proved: bool
) -> None:
    verdict = compare(a, b)
    assert (verdict.level, verdict.proved) == (level, proved)
    assert "exponent" not in str(verdict.steps)


def fractions_of(t: Token, way: int) -> Any:
    """A sum of twelve fractions whose common denominator has thousands of terms, added up from either end."""
    known = (t.p_label, t.prob(t.teacher), t.prob(t.reference), t.prob(t.old))
    return sum(1 / (i + 1 + known[i % 4] + (i + 2) * known[(i + 1) % 4]) for i in range(12)[::way])


def test_a_sum_of_many_fractions_is_proved_and_not_written_out() -> None:
    a = qu.design("a", trust=lambda t: fractions_of(t, 1), residual=lambda t: t.policy)
    b = qu.design("b", trust=lambda t: fractions_of(t, -1) ** 2 / fractions_of(t, 1), residual=lambda t: t.policy)
    verdict = compare(a, b)
    assert (verdict.level, verdict.proved) == ("identical", True)


def in_many_cases(t: Token) -> Any:
    weight = 1 + t.p_label
    for i, d in enumerate((t.policy, t.teacher, t.reference, t.old, t.prior)):
        u = t.prob(d)
        weight = weight + t.where(u > (i + 2) / 11, t.p_label, 2 * t.p_label) + t.where(u**2 > 1 / 5, 1, 2)
    return weight


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (m("sft"), m("taylor_ce", order=100)),
        pytest.param(
            m("sft"), qu.design("d", trust=in_many_cases, residual=lambda t: t.policy), marks=pytest.mark.slow
        ),
    ],
)
def test_a_proof_that_is_too_large_is_given_up_and_that_is_said(a: QMap, b: QMap) -> None:
    verdict = compare(a, b)
    assert (verdict.level, verdict.proved, verdict.too_large) == ("directional", False, True)
    assert str(verdict).endswith("(measured, as a proof would be too large).")


def test_witness_is_exact_and_separates() -> None:
    witness = compare("kd", "sft").witness
    assert witness is not None
    (point,) = witness.points
    assert sum(point.probs) == 1
    assert witness.fails == "directional"
    p = torch.tensor([float(x) for x in point.probs], dtype=torch.float64)
    g = qu.get("sft")(p.log(), torch.tensor(point.label)).gradient
    assert torch.allclose(g, torch.tensor(point.gradient_b, dtype=torch.float64), atol=1e-14)


def perturbed(original: QMap) -> QMap:
    """The same method with its first pull off by a thousandth of u."""

    class Perturbed(type(original)):  # type: ignore[misc]
        def pulls(self, t):  # type: ignore[no-untyped-def]
            first, *others = super().pulls(t)
            factor = 1 + t.p_label / 1000
            return [(first[0] * factor, first[1]) if isinstance(first, tuple) else first * factor, *others]

    return Perturbed(**original.params)


@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_a_copy_off_by_a_thousandth_is_never_identical(name: str) -> None:
    """The numbers decide this: without symbols among the parameters `compare` takes its level from them."""
    assert relate(qu.get(name), perturbed(qu.get(name))).level not in ("identical", "scaled")


@pytest.mark.parametrize("name", ["sft", "target_sft", "brier"])
def test_the_numbers_word_is_that_of_compare(name: str) -> None:
    assert compare(qu.get(name), perturbed(qu.get(name))).level not in ("identical", "scaled")
    assert compare(qu.get(name), qu.get(name)).level == relate(qu.get(name), qu.get(name)).level == "identical"


# ---- symbols in place of parameters ---------------------------------------------------------------------------

q, g, x = sp.symbols("q g x")


@pytest.mark.parametrize(
    ("a", "b", "level", "factor"),
    [
        (m("gce", q=q), m("beyond_log", alpha=q), "identical", 1),
        (m("luffy", gamma=g), m("agce", a=g, q=-1), "scaled", 1 / g),
        (m("tailr", gamma=g), m("agce", a=g / (1 - g), q=0), "scaled", 1 - g),
        (m("gem", beta=x), m("temperature_ce", temperature=x), "scaled", 1 / x),
        (m("bootstrap_soft", beta=x), m("confidence_penalty", weight=-(1 - x) / x), "scaled", 1 / x),
        (m("profit", threshold=x), m("threshold", low=x), "identical", 1),
        (m("gce", q=q), "dft", "directional", None),
        (m("focal", focusing=g), "sft", "directional", None),
    ],
    ids=str,
)
def test_symbolic_parameters(a: QMap, b: QMap | str, level: str, factor: Any) -> None:
    verdict = compare(a, b)
    assert (verdict.level, verdict.proved) == (level, True)
    assert (verdict.factor is None) if factor is None else sp.simplify(verdict.factor - factor) == 0


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        (m("poly1", epsilon=x), "sft", "x = −2"),
        (m("taid", mix=x), "kd", "x = 0"),
        (m("gem", beta=x), "sft", "x = 1/5"),
    ],
    ids=str,
)
def test_symbols_stand_for_ends_of_ranges_and_negative_values(a: QMap, b: str, where: str) -> None:
    verdict = compare(a, b)
    assert (verdict.level, verdict.values, verdict.proved) == ("distinct", (where,), True)
    assert str(verdict).endswith(f"teach different things, as at {where} (proved).")
    at = float(sp.Rational(where.partition(" = ")[2].replace("−", "-")))
    assert compare(a.replace(**{k: at for k, v in a.params.items() if v == x}), b).level == "distinct"


def test_a_measured_verdict_says_for_which_values_of_its_symbols() -> None:
    verdict = compare(m("taylor_ce", order=x), "sft")
    assert (verdict.level, verdict.proved) == ("directional", False)
    assert {"x = 1", "x = 40"} <= set(verdict.values)
    assert "differ in weight at x = 1; x = 40" in str(verdict)
    assert compare(m("gce", q=x), "sft").values == ()


@pytest.mark.parametrize(
    ("trust", "against", "level"),
    [
        (lambda t: t.where((t.vocab - 3) ** 2 > 0.5, t.p_label, 0 * t.p_label), "dft", "directional"),
        (lambda t: t.where(t.vocab > 200, 0 * t.p_label, t.p_label), "dft", "directional"),
        (lambda t: t.where(t.p_label < 1e-10, -1 + 0 * t.p_label, t.p_label), "dft", "opposed"),
        (lambda t: t.where(t.p_rest < 1e-10, -1 + 0 * t.p_label, t.p_label), "dft", "opposed"),
        (lambda t: 10 - t.weight, "sft", "opposed"),
        (lambda t: 6 - t.entropy(t.policy), "sft", "opposed"),
        (lambda t: 6 - t.log(t.vocab) + 0 * t.p_label, "sft", "opposed"),
    ],
)
def test_what_differs_where_no_ordinary_token_goes_is_told(trust: Any, against: str, level: str) -> None:
    """Only at V = 3, only in large vocabularies, only near certainty, only under large weights: and not where the
    gradients that the witness shows are evaluated by tensors."""
    own = qu.design("own", trust=trust, residual=lambda t: t.policy)
    verdict = compare(own, against)
    assert verdict.same_direction == (level == "directional")
    assert (verdict.level == "directional") == (level == "directional")
    assert verdict.witness is not None
    point = verdict.witness.points[-1]
    logits = torch.tensor([[float(x) for x in point.probs]], dtype=torch.float64).log()
    weight: dict[str, Any] = {k: torch.tensor([float(w)]) for k, w in point.context.items() if k == "token_weight"}
    for method, shown in ((own, point.gradient_a), (qu.get(against), point.gradient_b)):
        found = method(logits, torch.tensor([point.label]), **weight).gradient[0]
        torch.testing.assert_close(found, torch.tensor(shown, dtype=torch.float64), rtol=1e-3, atol=1e-15)
    if level == "opposed":
        assert point.gradient_a[0] * point.gradient_b[0] < 0


@pytest.mark.parametrize(
    ("b", "level"),
    [(m("profit", threshold=1e-12), "directional"), (m("poly1", epsilon=-1.000001), "distinct")],
    ids=str,
)
def test_what_differs_from_sft_near_certainty_alone_is_told(b: QMap, level: str) -> None:
    assert compare("sft", b).level == level


def test_two_methods_that_teach_nothing_are_one() -> None:
    nothing = m("profit", threshold=1)
    assert compare(nothing, m("threshold", low=1)).level == "identical"
    assert compare(nothing, "sft").level == "distinct"


def test_the_optimum_of_a_large_top_k_takes_no_table_of_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are quadratic in the vocabulary, here of 3040 tokens: none is made of more than a hundred."""
    asked: list[int] = []

    def counted(flow: Any) -> Any:
        asked.append(flow.truth.shape[-1])
        return separable_optima(flow)

    monkeypatch.setattr(_known_optima, "separable_optima", counted)
    verdict = compare("kd", m("topk_kd", k=3000, tail="drop"))
    assert (verdict.level, verdict.same_optimum) == ("distinct", False)
    assert max(asked, default=0) <= 100


def top_four(logits: Tensor, labels: Tensor, teacher_logits: Tensor, k: int = 4, most: int = 0) -> Tensor:
    """Distillation on the teacher's k likeliest tokens alone; `most` is the least k that a vocabulary may force."""
    theirs, at = teacher_logits.topk(min(k, max(most, logits.shape[-1])), -1)
    ours = logits.gather(-1, at).log_softmax(-1)
    return torch.nn.functional.kl_div(ours, theirs.log_softmax(-1), reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("b", ["kd", "reverse_kl"])
def test_what_all_tokens_are_where_there_are_four_is_no_optimum_of_more(b: str) -> None:
    """Over four tokens the four likeliest are all, and distillation on these is distillation."""
    for verdict in (compare(top_four, b), compare(b, top_four)):
        assert (verdict.level, verdict.same_optimum) == ("distinct", False)


def test_a_function_and_the_method_that_it_shares_optima_with() -> None:
    def gated(logits: Tensor, labels: Tensor) -> Tensor:
        logp = logits.log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1).detach()
        return torch.sigmoid(entropy - 2) * -logp.gather(-1, labels[:, None])[:, 0]

    verdict = compare(gated, "sft")
    assert (verdict.level, verdict.same_optimum) == ("directional", True)
    assert "5 truths over 4 tokens and one over 24" in verdict.steps[-1].plain


@pytest.mark.parametrize("ask", [lambda f: compare(f, "kd"), qu.is_proper], ids=["compare", "is_proper"])
def test_a_function_that_takes_more_tokens_than_there_are_is_told_so(ask: Any) -> None:
    def greedy(logits: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
        return top_four(logits, labels, teacher_logits, most=4)

    with pytest.raises(ValueError, match=r"with 5 tokens it ran, with 2 it does not: of a top-k take min\(k, V\)"):
        ask(greedy)


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"compare: method: expected an id of the catalogue, a QMap or a loss function"
    ):
        compare("sft", 3)  # type: ignore[arg-type]


def test_symbols_without_a_value_in_range_are_refused() -> None:
    with pytest.raises(ValueError, match="compare: no value of x that was tried is in the range of"):
        compare(m("tailr", gamma=x + 7), "sft")


def test_methods_that_differ_only_at_ties_are_equivalent_and_say_so() -> None:
    verdict = compare(m("profit", threshold=0.3), m("threshold", low=0.3))
    assert verdict.ties == ("p_y = 3/10",)
    assert "ties apart: p_y = 3/10" in str(verdict)


def test_a_claim_that_holds_in_small_vocabularies_only_is_refuted() -> None:
    verdict = compare("topk_kd", "kd")
    assert verdict.level == "distinct"
    assert verdict.witness is not None
    assert len(verdict.witness.points[0].probs) > 100
    assert compare("label_smoothing", m("label_smoothing", smoothing=0.2)).level == "distinct"


def test_a_wrong_factor_is_not_proved() -> None:
    gem, ce = m("gem"), m("temperature_ce", temperature=0.7)
    assert proportional(gem, ce, (), sp.Rational(10, 7)) is not None
    assert proportional(gem, ce, (), sp.Rational(10, 8)) is None
    assert agree_in_decimals(gem, ce, sp.Rational(10, 7), ())
    assert not agree_in_decimals(gem, ce, sp.Rational(10, 7) + sp.Rational(1, 10**30), ())
    assert on_one_ray(m("sft"), m("dft_undetached"), ()) is None


def proved(claim: Identity) -> bool:
    """Whether left and right of an identity of the catalogue are shown to be equal, for every vocabulary size."""
    alias = tuple(sorted(claim.given.items()))
    names: dict[str, Any] = {k: sp.Symbol(k, positive=True) for k in claim.free}
    t = SymbolicToken()
    names |= {"u": t.p_y, "V": V, "tea_y": t.prob(t.teacher), "sum_p2": t.sum(t.policy.probs**2)}

    def value(expression: Any) -> Any:
        if isinstance(expression, str):
            return sp.sympify(expression, locals=names)
        return rational(expression) if isinstance(expression, float) else expression

    def scaled(term: Term) -> SymbolicVector:
        m = ENTRIES[term.name](**{k: value(v) for k, v in term.params.items()})
        return symbolic_gradient(m, alias) * value(term.factor)

    difference = scaled(claim.left)
    for term in claim.right:
        difference = difference - scaled(term)
    if "label" in claim.given.values():
        difference = difference.apply(_without_ruled_out)
    return vanishes_everywhere(difference.label, difference.elsewhere).holds


def _without_ruled_out(e: sp.Expr) -> sp.Expr:
    """Positive powers of a probability that is zero are zero."""
    left = e.replace(lambda x: isinstance(x, sp.exp) and x.has(LOG_ZERO), lambda _: sp.S.Zero)
    return left.replace(SumOverOthers, sum_over_others)


@pytest.mark.parametrize("claim", IDENTITIES, ids=lambda i: f"{i.left.name}={i.right[0].name}")
def test_every_identity_of_the_catalogue_is_proved(claim: Identity) -> None:
    assert proved(claim)
    wrong = dataclasses.replace(claim, left=dataclasses.replace(claim.left, factor="11/10"))
    assert not proved(wrong)


# ---- laws -----------------------------------------------------------------------------------------------------

NAMES = strategies.sampled_from(sorted(ENTRIES))


@pytest.mark.slow
@settings(max_examples=25)
@given(NAMES, NAMES)
def test_compare_is_symmetric(a: str, b: str) -> None:
    there, back = compare(a, b), compare(b, a)
    assert (there.level, there.same_direction, there.same_optimum) == (
        back.level,
        back.same_direction,
        back.same_optimum,
    )
    assert (there.silent_a, there.silent_b) == (back.silent_b, back.silent_a)
    if there.factor is not None:
        assert sp.simplify(there.factor * back.factor) == 1


def test_identical_and_scaled_are_transitive() -> None:
    """All are found equal to dft, or to four times it; so each must be to each other."""
    equal: list[str | QMap] = ["mae", m("agce", a=3, q=1), m("mixce", eta=0)]
    fourfold = m("symmetric_ce", ce_weight=0)
    assert {compare("dft", other).level for other in equal} == {"identical"}
    assert {compare(a, b).level for a, b in itertools.combinations(equal, 2)} == {"identical"}
    assert {compare(other, fourfold).level for other in ["dft", *equal]} == {"scaled"}
    assert {compare(other, fourfold).factor for other in ["dft", *equal]} == {4}


def test_directional_is_not_transitive() -> None:
    """What is silent on a token shares every ray there."""
    above = m("threshold", low=0.5)
    other = qu.design("other", trust=lambda t: t.where(t.p_label < 0.5, 0.9, 1), residual=lambda t: t.uniform)
    assert compare("sft", above).level == compare(above, other).level == "directional"
    assert not compare("sft", other).same_direction


@pytest.mark.slow
@settings(max_examples=15)
@given(strategies.sampled_from(["sft", "dft", "gem", "label_smoothing", "brier"]), strategies.permutations(range(5)))
def test_renaming_the_vocabulary_changes_nothing(name: str, order: list[int]) -> None:
    """A loss that permutes the vocabulary before it calls a method is that method."""
    original, at = qu.get(name), torch.tensor(order)

    def renamed(logits: Tensor, labels: Tensor) -> Tensor:
        size = logits.shape[-1]
        whole = torch.cat([at, torch.arange(5, size)]) if size > 5 else torch.arange(size)
        back = whole.argsort()
        t = TensorToken(logits[:, whole], back[labels], {})
        return original.loss(t)[:, 0]

    assert compare(renamed, original).level == "identical"


@pytest.mark.slow
@settings(max_examples=15)
@given(NAMES, strategies.floats(0.1, 30))
@example("logit_std_kd", 1.7617293973514663)  # whose formula is 0/0 at a uniform token
@example("antiop", 0.7)  # which is tried on batches of two kinds
def test_a_scaled_copy_is_scaled(name: str, factor: float) -> None:
    original = qu.get(name)

    class Times(type(original)):  # type: ignore[misc]
        def pulls(self, t):  # type: ignore[no-untyped-def]
            return [(p[0] * factor, p[1]) if isinstance(p, tuple) else p * factor for p in super().pulls(t)]

    verdict = compare(original, Times(**original.params))
    assert verdict.meets("scaled")
    assert verdict.factor is not None
    assert abs(float(verdict.factor) - factor) < 1e-6 * factor


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
    both = ["compare", "kd_hybrid", "sft_kl", "--set", "kd_hybrid.mix=0.5", "--set", "sft_kl.kl_weight=1", "--json"]
    assert main([*both, "--alias", "reference_logits=teacher_logits"]) == 0
    assert json.loads(capsys.readouterr().out)["factor"] == "2"
    assert main([*both, "--alias", "reference=teacher_logits"]) == 2
    assert "compare: alias: expected names among" in capsys.readouterr().err
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
