"""The fused loss: what the module gives on whole logits, for every method, and never all logits at once."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

import qunify as qu
from qunify.training import _fused as linear
from qunify.training._fused import _FusedLoss, _Head, _losses_and_gradients, _Plan
from tests.battery import every_setting

N, D, V = 23, 6, 9
DISTRIBUTIONS = {"reference_logits": "reference", "teacher_logits": "teacher", "old_logits": "old"}


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HIDDEN, WEIGHT, BIAS = normal(N, D, seed=0), normal(V, D, seed=1, scale=2), normal(V, seed=2)
LABELS = torch.randint(V, (N,), generator=torch.Generator().manual_seed(3))
LABELS[::5] = -100
CONTEXT = {name: normal(N, V, seed=4 + i, scale=2) for i, name in enumerate((*DISTRIBUTIONS, "prior_logits"))}
CONTEXT |= {
    "token_weight": torch.rand(N, generator=torch.Generator().manual_seed(9), dtype=torch.float64),
    "token_mask": (torch.arange(N) % 3 > 0).double(),
    "teacher_base_logits": normal(N, V, seed=10, scale=2),
    "token_values": torch.where(torch.arange(V) % 3 > 0, torch.arange(V), torch.nan).double().expand(N, V),
    "negative_mask": torch.zeros(N, V)
    .index_fill(1, torch.tensor([2]), 1.0)
    .scatter(1, LABELS.clamp(min=0)[:, None], 0.0)
    .double(),
}


def whole(m: Any, reduction: Any = "mean", upstream: Tensor | None = None, **more: Any) -> list[Tensor]:
    """Loss and gradients by the module on whole logits."""
    h, w, b = (x.clone().requires_grad_() for x in (HIDDEN, WEIGHT, BIAS))
    given = {k: v for k, v in CONTEXT.items() if k in m.needs}
    z = h @ w.T + b
    z = more.get("logit_scale", 1.0) * z
    if cap := more.get("softcap"):
        z = cap * (z / cap).tanh()
    loss = qu.loss(m, reduction)(z, LABELS, **given)
    loss.backward(upstream)
    return [loss.detach(), *(x.grad for x in (h, w, b))]


def fused(m: Any, reduction: Any = "mean", upstream: Tensor | None = None, **more: Any) -> list[Tensor]:
    h, w, b = (x.clone().requires_grad_() for x in (HIDDEN, WEIGHT, BIAS))
    given = {DISTRIBUTIONS.get(k, k): v for k, v in CONTEXT.items() if k in m.needs}
    loss = qu.linear_loss(h, w, LABELS, m, bias=b, reduction=reduction, chunk_size=7, **given, **more)
    loss.backward(upstream)
    return [loss.detach(), *(x.grad for x in (h, w, b))]


def same(a: list[Tensor], b: list[Tensor], atol: float = 1e-9) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("m", every_setting())
def test_every_method_is_the_same_as_on_whole_logits(m: Any) -> None:
    same(fused(m), whole(m))


@pytest.mark.parametrize("name", ["sft", "target_sft", "gem", "brier", "topk_kd", "sparsemax", "psft", "z_loss"])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_reductions_scale_and_softcap(name: str, reduction: str) -> None:
    upstream = normal(N, seed=20) if reduction == "none" else torch.tensor(0.7, dtype=torch.float64)
    more = {"logit_scale": 0.6, "softcap": 3.0}
    same(fused(qu.get(name), reduction, upstream, **more), whole(qu.get(name), reduction, upstream, **more))


def test_designed_maps() -> None:
    m = qu.design("own", trust=lambda t: t.p_label**0.5, residual=lambda t: t.geometric(t.policy, t.teacher, 0.3))
    same(fused(m), whole(m))


def test_other_heads_and_listed_tokens_as_contexts() -> None:
    other_h, other_w = normal(N, 4, seed=30), normal(V, 4, seed=31)
    logits = other_h @ other_w.T
    expected = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd_hybrid", teacher=logits)
    given = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd_hybrid", teacher=(other_h, other_w), chunk_size=4)
    torch.testing.assert_close(given, expected)
    log_p = logits.log_softmax(-1)
    every = qu.TopK(*log_p.topk(V))
    torch.testing.assert_close(qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd_hybrid", teacher=every), expected)
    few = log_p.topk(3)
    for tail in ("bucket", "renormalise"):
        by_hand = torch.full_like(log_p, -torch.inf)
        if tail == "bucket":
            by_hand = ((1 - few.values.exp().sum(-1, keepdim=True)) / (V - 3)).log().expand_as(log_p)
        by_hand = by_hand.scatter(-1, few.indices, few.values)
        torch.testing.assert_close(
            qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=qu.TopK(few.values, few.indices, tail)),
            qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=by_hand),
        )


@pytest.mark.parametrize("more", [{}, {"logit_scale": 0.6}, {"softcap": 3.0}, {"logit_scale": 0.6, "softcap": 3.0}])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", ["target_sft", "asft", "psft"])  # a teacher, a reference and an older policy
def test_another_head_is_scaled_and_capped_as_the_models_own(name: str, with_bias: bool, more: dict[str, Any]) -> None:
    (context,) = qu.get(name).needs
    other_h, other_w, other_b = normal(N, 4, seed=30), normal(V, 4, seed=31), normal(V, seed=32) if with_bias else None
    z = more.get("logit_scale", 1.0) * (other_h @ other_w.T + (0 if other_b is None else other_b))
    cap = more.get("softcap", math.inf)
    capped = z if math.isinf(cap) else cap * (z / cap).tanh()
    assert float(z.abs().max()) > 4, "or a cap of 3 would not show"
    found = [
        qu.linear_loss(HIDDEN, WEIGHT, LABELS, name, chunk_size=4, **{DISTRIBUTIONS[context]: given}, **more)
        for given in ((other_h, other_w, other_b), capped)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
def test_listed_tokens_that_hold_all_the_mass_and_a_rounding_more(tail: Any) -> None:
    """As stored teachers do: log-probabilities are rounded, and may add up to a little more than one."""
    listed = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    values, indices = listed.log().add(1e-7).expand(N, -1), torch.tensor([4, 1, 7]).expand(N, -1)
    assert bool((values.exp().sum(-1) > 1).all())
    teacher = torch.full((N, V), -torch.inf, dtype=torch.float64)
    teacher[:, indices[0]] = listed.log()
    h = HIDDEN.clone().requires_grad_()
    loss = qu.linear_loss(h, WEIGHT, LABELS, "kd", teacher=qu.TopK(values, indices, tail))
    loss.backward()
    g = HIDDEN.clone().requires_grad_()
    expected = qu.linear_loss(g, WEIGHT, LABELS, "kd", teacher=teacher)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(h.grad, g.grad, rtol=1e-6, atol=1e-7)


def test_any_python_loss_chunk_by_chunk() -> None:
    def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")

    h = HIDDEN.clone().requires_grad_()
    loss = qu.linear_loss(h, WEIGHT, LABELS, smoothed, chunk_size=5)
    loss.backward()
    g = HIDDEN.clone().requires_grad_()
    qu.linear_loss(g, WEIGHT, LABELS, qu.get("label_smoothing", smoothing=0.1)).backward()
    torch.testing.assert_close(h.grad, g.grad)

    def with_teacher(logits: Tensor, labels: Tensor, teacher_logits: Tensor, token_weight: Tensor) -> Tensor:
        return token_weight * -(teacher_logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)

    total = qu.linear_loss(
        HIDDEN, WEIGHT, LABELS, with_teacher, reduction="sum", teacher=CONTEXT["teacher_logits"],
        token_weight=CONTEXT["token_weight"], chunk_size=6,
    )  # fmt: skip
    kept = LABELS != -100
    each = with_teacher(HIDDEN @ WEIGHT.T, LABELS, CONTEXT["teacher_logits"], CONTEXT["token_weight"])
    torch.testing.assert_close(total, each[kept].sum())


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_a_gradient_for_one_of_hidden_and_weight(wanted: tuple[bool, bool]) -> None:
    both = whole(qu.get("dft"))
    h, w = HIDDEN.clone().requires_grad_(wanted[0]), WEIGHT.clone().requires_grad_(wanted[1])
    qu.linear_loss(h, w, LABELS, "dft", bias=BIAS).backward()
    for x, expected, want in ((h, both[1], wanted[0]), (w, both[2], wanted[1])):
        if want:
            torch.testing.assert_close(x.grad, expected, rtol=1e-9, atol=1e-12)
        else:
            assert x.grad is None


def test_tied_weights_add_up() -> None:
    tokens = torch.randint(V, (N,), generator=torch.Generator().manual_seed(40))
    fused_table, whole_table = (WEIGHT.clone().requires_grad_() for _ in range(2))
    qu.linear_loss(fused_table[tokens], fused_table, LABELS, "gem").backward()
    qu.loss("gem")(whole_table[tokens] @ whole_table.T, LABELS).backward()
    torch.testing.assert_close(fused_table.grad, whole_table.grad, rtol=1e-9, atol=1e-12)


def test_accumulation_counts_the_whole_batch() -> None:
    kept = (LABELS != -100).sum()
    w = WEIGHT.clone().requires_grad_()
    for at in (slice(0, 5), slice(5, None)):
        qu.linear_loss(HIDDEN[at], w, LABELS[at], "dft", bias=BIAS, num_items_in_batch=kept).backward()
    torch.testing.assert_close(w.grad, whole(qu.get("dft"))[2], rtol=1e-9, atol=1e-12)


def test_all_rows_ignored() -> None:
    h, w = HIDDEN.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    loss = qu.linear_loss(h, w, torch.full_like(LABELS, -100), "sft")
    loss.backward()
    assert loss.item() == 0
    assert h.grad is not None
    assert w.grad is not None
    assert not h.grad.any()
    assert not w.grad.any()


def test_shapes_and_half_precision() -> None:
    h = HIDDEN[:22].view(2, 11, D).to(torch.bfloat16).requires_grad_()
    w = WEIGHT.to(torch.bfloat16).requires_grad_()
    labels = LABELS[:22].view(2, 11)
    loss = qu.linear_loss(h, w, labels, "dft", chunk_size=4)
    loss.backward()
    assert loss.dtype == torch.float32
    assert h.grad is not None
    assert h.grad.dtype == torch.bfloat16
    assert h.grad.shape == h.shape
    x, y = h.detach().float().requires_grad_(), w.detach().float().requires_grad_()
    expected = qu.loss("dft")(x @ y.T, labels)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(w.grad, y.grad, check_dtype=False, rtol=0.01, atol=1e-4)


def test_no_operand_of_half_precision_carries_one_over_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator: the head multiplies in float16, sums are float32. 2⁻²⁴ is the least that float16 holds."""

    def in_full(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
        total.add_(a.float() @ b.float(), alpha=factor)

    monkeypatch.setattr(linear, "_add_product", in_full)
    h, w, b = HIDDEN.half().requires_grad_(), WEIGHT.half(), BIAS.float()
    head, rows = _Head(w, b, 1.0, None, torch.float32, False), (LABELS != -100).nonzero()[:, 0]
    plan = _Plan("dft", qu.get("dft"), head, LABELS[rows], rows, {}, {}, 7, LABELS.shape)
    loss = _FusedLoss.apply(h, w.requires_grad_(), b.requires_grad_(), plan, 1e-8)
    found = torch.autograd.grad(loss, (h, w, b), torch.tensor(1e8))  # a scale of the loss, as with half precision
    x, y, c = (x.detach().float().requires_grad_() for x in (h, w, b))
    qu.loss("dft", "sum")(x @ y.T + c, LABELS).backward()
    for got, exact in zip(found, (x.grad, y.grad, c.grad), strict=True):
        torch.testing.assert_close(got, exact, check_dtype=False, rtol=0.01, atol=2e-3)


def test_evaluation_computes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[tuple[bool, ...]] = []
    sweep = _losses_and_gradients

    def watched(*a: Any) -> Any:
        wanted.append(tuple(a[-1]))
        return sweep(*a)

    monkeypatch.setattr(linear, "_losses_and_gradients", watched)
    with torch.no_grad():
        qu.linear_loss(HIDDEN, WEIGHT.clone().requires_grad_(), LABELS, "dft", bias=BIAS.clone().requires_grad_())
    assert wanted == [(False, False, False)]


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_graph_that_is_kept_gives_the_same_again(reduction: Any) -> None:
    h, w = HIDDEN.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    loss = qu.linear_loss(h, w, LABELS.clamp(min=0), "dft", reduction=reduction)
    upstream = torch.ones_like(loss)
    loss.backward(upstream, retain_graph=True)
    once = [x.grad.clone() for x in (h, w)]  # type: ignore[union-attr]
    loss.backward(upstream)
    same([x.grad for x in (h, w)], [2 * g for g in once])  # type: ignore[misc]


def test_nothing_is_held_after_the_backward_pass() -> None:
    loss = qu.linear_loss(HIDDEN, WEIGHT.clone().requires_grad_(), LABELS, "kd", teacher=CONTEXT["teacher_logits"])
    loss.backward()
    node: Any = loss.grad_fn
    assert node.plan is None
    with pytest.raises(RuntimeError, match="have already been freed"):
        _ = node.saved_tensors


def test_a_compiled_step_breaks_its_graph_there() -> None:
    w = WEIGHT.clone().requires_grad_()

    def step(h: Tensor, labels: Tensor) -> Tensor:
        return qu.linear_loss(h.tanh(), w, labels, "dft") * 2

    compiled = torch.compile(step, backend="eager")
    for n in (N, 11, 7):
        torch.testing.assert_close(compiled(HIDDEN[:n], LABELS[:n]), step(HIDDEN[:n], LABELS[:n]))


def test_lists_are_taken_as_by_the_module() -> None:
    weight = CONTEXT["token_weight"]
    given = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "iw_sft", token_weight=weight.tolist())
    torch.testing.assert_close(given, qu.linear_loss(HIDDEN, WEIGHT, LABELS, "iw_sft", token_weight=weight))


def test_logits_are_held_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    make = _Head.logits

    def watched(head: _Head, h: Tensor) -> Tensor:
        seen.append(len(h))
        return make(head, h)

    monkeypatch.setattr(_Head, "logits", watched)
    qu.linear_loss(HIDDEN, WEIGHT, LABELS, "sft", chunk_size=4)
    assert max(seen) == 4
    assert sum(seen) == int((LABELS != -100).sum())


# ---- what is no number ------------------------------------------------------------------------------------------


def spoilt(x: Tensor, value: float) -> Tensor:
    """A copy with `value` at one place of a row that is kept; −inf fills logits or a bias, where one alone is legal."""
    x, row = x.clone(), () if x.dim() == 1 else (KEPT[1] if len(x) == N else 2,)
    x[(*row, ...) if value == -math.inf else (*row, 0)] = value
    return x


KEPT = (LABELS != -100).nonzero()[:, 0]
HARD = ("sft", "psft", "threshold", "gold", "bi_tempered", "topk_kd")  # a mask, a clip or a search may hide a NaN


@pytest.mark.parametrize("name", [pytest.param(x, marks=() if x in HARD else pytest.mark.slow) for x in qu.names()])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_in_every_input(name: str, value: float) -> None:
    m = qu.get(name)
    inputs = {"hidden": HIDDEN, "weight": WEIGHT, "bias": BIAS}
    contexts = {DISTRIBUTIONS.get(k, k): CONTEXT[k] for k in m.needs}
    good = {**inputs, **contexts}
    for key in [*inputs, *(DISTRIBUTIONS.get(k, k) for k in m.needs if k.endswith("_logits"))]:
        bad = good | {key: spoilt(good[key], value)}
        grown = bad | {k: bad[k].clone().requires_grad_() for k in inputs}
        for given in (bad, grown):
            with pytest.raises(ValueError, match=rf"^{name}: {key}(_logits)?: expected (a )?finite"):
                qu.linear_loss(**given, labels=LABELS, method=m, chunk_size=7)
        if key not in inputs:
            context = next(k for k in m.needs if DISTRIBUTIONS.get(k, k) == key)
            with pytest.raises(ValueError, match=rf"^{name}: {key}") as fused_error:
                qu.linear_loss(**bad, labels=LABELS, method=m)
            with pytest.raises(ValueError, match=rf"^{name}: {key}") as whole_error:
                qu.loss(m)(HIDDEN @ WEIGHT.T, LABELS, **{k: CONTEXT[k] for k in m.needs} | {context: bad[key]})
            assert str(fused_error.value) == str(whole_error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_number_is_refused_in_another_models_head(place: int, value: float) -> None:
    parts = [normal(N, 4, seed=30), normal(V, 4, seed=31), normal(V, seed=32)]
    parts[place] = spoilt(parts[place], value)
    with pytest.raises(ValueError, match=r"^kd: teacher_logits: expected (a )?finite"):
        qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=(parts[0], parts[1], parts[2]))


def test_another_models_head_may_rule_tokens_out() -> None:
    other_h, other_w, other_b = normal(N, 4, seed=30), normal(V, 4, seed=31), normal(V, seed=32)
    other_b[3] = -math.inf
    found = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "reverse_kl", teacher=(other_h, other_w, other_b))
    expected = qu.loss("reverse_kl")(HIDDEN @ WEIGHT.T, LABELS, teacher_logits=other_h @ other_w.T + other_b)
    torch.testing.assert_close(found, expected)


def test_a_cap_does_not_hide_an_infinite_product() -> None:
    for key, x in (("hidden", HIDDEN), ("weight", WEIGHT)):
        bad: dict[str, Any] = {"hidden": HIDDEN, "weight": WEIGHT} | {key: spoilt(x, math.inf)}
        bad = {k: v.clone().requires_grad_() for k, v in bad.items()} | {"softcap": 3.0}
        with pytest.raises(ValueError, match=f"dft: {key}: expected finite numbers, got inf"):
            qu.linear_loss(**bad, labels=LABELS, method="dft")


def test_products_that_overflow_are_named_logits() -> None:
    with pytest.raises(ValueError, match=r"dft: logits: expected finite numbers or -inf, got (NaN|\+inf)"):
        qu.linear_loss(1e200 * HIDDEN, 1e200 * WEIGHT, LABELS, "dft")
    with pytest.raises(ValueError, match=r"kd: teacher_logits: expected finite numbers or -inf, got (NaN|\+inf)"):
        qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=(1e200 * HIDDEN, 1e200 * WEIGHT))


def test_what_stands_in_ignored_rows_does_not_matter() -> None:
    expected = fused(qu.get("kd"))
    bad_h, bad_t = HIDDEN.clone(), CONTEXT["teacher_logits"].clone()
    bad_h[LABELS == -100] = bad_t[LABELS == -100] = math.nan
    values, indices = bad_t.log_softmax(-1).topk(V)
    for teacher in (bad_t, qu.TopK(values, indices)):
        h = bad_h.clone().requires_grad_()
        loss = qu.linear_loss(h, WEIGHT, LABELS, "kd", bias=BIAS, teacher=teacher)
        loss.backward()
        same([loss.detach(), h.grad], expected[:2])  # type: ignore[list-item]


def test_a_loss_function_is_not_asked_about_numbers_that_are_none() -> None:
    def masked(logits: Tensor, labels: Tensor) -> Tensor:
        u = logits.softmax(-1).gather(-1, labels[:, None])[:, 0]
        return torch.where(u > 2, -u.log(), torch.zeros_like(u))

    for key in ("hidden", "weight"):
        with pytest.raises(ValueError, match=f"masked: {key}: expected finite numbers, got nan"):
            qu.linear_loss(
                **{"hidden": HIDDEN, "weight": WEIGHT} | {key: spoilt(HIDDEN if key == "hidden" else WEIGHT, math.nan)},
                labels=LABELS,
                method=masked,
            )


# ---- listed tokens ----------------------------------------------------------------------------------------------

LISTED = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64).log().expand(N, -1)
TOKENS = torch.tensor([4, 1, 7]).expand(N, -1)


def put(x: Tensor, at: int, value: float, row: int = 1) -> Tensor:
    x = x.clone()
    x[row, at] = value
    return x


@pytest.mark.parametrize(
    ("values", "indices", "sentence"),
    [
        (LISTED + 3, TOKENS, "expected log-probabilities that add up to at most 1, got 18.08"),
        (LISTED.exp(), TOKENS, "expected log-probabilities that add up to at most 1, got 4.1"),
        (put(LISTED, 0, math.nan), TOKENS, "expected finite numbers or -inf, got NaN"),
        (put(LISTED, 0, math.inf), TOKENS, r"expected finite numbers or -inf, got \+inf"),
        (LISTED - math.inf, TOKENS, "expected a finite logit in every row, got a row of -inf"),
        (LISTED, put(TOKENS, 2, 4), "expected different indices in every row, got 4 twice"),
        (LISTED, put(TOKENS, 2, V), rf"expected indices in \[0, {V}\), got {V}"),
        (LISTED, put(TOKENS, 2, -1), rf"expected indices in \[0, {V}\), got -1"),
        (LISTED.repeat(1, 4) - 2, torch.arange(12).expand(N, -1), rf"expected indices in \[0, {V}\), got 9"),
    ],
)  # fmt: skip
def test_listed_tokens_that_are_no_distribution_are_named(values: Tensor, indices: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^kd: teacher_logits: {sentence}"):
        qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=qu.TopK(values, indices))


@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
def test_a_list_filled_up_is_the_list(tail: Any) -> None:
    """Whatever index stands beside the −inf, also one that the list holds, and one that is no token."""
    filled = torch.cat([LISTED, torch.full((N, 9), -math.inf)], -1)
    expected = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=qu.TopK(LISTED, TOKENS, tail))
    for index in (0, 4, -1, 99):
        tokens = torch.cat([TOKENS, torch.full((N, 9), index)], -1).int()
        found = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=qu.TopK(filled, tokens, tail))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_sum_of_one_rounded_up_by_a_format_of_few_digits_passes() -> None:
    log_p = CONTEXT["teacher_logits"].log_softmax(-1)
    values, indices = log_p.topk(V)
    rounded = values.bfloat16()
    assert float(rounded.double().exp().sum(-1).max()) > 1.001
    found = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=qu.TopK(rounded, indices))
    expected = qu.linear_loss(HIDDEN, WEIGHT, LABELS, "kd", teacher=log_p)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


# ---- between the forward and the backward pass --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logits", "hidden", "weight", "bias", "listed", "weights", "own bias"])
def test_a_context_that_changes_before_the_backward_pass_is_an_error(kind: str) -> None:
    h, bias, logits = HIDDEN.clone().requires_grad_(), BIAS.clone(), CONTEXT["teacher_logits"].clone()
    pair = (normal(N, 4, seed=30), normal(V, 4, seed=31), normal(V, seed=32))
    listed, number = qu.TopK(LISTED.clone(), TOKENS), CONTEXT["token_weight"].clone()
    changed = {"logits": logits, "listed": listed.values, "weights": number, "own bias": bias}.get(kind)
    changed = pair[["hidden", "weight", "bias"].index(kind)] if changed is None else changed
    given: dict[str, Any] = {"teacher": {"logits": logits, "listed": listed}.get(kind, pair)}
    if kind == "weights":
        given = {"token_weight": number}
    name = "iw_sft" if kind == "weights" else "kd"
    losses = qu.linear_loss(h, WEIGHT, LABELS, name, bias=bias, reduction="none", **given)
    first = torch.autograd.grad(losses.sum(), h, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(losses.sum(), h, retain_graph=True))
    changed.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.sum().backward()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    labels = LABELS.clamp(min=0)
    found = qu.linear_loss(HIDDEN, WEIGHT, labels.to(dtype), "dft")
    assert torch.equal(found, qu.linear_loss(HIDDEN, WEIGHT, labels, "dft"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight": WEIGHT[:, :3]}, r"dft: weight: expected shape \(V, 6\), got \(9, 3\)"),
        ({"bias": BIAS[:3]}, r"dft: bias: expected shape \(9,\), got \(3,\)"),
        ({"labels": LABELS[:3]}, r"dft: labels: expected integers of shape \(23,\), got \(3,\)"),
        ({"labels": LABELS + 9}, "dft: labels: expected values in"),
        ({"hidden": HIDDEN.long()}, "dft: hidden: expected floating point"),
        ({"reduction": "avg"}, "dft: reduction: expected none, mean or sum, got 'avg'"),
        ({"chunk_size": 0}, "dft: chunk_size: expected an integer of at least 1, got 0"),
        ({"softcap": -1.0}, "dft: softcap: expected a positive number, got -1.0"),
        ({"logit_scale": math.inf}, "dft: logit_scale: expected a positive number, got inf"),
        ({"method": "kd"}, "kd: missing context, expected teacher or teacher_logits"),
        ({"method": "iw_sft"}, "iw_sft: missing context, expected token_weight$"),
        ({"method": "logit_adjustment"}, "logit_adjustment: missing context, expected prior_logits$"),
        ({"method": "kd", "teacher": [HIDDEN, WEIGHT]}, "kd: teacher_logits: expected a tensor or an array, got list"),
        ({"method": "cft", "token_mask": LABELS * 0.5}, "cft: token_mask: expected only 0 and 1"),
        ({"method": "iw_sft", "token_weight": HIDDEN[:, 0] / 0}, "iw_sft: token_weight: expected finite numbers"),
        (
            {"method": "unlikelihood", "negative_mask": CONTEXT["teacher_logits"]},
            "negative_mask: expected only 0 and 1",
        ),
        ({"method": "kd", "teacher": HIDDEN}, r"kd: teacher_logits: expected \(…, 9\) for positions \(23,\)"),
        ({"method": "kd", "teacher": CONTEXT["teacher_logits"][:4]}, r"kd: teacher_logits: expected .*, got \(4,\)"),
        ({"method": "kd", "teacher": (HIDDEN, HIDDEN)}, r"kd: teacher_logits: expected \(hidden \(…, d\), weight"),
        ({"method": "kd", "teacher": qu.TopK(HIDDEN, LABELS)}, "kd: teacher_logits: expected values and indices"),
        ({"method": "iw_sft", "token_weight": BIAS}, "iw_sft: token_weight: expected a number each for positions"),
        ({"teachers": WEIGHT}, "dft: unknown context 'teachers'"),
        ({"reduction": "sum", "num_items_in_batch": 3}, "dft: num_items_in_batch: expected none with reduction 'sum'"),
        ({"num_items_in_batch": True}, "dft: num_items_in_batch: expected a finite positive number, got True"),
        ({"method": lambda z, y: z.sum()}, "<lambda>: expected one loss per token"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], sentence: str) -> None:
    given = {"hidden": HIDDEN, "weight": WEIGHT, "labels": LABELS, "method": "dft"} | change
    with pytest.raises(ValueError, match=sentence):
        qu.linear_loss(**given)


# ---- loss functions in which tokens interact -----------------------------------------------------------------


def weights_of_mean_one(logits: Tensor, labels: Tensor) -> Tensor:
    ce = F.cross_entropy(logits, labels, reduction="none")
    u = (-ce).exp().detach()
    return u / u.mean() * ce


def discounted_by_what_precedes(logits: Tensor, labels: Tensor) -> Tensor:
    ce = F.cross_entropy(logits, labels, reduction="none")
    return (-ce.detach().cumsum(0)).exp() * ce


def weighted_by_what_follows(logits: Tensor, labels: Tensor) -> Tensor:
    ce = F.cross_entropy(logits, labels, reduction="none")
    return ce.detach().flip(0).cumsum(0).flip(0) * ce


def over_the_teachers_mean(logits: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none") / teacher_logits.logsumexp(-1).mean()


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
@pytest.mark.parametrize(
    "loss_fn",
    [weights_of_mean_one, discounted_by_what_precedes, weighted_by_what_follows, over_the_teachers_mean],
)
def test_tokens_that_interact_are_refused(loss_fn: Any, chunk_size: int | None) -> None:
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(60, 8), torch.randn(10, 8), torch.randint(10, (60,))
    teacher = torch.randn(60, 10) if loss_fn is over_the_teachers_mean else None
    with pytest.raises(ValueError, match=f"{loss_fn.__name__}: expected the loss of a token to depend on that token"):
        qu.linear_loss(hidden, weight, labels, loss_fn, teacher=teacher, chunk_size=chunk_size)


@pytest.mark.parametrize("seed", range(40))
def test_a_mean_that_a_part_has_by_chance_hides_nothing(seed: int) -> None:
    """In the first of these the mean weight of tokens 1 and 2 is that of tokens 0 to 3 to 1.2 %."""
    torch.manual_seed(seed)
    hidden, weight, labels = torch.randn(600, 8), torch.randn(10, 8), torch.randint(0, 10, (600,))
    with pytest.raises(ValueError, match="expected the loss of a token to depend on that token"):
        qu.linear_loss(hidden, weight, labels, weights_of_mean_one)


@pytest.mark.parametrize("n", [1, 2, 3, 60])
def test_tokens_by_themselves_and_by_chance_are_not(n: int) -> None:
    def half_precision(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.bfloat16(), labels, reduction="none").float()

    def random(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(F.dropout(logits, 0.5), labels, reduction="none")

    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(n, 8), torch.randn(10, 8), torch.randint(10, (n,))
    exact = qu.linear_loss(hidden, weight, labels, "sft")
    assert qu.linear_loss(hidden, weight, labels, half_precision).item() == pytest.approx(exact.item(), rel=0.02)
    assert qu.linear_loss(hidden, weight, labels, random).isfinite()


# ---- rows whose gradient is zero --------------------------------------------------------------------------------
def flops(m: Any, upstream: Tensor | None = None, **context: Any) -> float:
    """Of a step, in products of one row with the head, without those of the gradient of the head's weight, which are
    summed in place and not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    h, w = (x.clone().requires_grad_() for x in (HIDDEN, WEIGHT))
    with FlopCounterMode(display=False) as counter:
        reduction: Any = "sum" if upstream is None else "none"
        loss = qu.linear_loss(h, w, LABELS.clamp(min=0), m, reduction=reduction, chunk_size=8, **context)
        loss.backward(upstream)
    return counter.get_total_flops() / (2 * D * V)


def test_rows_without_gradient_cost_no_products() -> None:
    half = (torch.arange(N) < 12).double()
    assert flops("sft") == 2 * N
    assert flops("cft", token_mask=half) == flops("iw_sft", token_weight=half) == 2 * 12
    assert flops("sft", upstream=half) == N + 2 * 12  # losses first, then what they are multiplied by is known
    u = (HIDDEN @ WEIGHT.T).softmax(-1).gather(1, LABELS.clamp(min=0)[:, None])
    believed = int((u > 0.1).sum())
    assert 0 < believed < N
    assert flops("profit") == N + believed  # which rows these are, their logits say


@pytest.mark.parametrize("name", ["sft", "profit", "cft", "asft", "label_smoothing", "srft"])
def test_losses_of_which_some_are_multiplied_by_zero(name: str) -> None:
    upstream = normal(N, seed=21) * (torch.arange(N) % 4 > 1)
    same(fused(qu.get(name), "none", upstream), whole(qu.get(name), "none", upstream))


@hypothesis.given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 2**31))
def test_rows_that_are_not_zero_are_moved_to_the_top(live: list[bool], seed: int) -> None:
    z = normal(len(live), 5, seed=seed) * torch.tensor(live)[:, None]
    labels, before = torch.zeros(len(z), dtype=torch.long), z.clone()
    z[:, 0] = before[:, 0] = 0  # at the label all are zero
    told = linear._moved_up(z, labels)
    if told is None:
        assert sum(live) > (1 - linear.FEWEST_SILENT) * len(live)
    else:
        assert sorted(told.tolist()) == [i for i, x in enumerate(live) if x]
        assert torch.equal(z[: len(told)], before[told])


@pytest.mark.parametrize("name", ["cft", "iw_sft"])
def test_rows_that_do_not_count_are_numbers_even_so(name: str) -> None:
    (key,) = qu.get(name).needs
    nothing = {key: torch.zeros(N, dtype=torch.float64)}
    assert float(qu.linear_loss(HIDDEN, WEIGHT, LABELS, name, **nothing)) == 0
    wrong = HIDDEN.clone()
    wrong[1, 0] = torch.nan
    with pytest.raises(ValueError, match=f"{name}: hidden: expected finite numbers, got nan"):
        qu.linear_loss(wrong, WEIGHT, LABELS, name, **nothing)
