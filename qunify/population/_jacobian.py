"""The Jacobian J of a drift, and what a flow asks of it: steps, their orientation, and Newton's step.

Of the drift of any method it is a matrix, V² numbers. Where the drift separates it is a diagonal and two products of
vectors, so that a linear system is solved in time linear in V (Woodbury's identity).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_FAR = 1e10  # a step of this length is Newton's


class Jacobian(Protocol):
    """N Jacobians."""

    def step(self, h: Tensor, b: Tensor) -> Tensor:
        """x (N, V) with (I − h J) x = b, h (N, 1); not finite where that is singular."""

    def keeps_orientation(self, h: Tensor) -> Tensor:
        """Whether det(I − h J) > 0, (N,)."""

    def newton(self, b: Tensor, gone: Tensor) -> Tensor:
        """x (N, V) with J x = b among the tokens that are not `gone` (N, V), which do not move."""


class Dense(NamedTuple):
    """J as a matrix."""

    matrix: Tensor  # (N, V, V)

    def _implicit(self, h: Tensor) -> Tensor:
        return torch.eye(self.matrix.shape[-1], dtype=self.matrix.dtype) - h[:, :, None] * self.matrix

    def step(self, h: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.solve_ex(self._implicit(h), b[..., None])[0][..., 0]

    def keeps_orientation(self, h: Tensor) -> Tensor:
        return torch.linalg.det(self._implicit(h)) > 0

    def newton(self, b: Tensor, gone: Tensor) -> Tensor:
        return (torch.linalg.pinv(remaining(self.matrix, gone), rtol=1e-11) @ b[..., None])[..., 0]


class DiagonalAndTwo(NamedTuple):
    """J = diag(d) − L Rᵀ."""

    diagonal: Tensor  # (N, V) d
    left: Tensor  # (N, V, 2) L
    right: Tensor  # (N, V, 2) R

    def _capacitance(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The diagonal D of I − h diag(d), (N, V), and I + h Rᵀ D⁻¹ L, (N, 2, 2)."""
        d = 1 - h * self.diagonal
        inner = self.right.mT @ (self.left / d[..., None])
        return d, torch.eye(2, dtype=d.dtype) + h[:, :, None] * inner

    def step(self, h: Tensor, b: Tensor) -> Tensor:
        d, small = self._capacitance(h)
        y = (b / d)[..., None]
        inner = torch.linalg.solve_ex(small, self.right.mT @ y)[0]
        return (y - h[:, :, None] * (self.left @ inner) / d[..., None])[..., 0]

    def keeps_orientation(self, h: Tensor) -> Tensor:
        d, small = self._capacitance(h)
        return d.sign().prod(-1) * torch.linalg.det(small) > 0

    def newton(self, b: Tensor, gone: Tensor) -> Tensor:
        kept = DiagonalAndTwo(
            self.diagonal.masked_fill(gone, 0.0), *(x.masked_fill(gone[..., None], 0.0) for x in self[1:])
        )
        h = torch.full_like(b[:, :1], _FAR)
        x = kept.step(h, -h * b)
        count = (~gone).sum(-1, keepdim=True)
        return x - x.masked_fill(gone, 0.0).sum(-1, keepdim=True) / count  # adding one number to all logits is no move


def remaining(jacobian: Tensor, gone: Tensor) -> Tensor:
    """The matrix with zeros in the rows and columns of tokens that are gone."""
    return jacobian.masked_fill(gone[:, :, None] | gone[:, None, :], 0.0)
