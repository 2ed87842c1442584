"""Pretrain a small transformer on right demonstrations, fine-tune it on mixed ones by any method, and measure it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from analyses.demonstrations_data import PARTS, VOCAB, Split, Texts, split, windows
from analyses.small_transformer import Size, SmallTransformer, pretrain, step
from qunify.catalogue import PAPER
from qunify.qmap import QMap

COLUMNS = ["method", "seed", "step", "metric", "text", "tokens", "value"]
ROUNDED = 6  # decimals kept: the arithmetic is float32
CHUNK = 16  # solutions measured at a time
REFRESH = 10  # steps between two snapshots of the old policy

TRUST, NLL, CALIBRATION, ENTROPY, KL = "trust", "negative log-likelihood", "calibration error", "entropy", "KL to start"
SAME_QUESTION = "trust, right less wrong, same question"

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is run. `checkpoints` divides `steps` into multiples of REFRESH, so that psft is measured on its way."""

    seeds: tuple[int, ...]
    reference: Size
    teacher: Size
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
    reference=Size(VOCAB, width=64, layers=2, heads=4),
    teacher=Size(VOCAB, width=96, layers=2, heads=4),
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
    """What all methods of one seed share: the data, the two models, and what they say of the training tokens."""

    split: Split
    reference: SmallTransformer
    teacher: SmallTransformer
    token_weight: Tensor  # (N, T) like the training tokens
    token_mask: Tensor  # (N, T)


@functools.lru_cache(maxsize=1)
def world(plan: Plan, seed: int) -> World:
    data = split(seed, plan.questions, plan.held_out)
    order = windows(data.clean, plan.pretraining_steps * plan.pretraining_batch, plan.window, seed)
    batches = order.split(plan.pretraining_batch)
    reference, teacher = (SmallTransformer(size, seed) for size in (plan.reference, plan.teacher))
    for model in (reference, teacher):
        pretrain(model, batches, plan.pretraining_rate)
        model.requires_grad_(False)
    weight, mask = weights(reference, data.train)
    return World(data, reference, teacher, weight, mask)


def weights(reference: SmallTransformer, texts: Texts) -> tuple[Tensor, Tensor]:
    """What iw_sft weighs by and cft leaves out, both (N, T); nothing here knows which solutions are wrong.

    token_weight (iw_sft): one importance weight per solution, the geometric mean over its tokens of
    reference(y | what stands before) / frequency(y), scaled to mean 1 over the training tokens: how much more likely
    the reference makes the solution than a policy that reads nothing.
    token_mask (cft): a token is critical where the reference's entropy is above the median.
    """
    at = texts.at
    labels = texts.tokens[at]
    frequency = torch.bincount(labels, minlength=reference.size.vocab) / len(labels)
    log_p, entropy = [], []
    for part in texts.chunks(CHUNK):
        log = reference.predictions(part.tokens, part.at).log_softmax(-1)
        log_p.append(log.gather(-1, part.tokens[part.at][:, None])[:, 0])
        entropy.append(-(log.exp() * log).sum(-1))
    owner = at.nonzero()[:, 0]
    ratio = _means(torch.cat(log_p) - frequency[labels].log(), owner, len(at)).exp().float()
    surprise = torch.cat(entropy)
    mask = torch.zeros(at.shape)
    mask[at] = (surprise > surprise.median()).float()
    return (ratio / ratio[owner].mean())[:, None].expand(at.shape), mask


def start_rows(plan: Plan, seed: int) -> pd.DataFrame:
    """What the data are, and how well the reference and the teacher do."""
    w = world(plan, seed)
    wrong = 1 - w.split.train.right.float().mean().item()
    found = [{"method": "data", "step": 0, "metric": "share wrong", "text": "train", "tokens": "all", "value": wrong}]
    for name, model in (("reference", w.reference), ("teacher", w.teacher)):
        found += [{"method": name, "step": 0} | row for row in final_rows(model, w)]
    return _table(found, seed)


def method_rows(plan: Plan, name: str, seed: int) -> pd.DataFrame:
    """Fine-tune by one method: trust at every checkpoint, everything else at the end."""
    w = world(plan, seed)
    method = qu.get(name)
    watched = w.split.train.question
    probe = torch.isin(watched, watched.unique()[: plan.watched]).nonzero()[:, 0]
    found: list[Row] = []
    for at, model, old in fine_tuned(method, w, plan, seed):
        found += [{"step": at} | row for row in trust_rows(method, model, old, w, probe)]
    found += [{"step": plan.steps} | row for row in final_rows(model, w)]
    return _table([{"method": name} | row for row in found], seed)


def fine_tuned(
    method: QMap, w: World, plan: Plan, seed: int
) -> Iterator[tuple[int, SmallTransformer, SmallTransformer]]:
    """Train with Adam from the reference; yield (step, model, old policy) at the start and at every checkpoint.

    What is yielded is measured before the old policy, a snapshot taken every REFRESH steps, is renewed.
    """
    model = w.reference.snapshot().requires_grad_()
    old = w.reference
    optimiser = torch.optim.Adam(model.parameters(), lr=plan.rate)
    for i, rows in enumerate(batches(len(w.split.train.tokens), plan.steps, plan.batch, seed)):
        if i % (plan.steps // plan.checkpoints) == 0:
            yield i, model, old
        if i % REFRESH == 0 and "old_logits" in method.needs:
            old = model.snapshot()
        texts = w.split.train.chosen(rows)
        step(method, model, optimiser, texts.tokens, texts.at, **context(method, w, old, rows, texts))
    yield plan.steps, model, old


def context(method: QMap, w: World, old: SmallTransformer, rows: Tensor, texts: Texts) -> dict[str, Any]:
    """What the method needs at the marked tokens of these training rows, flat."""
    models = {"reference_logits": w.reference, "teacher_logits": w.teacher, "old_logits": old}
    given = {"token_weight": w.token_weight, "token_mask": w.token_mask}
    at = texts.at
    found: dict[str, Any] = {}
    for name in method.needs:
        if name in models:
            found[name] = models[name].predictions(texts.tokens, at)
        else:
            found[name] = given[name][rows][:, : at.shape[1]][at]
    return found


def batches(count: int, steps: int, size: int, seed: int) -> Tensor:
    """Which texts each step sees, (steps, size): every text once before any is seen again; by the seed alone."""
    draw = np.random.default_rng((seed, 2))
    rounds = -(-steps * size // count)
    order = np.concatenate([draw.permutation(count) for _ in range(rounds)])
    return torch.from_numpy(order[: steps * size].reshape(steps, size))


def trust_rows(method: QMap, model: SmallTransformer, old: SmallTransformer, w: World, probe: Tensor) -> Iterator[Row]:
    """Mean trust (unit gauge) in tokens of right and of wrong training solutions, and in the parts of them."""
    trusts, parts, owners = [], [], []
    for rows in probe.split(CHUNK):
        texts = w.split.train.chosen(rows)
        at = texts.at
        logits = model.predictions(texts.tokens, at)
        trusts.append(method(logits, texts.tokens[at], **context(method, w, old, rows, texts)).trust.double())
        parts.append(texts.part[at])
        owners.append(rows[at.nonzero()[:, 0]])
    trust, part, owner = torch.cat(trusts), torch.cat(parts), torch.cat(owners)
    right = w.split.train.right
    for name, which in (("right", right[owner]), ("wrong", ~right[owner])):
        for tokens, chosen in {"all": part >= 0, **{key: part == value for key, value in PARTS.items()}}.items():
            if bool((which & chosen).any()):
                yield _row(TRUST, f"train, {name}", tokens, trust[which & chosen].mean())
    each = _means(trust, owner, len(right))[probe]
    yield _row(SAME_QUESTION, "train", "all", paired(each, right[probe], w.split.train.question[probe]))


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
            start = torch.cat([x for x, _, _ in _measured(w.reference, texts)])
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
        at = chunk.at
        yield model.predictions(chunk.tokens, at).log_softmax(-1), chunk.tokens[at], chunk.part[at]


def _means(values: Tensor, owner: Tensor, owners: int) -> Tensor:
    """The mean of the values (N,) of each owner, (owners,) float64; NaN for one that has none."""
    total = torch.zeros(owners, dtype=torch.float64).index_add(0, owner, values.double())
    return total / torch.bincount(owner, minlength=owners)


def _row(metric: str, text: str, tokens: str, value: Tensor | float) -> Row:
    return {"metric": metric, "text": text, "tokens": tokens, "value": round(float(value), ROUNDED)}


def _table(found: list[Row], seed: int) -> pd.DataFrame:
    return pd.DataFrame([{"seed": seed} | row for row in found])[COLUMNS]
