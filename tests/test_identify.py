"""What is this loss? Published losses under other names, known bugs, novel losses, functions that cannot be asked."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest
import sympy as sp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import qunify as qu
from qunify._lib.simple import simple_numbers, simplest
from qunify.catalogue import ENTRIES
from qunify.cli import main
from qunify.comparison import Match, Matches
from qunify.comparison._places import FAR, Place, TokensAsOne, joined
from qunify.comparison._subjects import examine, gradient_of, jumps_of
from qunify.maps import Gate, QMap
from qunify.samples import ROWS, spread_over_u
from qunify.token import TensorToken, Token, V
from tests.battery import OF_SEQUENCES, one_each

Loss = Callable[..., Tensor]


def published(m: QMap, times: float = 1.0, tilt: float = 0.0) -> Loss:
    """The method's published loss as somebody's plain function; `tilt` multiplies it by 1 + tilt · sg(u)."""

    def mine(logits: Tensor, labels: Tensor, **context: Tensor) -> Tensor:
        given = {k: v[:, None] if v.dim() == 1 else v for k, v in context.items()}
        t = TensorToken(logits, labels, given)
        return (times * (1 + tilt * t.stop(t.p_label)) * m.loss(t))[:, 0] + 0 * logits.sum(-1)

    return mine


def told(name: str) -> QMap:
    """Every method that has parameters, off its default."""
    return qu.get(name, **ENTRIES[name].telling())


def log_u(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]


def named(found: Matches, name: str) -> Match:
    return next(m for m in found if m.name == name)


def assert_params(m: Match, expected: QMap) -> None:
    assert m.params.keys() == expected.params.keys()
    for key, value in expected.params.items():
        assert m.params[key] == value if isinstance(value, str) else abs(m.params[key] - value) < 1e-3, key


# ---- the catalogue, under another name -----------------------------------------------------------------------


def test_every_parameter_is_tried_off_its_default() -> None:
    untold = [name for name in ENTRIES if qu.get(name).params and told(name) == qu.get(name)]
    assert untold == [], "give a parameter of theirs a telling value"


@pytest.mark.parametrize("name", one_each(name for name in ENTRIES if name not in OF_SEQUENCES))
def test_every_entry_is_recovered_from_its_published_loss(name: str) -> None:
    m = told(name)
    found = qu.identify(published(m), m.needs)
    match = named(found, name)
    assert match.level == found[0].level == "identical"
    assert match.error < 1e-7
    if name == "symmetric_ce":  # β and A count only by their product
        assert match.params["ce_weight"] == pytest.approx(0.6137, abs=1e-3)
        assert match.params["rce_weight"] * match.params["log_zero"] == pytest.approx(-4 * 0.33, abs=1e-3)
    elif name == "apl":  # the same
        assert match.params["nce_weight"] == pytest.approx(0.637, abs=1e-3)
        assert match.params["rce_weight"] * match.params["log_zero"] == pytest.approx(-3.73 * 0.237, abs=1e-3)
    else:
        assert_params(match, m)
    assert found.diagnosis.used == (() if name == "rho1" else tuple(m.needs))  # a token alone is always chosen


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sft", "focal", "luffy", "threshold", "eaft", "label_smoothing", "kd", "jsd", "brier", "gem", "mbls"]
)
def test_a_scaled_loss_is_told_with_its_factor(name: str) -> None:
    m = told(name)
    match = named(qu.identify(published(m, times=0.35), m.needs), name)
    assert match.level == "scaled"
    assert match.factor == pytest.approx(0.35, abs=1e-9)
    assert "0.35 × " in str(match)
    assert_params(match, m)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sft", "dft", "focal", "tailr", "psft", "mile", "label_smoothing", "kd", "reverse_kl", "brier", "gem"]
)
def test_a_perturbed_copy_is_never_called_identical(name: str) -> None:
    m = qu.get(name)
    found = qu.identify(published(m, tilt=0.001), m.needs, top=99)
    assert named(found, name).level in ("near", "directional")
    if name == "sft":  # 1 + 0.001 u is a method of its own: Poly-1
        assert (named(found, "poly1").level, named(found, "poly1").params) == ("identical", {"epsilon": 0.001})
    else:
        assert "identical" not in {match.level for match in found}


@pytest.mark.slow
def test_equal_entries_are_both_listed_simplest_first() -> None:
    dft = qu.identify(published(qu.get("mae")))
    assert [m.name for m in dft[:3]] == ["dft", "mae", "beyond_log"]
    assert {m.level for m in dft} == {"identical"}
    power = qu.identify(published(qu.get("gce", q=0.4)))
    assert [(m.name, *m.params.values()) for m in power[:2]] == [("beyond_log", 0.4), ("gce", 0.4)]
    assert len(qu.identify(published(qu.get("mae")), top=2)) == 2


def test_every_gate_is_read_at_all_vocabularies_at_once() -> None:
    """As it is at each in turn, by its gradient; none of the catalogue looks at more than single numbers."""
    batches = tuple(spread_over_u(vocab, seed=0) for vocab in ROWS)
    together = Place(batches, gate=True)
    as_one = TokensAsOne([b.token for b in batches])
    gates = [told(name) for name, cls in ENTRIES.items() if issubclass(cls, Gate)]
    assert len(gates) > 30
    for m in gates:
        apart = joined(together.blocks([gradient_of(m, b).numpy() for b in batches])).clip(-FAR, FAR)
        assert together.values(m) == pytest.approx(apart, rel=1e-9, abs=1e-12), m.name
        cast(Gate, m).weight(cast(Token, as_one))


def test_a_gate_that_looks_at_more_is_read_at_each_vocabulary() -> None:
    batches = tuple(spread_over_u(vocab, seed=0) for vocab in ROWS)
    expected = joined([(b.token.policy.probs**2).sum(-1, keepdim=True).numpy() for b in batches])

    class Flat(Gate):
        def loss(self, t: Token) -> Any:
            return -t.stop(self.weight(t)) * t.log_p_label

        def weight(self, t: Token) -> Any:
            return t.sum(t.policy.probs**2)

    assert TokensAsOne([b.token for b in batches]).weight_of(Flat()).numpy() == pytest.approx(expected)


def test_what_is_kept_of_the_catalogue_is_not_kept_of_ones_own() -> None:
    """What a user wrote may read something that changes."""
    size = [1.0]

    class Changing(Gate):
        def loss(self, t: Token) -> Any:
            return -size[0] * t.log_p_label

        def weight(self, t: Token) -> Any:
            return size[0]

    here = Place((spread_over_u(5, seed=0),), gate=True)
    once = here.kept_values(Changing())
    size[0] = 2.0
    assert here.kept_values(Changing()) == pytest.approx(2 * once)
    assert here.kept_values(qu.get("dft")) is here.kept_values(qu.get("dft"))


@pytest.mark.slow
def test_the_compiler_is_neither_loaded_nor_shown_what_is_no_loss() -> None:
    code = """
import sys, torch, qunify as qu
def smooth(z, y):
    return torch.nn.functional.cross_entropy(z.float(), y, reduction="none", label_smoothing=0.25)
assert "label_smoothing(smoothing=0.25)" in qu.identify(smooth).verdict
assert "torch._dynamo" not in sys.modules
print(qu.identify(torch.compile(smooth, backend="eager")).verdict)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "smooth is identical to label_smoothing(smoothing=0.25)" in done.stdout
    assert "recompile" not in done.stderr


# ---- steps and whole numbers ----------------------------------------------------------------------------------


def above(c: float) -> Loss:
    """Cross-entropy where u > c."""
    return lambda z, y: torch.where(log_u(z, y).exp().detach() > c, -log_u(z, y), 0 * log_u(z, y))


def clipped_at(c: float) -> Loss:
    return lambda z, y: -log_u(z, y).exp().clamp(max=c).log()


STEPS = [
    (above, 0.1, "profit", {"threshold": 0.1}),
    (clipped_at, 0.8, "threshold", {"low": 0.0, "high": 0.8, "base": "log"}),
    *((above, c, "profit", {"threshold": c}) for c in (0.01, 0.0201, 0.0999, 0.74)),
    *((clipped_at, c, "threshold", {"low": 0.0, "high": c, "base": "log"}) for c in (0.79, 0.91)),
]


@pytest.mark.parametrize(
    ("made", "c", "name", "params"), [*STEPS[:2], *(pytest.param(*s, marks=pytest.mark.slow) for s in STEPS[2:])]
)
def test_a_step_is_recognised_wherever_it_is(made: Callable[[float], Loss], c: float, name: str, params: Any) -> None:
    found = qu.identify(made(c), top=1)
    assert (found[0].name, found[0].params, found[0].level) == (name, params, "identical")
    low, high = (0, 1) if made is above else (1, 0)
    assert f"The weight jumps at u = {c} from {low} to {high}." in str(found)
    assert found.diagnosis.curve is not None
    assert all(min(abs(w), abs(w - 1)) < 1e-12 for w in found.diagnosis.curve[1])


@settings(max_examples=30, deadline=None)
@given(c=st.floats(2e-6, 0.9985), low=st.floats(0, 1), high=st.floats(1.5, 3))
def test_the_place_and_the_height_of_a_step_are_read_off(c: float, low: float, high: float) -> None:
    def step(z: Tensor, y: Tensor) -> Tensor:
        return torch.where(log_u(z, y).exp().detach() > c, high, low) * -log_u(z, y)

    (jump,) = jumps_of(examine(step, ()))
    assert jump == pytest.approx((c, low, high), rel=1e-6)


@given(power=st.floats(-0.5, 8))
@settings(max_examples=10, deadline=None)
def test_a_steep_weight_does_not_jump(power: float) -> None:
    assert jumps_of(examine(lambda z, y: -(log_u(z, y).exp().detach() ** power) * log_u(z, y), ())) == ()


@pytest.mark.parametrize("k", [30, *(pytest.param(k, marks=pytest.mark.slow) for k in (25, 77, 101))])
def test_a_whole_number_between_those_tried_is_found(k: int) -> None:
    m = qu.get("eaft", top_k=k)
    found = qu.identify(published(m), top=1)
    assert (found[0].level, found[0].params) == ("identical", {"top_k": k})


def test_a_whole_number_beyond_every_vocabulary_is_all_tokens() -> None:
    found = qu.identify(lambda z, y: -(entropy(z) / math.log(z.shape[-1])).detach() * log_u(z, y), top=1)
    assert (found[0].level, found[0].name, found[0].params) == ("identical", "eaft", {"top_k": V})
    assert "eaft(top_k=V)" in found.verdict


# ---- other people's code and known bugs ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_torch_cross_entropy_with_smoothing(reduction: str) -> None:
    found = qu.identify(torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction=reduction))
    assert (found[0].name, found[0].params, found[0].level) == ("label_smoothing", {"smoothing": 0.1}, "identical")
    assert found.diagnosis.reduction == reduction
    assert found.name == "CrossEntropyLoss"
    assert "its target is 0.1 of the uniform distribution" in str(found)


def test_float32_inside_is_not_mistaken_for_a_broken_loss() -> None:
    found = qu.identify(lambda z, y: F.cross_entropy(z.float(), y, reduction="none", label_smoothing=0.15))
    assert found[0].level == "identical"
    assert found[0].params["smoothing"] == pytest.approx(0.15, abs=1e-6)
    assert found.diagnosis.shift_invariant
    assert "It computes in float32: what is said of it holds to the rounding of float32." in str(found)


def test_dft_without_its_stop_gradient() -> None:
    found = qu.identify(lambda z, y: -log_u(z, y).exp() * log_u(z, y))
    assert (found[0].name, found[0].level) == ("dft_undetached", "identical")
    assert found.diagnosis.in_simplex < 1


@pytest.mark.slow
def test_smoothing_over_the_others_is_smoothing_that_depends_on_the_vocabulary() -> None:
    def spread_over_the_others(z: Tensor, y: Tensor) -> Tensor:
        log_p, vocab = z.log_softmax(-1), z.shape[-1]
        return -0.9 * log_u(z, y) - 0.1 / (vocab - 1) * (log_p.sum(-1) - log_u(z, y))

    found = qu.identify(spread_over_the_others)
    assert (found[0].name, found[0].level) == ("label_smoothing", "identical")
    expression = found[0].params["smoothing"]
    (vocab,) = expression.free_symbols
    assert sp.simplify(expression - sp.Float("0.1") * vocab / (vocab - 1)) == 0
    assert vocab is V  # the symbol of proofs and of `subsumes`, so that either answer fits the other
    assert float(expression.subs(V, 5)) == pytest.approx(0.125)
    assert "smoothing=0.1·V/(V - 1)" in found.verdict


SHARES: dict[str, Callable[[int], float]] = {
    "1 - 1/log(V)": lambda v: 1 - 1 / math.log(v),
    "0.3/sqrt(V)": lambda v: 0.3 / v**0.5,
    "1/(V + 1)": lambda v: 1 / (v + 1),
    "0.9 - 0.5/V": lambda v: 0.9 - 0.5 / v,
}


@pytest.mark.parametrize("said", ["1 - 1/log(V)", *(pytest.param(s, marks=pytest.mark.slow) for s in [*SHARES][1:])])
def test_a_share_may_depend_on_the_vocabulary_in_many_ways(said: str) -> None:
    def mixed(z: Tensor, y: Tensor) -> Tensor:
        share = SHARES[said](z.shape[-1])
        return -(1 - share) * log_u(z, y) - share * z.log_softmax(-1).mean(-1)

    found = qu.identify(mixed, top=1)
    assert (found[0].name, found[0].level, str(found[0].params["smoothing"])) == ("label_smoothing", "identical", said)


def test_a_share_that_no_plain_expression_gives_is_not_given_one() -> None:
    shares = {5: 0.31, 24: 0.17, 150: 0.43}
    found = qu.identify(lambda z, y: F.cross_entropy(z, y, reduction="none", label_smoothing=shares[z.shape[-1]]))
    assert "identical" not in {m.level for m in found}


def test_division_by_the_vocabulary_is_a_factor_that_depends_on_it() -> None:
    def torch_mean(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        return (teacher_logits.softmax(-1) * (teacher_logits.log_softmax(-1) - z.log_softmax(-1))).mean()

    found = qu.identify(torch_mean, ["teacher_logits"])
    assert (found[0].name, found[0].level, str(found[0].factor)) == ("kd", "scaled", "1/V")


def test_a_gate_may_be_divided_by_the_vocabulary() -> None:
    def mean_over_classes(z: Tensor, y: Tensor) -> Tensor:
        one_hot = F.one_hot(y, z.shape[-1])
        return -((1 - z.softmax(-1)) ** 2 * one_hot * z.log_softmax(-1)).mean(-1)

    found = qu.identify(mean_over_classes)
    assert (found[0].name, found[0].params, found[0].level) == ("focal", {"focusing": 2.0}, "scaled")
    assert str(found[0].factor) == "1/V"


@pytest.mark.parametrize(
    ("k", "divisor", "said"),
    [(20, 1.0, "log(Min(20, V))"), (20, 3.0, "log(Min(20, V))/3"), (30, 1.0, "log(Min(30, V))")],
)
def test_a_factor_may_depend_on_how_many_tokens_a_top_k_has(k: int, divisor: float, said: str) -> None:
    def in_nats(z: Tensor, y: Tensor) -> Tensor:
        top = z.detach().topk(min(k, z.shape[-1]), -1).values.log_softmax(-1)
        return log_u(z, y) * (top.exp() * top).sum(-1) / divisor

    found = qu.identify(in_nats)
    assert (found[0].name, found[0].params, found[0].level) == ("eaft", {"top_k": k}, "scaled")
    assert str(found[0].factor) == said


def clamped_top_k(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    """No log-probability below −10, as verl has it."""
    log_teacher, ids = teacher_logits.log_softmax(-1).topk(3, -1)
    log_p = z.log_softmax(-1).gather(-1, ids).clamp_min(-10.0)
    return (log_teacher.exp() * (log_teacher - log_p)).sum(-1)


def masked(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    """Distillation at T = 2, but not where the label is one of every four tokens."""
    log_p, teacher = (z / 2).log_softmax(-1), (teacher_logits / 2).softmax(-1)
    return -(y % 4 != 0).double() * (teacher * log_p).sum(-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "name", "params", "factor", "others"),
    [
        (clamped_top_k, "topk_kd", {"k": 3, "tail": "drop"}, 1.0, "something else at the others"),
        (masked, "kd", {"temperature": 2.0}, 0.25, "silent at the others"),
    ],
)
def test_a_method_at_most_tokens_is_named_with_its_share_of_them(
    loss: Loss, name: str, params: dict[str, Any], factor: float, others: str
) -> None:
    found = qu.identify(loss)
    assert (found[0].name, found[0].params, found[0].level, found[0].factor) == (name, params, "mostly", factor)
    assert 0.5 <= found[0].share < 1
    assert found[0].silent == ("silent" in others)
    assert f"at {found[0].share:.0%} of the tokens tried, and {others}." in found.verdict
    assert name not in [m.name for m in found[1:]]


def rank(z: Tensor, y: Tensor) -> Tensor:
    return 1 + (z > z.gather(1, y[:, None])).sum(-1)


def within(k: int) -> Loss:
    return lambda z, y: -log_u(z, y) * (rank(z, y) <= k)


def unlikely_alone(z: Tensor, y: Tensor) -> Tensor:
    return -u_of(z, y).detach() * log_u(z, y) * (rank(z, y) > 3)


def where_the_teacher_agrees(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    return -((1 - u_of(z, y)) ** 2) * log_u(z, y) * (rank(teacher_logits, y) <= 5)


def smoothed_below(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, reduction="none", label_smoothing=0.1) * (u_of(z, y).detach() < 0.65)


def focal_above(z: Tensor, y: Tensor) -> Tensor:
    return -((1 - u_of(z, y)) ** 2) * log_u(z, y) * (u_of(z, y).detach() > 0.3)


def where_sure(z: Tensor, y: Tensor) -> Tensor:
    return -log_u(z, y) * (z.softmax(-1).amax(-1) > 0.3)


def where_entropy_is_low(z: Tensor, y: Tensor) -> Tensor:
    entropy = -(z.softmax(-1) * z.log_softmax(-1)).sum(-1).detach()
    return -log_u(z, y) * (entropy < 1.2)


def between(z: Tensor, y: Tensor) -> Tensor:
    u = u_of(z, y).detach()
    return -3 * log_u(z, y) * ((u > 0.2) & (u < 0.6))


@pytest.mark.parametrize(
    ("loss", "named", "where"),
    [
        (within(20), "sft", "where the label is among the 20 likeliest tokens"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (within(3), "sft", "where the label is among the 3 likeliest tokens"),
                (unlikely_alone, "dft", "where the label is not among the 3 likeliest tokens"),
                (
                    where_the_teacher_agrees, "focal(focusing=2)",
                    "where the label is among the teacher's 5 likeliest tokens",
                ),
                (smoothed_below, "label_smoothing(smoothing=0.1)", "where u < 0.65"),
                (focal_above, "focal(focusing=2)", "where u > 0.3"),
                (between, "3 × sft", "where 0.2 < u < 0.6"),
                (where_sure, "sft", "where max p > 0.3"),
                (where_entropy_is_low, "sft", "where entropy < 1.2"),
            ]
        ),
    ],
)  # fmt: skip
def test_a_method_that_acts_somewhere_alone_is_told_with_where(loss: Loss, named: str, where: str) -> None:
    found = qu.identify(loss, top=1)
    assert (found[0].level, found[0].where, found[0].silent) == ("mostly", where, True)
    assert f" is {named} {where}, and silent at the others (" in found.verdict


def dft_above(z: Tensor, y: Tensor) -> Tensor:
    u = u_of(z, y).detach()
    return -torch.where(u > 0.1, u, torch.ones_like(u)) * log_u(z, y)


def slow_between(z: Tensor, y: Tensor) -> Tensor:
    u = u_of(z, y).detach()
    return -torch.where((u > 0.2) & (u < 0.7), 0.5, 1.0) * log_u(z, y)


def smoothed_above(z: Tensor, y: Tensor) -> Tensor:
    smoothed = F.cross_entropy(z, y, reduction="none", label_smoothing=0.1)
    return torch.where(u_of(z, y).detach() > 0.5, smoothed, -log_u(z, y))


def dft_in_top(z: Tensor, y: Tensor) -> Tensor:
    return -torch.where(rank(z, y) <= 2, u_of(z, y).detach(), 1.0) * log_u(z, y)


def dft_where_unsure(z: Tensor, y: Tensor) -> Tensor:
    """Of five tokens most predictions are sure, of 150 few: neither method has half of the tokens of every size."""
    return -torch.where(entropy(z) < 1, 1.0, u_of(z, y).detach()) * log_u(z, y)


def taught_where_unsure(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    taught = -(teacher_logits.softmax(-1) * z.log_softmax(-1)).sum(-1)
    return torch.where(entropy(z) < 1, -log_u(z, y), taught)


@pytest.mark.parametrize(
    ("loss", "named", "where", "others"),
    [
        (dft_above, "sft", "where u < 0.1", "dft"),
        (dft_where_unsure, "sft", "where entropy < 1", "dft"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (slow_between, "0.5 × sft", "where 0.2 < u < 0.7", "sft"),
                (smoothed_above, "sft", "where u < 0.5", "label_smoothing(smoothing=0.1)"),
                (dft_in_top, "dft", "where the label is among the 2 likeliest tokens", "sft"),
                (taught_where_unsure, "sft", "where entropy < 1", "kd(temperature=1)"),
            ]
        ),
    ],
)
def test_one_method_here_and_another_elsewhere_are_both_told(loss: Loss, named: str, where: str, others: str) -> None:
    found = qu.identify(loss, top=1)
    assert (found[0].level, found[0].where, found[0].silent) == ("mostly", where, False)
    assert f" is {named} {where}, and {others} at the others (" in found.verdict


def test_the_condition_under_which_a_loss_is_a_method_is_told_alone_where_the_rest_is_none() -> None:
    def odd_below(z: Tensor, y: Tensor) -> Tensor:
        u = u_of(z, y)
        return torch.where(u.detach() > 0.3, -log_u(z, y), (3 * u).sin() ** 2)

    assert " is sft where u > 0.3, and something else at the others (" in qu.identify(odd_below).verdict


def class_weights(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, weight=1.0 + torch.arange(z.shape[-1]).double() % 3, reduction="none")


def heavy_distillation(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    kd = -(teacher_logits.softmax(-1) * z.log_softmax(-1)).sum(-1)
    return torch.where(y < 2, 0.5, 4.0) * kd


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (class_weights, "sft, times a weight of 1 to 3 that depends on the label alone"),
        pytest.param(
            heavy_distillation, "kd(temperature=1), times a weight of 0.5 to 4 that depends on the label alone",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_class_weights_are_told_from_the_method_that_they_weigh(loss: Loss, sentence: str) -> None:
    found = qu.identify(loss, top=1)
    assert (found[0].level, str(found[0])) == ("weighted", sentence)
    assert f"{loss.__name__} is {sentence}." in found.verdict


@pytest.mark.slow
def test_weights_in_the_sum_over_tokens_are_no_weights_of_the_label() -> None:
    def smoothed(z: Tensor, y: Tensor) -> Tensor:
        w = 1.0 + torch.arange(z.shape[-1]).double() % 3
        return F.cross_entropy(z, y, weight=w, reduction="none", label_smoothing=0.1)

    assert all(m.level != "weighted" for m in qu.identify(smoothed))


def test_where_nothing_plain_tells_when_a_loss_acts_no_condition_is_named() -> None:
    def every_third(z: Tensor, y: Tensor) -> Tensor:
        return -log_u(z, y) * (y % 3 != 0)

    assert qu.identify(every_third)[0].where == ""


@pytest.mark.slow
def test_a_loss_that_is_no_method_at_most_tokens_is_not_said_to_be_one() -> None:
    def half(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        kd = -(teacher_logits.softmax(-1) * z.log_softmax(-1)).sum(-1)
        return torch.where(y % 3 == 0, kd, (z.softmax(-1) ** 3).sum(-1))

    assert all(m.level != "mostly" for m in qu.identify(half))


@pytest.mark.slow
def test_a_loss_that_ignores_the_number_of_items() -> None:
    def ignores(z: Tensor, y: Tensor, num_items_in_batch: int | None = None) -> Tensor:
        return F.cross_entropy(z, y)

    def respects(z: Tensor, y: Tensor, num_items_in_batch: int) -> Tensor:
        return F.cross_entropy(z, y, reduction="sum") / num_items_in_batch

    found = qu.identify(ignores)
    assert (found[0].name, found[0].level, found.diagnosis.reduction) == ("sft", "identical", "mean")
    assert "takes num_items_in_batch and ignores it" in str(found)
    found = qu.identify(respects)
    assert (found[0].name, found[0].level) == ("sft", "identical")
    assert "divides by num_items_in_batch" in str(found)
    assert "every micro-batch counts the same" in str(qu.identify(lambda z, y: F.cross_entropy(z, y)))


def test_a_mean_over_ignored_tokens_too() -> None:
    over_all = qu.identify(lambda z, y: F.cross_entropy(z, y, reduction="none").mean())
    over_kept = qu.identify(lambda z, y: F.cross_entropy(z, y))
    assert "the ignored ones (label -100) included" in str(over_all)
    assert "ignored ones" not in str(over_kept)


@pytest.mark.slow
def test_tokens_that_interact_are_judged_alone_and_that_is_said() -> None:
    def weighted_mean(z: Tensor, y: Tensor, token_weight: Tensor) -> Tensor:
        return -(token_weight * log_u(z, y)).sum() / token_weight.sum()

    found = qu.identify(weighted_mean, ("token_weight",))
    assert found.verdict.startswith("Taken one token at a time, weighted_mean is identical to sft")
    assert found.diagnosis.unused == ("token_weight",)
    assert "Its tokens interact" in str(found)


def by_mean_entropy(z: Tensor, y: Tensor) -> Tensor:
    log_p = z.log_softmax(-1)
    return -0.5 * (log_p.exp() * log_p).sum(-1).mean().detach().exp() * log_u(z, y)


def lowest_losses(z: Tensor, y: Tensor) -> Tensor:
    losses = -log_u(z, y)
    return losses * (losses.detach() <= losses.detach().quantile(0.7))


def half_the_mean_as_a_floor(z: Tensor, y: Tensor) -> Tensor:
    u = log_u(z, y).exp()
    floor = u.detach().mean() / 2
    power = floor + (1 - floor) * u.detach() / (2 - u.detach())
    return (1 - u**power) / power


def above_twice_the_median(z: Tensor, y: Tensor) -> Tensor:
    losses = -log_u(z, y)
    return 3 * losses * (2 * losses.detach().median() / losses.detach()).clamp(max=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        (by_mean_entropy, "identical to srft(scale=0.5)"),
        (lowest_losses, "identical to lowest_losses(keep=0.7)"),
        (half_the_mean_as_a_floor, "identical to cayley_floor"),
        (above_twice_the_median, "3 × antiop(multiple=2), a change of learning rate"),
    ],
)
def test_what_weights_by_its_batch_is_recognised_on_whole_batches(loss: Any, verdict: str) -> None:
    found = qu.identify(loss)
    assert found.together
    assert found.verdict.startswith(f"All tokens of a batch taken for one sequence, {loss.__name__} is {verdict}")


# ---- what the catalogue does not have ------------------------------------------------------------------------


def test_a_gate_of_its_own_comes_with_its_weight_curve() -> None:
    def novel(z: Tensor, y: Tensor) -> Tensor:
        u = log_u(z, y).exp().detach()
        return -(u * torch.sin(3 * u) + 0.2) * log_u(z, y)

    found = qu.identify(novel)
    assert found.verdict.startswith("novel is a gate of its own")
    assert {m.level for m in found} == {"directional"}, "its weight is positive, as theirs"
    assert found.diagnosis.on_u_alone
    assert found.diagnosis.curve is not None
    for u, w in zip(*found.diagnosis.curve, strict=True):
        assert w == pytest.approx(u * math.sin(3 * u) + 0.2, abs=1e-9)
    assert "w(0.5) = 0.6987" in str(found)


def test_a_weight_that_depends_on_more_than_u() -> None:
    def entropic(z: Tensor, y: Tensor) -> Tensor:
        p = z.softmax(-1).detach()
        return -torch.sin((p**2).sum(-1)) * log_u(z, y)

    found = qu.identify(entropic)
    assert "gate of its own" in found.verdict
    assert not found.diagnosis.on_u_alone


@pytest.mark.slow
def test_a_known_target_with_other_weights_is_directional() -> None:
    def weighted_kd(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        kl = F.kl_div(z.log_softmax(-1), teacher_logits.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        return log_u(z, y).exp().detach() * kl

    found = qu.identify(weighted_kd, ("teacher_logits",))
    by_name = {match.name: match for match in found}
    assert by_name["kd"].level == found[0].level == "directional"
    assert found[0].name in ("kd", "posterior")
    assert by_name["posterior"].params["noise"] == pytest.approx(1)  # where it is kd
    assert found.verdict.startswith(f"weighted_kd points in direction {found[0].name}(")
    assert by_name["kd"].error > 0.1


def test_unlike_anything_here() -> None:
    found = qu.identify(lambda z, y: (z.softmax(-1) ** 3).sum(-1) + torch.sin(5 * z.softmax(-1)).sum(-1))
    assert found == []
    assert "unlike anything here" in found.verdict
    assert "no mixture of the model, the uniform distribution" in str(found)


@pytest.mark.slow
def test_where_the_residual_goes() -> None:
    def blend(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        target = 0.3 * teacher_logits.softmax(-1) + 0.1 / z.shape[-1]
        return -(target * z.log_softmax(-1)).sum(-1) - 0.6 * log_u(z, y)

    found = qu.identify(blend, ("teacher_logits",))
    assert "Off the label, its target is 0.1 of the uniform distribution and 0.3 of the teacher." in str(found)
    taught = qu.identify(lambda z, y, teacher_logits: -(teacher_logits.softmax(-1) * z.log_softmax(-1)).sum(-1))
    assert "Off the label, its target is the teacher." in str(taught)


def test_a_loss_without_a_target_is_diagnosed_with_the_size() -> None:
    found = qu.identify(lambda z, y: (z**2).mean(-1))
    assert found == []
    assert not found.diagnosis.shift_invariant
    assert "not shift-invariant: its gradient sums to as much as" in str(found)


def test_a_constant_teaches_nothing() -> None:
    assert "teaches nothing" in qu.identify(lambda z, y: (z - z).sum(-1)).verdict


@pytest.mark.parametrize(("x", "expected"), [(0.4999999, 0.5), (0.66666, 2 / 3), (1e-9, 0.0), (0.2371, 0.237)])
def test_simple_numbers_come_first(x: float, expected: float) -> None:
    assert simple_numbers(x)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "within", "expected"),
    [
        (0.7, 2**-53, "7/10"),
        (1 / 3, 2**-53, "1/3"),
        (0.333333, 1e-5, "1/3"),
        (0.333333, 1e-13, "333333/1000000"),
        (-2.5, 1e-9, "-5/2"),
        (3.0000001, 1e-6, "3"),
        (0.0, 1e-6, "0"),
        (1e-9, 1e-12, "1/1000000000"),
    ],
)
def test_the_simplest_fraction_near_a_number(x: float, within: float, expected: str) -> None:
    assert str(simplest(x, within)) == expected


def test_no_fraction_nearby_has_a_smaller_denominator() -> None:
    for x in torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist():
        found = simplest(x, 1e-4)
        assert abs(found - Fraction(x)) <= Fraction(1e-4) * Fraction(x)
        assert not any(abs(round(x * q) / q - x) <= 0.999e-4 * x for q in range(1, found.denominator))


# ---- sums, signs and sizes -----------------------------------------------------------------------------------


def reverse_kl(z: Tensor, other: Tensor) -> Tensor:
    return (z.softmax(-1) * (z.log_softmax(-1) - other.log_softmax(-1))).sum(-1)


def entropy(z: Tensor) -> Tensor:
    return -(z.softmax(-1) * z.log_softmax(-1)).sum(-1)


def u_of(z: Tensor, y: Tensor) -> Tensor:
    return log_u(z, y).exp()


def half_reverse(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    return -log_u(z, y) + 0.5 * reverse_kl(z, teacher_logits)


def softened(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    soft = -((teacher_logits / 2.5).softmax(-1) * (z / 2.5).log_softmax(-1)).sum(-1)
    return -0.3 * log_u(z, y) + 0.7 * 2.5**2 * soft


SUMS = [
    (
        lambda z, y: -u_of(z, y).detach() * log_u(z, y) - 0.1 * entropy(z),
        {"dft": 1, "confidence_penalty(0.1)": 1, "sft": -1},
    ),
    (half_reverse, {"sft": 1, "reverse_kl": 0.5}),
    (softened, {"sft": 0.3, "kd(2.5)": 0.7}),
    (
        lambda z, y: -u_of(z, y).detach() * log_u(z, y) + 1e-2 * z.logsumexp(-1) ** 2,
        {"dft": 1, "z_loss(0.01)": 1, "sft": -1},
    ),
    # As cross-entropy, focal and three times DFT: two of these are poly1.
    (lambda z, y: -log_u(z, y) * (1 + (1 - u_of(z, y)) ** 2) - 3 * u_of(z, y), {"poly1(3.0)": 1, "focal(2.0)": 1}),
]


@pytest.mark.parametrize(
    ("loss_fn", "expected"), [SUMS[0], *(pytest.param(*s, marks=pytest.mark.slow) for s in SUMS[1:])]
)
def test_a_sum_is_told_with_its_terms(loss_fn: Loss, expected: dict[str, float]) -> None:
    found = qu.identify(loss_fn)
    assert found.sum is not None
    assert found.sum.error < 1e-7
    named = {m.name + (f"({next(iter(m.params.values()))})" if m.params else ""): c for c, m in found.sum.terms}
    assert named == pytest.approx(expected)
    assert "is a sum, " in found.verdict
    assert {"identical", "scaled"}.isdisjoint(m.level for m in found)


def test_a_lost_minus_sign_is_told() -> None:
    found = qu.identify(
        lambda z, y: -0.5 * torch.nn.functional.cross_entropy(z, y, reduction="none", label_smoothing=0.1)
    )
    assert (found[0].name, found[0].level, found[0].factor) == ("label_smoothing", "opposite", -0.5)
    lost = "is -0.5 × label_smoothing(smoothing=0.1), whose target a step of descent moves away from"
    assert lost in found.verdict


def test_what_unlearns_on_purpose_is_also_told_as_a_lost_minus_sign() -> None:
    found = qu.identify(lambda z, y: 0.5 * log_u(z, y))
    assert [(m.name, m.level, m.factor) for m in found if not m.params] == [("sft", "opposite", -0.5)]
    assert (found[0].name, found[0].params, found[0].level) == ("wga", {"power": 0}, "scaled")
    assert "simnpo" not in {m.name for m in found}, "it only tends to it"


@pytest.mark.parametrize(
    "size", [1e-12, pytest.param(1e-6, marks=pytest.mark.slow), pytest.param(1e5, marks=pytest.mark.slow)]
)
def test_the_size_of_a_loss_is_a_factor_of_the_plainest_method(size: float) -> None:
    found = qu.identify(lambda z, y: -size * log_u(z, y))
    assert (found[0].name, found[0].level, found[0].params) == ("sft", "scaled", {})
    assert found[0].factor == pytest.approx(size, rel=1e-9)
    assert found.verdict.split(" is ")[1].startswith(f"{size:.6g} × sft")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("psft", {"clip": 50.0}),  # of the ratio to the older policy
        ("psft", {"clip": 120.0}),
        ("cispo", {"cap": 200.0}),
        ("luffy", {"gamma": 1e-6}),  # but for tokens of small u, any multiple of 1/u
        ("beyond_log", {"alpha": -20.0}),
    ],
)
def test_parameters_that_few_tokens_tell_are_read_off_these(name: str, params: dict[str, float]) -> None:
    m = qu.get(name, **params)
    found = qu.identify(published(m), m.needs)
    assert (found[0].level, found[0].name) == ("identical", name)
    assert found[0].params == pytest.approx(params)
    assert {match.level for match in found if match.name in ("sft", "mae", "margin_softmax", "vespo")} <= {
        "directional"
    }


def test_a_scaled_limit_is_told_from_the_limit() -> None:
    small = qu.identify(published(qu.get("luffy", gamma=1e-6), times=0.35))[0]
    assert (small.name, small.params, small.level) == ("luffy", {"gamma": pytest.approx(1e-6)}, "scaled")
    assert small.factor == pytest.approx(0.35)


def test_gradients_whose_squares_are_infinite_do_not_interact() -> None:
    found = qu.identify(published(qu.get("beyond_log", alpha=-50.0)))
    assert not found.diagnosis.apart
    assert found.verdict.startswith("mine is beyond_log(alpha=-50) where u > ")  # below, float64 has no such numbers


def test_a_floor_that_no_token_reaches_is_0() -> None:
    found = qu.identify(lambda z, y: 2 * (1 - u_of(z, y) ** 0.5), top=9)
    assert named(found, "talr").params == {"temperature": 2, "floor": 0}


@pytest.mark.slow
def test_what_methods_only_tend_to_is_no_match() -> None:
    found = qu.identify(lambda z, y, teacher_logits: 3 * reverse_kl(z, teacher_logits), top=99)
    assert found[0].level == "scaled"
    assert {"taid", "abkd"}.isdisjoint(m.name for m in found)


def test_no_gate_far_away_is_named() -> None:
    def clipped(z: Tensor, y: Tensor, old_logits: Tensor) -> Tensor:
        ratio = u_of(z, y) / u_of(old_logits, y)
        return torch.min(ratio, ratio.clamp(0.8, 1.2)) * log_u(old_logits, y)

    found = qu.identify(clipped)
    assert found == []
    assert found.verdict == "clipped is a gate of its own, and none of the catalogue comes near."


# ---- tokens in sequences, and losses that shift them ---------------------------------------------------------


def flat_shift(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z[:-1], y[1:])


def shift_in_sequences(z: Tensor, y: Tensor) -> Tensor:
    _, _, vocab = z.shape
    return F.cross_entropy(z[:, :-1].reshape(-1, vocab), y[:, 1:].reshape(-1), ignore_index=-100)


def sum_with_shift(z: Tensor, y: Tensor) -> Tensor:
    return -z[..., :-1, :].log_softmax(-1).gather(-1, y[..., 1:, None]).sum()


def sequences(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), y, reduction="none", label_smoothing=0.1)


@pytest.mark.parametrize(
    ("loss_fn", "note", "reduction"),
    [
        (flat_shift, "It shifts: the logits of a position are compared with the label of the next", "mean"),
        (shift_in_sequences, "It shifts: ", "mean"),
        (sum_with_shift, "It shifts: ", "sum"),
        (sequences, "It takes sequences, logits (B, T, V)", "none"),
    ],
)
def test_a_loss_of_sequences_is_given_them(loss_fn: Loss, note: str, reduction: str) -> None:
    subject = examine(loss_fn, ())
    assert subject.notes[0].startswith(note)
    assert subject.calling.reduction == reduction
    p = spread_over_u(24, 0)[:9]
    expected = qu.get("label_smoothing") if loss_fn is sequences else qu.get("sft")
    assert torch.allclose(subject(p).gradient, expected(p.logits, p.labels).gradient)


@pytest.mark.slow
def test_a_loss_that_shifts_is_recognised() -> None:
    found = qu.identify(shift_in_sequences)
    assert found.verdict.startswith("shift_in_sequences is identical to sft")
    assert "It shifts: " in str(found)


# ---- functions that cannot be asked --------------------------------------------------------------------------


def needs_teacher(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    return -(teacher_logits.softmax(-1) * z.log_softmax(-1)).sum(-1)


def needs_both(z: Tensor, y: Tensor, teacher_logits: Tensor, old_logits: Tensor) -> Tensor:
    return needs_teacher(z, y, teacher_logits + old_logits)


def samples(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
    sampled = torch.multinomial(z.softmax(-1), 1)
    return (z.log_softmax(-1) - teacher_logits.log_softmax(-1)).gather(1, sampled)[:, 0] ** 2


def dropout(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.dropout(z, 0.01), y)


def top_30(z: Tensor, y: Tensor) -> Tensor:
    return -log_u(z, y) * entropy(z.topk(30).values).detach()


def in_place(z: Tensor, y: Tensor) -> Tensor:
    p = z.exp()
    total = p.square().sum(-1)
    p += 1
    return total


def needs_temperature(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    return -log_u(z / temperature, y)


def raises(z: Tensor, y: Tensor) -> Tensor:
    raise RuntimeError("my own message")


class HalfBackward(torch.autograd.Function):
    """Cross-entropy whose gradient is made by NumPy in float16."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(z.softmax(-1) - F.one_hot(y, z.shape[-1]))
        return -log_u(z, y)

    @staticmethod
    def backward(ctx: Any, *sizes: Any) -> Any:
        (g,) = ctx.saved_tensors
        return torch.from_numpy((g * sizes[0][:, None]).numpy().astype("float16")), None


@pytest.mark.parametrize(
    ("loss_fn", "contexts", "message"),
    [
        (needs_both, ("old_logits",), r"needs_both: needs teacher_logits; add contexts=\('teacher_logits',\)"),
        (needs_teacher, ("techer_logits",), "unknown context 'techer_logits', did you mean teacher_logits"),
        (log_u, ("teacher_logits",), "log_u: contexts: it takes no argument teacher_logits"),
        (needs_temperature, (), "needs temperature, which is no known context; bind it with functools.partial"),
        (raises, (), r"raises raised RuntimeError when called with logits \(8, 5\), labels \(8,\): my own message"),
        (samples, (), "samples: expected the same gradient from two calls .* it is random, .* k1, k2 and k3"),
        (dropout, (), "dropout: expected the same gradient from two calls on the same tokens, got two"),
        (top_30, (), "index k out of range; it is tried with vocabularies of 5, 24, 150: of a top-k take min"),
        (in_place, (), "in_place: expected losses that can be differentiated, got RuntimeError in the backward pass: "),
        (lambda z, y: z, (), r"expected one loss per token, shape \(8,\), or their mean or sum, got \(8, 5\); return"),
        (lambda z, y: 1.0, (), "got float; return a tensor"),
        (lambda z, y: z.detach().sum(-1), (), "differentiably on the logits, got none that do; look for .detach"),
        (lambda z, y: log_u(z, y) * torch.nan, (), "expected finite losses, got nan; look for the log"),
        (lambda z, y: HalfBackward.apply(z, y), (), "computes in float16, whose rounding hides"),
        (3, (), "identify: method: expected an id of the catalogue, a QMap or a loss function, got 3"),
    ],
)
def test_bad_functions_are_told_what_to_change(loss_fn: Any, contexts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qu.identify(loss_fn, contexts)


def test_the_users_exception_is_kept() -> None:
    with pytest.raises(ValueError, match="my own message") as caught:
        qu.identify(raises)
    assert isinstance(caught.value.__cause__, RuntimeError)


# ---- the command ---------------------------------------------------------------------------------------------

SOURCE = """
import torch.nn.functional as F
def smooth(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.2)
def dft(logits, labels):
    losses = F.cross_entropy(logits, labels, reduction="none")
    return losses * (-losses).exp().detach()
def kd(logits, labels, teacher_logits):
    return -(teacher_logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "somebodys_losses.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import no_such_package_anywhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("where", ["somebodys_losses", "somebodys_losses.py", "./somebodys_losses.py"])
def test_the_command_takes_a_module_or_a_file(where: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", f"{where}:smooth"]) == 0
    assert "smooth is identical to label_smoothing(smoothing=0.2)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_in_json_with_the_contexts_of_the_signature(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identify", "somebodys_losses:kd", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["matches"][0]["id"] == "kd"
    assert data["matches"][0]["level"] == "identical"
    assert data["diagnosis"]["contexts_used"] == ["teacher_logits"]
    assert main(["identify", "somebodys_losses:dft"]) == 0
    page = capsys.readouterr().out
    assert "identical to dft" in page
    assert "Weight w in the gradient" in page


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            "smooth",
            "(a method of your own is MODULE:NAME or path/to/file.py:NAME)",
        ),
        ("no_such_module_here:f", "no module 'no_such_module_here'"),
        ("missing.py:f", "missing.py: no such file"),
        ("somebodys_losses:smoth", "somebodys_losses has no smoth, did you mean smooth?"),
        ("broken:f", "broken cannot be imported: No module named 'no_such_package_anywhere'"),
        ("somebodys_losses:kd --contexts teacher_logits,old_logits", "kd: contexts: it takes no argument old_logits"),
        ("somebodys_losses:smooth --contexts teacher", "unknown context 'teacher', did you mean teacher_logits?"),
    ],
)
def test_command_errors_are_one_sentence(
    argv: str, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identify", *argv.split()]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_a_loss_that_is_silent_for_one_label_is_told() -> None:
    """As where padding is token 0; so few tokens are left that parameters outnumber them."""
    found = qu.identify(lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none", ignore_index=0), top=1)
    assert (found[0].name, found[0].level, found[0].silent) == ("sft", "mostly", True)
