"""Every proof of one gradient or one ray, against derivatives of the published losses: no pulls, no symbols."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import qunify as qu
from qunify.maps import QMap, published

pytestmark = pytest.mark.slow

TOKENS = 300  # per vocabulary
VOCABS = (2, 3, 7, 150)


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
    tried = 0
    for a, b in itertools.combinations(qu.names(), 2):
        verdict = qu.compare(a, b)
        if verdict.proved and verdict.same_direction:
            tried += 1
            assert not contradicts(verdict.level, verdict.factor, found[a], found[b]), verdict
    assert tried > 500


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
