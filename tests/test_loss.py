"""The loss module: the values and gradients of automatic differentiation, in every type, reduction and surrounding."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import qunify as qu
from qunify.training import Loss, _module
from tests.battery import autograd, batch, every_setting

B = batch(7)


def given(m: Any) -> dict[str, Tensor]:
    return {k: v for k, v in B.context.items() if k in m.needs}


@pytest.mark.parametrize("m", every_setting())
def test_values_and_gradients_are_those_of_the_published_loss(m: Any) -> None:
    z = B.logits.clone().requires_grad_()
    losses = qu.loss(m, "none")(z, B.labels, **given(m))
    upstream = torch.linspace(-1, 2, len(z), dtype=torch.float64)
    losses.backward(upstream)
    torch.testing.assert_close(losses.detach(), m(B.logits, B.labels, **given(m)).loss, rtol=1e-12, atol=1e-12)
    expected = upstream[:, None] * autograd(m, B)
    assert z.grad is not None
    assert bool(expected.isfinite().all())
    torch.testing.assert_close(
        z.grad,
        expected,
        rtol=1e-8 if m.name == "logit_std_kd" else 1e-9,
        atol={"logit_norm": 2e-6, "logit_std_kd": 1e-8}.get(m.name, 1e-9),  # of a spread of nothing: roundings
    )


def test_reductions_count_kept_tokens() -> None:
    labels = B.labels.clone()
    labels[::3] = -100
    each = qu.loss("focal", "none")(B.logits, labels)
    assert (each[::3] == 0).all()
    kept = int((labels != -100).sum())
    assert float(qu.loss("focal", "sum")(B.logits, labels)) == pytest.approx(float(each.sum()))
    assert float(qu.loss("focal")(B.logits, labels)) == pytest.approx(float(each.sum()) / kept)
    assert float(qu.loss("focal")(B.logits, labels, num_items_in_batch=1000)) == pytest.approx(float(each.sum()) / 1000)
    weightless = {"token_weight": torch.zeros(len(labels))}
    assert float(qu.loss("iw_sft")(B.logits, labels, **weightless)) == 0


def test_accumulation_in_parts_is_the_whole_batch() -> None:
    labels = B.labels.clone()
    labels[:50] = -100  # the parts keep different numbers of tokens
    whole, parts = (B.logits.clone().requires_grad_() for _ in range(2))
    criterion = qu.loss("gem")
    criterion(whole, labels).backward()
    kept = (labels != -100).sum()
    for at in (slice(0, 60), slice(60, 61), slice(61, None)):
        criterion(parts[at], labels[at], num_items_in_batch=kept).backward()
    assert whole.grad is not None
    assert parts.grad is not None
    torch.testing.assert_close(parts.grad, whole.grad, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z = (B.logits / 4).to(dtype).requires_grad_()
    loss = qu.loss("target_sft")(z, B.labels, teacher_logits=B.context["teacher_logits"].to(dtype))
    loss.backward()
    exact = z.detach().float().requires_grad_()
    expected = qu.loss("target_sft")(exact, B.labels, teacher_logits=B.context["teacher_logits"].to(dtype).float())
    expected.backward()
    assert loss.dtype == torch.float32
    assert z.grad is not None
    assert z.grad.dtype == dtype
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(z.grad, exact.grad, check_dtype=False, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_under_autocast() -> None:
    layer = torch.nn.Linear(4, 7)
    x = torch.randn(len(B.labels), 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = qu.loss("dft")(layer(x), B.labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert layer.weight.grad is not None
    plain = torch.nn.Linear(4, 7)
    plain.load_state_dict(layer.state_dict())
    qu.loss("dft")(plain(x), B.labels).backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=0.05, atol=0.01)


def test_a_compiled_step_breaks_its_graph_there_and_gives_the_same() -> None:
    layer = torch.nn.Linear(4, 7)
    x = torch.randn(len(B.labels), 4, generator=torch.Generator().manual_seed(0))
    criterion = qu.loss("focal")

    def step(x: Tensor) -> Tensor:
        return criterion(layer(x).tanh(), B.labels) * 2

    expected = torch.autograd.grad(step(x), layer.weight)
    compiled = torch.compile(step, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x), layer.weight), expected)


def test_all_ignored_is_zero_with_a_zero_gradient() -> None:
    z = B.logits.clone().requires_grad_()
    loss = qu.loss("sft")(z, torch.full_like(B.labels, -100))
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_shapes_and_what_ignored_rows_hold_do_not_matter() -> None:
    z, labels = B.logits[:24].view(2, 3, 4, 7).clone(), B.labels[:24].view(2, 3, 4).clone()
    labels[0, 0] = -1
    z[0, 0] = torch.nan
    z.requires_grad_()
    losses = qu.loss("brier", "none", ignore_index=-1)(z, labels)
    losses.sum().backward()
    assert losses.shape == (2, 3, 4)
    assert z.grad is not None
    assert not z.grad[0, 0].any()
    assert bool(z.grad.isfinite().all())


def test_designed_maps_work() -> None:
    half = qu.design("half", trust=lambda t: 0.5 * t.p_label, residual=lambda t: t.teacher)
    z = B.logits.clone().requires_grad_()
    qu.loss(half, "sum")(z, B.labels, teacher_logits=B.context["teacher_logits"]).backward()
    assert z.grad is not None
    expected = half(B.logits, B.labels, teacher_logits=B.context["teacher_logits"]).gradient
    torch.testing.assert_close(z.grad, expected)


def test_state_and_repr(tmp_path: Any) -> None:
    criterion = qu.loss("target_sft", eta=0.25)
    assert repr(criterion) == "Loss(target_sft(eta=0.25), reduction='mean', ignore_index=-100)"
    again = qu.loss("target_sft")
    save_file(criterion.state_dict(), tmp_path / "state.safetensors")
    again.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert again.method == criterion.method
    buffer = io.BytesIO()
    torch.save(criterion.state_dict(), buffer)
    buffer.seek(0)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    with pytest.raises(ValueError, match=r"sft: state: expected that of sft, got target_sft"):
        qu.loss("sft").load_state_dict(criterion.state_dict())


def test_a_designed_map_takes_the_settings_of_a_state() -> None:
    def own(a: float) -> Loss:
        return qu.loss(qu.design("own", trust=lambda t, a: t.p_label**a, residual=lambda t: t.policy, a=a))

    again = own(1.0)
    again.load_state_dict(own(0.5).state_dict())
    assert torch.equal(again(B.logits, B.labels), own(0.5)(B.logits, B.labels))
    other = qu.loss(qu.design("own", trust=lambda t: 1.0, residual=lambda t: t.policy))
    with pytest.raises(ValueError, match="own: state: unknown parameter 'a', expected none"):
        other.load_state_dict(own(0.5).state_dict())


def test_no_gradient_is_computed_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = qu.loss("dft")(B.logits, B.labels)
    monkeypatch.setattr(_module, "logit_gradient", None)
    with torch.no_grad():
        found = qu.loss("dft")(B.logits.clone().requires_grad_(), B.labels)
    assert torch.equal(found, expected)


def test_one_gradient_is_kept_and_no_trace() -> None:
    z = B.logits.clone().requires_grad_()
    loss = qu.loss("dft", "none")(z, B.labels)
    assert loss.grad_fn is not None
    (kept,) = loss.grad_fn.saved_tensors
    assert kept.shape == z.shape


def test_a_gradient_penalty_is_an_error() -> None:
    """The gradient is no function of the logits to autograd: a penalty on it would be dropped without a word."""

    def losses() -> list[Tensor]:
        return [qu.loss("dft")(z, B.labels), qu.linear_loss(z, torch.eye(7, dtype=z.dtype), B.labels, "dft")]

    z = B.logits.clone().requires_grad_()
    for loss in losses():
        with pytest.raises(RuntimeError, match="dft: create_graph: expected False, got True: its gradient cannot be"):
            torch.autograd.grad(loss, z, create_graph=True)
    for loss in losses():
        assert torch.autograd.grad(loss, z)[0].any()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: qu.loss("dtf"), KeyError, "did you mean dft"),
        (lambda: qu.loss("dft", "avg"), ValueError, "loss: reduction: expected none, mean or sum, got 'avg'"),  # type: ignore[arg-type]
        (lambda: qu.loss(qu.get("gem"), beta=0.5), ValueError, "loss: parameters beta: expected none beside a QMap"),
        (
            lambda: qu.loss(3),  # type: ignore[arg-type]
            ValueError,
            "loss: method: expected an id of the catalogue, a QMap or a loss func",
        ),
        (lambda: qu.loss("gem", beta=-1.0), ValueError, "gem: parameter beta: expected a number in"),
        (lambda: qu.loss("kd")(B.logits, B.labels), ValueError, "kd: missing context, expected the keyword argument"),
        (lambda: qu.loss("sft")(B.logits, B.labels[:3]), ValueError, "sft: labels: expected shape"),
        (
            lambda: qu.loss("sft", "sum")(B.logits, B.labels, num_items_in_batch=3),
            ValueError,
            "sft: num_items_in_batch: expected none with reduction 'sum'",
        ),
        (
            lambda: qu.loss("sft")(B.logits, B.labels, num_items_in_batch=0),
            ValueError,
            "sft: num_items_in_batch: expected a finite positive number, got 0",
        ),
        *(
            (
                lambda got=got: qu.loss("sft")(B.logits, B.labels, num_items_in_batch=got),
                ValueError,
                rf"sft: num_items_in_batch: expected a finite positive number, got {got!r}$",
            )
            for got in (float("inf"), float("nan"), "3", True)
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()


def test_the_class_is_public() -> None:
    assert isinstance(qu.loss("sft"), Loss)
