"""Tokens on which every method is tried: ordinary ones and the extremes at which formulas break."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

import qunify as qu
from qunify.catalogue import ENTRIES, families
from qunify.maps import QMap
from qunify.token import TensorToken

#: Entries with a stop-gradient whose removal changes nothing: what it stops is locally constant, or enters the loss at
#: a point where its derivative vanishes (a Fenchel–Young projection).
HARMLESS = {"bootstrap_hard", "mbls", "profit", "sparsemax", "entmax15"}


#: Entries that compare the sequences of a batch: where (N, V) is one sequence, none stands out, and no parameter shows.
OF_SEQUENCES = {"cadft", "loss_truncation"}


class Batch(NamedTuple):
    logits: Tensor  # (N, V) float64
    labels: Tensor  # (N,)
    context: dict[str, Any]  # a Tensor each


@functools.cache
def batch(vocab: int, seed: int = 0) -> Batch:
    """Random logits at scales 1, 3 and 8; the uniform row; rows that are one-hot to 1e-13, on the label and off it."""
    r = torch.Generator().manual_seed(seed)

    def normal(n: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(n, vocab, generator=r, dtype=torch.float64)

    sharp = 30.0 * torch.nn.functional.one_hot(torch.arange(4) % vocab, vocab).double()
    logits = torch.cat([normal(60), normal(60, 3), normal(60, 8), torch.zeros(4, vocab, dtype=torch.float64), sharp])
    n = len(logits)
    labels = torch.randint(0, vocab, (n,), generator=r)
    labels[40:60] = logits[40:60].argsort(-1)[:, -2]  # the runner-up
    labels[-4:] = torch.tensor([0, 1 % vocab, 0, 1 % vocab])  # twice on the peak, twice (for V > 2) off it

    def distribution() -> Tensor:
        """A context of its own; every fifth row the policy itself, every seventh one-hot on the label."""
        z = normal(n, 2)
        z[::5] = logits[::5]
        z[::7] = 40.0 * torch.nn.functional.one_hot(labels[::7], vocab).double()
        return z

    negative = torch.rand(n, vocab, generator=r) < 0.3
    negative.scatter_(1, labels[:, None], False)
    weight = torch.rand(n, generator=r, dtype=torch.float64) * 3 - 0.5  # some above 1, some negative
    weight[::6] = 0
    names = ("reference_logits", "teacher_logits", "prior_logits")
    context = {name: distribution() for name in names}
    context["old_logits"] = logits + normal(n, 0.3)
    context |= {
        "token_weight": weight,
        "token_mask": torch.rand(n, generator=r) < 0.6,
        "negative_mask": negative,
    }
    context["teacher_base_logits"] = distribution()
    values = torch.randint(10, (n, vocab), generator=r).double()
    context["token_values"] = values.masked_fill(torch.rand(n, vocab, generator=r) < 0.3, torch.nan)
    context["old_logits"][::11] += normal(n, 3)[::11]  # ratios beyond any cap
    return Batch(logits, labels, context)


def settings(name: str) -> list[dict[str, Any]]:
    """Default parameters, every finite closed bound, and the entry's own examples."""
    found: list[dict[str, Any]] = [{}]
    for f in ENTRIES[name].parameters():
        limits = f.metadata
        found += [{f.name: c} for c in limits["choices"] if c != f.default]
        kind: Any = type(f.default)
        found += [{f.name: kind(b)} for b in (limits["low"], limits["high"]) if b is not None]
    found += [dict(e) for e in ENTRIES[name].examples]
    return [e for i, e in enumerate(found) if e not in found[:i] and _ordered(name, e)]


#: The first method of each family.
ONE_EACH = {qu.names(family)[0] for family in families()}


def one_each(cases: Iterable[Any]) -> list[Any]:
    """Names of methods, or cases whose id begins with one: but for the default parameters of one method a family, they
    are not of the quick tier. For tests that would take seconds of it."""
    import pytest

    found = []
    for case in cases:
        case = pytest.param(case, id=case) if isinstance(case, str) else case
        found.append(case if case.id in ONE_EACH else case._replace(marks=[*case.marks, pytest.mark.slow]))
    return found


def _ordered(name: str, given: dict[str, Any]) -> bool:
    """Whether a band's ends are in order: a bound of one parameter may lie beyond the other's default."""
    values: dict[str, Any] = {f.name: f.default for f in ENTRIES[name].parameters()} | given
    return not {"low", "high"} <= set(values) or values["low"] <= values["high"]


def every_setting() -> list[Any]:
    """(method) for every entry × setting, with a readable test id."""
    import pytest

    return [
        pytest.param(qu.get(name, **given), id=name + "".join(f",{k}={v}" for k, v in given.items()))
        for name in ENTRIES
        for given in settings(name)
    ]


def autograd(m: QMap, b: Batch) -> Tensor:
    """The logit gradient of the published loss by automatic differentiation, (N, V)."""
    from qunify.token import read

    logits = b.logits.clone().requires_grad_()
    t, _ = read(m.name, m.needs, logits, b.labels, -100, b.context)
    loss = m.loss(t) + 0 * logits.sum(-1, keepdim=True)  # a constant loss has a gradient too: zero
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return gradient


@functools.cache
def entries_that_stop() -> tuple[str, ...]:
    """The entries whose published loss stops a gradient."""
    return tuple(name for name in ENTRIES if _stops(qu.get(name)))


def _stops(m: QMap) -> bool:
    with mock.patch.object(TensorToken, "stop", autospec=True, side_effect=lambda _, x: x) as stop:
        autograd(m, batch(5))
    return bool(stop.called)


def size_of(gradient: Tensor) -> Tensor:
    """What rounding is measured against: the sum of |g_k| at every token, at least 1, (N, 1)."""
    return gradient.abs().sum(-1, keepdim=True).clamp(min=1)


def disagreement(m: QMap, b: Batch) -> Tensor:
    """How far the gradient that a user gets is from that of the published loss, at every token, as a share of its
    size, (N,)."""
    ours, theirs = m(b.logits, b.labels, **b.context).gradient, autograd(m, b)
    return ((ours - theirs) / size_of(theirs)).abs().amax(-1)


def conforms(m: QMap, b: Batch) -> bool:
    """Whether loss and pulls agree at every token of the batch, and the loss is finite. NaN agrees with nothing.

    test_conformance asks it of every method as it is, and test_mutants of methods that were broken on purpose: a
    tolerance that would forgive everything forgives those too.
    """
    atol = 1e-9 if m.name == "logit_std_kd" else 1e-10  # it divides by the spread of equal logits, which is rounding
    finite = m(b.logits, b.labels, **b.context).loss.isfinite()
    return bool((finite & (disagreement(m, b) < atol)).all())


@contextmanager
def with_pulls(m: QMap, change: Callable[[list[Any]], Any]) -> Iterator[None]:
    """Within it, every method of m's class exerts other pulls, while its loss stays as published.

    `with_pulls(m, lambda pulls: pulls[:1])` leaves out all pulls but the first.
    """
    original = type(m).pulls
    with mock.patch.object(type(m), "pulls", lambda self, t: change(list(original(self, t)))):
        yield
