"""What a loss does with a batch: what it divides by, and what becomes of tokens that are left out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from analyses.studies.atlas.shipped import Shipped
from qunify.samples import Batch, spread_over_u

VOCAB, SEQUENCES, LENGTH = 24, 2, 4
LEFT_OUT = (6, 7)  # both in the second sequence, so that its mean is another than that of all tokens
CLOSE = 1e-4  # between ratios that float32 rounds


class Treatment(NamedTuple):
    """In words."""

    normaliser: str  # what the sum over tokens is divided by
    ignored: str  # what a token does that is left out by its label
    none_kept: str  # what comes of a batch of such tokens alone


def treatment(shipped: Shipped) -> Treatment:
    p = _batch(shipped)
    whole = _gradient(shipped, p, p.labels)
    alone = torch.cat([_gradient(shipped, p[i : i + 1], p.labels[i : i + 1]) for i in range(len(p.labels))])
    divided = _divided(shipped, whole, alone, p, kept=len(p.labels))
    labels = p.labels.clone()
    labels[list(LEFT_OUT)] = shipped.padding
    try:
        some = _gradient(shipped, p, labels)
    except Exception as error:
        return Treatment(divided, f"refused ({type(error).__name__})", "")
    if not bool(some.isfinite().all()):
        return Treatment(divided, "NaN", "")
    if torch.equal(some, whole) and torch.equal(_gradient(shipped, p, p.labels.flip(0)), whole):
        return Treatment(divided, "it is given no labels", "")
    if bool(some[list(LEFT_OUT)].abs().max() > CLOSE * some.abs().max()):
        return Treatment(divided, "trained all the same", "")
    kept = [i for i in range(len(p.labels)) if i not in LEFT_OUT]
    divided = _divided(shipped, some, alone, p, kept=len(kept))
    return Treatment(divided, "left out", _none_kept(shipped, p))


def _batch(shipped: Shipped) -> Batch:
    p = spread_over_u(VOCAB, 0)
    rows = (p.labels != shipped.padding).nonzero()[:, 0]
    return p[rows[:: len(rows) // (SEQUENCES * LENGTH)][: SEQUENCES * LENGTH]]


def _run(shipped: Shipped, p: Batch, labels: Tensor, logits: Tensor) -> Tensor:
    given: dict[str, Any] = {name: p.context[name].clone() for name in shipped.contexts}
    loss = shipped.padded or shipped.loss
    if not shipped.sequences:
        return loss(logits, labels, **given)
    b = SEQUENCES if len(labels) == SEQUENCES * LENGTH else 1
    logits, labels, *others = (x.unflatten(0, (b, -1)) for x in (logits, labels, *given.values()))
    return loss(logits, labels, **dict(zip(given, others, strict=True)))


def _gradient(shipped: Shipped, p: Batch, labels: Tensor) -> Tensor:
    leaf = p.logits.clone().requires_grad_()
    loss = _run(shipped, p, labels.clone(), leaf.clone())
    return torch.autograd.grad(loss.sum(), leaf)[0]


def _divided(shipped: Shipped, batch: Tensor, alone: Tensor, p: Batch, kept: int) -> str:
    """By the ratio of a token's gradient in the batch to its gradient alone."""
    if _run(shipped, p, p.labels.clone(), p.logits.clone()).dim():
        return "nothing: one loss per token"
    n = len(p.labels)
    ratios = [_ratio(batch[rows], alone[rows]) for rows in (slice(0, LENGTH), slice(LENGTH, n - len(LEFT_OUT)))]
    known = {1.0: "nothing: a sum", 1 / n: "all tokens"}
    if kept < n:
        known[1 / kept] = "kept tokens"
    if shipped.sequences:
        known[1 / SEQUENCES] = "sequences"
    if abs(ratios[0] / ratios[1] - 1) < CLOSE:
        ratio = ratios[0]
        found = next((words for value, words in known.items() if abs(ratio / value - 1) < CLOSE), "")
        if found == "all tokens" and kept == n:
            return "tokens"
        return found or f"something else: a token counts {ratio:.4g} times what it counts alone"
    each = (1 / (SEQUENCES * LENGTH), 1 / (SEQUENCES * (LENGTH - len(LEFT_OUT))))
    if shipped.sequences and all(abs(r / e - 1) < CLOSE for r, e in zip(ratios, each, strict=True)):
        return "kept tokens of each sequence, and sequences"
    return "something that differs from token to token"


def _ratio(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (b * b).sum())


def _none_kept(shipped: Shipped, p: Batch) -> str:
    labels = torch.full_like(p.labels, shipped.padding)
    leaf = p.logits.clone().requires_grad_()
    try:
        loss = _run(shipped, p, labels, leaf.clone())
    except Exception as error:
        return f"refused ({type(error).__name__})"
    value = loss.sum()
    if not bool(value.isfinite()):
        return "NaN"
    return "0" if float(value.detach()) == 0 else f"{float(value.detach()):.4g}"
