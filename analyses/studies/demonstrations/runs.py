"""Pretrain a small transformer on right demonstrations, fine-tune it on mixed ones by any method, and measure it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from analyses.studies.demonstrations.data import PARTS, VOCAB, Split, Texts, split
from qunify.catalogue import PAPER
from qunify.training import (
    FineTuningTask,
    SmallTransformer,
    TransformerSize,
    fine_tune,
    mean_per_sequence,
    pack_documents,
    pretrain,
)

COLUMNS = ["method", "seed", "step", "metric", "text", "tokens", "value"]
OLD_EVERY = 10  # steps between two snapshots of the old policy
CHUNK = 16  # texts predicted at a time
ROUNDED = 6  # decimals kept: the arithmetic is float32

TRUST, NLL, CALIBRATION, ENTROPY, KL = "trust", "negative log-likelihood", "calibration error", "entropy", "KL to start"
SAME_QUESTION = "trust, right less wrong, same question"

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is run. `checkpoints` divides `steps` into multiples of OLD_EVERY: psft is measured on its way."""

    seeds: tuple[int, ...]
    reference: TransformerSize
    teacher: TransformerSize
    pretraining_steps: int
    pretraining_batch: int  # windows
    window: int  # tokens
    pretraining_rate: float
    questions: int  # to train on, each with four solutions
    held_out: int  # questions
    watched: int  # training questions that trust is measured on
    steps: int
    batch: int  # solutions
    rate: float
    checkpoints: int
    methods: tuple[str, ...] = PAPER


FULL = Plan(
    seeds=tuple(range(5)),
    reference=TransformerSize(VOCAB, width=64, layers=2, heads=4),
    teacher=TransformerSize(VOCAB, width=96, layers=2, heads=4),
    pretraining_steps=200,
    pretraining_batch=16,
    window=256,
    pretraining_rate=1e-2,
    questions=80,
    held_out=30,
    watched=30,
    steps=40,
    batch=8,
    rate=5e-4,
    checkpoints=2,
)


@dataclass(frozen=True)
class World:
    """What all methods of one seed share."""

    split: Split
    task: FineTuningTask


@functools.lru_cache(maxsize=1)
def world(plan: Plan, seed: int) -> World:
    data = split(seed, plan.questions, plan.held_out)
    order = pack_documents(data.clean, plan.pretraining_steps * plan.pretraining_batch, plan.window, seed)
    reference, teacher = (SmallTransformer(size, seed) for size in (plan.reference, plan.teacher))
    for model in (reference, teacher):
        pretrain(model, order.split(plan.pretraining_batch), plan.pretraining_rate)
        model.requires_grad_(False)
    return World(data, FineTuningTask.of(reference, teacher, data.train.tokens, data.train.solution))


def start_rows(plan: Plan, seed: int) -> pd.DataFrame:
    """What the data are, and how well the reference and the teacher do."""
    w = world(plan, seed)
    wrong = 1 - w.split.train.right.float().mean().item()
    found = [{"method": "data", "step": 0, "metric": "share wrong", "text": "train", "tokens": "all", "value": wrong}]
    for name, model in (("reference", w.task.reference), ("teacher", w.task.teacher)):
        assert model is not None
        found += [{"method": name, "step": 0} | row for row in final_rows(model, w)]
    return _table(found, seed)


def method_rows(plan: Plan, name: str, seed: int) -> pd.DataFrame:
    """Fine-tune by one method: trust at every checkpoint, everything else at the end."""
    w = world(plan, seed)
    method = qu.get(name)
    question = w.split.train.question
    watched = torch.isin(question, question.unique()[: plan.watched]).nonzero()[:, 0]
    found: list[Row] = []

    def watch(step: int, model: SmallTransformer, old: SmallTransformer) -> None:
        trust = w.task.trust(method, model, old, watched)
        found.extend({"step": step} | row for row in trust_rows(trust, w.split.train, watched))

    model = fine_tune(
        method,
        w.task,
        steps=plan.steps,
        batch=plan.batch,
        lr=plan.rate,
        seed=seed,
        old_every=OLD_EVERY,
        every=plan.steps // plan.checkpoints,
        measure=watch,
    )
    found += [{"step": plan.steps} | row for row in final_rows(model, w)]
    return _table([{"method": name} | row for row in found], seed)


def trust_rows(trust: Tensor, texts: Texts, watched: Tensor) -> Iterator[Row]:
    """Mean trust in tokens of right and of wrong solutions, and in the parts of them; `trust` flat, of those rows."""
    at = texts.solution[watched]
    part, owner = texts.part[watched][at], watched[at.nonzero()[:, 0]]
    parts = {"all": part >= 0} | {name: part == value for name, value in PARTS.items()}
    for name, which in (("right", texts.right[owner]), ("wrong", ~texts.right[owner])):
        for tokens, chosen in parts.items():
            if bool((which & chosen).any()):
                yield _row(TRUST, f"train, {name}", tokens, trust[which & chosen].mean())
    each = mean_per_sequence(trust, at)
    yield _row(SAME_QUESTION, "train", "all", paired(each, texts.right[watched], texts.question[watched]))


def paired(values: Tensor, right: Tensor, question: Tensor) -> Tensor:
    """The mean over questions of (mean of the right solutions − mean of the wrong ones), where both exist."""
    differences = []
    for q in question.unique():
        own = question == q
        if bool((own & right).any()) and bool((own & ~right).any()):
            differences.append(values[own & right].mean() - values[own & ~right].mean())
    return torch.stack(differences).mean()


def final_rows(model: SmallTransformer, w: World) -> Iterator[Row]:
    """Loss, calibration, entropy and distance to the reference on held-out texts, and the loss on pretraining text."""
    from relplot import smECE  # takes seconds to import

    people, others = w.split.demonstrations, w.split.held_out
    right, wrong = (others.chosen(chosen.nonzero()[:, 0]) for chosen in (others.right, ~others.right))
    for name, texts in (("held-out demonstrations", people), ("held-out, right", right), ("held-out, wrong", wrong)):
        log, labels, part = (torch.cat(x) for x in zip(*_measured(model, texts), strict=True))
        nll = -log.gather(-1, labels[:, None])[:, 0]
        yield _row(NLL, name, "all", nll.mean())
        for tokens, value in PARTS.items():
            if bool((part == value).any()):
                yield _row(NLL, name, tokens, nll[part == value].mean())
        if texts is people:
            p = log.exp()
            start = torch.cat([x for x, _, _ in _measured(w.task.reference, texts)])
            confidence, choice = p.max(-1)
            hit = (choice == labels).double()
            yield _row(CALIBRATION, name, "all", smECE(confidence.double().numpy(), hit.numpy()))
            yield _row(ENTROPY, name, "all", -(p * log).sum(-1).mean())
            yield _row(KL, name, "all", (p * (log - start)).sum(-1).mean())
    yield _row(NLL, "pretraining demonstrations, questions included", "all", pretraining_loss(model, w))


def pretraining_loss(model: SmallTransformer, w: World) -> float:
    """Nats a token over some of the documents that the reference was pretrained on, their first tokens left out."""
    total, count = 0.0, 0
    for document in w.split.clean[: len(w.split.demonstrations.tokens)]:
        ids = torch.tensor(document)[None]
        log = model.predictions(ids, torch.arange(len(document))[None] > 0).log_softmax(-1)
        total -= log.gather(-1, ids[0, 1:, None]).sum().item()
        count += len(log)
    return total / count


def _measured(model: SmallTransformer, texts: Texts) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities (N, V), labels and parts (N,) of the solutions' tokens, some texts at a time."""
    for chunk in texts.chunks(CHUNK):
        at = chunk.solution
        yield model.predictions(chunk.tokens, at).log_softmax(-1), chunk.tokens[at], chunk.part[at]


def _row(metric: str, text: str, tokens: str, value: Tensor | float) -> Row:
    return {"metric": metric, "text": text, "tokens": tokens, "value": round(float(value), ROUNDED)}


def _table(found: list[Row], seed: int) -> pd.DataFrame:
    return pd.DataFrame([{"seed": seed} | row for row in found])[COLUMNS]
