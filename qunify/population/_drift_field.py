"""Where training leads on three tokens: a small world, the drift at points of its simplex, and paths along the drift.

A page shows them for one method, and the study `simplex` for twelve beside models that are trained.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from qunify.maps import QMap
from qunify.population._optima import drift
from qunify.samples import every_context

SIMPLEX_TOKENS = ("A", "B", "C")
#: What the labels are drawn from.
SIMPLEX_TRUTH = (0.55, 0.30, 0.15)
#: The model before fine-tuning, of which the old policy is one step away; a teacher; both believe something else.
_REFERENCE = (0.15, 0.25, 0.60)
_TEACHER = (0.20, 0.60, 0.20)
#: What methods may ask for there, beside the truth: distributions, numbers, the tokens to be avoided, and their values.
SIMPLEX_WORLD: dict[str, tuple[float, ...] | float] = every_context(
    lambda name: _TEACHER if name == "teacher_logits" else _REFERENCE,
    weight=1.0,
    mask=1.0,
    negative=(0.0, 0.0, 1.0),
    values=(0.0, 1.0, 2.0),
)
#: What the distributions of that world are called.
SIMPLEX_NAMES = {
    "reference_logits": "reference",
    "old_logits": "old policy",
    "teacher_logits": "teacher",
    "prior_logits": "prior",
    "teacher_base_logits": "teacher's base",
}
#: Where training begins: in the middle, near each token, and far from A.
SIMPLEX_STARTS = ((1 / 3, 1 / 3, 1 / 3), (0.08, 0.84, 0.08), (0.08, 0.08, 0.84), (0.84, 0.08, 0.08), (0.06, 0.47, 0.47))
EDGE = 13  # points along an edge of the grid


def simplex_context(needs: Iterable[str]) -> dict[str, Any]:
    """These contexts as a method takes them there, as tensors: logits and masks (3,), numbers without a shape."""
    values = {name: torch.tensor(SIMPLEX_WORLD[name], dtype=torch.float64) for name in needs}
    return {name: value.log() if name.endswith("_logits") else value for name, value in values.items()}


def simplex_grid(edge: int = EDGE) -> Tensor:
    """The interior points of a regular grid on the simplex of three tokens, (N, 3)."""
    n = edge - 1
    points = [(i, j, n - i - j) for i, j in itertools.product(range(1, n), repeat=2) if i + j < n]
    return torch.tensor(points, dtype=torch.float64) / n


def simplex_moves(m: QMap, probs: Tensor, truth: Sequence[float] = SIMPLEX_TRUTH, **context: Any) -> Tensor:
    """dp/dt at probabilities (N, V), where the labels are drawn from `truth` and the logits follow the drift."""
    return _moved(probs, drift(m, probs, truth, **context))


def simplex_paths(
    m: QMap,
    starts: Sequence[Sequence[float]] = SIMPLEX_STARTS,
    truth: Sequence[float] = SIMPLEX_TRUTH,
    *,
    steps: int = 90,
    length: float = 0.02,
    **context: Any,
) -> Tensor:
    """Gradient flow from `starts`, (steps + 1, starts, V), in steps that change the probabilities by `length`.

    A path's steps are halved where it turns back: there it has arrived.
    """
    z = torch.tensor(starts, dtype=torch.float64).log()
    lengths = torch.full((len(z), 1), length, dtype=torch.float64)
    before, path = torch.zeros_like(z), [z.softmax(-1)]
    for _ in range(steps):
        dz = drift(m, path[-1], truth, **context)
        dp = _moved(path[-1], dz)
        lengths = torch.where((before * dp).sum(-1, keepdim=True) < 0, lengths / 2, lengths)
        z = z + (lengths * dz / dp.norm(dim=-1, keepdim=True).clamp(min=1e-6)).clamp(-1, 1)
        path.append(z.softmax(-1))
        before = dp
    return torch.stack(path)


def _moved(p: Tensor, dz: Tensor) -> Tensor:
    """How probabilities move as their logits do, dp = (diag p − p pᵀ) dz, (N, V)."""
    return p * (dz - (p * dz).sum(-1, keepdim=True))
