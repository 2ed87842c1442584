"""The fused loss over shapes, chunks, types and masks, by finite differences, and in memory."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import qunify as qu
from benchmarks.heads import peak_memory
from qunify.token import CONTEXTS
from qunify.token import _tensors as tensors

KEYWORDS = {f"{name}_logits": name for name in ("reference", "teacher", "old", "teacher_base")}


def problem(seed: int, n: int, d: int, v: int, kept: float, dtype: torch.dtype) -> dict[str, Any]:
    r = torch.Generator().manual_seed(seed)
    labels = torch.randint(v, (n,), generator=r)
    labels[torch.rand(n, generator=r) > kept] = -100
    normal = lambda *shape: torch.randn(*shape, generator=r, dtype=torch.float64).to(dtype)  # noqa: E731
    context = {name: 2 * normal(n, v) for name in CONTEXTS if name.endswith("_logits")}
    context |= {"token_weight": normal(n).abs(), "token_mask": (normal(n) > 0).to(dtype)}
    context["negative_mask"] = (normal(n, v) > 1).to(dtype).scatter(1, labels.clamp(min=0)[:, None], 0.0)
    context["token_values"] = normal(n, v).masked_fill(normal(n, v) > 1, torch.nan)
    return {"hidden": normal(n, d), "weight": normal(v, d), "bias": normal(v), "labels": labels, "context": context}


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(qu.names()),
    seed=st.integers(0, 10**6),
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    v=st.integers(2, 60),
    chunk=st.integers(1, 50),
    block=st.integers(1, 400),
    kept=st.sampled_from((0.0, 0.3, 1.0)),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_as_on_whole_logits(
    name: str, seed: int, n: int, d: int, v: int, chunk: int, block: int, kept: float, dtype: torch.dtype
) -> None:
    x, m = problem(seed, n, d, v, kept, dtype), qu.get(name)
    needed = {k: value for k, value in x["context"].items() if k in m.needs}

    def gradients(fused: bool) -> list[Tensor]:
        h, w, b = (x[k].clone().requires_grad_() for k in ("hidden", "weight", "bias"))
        if fused:
            context = {KEYWORDS.get(k, k): value for k, value in needed.items()}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tensors, "BLOCK", block)
                loss = qu.linear_loss(h, w, x["labels"], m, bias=b, chunk_size=chunk, **context)
                loss.backward()
        else:
            loss = qu.loss(m)(h @ w.T + b, x["labels"], **needed)
            loss.backward()
        return [loss.detach(), *(p.grad for p in (h, w, b) if p.grad is not None)]

    tolerance = 1e-9 if dtype == torch.float64 else 2e-3
    for found, expected in zip(gradients(True), gradients(False), strict=True):
        size = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(found / size, expected / size, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["sft", "label_smoothing", "gce", "brier", "confidence_penalty"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_are_those_of_the_value(name: str, reduction: Any) -> None:
    x = problem(3, 7, 3, 5, 0.7, torch.float64)
    inputs = [x[k].clone().requires_grad_() for k in ("hidden", "weight", "bias")]

    def value(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        more = {"logit_scale": 0.7, "softcap": 2.0}
        return qu.linear_loss(h, w, x["labels"], name, bias=b, reduction=reduction, chunk_size=2, **more)

    assert torch.autograd.gradcheck(value, inputs)


peak = functools.cache(peak_memory)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("way", "floor"), [("dft", "mm3"), ("target_sft", "mm4")])
def test_peak_memory_is_that_of_the_products_alone(way: str, floor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor holds gradients, a chunk of logits for each head, and what the matrix library takes for itself, which
    differs from one processor to another. A second buffer of a chunk's logits, let alone of all, would show."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the library's own memory grows with its threads
    tokens, vocab, width, chunk = 1024, 32_768, 256, 256
    of_a_chunk = 4 * chunk * vocab / 2**20
    least, own, whole = (peak(x, tokens, vocab, width, chunk) for x in (floor, way, "all logits, DFT"))
    assert own - least < 0.75 * of_a_chunk
    assert whole - least > tokens / chunk * of_a_chunk
