"""Where training ends: the theory against solved examples, against other solvers, and against plain descent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.maps import published
from qunify.population._gradient_flow import EndPoint, follow, is_stable_zero, logits_of
from qunify.population._jacobian import Dense
from qunify.population._known_optima import KNOWN, known_value
from qunify.population._optima import _default_starts, _flow
from qunify.population._separable import separable_optima, separated_flow
from qunify.token import PER_TOKEN
from tests.battery import Batch, autograd, one_each, settings

WITH_TARGET = [name for name in ENTRIES if ENTRIES[name].shift_invariant]
ETA = torch.tensor([0.45, 0.25, 0.15, 0.10, 0.05], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1], dtype=torch.float64)
DISTRIBUTIONS = ("reference_logits", "teacher_logits", "old_logits", "prior_logits", "teacher_base_logits")


def context(vocab: int, seed: int = 0) -> dict[str, Any]:
    """Every context of one token, as a tensor."""
    r = torch.Generator().manual_seed(seed)
    given = {name: torch.randn(vocab, generator=r, dtype=torch.float64) for name in DISTRIBUTIONS}
    negative = torch.zeros(vocab)
    negative[1] = 1
    return given | {
        "token_weight": torch.tensor(1.3, dtype=torch.float64),
        "token_mask": torch.tensor(1.0),
        "negative_mask": negative,
        "token_values": torch.arange(vocab, dtype=torch.float64),
    }


def truths(count: int, vocab: int, seed: int = 1) -> Tensor:
    r = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(count, vocab, generator=r, dtype=torch.float64), -1)


ANCHORED: dict[str, Any] = dict.fromkeys(DISTRIBUTIONS, REFERENCE.log())


# ---- the drift ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WITH_TARGET if not ENTRIES[name].pools])
def test_drift_is_minus_the_expected_gradient(name: str) -> None:
    vocab, given = 4, context(4)
    p, truth = truths(6, vocab, 2), truths(6, vocab, 3)
    b = qu.drift(qu.get(name), p, truth, **given)
    expected = torch.zeros_like(p)
    for y in range(vocab):
        labels = torch.full((6,), y)
        rows = {k: v.expand(6) if k in PER_TOKEN else v.expand(6, vocab) for k, v in given.items()}
        expected -= truth[:, y : y + 1] * autograd(qu.get(name), Batch(p.log(), labels, rows))
    torch.testing.assert_close(b, expected, rtol=1e-8, atol=1e-12)
    assert float(b.sum(-1).abs().max()) < 1e-13


def test_drift_of_dft_is_the_policy_gradient_of_the_expected_reward() -> None:
    p, truth = truths(20, 6, 4), truths(20, 6, 5)
    reward = (p * truth).sum(-1, keepdim=True)  # J(p) = Σ p_a η_a, and ∂J/∂z = p ∘ (η − J)
    torch.testing.assert_close(qu.drift(qu.get("dft"), p, truth), p * (truth - reward), rtol=0, atol=1e-15)


def test_drift_at_the_truth_is_the_direction_of_miscalibration() -> None:
    sharpening = ETA**2 - (ETA**2).sum() * ETA
    torch.testing.assert_close(qu.drift(qu.get("dft"), ETA, ETA), sharpening, rtol=0, atol=1e-15)
    flattening = 0.1 * (1 / 5 - ETA)
    torch.testing.assert_close(qu.drift(qu.get("label_smoothing"), ETA, ETA), flattening, rtol=0, atol=1e-15)


def test_drift_at_a_vertex_is_its_limit() -> None:
    vertex = torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    smoothing = qu.get("label_smoothing", smoothing=0.1)
    torch.testing.assert_close(qu.drift(smoothing, vertex, ETA), 0.9 * ETA + 0.02 - vertex, rtol=0, atol=1e-15)
    torch.testing.assert_close(qu.drift(qu.get("dft"), vertex, ETA), torch.zeros_like(ETA), rtol=0, atol=1e-15)


# ---- solved examples ------------------------------------------------------------------------------------------

SOLVED: list[tuple[str, dict[str, Any], list[float]]] = [
    ("chord_phi", {}, [9 / 14, 5 / 14, 0, 0, 0]),
    ("focal", {}, [0.3782, 0.2638, 0.1766, 0.1217, 0.0598]),
    ("asft", {"kl_weight": 0.1}, [0.7003, 0.0933, 0.1273, 0.0549, 0.0241]),
    ("asft", {"kl_weight": 1.0}, [0.1345, 0.2119, 0.3833, 0.1829, 0.0874]),
    ("dft", {}, [1, 0, 0, 0, 0]),
    ("mae", {}, [1, 0, 0, 0, 0]),
    ("beyond_log", {"alpha": 0.5}, (ETA**2 / (ETA**2).sum()).tolist()),
    ("label_smoothing", {"smoothing": 0.1}, (0.9 * ETA + 0.02).tolist()),
    ("sft_kl", {"kl_weight": 1.0}, ((ETA + REFERENCE) / 2).tolist()),
    ("kd_hybrid", {"mix": 0.25}, (0.75 * ETA + 0.25 * REFERENCE).tolist()),
    ("target_sft", {"eta": 0.5}, (REFERENCE / (1 - ETA) ** 2 / (REFERENCE / (1 - ETA) ** 2).sum()).tolist()),
    ("gem", {"beta": 0.5}, (ETA.sqrt() / ETA.sqrt().sum()).tolist()),
    ("temperature_ce", {"temperature": 2}, (ETA**2 / (ETA**2).sum()).tolist()),
    ("sparsemax", {}, torch.softmax(ETA, -1).tolist()),
    ("entmax15", {}, torch.softmax(2 * ETA.sqrt(), -1).tolist()),
    ("eaft", {}, ETA.tolist()),
    ("tvd", {}, REFERENCE.tolist()),
    ("profit", {}, [9 / 17, 5 / 17, 3 / 17, 0, 0]),  # 0.05 drops out of sight, then 0.10 sinks to the threshold
]


@pytest.mark.parametrize(("name", "params", "expected"), SOLVED, ids=lambda x: str(x)[:30])
def test_solved_examples(name: str, params: dict[str, Any], expected: list[float]) -> None:
    found = qu.optimum(qu.get(name, **params), ETA, **ANCHORED)
    rounded = any(round(x, 4) == x and 0 < x < 1 and name in ("focal", "asft") for x in expected)
    tolerance = 6e-5 if rounded else 1e-12  # four printed digits
    torch.testing.assert_close(found.probs, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)
    assert bool(found.exists)
    assert bool(found.stable)
    assert bool(found.converged)


def test_gates_balance_share_against_pull() -> None:
    """truth_k w(p_k)/p_k is one number on the tokens that are kept, and no more than it on the others."""
    tailr = qu.optimum(qu.get("tailr", gamma=0.3), ETA).probs
    ratio = ETA / (0.3 + 0.7 * tailr)
    kept = tailr > 0
    assert 0 < int(kept.sum()) < 5
    assert float(ratio[kept].max() - ratio[kept].min()) < 1e-13
    assert float(ratio[~kept].max()) < float(ratio[kept].min())
    infosft = qu.optimum(qu.get("infosft", certain=0.9), ETA).probs
    level = ETA * (1 - torch.logit(infosft) / torch.logit(torch.tensor(0.9, dtype=torch.float64)))
    assert float(level.max() - level.min()) < 1e-9


# ---- one answer, several ways ---------------------------------------------------------------------------------


def flow_of(name: str, vocab: int, count: int = 4, **params: Any) -> Any:
    return _flow(qu.get(name, **params), truths(count, vocab, 7), context(vocab, 8))


@pytest.mark.parametrize("name", [n for n in KNOWN if n != "tvd"])
def test_closed_forms_are_where_the_flow_ends(name: str) -> None:
    met = False
    for params in settings(name):
        flow = flow_of(name, 4, **params)
        expected = known_value(flow)
        if expected is None:
            continue
        with torch.no_grad():
            arrival = follow(flow, torch.zeros_like(flow.truth), torch.arange(4))
        torch.testing.assert_close(arrival.probs, expected, rtol=0, atol=1e-8)
        assert bool(arrival.stable.all()), params
        met = True
    assert met


@pytest.mark.slow
@pytest.mark.parametrize("vocab", [2, 5])
def test_theory_and_flow_agree_where_both_apply(vocab: int) -> None:
    met = []
    for name in WITH_TARGET:
        flow = flow_of(name, vocab)
        with torch.no_grad():
            exact = separable_optima(flow)
            if name in ("psft", "dppo_tv", "dppo_kl") or exact is None or not bool(exact.unique.all()):
                continue  # their drift jumps at its optimum, and the flow only creeps along the edge
            arrival = follow(flow, torch.zeros_like(flow.truth), torch.arange(4))
        assert bool(arrival.stable.all()), name
        torch.testing.assert_close(arrival.probs, exact.probs, rtol=0, atol=1e-8, msg=f"{name}: {{}}".format)
        met.append(name)
    assert len(met) > 30


def test_psft_fills_up_the_tokens_in_the_order_of_truth_over_old_policy() -> None:
    """Its weight u/old drops to 0 at (1 + ε) old: each token takes that much in turn, until the mass is spent."""
    left, expected = 1.0, torch.zeros(5, dtype=torch.float64)
    for token in (ETA / REFERENCE).argsort(descending=True):
        expected[token] = min(left, 1.2 * float(REFERENCE[token]))
        left -= float(expected[token])
    found = qu.optimum(qu.get("psft"), ETA, old_logits=REFERENCE.log())
    torch.testing.assert_close(found.probs, expected, rtol=0, atol=1e-9)


def test_constant_weights_keep_tiny_probabilities() -> None:
    eta = torch.tensor([1 - 1e-12, 1e-12 - 1e-30, 1e-30], dtype=torch.float64)
    torch.testing.assert_close(qu.optimum("sft", eta).probs, eta, rtol=1e-12, atol=0)
    power = eta**2 / (eta**2).sum()
    torch.testing.assert_close(qu.optimum("beyond_log", eta).probs, power, rtol=1e-6, atol=0)
    assert float(qu.optimum("tailr", eta).probs[2]) == 0


def test_psft_fills_up_exactly_at_any_truth() -> None:
    """Its pull is flat up to a jump, so that the last token's share depends on where all the others' jumps are."""
    for vocab in (3, 5, 9):
        eta, old = truths(30, vocab, 20), truths(30, vocab, 21)
        given = qu.optimum(qu.get("psft"), eta, old_logits=old.log()).probs
        for e, cap, found in zip(eta, 1.2 * old, given, strict=True):
            left, expected = 1.0, torch.zeros(vocab, dtype=torch.float64)
            for token in (e / cap).argsort(descending=True):
                expected[token] = min(left, float(cap[token]))
                left -= float(expected[token])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def one_token_at_a_time(weight: Callable[[float], float], truth: list[float]) -> list[float]:
    """The optimum of a gate: for a level C the u with truth · weight(u)/u = C at every token, and the C at which they
    sum to 1, both by bisection."""

    def inverse(eta: float, level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if eta * weight(middle) / middle > level else (low, middle)
        return low

    low, high = 0.0, 1e6
    for _ in range(80):
        level = (low + high) / 2
        low, high = (level, high) if sum(inverse(eta, level) for eta in truth) > 1 else (low, level)
    return [inverse(eta, high) for eta in truth]


def test_the_optimum_of_a_gate_is_the_one_found_one_token_at_a_time() -> None:
    m = qu.design("decays", trust=lambda t: 1 / (1 + 3 * t.p_label**2), residual=lambda t: t.policy)
    for truth in truths(5, 6):
        expected = one_token_at_a_time(lambda u: 1 / (1 + 3 * u**2), truth.tolist())
        torch.testing.assert_close(qu.optimum(m, truth).probs.tolist(), expected, rtol=0, atol=1e-9)


def test_theory_applies_to_what_it_should() -> None:
    """Weights that look at other tokens do not separate; a gate in disguise and fixed pulls do."""
    with torch.no_grad():
        applies = {name: separated_flow(flow_of(name, 5)) is not None for name in WITH_TARGET}
    separate = {"sft", "dft", "focal", "psft", "gold", "minor_sft", "margin_softmax", "asft", "label_smoothing", "kd"}
    assert separate <= {name for name, yes in applies.items() if yes}
    assert not {"eaft", "deft", "idft", "mile", "bootstrap_hard", "target_sft", "gem", "nce", "elr", "dkd"} & {
        name for name, yes in applies.items() if yes
    }


def descended(name: str, truth: Tensor, given: dict[str, Tensor], z: Tensor, rate: float, steps: int) -> Tensor:
    """Plain gradient descent on the published loss from logits z (S, V), by automatic differentiation."""
    count, vocab = z.shape
    labels = torch.arange(vocab).repeat(count)
    n = len(labels)
    rows = {k: v.expand(n) if k in PER_TOKEN else v.expand(n, vocab) for k, v in given.items()}
    for _ in range(steps):
        g = autograd(qu.get(name), Batch(z.repeat_interleave(vocab, 0), labels, rows))
        z = z - rate * torch.einsum("y,nyk->nk", truth, g.view(count, vocab, vocab))
    return torch.softmax(z, -1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["focal", "gce", "asft", "target_sft", "deft", "margin_softmax", "brier", "gem", "unlikelihood", "idft"]
)
def test_plain_descent_ends_there_too(name: str) -> None:
    truth = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    given = context(3, 4)
    trained = descended(name, truth, given, torch.zeros(1, 3, dtype=torch.float64), 2.0, 1000)[0]
    predicted = qu.optimum(qu.get(name), truth, **given)
    atol = 2e-3 if bool((predicted.probs == 0).any()) else 1e-8  # toward a vertex it creeps as 1/steps
    torch.testing.assert_close(trained, predicted.probs, rtol=0, atol=atol)


#: Entries whose drift jumps at its optimum.
JUMPING = {"ranktuner", "psft", "dppo_tv", "dppo_kl", "sppo", "tvd", "uld", "rho1"}


@pytest.mark.parametrize("name", one_each(WITH_TARGET))
def test_the_drift_vanishes_at_every_optimum_and_they_differ(name: str) -> None:
    given = context(4)
    for truth, points in zip(truths(4, 4), qu.optimum(qu.get(name), truths(4, 4), **given).all, strict=True):
        assert torch.isfinite(points).all()
        torch.testing.assert_close(points.sum(-1), torch.ones(len(points), dtype=torch.float64), rtol=0, atol=1e-12)
        if name not in JUMPING:  # there it is zero only on average
            assert bool((qu.drift(qu.get(name), points, truth.expand_as(points), **given).abs() < 1e-10).all())
        gaps = torch.cdist(points, points) + torch.eye(len(points))
        assert bool((gaps > 1e-6).all())


@pytest.mark.parametrize(
    "name", ["focal", "chord_phi", "agce", "deft", "target_sft", "gem", "bootstrap_hard", "profit"]
)
def test_a_push_comes_back(name: str) -> None:
    given, truth = context(4), truths(1, 4)[0]
    (points,) = qu.optimum(qu.get(name), truth, **given).all
    assert len(points)
    r = torch.Generator().manual_seed(0)
    for point in points:
        pushed = 0.999 * point + 0.001 * torch.softmax(torch.randn(4, generator=r, dtype=torch.float64), -1)
        back = qu.optimum(qu.get(name), truth, start=pushed, **given)
        torch.testing.assert_close(back.probs, point, rtol=0, atol=1e-8)


# ---- several, and none ----------------------------------------------------------------------------------------


def test_vertices_are_stable_exactly_where_the_theorem_says() -> None:
    """agce(1, 2) has h(u) = 1 + u: token j alone is stable iff 2 truth_j > truth_k for every other k."""
    for truth, found in zip(truths(8, 4), qu.optimum("agce", truths(8, 4)).all, strict=True):
        expected = 2 * truth > truth.max()
        assert expected.sum() == len(found)
        for token in expected.nonzero()[:, 0]:
            vertex = torch.nn.functional.one_hot(token, 4).double()
            assert float((found - vertex).abs().amax(-1).min()) == 0


def test_the_theorem_finds_the_vertices_without_the_flow() -> None:
    flow = _flow(qu.get("agce"), truths(8, 4), {})
    with torch.no_grad():
        exact = separable_optima(flow)
    assert exact is not None
    assert torch.equal(exact.vertex_is_stable, 2 * flow.truth > flow.truth.amax(-1, keepdim=True))


def test_an_optimum_has_all_digits_however_rare_a_token_is() -> None:
    truth = truths(1, 2000)[0] ** 2
    truth = truth / truth.sum()
    for q in (0.7, 0.3, -0.5):  # p ∝ truth^(1/(1 − q))
        expected = torch.softmax(truth.log() / (1 - q), -1)
        torch.testing.assert_close(qu.optimum(qu.get("gce", q=q), truth).probs, expected, rtol=1e-12, atol=0)


def test_whether_a_drift_separates_is_found_out_once() -> None:
    flow = _flow(qu.get("agce"), truths(2, 6), {})
    assert separated_flow(flow) is separated_flow(flow)


@pytest.mark.parametrize(
    ("name", "held"),
    [("dft", 1.0), ("mae", 1.0), ("agce", 2.0), ("beyond_log", 0.0), ("gce", 0.0), ("brier", 0.0), ("target_sft", 0.0)],
)
def test_a_token_alone_rests_where_no_other_comes_back(name: str, held: float) -> None:
    """All drifts are zero at a vertex, where no other token has mass; whether one comes back is a matter of rates. Of a
    gate with h = w/u, token k comes back if truth_k h(0) > truth_j h(1): `held` is h(1)/h(0), and 0 where h has a pole.
    Under Brier's score it grows at the rate 2 (1 + truth_k − truth_j) > 0, in a geometric mean at an unbounded one."""
    flow, vertices = flow_of(name, 4, 6), torch.eye(4, dtype=torch.float64)
    for i, truth in enumerate(flow.truth):
        for token, vertex in enumerate(vertices):
            with torch.no_grad():
                found = is_stable_zero(flow, vertex[None], torch.tensor([i]))
            others = truth[torch.arange(4) != token]
            assert found.tolist() == [bool(held * truth[token] > others.max())], (truth, token)


def test_a_start_beside_a_saddle_leaves_it() -> None:
    """agce on two tokens, truth (.52, .48): .52 (1 + p) = .48 (2 − p) at p = .44, a saddle between the vertices."""
    for push, winner in ((1e-6, [1.0, 0.0]), (-1e-6, [0.0, 1.0])):
        found = qu.optimum(qu.get("agce"), [0.52, 0.48], start=[0.44 + push, 0.56 - push])
        assert found.probs.tolist() == winner


def test_the_start_decides_between_several() -> None:
    m = qu.get("agce")
    first, second = (qu.optimum(m, ETA, start=s) for s in ([0.6, 0.1, 0.1, 0.1, 0.1], [0.02, 0.92, 0.02, 0.02, 0.02]))
    assert first.probs.argmax() == 0
    assert second.probs.argmax() == 1
    assert len(first.all[0]) == 2


EVEN, UNEVEN = [0.38, 0.34, 0.28], [0.5, 0.3, 0.2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "eta"), [("agce", EVEN), ("profit", EVEN), ("idft", EVEN), ("deft", UNEVEN)])
def test_basins_are_those_of_descent(name: str, eta: list[float]) -> None:
    truth = torch.tensor(eta, dtype=torch.float64)
    z = 2.0 * torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    trained = descended(name, truth, {}, z, 0.5, 1500)
    predicted = qu.optimum(qu.get(name), truth.expand(8, 3), start=torch.softmax(z, -1)).probs
    assert len(predicted.round(decimals=3).unique(dim=0)) > 1
    assert float((trained - predicted).abs().max()) < 0.02  # toward a vertex descent creeps as 1/steps


@pytest.mark.slow
def test_what_has_no_optimum_says_so() -> None:
    one_hot = torch.full((5,), -torch.inf, dtype=torch.float64)
    one_hot[1] = 0
    unbounded = qu.optimum(qu.get("elr"), ETA, teacher_logits=one_hot)
    normalised = qu.optimum(qu.get("nce"), ETA)
    ascent = qu.optimum(qu.get("iw_sft"), ETA, token_weight=-1.0)
    for found in (unbounded, normalised, ascent):
        assert not bool(found.exists)
        assert not bool(found.converged)
        assert found.closed_form is None
        assert found.all[0].shape == (0, 5)
    bounded = qu.optimum(qu.get("elr"), ETA, teacher_logits=REFERENCE.log())
    assert bool(bounded.exists)


@pytest.mark.parametrize("name", ["satimp", "simnpo"])
def test_a_flow_that_fades_has_not_arrived(name: str) -> None:
    """A label that is pushed by a power of its probability becomes rare ever more slowly; where all push, it rests."""
    on_its_way, arrived = (qu.optimum(name, truth) for truth in ([0.0, 1.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]))
    assert [bool(x) for x in (on_its_way.converged, on_its_way.stable, on_its_way.exists)] == [False] * 3
    assert str(on_its_way).endswith("not at rest yet")
    assert bool(arrived.converged & arrived.stable & arrived.exists)


def test_a_flow_that_is_left_on_its_way_says_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """In large vocabularies steps run out: whether it would rest, and where, is then not known."""
    truth, old = [0.5, 0.3, 0.2], torch.tensor([0.2, -0.1, 0.4])
    end = qu.optimum("sapo", truth, old_logits=old)
    assert not bool(end.cut)
    monkeypatch.setattr("qunify.population._gradient_flow._WORK", 3 * 4)  # four steps for three tokens
    left = qu.optimum("sapo", truth, old_logits=old)
    assert [bool(x) for x in (left.cut, left.converged, left.stable)] == [True, False, False]
    assert re.fullmatch(
        r"on its way at p = \(0\.\d+, 0\.\d+, 0\.\d+\) when steps ran out: where it leads is not known", str(left)
    )
    assert left._repr_latex_().count("p=(") == 1


def test_labels_of_the_models_own() -> None:
    """On average k2, half the square of a log-ratio, teaches the reverse KL where y ~ p."""
    p = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64)
    teacher = torch.tensor([0.05, 0.25, 0.7], dtype=torch.float64).log()
    k2 = qu.design("k2", trust=lambda t: t.at_label(t.teacher.log) - t.log_p_label, residual=lambda t: t.policy)
    sampled, exact = (qu.drift(m, p, p, teacher_logits=teacher) for m in (k2, "reverse_kl"))
    torch.testing.assert_close(sampled, exact)


def test_a_teacher_that_is_the_model_itself_leaves_the_step_of_dft() -> None:
    p = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1], dtype=torch.float64)
    truth = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1], dtype=torch.float64)
    alone = qu.drift("target_sft", p, truth, teacher_logits=p.log())
    torch.testing.assert_close(alone, qu.drift("dft", p, truth))


def test_of_many_tokens_the_first_are_printed() -> None:
    said = str(qu.optimum("sft", torch.full((1000,), 0.001)))
    assert said == f"p* = ({'0.001, ' * 20}…), stable"


def test_a_zero_that_does_not_attract_is_not_an_optimum() -> None:
    tied = torch.tensor([0.3, 0.3, 0.2, 0.2], dtype=torch.float64)
    for found in (qu.optimum(qu.get("dft"), tied), qu.optimum(qu.get("cft"), tied, token_mask=0.0)):
        assert not bool(found.exists)  # a whole line, a whole simplex, of zeros
        assert not bool(found.stable)
        assert bool(found.converged)


# ---- shapes and bad input -------------------------------------------------------------------------------------


def test_truths_together_and_alone() -> None:
    r = torch.Generator().manual_seed(0)
    truth = truths(6, 4).view(2, 3, 4)
    teacher = torch.randn(2, 3, 4, generator=r, dtype=torch.float64)
    for name in ("target_sft", "asft"):
        m, key = qu.get(name), "teacher_logits" if name == "target_sft" else "reference_logits"
        given: dict[str, Any] = {key: teacher}
        together = qu.optimum(m, truth, **given)
        assert together.probs.shape == truth.shape
        assert together.stable.shape == together.exists.shape == together.converged.shape == (2, 3)
        assert len(together.all) == 6
        alone = qu.optimum(m, truth[1, 2], **{key: given[key][1, 2]})
        torch.testing.assert_close(together.probs[1, 2], alone.probs, rtol=0, atol=1e-12)


def test_every_token_is_a_start_so_that_all_optima_are_found_whatever_the_first_one() -> None:
    near_first = torch.tensor([0.9, 0.05, 0.05], dtype=torch.float64)
    found = qu.optimum(qu.get("bootstrap_hard", beta=0.5), torch.tensor([0.5, 0.3, 0.2]), near_first)
    assert found.probs.argmax() == 0
    assert sorted(point.argmax().item() for point in found.all[0]) == [0, 1, 2]


SFT, KD = qu.get("sft"), qu.get("kd")
WRONG: list[tuple[Any, str]] = [
    (lambda: qu.optimum(SFT, [0.5, 0.6]), "sft: truth: expected probabilities that sum to 1, got a sum of 1.1"),
    (lambda: qu.optimum(SFT, [1.5, -0.5]), "sft: truth: expected probabilities of 0 or more, got -0.5"),
    (lambda: qu.optimum(SFT, [float("nan"), 1.0]), "sft: truth: expected probabilities of 0 or more, got nan"),
    (lambda: qu.optimum(SFT, 1.0), "sft: truth: expected shape"),
    (lambda: qu.drift(SFT, [0.5, 0.6], [0.5, 0.5]), "sft: probs: expected probabilities that sum to 1"),
    (lambda: qu.drift(SFT, [0.5, 0.3, 0.2], [0.5, 0.5]), "sft: probs and truth: expected shapes that broadcast"),
    (lambda: qu.optimum(SFT, [0.5, 0.5], start=[1.0, 0.0]), "sft: start: expected every probability positive"),
    (lambda: qu.optimum(SFT, [0.5, 0.5], start=[0.5, 0.3, 0.2]), "sft: start: expected shape"),
    (lambda: qu.optimum(qu.get("z_loss"), [0.5, 0.5]), "z_loss: not shift-invariant, so it has no target"),
    (lambda: qu.drift(qu.get("logit_norm"), [0.5, 0.5], [0.5, 0.5]), "logit_norm: not shift-invariant"),
    (lambda: qu.optimum(KD, [0.5, 0.5]), "kd: missing context, expected the keyword argument teacher_logits"),
    (lambda: qu.optimum(KD, [0.5, 0.5], teacher_logits=torch.zeros(3)), "kd: teacher_logits: expected shape"),
    (lambda: qu.optimum(SFT, [0.5, 0.5], techer_logits=torch.zeros(2)), "did you mean teacher_logits"),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        call()
    assert sentence in str(error.value)


# ---- large vocabularies ----------------------------------------------------------------------------------------


class _Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, list | tuple) else [found]:
            self.numbers = max(self.numbers, x.numel() if isinstance(x, Tensor) else 0)
        return found


def largest(name: str, vocab: int) -> int:
    with _Largest() as seen:
        qu.optimum(name, truths(1, vocab)[0], **context(vocab))
    return seen.numbers


@pytest.mark.parametrize(
    "name", one_each(["label_smoothing", "focal", "psft", "asft", "posterior", "gem", "dft", "agce"])
)
def test_an_optimum_takes_memory_linear_in_the_vocabulary(name: str) -> None:
    """No tensor has more numbers than the 64 tokens at which the drift is tried, ten flows, or what a block has."""
    assert largest(name, 4096) <= max(68 * 4096 * 3, 2 * 2**18)


@pytest.mark.parametrize("name", ["agce", "profit", "margin_softmax", "dft_undetached"])
def test_the_flow_of_what_separates_is_that_of_any_method(name: str) -> None:
    """Drift, Jacobian, steps and ends, read off single tokens and off whole ones."""
    flow = flow_of(name, 7)
    with torch.no_grad():
        parts = separated_flow(flow)
        assert parts is not None
        rows, z = torch.arange(4), 2 * torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).double()
        (b, dense), (b_parts, thin) = flow.linear(z, rows), parts.linear(z, rows)
        torch.testing.assert_close(b * flow.unit, b_parts * parts.unit, rtol=0, atol=1e-14)
        matrix = torch.diag_embed(thin.diagonal) - thin.left @ thin.right.mT
        torch.testing.assert_close(
            dense.matrix * flow.unit[..., None], matrix * parts.unit[..., None], rtol=0, atol=1e-6
        )
        h = torch.full((4, 1), 0.7, dtype=torch.float64)
        torch.testing.assert_close(thin.step(h, b), Dense(matrix).step(h, b))
        assert torch.equal(thin.keeps_orientation(h), Dense(matrix).keeps_orientation(h))
        z = logits_of(_default_starts(flow, None).reshape(-1, 7))
        one, other = (follow(f, z, rows.repeat_interleave(len(z) // 4)) for f in (flow, parts))
    torch.testing.assert_close(one.probs, other.probs, rtol=0, atol=1e-9)
    assert torch.equal(one.stable, other.stable)
    assert torch.equal(one.converged, other.converged)


@pytest.mark.parametrize(("name", "room", "starts"), [("margin_softmax", 10, 10), ("margin_softmax", 2, 2),
                                                   ("margin_softmax", 0, 1), ("dft_undetached", 10, 2)])  # fmt: skip
def test_few_flows_are_followed_where_each_is_large(
    name: str, room: int, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none from beside a token where theory knows that it would end there."""
    followed = []

    def stand_still(flow: Any, z: torch.Tensor, rows: torch.Tensor) -> EndPoint:
        followed.append(len(z))
        return EndPoint(torch.softmax(z, -1), *torch.zeros(4, len(z), dtype=torch.bool))

    monkeypatch.setattr("qunify.population._optima.follow", stand_still)
    monkeypatch.setattr("qunify.population._optima._STARTED", 64 * room)
    qu.optimum(name, torch.arange(1.0, 65) / torch.arange(1.0, 65).sum())
    assert sum(followed) == starts


def test_an_optimum_does_not_depend_on_tokens_that_never_occur() -> None:
    """With a weight that falls, tokens of truth 0 end without mass, however many there are."""
    few = truths(1, 6)[0]
    many = torch.cat([few, torch.zeros(3000, dtype=torch.float64)])
    for name in ("focal", "gce"):
        torch.testing.assert_close(qu.optimum(name, many).probs[:6], qu.optimum(name, few).probs, rtol=0, atol=1e-9)


def test_a_flow_that_would_take_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="deft: expected at most 64 tokens where the drift neither separates by token"):
        qu.optimum("deft", truths(1, 65)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["label_smoothing", "focal"])
def test_an_optimum_at_the_vocabulary_of_a_language_model(name: str) -> None:
    truth = truths(1, 50_257)[0]
    found = qu.optimum(name, truth)
    assert bool(found.stable)
    parts = separated_flow(found._flow)
    assert parts is not None
    with torch.no_grad():
        b = parts.drift(found.probs.log()[None], torch.arange(1))
    assert float((b / found.probs).abs().max()) < 1e-7


# ---- truths on the boundary, and drifts that jump --------------------------------------------------------------


def test_a_pull_that_ends_below_certainty_leaves_a_plateau() -> None:
    """InfoSFT pulls until P = 0.93. Where one answer alone is right, nothing pushes the label further, and nothing back
    from beyond."""
    found = qu.optimum("infosft", [1.0, 0, 0, 0])
    assert found.probs.tolist() == pytest.approx([0.93, 0.07 / 3, 0.07 / 3, 0.07 / 3], abs=1e-4)
    assert qu.optimum("infosft", [1.0, 0]).probs.tolist() == pytest.approx([0.93, 0.07], abs=1e-4)
    beyond = [0.95, 0.03, 0.01, 0.01]
    stays = qu.optimum("infosft", [1.0, 0, 0, 0], beyond)
    assert stays.probs.tolist() == pytest.approx(beyond, abs=1e-9)
    for rests in (found, stays):
        assert (bool(rests.converged), bool(rests.stable), bool(rests.exists)) == (True, False, False)
        assert rests.closed_form is None
    two = qu.optimum("infosft", [0.7, 0.3, 0, 0])
    assert bool(two.exists)
    assert two.closed_form is not None


@pytest.mark.parametrize(
    ("name", "truth", "expected"),
    [
        ("bi_tempered", [0.5, 0.3, 0.2, 0.0], [math.exp(-1 / x) for x in (0.5, 0.3, 0.2)] + [0.0]),
        ("bi_tempered", [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        ("eaft", [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        ("eaft", [0.6, 0.4, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]),
    ],
)
def test_a_formula_holds_also_where_the_truth_has_zeros(name: str, truth: list[float], expected: list[float]) -> None:
    """Of bi_tempered at t2 = 2 the optimum is ∝ exp(−1/η), and 0 where η is."""
    found = qu.optimum(qu.get(name, t2=2.0) if name == "bi_tempered" else name, truth)
    assert found.probs.tolist() == pytest.approx([x / sum(expected) for x in expected], abs=1e-12)
    assert bool(found.exists & found.stable & found.converged)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_beside_a_segment_at_rest_nothing_attracts(name: str) -> None:
    """Below the threshold of a sparse link a token is predicted to be 0, which it is: its logit stays where it is."""
    for start in (None, [0.49, 0.3, 0.2, 0.01]):
        found = qu.optimum(name, [0.5, 0.3, 0.2, 0.0], start)
        assert (bool(found.converged), bool(found.stable), bool(found.exists)) == (True, False, False)
        predicted = qu.get(name).prediction(found._flow.token(found.probs.log()[None], *torch.zeros(2, 1).long()))
        assert predicted.probs[0].tolist() == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=1e-4)


@pytest.mark.slow
def test_training_ends_where_the_drift_jumps() -> None:
    """A token rarer than p_max exp(−margin) is pushed up until it is not; the others keep their shares."""
    found = qu.optimum("mbls", [0.224, 1e-6, 0.775999])
    assert float(found.probs[1]) == pytest.approx(float(found.probs[2]) * math.exp(-10), rel=1e-5)
    assert found.probs.tolist() == pytest.approx([0.224, 3.523e-5, 0.775965], abs=1e-6)
    assert bool(found.exists & found.stable & found.converged)
    (points,) = qu.optimum(qu.get("mbls", margin=5), [0.5, 0.3, 0.1999, 0.0001]).all
    assert len(points) == 1
    assert float(points[0, 3]) == pytest.approx(float(points[0, 0]) * math.exp(-5), rel=1e-5)
    assert points[0, :3].tolist() == pytest.approx([0.5001 - float(points[0, 3]), 0.3, 0.1999], abs=1e-4)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_the_optimum_does_not_depend_on_the_scale_of_the_loss(factor: float) -> None:
    """Nor does what is said of it: through the flow, as functions have no formula, and where the drift separates."""
    truth = truths(1, 4)[0]
    for name, end in (("brier", truth), ("focal", qu.optimum("focal", truth).probs)):
        found = qu.optimum(lambda z, y, name=name: factor * published(qu.get(name))(z, y), truth)
        torch.testing.assert_close(found.probs, end, rtol=0, atol=1e-8)
        assert bool(found.exists & found.stable & found.converged)
        assert len(found.all[0]) == 1


@pytest.mark.parametrize("name", ["dft", "kd", "reverse_kl", "eaft"])
def test_a_drift_over_many_tokens_is_added_up_in_parts(name: str) -> None:
    vocab, given = 2100, context(2100)
    p, truth = truths(2, vocab, 6)
    given = {k: given[k] for k in ENTRIES[name].needs}
    flow = _flow(qu.get(name), truth[None], given)
    whole = -torch.einsum("y,yk->k", truth, flow._gradients(p.log()[None], torch.tensor([0]))[0])
    torch.testing.assert_close(qu.drift(name, p, truth, **given), whole, rtol=1e-9, atol=1e-15)


def test_a_drift_that_would_take_too_long_is_refused() -> None:
    vocab = 20_000
    p = torch.full((vocab,), 1 / vocab, dtype=torch.float64)
    assert float(qu.drift("label_smoothing", p, p).abs().max()) < 1e-12
    with pytest.raises(ValueError, match="eaft: expected at most 4096 tokens where the drift does not separate"):
        qu.drift("eaft", p, p)
