"""The fused loss on an accelerator, in bf16 at the size of a large model: `python -m benchmarks.accelerator`.

First every method is checked there: in float64 its fused loss and gradients are those of whole logits on the CPU, and
the compiled kernels give what the plain ones do. Then time and peak memory of one step, beside other implementations
and the floor. Written beside the code, or into --out: accelerator.json and accelerator.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import qunify as qu
from benchmarks.heads import TWO_HEADS, WAYS, Problem, Step
from benchmarks.timing import alternate, sandwiched
from qunify._lib import files
from qunify.training._fused import CHUNK

TOKENS, VOCAB, WIDTH = 8192, 151_936, 4096
ROUNDS = 7
TOLERANCE = 1e-9
COMPILED = ("sft", "dft", "target_sft", "asft", "gem", "sparsemax", "eaft")  # checked as compiled kernels too
OTHERS = ("reference", "teacher", "old", "prior")


@dataclasses.dataclass(frozen=True)
class Cost:
    way: str
    milliseconds: float  # median of one step
    over_floor: float  # median of the ratios to mm3, or to mm4 where a second head is read
    low: float
    high: float
    peak: float  # MiB beyond the inputs
    rounds: int


def check(names: Iterable[str], tolerance: float) -> dict[str, float]:
    """The largest difference, relative to the largest entry, between the fused loss there and whole logits here: of the
    methods that pass together, and of each that does not."""
    found = {}
    for name in names:
        here, there = (_loss_and_gradients(qu.get(name), device) for device in ("cpu", "cuda"))
        pairs = zip(here, there, strict=True)
        found[name] = max(float((a - b.cpu()).abs().max() / a.abs().max().clamp(min=1)) for a, b in pairs)
    passed = {name: apart for name, apart in found.items() if apart <= tolerance}
    return {f"{len(passed)} methods": max(passed.values(), default=0.0)} | {
        f"{name}, too much": apart for name, apart in found.items() if name not in passed
    }


def _loss_and_gradients(m: Any, device: str) -> tuple[torch.Tensor, ...]:
    r = torch.Generator().manual_seed(0)
    n, d, v = 37, 8, 61
    normal = lambda *shape: torch.randn(*shape, generator=r, dtype=torch.float64)  # noqa: E731
    h, w = normal(n, d), normal(v, d)
    labels = torch.randint(v, (n,), generator=r)
    labels[::5] = -100
    context: dict[str, Any] = {name: normal(n, v) for name in OTHERS}
    context |= {"token_weight": normal(n).abs(), "token_mask": (torch.arange(n) % 3 > 0).double()}
    context["negative_mask"] = torch.zeros(n, v, dtype=torch.float64).index_fill_(1, torch.tensor([2]), 1.0)
    needed = {k: x for k, x in context.items() if k in m.needs or f"{k}_logits" in m.needs}
    h, w, labels = (x.to(device) for x in (h, w, labels))
    h, w = h.requires_grad_(), w.requires_grad_()
    if device == "cpu":
        given = {f"{k}_logits" if k in OTHERS else k: x for k, x in needed.items()}
        loss = qu.loss(m)(h @ w.T, labels, **given)
    else:
        given = {f"{k}_logits" if k == "prior" else k: x.to(device) for k, x in needed.items()}
        loss = qu.linear_loss(h, w, labels, m, chunk_size=7, **given)
    return (loss.detach(), *torch.autograd.grad(loss, (h, w)))


def measure(way: str, build: Callable[[Problem], Step], x: Problem) -> Cost:
    floor = WAYS["mm4" if way.startswith(TWO_HEADS) else "mm3"](x)
    base, step = (_waited(f) for f in (floor, build(x)))
    base_times, times = alternate(base, step, ROUNDS)
    ratios = sandwiched(base_times, times)
    del base, floor
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return Cost(way, 1e3 * statistics.median(times), statistics.median(ratios), min(ratios), max(ratios), peak, ROUNDS)


def _plainly() -> Any:
    """Without compiled kernels."""
    return torch.compiler.set_stance("force_eager")


def _waited(step: Step) -> Step:
    def run() -> None:
        kept = step()
        torch.cuda.synchronize()
        del kept

    return run


def table(record: dict[str, Any]) -> str:
    lines = ["| way | ms | over its floor | spread | peak memory, MiB |", "|---|--:|--:|--:|--:|"]
    lines += [
        f"| {c['way']} | {c['milliseconds']:.1f} | {c['over_floor']:.2f} | {c['low']:.2f}–{c['high']:.2f} "
        f"| {c['peak']:,.0f} |"
        for c in record["costs"]
    ]
    about = ", ".join(f"{k} {v}" for k, v in {**record["machine"], **record["sizes"]}.items())
    checked = ", ".join(f"{k}: {v:.1g}" for k, v in record["checks"].items())
    return "\n".join([*lines, "", f"{about}.", "", f"Largest relative differences checked before: {checked}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="rows that go through the head together")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--vocabulary", type=int, default=VOCAB)
    parser.add_argument("--width", type=int, default=WIDTH)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.accelerator: no accelerator that torch can use is at hand")
    with _plainly():
        checks = {f"plain, {what}": apart for what, apart in check(qu.names(), TOLERANCE).items()}
    checks |= {f"compiled, {what}": apart for what, apart in check(COMPILED, TOLERANCE).items()}
    print(checks, flush=True)

    x = Problem.of(args.tokens, args.vocabulary, args.width, args.chunk, torch.bfloat16, "cuda")
    costs = []
    ways = dict(WAYS) | {f"{name}, not compiled": WAYS[name] for name in ("sft", "target_sft")}
    for way, build in ways.items():
        try:
            with _plainly() if way.endswith("not compiled") else contextlib.nullcontext():
                costs.append(measure(way, build, x))
        except (ImportError, AttributeError) as e:
            print(f"{way}: left out, {e}", flush=True)
            continue
        print(costs[-1], flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    record = {
        "machine": {"device": torch.cuda.get_device_name(), "torch": torch.__version__, **_versions()},
        "sizes": {"tokens": args.tokens, "vocabulary": args.vocabulary, "width": args.width, "chunk": args.chunk},
        "checks": checks,
        "costs": [dataclasses.asdict(c) for c in costs],
    }
    files.write(args.out / "accelerator.json", (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    files.write(args.out / "accelerator.md", table(record).encode())
    print(table(record))


def _versions() -> dict[str, str]:
    found = {}
    for name in ("triton", "trl", "liger_kernel"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


if __name__ == "__main__":
    main()
