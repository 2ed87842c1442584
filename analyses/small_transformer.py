"""A small decoder transformer, its pretraining, and one step of fine-tuning by the logit gradient of any method."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qunify.qmap import QMap

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class Size:
    """How large a transformer is. `width` is a multiple of 2 · `heads`."""

    vocab: int
    width: int
    layers: int
    heads: int


class Block(nn.Module):
    """Pre-norm attention and a two-layer perceptron, both added to the stream."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.attention_norm, self.norm = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=False)
        self.out = nn.Linear(size.width, size.width, bias=False)
        self.up = nn.Linear(size.width, 4 * size.width, bias=False)
        self.down = nn.Linear(4 * size.width, size.width, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        mixed = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm(x))))


class SmallTransformer(nn.Module):
    """Token ids (B, T) → hidden states (B, T, width); `logits` of them gives (…, V) by the tied embedding."""

    def __init__(self, size: Size, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(size.vocab, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width)
        draw = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 2:  # matrices that write into the stream start smaller, as there are more of them
                writes = name.endswith(("out.weight", "down.weight"))
                fan_in = 1 / 0.02**2 if name.startswith("embedding") else p.shape[1]
                nn.init.normal_(p, std=fan_in**-0.5 / ((2 * size.layers) ** 0.5 if writes else 1), generator=draw)
        self.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        angles = rotary_angles(tokens.shape[1], self.size.width // self.size.heads).to(x.dtype)
        for block in self.blocks:
            x = block(x, angles)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embedding.weight.T

    @torch.no_grad()
    def predictions(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Logits for the tokens at `at` (B, T) bool, from what stands before them: (N, V)."""
        return self.logits(before(self(tokens), at))

    def snapshot(self) -> SmallTransformer:
        """A frozen copy."""
        return copy.deepcopy(self).requires_grad_(False)


@functools.cache
def rotary_angles(length: int, dim: int) -> Tensor:
    """(T, dim / 2), float64."""
    rates = ROPE_BASE ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.arange(length, dtype=torch.float64)[:, None] * rates


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary position: pairs (…, T, D) turned by the angles of their position (T, D / 2)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def before(x: Tensor, at: Tensor) -> Tensor:
    """What stands one place before the marked tokens, x (B, T, …) and at (B, T) bool → (N, …).

    The first token of a sequence has nothing before it, so that it is never marked.
    """
    if bool(at[:, 0].any()):
        raise ValueError("before: at: expected no mark on the first token, got one")
    return x[:, :-1][at[:, 1:]]


def pretrain(model: SmallTransformer, batches: Sequence[Tensor], rate: float) -> None:
    """Plain next-token cross-entropy on every token of every batch (B, T).

    Muon for the blocks' matrices, at twice the rate, and Adam for the rest; the rates rise for a twentieth of the
    steps, then fall to zero.
    """
    inner = [p for p in model.blocks.parameters() if p.ndim == 2]
    outer = [*model.embedding.parameters(), *(p for p in model.parameters() if p.ndim == 1)]
    optimisers = (torch.optim.Muon(inner, lr=2 * rate, weight_decay=0.0), torch.optim.Adam(outer, lr=rate))
    rise = max(1, len(batches) // 20)
    ramps = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / rise, (len(batches) - step) / (len(batches) - rise + 1))
        )
        for optimiser in optimisers
    ]
    for tokens in batches:
        logits = model.logits(model(tokens)[:, :-1])
        model.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for optimiser, ramp in zip(optimisers, ramps, strict=True):
            optimiser.step()
            ramp.step()


def step(
    method: QMap,
    model: SmallTransformer,
    optimiser: torch.optim.Optimizer,
    tokens: Tensor,
    at: Tensor,
    **context: Any,
) -> None:
    """One step on the marked tokens: the method's closed-form gradient at the logits, carried back by autograd.

    tokens (B, T); at (B, T) bool with N marks; contexts as the method needs them, flat: (N, …).
    """
    logits = model.logits(before(model(tokens), at))
    gradient = method(logits.detach(), tokens[at], **context).gradient
    optimiser.zero_grad()
    logits.backward(gradient=gradient / len(gradient))
    optimiser.step()
