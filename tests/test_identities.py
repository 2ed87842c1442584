"""Every identity, limit and data-level equivalence of the catalogue, on numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import sympy as sp
import torch

import qunify as qu
from qunify.catalogue.identities import CHANNELS, IDENTITIES, Bindings, Channel, Expression, Identity, Term
from qunify.comparison._proofs import proportional
from qunify.population._symbolic_drift import TRUTH, symbolic_drift
from qunify.symbolic import symbolic_gradient
from qunify.symbolic._normal_form import vanishes
from qunify.token import SymbolicVector, V, per_token
from tests.battery import Batch, batch

P = SymbolicVector(*per_token("p"))

ROWS = [*range(0, 180, 13), 184, 186]  # every scale, the uniform row, a one-hot row


def value(expression: Expression, point: Mapping[str, float]) -> float:
    return float(sp.sympify(expression).subs(point))


def token_quantities(b: Batch, row: int) -> dict[str, float]:
    p = torch.softmax(b.logits[row], -1)
    tea = torch.softmax(b.context["teacher_logits"][row], -1)
    y = int(b.labels[row])
    return {"u": float(p[y]), "V": float(len(p)), "tea_y": float(tea[y]), "sum_p2": float((p**2).sum())}


def bind(params: Bindings, point: Mapping[str, float]) -> dict[str, float]:
    return {k: int(value(v, point)) if k in ("k", "order") else value(v, point) for k, v in params.items()}


def gradient(term: Term, b: Batch, row: int, point: Mapping[str, float], label: int | None = None) -> torch.Tensor:
    m = qu.get(term.name, **bind(term.params, point))
    y = b.labels[row] if label is None else torch.tensor(label)
    context = {k: v[row : row + 1] for k, v in b.context.items()}
    return value(term.factor, point) * m(b.logits[row : row + 1], y[None], **context).gradient[0]


def with_given(b: Batch, given: Mapping[str, str]) -> Batch:
    context = dict(b.context)
    for name, source in given.items():
        if source == "label":
            one_hot = torch.nn.functional.one_hot(b.labels, b.logits.shape[-1])
            context[name] = torch.where(one_hot == 1, 0.0, -torch.inf).double()
        else:
            context[name] = torch.zeros_like(b.logits) if source == "uniform" else context[source]
    return b._replace(context=context)


def points(free: Mapping[str, tuple[float, ...]]) -> list[dict[str, float]]:
    return [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]


def title(i: Identity) -> str:
    return f"{i.left.name}{dict(i.left.params)}=" + "+".join(t.name for t in i.right)


@pytest.mark.parametrize(
    "identity",
    [pytest.param(x, id=title(x), marks=[pytest.mark.slow] if i % 5 else []) for i, x in enumerate(IDENTITIES)],
)
def test_identity(identity: Identity) -> None:
    b = with_given(batch(5), identity.given)
    for row, free in itertools.product(ROWS, points(identity.free)):
        point = free | token_quantities(b, row)
        left = gradient(identity.left, b, row, point)
        right = sum(gradient(term, b, row, point) for term in identity.right)
        scale = max(1.0, float(left.abs().max()))
        torch.testing.assert_close(left / scale, right / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda c: f"{c.stay}→{c.equals.name}")
def test_channel(channel: Channel) -> None:
    b = batch(5)
    for row, free in itertools.product(ROWS, points(channel.free)):
        point = free | token_quantities(b, row)
        teacher = torch.softmax(b.context["teacher_logits"][row], -1)
        y = int(b.labels[row])
        expected = torch.zeros(5, dtype=torch.float64)
        for k in range(5):
            probability = value(channel.stay if k == y else channel.move, point | {"tea_k": float(teacher[k])})
            expected += probability * gradient(channel.method, b, row, point, label=k)
        torch.testing.assert_close(expected, gradient(channel.equals, b, row, point), rtol=0, atol=1e-12)


def test_sft_on_redrawn_labels_is_cross_entropy_to_their_distribution() -> None:
    """E over j ~ η of p − δ_j is p − η, in symbols, for every V: what the channels of SFT rest on."""
    assert vanishes(symbolic_drift(qu.get("sft")).at_y - (TRUTH.label - P.label))
    teacher = SymbolicVector(*per_token("tea"))
    kd = symbolic_gradient(qu.get("kd"))
    assert vanishes(symbolic_drift(qu.get("sft"), teacher).at_y + kd.label)


@pytest.mark.parametrize("channel", [c for c in CHANNELS if "tea" not in str(c.stay)], ids=lambda c: str(c.stay))
def test_channel_is_proved(channel: Channel) -> None:
    """With labels kept with probability s and moved to each other token with m, the expectation is p (s + (V−1) m)
    less s at y and less m elsewhere."""
    names = {"e": sp.Symbol("e", positive=True), "c": sp.Symbol("c", positive=True), "V": V}

    def read(expression: Expression) -> sp.Expr:
        return sp.sympify(expression, locals=names)

    stay, move = read(channel.stay), read(channel.move)
    mass = stay + (V - 1) * move
    equal = qu.get(channel.equals.name, **{k: read(v) for k, v in channel.equals.params.items()})
    expected = symbolic_gradient(equal) * read(channel.equals.factor)
    assert channel.method.name == "sft"
    assert sp.simplify(P.label * mass - stay - expected.label) == 0
    assert sp.simplify(P.elsewhere * mass - move - expected.elsewhere) == 0


@pytest.mark.parametrize("name", ["dft", "label_smoothing", "target_sft", "brier", "tvd", "jsd", "eaft", "chord_phi"])
def test_a_method_is_sft_on_labels_drawn_from_its_target(name: str) -> None:
    """Where Q is a distribution, redrawing every label from Q and training by SFT gives the method's gradient."""
    b = batch(5)
    q = qu.get(name)(b.logits, b.labels, **b.context)
    assert bool(q.in_simplex.all())
    p = torch.softmax(b.logits, -1)
    drawn = sum(
        q.target[:, [j]].clamp(min=0) * qu.get("sft")(b.logits, torch.full_like(b.labels, j)).gradient for j in range(5)
    )
    torch.testing.assert_close(drawn, q.gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(p - q.target, q.gradient, rtol=0, atol=1e-15)


def test_drift_of_dft_is_the_policy_gradient() -> None:
    """E over y ~ η of −g equals Σ_a p_a η_a (δ_a − p): the policy gradient of the expected reward η."""
    r = torch.Generator().manual_seed(3)
    logits = torch.randn(7, 6, generator=r, dtype=torch.float64)
    truth = torch.softmax(torch.randn(7, 6, generator=r, dtype=torch.float64), -1)
    p = torch.softmax(logits, -1).requires_grad_(False)
    drift = sum(truth[:, [y]] * -qu.get("dft")(logits, torch.full((7,), y)).gradient for y in range(6))
    z = logits.clone().requires_grad_()
    (reward_gradient,) = torch.autograd.grad((torch.softmax(z, -1) * truth).sum(), z)
    torch.testing.assert_close(drift, reward_gradient, rtol=0, atol=1e-15)
    torch.testing.assert_close(drift, p * (truth - (p * truth).sum(-1, keepdim=True)), rtol=0, atol=1e-15)


def test_target_sft_at_eta_one_pulls_the_rest_to_the_teacher() -> None:
    b = batch(5)
    whole = qu.design("whole", trust=lambda t: t.p_label, residual=lambda t: t.teacher)
    left = qu.get("target_sft", eta=1)(b.logits, b.labels, **b.context)
    right = whole(b.logits, b.labels, teacher_logits=b.context["teacher_logits"])
    torch.testing.assert_close(left.gradient, right.gradient, rtol=0, atol=1e-14)


def test_a_false_identity_is_caught() -> None:
    wrong = Identity(Term("tailr", {"gamma": 0.5}), (Term("dft"),))
    with pytest.raises(AssertionError):
        test_identity(wrong)


def test_proportional_at_the_label_alone_is_not_proportional() -> None:
    """Both put 9/10 on the label; what is left goes to the other tokens evenly, or as the teacher has it."""
    even, taught = (
        qu.design(name, trust=lambda t: 0.9, residual=residual)
        for name, residual in (
            ("even", lambda t: t.without_label(t.uniform)),
            ("taught", lambda t: t.without_label(t.teacher)),
        )
    )
    assert vanishes(symbolic_gradient(even).label - symbolic_gradient(taught).label)
    assert proportional(even, taught, ()) is None
    assert proportional(even, even, ()) is not None


def test_a_factor_is_one_number_for_all_tokens_of_every_vocabulary() -> None:
    sft, halved, shared = (
        qu.design(name, trust=trust, residual=lambda t: t.policy)
        for name, trust in (("sft", lambda t: 1), ("halved", lambda t: 0.5), ("shared", lambda t: 1 / t.vocab))
    )
    found = proportional(sft, halved, ())
    assert found is not None
    assert found.factor == sp.Rational(1, 2)
    assert proportional(sft, shared, ()) is None, "1/V is another number in another vocabulary"
    assert proportional(sft, shared, (), 1 / V) is not None
