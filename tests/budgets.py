"""What a public call may cost: 30 seconds of a processor and 2 GiB, whatever the method, its parameters and V.

`python -m tests.budgets [METHOD …]` tries every call on every entry, at its defaults and at values of four digits, and
prints what each took; `--calls` and `--draws` say how much of that.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import qunify as qu
from qunify import pictures
from qunify.maps import QMap, limits
from qunify.samples import every_context

SECONDS = 30
BYTES = 2 * 2**30
LARGEST = 152_064


class TooLongError(RuntimeError):
    """A call took more of the processor than it may."""


@dataclass(frozen=True)
class Cost:
    call: str
    method: str
    vocab: int  # 0 for a call that has none
    seconds: float
    bytes: int
    said: str  # the sentence of a refusal; nothing where it returned

    @property
    def kept(self) -> bool:
        """Within the budget; a refusal is to come before the work."""
        return self.seconds < (5 if self.said else SECONDS) and self.bytes <= BYTES

    def __str__(self) -> str:
        took = f"{self.seconds:.1f} s, {self.bytes / 2**20:.0f} MiB"
        return f"{self.call}({self.method}), V = {self.vocab}: {took}{': ' * bool(self.said)}{self.said}"


def setting(name: str, draw: int) -> QMap:
    """An entry at its defaults (draw 0), or at values of four digits from its ranges."""
    m = qu.get(name)
    r = random.Random(f"{name} {draw}")
    for _ in range(100 if draw else 0):
        try:
            return m.replace(**{f.name: _drawn(f, r) for f in m.parameters()})
        except ValueError:  # the ends of a band in the wrong order
            continue
    return m


def _drawn(f: Any, r: random.Random) -> Any:
    known = limits(f)
    if known["choices"]:
        return r.choice(known["choices"])
    low = next((known[k] for k in ("low", "above") if known[k] is not None), -3)
    high = next((known[k] for k in ("high", "below") if known[k] is not None), low + 4)
    if isinstance(f.default, int):
        return r.randint(low, high if known["high"] is not None else 2 * f.default)
    return round(low + (high - low) * r.uniform(0.0005, 0.9995), 4)


def given(m: QMap, vocab: int, rows: int = 0) -> dict[str, Any]:
    """Contexts of one token, or of some."""
    r = torch.Generator().manual_seed(vocab)
    lead = (rows,) if rows else ()
    made = every_context(
        lambda _: torch.randn(*lead, vocab, generator=r, dtype=torch.float64),
        weight=torch.full(lead, 1.3, dtype=torch.float64),
        mask=torch.ones(lead, dtype=torch.float64),
        negative=torch.zeros(*lead, vocab),
        values=torch.arange(vocab, dtype=torch.float64).expand(*lead, vocab),
    )
    return {name: made[name] for name in m.needs}


def _logits(vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    z = 2 * torch.randn(4, vocab, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return z.requires_grad_(), torch.tensor([0, 1, vocab - 1, 0])


def _truth(vocab: int) -> torch.Tensor:
    return torch.softmax(2 * torch.randn(vocab, generator=torch.Generator().manual_seed(2), dtype=torch.float64), -1)


def _linear(m: QMap, vocab: int) -> Any:
    w = torch.randn(vocab, 8, generator=torch.Generator().manual_seed(3), requires_grad=True)
    h = torch.randn(4, 8, generator=torch.Generator().manual_seed(4))
    context = {k: v.float() for k, v in given(m, vocab, 4).items()}
    models = {k.removesuffix("_logits"): v for k, v in context.items() if k.endswith("_logits") and "prior" not in k}
    others = {k: v for k, v in context.items() if k.removesuffix("_logits") not in models}
    return qu.linear_loss(h, w, torch.tensor([0, 1, vocab - 1, 0]), m, **models, **others).backward()


#: Calls on a vocabulary, and calls that are for every vocabulary.
SIZED: dict[str, Callable[[QMap, int], Any]] = {
    "target": lambda m, v: m(*_logits(v), **given(m, v, 4)).in_gauge("boundary"),
    "loss": lambda m, v: qu.loss(m)(*_logits(v), **given(m, v, 4)).backward(),
    "linear_loss": _linear,
    "drift": lambda m, v: qu.drift(m, _truth(v), _truth(v), **given(m, v)),
    "optimum": lambda m, v: qu.optimum(m, _truth(v), **given(m, v)),
}
GENERAL: dict[str, Callable[[QMap], Any]] = {
    "compare": lambda m: qu.compare(m, "sft"),
    "compare_with_itself": lambda m: qu.compare(m, type(m)()),
    "is_proper": qu.is_proper,
    "identify": lambda m: qu.identify(m, top=1),
    "subsumes": lambda m: qu.subsumes("agce", m),
    "method_page": pictures.method_page,
}


def _peak() -> int:
    """Bytes that this process held at most since its peak was last forgotten."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("expected VmHWM in /proc/self/status")


def _stop(*_: Any) -> None:
    raise TooLongError(f"more than {SECONDS} s")


def cost(call: str, m: QMap, vocab: int = 0) -> Cost:
    """What one call takes, cut short where it takes more than it may."""
    ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would be taken for nothing
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before, start, said = _peak(), time.process_time(), ""
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        SIZED[call](m, vocab) if vocab else GENERAL[call](m)
    except ValueError as error:
        said = str(error)
    except TooLongError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    name = f"{m.name}({', '.join(f'{k}={v}' for k, v in m.params.items())})"
    return Cost(call, name, vocab, time.process_time() - start, _peak() - before, said)


def cells(names: tuple[str, ...], calls: tuple[str, ...], draws: int, vocabs: tuple[int, ...]) -> Iterator[Cost]:
    for name in names:
        for m in dict.fromkeys(setting(name, draw) for draw in range(draws)):
            for call in calls:
                for vocab in vocabs if call in SIZED else (0,):
                    yield cost(call, m, vocab)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=qu.names())
    parser.add_argument("--calls", default=",".join((*SIZED, *GENERAL)))
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--vocabs", default=f"2,1000,{LARGEST}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    most: dict[str, tuple[Cost, Cost]] = {}
    vocabs = tuple(map(int, given.vocabs.split(",")))
    for c in cells(tuple(given.methods), tuple(given.calls.split(",")), given.draws, vocabs):
        if not c.kept:
            print("misses", c, flush=True)
        slow, large = most.get(c.call, (c, c))
        most[c.call] = max(slow, c, key=lambda x: x.seconds), max(large, c, key=lambda x: x.bytes)
    for slow, large in most.values():
        print("most", slow, "|", large)


if __name__ == "__main__":
    main()
