"""The public surface as a user calls it: names, shapes, types, masks, and what bad input is told."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.token import CONTEXTS
from qunify.token import _tensors as tensors
from tests.battery import batch, one_each

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 2])


def call(name: str = "sft", logits: Any = LOGITS, labels: Any = LABELS, **kwargs: Any) -> qu.QTarget:
    params = {k: v for k, v in kwargs.items() if k in {"smoothing", "eta"}}
    return qu.get(name, **params)(logits, labels, **{k: v for k, v in kwargs.items() if k not in params})


# ---- names and parameters -----------------------------------------------------------------------------------


def test_names_and_families() -> None:
    assert qu.names() == tuple(ENTRIES)
    assert qu.names("anchored") == ("sft_kl", "asft", "eksft")
    with pytest.raises(KeyError, match="unknown family 'gate', expected one of gates"):
        qu.names("gate")


@pytest.mark.parametrize("package", [qu, qu.maps, qu.token])
def test_a_package_lists_what_is_public(package: ModuleType) -> None:
    public = {name for name in dir(package) if not name.startswith("__")}
    assert set(package.__all__) <= public
    assert all(isinstance(getattr(package, name), ModuleType) for name in public - set(package.__all__))
    assert not any(name.startswith("_") for name in public)


def test_get_gives_a_frozen_map_with_its_facts() -> None:
    m = qu.get("target_sft", eta=0.25)
    assert (m.name, m.family, m.params, m.needs, m.link) == (
        "target_sft", "designed", {"eta": 0.25}, ("teacher_logits",), "softmax",
    )  # fmt: skip
    assert m.title == "Target-SFT"
    assert "arXiv:2606.11189" in m.source
    with pytest.raises(AttributeError):
        m.eta = 1.0  # type: ignore[attr-defined]
    assert m == qu.get("target_sft", eta=0.25) != qu.get("target_sft")
    assert repr(m) == "TargetSFT(eta=0.25)"


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        ("labelsmoothing", {}, KeyError, "unknown method 'labelsmoothing', did you mean label_smoothing"),
        ("nothing_like_it", {}, KeyError, "unknown method 'nothing_like_it'"),
        ("gem", {"betta": 1}, ValueError, "gem: unknown parameter 'betta', expected beta"),
        ("sft", {"x": 1}, ValueError, "sft: unknown parameter 'x', expected none: it has no parameters"),
        ("target_sft", {"eta": 1.5}, ValueError, r"target_sft: parameter eta: expected a number in \[0, 1\], got 1.5"),
        ("gem", {"beta": 0}, ValueError, r"gem: parameter beta: expected a number in \(0, inf\), got 0"),
        ("gem", {"beta": float("nan")}, ValueError, "gem: parameter beta: expected a number .* got nan"),
        ("eaft", {"top_k": 2.5}, ValueError, r"eaft: parameter top_k: expected an integer in \[2, inf\), got 2.5"),
        ("eaft", {"top_k": True}, ValueError, "eaft: parameter top_k: expected an integer"),
        (
            "threshold",
            {"low": 0.9, "high": 0.2},
            ValueError,
            "threshold: parameter low: expected at most high=0.2, got 0.9",
        ),
        ("DFT", {}, KeyError, "unknown method 'DFT', did you mean dft"),
        (["dft"], {}, KeyError, r"unknown method \['dft'\]"),
        ("threshold", {"base": "exp"}, ValueError, "threshold: parameter base: expected 'log' or 'p', got 'exp'"),
        ("sft_kl", {"kl_weight": "0.1"}, ValueError, r"sft_kl: parameter kl_weight: expected a number .* got '0.1'"),
    ],
)
def test_unknown_names_and_parameters(name: object, params: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        qu.get(name, **params)  # type: ignore[arg-type]


def test_a_whole_number_will_do_for_a_real_parameter() -> None:
    (value,) = qu.get("focal", focusing=1).params.values()
    assert (value, type(value)) == (1.0, float)


# ---- bad input, before any arithmetic -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": LOGITS.long()}, "sft: logits: expected floating point, got int64"),
        ({"logits": torch.zeros(2, 0)}, r"sft: logits: expected shape \(…, V\) with V ≥ 1, got \(2, 0\)"),
        ({"logits": torch.tensor(1.0)}, r"sft: logits: expected shape \(…, V\) with V ≥ 1, got \(\)"),
        ({"logits": LOGITS * torch.nan}, "sft: logits: expected finite numbers or -inf, got NaN"),
        ({"logits": LOGITS + torch.inf}, r"sft: logits: expected finite numbers or -inf, got \+inf"),
        ({"logits": LOGITS - torch.inf}, "sft: logits: expected a finite logit in every row, got a row of -inf"),
        ({"labels": torch.tensor([0, 3])}, r"sft: labels: expected values in \[0, 3\) or ignore_index=-100, got 3"),
        ({"labels": torch.tensor([0, -1])}, r"sft: labels: expected values in \[0, 3\) or ignore_index=-100, got -1"),
        (
            {"labels": torch.tensor([0, 1, 2])},
            r"sft: labels: expected shape \(2,\) to match logits \(2, 3\), got \(3,\)",
        ),
        ({"labels": LABELS.double()}, "sft: labels: expected integers, got float64"),
        ({"labels": None}, "sft: labels: expected a tensor or an array, got NoneType"),
        ({"logits": "abc"}, "sft: logits: expected a tensor or an array, got str"),
        ({"logits": LOGITS.to(torch.complex64)}, "sft: logits: expected real numbers, got complex64"),
        ({"logits": LOGITS.to_sparse()}, "sft: logits: expected a dense tensor, got torch.sparse_coo"),
        ({"logits": np.array(["a", "b"])}, "sft: logits: expected a tensor or an array, got ndarray of <U1"),
        ({"ignore_index": None}, "sft: ignore_index: expected an integer, got None"),
        ({"ignore_index": True}, "sft: ignore_index: expected an integer, got True"),
        ({"techer_logits": LOGITS}, "sft: unknown context 'techer_logits', did you mean teacher_logits"),
        ({"name": "kd"}, "kd: missing context, expected the keyword argument teacher_logits"),
        ({"name": "kd", "teacher_logits": None}, "kd: missing context"),
        ({"name": "kd", "teacher_logits": LOGITS[:, :2]}, r"kd: teacher_logits: expected shape \(2, 3\), got \(2, 2\)"),
        (
            {"name": "kd", "teacher_logits": LOGITS * torch.nan},
            "kd: teacher_logits: expected finite numbers or -inf, got NaN",
        ),
        ({"name": "kd", "teacher_logits": LOGITS.int()}, "kd: teacher_logits: expected floating point, got int32"),
        ({"name": "iw_sft", "token_weight": torch.ones(3)}, r"iw_sft: token_weight: expected shape \(2,\), got \(3,\)"),
        (
            {"name": "iw_sft", "token_weight": torch.tensor([1.0, torch.inf])},
            "iw_sft: token_weight: expected finite numbers, got inf",
        ),
        (
            {"name": "cft", "token_mask": torch.tensor([1.0, 0.5])},
            r"cft: token_mask: expected only 0 and 1 \(or booleans\), got 0.5",
        ),
        (
            {"name": "unlikelihood", "negative_mask": torch.ones(2)},
            r"negative_mask: expected shape \(2, 3\), got \(2,\)",
        ),
    ],
)
def test_bad_input_is_one_clear_sentence(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(**changes)
    assert "\n" not in str(caught.value)


def test_unknown_gauge() -> None:
    with pytest.raises(ValueError, match="expected one of unit, fixed, boundary, got 'natural'"):
        call().in_gauge("natural")  # type: ignore[arg-type]


# ---- shapes, types, masks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (2, 1, 3), (0,), (3, 0)])
@pytest.mark.parametrize("name", ["sft", "target_sft", "brier", "iw_sft", "unlikelihood", "z_loss"])
def test_any_leading_shape(lead: tuple[int, ...], name: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(*lead, 5)
    labels = torch.randint(0, 5, lead)
    q = qu.get(name)(
        logits, labels, teacher_logits=torch.randn(*lead, 5), token_weight=torch.rand(lead),
        negative_mask=torch.zeros(*lead, 5, dtype=torch.bool),
    )  # fmt: skip
    assert q.loss.shape == q.mask.shape == q.in_simplex.shape == q.violation.shape == lead
    assert q.gradient.shape == q.target.shape == (*lead, 5)
    for gauge in ("unit", "fixed", "boundary"):
        g = q.in_gauge(gauge)
        assert g.scale.shape == g.trust.shape == lead
        assert g.target.shape == g.residual.shape == (*lead, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", one_each(ENTRIES))
def test_every_float_type(name: str, dtype: torch.dtype) -> None:
    b = batch(5)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    logits = b.logits.to(dtype)
    context = {k: v.to(dtype) if k.endswith("_logits") else v for k, v in b.context.items()}
    q = qu.get(name)(logits, b.labels, **context)
    assert q.loss.dtype == q.gradient.dtype == q.target.dtype == wide
    assert bool(q.loss.isfinite().all())
    assert bool(q.gradient.isfinite().all())
    exact = qu.get(name)(
        logits.double(), b.labels, **{k: v.double() if k.endswith("_logits") else v for k, v in context.items()}
    )
    ordinary = slice(0, 120)  # scales 1 and 3; the extremes are compared in float64
    scale = exact.gradient[ordinary].abs().amax(-1, keepdim=True).clamp(min=1)
    error = ((q.gradient[ordinary].double() - exact.gradient[ordinary]) / scale).abs().amax(-1)
    assert float(error.quantile(0.95)) < 1e-5, "up to a few tokens that sit on a threshold"


@pytest.mark.parametrize("name", ENTRIES)
def test_ignored_positions_are_zero_and_do_not_matter(name: str) -> None:
    b = batch(5)
    labels = b.labels.clone()
    labels[::3] = -100
    logits = b.logits.clone()
    logits[::3] = torch.nan  # what stands at an ignored position is never read
    q = qu.get(name)(logits, labels, **b.context)
    kept = labels != -100
    alone = qu.get(name)(b.logits[kept], b.labels[kept], **{k: v[kept] for k, v in b.context.items()})
    assert bool((q.mask == kept).all())
    for part in ("loss", "gradient", "target", "in_simplex"):
        assert not bool(getattr(q, part)[~kept].any()), part
        torch.testing.assert_close(getattr(q, part)[kept], getattr(alone, part), rtol=1e-13, atol=1e-15, equal_nan=True)
    for gauge in ("unit", "fixed", "boundary"):
        assert all(not bool(part[~kept].any()) for part in q.in_gauge(gauge))


@pytest.mark.parametrize("name", ENTRIES)
def test_all_labels_ignored(name: str) -> None:
    b = batch(5)
    q = qu.get(name)(b.logits, torch.full_like(b.labels, -100), **b.context)
    assert float(q.loss.abs().sum()) == 0
    assert float(q.gradient.abs().sum()) == 0
    assert float(q.target.abs().sum()) == 0
    assert not bool(q.mask.any())


@pytest.mark.parametrize("name", ENTRIES)
def test_ruled_out_tokens_take_no_part(name: str) -> None:
    """−inf logits equal leaving those tokens out of the vocabulary."""
    b = batch(5)
    out = torch.full((len(b.logits), 2), -torch.inf, dtype=torch.float64)

    def widen(z: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, fill.to(z.dtype)], -1)

    context: dict[str, Any] = {
        k: widen(v, out) if k.endswith("_logits") else widen(v, torch.zeros(len(v), 2)) if v.dim() == 2 else v
        for k, v in b.context.items()
    }
    narrow = qu.get(name)(b.logits, b.labels, **b.context)
    wide = qu.get(name)(widen(b.logits, out), b.labels, **context)
    torch.testing.assert_close(wide.loss, narrow.loss, rtol=1e-12, atol=1e-12)
    scale = narrow.gradient.abs().amax(-1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(wide.gradient[:, :5] / scale, narrow.gradient / scale, rtol=0, atol=1e-9)
    assert float(wide.gradient[:, 5:].abs().max()) == 0


@pytest.mark.parametrize("name", ENTRIES)
def test_only_the_label_allowed(name: str) -> None:
    logits = torch.full((1, 4), -torch.inf)
    logits[0, 1] = 3.0
    context: dict[str, Any] = {k: torch.zeros(1, 4) for k in CONTEXTS if k.endswith("_logits")}
    context |= {"token_weight": torch.ones(1), "token_mask": torch.ones(1), "negative_mask": torch.zeros(1, 4)}
    context["token_values"] = torch.arange(4.0)
    q = qu.get(name)(logits, torch.tensor([1]), **context)
    assert bool(q.loss.isfinite().all())
    assert bool(q.gradient.isfinite().all())


@pytest.mark.parametrize("name", ENTRIES)
def test_huge_logits_never_give_nan(name: str) -> None:
    logits = torch.tensor([[3e38, -3e38, 0.0], [1e5, -1e5, -torch.inf]])
    b: dict[str, Any] = {k: torch.zeros(2, 3) for k in CONTEXTS if k.endswith("_logits")}
    b |= {"token_weight": torch.ones(2), "token_mask": torch.ones(2), "negative_mask": torch.zeros(2, 3)}
    b["token_values"] = torch.arange(3.0)
    for labels in ([0, 0], [1, 1]):
        q = qu.get(name)(logits, torch.tensor(labels), **b)
        if q.shift_invariant:
            assert not bool(q.loss.isnan().any() | q.gradient.isnan().any())


def test_one_distribution_may_serve_every_token() -> None:
    prior = torch.tensor([0.2, 0.3, 0.5]).log()
    one = call("logit_adjustment", prior_logits=prior)
    many = call("logit_adjustment", prior_logits=prior.expand(2, 3))
    assert torch.equal(one.gradient, many.gradient)


def test_byte_labels_are_not_taken_for_ignored() -> None:
    q = qu.get("sft")(torch.zeros(1, 200), torch.tensor([156], dtype=torch.uint8))  # 156 − 256 = −100
    assert bool(q.mask.all())


def test_many_gradients_at_once() -> None:
    b = batch(5)
    maps = [qu.get(name) for name in ("sft", "kd", "brier")]
    found = qu.gradients(maps, b.logits, b.labels, teacher_logits=b.context["teacher_logits"], reference_logits=None)
    for m, g in zip(maps, found, strict=True):
        torch.testing.assert_close(g, m(b.logits, b.labels, **b.context).gradient)


def test_many_gradients_do_not_depend_on_the_blocks_they_are_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    b = batch(5)
    maps = [qu.get(name) for name in qu.names()]
    labels = b.labels.clone()
    labels[::4] = -100
    whole = qu.gradients(maps, b.logits, labels, **b.context)
    monkeypatch.setattr(tensors, "BLOCK", 5 * 7)  # seven rows each, and a rest
    for m, g, expected in zip(maps, qu.gradients(maps, b.logits, labels, **b.context), whole, strict=True):
        torch.testing.assert_close(g, expected, msg=m.name)
    assert not qu.gradients(maps[:1], b.logits, torch.full_like(labels, -100))[0].any()


def test_arrays_and_other_ignore_index() -> None:
    q = qu.get("sft")(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([1, 0]), ignore_index=0)
    assert q.mask.tolist() == [True, False]
    assert q.loss.dtype == torch.float64
    two: Any = np.int64(2)
    assert qu.get("sft")(LOGITS, LABELS, ignore_index=two).mask.tolist() == [True, False]


@pytest.mark.filterwarnings("error")
def test_any_numpy_array_will_do() -> None:
    """Read-only ones, as pandas and jax give them, reversed ones, those of another byte order, and bfloat16."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    expected = qu.get("sft")(LOGITS, LABELS).loss
    logits = LOGITS.numpy().copy()
    logits.flags.writeable = False
    assert torch.equal(qu.get("sft")(logits, LABELS.numpy()).loss, expected)
    assert torch.equal(qu.get("sft")(logits[::-1], LABELS.numpy()[::-1]).loss, expected.flip(0))
    assert torch.equal(qu.get("sft")(logits.astype(">f4"), LABELS).loss, expected)
    rounded = qu.get("sft")(LOGITS.bfloat16().float(), LABELS).loss
    assert torch.equal(qu.get("sft")(logits.astype(bfloat16), LABELS).loss, rounded)


def test_inputs_stay_untouched_and_no_graph_is_kept() -> None:
    logits = LOGITS.clone().requires_grad_()
    q = qu.get("dft")(logits, LABELS)
    assert not q.loss.requires_grad
    assert not q.gradient.requires_grad
    assert torch.equal(logits.detach(), LOGITS)


def test_worked_example_of_the_paper() -> None:
    """SFT: Q = δ. DFT: Q_y = 2u − u², Q_k = (1 − u) p_k."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    label = torch.tensor(0)
    assert torch.allclose(qu.get("sft")(p.log(), label).target, torch.tensor([1.0, 0, 0]).double(), atol=1e-15)
    q = qu.get("dft")(p.log(), label)
    assert torch.allclose(q.target, torch.tensor([0.75, 0.15, 0.1]).double(), atol=1e-15)
    assert float(q.trust) == pytest.approx(0.5)
    assert torch.allclose(q.residual, p, atol=1e-15)


def test_qtarget_says_what_it_holds() -> None:
    assert repr(call("poly1")) == "QTarget(shape=(2, 3), tokens=2, 0 of 2 targets in the simplex)"
    assert "no target" in repr(call("z_loss"))


def test_public_names_resolve_and_typos_do_not() -> None:
    """For mypy neither: it complains of an `ignore` without use."""
    package: ModuleType = qu
    for name in package.__all__:
        assert getattr(qu, name) is not None
    with pytest.raises(AttributeError, match=re.escape("module 'qunify' has no attribute 'gett'")):
        qu.gett  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match=re.escape("cannot import name 'nonsense' from 'qunify.token'")):
        from qunify.token import nonsense  # type: ignore[attr-defined]  # noqa: F401
