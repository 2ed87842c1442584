"""Every method's gradient on one batch: in closed form on a shared token, against autograd of each published loss."""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from torch import Tensor

import qunify
from benchmarks.timing import ROUNDS, Result, sandwiched
from qunify.maps import QMap, logit_gradient
from qunify.samples import every_context
from qunify.token import TensorToken

TOKENS, VOCAB = 4096, 512
AT_MOST = 0.12


def run() -> list[Result]:
    torch.set_num_threads(1)  # the two ways differ in work, not in how well they spread over cores
    maps = [qunify.get(name) for name in qunify.names()]
    logits, labels, context = _batch()
    _check(maps, logits, labels, context)

    autograd, closed = [], []
    for round_ in range(ROUNDS + 1):
        autograd.append(_autograd(maps, logits, labels, context))
        if round_ < ROUNDS:
            closed.append(_closed(maps, logits, labels, context))
    sizes = {"methods": len(maps), "tokens": TOKENS, "vocabulary": VOCAB, "dtype": "float32", "threads": 1}
    results = [
        Result.of("all gradients / autograd", _ratios(autograd, closed, maps), "×", at_most=AT_MOST, sizes=sizes)
    ]
    for family in dict.fromkeys(m.family for m in maps):
        members = [m for m in maps if m.family == family]
        ratios = _ratios(autograd, closed, members)
        results.append(Result.of(f"  {family}", ratios, "×", sizes=sizes | {"methods": len(members)}))
    return results


def _batch() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    normal = lambda: 2 * torch.randn(TOKENS, VOCAB, generator=draw)  # noqa: E731
    context = every_context(
        lambda _: normal(),
        weight=torch.rand(TOKENS, 1, generator=draw),
        mask=(torch.rand(TOKENS, 1, generator=draw) < 0.7).float(),
        negative=(torch.rand(TOKENS, VOCAB, generator=draw) < 0.02).float(),
        values=torch.randint(10, (TOKENS, VOCAB), generator=draw).float(),
    )
    return normal(), torch.randint(VOCAB, (TOKENS,), generator=draw), context


def _by_autograd(m: QMap, logits: Tensor, labels: Tensor, context: dict[str, Tensor]) -> Tensor:
    z = logits.detach().requires_grad_()
    (g,) = torch.autograd.grad(m.loss(TensorToken(z, labels, context, m.name)).sum(), z)
    return g


def _autograd(maps: list[QMap], logits: Tensor, labels: Tensor, context: dict[str, Tensor]) -> dict[str, float]:
    times = {}
    for m in maps:
        start = time.perf_counter()
        _by_autograd(m, logits, labels, context)
        times[m.name] = time.perf_counter() - start
    return times


@torch.no_grad()
def _closed(maps: list[QMap], logits: Tensor, labels: Tensor, context: dict[str, Tensor]) -> dict[str, float]:
    """As `qunify.gradients`, each method timed: the first to need a softmax pays for it."""
    times: dict[str, float] = defaultdict(float)
    start = time.perf_counter()
    for _, block in TensorToken(logits, labels, context).blocks():
        for m in maps:
            logit_gradient(block, m.pulls(block))
            now = time.perf_counter()
            times[m.name], start = times[m.name] + now - start, now
    return times


def _ratios(autograd: list[dict[str, float]], closed: list[dict[str, float]], maps: list[QMap]) -> list[float]:
    base = [sum(times[m.name] for m in maps) for times in autograd]
    return sandwiched(base, [sum(times[m.name] for m in maps) for times in closed])


def _check(maps: list[QMap], logits: Tensor, labels: Tensor, context: dict[str, Tensor]) -> None:
    """Both ways give the same numbers. Also warms them up."""
    t = TensorToken(logits, labels, context)
    for m in maps:
        with torch.no_grad():
            g = logit_gradient(t, m.pulls(t))
        torch.testing.assert_close(g, _by_autograd(m, logits, labels, context), rtol=1e-3, atol=1e-4, msg=m.name)
