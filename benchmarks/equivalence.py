"""What a verdict costs: one pair in a fresh interpreter and in a warm one, every pair, and what an unknown loss is."""

from __future__ import annotations

import functools
import itertools
import statistics

import torch
from torch import Tensor

import qunify
from benchmarks.timing import Result, alternate, python, sandwiched, seconds

PAIR = "import qunify; qunify.compare('gem', qunify.get('temperature_ce', temperature=0.7))"
#: The same, timed once torch and SymPy, which any such tool needs, have been imported.
COLD = f"import time, torch, sympy; start = time.perf_counter(); {PAIR}; print(time.perf_counter() - start)"
#: Another pair on every round, so that nothing of it is known beforehand but what methods share.
WARM = (("sft", "dft"), ("kd", "reverse_kl"), ("focal", "poly1"), ("brier", "spherical"), ("label_smoothing", "kd"))


def run() -> list[Result]:
    torch.set_num_threads(1)
    import_times, pair_times = alternate(python("-c", "import torch, sympy"), python("-c", PAIR), rounds=5)
    cold = [float(python("-c", COLD)().stdout) for _ in range(5)]
    matrix = seconds(_matrix)  # the first comparison in this process: cold
    warm = [seconds(functools.partial(qunify.compare, *pair)) for pair in WARM]
    found = [seconds(functools.partial(qunify.identify, f)) for f in LOSSES]
    pairs = {"pairs": len(qunify.names()) * (len(qunify.names()) - 1) // 2}
    return [
        Result.of("compare, one pair, cold, after importing torch and SymPy", cold, "s", at_most=2),
        Result.of("compare, one pair in a fresh interpreter, imports included", pair_times, "s"),
        Result.of("  … / import torch, sympy", sandwiched(import_times, pair_times), "×", at_most=1.15),
        Result.of("compare, one pair, warm", warm, "s", at_most=2),
        Result.of("compare, every pair, cold, one process", [matrix], "s", at_most=30, sizes=pairs),
        Result.of("identify, the slowest loss tried", [max(found)], "s", at_most=5),
        Result.of("identify, the middle one", [statistics.median(found)], "s", sizes={"losses": len(found)}),
    ]


def _matrix() -> None:
    for a, b in itertools.combinations(qunify.names(), 2):
        qunify.compare(a, b)


def _log_u(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]


def _dft(logits: Tensor, labels: Tensor) -> Tensor:
    log_u = _log_u(logits, labels)
    return -log_u.detach().exp() * log_u


def _power(logits: Tensor, labels: Tensor) -> Tensor:
    return (1 - _log_u(logits, labels).exp() ** 0.613) / 0.613


def _own_power(logits: Tensor, labels: Tensor) -> Tensor:
    """A gate whose power depends on u: every gate is tried on it."""
    u = _log_u(logits, labels).exp()
    a = (u / (2 - u)).detach()
    return (1 - u**a) / a


def _entropy_bonus(logits: Tensor, labels: Tensor) -> Tensor:
    """No gate: every other method is tried on it."""
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    return -0.737 * _log_u(logits, labels) + 0.263 * entropy


def _smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)


LOSSES = (_dft, _power, _own_power, _entropy_bonus, _smoothing)
