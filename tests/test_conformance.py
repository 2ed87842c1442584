"""Every entry × every example setting × every telling token: the loss, the pulls and the declared facts agree."""

from __future__ import annotations

import inspect
import pkgutil
import re
from typing import Any

import mpmath as mp
import pytest
import torch

import qunify as qu
from qunify import catalogue
from qunify.catalogue import ENTRIES, PAPER
from qunify.maps import GAUGES, Gate, QMap, exact_gradient
from qunify.maps._target import GaugeName
from qunify.token import DIGITS, TensorToken
from tests.battery import Batch, autograd, batch, conforms, disagreement, every_setting, one_each, size_of

VOCABS = (2, 5, 24)


#: Settings at which every target of the battery is a distribution, though the entry says "sometimes": at most of them
#: the method is another one, whose target always is, or does nothing. A new method says so itself, by a property.
INSIDE = {
    qu.get(name, **params)
    for name, params in (
        ("psft", {"clip": 0}),
        ("focal", {"focusing": 0}),
        ("poly1", {"epsilon": -2}),
        ("symmetric_ce", {"rce_weight": 0}),
        ("symmetric_ce", {"log_zero": 0}),
        ("agce", {"a": 0}),
        ("agce", {"a": 0, "q": 0}),
        ("agce", {"a": 0, "q": 0.5}),
        ("agce", {"a": 2, "q": 0}),
        ("aue", {"a": 1, "q": 2}),
        ("aue", {"a": 3, "q": 0.5}),
        ("bootstrap_soft", {"beta": 1}),
        ("sft_kl", {"kl_weight": 0}),
        ("asft", {"kl_weight": 0}),
        ("abkd", {"alpha": 1, "beta": 1}),
        ("gem", {"beta": 1}),
        ("temperature_ce", {"temperature": 1}),
        ("logit_adjustment", {"tau": 0}),
        ("bi_tempered", {"t2": 1}),
        ("bi_tempered", {"t1": 0.5, "t2": 1}),
        ("mbls", {"weight": 0}),
        ("unlikelihood", {"weight": 0}),
        ("elr", {"weight": 0}),
        ("eksft", {"kl_weight": 0}),
    )
}


@pytest.mark.parametrize("m", every_setting())
@pytest.mark.parametrize("vocab", VOCABS)
def test_loss_gradient_equals_the_sum_of_pulls(m: QMap, vocab: int) -> None:
    b = batch(vocab)
    assert conforms(m, b), f"apart by {float(disagreement(m, b).max()):.1e}"


@pytest.mark.parametrize("m", every_setting())
def test_target_sums_to_one_exactly_if_declared_shift_invariant(m: QMap) -> None:
    b = batch(24)
    q = m(b.logits, b.labels, **b.context)
    scale = size_of(q.gradient)[:, 0]
    # Where the loss is not shift-invariant, p − g would sum to something else than one.
    off = ((torch.softmax(b.logits, -1) - q.gradient).sum(-1) - 1).abs() / scale
    assert bool((off < 1e-12).all()) == m.shift_invariant == q.shift_invariant
    assert bool(q.target.isnan().any()) == (not m.shift_invariant)
    if m.shift_invariant:
        assert float(((q.target.sum(-1) - 1).abs() / scale).max()) < 1e-12


@pytest.mark.parametrize("m", one_each(every_setting()))
@pytest.mark.parametrize("vocab", VOCABS)
def test_every_gauge_reproduces_the_gradient(m: QMap, vocab: int) -> None:
    b = batch(vocab)
    q = m(b.logits, b.labels, **b.context)
    p = torch.softmax(b.logits, -1)
    for name in GAUGES:
        gauge = q.in_gauge(name)
        defined = ~gauge.scale.isnan()
        assert bool((gauge.target.isnan().any(-1) == ~defined).all()), "NaN exactly where the gauge is undefined"
        rebuilt = gauge.scale[:, None] * (p - gauge.target)
        size = size_of(q.gradient) * gauge.scale[:, None].clamp(min=1)
        torch.testing.assert_close((rebuilt / size)[defined], (q.gradient / size)[defined], rtol=0, atol=1e-12)
        assert bool((gauge.scale[defined] > 0).all())
        open_ = defined & (gauge.trust < 1 - 1e-6)
        recomposed = (1 - gauge.trust)[:, None] * gauge.residual
        recomposed += gauge.trust[:, None] * torch.nn.functional.one_hot(b.labels, vocab)
        # A gauge of scale s divides the rounding of the gradient by s.
        reach = 1 + gauge.trust.abs()[:, None] + size_of(q.gradient) / gauge.scale[:, None]
        torch.testing.assert_close((recomposed / reach)[open_], (gauge.target / reach)[open_], rtol=0, atol=1e-13)


@pytest.mark.parametrize("m", one_each(every_setting()))
def test_undefined_gauges(m: QMap) -> None:
    b = batch(5)
    q = m(b.logits, b.labels, **b.context)
    undefined = {g: q.in_gauge(g).scale.isnan() for g in GAUGES}
    if m.shift_invariant:
        assert not bool(undefined["unit"].any())
        still = (q.gradient == 0).all(-1)
        assert bool(undefined["boundary"][still].all()), "nothing is taught where the gradient is zero"
        lowest = q.in_gauge("boundary").target[~undefined["boundary"]].amin(-1)
        assert (len(lowest) == 0) == bool(still.all()), "it is undefined everywhere only if nothing is ever taught"
        assert bool((lowest.abs() < 1e-12).all()), "the boundary target is a distribution, one of its entries zero"
    else:
        assert all(bool(nowhere.all()) for nowhere in undefined.values())


@pytest.mark.parametrize("gauge", GAUGES)
def test_nothing_remains_where_trust_is_one_and_something_elsewhere(gauge: GaugeName) -> None:
    b, trusting = batch(5), set()
    for case in every_setting():
        (m,) = case.values
        found = m(b.logits, b.labels, **b.context).in_gauge(gauge)
        whole = found.trust == 1
        assert bool(found.residual[whole].isnan().all()), case.id
        open_ = (found.trust - 1).abs() > 1e-9  # and not NaN
        assert not bool(found.residual[open_].isnan().any()), case.id
        if bool(whole.any()):
            trusting.add(m.name)
    always = {"sft", "profit", "cft", "threshold"}  # gates of weight 0 and 1
    gates = {name for name, cls in ENTRIES.items() if issubclass(cls, Gate)}
    pushing = {name for name in gates if ENTRIES[name].family == "unlearning"}  # only ever away from the label
    assert trusting >= (always if gauge == "unit" else gates - pushing), "each of these has tokens trusted wholly"
    assert not trusting & pushing


@pytest.mark.parametrize("m", one_each(every_setting()))
def test_simplex_is_as_declared(m: QMap) -> None:
    inside = []
    for vocab in (5, 24, 1000):
        b = batch(vocab)
        q = m(b.logits, b.labels, **b.context)
        # A push smaller than rounding does not show: judge "never" where label and gradient are worth speaking of.
        telling = q.gradient.abs().amax(-1) > 1e-9
        telling &= torch.softmax(b.logits, -1).gather(1, b.labels[:, None])[:, 0] > 1e-9
        inside.append(q.in_simplex[telling] if m.simplex == "never" else q.in_simplex)
    share = float(torch.cat(inside).double().mean())
    declared = "always" if m in INSIDE else m.simplex
    if m == qu.get("skew_kl", skew=0):  # its weight, 1, is a sum of exponentials of long logarithms
        assert declared == "always"
        assert share > 0.99
    elif declared == "sometimes":
        assert 0 < share < 1
    else:
        assert share == {"always": 1, "never": 0}[declared]


@pytest.mark.parametrize("name", [n for n in ENTRIES if {"token_weight", "token_mask"} & set(ENTRIES[n].needs)])
def test_what_a_context_weighs_is_declared(name: str) -> None:
    """Where the context is zero, so are the loss and its gradient, whatever else the token has; nowhere else."""
    b, m = batch(5), qu.get(name)
    (key,) = {"token_weight", "token_mask"} & set(m.needs)
    q = m(b.logits, b.labels, **(b.context | {key: torch.zeros_like(b.context[key])}))
    nothing = not bool(q.loss.any() or q.gradient.any())
    assert m.weighed_by == (key if nothing else "")


@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_needs_are_exactly_what_the_method_reads(name: str) -> None:
    from qunify.token import read

    b = batch(5)
    used: set[str] = set()
    for case in every_setting():
        (m,) = case.values
        if m.name == name:
            t, _ = read(name, tuple(b.context), b.logits, b.labels, -100, b.context)
            m.loss(t)
            list(m.pulls(t))
            used |= t.used
    assert used == set(qu.get(name).needs)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_carries_its_facts(name: str) -> None:
    cls = ENTRIES[name]
    for fact in ("title", "summary", "loss_text", "pulls_text", "source", "formula", "family"):
        assert getattr(cls, fact), f"{name}: {fact} is empty"
    assert qu.get(name).simplex in ("always", "sometimes", "never")
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert cls.summary.endswith((".", ")")), "the summary is a sentence"
    assert bool(re.search(r"\b(19|20)\d\d\b", cls.source)), "the source names a year"


def test_every_concrete_class_is_in_the_catalogue() -> None:
    found = set()
    for module in pkgutil.iter_modules(catalogue.__path__, "qunify.catalogue."):
        for cls in vars(__import__(module.name, fromlist=["_"])).values():
            if isinstance(cls, type) and issubclass(cls, QMap) and not inspect.isabstract(cls) and cls.name:
                found.add(cls.name)
    assert found == set(ENTRIES)
    assert len(ENTRIES) >= 60
    assert set(PAPER) <= set(ENTRIES)
    assert len(PAPER) == 15


@pytest.mark.parametrize("name", [n for n, cls in ENTRIES.items() if issubclass(cls, Gate)])
def test_a_gate_is_measured_as_one(name: str) -> None:
    m, b = qu.get(name), batch(24)
    q = m(b.logits, b.labels, **b.context)
    p, u = torch.softmax(b.logits, -1), torch.softmax(b.logits, -1).gather(1, b.labels[:, None])[:, 0]
    safe = (u < 0.999) & (u > 1e-9)
    w = (-q.gradient.gather(1, b.labels[:, None])[:, 0] / (1 - u))[safe]
    torch.testing.assert_close(q.trust[safe], w, rtol=1e-9, atol=1e-12)
    expected = w[:, None] * (p - torch.nn.functional.one_hot(b.labels, 24))[safe]
    torch.testing.assert_close(q.gradient[safe], expected, rtol=1e-9, atol=1e-12)


#: What a method's own link predicts, of a token and the method's parameters.
LINKS = {
    "softmax(z/T)": lambda t, params: t.tempered(t.policy, params["temperature"]),
    "sparsemax(z)": lambda t, params: t.entmax(2),
    "entmax15(z)": lambda t, params: t.entmax(1.5),
    "exp_t2(z − λ(z))": lambda t, params: t.tempered_softmax(params["t2"]),
}
LINKED = [name for name in ENTRIES if qu.get(name).link != "softmax"]


def test_every_link_is_known_here() -> None:
    assert {qu.get(name).link for name in LINKED} == set(LINKS)


@pytest.mark.parametrize("name", LINKED)
def test_the_link_is_where_the_loss_is_unbiased(name: str) -> None:
    """With labels drawn from what the link predicts, the expected gradient is zero."""
    m = qu.get(name)
    z = batch(5).logits[:60]
    t = TensorToken(z, torch.zeros(60, dtype=torch.long), {})

    def expected(predicted: torch.Tensor) -> torch.Tensor:
        each = (predicted[:, [y]] * m(z, torch.full((60,), y)).gradient for y in range(5))
        return sum(each, torch.zeros(()))

    assert float(expected(LINKS[m.link](t, m.params).probs).abs().max()) < 1e-14
    assert float(expected(t.policy.probs).abs().max()) > 1e-3, "and of the softmax it is not"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_token_only_the_model_rules_out(name: str) -> None:
    """Contexts count over the tokens the model allows: loss and pulls agree, and ruled-out logits do not move."""
    b = batch(5)
    logits = b.logits[:120].clone()
    logits[torch.arange(120), (b.labels[:120] + 1) % 5] = -torch.inf
    b = Batch(logits, b.labels[:120], {k: v[:120] for k, v in b.context.items()})
    m = qu.get(name)
    q = m(b.logits, b.labels, **b.context)
    expected = autograd(m, b)
    torch.testing.assert_close(q.gradient, expected, rtol=0, atol=1e-10)
    assert float(q.gradient[logits == -torch.inf].abs().max()) == 0
    assert float(m(b.logits, b.labels, **b.context).loss.min()) > -1e6


@pytest.mark.parametrize("m", one_each(c for c in every_setting() if isinstance(c.values[0], Gate)))
def test_float32_gauges_are_defined_where_float64_ones_are(m: QMap) -> None:
    """For gates, whose one weight has all its digits however small it is."""
    r = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(40, 4000, generator=r, dtype=torch.float64)
    labels = torch.randint(4000, (40,), generator=r)
    context: dict[str, Any] = {
        f"{k}_logits": torch.randn(40, 4000, generator=r).double()
        for k in ("reference", "teacher", "prior", "teacher_base")
    }
    context["old_logits"] = logits + 0.3 * torch.randn(40, 4000, generator=r)
    context |= {"token_weight": torch.ones(40), "token_mask": torch.ones(40), "negative_mask": torch.zeros(40, 4000)}
    context["token_values"] = torch.arange(4000.0)
    wide = m(logits, labels, **context)
    narrow = m(logits.float(), labels, **context)
    for gauge in ("fixed", "boundary"):
        a, b = wide.in_gauge(gauge).scale, narrow.in_gauge(gauge).scale
        assert float((a.isnan() == b.isnan()).double().mean()) >= 0.97, gauge


def test_confident_negatives_and_averages_keep_their_gradient() -> None:
    """Bounded gradients stay bounded where 1 − p is far below rounding."""
    for dtype, margin in ((torch.float32, 18.0), (torch.float32, 60.0), (torch.float64, 40.0)):
        z = torch.tensor([[margin, 0.0, 0.0]], dtype=dtype)
        mask = torch.tensor([[1, 0, 0]])
        q = qu.get("unlikelihood")(z, torch.tensor([1]), negative_mask=mask)
        torch.testing.assert_close(q.gradient[0].double(), torch.tensor([2.0, -1.5, -0.5]).double(), rtol=0, atol=1e-5)
        teacher = torch.tensor([[margin, 1.0, 0.0]], dtype=dtype)
        g = qu.get("elr")(z, torch.tensor([0]), teacher_logits=teacher).gradient[0]
        exact = exact_gradient(qu.get("elr"), _softmax(z[0]), 0, {"teacher_logits": _softmax(teacher[0])})
        torch.testing.assert_close(g.double(), torch.tensor([float(x) for x in exact]).double(), rtol=0, atol=1e-5)


def _softmax(z: torch.Tensor) -> list[Any]:
    with mp.workdps(DIGITS):
        weights = [mp.exp(mp.mpf(float(x))) for x in z]
        return [w / mp.fsum(weights) for w in weights]
