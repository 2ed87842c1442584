"""The Token of tensors: a batch of N positions, on which the body of a method runs as PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from qunify._lib.lazy import lazy
from qunify.token._base import Distribution, Token
from qunify.token._pools import Pool, Pooling
from qunify.token._projections import (
    RULED_OUT,
    below_peak,
    entmax_threshold,
    log_max,
    peak,
    softmax,
    sort,
    tempered_normaliser,
    tempered_powers,
    top_k,
)

T = TypeVar("T")

#: Entries of a block of rows, N · V: few enough that all vectors of a method fit in a CPU's cache.
BLOCK = 2**19

#: What a Token does to numbers one by one, whatever vocabulary they are from.
ELEMENTWISE = frozenset({"stop", "log", "exp", "where", "sign", "q_log", "log_add", "power", "maximum", "minimum"})


class TensorToken(Token):
    """A batch of N kept positions. Logits are (N, V) in float32 or float64; −inf rules a token out.

    `finite` promises that there is no −inf, in the contexts' logits neither: all are then used without a copy, and must
    not be changed while the token is in use. `pooling`, which is called only for methods that ask, says which rows are
    one sequence; by default all are. `statistics` has those that are known, (N, 1) each.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        context: Mapping[str, Tensor],
        method: str = "",
        finite: bool = False,
        pooling: Callable[[], Pooling] | None = None,
        statistics: Mapping[Pool, Tensor] | None = None,
    ) -> None:
        self._method = method
        self._pooling = pooling
        self.whole: tuple[TensorToken, slice | Tensor] | None = None  # the batch that this is a part of, and its rows
        self.statistics = dict(statistics or {})
        self._logits = logits
        self.given = context
        self.used: set[str] = set()  # contexts the method has asked for
        self._contexts: dict[str, Distribution] = {}
        self._memo: dict[Any, tuple[Any, Any]] = {}
        self.index = labels[:, None]  # (N, 1)
        self._finite = finite

    def blocks(self) -> Iterator[tuple[slice, TensorToken]]:
        """Pairs (rows, their token), block by block: on a CPU this is faster than all rows at once."""
        for at in blocks(self._logits):
            given = {name: value[at] for name, value in self.given.items()}
            block = TensorToken(self._logits[at], self.index[at, 0], given, self._method)
            block.whole = self, at
            yield at, block

    def pooled(self, pool: Pool) -> Tensor:
        if pool not in self.statistics:
            if self.whole is not None:
                batch, at = self.whole
                return batch.pooled(pool)[at]
            z = self._logits
            # Of logits without a graph, whatever is differentiated: values that tie must tie again.
            t = TensorToken(z.detach(), self.index[:, 0], self.given) if z.requires_grad else self
            parts = [block for _, block in t.blocks()] if z.numel() > BLOCK else [t]
            quantity = torch.cat([pool.of(part) for part in parts])
            pooling = Pooling.of_one(self.index) if self._pooling is None else self._pooling()
            self.statistics[pool] = pooling.combine(pool, quantity)
        return self.statistics[pool]

    # ---- what a method sees -------------------------------------------------------------------------
    @lazy
    def _all_allowed(self) -> bool:
        return self._finite or bool((self._logits.detach().amin(-1) > -torch.inf).all())

    @lazy
    def _peak(self) -> Tensor:
        return torch.zeros_like(self._logits[:, :1]) if self._finite else peak(self._logits)

    @lazy
    def _finite_logits(self) -> Tensor:
        return self._logits if self._finite else below_peak(self._logits)

    @lazy
    def allowed(self) -> Tensor:
        return self._logits.detach() > -torch.inf

    @property
    def _ruled_out(self) -> Tensor | None:
        return None if self._all_allowed else ~self.allowed

    # What is cached here must not hold the token itself: a cycle would keep a batch's memory until the next collection.
    @lazy
    def policy(self) -> Distribution:
        return self.softmax(self._finite_logits)

    @lazy
    def label(self) -> Distribution:
        like, index = self._finite_logits.detach(), self.index

        def one_hot() -> Tensor:
            return torch.zeros_like(like).scatter_(-1, index, 1.0)

        return Distribution(one_hot, lambda: RULED_OUT * (1 - one_hot()))

    @lazy
    def uniform(self) -> Distribution:
        logits, vocab = self._finite_logits, self.vocab
        if self._all_allowed:
            return Distribution(lambda: (1 / vocab).expand_as(logits), lambda: (-vocab.log()).expand_as(logits))
        allowed, support = self.allowed, self.support
        return Distribution(lambda: support / vocab, lambda: torch.where(allowed, -vocab.log(), RULED_OUT))

    @lazy
    def support(self) -> Tensor:
        if self._all_allowed:
            return self._finite_logits.new_ones(()).expand_as(self._finite_logits)
        return self.allowed.to(self._finite_logits.dtype)

    @lazy
    def vocab(self) -> Tensor:
        if self._all_allowed:
            return self._finite_logits.new_full((len(self._finite_logits), 1), self._finite_logits.shape[-1])
        return self.support.sum(-1, keepdim=True)

    @lazy
    def logits(self) -> Tensor:
        if self._finite:
            return self._finite_logits
        z = self._finite_logits + self._peak
        return z if self._all_allowed else torch.where(self.allowed, z, 0.0)

    @lazy
    def log_sum_exp(self) -> Tensor:
        return self.policy.log_normaliser + self._peak

    @lazy
    def log_p_label(self) -> Tensor:
        traced = self._finite_logits.requires_grad
        log_u = (
            self.at_label(self.policy.log)
            if traced
            else self.at_label(self._finite_logits) - self.policy.log_normaliser
        )
        # Near u = 1 the digits are in 1 − u. The clamp keeps the branch not taken from dividing by zero.
        return torch.where(log_u > -0.5, torch.log1p(-self.p_rest.clamp(max=0.5)), log_u)

    @lazy
    def p_label(self) -> Tensor:
        # Never exactly 0, so that ratios such as u / (γ + (1 − γ)u) keep their limit.
        return self.log_p_label.exp().clamp(min=torch.finfo(self._finite_logits.dtype).tiny)

    @lazy
    def log_p_rest(self) -> Tensor:
        rest = self._finite_logits.scatter(-1, self.index, RULED_OUT)
        return rest.logsumexp(-1, keepdim=True) - self.policy.log_normaliser

    @lazy
    def p_rest(self) -> Tensor:
        p = self.policy.probs
        if p.requires_grad:
            return p.scatter(-1, self.index, 0.0).sum(-1, keepdim=True)
        own = p.gather(-1, self.index)  # zeroed in place and put back: that saves a copy of (N, V)
        rest = p.scatter_(-1, self.index, 0.0).sum(-1, keepdim=True)
        p.scatter_(-1, self.index, own)
        return rest

    def context(self, name: str) -> Any:
        self.used.add(name)
        if name not in self.given:
            raise ValueError(f"{self._method}: missing context, expected the keyword argument {name}")
        value = self.given[name]
        if not name.endswith("_logits"):
            value = value.to(self._finite_logits.dtype)
            return value.nan_to_num(0.0) if name == "token_values" else value
        return self._given_distribution(name, value)

    def _given_distribution(self, name: str, logits: Tensor) -> Distribution:
        """The softmax of a context's logits over the tokens that the model allows; mass on other tokens is dropped."""
        if name not in self._contexts:
            self._contexts[name] = self.softmax(logits if self._finite else below_peak(logits))
        return self._contexts[name]

    @property
    def is_number(self) -> Tensor:
        self.context("token_values")
        return (~self.given["token_values"].isnan()).to(self._finite_logits.dtype)

    @property
    def teacher_logits(self) -> Tensor:
        self.context("teacher_logits")
        z = self.given["teacher_logits"]
        return z if self._finite else torch.where(self.allowed, z.clamp(min=RULED_OUT), 0.0)

    # ---- operations -----------------------------------------------------------------------------------
    def stop(self, x: Any) -> Any:
        if isinstance(x, Distribution):
            return Distribution(
                lambda: x.probs.detach(),
                lambda: x.log.detach(),
                lambda: x.logits.detach(),
                lambda _: self.stop(x.log_normaliser),
            )
        return x.detach() if isinstance(x, Tensor) else x

    def log(self, x: Any) -> Tensor:
        x = self._tensor(x)
        x = x.clamp(min=torch.finfo(x.dtype).tiny)
        return x.log() if x.requires_grad else x.log_()

    def exp(self, x: Tensor) -> Tensor:
        # Saturating: an overflow would turn 0 · ∞ into NaN one step later.
        return x.clamp(max=log_max(x.dtype)).exp_()

    def where(self, condition: Tensor, a: Any, b: Any) -> Tensor:
        return torch.where(condition, self._tensor(a), self._tensor(b))

    def _tensor(self, x: Any) -> Tensor:
        return (
            x
            if isinstance(x, Tensor)
            else torch.as_tensor(x, dtype=self._finite_logits.dtype, device=self._finite_logits.device)
        )

    def sum(self, v: Any) -> Tensor:
        v = self._tensor(v).expand_as(self._finite_logits)
        return (v if self._all_allowed else v * self.allowed).sum(-1, keepdim=True)

    def sum_others(self, v: Tensor) -> Tensor:
        peak = v.detach().abs().argmax(-1, keepdim=True)
        small = v.scatter(-1, peak, 0.0)
        rest = small.sum(-1, keepdim=True)
        return (rest + v.gather(-1, peak) - small).scatter_(-1, peak, rest)

    def at_label(self, v: Any) -> Tensor:
        return self._tensor(v).expand_as(self._finite_logits).gather(-1, self.index)

    def softmax(self, logits: Tensor) -> Distribution:
        if not self._all_allowed:  # exactly zero at ruled-out tokens, whatever was done to the logits
            logits = torch.where(self.allowed, logits, logits.detach().amax(-1, keepdim=True) + RULED_OUT)
        return softmax(logits)

    def tempered(self, d: Distribution, temperature: Any) -> Distribution:
        return self._memoised(super().tempered, d, temperature)

    def geometric(self, a: Distribution, b: Distribution, w: Any) -> Distribution:
        return self._memoised(super().geometric, a, b, w)

    def _memoised(self, make: Callable[..., T], *arguments: Any) -> T:
        """`make(*arguments)`, computed once for a method's loss and its pulls, and for methods that share the token. A
        compiler joins them by itself."""
        if torch.compiler.is_compiling():
            return make(*arguments)
        key = (make.__name__, *map(id, arguments))
        if key not in self._memo:  # keeps the arguments alive, so that no other object gets their ids
            self._memo[key] = arguments, make(*arguments)
        found: T = self._memo[key][1]
        return found

    def conditioned(self, d: Distribution, mask: Tensor) -> Distribution:
        return self.softmax(torch.add(d.logits, 1 - mask, alpha=2 * RULED_OUT))

    def without_label(self, d: Distribution) -> Distribution:
        return self.softmax(d.logits.scatter(-1, self.index, 2 * RULED_OUT))

    def softmax_vjp(self, c: Tensor) -> Tensor:
        weighted = self.policy.probs * c
        return weighted.addcmul_(self.policy.probs, self.sum(weighted), value=-1)

    def argmax(self, d: Distribution) -> Distribution:
        x = d.logits.detach()
        at_peak = torch.eq(x, x.amax(-1, keepdim=True), out=torch.empty_like(x))
        return self.distribution(at_peak.div_(at_peak.sum(-1, keepdim=True)))

    def in_top_k(self, d: Distribution, k: int) -> Tensor:
        return self._memoised(self._in_top_k, d, k)

    @staticmethod
    def _in_top_k(d: Distribution, k: int) -> Tensor:
        x = d.log.detach()
        if k >= x.shape[-1]:
            return torch.ones_like(x)
        least = top_k(x, k).amin(-1, keepdim=True)
        inside = torch.ge(x, least, out=torch.empty_like(x))
        if bool((inside.sum(-1) > k).any()):  # of those that tie for the last places, the first ones
            above, tied = x > least, x == least
            inside = (above | (tied & (tied.cumsum(-1) <= k - above.sum(-1, keepdim=True)))).to(x.dtype)
        return inside

    def top_k_entropy(self, d: Distribution, k: int) -> Tensor:
        largest = top_k(d.logits.detach(), k)  # of tokens that tie for the last places, any have the same
        log_p = largest - largest.logsumexp(-1, keepdim=True)
        return -(log_p.exp() * log_p).sum(-1, keepdim=True)

    def ranks(self, d: Distribution) -> Tensor:
        x = d.log.detach()
        rising, v = sort(x), x.shape[-1]
        above, as_likely = (v - torch.searchsorted(rising, x.contiguous(), right=right) for right in (True, False))
        return ((above + 1 + as_likely) / 2).to(x.dtype)

    def mean_rank(self, d: Distribution) -> Tensor:
        rising = sort(d.probs)  # of tokens that tie, any order has the same sum
        places = torch.arange(rising.shape[-1], 0, -1, dtype=rising.dtype, device=rising.device)
        return (rising * places).sum(-1, keepdim=True)

    def label_rank(self, d: Distribution) -> Tensor:
        x = d.log.detach()
        lead = (x - self.at_label(x)).sign_().sum(-1, keepdim=True)  # how many are likelier, less how many are not
        return (x.shape[-1] + 1 + lead) / 2

    def in_order_of(self, d: Distribution, by: Distribution) -> Tensor:
        places = by.log.detach().argsort(dim=-1, descending=True, stable=True)
        return torch.empty_like(d.probs).scatter_(-1, places, sort(d.probs).flip(-1))

    def top_p(self, d: Distribution, mass: float) -> Tensor:
        ordered = sort(d.probs).flip(-1)
        last = torch.searchsorted(ordered.cumsum(-1), torch.full_like(ordered[:, :1], mass))
        return (d.probs >= ordered.gather(-1, last.clamp(max=ordered.shape[-1] - 1))).to(d.probs.dtype)

    def sign(self, x: Tensor) -> Tensor:
        return x.sign()

    def q_log(self, log_x: Tensor, q: Any) -> Tensor:
        q = self._tensor(q)
        scaled = q * log_x
        safe = torch.where(q == 0, 1.0, q)
        return torch.where(q == 0, log_x, torch.expm1(scaled.clamp(max=log_max(log_x.dtype))) / safe)

    def log_add(self, log_x: Tensor, c: Any) -> Tensor:
        return torch.logaddexp(log_x, self._tensor(c).log().expand_as(log_x))

    def log1m(self, d: Distribution) -> Tensor:
        # At the mode, 1 − d is the sum of the others; elsewhere d ≤ ½ and nothing cancels.
        peak = d.log.detach().argmax(-1, keepdim=True)
        at_peak = d.log.scatter(-1, peak, 2 * RULED_OUT).logsumexp(-1, keepdim=True)
        return torch.log1p(-d.probs.scatter(-1, peak, 0.0)).scatter_(-1, peak, at_peak)

    def entmax(self, alpha: float) -> Distribution:
        logits = self._finite_logits.detach() * (alpha - 1)
        over = (logits - entmax_threshold(logits, 1 / (alpha - 1))).clamp_(min=0)
        return self.distribution(over if alpha == 2 else over.mul_(over))

    def tempered_softmax(self, t: float) -> Distribution:
        if t == 1:
            return self.policy
        shift = tempered_normaliser(self._finite_logits.detach(), self._ruled_out, t)
        _, probs = tempered_powers(self._finite_logits, self._ruled_out, shift, t)
        if probs.requires_grad:  # λ(z) was found without gradients; a Newton step at the root has its derivative
            slope = -probs.detach().pow(t).sum(-1, keepdim=True)
            excess = probs.sum(-1, keepdim=True) - 1
            _, probs = tempered_powers(self._finite_logits, self._ruled_out, shift - excess / slope, t)
        return self.distribution(probs)


class Rows(TensorToken):
    """Some rows of a larger batch, for one of the methods that share it: softmax and label probabilities are sliced
    from the batch's, not computed again. Nor are the attributes that `TensorToken.__init__` would compute."""

    def __init__(self, batch: TensorToken, at: slice | Tensor, method: str = "") -> None:
        self._batch, self._at, self._method = batch, at, method
        self._logits, self._peak, self._finite_logits = batch._logits[at], batch._peak[at], batch._finite_logits[at]
        self._finite, self._all_allowed = batch._finite, batch._all_allowed
        self.given = {name: value[at] for name, value in batch.given.items()}
        self.used, self._contexts, self._memo, self.index = set(), {}, {}, batch.index[at]
        self._pooling, self.whole, self.statistics = None, (batch, at), {}

    @lazy
    def policy(self) -> Distribution:
        return self._sliced(self._batch.policy)

    def _sliced(self, d: Distribution) -> Distribution:
        at = self._at
        return Distribution(
            lambda: d.probs[at], lambda: d.log[at], lambda: d.logits[at], lambda _: d.log_normaliser[at]
        )

    @lazy
    def log_p_rest(self) -> Tensor:
        return self._batch.log_p_rest[self._at]

    @lazy
    def p_rest(self) -> Tensor:
        return self._batch.p_rest[self._at]

    @lazy
    def log_p_label(self) -> Tensor:
        return self._batch.log_p_label[self._at]

    @lazy
    def p_label(self) -> Tensor:
        return self._batch.p_label[self._at]


def blocks(x: Tensor) -> Iterator[slice]:
    """Slices of the rows of x (N, V): on a CPU of at most BLOCK entries each, elsewhere one of all rows."""
    n, v = x.shape
    size = max(BLOCK // v, 1) if x.device.type == "cpu" else max(n, 1)
    if size < n:
        _keep_pages()
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@functools.cache
def _keep_pages() -> None:
    """Have glibc keep freed memory for the next block. By default large pieces go back to the system, and clearing new
    pages takes longer than the arithmetic on them. The size that counts as large (M_MMAP_THRESHOLD) rises to that of
    the largest piece freed so far: here, one of 31 MiB."""
    torch.empty(31 * 2**20, dtype=torch.uint8)
