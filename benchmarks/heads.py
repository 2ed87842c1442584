"""Ways from hidden states through a large head to a loss and its gradients: qunify's, others', and the floor of all.

The floor is what no exact way can save: the products for the logits and for the gradients of hidden states and weight
(mm3), and for the logits of a second head where there is one (mm4), each with its output buffer at hand.

`python -m benchmarks.heads NAME TOKENS VOCABULARY WIDTH CHUNK` prints the peak of the memory that one step needs beyond
its inputs, in MiB: measured in a process of its own, since memory once taken is not always given back.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import qunify as qu
from benchmarks.timing import python

Step = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """Hidden states (N, d), the head (V, d) and labels (N,); another model's hidden states and head."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    other_hidden: Tensor
    other_weight: Tensor
    chunk: int

    @classmethod
    def of(
        cls, tokens: int, vocab: int, width: int, chunk: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Problem:
        r = torch.Generator(device).manual_seed(0)
        put: dict[str, Any] = {"generator": r, "dtype": dtype, "device": device}
        hidden, other_hidden = (torch.randn(tokens, width, **put) for _ in range(2))
        weight, other_weight = (torch.randn(vocab, width, **put).div_(width**0.5) for _ in range(2))
        labels = torch.randint(vocab, (tokens,), generator=r, device=device)
        return cls(hidden.requires_grad_(), weight.requires_grad_(), labels, other_hidden, other_weight, chunk)

    def backward(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, (self.hidden, self.weight))


def floor(x: Problem, heads: int = 1) -> Step:
    """The products alone."""
    h, w = x.hidden.detach(), x.weight.detach()
    own, other = (torch.empty(x.chunk, len(w), dtype=w.dtype, device=w.device) for _ in range(2))

    def step() -> tuple[Tensor, Tensor]:
        dh, dw = torch.empty_like(h), torch.zeros_like(w)
        for at in (slice(start, start + x.chunk) for start in range(0, len(h), x.chunk)):
            if heads == 2:
                torch.mm(x.other_hidden[at], x.other_weight.T, out=other[: len(h[at])])
            g = torch.mm(h[at], w.T, out=own[: len(h[at])])
            torch.mm(g, w, out=dh[at])
            dw.addmm_(g.T, h[at])
        return dh, dw

    return step


def fused(method: Any, *contexts: str) -> Callable[[Problem], Step]:
    """`qunify.linear_loss`; `contexts` come from the other model."""

    def of(x: Problem) -> Step:
        given: dict[str, Any] = dict.fromkeys(contexts, (x.other_hidden, x.other_weight))
        return lambda: x.backward(qu.linear_loss(x.hidden, x.weight, x.labels, method, chunk_size=x.chunk, **given))

    return of


def python_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One that `linear_loss` knows nothing of."""
    return F.cross_entropy(logits, labels, reduction="none")


def of_torch(x: Problem) -> Step:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=x.chunk)
    return lambda: x.backward(F.linear_cross_entropy(x.hidden, x.weight, x.labels, options=options))


def of_trl(weighted: bool) -> Callable[[Problem], Step]:
    """The kernel behind TRL's SFTTrainer, with the tile width that it uses."""

    def of(x: Problem) -> Step:
        from trl.kernels import ChunkedLogProbFunction

        def step() -> tuple[Tensor, ...]:
            fields = ("log_probs", "entropy")
            log_p = ChunkedLogProbFunction.apply(x.hidden, x.weight, None, x.labels, 1.0, 32768, None, 1.0, fields)[0]
            return x.backward(-((log_p.exp().detach() if weighted else 1) * log_p).mean())

        return step

    return of


def of_liger(x: Problem) -> Step:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy  # type: ignore[import-not-found]

    return lambda: x.backward(liger_fused_linear_cross_entropy(x.hidden, x.weight, x.labels))


def whole(weighted: bool) -> Callable[[Problem], Step]:
    """All logits at once, by autograd."""

    def of(x: Problem) -> Step:
        def step() -> tuple[Tensor, ...]:
            losses = F.cross_entropy((x.hidden @ x.weight.T).float(), x.labels, reduction="none")
            return x.backward(((-losses).exp().detach() * losses if weighted else losses).mean())

        return step

    return of


WAYS: dict[str, Callable[[Problem], Step]] = {
    "mm3": floor,
    "mm4": lambda x: floor(x, heads=2),
    "sft": fused("sft"),
    "dft": fused("dft"),
    "label_smoothing": fused("label_smoothing"),
    "gem": fused("gem"),
    "target_sft": fused("target_sft", "teacher"),
    "asft": fused("asft", "reference"),
    "a Python loss": fused(python_loss),
    "torch, chunked CE": of_torch,
    "TRL, nll": of_trl(weighted=False),
    "TRL, dft": of_trl(weighted=True),
    "Liger, CE": of_liger,
    "all logits, CE": whole(weighted=False),
    "all logits, DFT": whole(weighted=True),
}

#: Ways that read a second head: their floor is mm4.
TWO_HEADS = ("target_sft", "asft")


def peak_memory(way: str, tokens: int, vocab: int, width: int, chunk: int) -> float:
    """MiB beyond the inputs, in a fresh process on the CPU."""
    sizes = map(str, (tokens, vocab, width, chunk))
    return float(python("-m", "benchmarks.heads", way, *sizes)().stdout)


def _measure(way: str, tokens: int, vocab: int, width: int, chunk: int) -> float:
    small = Problem.of(8, 64, width, 8)
    WAYS[way](small)()  # code and threads are loaded before
    step = WAYS[way](Problem.of(tokens, vocab, width, chunk))
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    kept = step()
    assert kept is not None
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(_measure(sys.argv[1], *map(int, sys.argv[2:])))
