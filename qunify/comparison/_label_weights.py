"""Does a loss weigh tokens by which token the label is, as class weights do?

No entry of the catalogue knows a token by its number: with two tokens exchanged everywhere, in the logits, the contexts
and the label, its gradient has them exchanged and is otherwise the same. By how much another loss's gradient grows when
the label is exchanged for each of the others is therefore what it weighs that label by.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qunify.comparison._places import Array
from qunify.comparison._subjects import Subject
from qunify.samples import ROWS, Batch, spread_over_u

TRIED = 3  # tokens of each vocabulary, in which labels are exchanged


def label_weights(subject: Subject, tolerance: float) -> list[Array] | None:
    """What a loss weighs each label by, (V,) for each vocabulary, the first label by 1; None where all weigh the same,
    or the loss tells tokens apart in another way."""
    found = []
    for vocab in ROWS:
        tried = [_weights(subject, spread_over_u(vocab, seed=1), i, tolerance) for i in range(TRIED)]
        first = tried[0]
        if first is None or any(w is None or not np.allclose(w, first, rtol=tolerance, atol=0) for w in tried):
            return None
        found.append(first)
    return None if all(np.allclose(w, 1, rtol=tolerance, atol=0) for w in found) else found


def _weights(subject: Subject, batch: Batch, row: int, tolerance: float) -> Array | None:
    """By how much the gradient at one token grows with each label in place of its own, (V,)."""
    vocab, own = batch.logits.shape[-1], int(batch.labels[row])
    every = torch.arange(vocab)
    order = every.repeat(vocab, 1)  # of the vocabulary, in row k with the own label and token k exchanged
    order[every, own], order[every, every] = every, torch.tensor(own)
    same = batch[torch.full((vocab,), row)]

    def exchanged(x: torch.Tensor) -> torch.Tensor:
        return x.gather(1, order) if x.shape == order.shape else x

    context = {name: exchanged(x) for name, x in same.context.items()}
    gradient = exchanged(subject(Batch(exchanged(same.logits), every, context)).gradient).numpy()
    unit = gradient[own] / (np.linalg.norm(gradient[own]) or 1.0)
    weights: Array = gradient @ unit
    left = np.linalg.norm(gradient - weights[:, None] * unit, axis=-1)
    if not (weights > 0).all() or bool((left > tolerance * weights).any()):
        return None
    return weights / weights[0]


def divided(gradients: Sequence[Array], batches: Sequence[Batch], weights: Sequence[Array]) -> tuple[Array, ...]:
    """The gradients, (N, V) for each vocabulary, as of a loss that weighs all labels the same."""
    return tuple(g / w[p.labels.numpy(), None] for g, p, w in zip(gradients, batches, weights, strict=True))
