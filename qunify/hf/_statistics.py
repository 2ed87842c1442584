"""What a method does to the tokens at hand, on a sample of them: numbers to read beside the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qunify.hf._heads import Head
from qunify.maps import QMap
from qunify.token import SEQUENCES
from qunify.training import TopK

Source = Tensor | TopK | tuple[Tensor, Tensor, Tensor | None]

NAMES = ("entropy", "mean_token_accuracy", "trust", "gradient_scale", "in_simplex", "nll", "loss")
LIMIT = 256  # tokens of a micro-batch
BLOCK = 32  # of them at once: a target and its gradient have the size of the vocabulary


@torch.compiler.disable
@torch.no_grad()
def observe(
    method: QMap, head: Head, hidden: Tensor, labels: Tensor, sources: Mapping[str, Source],
    documents: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Sums over tokens and how many there are, (2, 7), in the order of `NAMES`; the loss is none of what is observed.

    The tokens are evenly spaced among those kept, hidden (…, d) and labels (…). A token without a number (the trust
    of a target that is no mixture) does not count. What a method takes from its sequence, one number in `documents` (…)
    or else a row, or from the batch, is here that of the tokens looked at.
    """
    kept = (labels.flatten() != -100).nonzero()[:, 0]
    chosen = kept[torch.linspace(0, len(kept) - 1, min(len(kept), LIMIT), device=kept.device).round().long()]
    found = torch.zeros(2, len(NAMES), device=hidden.device)
    if documents is None:
        documents = torch.arange(labels.numel(), device=labels.device) // labels.shape[-1]
    for rows in chosen.split(LIMIT if method.pools else BLOCK):
        z, y = head.logits(hidden.flatten(0, -2)[rows]), labels.flatten()[rows]
        context: dict[str, Any] = {name: _at(source, rows, head) for name, source in sources.items()}
        context[SEQUENCES] = documents.flatten()[rows]
        q = method(z, y, **context)
        numbers = torch.stack(
            (
                torch.special.entr(z.softmax(-1)).sum(-1),
                (z.argmax(-1) == y).to(z.dtype),
                q.trust,
                q.gradient.abs().sum(-1),
                q.in_simplex.to(z.dtype),
                torch.nn.functional.cross_entropy(z, y, reduction="none"),
                torch.full_like(q.loss, torch.nan),
            ),
            dim=-1,
        )
        found += torch.stack((numbers.nansum(0), (~numbers.isnan()).sum(0).to(z.dtype)))
    return found


def _at(source: Source, rows: Tensor, head: Head) -> Tensor:
    """A context at these rows as a method takes it: logits (n, V), or one number per token (n,)."""
    if isinstance(source, tuple):
        hidden, weight, bias = source
        return dataclasses.replace(head, weight=weight, bias=bias).logits(hidden.flatten(0, -2)[rows])
    if isinstance(source, TopK):
        return source.logits(rows, head.vocab, torch.promote_types(head.weight.dtype, torch.float32))
    if source.dim() == 1:  # (V,), alike for all
        return source.expand(len(rows), -1)
    return source.flatten()[rows] if source.dim() == 2 else source.flatten(0, -2)[rows]
