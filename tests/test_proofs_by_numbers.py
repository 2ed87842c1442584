"""Every proof of one gradient or one ray, against derivatives of the published losses: no pulls, no symbols.

Twice: in float64 by torch, on many tokens and large vocabularies, and at sixty digits by a small program of its own
(`sixty_digits`), on tokens in every region into which gates, clips and orders divide them.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import qunify as qu
from qunify.comparison import Equivalence
from qunify.maps import Gate, QMap, published
from tests import sixty_digits
from tests.sixty_digits import MP, SixtyDigitToken, number

pytestmark = pytest.mark.slow

TOKENS = 300  # per vocabulary
VOCABS = (2, 3, 7, 150)


@functools.cache
def verdicts() -> list[Equivalence]:
    return [qu.compare(a, b) for a, b in itertools.combinations(qu.names(), 2)]


# ---- in float64 ----------------------------------------------------------------------------------------------
def drawn(vocab: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Tokens from flat to nearly certain, with contexts that know nothing of the policy: no two quantities tie."""
    r = torch.Generator().manual_seed(1000 + vocab)

    def logits() -> Tensor:
        sharp = torch.logspace(-1, 1, TOKENS, dtype=torch.float64)[torch.randperm(TOKENS, generator=r)]
        return torch.randn(TOKENS, vocab, generator=r, dtype=torch.float64) * sharp[:, None]

    names = ("reference_logits", "teacher_logits", "old_logits", "prior_logits", "teacher_base_logits")
    context = {name: logits() for name in names}
    context["token_weight"] = 0.01 + 5 * torch.rand(TOKENS, generator=r, dtype=torch.float64)
    context["token_mask"] = torch.randint(2, (TOKENS,), generator=r).double()
    context["negative_mask"] = torch.randint(2, (TOKENS, vocab), generator=r).double()
    values = torch.randn(TOKENS, vocab, generator=r, dtype=torch.float64)
    context["token_values"] = values.masked_fill(torch.rand(TOKENS, vocab, generator=r) < 0.3, torch.nan)
    return logits(), torch.randint(vocab, (TOKENS,), generator=r), context


def gradients(m: QMap) -> list[Tensor]:
    """The derivatives of the published loss in the logits, (TOKENS, V) for every vocabulary."""
    found = []
    for vocab in VOCABS:
        logits, labels, context = drawn(vocab)
        logits.requires_grad_()
        loss = published(m)(logits, labels, **{name: context[name] for name in m.needs})
        found.append(torch.autograd.grad(loss.sum(), logits)[0])
    return found


def contradicts(level: str, factor: Any, a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether these gradients are not as the level has it, beyond the rounding of float64."""
    for x, y in zip(a, b, strict=True):
        near = 1e-7 * torch.maximum(x.norm(dim=-1), y.norm(dim=-1)) + 1e-11
        if level in ("identical", "scaled"):
            if bool(((y - float(factor) * x).norm(dim=-1) > near * max(1.0, float(factor))).any()):
                return True
        else:  # |x| y and |y| x are one vector on one ray
            crossed = (x.norm(dim=-1, keepdim=True) * y - y.norm(dim=-1, keepdim=True) * x).norm(dim=-1)
            small = (x.norm(dim=-1) < 1e-9) | (y.norm(dim=-1) < 1e-9)
            if bool((~small & (crossed > 1e-5 * x.norm(dim=-1) * y.norm(dim=-1))).any()):
                return True
    return False


def test_no_derivative_contradicts_a_proof() -> None:
    found = {name: gradients(qu.get(name)) for name in qu.names()}
    proofs = [v for v in verdicts() if v.proved and v.same_direction]
    assert len(proofs) > 500
    for verdict in proofs:
        assert not contradicts(verdict.level, verdict.factor, found[verdict.a], found[verdict.b]), verdict


@pytest.mark.parametrize(
    ("level", "factor", "a", "b"),
    [
        ("identical", 1, qu.get("gce", q=0.7), qu.get("gce", q=0.7001)),
        ("scaled", 2, qu.get("brier"), qu.get("sft")),
        ("directional", None, qu.get("sft"), qu.get("label_smoothing", smoothing=0.001)),
        ("directional", None, qu.get("sft"), qu.get("poly1", epsilon=-1.1)),
    ],
    ids=str,
)
def test_a_false_proof_is_caught(level: str, factor: Any, a: QMap, b: QMap) -> None:
    assert contradicts(level, factor, gradients(a), gradients(b))


# ---- at sixty digits -----------------------------------------------------------------------------------------
#: Tokens drawn of each vocabulary; those beyond every k are few, since they cost most.
DRAWN = {2: 130, 3: 130, 5: 130, 24: 12, 130: 5}
LOGITS = ("reference_logits", "teacher_logits", "old_logits", "prior_logits", "teacher_base_logits")
NEAR = MP.mpf(10) ** -40


class Seen(NamedTuple):
    """One method at one token."""

    gradient: tuple[Any, ...]
    ray: tuple[int, ...]  # its direction to forty digits; nothing where it is zero
    cell: tuple[Any, ...]


def token(r: random.Random, vocab: int) -> SixtyDigitToken:
    """From flat to nearly certain, the label from unlikely to sure; other models near the policy or far from it, so
    that ratios to them lie on both sides of every clip."""
    odds = [(0, 12), (0, 3), (3, 3)] + [(0, 0.1), (-9, 3)] * (vocab > 100)
    (middle, reach), sharp = r.choice(odds), r.choice((0.3, 1, 3))
    z = [r.gauss(0, sharp if reach > 1 else 0.1) for _ in range(vocab)]
    label = r.randrange(vocab)
    rest = math.log(sum(math.exp(x) for k, x in enumerate(z) if k != label))
    z[label] = rest + middle + r.uniform(-reach, reach)
    given: dict[str, Any] = {}
    for name in LOGITS:
        near, spread = r.random() < 0.6, r.choice((0.1, 0.5, 2))
        given[name] = [x + r.gauss(0, spread) for x in z] if near else [r.gauss(0, 2) for _ in z]
    given["token_weight"] = r.choice((0, r.random(), 5 * r.random()))
    given["token_mask"] = r.randrange(2)
    given["negative_mask"] = [r.randrange(2) for _ in z]
    given["token_values"] = [r.choice((math.nan, 1, 2.5, 3)) for _ in z]
    return SixtyDigitToken(z, label, given, r)


@functools.cache
def tokens() -> list[SixtyDigitToken]:
    draws = [(random.Random(0), vocab, count) for vocab, count in DRAWN.items()]
    return [token(r, vocab) for r, vocab, count in draws for _ in range(count)]


@functools.cache
def seen(m: QMap) -> list[Seen]:
    exact = sixty_digits.exactly(m)
    return [_seen(sixty_digits.gradient(exact, t)) for t in tokens()]


def _seen(g: sixty_digits.Gradient) -> Seen:
    length = MP.sqrt(MP.fsum(x * x for x in g.entries))
    zero = length <= NEAR * g.terms  # its terms cancel
    ray = () if zero else tuple(int(MP.nint(x / length / NEAR)) for x in g.entries)
    return Seen(g.entries, ray, (len(g.entries), *g.cell))


def refuted(v: Equivalence, a: list[Seen], b: list[Seen]) -> bool:
    """Whether these gradients are not as the verdict has it, at some token."""
    both = list(zip(a, b, strict=True))
    if v.level in ("identical", "scaled"):
        f = number(1 if v.level == "identical" else v.factor).x
        entries = [(f * g, h) for x, y in both for g, h in zip(x.gradient, y.gradient, strict=True)]
        return f <= 0 or any(abs(g - h) > NEAR for g, h in entries)
    split = any(x.ray != y.ray for x, y in both if x.ray and y.ray)
    if v.level in ("optimum", "distinct"):
        return not split
    return split or not any(x.ray for x in a) or not any(y.ray for y in b)


#: Comparisons of which one outcome is impossible, at the default parameters or at all.
ONE_SIDED = {
    "threshold": "its band is the whole of (0, 1)",
    "psft": "a ratio that is clipped below, or not at all, is no larger than itself",
    "cayley_floor": "its power is below 1",
    "logit_std_kd": "logits that are all equal",
    "ihl": "the likeliest token but for the label is not the label",
}


def test_every_proof_holds_at_sixty_digits_in_every_cell() -> None:
    found = {name: seen(qu.get(name)) for name in qu.names()}
    one_sided = set()
    for name, at in found.items():
        small = max(len(x.cell) for x in at if x.cell[0] <= 5)  # comparisons token by token are as many in all
        one_sided |= {name for i in range(1, small) if len({x.cell[i] for x in at if i < len(x.cell)}) == 1}
    assert one_sided == set(ONE_SIDED), "both outcomes of every comparison are met"
    proofs = [v for v in verdicts() if v.proved]
    assert [str(v) for v in proofs if refuted(v, found[v.a], found[v.b])] == []
    alike = [(found[v.a], found[v.b]) for v in proofs if v.same_direction]
    assert sum(len({(x.cell, y.cell) for x, y in zip(a, b, strict=True)}) for a, b in alike) > 10_000
    assert len(proofs) > 7_000


class Turned(Gate):
    """SFT, but for labels less likely than p, which are pushed down."""

    p: float = qu.param(1.0, doc="p")

    def loss(self, t: Any) -> Any:
        return -t.where(t.p_label < self.p, -1, 1) * t.log_p_label

    def weight(self, t: Any) -> Any:
        return t.where(t.p_label < self.p, -1, 1)


@pytest.mark.parametrize(
    ("level", "factor", "a", "b"),
    [
        ("identical", 1, qu.get("gce", q=0.7), qu.get("gce", q=0.7 + 1e-14)),
        ("scaled", 2, qu.get("sft"), qu.get("symmetric_ce", ce_weight=2 + 1e-14, rce_weight=0)),
        ("scaled", -1, qu.get("sft"), Turned()),
        ("directional", None, qu.get("sft"), Turned(p=1e-4)),
        ("directional", None, qu.get("sft"), qu.get("poly1", epsilon=-1.00001)),
        ("directional", None, qu.get("sft"), qu.get("label_smoothing", smoothing=1e-15)),
        ("directional", None, qu.get("sft"), qu.get("profit", threshold=1)),
        ("directional", None, qu.get("kd"), qu.get("topk_kd", k=100, tail="drop")),
        ("distinct", None, qu.get("sft"), qu.get("dft")),
        ("optimum", None, qu.get("profit"), qu.get("psft")),
    ],
    ids=str,
)
def test_a_false_proof_is_caught_at_sixty_digits(level: str, factor: Any, a: QMap, b: QMap) -> None:
    verdict = Equivalence(a.name, b.name, level, True, True, factor, proved=True)
    assert refuted(verdict, seen(a), seen(b))


def test_sixty_digits_begin_with_those_of_torch() -> None:
    for m in (m for m in map(qu.get, qu.names()) if not m.pools):  # what is pooled is drawn
        for t, x in list(zip(tokens(), seen(m), strict=True))[::40]:
            given = {k: torch.tensor([t.given[k]], dtype=torch.float64) for k in m.needs}
            logits = torch.tensor([[float(z.x) for z in t.leaves]], dtype=torch.float64, requires_grad=True)
            loss = published(m)(logits, torch.tensor([t.at]), **given)
            (expected,) = torch.autograd.grad(loss.sum(), logits)
            ours = torch.tensor([[float(g) for g in x.gradient]], dtype=torch.float64)
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9, msg=m.name)
