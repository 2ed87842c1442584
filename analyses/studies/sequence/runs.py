"""A small transformer learns hidden Markov sequences, whose next-token distribution is known exactly at every place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from qunify.calibration import against_truth
from qunify.catalogue import PAPER
from qunify.synthetic import HiddenMarkov
from qunify.training import FineTuningTask, SmallTransformer, TransformerSize, fine_tune, pretrain

COLUMNS = ["condition", "method", "seed", "step", "metric", "tokens_before", "value"]
OLD_EVERY = 10  # steps between two snapshots of the old policy
ROUNDED = 6  # decimals kept: the arithmetic of the models is float32

KL, VARIATION, ENTROPY_GAP = "KL from the truth", "total variation", "entropy gap"
TRUST = {True: "trust in right sequences", False: "trust in wrong sequences"}

#: The share of sequences that another chain wrote, by condition.
CONDITIONS = {"clean": 0.0, "mixed": 0.2}

#: How many tokens stand before the predicted one, first and last: these places are told together.
PLACES = {(1, 1): "1", (2, 3): "2–3", (4, 7): "4–7", (8, 15): "8–15", (16, 31): "16–31", (32, 63): "32–63"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is run; every training sequence is seen once. `steps` // 2 is a multiple of OLD_EVERY."""

    seeds: tuple[int, ...]
    states: int
    vocab: int
    length: int  # tokens
    reference: TransformerSize
    teacher: TransformerSize
    pretraining_rate: float
    pretraining_batch: int  # sequences
    reference_steps: int
    teacher_steps: int
    steps: int
    batch: int  # sequences
    rate: float
    test: int  # sequences
    watched: int  # training sequences that trust is measured on
    methods: tuple[str, ...] = PAPER


FULL = Plan(
    seeds=tuple(range(5)),
    states=6,
    vocab=24,
    length=64,
    reference=TransformerSize(24, width=32, layers=2, heads=2),
    teacher=TransformerSize(24, width=48, layers=2, heads=2),
    pretraining_rate=1e-2,
    pretraining_batch=32,
    reference_steps=60,
    teacher_steps=240,
    steps=120,
    batch=16,
    rate=1e-3,
    test=128,
    watched=64,
)


@dataclass(frozen=True)
class World:
    """One seed's chain, the chain that writes the wrong sequences, and the models trained on right ones."""

    chain: HiddenMarkov
    other: HiddenMarkov
    reference: SmallTransformer
    teacher: SmallTransformer
    test: Tensor  # (N, T), right ones


@functools.lru_cache(maxsize=1)
def world(plan: Plan, seed: int) -> World:
    chain = HiddenMarkov.random(plan.states, plan.vocab, persistence=0.8, seed=seed)
    shuffled = torch.randperm(plan.vocab, generator=torch.Generator().manual_seed(seed))
    other = dataclasses.replace(chain, emission=chain.emission[:, shuffled])
    reference, teacher = (SmallTransformer(size, seed) for size in (plan.reference, plan.teacher))
    for model, steps in ((reference, plan.reference_steps), (teacher, plan.teacher_steps)):
        read = chain.sample(steps * plan.pretraining_batch, plan.length, seed=4 * seed + 1)
        pretrain(model, read.split(plan.pretraining_batch), plan.pretraining_rate)
        model.requires_grad_(False)
    return World(chain, other, reference, teacher, test=chain.sample(plan.test, plan.length, seed=4 * seed + 2))


def mixture(chain: HiddenMarkov, other: HiddenMarkov, rate: float) -> HiddenMarkov:
    """The chain that is `other` with probability `rate`, once for the whole sequence: what the mixed data are."""
    return HiddenMarkov(
        torch.cat([(1 - rate) * chain.initial, rate * other.initial]),
        torch.block_diag(chain.transition, other.transition),
        torch.cat([chain.emission, other.emission]),
    )


@functools.lru_cache(maxsize=1)
def task(plan: Plan, seed: int, condition: str) -> tuple[FineTuningTask, Tensor]:
    """What is trained on, and which of the sequences are right (N,); no method sees the latter."""
    w = world(plan, seed)
    count = plan.steps * plan.batch
    right = torch.rand(count, generator=torch.Generator().manual_seed(seed)) >= CONDITIONS[condition]
    ours, others = (c.sample(count, plan.length, seed=4 * seed + 3) for c in (w.chain, w.other))
    tokens = torch.where(right[:, None], ours, others)
    return FineTuningTask.of(w.reference, w.teacher, tokens, marked(tokens)), right


def marked(tokens: Tensor) -> Tensor:
    """Every token but the first, which nothing stands before."""
    return (torch.arange(tokens.shape[1]) > 0).expand(tokens.shape)


def start_rows(plan: Plan, seed: int) -> pd.DataFrame:
    """The reference, the teacher, and the exact prediction of one who knows how the mixed data are made."""
    w = world(plan, seed)
    truth = w.chain.next_token(w.test)[:, 1:]
    found: list[Row] = []
    for name, model in (("reference", w.reference), ("teacher", w.teacher)):
        found += [
            {"condition": "clean", "method": name} | row for row in distances(probabilities(model, w.test), truth)
        ]
    for condition, rate in CONDITIONS.items():
        exact = mixture(w.chain, w.other, rate).next_token(w.test)[:, 1:]
        found += [{"condition": condition, "method": "exact"} | row for row in distances(exact, truth)]
        wrong = 1 - task(plan, seed, condition)[1].double().mean().item()
        found.append({"condition": condition, "method": "data", "metric": "share wrong", "value": wrong})
    return _table([{"step": 0} | row for row in found], seed)


def method_rows(plan: Plan, name: str, condition: str, seed: int) -> pd.DataFrame:
    """Fine-tune by one method: trust at the start and the end, the distance to the truth at the end."""
    w = world(plan, seed)
    given, right = task(plan, seed, condition)
    method = qu.get(name)
    watched = torch.arange(plan.watched)
    found: list[Row] = []

    def watch(step: int, model: SmallTransformer, old: SmallTransformer) -> None:
        trust = given.trust(method, model, old, watched).view(plan.watched, -1)
        for which, metric in TRUST.items():
            chosen = trust[right[watched] == which]
            if len(chosen) > 0:
                found.append({"step": step, "metric": metric, "value": chosen.mean().item()})

    model = fine_tune(
        method, given, steps=plan.steps, batch=plan.batch, lr=plan.rate, seed=seed, old_every=OLD_EVERY, measure=watch
    )
    truth = w.chain.next_token(w.test)[:, 1:]
    found += [{"step": plan.steps} | row for row in distances(probabilities(model, w.test), truth)]
    return _table([{"condition": condition, "method": name} | row for row in found], seed)


def probabilities(model: SmallTransformer, tokens: Tensor) -> Tensor:
    """The model's distribution of every token but the first, (N, T − 1, V) float64."""
    logits = model.predictions(tokens, marked(tokens)).double()
    return logits.softmax(-1).view(len(tokens), -1, logits.shape[-1])


def distances(probs: Tensor, truth: Tensor) -> Iterator[Row]:
    """How far (N, T − 1, V) predictions are from the truth, by how much stands before, and over all places."""
    found = against_truth(probs, truth)
    for metric, name in ((KL, "kl"), (VARIATION, "total_variation"), (ENTROPY_GAP, "entropy_gap")):
        yield {"metric": metric, "tokens_before": "all", "value": found[name].mean().item()}
        for (first, last), label in PLACES.items():
            if first <= probs.shape[1]:
                yield {
                    "metric": metric,
                    "tokens_before": label,
                    "value": found[name][:, first - 1 : last].mean().item(),
                }


def _table(found: list[Row], seed: int) -> pd.DataFrame:
    rows = [{"seed": seed, "tokens_before": "all"} | row | {"value": round(row["value"], ROUNDED)} for row in found]
    return pd.DataFrame(rows)[COLUMNS]
