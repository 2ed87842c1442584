"""Targets induced from any Python loss, and targets designed by the user."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.maps import Gate
from tests.battery import Batch, batch, every_setting


def mean_squared_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits**2).mean(-1)


@pytest.mark.parametrize("name", ENTRIES)
def test_induced_recovers_every_entry(name: str) -> None:
    from qunify.token import TensorToken

    m = qu.get(name)
    whole = batch(5)  # its ordinary rows: on the extremes automatic differentiation itself loses digits
    b = Batch(whole.logits[:120], whole.labels[:120], {k: v[:120] for k, v in whole.context.items()})

    def published(logits: Tensor, labels: Tensor, **context: Tensor) -> Tensor:
        given = {k: v[:, None] if v.dim() == 1 else v.to(logits.dtype) for k, v in context.items()}
        return m.loss(TensorToken(logits, labels, given))[:, 0] + 0 * logits.sum(-1)

    q = m(b.logits, b.labels, **b.context)
    measured = qu.induced(published, b.logits, b.labels, **{k: b.context[k] for k in m.needs})
    assert measured.shift_invariant == m.shift_invariant
    torch.testing.assert_close(measured.loss, q.loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(measured.gradient, q.gradient, rtol=1e-9, atol=1e-11)
    if m.shift_invariant:
        torch.testing.assert_close(measured.target, q.target, rtol=1e-9, atol=1e-11)
    moving = q.gradient.abs().amax(-1) > 1e-3
    if isinstance(m, Gate):
        torch.testing.assert_close(measured.trust[moving], q.trust[moving], rtol=1e-8, atol=1e-10)
    boundary, expected = measured.in_gauge("boundary"), q.in_gauge("boundary")
    torch.testing.assert_close(boundary.scale[moving], expected.scale[moving], rtol=1e-7, atol=1e-9, equal_nan=True)
    assert bool(measured.in_gauge("fixed").scale.isnan().all())


def test_trust_is_measured_only_where_the_target_is_a_gate() -> None:
    b = batch(24)
    smoothed = qu.induced(lambda z, y: F.cross_entropy(z, y, reduction="none", label_smoothing=0.1), b.logits, b.labels)
    assert bool(smoothed.trust[:180].isnan().all())
    gate = qu.induced(lambda z, y: F.cross_entropy(z, y, reduction="none"), b.logits, b.labels)
    torch.testing.assert_close(gate.trust[:120], torch.ones(120).double(), rtol=1e-9, atol=0)


def test_violation_of_shift_invariance_is_measured() -> None:
    q = qu.induced(mean_squared_logits, torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), torch.tensor([0]))
    assert not q.shift_invariant
    assert float(q.violation) == pytest.approx(4.0)  # Σ 2z/3
    assert bool(q.target.isnan().all())
    assert not bool(q.in_simplex.any())


def test_induced_drops_ignored_rows_and_takes_any_shape() -> None:
    logits, labels = torch.randn(2, 3, 4), torch.randint(0, 4, (2, 3))
    labels[0] = -100
    logits[0] = torch.nan
    q = qu.induced(lambda z, y: F.cross_entropy(z, y, reduction="none"), logits, labels)
    assert q.gradient.shape == (2, 3, 4)
    assert float(q.gradient[0].abs().sum()) == 0
    empty = qu.induced(mean_squared_logits, logits, torch.full((2, 3), -100))
    assert float(empty.loss.abs().sum()) == 0


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda z, y: F.cross_entropy(z, y), r"expected one loss per token, shape \(2,\), got \(\); return the losses"),
        (lambda z, y: z, r"expected one loss per token, shape \(2,\), got \(2, 3\)"),
        (lambda z, y: 1.0, r"expected one loss per token, shape \(2,\), got float"),
        (lambda z, y: z.detach().sum(-1), "expected losses that depend differentiably on the logits"),
        (lambda z, y: z.sum(-1) * torch.nan, "expected finite losses, got nan"),
        (lambda z, y: (z - z.detach()).abs().sum(-1).sqrt(), "expected finite gradient, got nan"),
    ],
)
def test_bad_losses_are_told_what_to_change(loss_fn: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qu.induced(loss_fn, torch.randn(2, 3), torch.tensor([0, 1]))  # type: ignore[arg-type]


# ---- design -------------------------------------------------------------------------------------------------


def test_design_is_cross_entropy_to_the_chosen_target() -> None:
    b = batch(5)
    mine = qu.design("mine", trust=lambda t, power: t.p_label**power, residual=lambda t: t.teacher, power=0.5)
    q = mine(b.logits, b.labels, **b.context)
    u = torch.softmax(b.logits, -1).gather(1, b.labels[:, None])
    teacher = torch.softmax(b.context["teacher_logits"], -1)
    expected = u**0.5 * F.one_hot(b.labels, 5) + (1 - u**0.5) * teacher
    torch.testing.assert_close(q.target, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(q.loss, -(expected * torch.log_softmax(b.logits, -1)).sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q.in_gauge("fixed").target, expected, rtol=0, atol=1e-14)
    assert bool(q.in_simplex.all())
    assert (mine.name, mine.params, mine.family) == ("mine", {"power": 0.5}, "designed")


def test_design_can_rebuild_catalogue_entries() -> None:
    b = batch(24)
    pairs = {
        "sft": (lambda t: 1.0, lambda t: t.policy),
        "dft": (lambda t: t.p_label, lambda t: t.policy),
        "label_smoothing": (lambda t: 0.9, lambda t: t.uniform),
        "kd_hybrid": (lambda t: 0.5, lambda t: t.teacher),
        "target_sft": (lambda t: t.p_label, lambda t: t.geometric(t.policy, t.teacher, 0.5)),
        "taid": (lambda t: 0.0, lambda t: t.geometric(t.policy, t.teacher, 0.4)),
    }
    for name, (trust, residual) in pairs.items():
        left = qu.design(name, trust=trust, residual=residual)(b.logits, b.labels, **b.context)
        right = qu.get(name)(b.logits, b.labels, **b.context)
        torch.testing.assert_close(left.gradient, right.gradient, rtol=0, atol=1e-14)


def test_design_is_told_of_missing_contexts_and_unknown_parameters() -> None:
    mine = qu.design("mine", trust=lambda t: 0.5, residual=lambda t: t.reference)
    with pytest.raises(ValueError, match="mine: missing context, expected the keyword argument reference_logits"):
        mine(torch.randn(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="mine: unknown parameter 'b', expected a name that trust or residual takes"):
        qu.design("mine", trust=lambda t: 0.5, residual=lambda t: t.policy, b=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def test_induced_measures_in_float64_whatever_it_is_given() -> None:
    logits, labels = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    expected = qu.induced(cross_entropy, logits, labels)
    for same in (logits.numpy(), logits.tolist()):
        q = qu.induced(cross_entropy, same, labels.tolist())
        assert q.gradient.dtype == torch.float64
        torch.testing.assert_close(q.gradient, expected.gradient)
    teacher = torch.zeros(4, 6).numpy()
    seen: list[torch.dtype] = []

    def watched(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        seen.append(teacher_logits.dtype)
        return cross_entropy(z, y)

    qu.induced(watched, logits, labels, teacher_logits=teacher)
    assert seen == [torch.float64]


def test_induced_gives_the_loss_labels_it_can_index_with() -> None:
    logits, labels = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    q = qu.induced(cross_entropy, logits, labels.int())
    torch.testing.assert_close(q.loss, qu.induced(cross_entropy, logits, labels).loss)


def test_induced_wants_a_function() -> None:
    expected = r"expected a function \(logits, labels, …\) or a QMap, such as qunify\.get gives of an id, got 'sft'"
    with pytest.raises(ValueError, match=f"induced: loss_fn: {expected}"):
        qu.induced("sft", torch.zeros(1, 2), torch.tensor([0]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trust", "residual", "message"),
    [
        (lambda t: None, lambda t: t.policy, "mine: trust: expected one number per token, got NoneType"),
        (lambda t: t.policy, lambda t: t.policy, "mine: trust: expected one number per token, got Distribution"),
        (0.5, lambda t: t.policy, "mine: trust: expected a function of a Token, got 0.5"),
        (
            lambda t: t.p_label[:, 0],
            lambda t: t.policy,
            r"mine: trust: expected one number per token, shape \(2, 1\), got \(2,\)",
        ),
        (lambda t: t.p_label, lambda t: t.policy.probs, "mine: residual: expected a distribution such as t.policy"),
        (lambda t: min(t.p_label, 0.5), lambda t: t.policy, r"mine: trust: expected .* t.minimum, .*got RuntimeError"),
        (lambda t: t.plabel, lambda t: t.policy, "mine: trust: a Token has no 'plabel', did you mean p_label"),
        (lambda t: 0.5, lambda t: t.policy + t.uniform, "mine: residual: expected .* t.mixture .*got TypeError"),
    ],
)
def test_a_bad_design_is_told_at_once(trust: object, residual: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qu.design("mine", trust=trust, residual=residual)  # type: ignore[arg-type]


def test_a_design_knows_its_contexts() -> None:
    mine = qu.design("mine", trust=lambda t: 0.5, residual=lambda t: t.geometric(t.teacher, t.reference, 0.5))
    assert mine.needs == ("reference_logits", "teacher_logits")
    assert mine.title
    assert mine.source
    plain = qu.design("plain", trust=lambda t: t.p_label, residual=lambda t: t.policy)
    assert plain(torch.randn(2, 3), torch.tensor([0, 1]), teacher_logits=None).mask.all()


# ---- realistic vocabularies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 5.0, 10.0])
def test_induced_measures_cross_entropy_in_float32(scale: float) -> None:
    r = torch.Generator().manual_seed(0)
    logits, labels = scale * torch.randn(30, 32000, generator=r), torch.randint(32000, (30,), generator=r)
    labels[::2] = logits[::2].argmax(-1)
    q = qu.induced(lambda z, y: F.cross_entropy(z, y, reduction="none"), logits, labels)
    assert q.shift_invariant
    assert bool(q.in_simplex.all())
    torch.testing.assert_close(q.trust, torch.ones(30).double(), rtol=1e-6, atol=0)
    assert bool(qu.get("sft")(logits, labels).in_simplex.all())


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_induced_tells_a_small_violation_from_rounding(factor: float) -> None:
    logits, labels = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)), torch.arange(8)

    def with_penalty(weight: float) -> qu.QTarget:
        def loss(z: Tensor, y: Tensor) -> Tensor:
            return factor * (F.cross_entropy(z, y, reduction="none") + weight * z.logsumexp(-1) ** 2)

        return qu.induced(loss, logits, labels)

    assert with_penalty(0.0).shift_invariant
    assert not with_penalty(1e-6).shift_invariant


def test_a_loss_that_casts_to_float32_is_measured_as_such() -> None:
    logits, labels = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    cast = qu.induced(lambda z, y: F.cross_entropy(z.float(), y, reduction="none"), logits, labels)
    assert cast.shift_invariant
    torch.testing.assert_close(cast.trust, torch.ones(8).double(), rtol=1e-4, atol=0)


# ---- at the ends of floating point --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_next_to_impossible_does_not_set_the_boundary(dtype: torch.dtype) -> None:
    """A gate's boundary is its weight. Below the normal numbers a probability is a few units of the least one, and a
    ratio of two such is anything: 0.3 · 2 units is 1 unit, which would say that the weight is a half."""
    least = torch.tensor(torch.finfo(dtype).tiny, dtype=dtype).log().item()
    far = torch.arange(least - 40, least + 10, 0.25, dtype=dtype)
    logits = torch.stack([torch.zeros_like(far), torch.full_like(far, -1.0), far], 1)
    p = logits.softmax(-1)[:, 2]
    assert bool(((p > 0) & (p < torch.finfo(dtype).tiny)).any()), "some are below the normal numbers"
    for weight in (0.1, 0.3, 0.6, 0.9):
        given = torch.full_like(far, weight)
        q = qu.get("iw_sft")(logits, torch.zeros(len(far), dtype=torch.long), token_weight=given)
        torch.testing.assert_close(q.in_gauge("boundary").scale, given, rtol=100 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("case", [c for c in every_setting() if isinstance(c.values[0], Gate)])
def test_what_a_gate_takes_from_others_is_what_it_gives_the_label(case: Gate) -> None:
    """To all digits, also where the model is sure and u is 1 in floating point: they are in 1 − u."""
    sure = torch.arange(1.0, 60.0, dtype=torch.float64)
    logits = torch.stack([sure, torch.zeros_like(sure), torch.full_like(sure, -1.0)], 1)
    assert bool((logits.softmax(-1)[-20:, 0] == 1).all())
    context = {k: v[:1].expand(len(sure), *v.shape[1:]) for k, v in batch(3).context.items()}
    context |= {"token_weight": torch.full_like(sure, 1.3), "token_mask": torch.ones_like(sure)}
    g = case(logits, torch.zeros(len(sure), dtype=torch.long), **context).gradient
    torch.testing.assert_close(g[:, 0], -g[:, 1:].sum(-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", [c for c in every_setting() if isinstance(c.values[0], Gate)])
def test_nothing_remains_of_a_gate_at_the_boundary(case: Gate) -> None:
    """There its target is the label alone, and what is left of one is rounding: no distribution is read into that."""
    b = batch(5)
    gauge = case(b.logits, b.labels, **b.context).in_gauge("boundary")
    whole = gauge.trust > 0.5  # a weight below zero takes from the label
    torch.testing.assert_close(gauge.trust[whole], torch.ones(int(whole.sum())).double(), rtol=0, atol=1e-12)
    assert bool(gauge.residual[whole].isnan().all())
    assert bool(whole.any()) == bool((gauge.trust > 0).any())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_what_remains_is_seen_to_the_last_bit_of_doubt(eta: float) -> None:
    """Where u is 1 but for rounding, 1 − u gives what remains its size, and not its shape."""
    sure = torch.arange(1.0, 36.0, dtype=torch.float64)
    logits = torch.stack([sure, torch.zeros_like(sure), torch.full_like(sure, -1.0)], 1)
    teacher = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log().expand(len(sure), -1)
    labels = torch.zeros(len(sure), dtype=torch.long)
    found = qu.get("target_sft", eta=eta)(logits, labels, teacher_logits=teacher).residual
    blend = ((1 - eta) * logits.log_softmax(-1) + eta * teacher).softmax(-1)
    torch.testing.assert_close(found, blend, rtol=0, atol=1e-9)
