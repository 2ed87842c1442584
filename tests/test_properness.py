"""Properness: every entry decided, against independent reasoning, descent, and formulas evaluated on numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import sympy as sp
import torch
from torch import Tensor

import qunify as qu
from qunify import catalogue
from qunify._lib.tolerances import ROUNDING
from qunify.catalogue import ENTRIES
from qunify.population import _drift_at_truth as miscalibration
from qunify.population._drift_at_truth import calibrated
from qunify.population._properness import Biased, NotConcave, _refuted
from qunify.population._symbolic_drift import Entangled, symbolic_bias
from qunify.symbolic import SumOverAll
from tests.battery import one_each
from tests.test_population import DISTRIBUTIONS, context, descended

STRICT = {"unbiased": True, "attracts": True, "proper": True, "strict": True, "direction": "none"}
DETACHED = {"unbiased": True, "attracts": True, "proper": False, "strict": False, "direction": "none"}


def biased(direction: str) -> dict[str, Any]:
    return {"unbiased": False, "attracts": False, "proper": False, "strict": False, "direction": direction}


#: Reasoned out by hand. A gate's drift at the truth is p ∘ (w − ⟨p, w⟩): weights that rise with u sharpen.
EXPECTED: dict[str, dict[str, Any]] = {
    "sft": STRICT,
    "brier": STRICT,  # the quadratic score
    "spherical": STRICT,
    "iw_sft": STRICT,  # a positive constant times the log score
    "cft": STRICT,
    "threshold": STRICT,  # at its defaults it keeps every token
    "eaft": DETACHED,  # the weight does not look at the label
    "mile": DETACHED,
    "dft": biased("sharpening"),
    "mae": biased("sharpening"),
    "gce": biased("sharpening"),
    "beyond_log": biased("sharpening"),
    "poly1": biased("sharpening"),
    "mixce": biased("sharpening"),
    "tailr": biased("sharpening"),
    "symmetric_ce": biased("sharpening"),
    "forward_correction": biased("sharpening"),
    "phuber_ce": biased("sharpening"),
    "profit": biased("sharpening"),
    "ael": biased("sharpening"),  # u exp(−u/a) rises on [0, 1] for a > 1
    "chord_phi": biased("sharpening"),  # p(1 − p) − q(1 − q) = (p − q)(1 − p − q), and p + q ≤ 1
    "bootstrap_hard": biased("sharpening"),
    "bootstrap_soft": biased("sharpening"),  # it lowers the entropy
    "temperature_ce": biased("sharpening"),  # p* ∝ η²
    "margin_softmax": biased("sharpening"),
    "confidence_penalty": biased("flattening"),
    "gem": biased("flattening"),  # p* ∝ η^0.7
    "mbls": biased("flattening"),
    "sparsemax": biased("flattening"),  # p* = softmax(η)
    "entmax15": biased("flattening"),
    "label_smoothing": biased("toward uniform"),
    "sft_kl": biased("toward the reference"),
    "kd": biased("toward the teacher"),
    "kd_hybrid": biased("toward the teacher"),
    "reverse_kl": biased("toward the teacher"),
    "jsd": biased("toward the teacher"),
    "tvd": biased("toward the teacher"),
    "target_sft": biased("sharpening and toward the teacher"),
    "asft": biased("sharpening and toward the reference"),
    "unlikelihood": biased("away from the negative tokens"),
    "logit_adjustment": biased("away from tokens the prior favours"),
    "gold": biased("toward tokens the old policy favours"),
    "luffy": biased("mixed"),  # its weight rises up to u = γ and falls from there
    "z_loss": biased("no target"),
    "logit_norm": biased("no target"),
    "squentropy": biased("no target"),
}


def said(verdict: qu.Properness) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in STRICT}


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_verdicts(name: str) -> None:
    assert said(qu.is_proper(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_every_entry_is_decided_and_its_verdict_holds_together(name: str) -> None:
    v = qu.is_proper(qu.get(name))
    assert v.proved == (not ENTRIES[name].pools), "what sequences have in common is measured"
    assert v.unbiased == (v.direction == "none") == (v.reason != "it is biased" and v.direction != "no target")
    assert v.unbiased or not (v.attracts or v.proper)
    assert v.strict <= v.proper <= (v.reason == "")
    assert (v.bias is None) == (v.formula is None)
    assert v.unbiased == (v.witness is None)
    assert (v.through_link is None) == (ENTRIES[name].link == "softmax")


@pytest.mark.parametrize("name", ["temperature_ce", "sparsemax", "entmax15", "bi_tempered"])
def test_other_links_are_calibrated_through_themselves(name: str) -> None:
    v = qu.is_proper(name).through_link
    assert v is not None
    assert v.link == qu.get(name).link
    assert said(v) == STRICT
    assert v.proved


def test_a_link_is_declared_exactly_where_the_prediction_is_another() -> None:
    for name in ENTRIES:
        c = calibrated(qu.get(name), 4, 6, spread=(1, 2), through_link=True)
        assert torch.allclose(c.flow.truth, c.probs) == (ENTRIES[name].link == "softmax"), name


# ---- the same by other means ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sft", "brier", "spherical", "eaft", "mile", "gce", "gem", "focal", "label_smoothing", "sparsemax"]
)
def test_descent_stays_at_the_truth_exactly_where_a_method_is_unbiased(name: str) -> None:
    truth = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    start = truth.log()[None] + torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64)
    trained = descended(name, truth, context(3, 4), start, 1.0, 600)[0]
    assert bool((trained - truth).abs().max() < 1e-6) == qu.is_proper(name).unbiased


@pytest.mark.slow
def test_gradient_ascent_is_unbiased_and_runs_away() -> None:
    ascent = qu.design("ascent", trust=lambda t: -1, residual=lambda t: t.policy)
    v = qu.is_proper(ascent)
    assert (v.unbiased, v.proved, v.attracts, v.proper, v.strict) == (True, True, False, False, False)
    assert "does not attract" in str(v)
    assert not bool(qu.optimum(ascent, [0.5, 0.3, 0.2], start=[0.4, 0.4, 0.2]).exists)


@pytest.mark.parametrize("size", [1e5, 1e-30])
def test_an_exact_drift_is_judged_by_the_size_of_its_gradients(size: float) -> None:
    """A weight that the label does not enter leaves a calibrated model alone, whatever its size; smoothing does not."""
    even = qu.design("even", trust=lambda t: size * t.entropy(t.policy), residual=lambda t: t.policy)
    assert _refuted(even) is None
    smoothed = qu.get("symmetric_ce", ce_weight=0, rce_weight=size)
    drift = _refuted(smoothed)
    assert drift is not None
    assert max(map(abs, drift.drift)) > 1e-3 * size


def test_a_loss_that_is_unbiased_and_not_concave_shows_where() -> None:
    def unlearn(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]

    v = qu.is_proper(unlearn)
    assert (v.unbiased, v.proved, v.attracts, v.proper) == (True, False, False, False)
    w = v.witness
    assert isinstance(w, NotConcave)

    def own(p: tuple[Fraction, ...]) -> float:  # G(p) = Σ p log p
        return sum(float(x) * float(sp.log(x)) for x in p)

    middle = tuple(w.share * a + (1 - w.share) * b for a, b in zip(w.p, w.q, strict=True))
    chord = float(w.share) * own(w.p) + float(1 - w.share) * own(w.q)
    assert chord - own(middle) == pytest.approx(w.gap)
    assert w.gap > 0


def test_proper_and_not_strictly() -> None:
    """The squared error of one token's probability is least at its truth, however the others share the rest."""

    def of_one_token(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.softmax(-1)[:, 0] - (labels == 0).to(logits.dtype)).square()

    for loss in (of_one_token, lambda logits, labels: 0 * logits.sum(-1)):
        v = qu.is_proper(loss)
        assert (v.unbiased, v.proper, v.strict) == (True, True, False)
        assert "is proper, not strictly" in str(v)


def test_a_bias_too_small_to_measure_is_refuted_in_fractions() -> None:
    v = qu.is_proper(qu.get("poly1", epsilon=1e-10))
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = 1e-10 * (p**2 - p * (p**2).sum())  # that of ε u, by hand: below what counts as rounding in floats
    assert expected.abs().max() < ROUNDING
    assert (v.unbiased, v.proper, v.proved) == (False, False, True)
    assert isinstance(v.witness, Biased)
    assert v.witness.truth == (Fraction(1, 2), Fraction(3, 10), Fraction(1, 5))
    assert v.witness.drift == pytest.approx(expected.tolist(), rel=1e-9)


def test_a_loss_that_is_detached_at_some_tokens_is_detached() -> None:
    """Where the model is sure it trusts half: a weight that no label changes leaves the truth alone."""
    v = qu.is_proper(
        qu.design("sure", trust=lambda t: t.where(t.entropy(t.policy) < 1, 0.5, 1.0), residual=lambda t: t.policy)
    )
    assert (v.unbiased, v.attracts, v.proper, v.strict) == (True, True, False, False)
    assert "detached" in v.reason


def test_somebodys_functions() -> None:
    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return -logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]

    def squared_logits(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels) + logits.square().mean(-1)

    v = qu.is_proper(cross_entropy)
    assert said(v) == STRICT
    assert not v.proved
    assert qu.is_proper(squared_logits).direction == "no target"
    assert qu.is_proper(lambda z, y: -cross_entropy(z, y).neg().exp()).direction == "sharpening"


def test_designed_methods() -> None:
    plain = qu.design("plain", trust=lambda t: 1, residual=lambda t: t.policy)
    assert said(qu.is_proper(plain)) == STRICT
    half = qu.design("half", trust=lambda t: t.p_label, residual=lambda t: t.uniform)
    assert qu.is_proper(half).direction == "flattening"


def test_parameters_change_the_verdict() -> None:
    assert said(qu.is_proper(qu.get("gce", q=0))) == STRICT
    assert qu.is_proper(qu.get("gce", q=-0.5)).direction == "flattening"
    assert qu.is_proper(qu.get("gem", beta=2)).direction == "sharpening"
    assert said(qu.is_proper(qu.get("logit_adjustment", tau=0))) == STRICT
    assert qu.is_proper(qu.get("eaft", top_k=3)).unbiased


# ---- the formula ----------------------------------------------------------------------------------------------


def evaluated(expr: sp.Expr, values: dict[str, Tensor]) -> Tensor:
    """An expression at k on numbers, (V,): sums over all tokens first, from the inside out."""
    while inner := [a for a in expr.atoms(SumOverAll) if not a.args[0].has(SumOverAll)]:
        sums = {a: (evaluated(a.args[0], values) + torch.zeros_like(values["p_k"])).sum() for a in inner}
        expr = expr.xreplace({a: sp.Float(float(x), 30) for a, x in sums.items()})
    names = sorted(expr.free_symbols, key=str)
    f = sp.lambdify(names, expr, "numpy")
    return torch.as_tensor(f(*[values[s.name].numpy() for s in names])) + torch.zeros_like(values["p_k"])


def surroundings(m: qu.QMap, p: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
    v = len(p)
    flow = miscalibration.Flow(m, p[None], {})
    t = flow.token(p.log()[None], torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    short = {"reference_logits": "ref_k", "teacher_logits": "tea_k", "old_logits": "old_k", "prior_logits": "prior_k"}
    short |= {"teacher_base_logits": "base_k"}
    values = {short[name]: torch.softmax(given[name], -1) for name in DISTRIBUTIONS}
    values |= {"p_k": p, "neg_k": given["negative_mask"].double(), "w": given["token_weight"], "c": given["token_mask"]}
    values |= {"val_k": given["token_values"], "num_k": torch.ones(v, dtype=torch.float64)}
    values |= {
        "V": torch.tensor(v, dtype=torch.float64),
        "argmax0_k": t.argmax(t.policy).probs[0],
        "top0_k": t.in_top_k(t.distribution(values["tea_k"][None]), 3)[0],
        "place0_k": t.ranks(t.policy)[0],
        "sorted0_k": t.in_order_of(t.distribution(values["tea_k"][None]), t.policy)[0],
    }
    if m.name in ("sparsemax", "entmax15", "bi_tempered"):
        values |= dict.fromkeys(("entmax0_k", "tempered0_k"), m.prediction(t).probs[0])
    return values


#: Entries whose bias is too long to read, and one of which each label has a runner-up of its own.
TOO_LONG = {
    "dppo_kl", "ihl", "idft", "akl", "logit_std_kd", "infosft", "todi", "bdkd", "tad", "student_topk_jsd",
    "logistic_ranking", "hinge_ranking", "ntl_was",
}  # fmt: skip


@pytest.mark.parametrize("name", one_each(n for n in ENTRIES if ENTRIES[n].shift_invariant and not ENTRIES[n].pools))
def test_the_formula_is_the_drift(name: str) -> None:
    m = qu.get(name, **({"k": 3} if name == "topk_kd" else {}))
    v = qu.is_proper(m)
    if v.formula is None:
        assert v.unbiased or name in TOO_LONG
        return
    given = context(5, 3)
    for scale in (0.5, 2.0):
        p = torch.softmax(scale * torch.randn(5, generator=torch.Generator().manual_seed(4), dtype=torch.float64), -1)
        found = evaluated(v.formula, surroundings(m, p, given))
        torch.testing.assert_close(found, qu.drift(m, p, p, **given), rtol=0, atol=1e-12)


def test_formulas_are_written_as_a_reader_would() -> None:
    assert qu.is_proper("dft").bias == r"{p}_{k}^{2} - {p}_{k} \Bigl(\sum_{j} {p}_{j}^{2}\Bigr)"
    assert qu.is_proper("label_smoothing").bias == r"\frac{1}{10 V} - \frac{{p}_{k}}{10}"
    assert qu.is_proper("sft").bias is None


def test_symbols_refuse_what_sorts_by_the_label() -> None:
    odd = qu.design("odd", trust=lambda t: 0.5, residual=lambda t: t.argmax(t.without_label(t.policy)))
    with pytest.raises(Entangled):
        symbolic_bias(odd)
    v = qu.is_proper(odd)
    assert not v.unbiased
    assert v.formula is None


# ---- how it shows itself, and what it refuses -----------------------------------------------------------------


def test_sentences() -> None:
    assert str(qu.is_proper("sft")) == "sft is strictly proper (unbiased: proved)."
    assert str(qu.is_proper("dft")) == "dft is biased (proved): from the truth it drifts, sharpening."
    assert "part of it is detached" in str(qu.is_proper("eaft"))
    assert str(qu.is_proper("z_loss")) == "z_loss is not proper: it is not shift-invariant, so it has no target."
    linked = str(qu.is_proper("sparsemax"))
    assert linked.endswith("; through its link sparsemax(z) it is strictly proper (unbiased: proved).")
    assert "drift is (0.06, -0.024, -0.036)" in str(qu.is_proper("dft").witness)


@pytest.mark.parametrize("name", ["sft", "dft", "eaft", "temperature_ce", "z_loss", "idft"])
def test_notebooks(name: str) -> None:
    v = qu.is_proper(name)
    page, latex = v._repr_html_(), v._repr_latex_()
    assert str(v) in page
    assert "<td>unbiased</td>" in page
    assert latex.startswith("$")
    assert latex.endswith("$")
    assert latex.count("{") == latex.count("}")


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="gce: parameter q: expected a number, got the symbol q"):
        qu.is_proper(qu.get("gce", q=sp.Symbol("q")))
    with pytest.raises(ValueError, match="is_proper: method: expected an id of the catalogue"):
        qu.is_proper(3)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="did you mean dft"):
        qu.is_proper("DFT")
    assert catalogue.as_method("sft", "is_proper") == qu.get("sft")


# ---- the scale of a loss -----------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def error_probability(logits: Tensor, labels: Tensor) -> Tensor:
    return 1 - logits.softmax(-1).gather(-1, labels[:, None])[:, 0]


@pytest.mark.parametrize("factor", [1e-9, 1e7, 1e9])
def test_a_loss_times_a_constant_is_judged_as_the_loss(factor: float) -> None:
    v = qu.is_proper(lambda z, y: factor * cross_entropy(z, y))
    assert (v.unbiased, v.attracts, v.proper, v.strict) == (True, True, True, True)
    v = qu.is_proper(lambda z, y: factor * error_probability(z, y))
    assert (v.unbiased, v.proper, v.direction) == (False, False, "sharpening")
    v = qu.is_proper(qu.get("symmetric_ce", ce_weight=factor, rce_weight=0))
    assert (v.unbiased, v.proved, v.attracts, v.proper, v.strict) == (True, True, True, True, True)


def test_a_large_trust_in_the_label_attracts_as_a_small_one() -> None:
    v = qu.is_proper(qu.design("constant", trust=lambda t: 1e6, residual=lambda t: t.policy))
    assert (v.unbiased, v.attracts, v.proper) == (True, True, False)


def test_a_link_that_flattens_is_judged_where_predictions_differ() -> None:
    for temperature in (3000, 3e5):
        v = qu.is_proper(qu.get("temperature_ce", temperature=temperature)).through_link
        assert v is not None
        assert (v.unbiased, v.proved, v.proper, v.strict) == (True, True, True, True)
    v = qu.is_proper(qu.get("bi_tempered", t2=50)).through_link  # 49 orders of magnitude of logits are one of odds
    assert v is not None
    assert v.unbiased
    assert v.reason == "in float64 its predictions are all the same"
