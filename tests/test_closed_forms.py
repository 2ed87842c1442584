"""Optima written down: those of the table proved by putting them in, those derived proved and found by other means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import sympy as sp
import torch
from torch import Tensor

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.population._derived_optima import CONTEXTS, ETA, Derived, Separated, U, derived_optimum, separated
from qunify.population._known_optima import KNOWN, closed_form_of, known_value
from qunify.population._optima import _flow
from qunify.population._separable import separable_optima
from qunify.population._symbolic_drift import TRUTH, symbolic_bias, symbolic_drift
from qunify.symbolic import vanishes_everywhere, with_fractions
from qunify.symbolic._cases import without_varying_cases
from qunify.symbolic._normal_form import vanishes
from qunify.token import SymbolicVector, V, per_token, sum_over_others
from tests.battery import one_each, settings
from tests.test_population import context, truths

C, ANY = sp.Symbol("C", positive=True), TRUTH
P, TEA, PRIOR, R, REF, BASE = (SymbolicVector(*per_token(name)) for name in ("p", "tea", "prior", "r", "ref", "base"))


# ---- the table: the optimum solved for the truth, or for the teacher, makes the drift vanish -------------------


class Inverse(NamedTuple):
    """What the truth, or the teacher, must be for p to be the optimum, up to a factor; entries in SymPy."""

    truth: Callable[[Any], SymbolicVector] = lambda m: ANY
    teacher: Callable[[Any], SymbolicVector] | None = None
    params: Mapping[str, Any] = MappingProxyType({})


def _geometric(m: Any) -> SymbolicVector:
    """p ∝ teacher (1 − η)^(−1/β), with 1 − η as r², which SymPy knows to be positive."""
    return P * R ** (2 / m.eta) * C


def _below_certainty(m: Any) -> SymbolicVector:
    """logit p = (1 − C/η) logit P."""
    return P.apply(lambda u: C / (1 - (sp.log(u) - sp.log(1 - u)) / sp.log(m.certain / (1 - m.certain))))


SELF = Inverse(lambda m: P)
TEACHER = Inverse(teacher=lambda m: P)

INVERSES: dict[str, Inverse] = {
    **dict.fromkeys(("brier", "spherical", "eaft", "mile", "tsallis_score"), SELF),
    **dict.fromkeys(("kd", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "tvd", "akl", "abkd", "todi"), TEACHER),
    **dict.fromkeys(("taid", "dkd", "mixed_kl", "bdkd", "eopd", "csd", "tad"), TEACHER),
    "topk_kd": TEACHER._replace(params={"k": V}),
    "student_topk_jsd": TEACHER._replace(params={"k": V}),
    "delta_kd": Inverse(teacher=lambda m: (P / REF) ** (1 / m.strength) * BASE * C),
    "ttm": Inverse(teacher=lambda m: P**m.temperature * C),
    "infosft": Inverse(_below_certainty),
    "target_sft": Inverse(teacher=_geometric),
    "gem": Inverse(lambda m: P ** (1 / m.beta) * C),
    "temperature_ce": Inverse(lambda m: P ** (1 / m.temperature) * C),
    "logit_adjustment": Inverse(lambda m: P * PRIOR**m.tau * C),
}

#: Their drift is that of the policy gradient, or their prediction goes through another link: proved below.
ELSEWHERE = {"dft", "mae", "sparsemax", "entmax15", "bi_tempered"}


def test_every_line_of_the_table_is_proved() -> None:
    assert set(KNOWN) == set(INVERSES) | ELSEWHERE


@pytest.mark.parametrize("name", INVERSES)
def test_the_table_makes_the_drift_vanish(name: str) -> None:
    inverse = INVERSES[name]
    m = with_fractions(qu.get(name, **inverse.params))
    drift = symbolic_drift(m, inverse.truth(m)).at_y
    drift = drift.replace(sp.Piecewise, lambda first, *_: first[0]) if name == "infosft" else drift  # below P
    if inverse.teacher is not None:
        teacher, truth = inverse.teacher(m), 1 - R**2
        drift = drift.xreplace({TEA.label: teacher.label, TEA.elsewhere: teacher.elsewhere})
        drift = drift.xreplace({ANY.label: truth.label, ANY.elsewhere: truth.elsewhere})
    assert vanishes_everywhere(without_varying_cases(drift)).holds
    wrong = symbolic_drift(m, SymbolicVector(P.label**2, P.elsewhere**2)).at_y
    assert not vanishes_everywhere(without_varying_cases(wrong)).holds, "any truth would do"


@pytest.mark.parametrize("name", INVERSES)
def test_the_numbers_of_the_table_are_those_of_its_inverse(name: str) -> None:
    inverse = INVERSES[name]
    flow = _flow(qu.get(name), truths(3, 4, 7), context(4, 8))
    found = known_value(flow)
    assert found is not None
    given = {name: torch.softmax(x, -1) for name, x in flow.context.items()}
    wanted = flow.truth if inverse.teacher is None else given["teacher_logits"]
    expression = (inverse.truth if inverse.teacher is None else inverse.teacher)(flow.m).label
    values: dict[sp.Symbol, Any] = {
        P.label: found,
        R.label: (1 - flow.truth).sqrt(),
        PRIOR.label: given.get("prior_logits"),
        REF.label: given.get("reference_logits"),
        BASE.label: given.get("teacher_base_logits"),
    }
    got = numbers(expression, {s: x for s, x in values.items() if s in expression.free_symbols} | {C: torch.ones(3, 1)})
    if name == "infosft":  # where C is no factor alone: any two tokens tell the same C
        level = flow.truth / got
        torch.testing.assert_close(level, level[:, :1].expand(-1, 4), rtol=1e-9, atol=0)
        return
    torch.testing.assert_close(got / got.sum(-1, keepdim=True), wanted, rtol=0, atol=1e-12)


def numbers(expression: Any, values: dict[sp.Symbol, Tensor]) -> Tensor:
    f = sp.lambdify(list(values), expression, "numpy")
    return torch.as_tensor(f(*[x.numpy() for x in values.values()]))


@pytest.mark.parametrize("name", ["dft", "mae"])
def test_where_the_drift_is_the_policy_gradient_the_likeliest_token_wins(name: str) -> None:
    eta, reward = TRUTH, sum_over_others(P.elsewhere * TRUTH.elsewhere)
    mean = P.label * eta.label + reward
    assert vanishes(symbolic_drift(qu.get(name)).at_y - P.label * (eta.label - mean))


@pytest.mark.parametrize("name", ["sparsemax", "entmax15", "bi_tempered", "temperature_ce"])
def test_through_another_link_the_prediction_is_the_truth(name: str) -> None:
    assert vanishes(symbolic_bias(qu.get(name), through_link=True).at_y)
    flow = _flow(qu.get(name), truths(5, 4), {})
    known = known_value(flow)
    assert known is not None
    t = flow.token(known.log(), torch.arange(5), torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(flow.m.prediction(t).probs, flow.truth, rtol=0, atol=1e-12)


# ---- derived ---------------------------------------------------------------------------------------------------

DERIVED = [
    pytest.param(
        m,
        id=name + "".join(f",{k}={v}" for k, v in given.items()),
    )
    for name in ENTRIES
    if name not in KNOWN and ENTRIES[name].shift_invariant
    for given in settings(name)
    if (m := qu.get(name, **given)) is not None
]


@pytest.mark.parametrize("m", one_each(DERIVED))
def test_what_is_derived_solves_the_equation_and_is_the_optimum(m: qu.QMap) -> None:
    found, flow = derived_optimum(m), _flow(m, truths(4, 4, 7), context(4, 8))
    if found is None:
        assert closed_form_of(flow) is None, "nothing is shown that is not derived"
        return
    parts = separated(m)
    assert parts is not None
    solved(found, parts)
    exact = separable_optima(flow)
    if exact is not None and bool(exact.unique.all()):
        torch.testing.assert_close(written(found, flow), exact.probs, rtol=0, atol=1e-9)


def solved(found: Derived, parts: Separated) -> None:
    """η w(u) + c = C u, with u what was derived; where C is not written it is found."""
    u = found.probs
    if found.shape == "proportional":
        scale = sp.Symbol("K", positive=True)
        level = sp.simplify((ETA * parts.weight / U).xreplace({U: scale * u}))
        assert not level.has(ETA, *CONTEXTS)
        return
    level = ((ETA * parts.weight + parts.fixed) / U).xreplace({U: u})
    unit = sp.simplify(sp.expand_log(sp.simplify(level / (C if u.has(C) else parts.weight + parts.others))))
    assert unit.is_number  # C is known up to its unit, which is negative for a push
    assert (unit < 0) == bool(parts.weight.subs(U, sp.Rational(1, 2)).is_negative)
    assert unit != 0


def written(found: Derived, flow: Any) -> Tensor:
    """The formula on numbers, C found by bisection on Σ p = 1."""
    short = dict(zip(CONTEXTS, ("reference", "teacher", "old", "prior", "teacher_base"), strict=True))
    values = {s: torch.softmax(flow.context[f"{n}_logits"], -1) for s, n in short.items() if found.probs.has(s)}
    values |= {ETA: flow.truth, V: torch.tensor(flow.vocab, dtype=torch.float64)}
    values |= {s: flow.context["token_weight"] for s in found.probs.free_symbols if s.name == "w"}
    if not found.probs.has(C):
        p = numbers(found.probs, values) + torch.zeros_like(flow.truth)
        return p / p.sum(-1, keepdim=True) if found.shape == "proportional" else p

    somewhere = found.probs.subs(dict.fromkeys(found.probs.free_symbols - {C}, sp.Rational(1, 2)))
    rises = bool(somewhere.subs(C, 8) > somewhere.subs(C, 4))

    def share(log_c: Tensor) -> Tensor:
        """Falling in C, or in 1/C for a push; beyond a pole, where it would turn negative, there is no optimum but a
        smaller C."""
        p = numbers(found.probs, values | {C: (-log_c if rises else log_c).exp()})
        p = torch.where(p.isfinite(), p, torch.inf)
        return p.clamp(min=0) if found.shape == "clipped" else torch.where(p < 0, torch.inf, p)

    low, high = torch.full((len(flow.truth), 1), -40.0).double(), torch.full((len(flow.truth), 1), 40.0).double()
    for _ in range(200):
        middle = (low + high) / 2
        over = share(middle).sum(-1, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return share((low + high) / 2)


def test_most_gates_are_derived() -> None:
    missing = set(qu.names("gates")) - set(KNOWN)
    missing = {n for n in missing if derived_optimum(qu.get(n)) is None}
    # Jumps and corners; weights that look at other tokens; an equation without a plain solution.
    assert missing == {
        "profit", "psft", "talr", "phuber_ce", "gold", "deft", "idft", "focal", "anti_focal", "cayley",
        "dft_undetached", "dice", "likelihood_gap", "ranktuner",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("sft", r"p^*=\eta"),
        ("gce", r"p^*\propto \eta^{\frac{10}{3}}"),
        ("poly1", r"p^*=\frac{\eta}{C - \eta}"),
        ("tailr", r"p^*=\left(\frac{\eta}{C} - \frac{1}{9}\right)_+"),
        ("kd_hybrid", r"p^*=\frac{\eta}{2} + \frac{\pi^{\mathrm{tea}}}{2}"),
        ("asft", r"p^*=\frac{\pi^{\mathrm{ref}}}{10 \left(C - \eta\right)}"),
        ("ce_u", r"p^*=\left(1 - \frac{\eta}{C}\right)_+"),  # of what is to be forgotten the less, the more it was
        ("js_noisy", r"p^*=\frac{1}{2^{\frac{C}{\eta}} - 1}"),
        ("agce", None),  # several stable points
        ("focal", None),  # no plain solution
        ("elr", None),
    ],
)
def test_closed_forms_as_a_user_sees_them(name: str, latex: str | None) -> None:
    found = qu.optimum(qu.get(name), [0.5, 0.3, 0.2], **context(3))
    assert found.closed_form == latex


def test_a_users_own_gate_and_mixture() -> None:
    root = qu.design("root", trust=lambda t: t.exp(t.log_p_label / 2), residual=lambda t: t.policy)
    assert qu.optimum(root, [0.5, 0.3, 0.2]).closed_form == r"p^*\propto \eta^{2}"
    mixed = qu.design("mixed", trust=lambda t, a: a, residual=lambda t: t.teacher, a=0.25)
    found = qu.optimum(mixed, [0.5, 0.3, 0.2], teacher_logits=[0.0, 0.0, 0.0])
    assert found.closed_form == r"p^*=\frac{\eta}{4} + \frac{3 \pi^{\mathrm{tea}}}{4}"
    torch.testing.assert_close(found.probs, torch.tensor([0.375, 0.325, 0.3], dtype=torch.float64), rtol=0, atol=1e-12)
    numpy_only = qu.design("torch", trust=lambda t: torch.as_tensor(t.p_label), residual=lambda t: t.uniform)
    assert qu.optimum(numpy_only, [0.5, 0.3, 0.2]).closed_form is None


def test_two_routes_to_one_optimum_share_their_key() -> None:
    """gce(1/2), GEM(2) and temperature_ce(2) all end at η²."""
    truth = truths(2, 3)
    keys = {
        qu.get(name, **given): closed_form_of(_flow(qu.get(name, **given), truth, {}))
        for name, given in (("gce", {"q": 0.5}), ("gem", {"beta": 2}), ("temperature_ce", {"temperature": 2}))
    }
    assert len({form.key for form in keys.values() if form is not None}) == 1
    assert None not in keys.values()


# ---- basins ----------------------------------------------------------------------------------------------------


def test_basins_of_two_likely_tokens_are_halves() -> None:
    """agce on two tokens of equal truth: the start's larger one wins."""
    found = qu.optimum(qu.get("agce"), [0.5, 0.5], basins=400)
    assert found.basin is not None
    assert found.all[0].tolist() in ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(found.basin[0], torch.tensor([0.5, 0.5]).double(), rtol=0, atol=0.08)
    assert float(found.basin[0].sum()) == 1


def test_basins_have_the_size_that_theory_gives_them() -> None:
    """agce on two tokens, truth (.52, .48): the saddle at p = .44 parts the segment."""
    found = qu.optimum(qu.get("agce"), [0.52, 0.48], basins=400)
    assert found.basin is not None
    shares = dict(zip(map(tuple, found.all[0].tolist()), found.basin[0].tolist(), strict=True))
    assert shares[1.0, 0.0] == pytest.approx(0.56, abs=0.05)  # 0.56 ± 0.025
    assert shares[0.0, 1.0] == pytest.approx(0.44, abs=0.05)


def test_basins_for_several_truths_one_optimum_and_none() -> None:
    one = qu.optimum(qu.get("tailr"), truths(2, 3), basins=16)
    assert one.basin is not None
    assert [b.tolist() for b in one.basin] == [[1.0], [1.0]]
    none = qu.optimum(qu.get("nce"), [0.5, 0.3, 0.2], basins=4)
    assert none.basin is not None
    assert none.basin[0].shape == (0,)
    assert qu.optimum(qu.get("sft"), [0.5, 0.5]).basin is None
    with pytest.raises(ValueError, match="sft: basins: expected a number of starts, 0 or more, got -1"):
        qu.optimum(qu.get("sft"), [0.5, 0.5], basins=-1)


def test_random_starts_are_uniform_on_the_simplex() -> None:
    from qunify.population._optima import _draws

    draws = _draws(qu.get("sft"), _flow(qu.get("sft"), truths(1, 3), {}), 4000)[0]
    torch.testing.assert_close(draws.mean(0), torch.full((3,), 1 / 3).double(), rtol=0, atol=0.02)
    assert float((draws[:, 0] > 0.5).double().mean()) == pytest.approx(0.25, abs=0.03)  # (1 − x)² at x = ½
