"""Losses of JAX as losses of tensors: their values and slopes as JAX computes them, given float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from analyses.studies.atlas.shipped import LOSS


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, with_slopes: Callable[[Any], tuple[Any, Any]]) -> Tensor:
        import jax
        import numpy as np

        with jax.enable_x64(True):
            values, slopes = with_slopes(z.detach().numpy())
        ctx.save_for_backward(torch.tensor(np.asarray(slopes)).to(z.dtype))
        return torch.tensor(np.asarray(values)).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return given.reshape(*given.shape, *[1] * (slopes.dim() - given.dim())) * slopes, None


def of_batches(batch: Callable[..., Any]) -> LOSS:
    """One number for a batch: `batch(logits, labels, *contexts)`."""
    import jax

    def loss(z: Tensor, y: Tensor, **context: Tensor) -> Tensor:
        others = [y.numpy(), *(x.numpy() for x in context.values())]
        slopes = jax.value_and_grad(batch)
        return _Through.apply(z, lambda logits: slopes(logits, *others))

    return loss


def of_rows(row: Callable[[Any, Any], Any]) -> LOSS:
    """One number for each token: `row(logits, label)`, compiled once per shape, and probes have many."""
    import jax

    rows = jax.jit(jax.vmap(jax.value_and_grad(row)))

    def loss(z: Tensor, y: Tensor) -> Tensor:
        n, more = len(z), -len(z) % 1024
        labels = F.pad(y, (0, more)).numpy()

        def with_slopes(logits: Any) -> tuple[Any, Any]:
            import numpy as np

            values, slopes = rows(np.pad(logits, ((0, more), (0, 0))), labels)
            return values[:n], slopes[:n]

        return _Through.apply(z, with_slopes)

    return loss
