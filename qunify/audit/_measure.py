"""What every method asks at every token of a batch, all of them at once.

A gate g = w (p − δ) takes a number per token: its push is |w| (1 − u). Only other methods take a pass over the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from qunify.maps import (
    Gate,
    Gated,
    LossFunctionMap,
    QMap,
    logit_gradient,
    rounding_of,
    rounding_of_zeros,
    target_rounding,
)
from qunify.token import ELEMENTWISE, Pool, Pooling, TensorToken, Token, blocks, read


@dataclass
class Asked:
    """What M methods ask at N tokens.

    Attributes
    ----------
    u : Tensor, (N,)
        The model's probability of the label.
    rank : Tensor of int, (N,)
        How many tokens the model thinks likelier, plus one.
    entropy : Tensor, (N,)
        Of the model's prediction, in nats.
    trust : Tensor, (M, N)
        γ in the unit gauge: the weight that pulls toward the label; NaN where a loss has no target, and where that of
        a loss function is no gate.
    push : Tensor, (M, N)
        ½ Σ_k |g_k|: how much probability a step asks to move.
    inside : Tensor of bool, (M, N)
        Whether the target is a distribution.
    gram : Tensor, (M, M), float64
        Inner products of the methods' gradients, summed over the tokens.
    """

    u: Tensor
    rank: Tensor
    entropy: Tensor
    trust: Tensor
    push: Tensor
    inside: Tensor
    gram: Tensor


def token_of(methods: Sequence[QMap], logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> TensorToken:
    needs = tuple(dict.fromkeys(name for m in methods for name in m.needs))
    return read("audit", needs, logits, labels, -100, context)[0]


def asked(methods: Sequence[QMap], logits: Tensor, labels: Tensor, context: Mapping[str, Tensor]) -> Asked:
    """For logits (N, V), labels (N,) and the contexts' logits, (N, V) each, of tokens of one demonstration."""
    asking = Asking(methods)
    asking.add(logits, labels, context)
    return asking.done(Pooling.of_one(labels))


class Numbers:
    """What is left of tokens whose logits are gone: numbers of the label, (N, 1) each, and statistics of its
    surroundings. A gate that looks at more is found out by its asking."""

    OF_LABEL = ("p_label", "log_p_label", "p_rest", "log_p_rest")

    def __init__(self, of_label: Mapping[str, Tensor], statistics: Mapping[Pool, Tensor]) -> None:
        self._of_label, self._statistics = of_label, statistics
        one = of_label["p_label"].new_zeros(1, 1)
        self._arithmetic = TensorToken(one, one[0].long(), {})
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name in self.OF_LABEL:
            self.read.add(name)
            return self._of_label[name]
        if name in ELEMENTWISE:
            return getattr(self._arithmetic, name)
        raise AttributeError(name)

    def pooled(self, pool: Pool) -> Tensor:
        return self._statistics[pool]

    def weight_of(self, m: Gate) -> Tensor:
        """At every token, (N,)."""
        return (torch.zeros_like(self._of_label["p_label"]) + m.weight(cast(Token, self)))[:, 0]


def numbers_read(m: QMap) -> set[str] | None:
    """Which numbers of the label a gate is made of; None for a method that looks at more."""
    if not isinstance(m, Gate):
        return None
    half = torch.full((1, 1), 0.5)
    numbers = Numbers(dict.fromkeys(Numbers.OF_LABEL, half), dict.fromkeys(m.pools, half))
    try:
        numbers.weight_of(m)
    except (AttributeError, TypeError):
        return None
    return numbers.read


class Asking:
    """What methods ask, of logits that are given part by part.

    Of a gate that is made of numbers of the label these are kept, and it is worked out when all are there, with what
    it takes from its surroundings. All other methods are asked while the logits are there.
    """

    def __init__(self, methods: Sequence[QMap]) -> None:
        read = [numbers_read(m) for m in methods]
        self.methods = methods
        self._later = [i for i, names in enumerate(read) if names is not None]
        self._now = [i for i, names in enumerate(read) if names is None]
        self._vectors = [i for i in self._now if not isinstance(methods[i], Gate)]
        self._names = sorted({"p_label", "log_p_label", "p_rest"}.union(*filter(None, read)))
        self._pools = list(dict.fromkeys(pool for i in self._later for pool in methods[i].pools))
        self._pooled = list(dict.fromkeys(pool.of for pool in self._pools))
        self._found: list[dict[str, Tensor]] = []
        self._gram: Tensor | float = 0.0

    @property
    def looking_ahead(self) -> list[QMap]:
        """The methods that are asked while the logits are there, and take something from the surroundings."""
        return [self.methods[i] for i in self._now if self.methods[i].pools]

    @torch.no_grad()
    def add(
        self, logits: Tensor, labels: Tensor, context: Mapping[str, Tensor],
        statistics: Mapping[Pool, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """Logits (n, V), labels (n,), the contexts' logits, (n, V) each, and what methods that look ahead take from
        their surroundings, (n, 1) each; without it, all are one demonstration."""
        t = token_of(self.methods, logits, labels, context)
        t.statistics |= statistics or {}
        rows = max(len(labels[at]) for at in blocks(logits))
        room = torch.empty(len(self._vectors) + 2, rows, logits.shape[-1], dtype=t.support.dtype, device=logits.device)
        self._found += (self._block(block, room[:, : len(block.index)]) for _, block in t.blocks())

    def _block(self, t: TensorToken, room: Tensor) -> dict[str, Tensor]:
        """`room` (K + 2, n, V) is for the gradients of the K methods that are no gates, for p − δ, and for what is
        worked out on the way: the same for every block."""
        p = t.policy.probs
        apart, spare = room[-2:]
        free, trust, push, inside = iter(room), [], [], []
        for i in self._now:
            m = self.methods[i]
            pulls = list(m.pulls(t))
            trust.append(_on_label(t, pulls))
            if isinstance(m, Gate):
                continue
            g = logit_gradient(t, pulls, out=next(free))
            if isinstance(m, LossFunctionMap):  # its one pull is a vector, which does not say what is the label's
                trust[-1] = _measured_trust(m, g, t)
            push.append(torch.abs(g, out=spare).sum(-1) / 2)
            inside.append(_inside(t, pulls, g, spare) if m.shift_invariant else torch.zeros_like(t.index[:, 0]).bool())
        apart.copy_(p).scatter_(-1, t.index, -t.p_rest)
        products = _products(room[:-1].transpose(0, 1))  # (n, K + 1, K + 1)
        self._gram = self._gram + products[:, :-1, :-1].double().sum(0)
        numbers = {
            "rank": 1 + torch.gt(p, t.at_label(p), out=spare).sum(-1),
            "entropy": t.entropy(t.policy)[:, 0],
            "largest": p.amax(-1).log(),
            "with_apart": products[:, :, -1].T,
        }
        lists = {"trust": trust, "push": push, "inside": inside}
        lists |= {"of_label": [getattr(t, name)[:, 0] for name in self._names]}
        lists |= {"pooled": [of(t)[:, 0] for of in self._pooled]}
        return numbers | {name: torch.stack(found) for name, found in lists.items() if found}

    @torch.no_grad()
    def done(self, pooling: Pooling) -> Asked:
        """What is asked at all tokens that were given, of which `pooling` says which are one demonstration."""
        found = {name: torch.cat([part[name] for part in self._found], dim=-1) for name in self._found[0]}
        of_label = {name: x[:, None] for name, x in zip(self._names, found["of_label"], strict=True)}
        pooled = dict(zip(self._pooled, found.get("pooled", ()), strict=True))
        numbers = Numbers(of_label, {pool: pooling.combine(pool, pooled[pool.of][:, None]) for pool in self._pools})
        u, rest = (of_label[name][:, 0] for name in ("p_label", "p_rest"))
        trust, push, weights = (u.new_zeros(len(self.methods), len(u)) for _ in range(3))
        inside = torch.zeros_like(trust, dtype=torch.bool)
        if self._now:
            trust[self._now] = found["trust"]
        if self._vectors:
            push[self._vectors], inside[self._vectors] = found["push"], found["inside"]
        for i, m in enumerate(self.methods):
            if i in self._later:
                trust[i] = numbers.weight_of(cast(Gate, m))
            if isinstance(m, Gate):
                weights[i], push[i] = trust[i], trust[i].abs() * rest
                inside[i] = _gate_inside(trust[i], u, rest, found["largest"])
            elif not m.shift_invariant:
                trust[i] = torch.nan
        return Asked(
            u=u,
            rank=found["rank"].long(),
            entropy=found["entropy"],
            trust=trust,
            push=push,
            inside=inside,
            gram=self._products(weights.double(), found["with_apart"].double()),
        )

    def _products(self, weights: Tensor, with_apart: Tensor) -> Tensor:
        """Inner products of all gradients, (M, M). That of two gates is Σ_n w v |p − δ|², that of a gate and a gradient
        g is Σ_n w (p − δ)·g; `weights` (M, N) are 0 for methods that are no gates."""
        gram = (weights * with_apart[-1]) @ weights.T
        if self._vectors:
            rows = torch.tensor(self._vectors, device=gram.device)
            cross = with_apart[:-1] @ weights.T  # (K, M)
            gram[rows, :] += cross
            gram[:, rows] += cross.T
            gram[rows[:, None], rows] = self._gram
        return gram


def _on_label(t: TensorToken, pulls: Sequence[Any]) -> Tensor:
    """The sum of the weights that pull toward the label, (N,)."""
    total = torch.zeros_like(t.p_label)
    for pull in pulls:
        if isinstance(pull, tuple) and pull[1] is t.label:
            total = total + pull[0]
    return total[:, 0]


def _measured_trust(m: LossFunctionMap, g: Tensor, t: TensorToken) -> Tensor:
    """The weight w of a function's gradients g (N, V) where they are w (p − δ), NaN elsewhere, (N,)."""
    p = t.policy.probs
    narrow = max(m.calling.rounding, g.dtype, key=lambda x: torch.finfo(x).eps)
    gate = Gated.of(g, p, t.index, rounding_of_zeros(g, narrow, p))
    return gate.weight.where(gate.holds, torch.nan)[:, 0]


def _inside(t: TensorToken, pulls: Sequence[Any], g: Tensor, spare: Tensor) -> Tensor:
    """Whether the target p − g is a distribution up to rounding, (N,), as `in_simplex` has it of `Pulled`: what
    rounding may have done is worked out for the lowest entry, and only where it may have made that negative for all
    that are. `spare` is as large as g, and is written to."""
    if all(isinstance(pull, tuple) for pull in pulls):
        weights = torch.stack([torch.as_tensor(pull[0]).expand_as(t.p_label) for pull in pulls])
        if bool((weights >= 0).all() & (weights.sum(0) <= 1).all()):
            return torch.ones_like(t.p_label[:, 0], dtype=torch.bool)  # a mixture of p and what is pulled toward
    p = t.policy.probs
    # Beyond what rounding does to p alone; where this is negative, it is at least as large as p − g.
    q = torch.sub(p, g, alpha=1 - rounding_of(p), out=spare)
    lowest = _lowest(q)
    inside = q.gather(-1, lowest)[:, 0] >= 0
    rows = (~inside).nonzero()[:, 0]
    rows = rows[~_beyond_rounding(t, pulls, g, (rows, lowest[rows, 0]))]
    inside[rows] = True
    if len(rows):
        at, k = (q[rows] < 0).nonzero().T
        at = rows[at]
        inside[at[_beyond_rounding(t, pulls, g, (at, k))]] = False
    return inside


def _lowest(x: Tensor) -> Tensor:
    """Where the lowest entry of every row of x (N, V) is, (N, 1). On a CPU NumPy 2.4's argmin takes a tenth of the time
    of torch 2.13's."""
    if x.device.type == "cpu":
        return torch.from_numpy(x.numpy().argmin(-1, keepdims=True))
    return x.argmin(-1, keepdim=True)


def _beyond_rounding(t: TensorToken, pulls: Sequence[Any], g: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    """Whether entries of the target p − g are negative by more than rounding."""
    return t.policy.probs[at] - g[at] < -_rounding(t, pulls, at)


def _rounding(t: TensorToken, pulls: Sequence[Any], at: tuple[Tensor, ...]) -> Tensor:
    """How far rounding may have moved entries of the target; `at` are their rows and tokens."""
    p = t.policy.probs[at]
    magnitude = torch.zeros_like(p)  # Σ |w| (p + D) + |v|
    for pull in pulls:
        if isinstance(pull, tuple):
            weight = torch.as_tensor(pull[0], dtype=p.dtype, device=p.device).expand_as(t.p_label)
            magnitude += weight[at[0], 0].abs() * (p + pull[1].probs[at])
        else:
            magnitude += pull[at].abs()
    return target_rounding(p, magnitude, 1 - t.policy.log[at])


def _gate_inside(weight: Tensor, u: Tensor, rest: Tensor, largest: Tensor) -> Tensor:
    """Whether a gate's target, (1 − w) p + w δ, is a distribution up to rounding, as `in_simplex` has it: no entry
    beside the label may be negative, of which the largest has most digits, nor the label's."""
    eps = rounding_of(u)
    beside = (rest == 0) | (1 - weight >= -eps * (1 + weight.abs()) * (1 - largest))
    return beside & (u + weight * rest >= -eps * (u + weight.abs() * (1 + u)) * (1 - u.log()))


def _products(x: Tensor) -> Tensor:
    """x xᵀ for x (N, K, V), (N, K, K): of a symmetric matrix half is worked out."""
    found = x.new_zeros(len(x), x.shape[1], x.shape[1])
    for i in range(0, x.shape[1], 16):
        found[:, i:, i : i + 16] = torch.bmm(x[:, i:], x[:, i : i + 16].mT)
    return found.tril() + found.tril(-1).mT
