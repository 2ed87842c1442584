"""A small decoder transformer that learns and samples on a CPU, and its pretraining."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class TransformerSize:
    """How large a `SmallTransformer` is.

    Attributes
    ----------
    vocab : int
        V, how many tokens there are.
    width : int
        Of the hidden states; a multiple of 2 · `heads`.
    layers : int
        Blocks of attention and perceptron.
    heads : int
        Of each block's attention.
    places : int
        So many first positions have a learned vector each, beside the rotations; none by default. No sequence may then
        be longer.

    Raises
    ------
    ValueError
        If a number is not an integer, is too small, or `width` is no multiple of 2 · `heads`.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    places: int = 0

    def __post_init__(self) -> None:
        for name, least in (("vocab", 2), ("width", 2), ("layers", 1), ("heads", 1), ("places", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"TransformerSize: {name}: expected an integer of at least {least}, got {value!r}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"TransformerSize: width: expected a multiple of 2 · heads = {2 * self.heads}, got {self.width}"
            )


class KeyValueCache:
    """Keys and values (B, H, T, D) of the tokens that a block has seen, for sampling; room for `length` tokens."""

    def __init__(self, length: int) -> None:
        self.length, self.seen = length, 0
        self.keys = self.values = torch.empty(0)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of the next tokens, and return all."""
        if self.seen == 0:
            room = (*k.shape[:2], self.length, k.shape[3])
            self.keys, self.values = k.new_empty(room), v.new_empty(room)
        now = self.seen + k.shape[2]
        self.keys[:, :, self.seen : now], self.values[:, :, self.seen : now] = k, v
        self.seen = now
        return self.keys[:, :, :now], self.values[:, :, :now]


class Block(nn.Module):
    """Pre-norm attention and a two-layer perceptron, both added to the residual stream."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.attention_norm, self.norm = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=False)
        self.out = nn.Linear(size.width, size.width, bias=False)
        self.up = nn.Linear(size.width, 4 * size.width, bias=False)
        self.down = nn.Linear(4 * size.width, size.width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        q, k = rotated(q, angles), rotated(k, angles)
        if cache is not None:
            k, v = cache.append(k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=t == k.shape[2])
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm(x))))


class SmallTransformer(nn.Module):
    """A decoder with rotary positions, pre-norm blocks and a head tied to the embedding, in float32 by default.

    Called with token ids (B, T) it gives hidden states (B, T, width), and `logits` of those gives (B, T, V). Two models
    of one size, seed and type are equal.

    Parameters
    ----------
    size : TransformerSize
    seed : int
        Draws the weights, all Gaussian.
    dtype : torch.dtype

    Raises
    ------
    ValueError
        When called with tokens that are no integers (B, T) in [0, V), or longer than there are `places`.

    Examples
    --------
    >>> import torch
    >>> from qunify.training import SmallTransformer, TransformerSize, pretrain
    >>> model = SmallTransformer(TransformerSize(vocab=8, width=16, layers=1, heads=2), seed=0)
    >>> counting = (torch.arange(8)[:, None] + torch.arange(6)) % 8  # from every number on
    >>> pretrain(model, [counting] * 60, lr=1e-2)
    >>> model.sample(torch.tensor([[5, 6]]), length=6, end=4)
    tensor([[5, 6, 7, 0, 1, 2]])
    """

    def __init__(self, size: TransformerSize, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(size.vocab, size.width)
        self.places = nn.Embedding(size.places, size.width) if size.places else None
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width)
        draw = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 2:  # the 2 · layers matrices that add to the residual stream start smaller
                writes = name.endswith(("out.weight", "down.weight"))
                fan_in = 1 / 0.02**2 if name.startswith(("embedding", "places")) else p.shape[1]
                nn.init.normal_(p, std=fan_in**-0.5 / ((2 * size.layers) ** 0.5 if writes else 1), generator=draw)
        self.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        self._check(tokens)
        return self._hidden(0, tokens, tokens.shape[1], [None] * len(self.blocks))

    def _check(self, tokens: Tensor) -> None:
        whole = tokens.dim() == 2 and tokens.dtype == torch.long and tokens.numel() > 0
        if not whole or not bool(((tokens >= 0) & (tokens < self.size.vocab)).all()):
            got = f"{tuple(tokens.shape)} of {tokens.dtype}"
            raise ValueError(f"SmallTransformer: tokens: expected integers (B, T) in [0, {self.size.vocab}), got {got}")
        if 0 < self.size.places < tokens.shape[1]:
            raise ValueError(
                f"SmallTransformer: tokens: expected at most {self.size.places} places, got {tokens.shape[1]}"
            )

    def _hidden(self, first: int, tokens: Tensor, length: int, caches: Sequence[KeyValueCache | None]) -> Tensor:
        """Hidden states of tokens (B, T) at positions `first`, `first` + 1, …, in a sequence of at most `length`."""
        at = slice(first, first + tokens.shape[1])
        x = self.embedding(tokens)
        if self.places is not None:
            x = x + self.places.weight[at]
        angles = rotary_angles(length, self.size.width // self.size.heads)[at].to(x)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, angles, cache)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of hidden states (…, width)."""
        return hidden @ self.embedding.weight.T

    @torch.no_grad()
    def sample(
        self,
        prompts: Tensor,
        length: int,
        end: int,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Continue prompts (B, P) to `length` tokens in all, (B, length).

        Parameters
        ----------
        prompts : Tensor of int, (B, P)
        length : int
        end : int
            The token that ends a text; the places after it are filled with it.
        generator : torch.Generator, optional
            Draws the tokens; without it, always the likeliest one.
        temperature : float
            Above 0; the logits are divided by it.

        Raises
        ------
        ValueError
            For a temperature that is not above 0.
        """
        if not temperature > 0:
            raise ValueError(f"sample: temperature: expected a number above 0, got {temperature}")
        self._check(prompts)
        caches = [KeyValueCache(length) for _ in self.blocks]
        tokens, new = prompts, prompts
        done = torch.zeros(len(prompts), dtype=torch.bool)
        while tokens.shape[1] < length and not bool(done.all()):
            hidden = self._hidden(tokens.shape[1] - new.shape[1], new, length, caches)
            p = (self.logits(hidden[:, -1]) / temperature).softmax(-1)
            drawn = p.argmax(-1) if generator is None else torch.multinomial(p, 1, generator=generator)[:, 0]
            done |= drawn == end
            new = drawn.masked_fill(done, end)[:, None]
            tokens = torch.cat([tokens, new], dim=1)
        return F.pad(tokens, (0, length - tokens.shape[1]), value=end)

    @torch.no_grad()
    def predictions(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Logits (N, V) for the N tokens that `at` (B, T) marks, each from what stands before it; without gradients.

        ValueError where the first token of a sequence is marked, before which nothing stands."""
        return self.logits(before(self(tokens), at))

    def snapshot(self) -> SmallTransformer:
        """A frozen copy."""
        return copy.deepcopy(self).requires_grad_(False)


@functools.cache
def rotary_angles(length: int, dim: int) -> Tensor:
    """The angles of rotary positions, (T, dim / 2), float64 (RoFormer, Su et al. 2021, arXiv:2104.09864)."""
    rates = ROPE_BASE ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.arange(length, dtype=torch.float64)[:, None] * rates


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """x (…, T, D) with entries i and i + D/2 rotated as a pair, by the angles (T, D / 2) of the position."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def before(x: Tensor, at: Tensor) -> Tensor:
    """The entries of x (B, T, …) one place before the tokens that `at` (B, T) marks, (N, …): they predict these tokens.

    The first token of a sequence has none before it and must not be marked.
    """
    if bool(at[:, 0].any()):
        raise ValueError("at: expected no mark on the first token, got one")
    return x[:, :-1][at[:, 1:]]


def pack_documents(documents: Sequence[Sequence[int]], count: int, length: int, seed: int) -> Tensor:
    """`count` windows (count, length) of token ids to pretrain on: the documents one after the other, cut wherever a
    window ends, in a new order each time round. ValueError where there is no token.

    >>> pack_documents([[1, 2, 3], [4, 5]], count=2, length=4, seed=0)
    tensor([[1, 2, 3, 4],
            [5, 4, 5, 1]])
    """
    if not any(len(document) for document in documents):
        raise ValueError("pack_documents: documents: expected at least one token, got none")
    draw = np.random.default_rng((seed, 1))
    orders = itertools.chain.from_iterable(draw.permutation(len(documents)) for _ in itertools.count())
    stream = itertools.chain.from_iterable(documents[i] for i in orders)
    return torch.tensor(list(itertools.islice(stream, count * length))).view(count, length)


def pretrain(model: SmallTransformer, batches: Sequence[Tensor], lr: float, muon: bool = True) -> None:
    """Train a model, in place, by plain next-token cross-entropy on every token of every batch but the first.

    Parameters
    ----------
    model : SmallTransformer
    batches : sequence of Tensor of int, each (B, T)
        One for each step.
    lr : float
        The highest learning rate: it rises for a twentieth of the steps, then falls to zero.
    muon : bool
        Muon for the blocks' matrices, at twice the rate, and Adam for the rest; else Adam alone, which learns less in a
        step and takes a fifth of the time.

    Raises
    ------
    ValueError
        If there is no batch, or the rate is not above 0.
    """
    if len(batches) == 0:
        raise ValueError("pretrain: batches: expected at least one, got none")
    if not 0 < lr < float("inf"):
        raise ValueError(f"pretrain: lr: expected a positive number, got {lr!r}")
    inner = [p for p in model.blocks.parameters() if p.ndim == 2] if muon else []
    outer = [p for p in model.parameters() if not any(p is other for other in inner)]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.Adam(outer, lr=lr)]
    if muon:
        optimisers.append(torch.optim.Muon(inner, lr=2 * lr, weight_decay=0.0))
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
