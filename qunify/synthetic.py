"""Distributions whose truth is known: what a model trained on their samples ought to believe, exactly.

A `Population` is a set of contexts, each with the distribution of its next token. Builders add what real
demonstrations suffer from, one at a time: several right answers (`ambiguous`), wrong labels (`relabelled`), a
pretrained model that believes something else (`Population.believing`). `HiddenMarkov` makes whole sequences. Everything
is float64 and seeded; nothing is read or downloaded. A seed is one stream of random numbers: give what should be
independent, such as a world and its samples, seeds of their own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Noise = Literal["uniform", "class", "annotator"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Observed tokens.

    Attributes
    ----------
    contexts, labels : Tensor of int, (N,)
        Which context a token was seen in, and the token seen.
    clean : Tensor of bool, (N,)
        Whether the label was drawn from the truth; the others from the noise, even where it hit the same token.
    """

    contexts: Tensor
    labels: Tensor
    clean: Tensor


@dataclass(frozen=True, eq=False)
class Population:
    """S contexts over V tokens with known conditional truths.

    Attributes
    ----------
    truth : Tensor, (S, V)
        The distribution of clean labels.
    valid : Tensor of bool, (S, V)
        The continuations that count as right.
    noise : Tensor, (S, V)
        The distribution of labels that are not drawn from the truth.
    rate : float
        The share of those.
    prior : Tensor or None, (S, V)
        What a pretrained model believes.
    """

    truth: Tensor
    valid: Tensor
    noise: Tensor
    rate: float = 0.0
    prior: Tensor | None = None

    def __post_init__(self) -> None:
        """ValueError unless every row is a distribution, shapes agree and the rate is a share."""
        for name, p in (("truth", self.truth), ("noise", self.noise), ("prior", self.prior)):
            if p is None:
                continue
            if p.shape != self.truth.shape or p.dim() != 2:
                raise ValueError(
                    f"Population: {name}: expected shape (S, V), that of truth {tuple(self.truth.shape)}, got "
                    f"{tuple(p.shape)}"
                )
            total = p.sum(-1)
            if not bool((p >= 0).all()) or not bool(((total - 1).abs() < 1e-5).all()):
                raise ValueError(
                    f"Population: {name}: expected probabilities that sum to 1 in every row, got sums from "
                    f"{float(total.min()):g} to {float(total.max()):g} and a least entry of {float(p.min()):g}"
                )
        if self.valid.shape != self.truth.shape or self.valid.dtype != torch.bool:
            raise ValueError(f"Population: valid: expected booleans of shape {tuple(self.truth.shape)}")
        _share("Population", "rate", self.rate)

    @property
    def observed(self) -> Tensor:
        """The distribution labels are drawn from, noise included, (S, V)."""
        return (1 - self.rate) * self.truth + self.rate * self.noise

    def sample(self, per_context: int, seed: int) -> Sample:
        """`per_context` labels for each context, in a random order."""
        _whole("Population.sample", "per_context", per_context, least=1)
        g = torch.Generator().manual_seed(seed)
        s = len(self.truth)
        right, wrong = (
            torch.multinomial(d, per_context, replacement=True, generator=g) for d in (self.truth, self.noise)
        )
        clean = torch.rand(s, per_context, generator=g, dtype=torch.float64) >= self.rate
        labels = torch.where(clean, right, wrong)
        order = torch.randperm(s * per_context, generator=g)
        contexts = torch.arange(s).repeat_interleave(per_context)
        return Sample(contexts[order], labels.flatten()[order], clean.flatten()[order])

    def believing(self, strength: float, rightness: float, seed: int) -> Population:
        """The same with a pretrained model: it puts `strength` on what it believes and the rest evenly on all tokens.

        At a share `rightness` of the contexts it believes the truth; at the others the truth of the tokens moved
        round by one to V − 1 places, so that it is as sure, and wrong.
        """
        method = "Population.believing"
        _share(method, "strength", strength, open_end=True)
        _share(method, "rightness", rightness)
        g = torch.Generator().manual_seed(seed)
        s, v = self.truth.shape
        wrong = torch.ones(s, dtype=torch.bool)
        wrong[torch.randperm(s, generator=g)[: round(rightness * s)]] = False
        moved = self.truth.gather(-1, _turned(s, v, g))
        belief = torch.where(wrong[:, None], moved, self.truth)
        return dataclasses.replace(self, prior=strength * belief + (1 - strength) / v)


def ambiguous(contexts: int, vocab: int, valid: int, *, exponent: float = 1.0, seed: int = 0) -> Population:
    """Every context has `valid` right continuations, the r-th likeliest with probability ∝ r^(−exponent) (Zipf).

    Which tokens they are is drawn per context. Without noise.
    """
    method = "ambiguous"
    _whole(method, "contexts", contexts, least=1)
    _whole(method, "vocab", vocab, least=2)
    _whole(method, "valid", valid, least=1, most=vocab)
    g = torch.Generator().manual_seed(seed)
    rank = torch.rand(contexts, vocab, generator=g, dtype=torch.float64).argsort(-1).argsort(-1)
    weight = (rank + 1.0).to(torch.float64) ** -exponent
    right = rank < valid
    truth = torch.where(right, weight, 0.0)
    truth = truth / truth.sum(-1, keepdim=True)
    return Population(truth, right, noise=torch.full_like(truth, 1 / vocab))


def relabelled(population: Population, rate: float, kind: Noise = "uniform", *, seed: int = 0) -> Population:
    """The same contexts with a share `rate` of the labels replaced.

    Kinds
    -----
    uniform
        By any token, evenly: the noise says nothing.
    class
        By the partner of the token that the truth would have given (one fixed permutation without fixed points for all
        contexts), as when two classes look alike.
    annotator
        By the one wrong token that an annotator believes right in this context, drawn among the invalid ones.
    """
    method = "relabelled"
    _share(method, "rate", rate)
    truth, (s, v) = population.truth, population.truth.shape
    g = torch.Generator().manual_seed(seed)
    if kind == "uniform":
        noise = torch.full_like(truth, 1 / v)
    elif kind == "class":
        cycle = torch.randperm(v, generator=g)
        partner = torch.empty_like(cycle)
        partner[cycle] = cycle.roll(1)
        noise = torch.zeros_like(truth).index_add(1, partner, truth)
    elif kind == "annotator":
        if bool(population.valid.all(-1).any()):
            raise ValueError(f"{method}: kind 'annotator': expected an invalid token in every context, got none in one")
        wrong = torch.rand(s, v, generator=g, dtype=torch.float64).masked_fill(population.valid, -1).argmax(-1)
        noise = torch.nn.functional.one_hot(wrong, v).to(truth.dtype)
    else:
        raise ValueError(f"{method}: kind: expected uniform, class or annotator, got {kind!r}")
    return dataclasses.replace(population, noise=noise, rate=float(rate))


@dataclass(frozen=True, eq=False)
class Blobs:
    """Classes that are Gaussian clouds of unit variance, so that P(class | x) is known exactly: a softmax of x.

    Attributes
    ----------
    centres : Tensor, (V, D)
    """

    centres: Tensor

    @classmethod
    def random(cls, classes: int, features: int, *, separation: float = 2.0, seed: int = 0) -> Blobs:
        """Centres drawn from a Gaussian of standard deviation `separation` / √2 in each feature."""
        _whole("Blobs.random", "classes", classes, least=2)
        _whole("Blobs.random", "features", features, least=1)
        g = torch.Generator().manual_seed(seed)
        return cls(separation / 2**0.5 * torch.randn(classes, features, generator=g, dtype=torch.float64))

    def sample(self, n: int, seed: int) -> tuple[Tensor, Population]:
        """Features (n, D), and the n contexts they make, every class alike likely; the likeliest class is valid."""
        _whole("Blobs.sample", "n", n, least=1)
        g = torch.Generator().manual_seed(seed)
        v, d = self.centres.shape
        where = torch.randint(v, (n,), generator=g)
        x = self.centres[where] + torch.randn(n, d, generator=g, dtype=torch.float64)
        truth = torch.softmax(x @ self.centres.T - self.centres.square().sum(-1) / 2, -1)
        best = torch.nn.functional.one_hot(truth.argmax(-1), v).bool()
        return x, Population(truth, best, noise=torch.full_like(truth, 1 / v))


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """Sequences from a hidden Markov chain: hidden states move by `transition` and each emits a token.

    Attributes
    ----------
    initial : Tensor, (H,)
    transition : Tensor, (H, H)
        Row i: where state i goes.
    emission : Tensor, (H, V)
        Row i: what state i emits.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor

    def __post_init__(self) -> None:
        """ValueError unless all are distributions over the same hidden states."""
        h = self.initial.shape[-1]
        shapes = tuple(self.initial.shape), tuple(self.transition.shape), tuple(self.emission.shape)
        if self.initial.dim() != 1 or shapes[1] != (h, h) or self.emission.dim() != 2 or shapes[2][0] != h:
            raise ValueError(f"HiddenMarkov: expected shapes (H,), (H, H) and (H, V), got {shapes}")
        for name, p in (("initial", self.initial), ("transition", self.transition), ("emission", self.emission)):
            if not bool((p >= 0).all()) or not bool(((p.sum(-1) - 1).abs() < 1e-5).all()):
                raise ValueError(f"HiddenMarkov: {name}: expected probabilities that sum to 1 in every row")

    @classmethod
    def random(
        cls, states: int, vocab: int, *, persistence: float = 0.6, exponent: float = 1.5, seed: int = 0
    ) -> HiddenMarkov:
        """A state stays with probability `persistence`, else moves by Dirichlet(½) weights to any; it emits the tokens
        in an order of its own, the r-th with probability ∝ r^(−exponent)."""
        method = "HiddenMarkov.random"
        _whole(method, "states", states, least=1)
        _whole(method, "vocab", vocab, least=2)
        _share(method, "persistence", persistence)
        g = torch.Generator().manual_seed(seed)
        # Dirichlet(½): squares of Gaussians over their sum.
        move = torch.randn(states, states, generator=g, dtype=torch.float64).square()
        transition = persistence * torch.eye(states, dtype=torch.float64) + (1 - persistence) * _normal(move)
        rank = torch.rand(states, vocab, generator=g, dtype=torch.float64).argsort(-1).argsort(-1) + 1.0
        emission = _normal(rank.to(torch.float64) ** -exponent)
        return cls(torch.full((states,), 1 / states, dtype=torch.float64), transition, emission)

    def sample(self, n: int, length: int, seed: int) -> Tensor:
        """Tokens (n, length)."""
        _whole("HiddenMarkov.sample", "n", n, least=1)
        _whole("HiddenMarkov.sample", "length", length, least=1)
        g = torch.Generator().manual_seed(seed)
        tokens = torch.empty(n, length, dtype=torch.long)
        state = torch.multinomial(self.initial.expand(n, -1), 1, generator=g)[:, 0]
        for i in range(length):
            tokens[:, i] = torch.multinomial(self.emission[state], 1, generator=g)[:, 0]
            state = torch.multinomial(self.transition[state], 1, generator=g)[:, 0]
        return tokens

    def next_token(self, tokens: Tensor) -> Tensor:
        """The exact distribution of every token given those before it, (…, length) to (…, length, V).

        By the forward recursion: the belief over the hidden state is moved on and emits; the token seen corrects it.
        """
        v = self.emission.shape[1]
        if tokens.is_floating_point() or not bool(((tokens >= 0) & (tokens < v)).all()):
            got = f"{tokens.min():g} to {tokens.max():g}"
            raise ValueError(f"HiddenMarkov.next_token: tokens: expected integers in [0, {v}), got {got}")
        belief = self.initial.expand(*tokens.shape[:-1], -1)
        predictions = []
        for i in range(tokens.shape[-1]):
            predictions.append(belief @ self.emission)
            seen = belief * self.emission.T[tokens[..., i]]
            belief = _normal(seen) @ self.transition
        return torch.stack(predictions, -2)

    def corrupted(self, tokens: Tensor, rate: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The same demonstrations with a share `rate` of whole sequences replaced: tokens, and which are clean (n,).

        A corrupted sequence comes from the same chain with its emissions permuted: fluent, and wrong from end to end.
        """
        _share("HiddenMarkov.corrupted", "rate", rate)
        g = torch.Generator().manual_seed(seed)
        g.manual_seed(
            int(torch.randint(2**62, (), generator=g))
        )  # a stream of its own, also where tokens had this seed
        n, length = tokens.shape
        permuted = self.emission[:, torch.randperm(self.emission.shape[1], generator=g)]
        wrong = dataclasses.replace(self, emission=permuted).sample(
            n, length, int(torch.randint(2**62, (), generator=g))
        )
        clean = torch.rand(n, generator=g, dtype=torch.float64) >= rate
        return torch.where(clean[:, None], tokens, wrong), clean


def _normal(x: Tensor) -> Tensor:
    return x / x.sum(-1, keepdim=True)


def _turned(s: int, v: int, g: torch.Generator) -> Tensor:
    """For each context the tokens moved round by 1 to V − 1 places, (S, V)."""
    places = torch.randint(1, v, (s, 1), generator=g)
    return (torch.arange(v) + places) % v


def _share(method: str, argument: str, value: float, open_end: bool = False) -> None:
    if not (0 <= value <= 1 and not (open_end and value == 1)):
        raise ValueError(f"{method}: {argument}: expected a number in [0, 1{')' if open_end else ']'}, got {value!r}")


def _whole(method: str, argument: str, value: int, *, least: int, most: int | None = None) -> None:
    if not (isinstance(value, int) and least <= value and (most is None or value <= most)):
        wanted = f"an integer of at least {least}" + (f" and at most {most}" if most is not None else "")
        raise ValueError(f"{method}: {argument}: expected {wanted}, got {value!r}")
