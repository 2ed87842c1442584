"""A verdict depends on the loss and on nothing else: not on its name, its scale, nor what was asked before."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import qunify as qu
from qunify import catalogue
from qunify.cli import main
from qunify.comparison._numeric import relate
from qunify.samples import spread_over_u
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
        (lambda z, y: 1e-14 * cross_entropy(z, y), lambda z, y: 1e-14 * brier_in(torch.float64)(z, y), "optimum"),
        (lambda z, y: 1e-10 * cross_entropy(z, y), lambda z, y: 1.0005e-10 * cross_entropy(z, y), "scaled"),
        (lambda z, y: 1e-100 * cross_entropy(z, y), lambda z, y: 1e100 * cross_entropy(z, y), "scaled"),
    ],
)
def test_the_scale_of_gradients_decides_nothing(a: Any, b: Any, level: str) -> None:
    found = qu.compare(a, b)
    assert found.level == level
    assert (found.factor is not None and found.factor != 0) == (level == "scaled")


def kl(logits: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(-1), teacher_logits.softmax(-1), reduction="none").sum(-1)


#: Losses by the methods that they are.
KNOWN: dict[str, Loss] = {"sft": cross_entropy, "brier": brier_in(torch.float64), "kd": kl}
KNOWN["dft"] = lambda z, y: -(p := z.softmax(-1).gather(1, y[:, None])[:, 0]).detach() * p.log()


def disguised(loss: Loss, name: str, factor: float, destroys: bool) -> Loss:
    """The same loss under another name, at another scale; it may leave nothing of its arguments."""

    @functools.wraps(loss)  # the signature tells contexts
    def other(logits: Tensor, labels: Tensor, **context: Tensor) -> Tensor:
        own = {name: x.clone() for name, x in context.items()}
        losses = factor * loss(logits.clone(), labels.clone(), **own)
        if destroys:
            for x in (logits, labels, *context.values()):
                x.zero_()
        return losses

    other.__name__ = name
    return other


BATCH = spread_over_u(5, 0)[:20]
TEACHER = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64)


def of_teacher(known: str, logits: Tensor) -> dict[str, Any]:
    return {"teacher_logits": logits} if known == "kd" else {}


def trained_by(known: str, m: Any) -> Tensor:
    z = BATCH.logits.clone().requires_grad_()
    value = qu.loss(m, reduction="sum")(z, BATCH.labels, **of_teacher(known, BATCH.logits.flip(0)))
    return torch.autograd.grad(value, z)[0]


def trained_by_the_fused(known: str, m: Any) -> Tensor:
    """Through a head that changes nothing."""
    z, given = BATCH.logits.clone().requires_grad_(), {"teacher": BATCH.logits.flip(0)} if known == "kd" else {}
    value = qu.linear_loss(z, torch.eye(5, dtype=z.dtype), BATCH.labels, m, reduction="sum", **given)
    return torch.autograd.grad(value, z)[0]


def compared(known: str, m: Any) -> tuple[Any, Any]:
    v = qu.compare(known, m)
    assert v.proved == isinstance(m, qu.QMap)
    return (v.same_direction, v.same_optimum, v.precision, v.alone), float(v.factor or 0)


def asserted(known: str, m: Any) -> tuple[Any, Any]:
    assert_equivalent(known, m, level="scaled")
    return "passed", 0.0


def checked(known: str, m: Any) -> tuple[Any, Any]:
    sys.modules[__name__].asked_about = m  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(["check", f"{__name__}:asked_about", known, "--require", "scaled"])
    return (status, "passed" in said.getvalue()), 0.0


def induced(known: str, m: Any) -> tuple[Any, Any]:
    q = qu.induced(m, BATCH.logits, BATCH.labels, **of_teacher(known, BATCH.logits.flip(0)))
    return q.shift_invariant, q.gradient


def identified(known: str, m: Any) -> tuple[Any, Any]:
    best = qu.identify(m, top=1)[0]
    return (best.name, best.level in ("identical", "scaled")), best.factor


def properness(known: str, m: Any) -> tuple[Any, Any]:
    p = qu.is_proper(m)
    return (p.unbiased, p.attracts, p.proper, p.strict, p.direction), 0.0


def ends(known: str, m: Any) -> tuple[Any, Any]:
    o = qu.optimum(m, TRUTH, **of_teacher(known, TEACHER))
    return [o.probs.numpy().round(6).tolist(), *map(bool, (o.stable, o.exists, o.converged))], 0.0


#: What each public verdict says of a method that is `known`: what its scale does not change, and what it multiplies.
VERDICTS: dict[str, Callable[[str, Any], tuple[Any, Any]]] = {
    "induced": induced,
    "drift": lambda known, m: ("", qu.drift(m, (0.2, 0.3, 0.5), TRUTH, **of_teacher(known, TEACHER))),
    "loss": lambda known, m: ("", trained_by(known, m)),
    "linear_loss": lambda known, m: ("", trained_by_the_fused(known, m)),
    "optimum": ends,
    "compare": compared,
    "assert_equivalent": asserted,
    "check": checked,
    "is_proper": properness,
    "identify": identified,
}
#: What takes a method and is no verdict on a loss function, or takes none.
OTHERS = {"get", "names", "design", "param", "gradients", "subsumes"}


def test_every_public_verdict_is_here() -> None:
    functions = {name for name in dir(qu) if inspect.isfunction(getattr(qu, name)) and not name.startswith("__")}
    assert functions == (VERDICTS.keys() | OTHERS) - {"assert_equivalent", "check"}


def says_the_same(verdict: str, known: str, name: str, exponent: int, destroys: bool) -> None:
    """As of the method itself, whatever the loss is called, is scaled by and does to its arguments; and after that."""
    expected, size = VERDICTS[verdict](known, qu.get(known))
    for factor in (10.0**exponent, 1.0):
        found, number = VERDICTS[verdict](known, disguised(KNOWN[known], name, factor, destroys))
        assert found == expected
        torch.testing.assert_close(number, factor * size, atol=1e-9 * factor, rtol=1e-6)


@settings(max_examples=12, deadline=None)
@example(verdict="linear_loss", known="kd", name="dft", exponent=0, destroys=True)
@given(
    st.sampled_from(["induced", "drift", "loss", "linear_loss", "optimum", "compare"]),
    st.sampled_from(sorted(KNOWN)),
    st.sampled_from(catalogue.names()),
    st.integers(-12, 12),
    st.booleans(),
)
def test_name_scale_order_and_what_a_loss_destroys_decide_nothing(
    verdict: str, known: str, name: str, exponent: int, destroys: bool
) -> None:
    says_the_same(verdict, known, name, exponent, destroys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verdict", "known", "destroys"),
    [
        ("assert_equivalent", "sft", True),
        ("check", "kd", False),
        ("is_proper", "dft", True),
        ("is_proper", "kd", False),
        ("identify", "brier", True),
        ("identify", "kd", False),
    ],
)
def test_they_decide_nothing_for_what_takes_long(verdict: str, known: str, destroys: bool) -> None:
    says_the_same(verdict, known, "sft" if known != "sft" else "dft", 9 if destroys else -9, destroys)


@pytest.mark.slow
def test_what_was_asked_before_decides_nothing() -> None:
    mine, halved = (disguised(f, "kd", x, destroys=True) for f, x in ((kl, 1.0), (kl, 0.5)))
    for loss, level, factor in ((mine, "identical", 1), (halved, "scaled", 0.5), (mine, "identical", 1)):
        assert (best := qu.identify(loss, ("teacher_logits",))[0]).name == "kd"
        assert (best.level, best.factor) == (level, pytest.approx(factor))
        assert qu.compare("kd", loss).level == level
    assert qu.identify(cross_entropy)[0].name == "sft"


def test_two_that_bear_one_name_are_told_apart() -> None:
    weak, strong = (qu.design("mine", trust=f, residual=lambda t: t.policy) for f in (lambda t: t.p_label, lambda t: 1))
    verdict = qu.compare(weak, strong)
    assert (verdict.a, verdict.b) == ("mine", "mine (2)")
    assert str(verdict).startswith("mine and mine (2) share their direction")
    assert (qu.compare(weak, weak).b, qu.compare("dft", qu.get("dft")).b) == ("mine", "dft")


def test_a_name_of_the_catalogue_promises_nothing() -> None:
    designed = qu.design("brier", trust=lambda t: t.p_label, residual=lambda t: t.policy)
    assert qu.optimum(designed, TRUTH).probs.tolist() == [1, 0, 0]
    undetached = disguised(lambda z, y: (-(ce := cross_entropy(z, y))).exp() * ce, "dft", 1.0, destroys=True)
    assert qu.compare(undetached, "dft").level == "distinct"


def test_a_random_loss_is_not_compared() -> None:
    with pytest.raises(ValueError, match="expected the same gradient from two calls on the same tokens"):
        qu.compare(lambda z, y: cross_entropy(F.dropout(z, 0.1), y), "sft")


def test_verdicts_of_a_loss_in_which_tokens_interact_say_how_they_were_reached() -> None:
    def lowest(logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy on the seven tenths of the batch with the lowest loss: alone, every token is one of them."""
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return losses * (losses.detach() <= losses.detach().quantile(0.7))

    assert str(qu.compare(lowest, "sft")).startswith("Taken one token at a time, lowest and sft have the same gradient")
    assert str(qu.is_proper(lowest)).startswith("Taken one token at a time, lowest is strictly proper")
    for other in (qu.compare("sft", "dft"), qu.is_proper("sft"), qu.compare(lambda z, y: z.logsumexp(-1), "sft")):
        assert not other.alone
        assert "one token at a time" not in str(other)


# ---- idioms of released code -----------------------------------------------------------------------------------


def in_autocast(logits: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = logits @ torch.eye(logits.shape[-1], dtype=logits.dtype)
    return cross_entropy(logits.float(), labels)


def of_a_stopped_vector(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits.softmax(-1) - F.one_hot(labels, logits.shape[-1])).detach() * logits).sum(-1)


def with_its_data(logits: Tensor, labels: Tensor) -> Tensor:
    losses = cross_entropy(logits, labels)
    return torch.exp(-losses).data * losses


def clipped_ratio_to_itself(logits: Tensor, labels: Tensor) -> Tensor:
    log_u = -cross_entropy(logits, labels)
    ratio = torch.exp(log_u - log_u.detach())
    return -torch.minimum(ratio, ratio.clamp(0.8, 1.2))


class Counting(torch.nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return cross_entropy(logits, labels)


IDIOMS: dict[str, tuple[Any, str]] = {
    "a matrix product in autocast": (in_autocast, "sft"),
    "a stopped vector against the logits": (of_a_stopped_vector, "sft"),
    "the number of a tensor": (with_its_data, "dft"),
    "a ratio to its own stopped value, clipped": (clipped_ratio_to_itself, "sft"),
    "a module that counts its calls": (Counting(), "sft"),
    "torch.vmap": (torch.vmap(lambda z, y: -torch.log_softmax(z, -1).gather(-1, y[None])[0]), "sft"),
    "functools.partial": (functools.partial(lambda q, z, y: Generalised(q)(z, y), 0.5), "gce"),
    "labels as soft targets": (
        lambda z, y: F.cross_entropy(z, F.one_hot(y, z.shape[-1]).to(z), reduction="none"),
        "sft",
    ),
    "float64, narrowed before": (lambda z, y: cross_entropy(z.float().double(), y), "sft"),
    "nan_to_num": (lambda z, y: torch.nan_to_num(cross_entropy(z, y)), "sft"),
    "a softmax of a softmax's logarithm": (lambda z, y: cross_entropy(z.log_softmax(-1), y), "sft"),
    "in chunks": (lambda z, y: torch.cat([cross_entropy(*x) for x in zip(z.split(3), y.split(3), strict=True)]), "sft"),
    "a checkpoint": (lambda z, y: checkpoint(cross_entropy, z, y, use_reentrant=False), "sft"),
    "a label that is ignored inside": (lambda z, y: cross_entropy(z, torch.where(y < 0, -100, y)), "sft"),
}


@pytest.mark.slow
@pytest.mark.parametrize("idiom", IDIOMS)
def test_an_idiom_does_not_hide_what_a_loss_is(idiom: str) -> None:
    loss, known = IDIOMS[idiom]
    m = qu.get("gce", q=0.5) if known == "gce" else qu.get(known)
    assert qu.compare(loss, m).level == "identical"
    assert qu.compare(loss, "brier").level != "identical"
