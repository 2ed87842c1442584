"""Properties that hold for every method on any tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.token import TensorToken, Token, _tensors
from qunify.token._projections import tempered_normaliser, top_k
from tests.battery import Batch, batch

METHODS = st.sampled_from(sorted(ENTRIES))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    vocab, n = draw(st.integers(2, 12)), draw(st.integers(1, 5))
    r = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.3, 1.0, 4.0]))

    def normal() -> Tensor:
        return scale * torch.randn(n, vocab, generator=r, dtype=torch.float64)

    labels = torch.randint(0, vocab, (n,), generator=r)
    context = {f"{k}_logits": normal() for k in ("reference", "teacher", "old", "prior", "teacher_base")}
    context["token_weight"] = torch.randn(n, generator=r, dtype=torch.float64)
    context["token_mask"] = torch.rand(n, generator=r) < 0.5
    context["negative_mask"] = torch.rand(n, vocab, generator=r) < 0.3
    context["token_values"] = normal().masked_fill(torch.rand(n, vocab, generator=r) < 0.3, torch.nan)
    return Batch(normal(), labels, context)


@given(METHODS, batches(), st.floats(-50, 50))
@settings(max_examples=300)
def test_a_shift_of_the_logits_changes_nothing_if_declared(name: str, b: Batch, shift: float) -> None:
    m = qu.get(name)
    if m.shift_invariant:
        here, there = m(b.logits, b.labels, **b.context), m(b.logits + shift, b.labels, **b.context)
        torch.testing.assert_close(here.gradient, there.gradient, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(here.loss, there.loss, rtol=1e-9, atol=1e-9)


@given(METHODS, batches(), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_renaming_the_vocabulary_renames_the_target(name: str, b: Batch, random: object) -> None:
    vocab = b.logits.shape[-1]
    order = list(range(vocab))
    random.shuffle(order)  # type: ignore[attr-defined]
    new = torch.tensor(order)
    context = {k: v[:, new] if v.dim() == 2 else v for k, v in b.context.items()}
    m = qu.get(name)
    here = m(b.logits, b.labels, **b.context)
    there = m(b.logits[:, new], new.argsort()[b.labels], **context)
    torch.testing.assert_close(here.gradient[:, new], there.gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(here.loss, there.loss, rtol=1e-9, atol=1e-12)


@given(METHODS.filter(lambda name: not qu.get(name).pools), batches())
@settings(max_examples=300)
def test_tokens_do_not_see_each_other(name: str, b: Batch) -> None:
    m = qu.get(name)
    together = m(b.logits, b.labels, **b.context)
    alone = m(b.logits[-1], b.labels[-1], **{k: v[-1] for k, v in b.context.items()})
    torch.testing.assert_close(together.gradient[-1], alone.gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(together.loss[-1], alone.loss, rtol=1e-12, atol=1e-14)


@given(batches(), st.integers(1, 20))
def test_a_shorter_way_to_a_number_gives_that_number(b: Batch, k: int) -> None:
    t = TensorToken(b.logits.round(decimals=1), b.labels, {})  # some tie
    for name, more in (("mean_rank", ()), ("label_rank", ()), ("top_k_entropy", (k,))):
        short, defined = getattr(t, name)(t.policy, *more), getattr(Token, name)(t, t.policy, *more)
        torch.testing.assert_close(short, defined, rtol=1e-12, atol=1e-12, msg=name)


def test_methods_that_share_a_token_share_its_likeliest_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(x: Tensor, k: int) -> Tensor:
        asked.append(k)
        return top_k(x, k)

    monkeypatch.setattr(_tensors, "top_k", counted)
    b = batch(40)
    qu.gradients([qu.get("hinge_ranking"), qu.get("logistic_ranking")], b.logits, b.labels, **b.context)
    assert asked == [1, 2, 3, 4]


@given(batches(), st.floats(1.05, 4))
def test_the_normaliser_of_the_tempered_softmax_takes_a_few_steps(b: Batch, temperature: float) -> None:
    z = b.logits.repeat(1, 400)
    few, many = (tempered_normaliser(z, None, temperature, steps) for steps in (2, 50))
    torch.testing.assert_close(few, many, rtol=1e-5, atol=0)


@given(METHODS, batches())
@settings(max_examples=300)
def test_target_and_gradient_are_two_views_of_one_thing(name: str, b: Batch) -> None:
    m = qu.get(name)
    q = m(b.logits, b.labels, **b.context)
    if m.shift_invariant:
        torch.testing.assert_close(torch.softmax(b.logits, -1) - q.target, q.gradient, rtol=1e-9, atol=1e-12)
        assert float(q.violation.max()) <= 1e-10 * (1 + float(q.gradient.abs().max()))
    else:
        assert float(q.violation.max()) > 1e-7


@given(batches(), st.floats(0, 1))
@settings(max_examples=100)
def test_designed_targets_are_what_they_say(b: Batch, trust: float) -> None:
    m = qu.design("half", trust=lambda t: trust, residual=lambda t: t.mixture(t.teacher, t.uniform, 0.3))
    q = m(b.logits, b.labels, **b.context)
    vocab = b.logits.shape[-1]
    rest = 0.7 * torch.softmax(b.context["teacher_logits"], -1) + 0.3 / vocab
    expected = trust * torch.nn.functional.one_hot(b.labels, vocab).double() + (1 - trust) * rest
    torch.testing.assert_close(q.target, expected, rtol=0, atol=1e-13)
    assert bool(q.in_simplex.all())
