"""A verdict depends on the loss and on nothing else: not on its name, its scale, nor what was asked before."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import qunify as qu
from qunify import catalogue
from qunify.comparison._numeric import relate
from qunify.testing import assert_equivalent
from qunify.token import Scalar, Token

Loss = Callable[..., Tensor]
TRUTH = (0.5, 0.3, 0.2)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


@dataclasses.dataclass  # has no hash
class Generalised:
    """gce, whose parameter may be set."""

    q: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (1 - logits.softmax(-1).gather(-1, labels[:, None])[:, 0] ** self.q) / self.q


class OwnPower(qu.Gate):
    power = 0.5

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label**self.power) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.p_label**self.power


def test_a_loss_that_changes_is_judged_anew() -> None:
    loss, exponent = Generalised(0.5), 0.5
    designed = qu.design("half", trust=lambda t: t.p_label**exponent, residual=lambda t: t.policy)
    of_its_class = OwnPower()
    half = qu.get("gce", q=0.5)
    for m in (loss, designed, of_its_class):
        assert qu.compare(m, half).level == "identical"
        assert not qu.is_proper(m).unbiased
    assert qu.optimum(designed, TRUTH).probs[0] < 0.7
    loss.q = exponent = OwnPower.power = 1.0
    assert qu.compare(of_its_class, half).level == "directional"
    for m in (loss, designed, of_its_class):
        assert qu.compare(m, "dft").level == "identical"
    assert qu.optimum(designed, TRUTH).probs[0] == 1
    OwnPower.power = 0.0
    assert qu.is_proper(of_its_class).strict


# ---- its precision -------------------------------------------------------------------------------------------


def generalised(q: float, dtype: torch.dtype, logits: Tensor, labels: Tensor) -> Tensor:
    return Generalised(q)(logits.to(dtype), labels)


def brier_in(dtype: torch.dtype) -> Loss:
    def brier(logits: Tensor, labels: Tensor) -> Tensor:
        p = logits.to(dtype).softmax(-1)
        return (p - F.one_hot(labels, p.shape[-1])).square().sum(-1)

    return brier


@pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(x, marks=pytest.mark.slow) for x in (torch.bfloat16, torch.float16))]
)
def test_a_loss_that_casts_is_judged_as_it_is_written(dtype: torch.dtype) -> None:
    def my_dft(logits: Tensor, labels: Tensor) -> Tensor:
        ce = cross_entropy(logits.to(dtype), labels)
        return ce * (-ce).exp().detach()

    rounding = str(dtype).removeprefix("torch.")
    found = qu.compare("dft", my_dft)
    assert (found.level, found.factor, found.precision) == ("identical", 1, rounding)
    assert str(found).endswith(f"(measured, to the rounding of {rounding}).")
    assert_equivalent(my_dft, "dft")
    assert qu.induced(my_dft, torch.randn(4, 9), torch.arange(4)).shift_invariant
    proper = qu.is_proper(brier_in(dtype))
    assert (proper.strict, proper.attracts) == (True, True)
    assert str(proper) == f"brier is strictly proper (unbiased: measured, to the rounding of {rounding})."
    near = functools.partial(generalised, 0.9999, dtype)
    assert qu.compare(near, qu.get("gce", q=0.9999)).level == "identical"
    assert relate(catalogue.as_method(near, "test"), qu.get("dft")).level == "directional", (
        "a loss so near is told apart"
    )
    torch.testing.assert_close(qu.optimum(brier_in(dtype), TRUTH).probs, torch.tensor(TRUTH).double())


def test_tensors_of_its_own_may_be_narrower() -> None:
    weight = torch.linspace(0.5, 1.5, 5)
    probs = torch.tensor([TRUTH], dtype=torch.float64)
    q = qu.induced(lambda z, y: F.cross_entropy(z, y, weight[:3], reduction="none"), probs.log(), torch.tensor([2]))
    torch.testing.assert_close(q.trust, weight[2:3].double())
    moved = qu.drift(lambda z, y: F.cross_entropy(z, y, weight[: z.shape[-1]], reduction="none"), TRUTH, TRUTH)
    aim = probs[0] * weight[:3].double()
    torch.testing.assert_close(moved, aim - aim.sum() * probs[0])


class InNumPy(torch.autograd.Function):
    """Cross-entropy whose gradient is made in float32 where no cast is seen."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(z.softmax(-1) - F.one_hot(y, z.shape[-1]))
        return cross_entropy(z, y)

    @staticmethod
    def backward(ctx: Any, *sizes: Any) -> Any:
        return torch.from_numpy((ctx.saved_tensors[0] * sizes[0][:, None]).numpy().astype("float32")), None


def test_rounding_that_cannot_be_left_out_is_allowed_for() -> None:
    loss: Loss = lambda logits, labels: InNumPy.apply(logits, labels)  # noqa: E731
    found = qu.compare(loss, "sft")
    assert (found.level, found.precision) == ("identical", "float32")
    assert relate(catalogue.as_method(loss, "test"), qu.get("gce", q=0.01)).level == "directional"


@pytest.mark.parametrize("times", [lambda ce: ce.log(), lambda ce: ce / ce.detach()])
def test_rounding_near_certainty_is_no_violation(times: Callable[[Tensor], Tensor]) -> None:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return times(cross_entropy(logits, labels))

    assert qu.induced(loss, [[18.0, 0.0, 0.0], [30.0, 1.0, 0.0], [1.0, 2.0, 0.0]], [0, 0, 1]).shift_invariant
    found = qu.compare(loss, "sft")
    assert (found.level, found.same_optimum) == ("directional", False)


# ---- its scale, its name, and what else was asked ------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "level"),
    [
        (qu.get("symmetric_ce", ce_weight=1e10, rce_weight=0), "dft", "directional"),
        (qu.get("aue", a=99.5, q=94.6), "sft", "directional"),
        pytest.param(qu.get("agce", a=0.001, q=-60), "sft", "directional", marks=pytest.mark.slow),
        (qu.get("symmetric_ce", ce_weight=1e10, rce_weight=0), "sft", "scaled"),
        (lambda z, y: 1e-14 * cross_entropy(z, y), lambda z, y: 1e-14 * brier_in(torch.float64)(z, y), "distinct"),
        (lambda z, y: 1e-10 * cross_entropy(z, y), lambda z, y: 1.0005e-10 * cross_entropy(z, y), "scaled"),
        (lambda z, y: 1e-100 * cross_entropy(z, y), lambda z, y: 1e100 * cross_entropy(z, y), "scaled"),
    ],
)
def test_the_scale_of_gradients_decides_nothing(a: Any, b: Any, level: str) -> None:
    found = qu.compare(a, b)
    assert found.level == level
    assert (found.factor is not None and found.factor != 0) == (level == "scaled")
