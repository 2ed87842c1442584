"""Where training ends and how fast small models get there: optima per second, and stacks against single models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

import qunify
from benchmarks.timing import Result, alternate, sandwiched, seconds
from qunify.token import TensorToken
from qunify.training import Data, Job, Stack, TwoLayer, sweep

TRUTHS, VOCAB = 64, 10
SIZES: dict[str, Any] = {"N": 32, "features": 16, "hidden": 32, "V": 10, "steps": 100}
NETWORK = TwoLayer(SIZES["features"], SIZES["hidden"], SIZES["V"])
#: A gate solved by one root, a mixture in closed form, one that must be followed, and one with a jump.
SOLVED = ("focal", "label_smoothing", "dkd", "psft")
MODELS = (16, 64, 256)


def run() -> list[Result]:
    torch.set_num_threads(1)
    jobs = _jobs(64)
    stacked = functools.partial(_stacked, jobs)
    stacks, by_autograd = alternate(stacked, functools.partial(_each, _by_autograd, jobs), rounds=3)
    stacks_again, alone = alternate(stacked, functools.partial(_each, _stack_of_one, jobs), rounds=3)
    results = [_optima(name) for name in SOLVED]
    results += [
        Result.of(
            "64 small models / one by one by autograd", _inverse(stacks, by_autograd), "×", at_most=1 / 8, sizes=SIZES
        ),
        Result.of("  … / one by one in stacks of one", _inverse(stacks_again, alone), "×", at_most=0.08),
    ]
    for count in MODELS:
        many = _jobs(count)
        each = [seconds(functools.partial(_stacked, many)) / count for _ in range(3)]
        results.append(Result.of(f"  seconds per model, {count} together", each, "s"))
    one, two = alternate(functools.partial(_sweep, 1), functools.partial(_sweep, 2), rounds=3)
    results.append(Result.of("a sweep on two processes / on one", sandwiched(one, two), "×"))
    return results


def _inverse(base: list[float], variant: list[float]) -> list[float]:
    return [1 / ratio for ratio in sandwiched(base, variant)]


def _optima(name: str) -> Result:
    g = torch.Generator().manual_seed(0)
    truths = torch.softmax(torch.randn(TRUTHS, VOCAB, generator=g, dtype=torch.float64), -1)
    m = qunify.get(name)
    context: dict[str, Any] = {k: torch.randn(VOCAB, generator=g, dtype=torch.float64) for k in m.needs}
    solve = functools.partial(qunify.optimum, m, truths, **context)
    solve()
    rates = [TRUTHS / seconds(solve) for _ in range(3)]
    return Result.of(f"optima per second, {name}", rates, "/s", sizes={"truths": TRUTHS, "V": VOCAB})


def _jobs(count: int) -> list[Job]:
    names = ("sft", "dft", "label_smoothing", "target_sft", "gem", "kd", "focal", "sft_kl")
    g = torch.Generator().manual_seed(0)
    n, v = SIZES["N"], SIZES["V"]
    context = {k: torch.randn(n, v, generator=g, dtype=torch.float64) for k in ("teacher_logits", "reference_logits")}
    x = torch.randn(n, SIZES["features"], generator=g, dtype=torch.float64)
    data = Data(x, torch.randint(v, (n,), generator=g), context)
    return [Job(qunify.get(name), data, seed) for name in names for seed in range(count // len(names))]


def _stacked(jobs: list[Job]) -> None:
    Stack(NETWORK, jobs).run(SIZES["steps"])


def _stack_of_one(job: Job) -> None:
    _stacked([job])


def _each(train: Callable[[Job], None], jobs: list[Job]) -> None:
    for job in jobs:
        train(job)


def _sweep(workers: int) -> None:
    sweep(NETWORK, _jobs(256), [0, 200], lambda stack: {"lost": stack.diverged}, size=64, workers=workers)


def _by_autograd(job: Job) -> None:
    """One model, as one would write it: the published loss, its backward, a step."""
    parameters = {name: value[None].clone().requires_grad_() for name, value in NETWORK.start(job.seed).items()}
    optimiser = torch.optim.SGD(list(parameters.values()), lr=job.lr)
    context = {name: job.data.context[name] for name in job.method.needs}
    for _ in range(SIZES["steps"]):
        logits = NETWORK.logits(parameters, NETWORK.represent(parameters, job.data.inputs[None]))[0]
        t = TensorToken(logits, job.data.labels, context)
        optimiser.zero_grad()
        job.method.loss(t).mean().backward()
        optimiser.step()
