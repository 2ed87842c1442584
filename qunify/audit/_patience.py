"""How long a method needs for a token, in units of what SFT needs, were every token free.

Along the way the other tokens keep their shares of what the label leaves: p(u) = u δ + (1 − u) r. With a step of the
logits along −g, u changes at the rate u' = −u (g_y − Σ_k p_k g_k), so that from u₀ to ½ it takes T = ∫ du / u'(u).
For two gates of u the ratio is exact when r is one token or uniform, whose shares the flow does keep.
Model parameters are shared by all tokens: the time that training takes is another thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunify.maps import QMap, gradients

NODES = 48
GOAL = 0.5


@torch.no_grad()
def times(methods: Sequence[QMap], logits: Tensor, label: int, context: Mapping[str, Tensor]) -> np.ndarray:
    """T of every method from the token's own u to one half, (M,): infinite where it never gets there, NaN where u is
    one half already, and of a method that looks beyond the token.

    Parameters
    ----------
    logits : Tensor, (V,)
        The model's at the token; every context (V,) too.
    """
    log_p = logits.double().log_softmax(-1)
    start = torch.logit(log_p[label].exp().clamp(min=1e-30))
    if start >= 0:
        return np.full(len(methods), np.nan)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    x = (start / 2) * (1 - torch.from_numpy(nodes))  # log-odds of u, from the start to 0
    others = log_p.clone()
    others[label] = -torch.inf
    z = others.log_softmax(-1) + torch.nn.functional.logsigmoid(-x)[:, None]
    z[:, label] = torch.nn.functional.logsigmoid(x)
    labels = torch.full((NODES,), label)
    shared: dict[str, Any] = {name: value.double().expand_as(z) for name, value in context.items()}
    p = z.softmax(-1)
    found = []
    for m, g in zip(methods, gradients(methods, z, labels, **shared), strict=True):
        if m.pools:  # the token's sequence moves along with it
            found.append(np.nan)
            continue
        # d log-odds/dt = u'/(u (1 − u)), and Σ_{k≠y} p_k g_k + u g_y with 1 − u taken as a sum
        along = (p * g).sum(-1) - g[:, label]
        speed = along / (p.sum(-1) - p[:, label]).clamp(min=1e-300)
        never = bool((speed <= 0).any())
        found.append(np.inf if never else float((torch.from_numpy(weights) / speed).sum() * -start / 2))
    return np.array(found)
