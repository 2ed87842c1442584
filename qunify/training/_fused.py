"""The loss of a method from hidden states and the head's weight, without ever holding all logits.

Rows go through the head in chunks. The logits of a chunk (c, V) are written to one buffer that all chunks share, and
there replaced by their gradient, block by block of a few rows, so that a method's intermediate vectors stay in a CPU's
cache. The gradient is then multiplied into the gradients of hidden states and weight, and the buffer is free again.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from qunify import catalogue
from qunify._lib.tolerances import LISTED_MASS
from qunify.maps import LossFunction, LossFunctionMap, Method, QMap, check_losses, logit_gradient, loss_arguments
from qunify.token import (
    CONTEXTS,
    PER_TOKEN,
    SHARED,
    Layout,
    Pool,
    Pooling,
    TensorToken,
    as_tensor,
    blocks,
    checked_logits,
    checked_number,
    pooling_of,
    raised,
)
from qunify.training._huge_pages import empty
from qunify.training._module import Reduction, checked_reduction, denominator, refuse_second_derivatives

_TRITON = importlib.util.find_spec("triton") is not None

#: Contexts that other models give → the keyword of `linear_loss` for each.
KEYWORDS = {
    "reference_logits": "reference",
    "teacher_logits": "teacher",
    "old_logits": "old",
    "teacher_base_logits": "teacher_base",
}

#: Rows per chunk, unless the caller says otherwise: fewer lose matrix-product speed, more cost memory.
CHUNK = 512

#: Share of a chunk's rows whose gradient must be zero for it to be worth leaving them out of the products.
FEWEST_SILENT = 0.05

#: Rows on which a loss function is tried for tokens that interact: few, for it is done at every call.
TRIED = 4
#: Relative difference of a token's losses from which it is not rounding, in half precision neither.
INTERACTS = 0.02


@dataclass(frozen=True, eq=False)
class TopK:
    """A distribution given by its most likely tokens, as the recorded answers of a teacher are.

    Attributes
    ----------
    values : Tensor, (…, K)
        Log-probabilities, nats. −inf fills up a list that is shorter than K.
    indices : Tensor of int, (…, K)
        The tokens they belong to, all different; beside a −inf any number may stand.
    tail : {"bucket", "renormalise"}
        Where the mass that is not listed goes: evenly to all other tokens, or to the listed ones in proportion.
    """

    values: Tensor
    indices: Tensor
    tail: Literal["bucket", "renormalise"] = "bucket"

    def __post_init__(self) -> None:
        if self.tail not in ("bucket", "renormalise"):
            raise ValueError(f"TopK: tail: expected 'bucket' or 'renormalise', got {self.tail!r}")
        if not self.values.is_floating_point() or self.indices.is_floating_point():
            got = f"{self.values.dtype} and {self.indices.dtype}"
            raise ValueError(f"TopK: expected values of floating point and integer indices, got {got}")

    def _at(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.values.detach().flatten(0, -2)[rows].to(dtype), self.indices.flatten(0, -2)[rows].long()

    def check(self, method: str, name: str, rows: Tensor, vocab: int) -> None:
        """ValueError unless at `rows` (n,) of the flattened positions stand log-probabilities of different tokens."""
        values, tokens = self._at(rows, torch.float32)
        if not len(rows):
            return
        checked_logits(method, name, values, values.dtype)
        listed, mass = values > -torch.inf, values.exp().sum(-1).max().item()
        if mass > 1 + LISTED_MASS:
            raise ValueError(f"{method}: {name}: expected log-probabilities that add up to at most 1, got {mass:.4g}")
        outside = listed & ((tokens < 0) | (tokens >= vocab))
        if bool(outside.any()):
            got = int(tokens[outside][0])
            raise ValueError(f"{method}: {name}: expected indices in [0, {vocab}), got {got}")
        unlisted = -1 - torch.arange(tokens.shape[-1], device=tokens.device)  # each different
        ordered = torch.where(listed, tokens, unlisted).sort(-1).values
        twice = ordered[:, 1:] == ordered[:, :-1]
        if bool(twice.any()):
            got = int(ordered[:, 1:][twice][0])
            raise ValueError(f"{method}: {name}: expected different indices in every row, got {got} twice")

    def fewest(self, rows: Tensor) -> int:
        """How many tokens are listed at that one of `rows` (n,) where they are fewest."""
        return int((self._at(rows, torch.float32)[0] > -torch.inf).sum(-1).min())

    def logits(self, rows: Tensor, vocab: int, dtype: torch.dtype) -> Tensor:
        """Logits over the whole vocabulary, (n, vocab), at `rows` (n,) of the flattened positions."""
        values, tokens = self._at(rows, dtype)
        listed, mass = values > -torch.inf, values.exp().sum(-1, keepdim=True)
        others = vocab - listed.sum(-1, keepdim=True)
        # Where the list adds up to 1, as rounding may have it, the others are all but impossible, and no more: an
        # infinity would be all that methods see which take the model's mean of the teacher's logarithms.
        left = (1 - mass).clamp(min=max(torch.finfo(dtype).eps, _eps(self.values)))
        rest = left.log() - others.clamp(min=1).log()
        if self.tail == "renormalise":
            rest.fill_(-torch.inf)
        rest.masked_fill_(others == 0, -torch.inf)
        likeliest = values.argmax(-1, keepdim=True)  # what fills up a list says once more what stands there
        tokens = torch.where(listed, tokens, tokens.gather(-1, likeliest))
        values = torch.where(listed, values, values.gather(-1, likeliest))
        return rest.expand(-1, vocab).scatter(-1, tokens, values)


def _eps(values: Tensor) -> float:
    """The rounding of a number near 1; of half precision, in which only what was given is kept, that of float32."""
    return float(torch.finfo(torch.promote_types(values.dtype, torch.float32)).eps)


#: What the rows' sequences and batch have in common: (n, 1) for each.
Statistics = Mapping[Pool, Tensor]

#: A context: logits (…, V) or (V,); hidden states and the head that reads them, with or without a bias; or a TopK.
Source = Tensor | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None] | TopK


# How many rows are kept depends on the labels' values, unknown to a compiled graph: torch.compile breaks it here.
@torch.compiler.disable
def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    method: Method,
    *,
    bias: Tensor | None = None,
    reduction: Reduction = "mean",
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    chunk_size: int | None = None,
    reference: Source | None = None,
    teacher: Source | None = None,
    old: Source | None = None,
    teacher_base: Source | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    sequence_ids: Tensor | None = None,
    **context: Any,
) -> Tensor:
    """What `qunify.loss` gives for the logits `hidden @ weight.T + bias`, and its gradients, chunk by chunk.

    On an accelerator with Triton, what a method does to a chunk is compiled into one kernel when first used;
    `torch.compiler.set_stance("force_eager")` turns that off.

    Parameters
    ----------
    hidden : Tensor, (…, d)
    weight : Tensor, (V, d)
    labels : Tensor of int, (…)
        Not shifted here.
    method : str, QMap or function
        An id, any QMap, or a Python loss `(logits, labels, **context)` giving one loss per token, which is then
        differentiated chunk by chunk, so that a token's loss must not depend on others.
    bias : Tensor, (V,), optional
    reduction, num_items_in_batch, ignore_index
        As for `qunify.loss`.
    chunk_size : int, optional
        Rows that go through the head together.
    reference, teacher, old, teacher_base
        What the method needs of other models: logits, hidden states with their head's weight (and bias), or a `TopK`.
        A head's logits are scaled and capped like the model's own. They are constants.
    logit_scale, softcap : float, optional
        logits = softcap · tanh(logit_scale · (hidden @ weight.T + bias) / softcap), without the tanh by default.
    sequence_ids : Tensor of int, (…), optional
        Which positions are one sequence, for a method that looks beyond the position; by default those along the last
        dimension. Such a method goes through the head once more, for what its sequences have in common; what it takes
        from the batch is of this call's.
    **context
        Other contexts by their usual names, (…) or (…, V); of priors and numbers one, (V,), may be for all.

    Raises
    ------
    ValueError
        For shapes that do not fit, labels outside [0, V), an unknown or missing context, numbers out of range, NaN or
        infinity in what is computed with, a function in which tokens interact.
    RuntimeError
        In the backward pass, for what has changed since, and where the gradient is to be differentiated again.
    """
    qmap = catalogue.as_method(method, "linear_loss")
    m, run = (None, qmap.function) if isinstance(qmap, LossFunctionMap) else (qmap, qmap)
    name = qmap.name
    _check_shapes(name, hidden, weight, bias, labels)
    labels = labels.long()
    checked_reduction(reduction, name)
    if chunk_size is not None and not (isinstance(chunk_size, int) and chunk_size >= 1):
        raise ValueError(f"{name}: chunk_size: expected an integer of at least 1, got {chunk_size!r}")
    for what, number in (("logit_scale", logit_scale), ("softcap", softcap)):
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{name}: {what}: expected a positive number, got {number!r}")
    models = dict(zip(KEYWORDS, (reference, teacher, old, teacher_base), strict=True))
    sources = _sources(name, m, {k: v for k, v in models.items() if v is not None} | context, labels, len(weight))
    kept = labels.flatten() != ignore_index
    rows = kept.nonzero()[:, 0]
    head = _Head.of(weight, bias, logit_scale, softcap, torch.promote_types(hidden.dtype, torch.float32))
    others = {k: head.like(*source) for k, source in sources.items() if isinstance(source, tuple)}
    given = {k: source for k, source in sources.items() if not isinstance(source, tuple)}
    pooling = pooling_of(name, sequence_ids, Layout(labels != ignore_index)) if qmap.pools else None
    chunk = chunk_size or CHUNK
    plan = _Plan(name, run, head, labels.flatten()[rows], rows, given, others, chunk, labels.shape, pooling)
    if len(rows) and not bool(((plan.labels >= 0) & (plan.labels < head.vocab)).all()):
        wrong = plan.labels[(plan.labels < 0) | (plan.labels >= head.vocab)][0]
        raise ValueError(
            f"{name}: labels: expected values in [0, {head.vocab}) or ignore_index={ignore_index}, got {int(wrong)}"
        )
    for key, source in given.items():
        if isinstance(source, TopK):
            source.check(name, key, rows, head.vocab)
            least = qmap.teacher_tokens(head.vocab) if key == "teacher_logits" else 1
            if least > 1 and len(rows) and (got := source.fewest(rows)) < least:
                told = qmap.told_of_teacher(head.vocab)
                raise ValueError(f"{name}: {key}: expected {told}, got {got} log-probabilities")
    scale = None if reduction == "none" else 1 / denominator(name, reduction, kept, num_items_in_batch).item()
    weighs = sources.get(qmap.weighed_by)
    if isinstance(weighs, Tensor):  # a token that does not count need not go through the head, and is a number even so
        live = weighs.flatten()[rows] != 0
        checked_number(name, "hidden", _kept(hidden, rows[~live]), hidden.dtype)
        plan = plan.only(live)
    if not torch.is_grad_enabled():  # or the gradients of all parameters would be computed in vain
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    with torch.autocast(hidden.device.type, enabled=False):
        if m is None:
            plan.refuse_interaction(_kept(hidden, plan.rows[:TRIED]))
        loss: Tensor = _FusedLoss.apply(hidden, weight, bias, plan, scale)
    return loss


def logits_of(product: Tensor, bias: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """The logits (…, V) that a head makes of the product of hidden states and weight: bias, scale and cap."""
    z = product if bias is None else product + bias
    if scale != 1:
        z = z * scale
    return z if softcap is None else (z / softcap).tanh_().mul_(softcap)


@dataclass(frozen=True, eq=False)
class _Head:
    """A head, from hidden states to logits, in the working precision. Its weights are constants to autograd."""

    weight: Tensor  # (V, d)
    bias: Tensor | None
    scale: float
    softcap: float | None
    dtype: torch.dtype
    rules_out: bool  # whether a bias of −inf rules out some tokens

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None, dtype: torch.dtype) -> _Head:
        """The head with its weight cast once: to autocast's type, or on a CPU, which multiplies half precision up to a
        hundred times more slowly, to `dtype`."""
        kind = weight.device.type
        products = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        bias = None if bias is None else bias.detach().to(dtype)
        rules_out = bias is not None and bool((bias == -torch.inf).any())
        return cls(weight.detach().to(dtype if kind == "cpu" else products), bias, scale, softcap, dtype, rules_out)

    def like(self, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, _Head]:
        """Another model's hidden states, flattened, and its head, scaled and capped as this one."""
        return hidden.detach().flatten(0, -2), _Head.of(weight, bias, self.scale, self.softcap, self.dtype)

    @property
    def vocab(self) -> int:
        return self.weight.shape[0]

    def buffer(self, rows: int) -> Tensor:
        return empty(rows, self.vocab, self.weight.dtype, self.weight.device)

    def product(self, h: Tensor, out: Tensor) -> Tensor:
        """Hidden states (c, d) times the weight, in the first c rows of a buffer; `logits` turns them into logits."""
        return torch.mm(h.to(self.weight.dtype), self.weight.T, out=out[: len(h)])

    def logits(self, product: Tensor) -> Tensor:
        return logits_of(product.to(self.dtype), self.bias, self.scale, self.softcap)

    def finite(self, product: Tensor) -> Tensor:
        """Logits of which none is −inf."""
        z = self.logits(product)
        return raised(z) if self.rules_out else z

    def product_gradient(self, g: Tensor, z: Tensor) -> Tensor:
        """The gradient with respect to scale · product, from g, that with respect to the logits z: through the cap."""
        return g if self.softcap is None else g.addcmul_(g * z, z, value=-1 / self.softcap**2)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Everything that is constant in one call; n is the number of rows that are kept."""

    name: str
    method: QMap | LossFunction
    head: _Head
    labels: Tensor  # (n,)
    rows: Tensor  # (n,) their places among all rows, flattened
    given: Mapping[str, Tensor | TopK]  # contexts over all rows
    others: Mapping[str, tuple[Tensor, _Head]]  # contexts that are hidden states, over all rows
    chunk: int
    shape: torch.Size  # (…)
    pooling: Pooling | None = None  # of the n rows, for a method that looks beyond the position

    def losses(
        self, z: Tensor, at: slice, products: Mapping[str, Tensor], statistics: Statistics, with_gradient: bool
    ) -> Tensor:
        """The losses (c,) of a chunk, from the products z (c, V) of its hidden states; `products` has the same of other
        models. Where `with_gradient` is true, z is overwritten by the gradient with respect to scale · product."""
        losses = torch.empty(len(z), dtype=self.head.dtype, device=z.device)
        labels = self.labels[at]
        for block in blocks(z):
            context = self._context(block, at, products)
            if isinstance(self.method, QMap):
                of_block = {pool: values[at][block] for pool, values in statistics.items()}
                compiles = z.is_cuda and _TRITON and not of_block
                compute = _compiled(type(self.method), self.name) if compiles else _block_losses
                arguments = (self.head, z[block], labels[block], context, of_block, with_gradient)
                losses[block] = compute(self.method, *arguments)
            else:
                logits = self.head.logits(z[block])
                losses[block], g = _by_autograd(self.name, self.method, logits, labels[block], context, with_gradient)
                if g is not None:
                    z[block] = self.head.product_gradient(g, logits)
        return losses

    def only(self, which: Tensor) -> _Plan:
        """The same for some of the rows, `which` (n,) of bool."""
        return replace(self, labels=self.labels[which], rows=self.rows[which])

    def _context(self, block: slice, at: slice, products: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The contexts at a block of rows of the chunk `at`."""
        context = {k: self.others[k][1].finite(product[block]) for k, product in products.items()}
        rows = self.rows[at][block]
        return context | {k: _rows_of(self.name, source, k, rows, self.head) for k, source in self.given.items()}

    def chunks(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, dict[str, Tensor]]]:
        """For each chunk its rows, hidden states (c, d), the product of these with the head's weight, and the same of
        other models. All chunks share one buffer for each product."""
        n = len(self.labels)
        room = min(self.chunk, n)
        own, others = self.head.buffer(room), {k: other.buffer(room) for k, (_, other) in self.others.items()}
        for start in range(0, n, self.chunk):
            at = slice(start, min(start + self.chunk, n))
            h = hidden[at].to(self.head.weight.dtype)
            z = self.head.product(h, own)
            products = {k: head.product(its[self.rows[at]], others[k]) for k, (its, head) in self.others.items()}
            yield at, h, z, products

    def statistics(self, hidden: Tensor) -> Statistics:
        """What the method's sequences and batch have in common, at each of the n rows of hidden states (n, d)."""
        if self.pooling is None or not isinstance(self.method, QMap):
            return {}
        found: dict[Pool, list[Tensor]] = {pool: [] for pool in self.method.pools}
        for at, _, z, products in self.chunks(hidden):
            for block in blocks(z):
                context, finite = self._context(block, at, products), not self.head.rules_out
                logits = self.head.logits(z[block])
                t = TensorToken(logits, self.labels[at][block], context, self.name, finite=finite)
                for pool, quantities in found.items():
                    quantities.append(pool.of(t).clone())
        none = torch.zeros(0, 1, dtype=self.head.dtype, device=hidden.device)
        return {pool: self.pooling.combine(pool, torch.cat([none, *x])) for pool, x in found.items()}

    def constants(self) -> list[Tensor | None]:
        """All tensors of the contexts."""
        given = [x for source in self.given.values() for x in _tensors(source)]
        return given + [x for hidden, head in self.others.values() for x in (hidden, head.weight, head.bias)]

    def refuse_interaction(self, hidden: Tensor) -> None:
        """ValueError if a loss function gives a token another loss among other tokens: what it gives would change with
        the chunks. `hidden` are the states of the first rows (n, d). The first, the last and those between are given to
        it apart, too: what precedes or follows a token is then missing, and no mean of a part is by chance that of all
        in every one. A random loss, which two calls show, is left alone."""
        n = len(hidden)
        if n < 2 or isinstance(self.method, QMap):
            return
        f, rows = self.method, self.rows[:n]
        parts = [slice(0, 1), slice(1, max(2, n - 1)), slice(n - 1, n)]
        z = self.head.logits(self.head.product(hidden, self.head.buffer(n)))
        context = {k: head.finite(head.product(h[rows], head.buffer(n))) for k, (h, head) in self.others.items()}
        context |= {k: _rows_of(self.name, source, k, rows, self.head) for k, source in self.given.items()}

        def losses(at: slice) -> Tensor:
            return _by_autograd(
                self.name, f, z[at], self.labels[:n][at], {k: x[at] for k, x in context.items()}, False
            )[0]

        def same(a: Tensor, b: Tensor) -> bool:
            return not bool(((a - b).abs() > INTERACTS * b.abs().amax()).any())

        together = losses(slice(n))
        apart = any(not same(losses(part), together[part]) for part in parts)
        if apart and same(losses(slice(n)), together):
            raise ValueError(
                f"{self.name}: expected the loss of a token to depend on that token alone, since tokens go through the "
                "head in chunks, got one that changes with the others in the batch; call the function on whole logits, "
                "or give what it takes from the batch as token_weight"
            )

    def refuse_what_is_not_finite(self, hidden: Tensor) -> None:
        """ValueError naming the input that is no finite number, if one is, as `qunify.loss` does; `hidden` (n, d).

        Goes through all logits again, and is called only where the losses or the gradient are not finite.
        """
        name, head = self.name, self.head
        checked_number(name, "hidden", hidden, hidden.dtype)
        checked_number(name, "weight", head.weight, head.weight.dtype)
        if head.bias is not None:
            checked_logits(name, "bias", head.bias[None], head.dtype)
        for rows, h in zip(self.rows.split(self.chunk), hidden.split(self.chunk), strict=True):
            checked_logits(name, "logits", head.logits(head.product(h, head.buffer(len(h)))), head.dtype)
            for key, (its, other) in self.others.items():
                z = other.logits(other.product(its[rows], other.buffer(len(rows))))
                checked_logits(name, key, z, head.dtype)
            for key in (key for key in self.given if key.endswith("_logits")):
                checked_logits(name, key, _logits_at(self.given[key], rows, head), head.dtype)
        for key, (its, other) in self.others.items():
            checked_number(name, key, its[self.rows], its.dtype)
            checked_number(name, key, other.weight, other.weight.dtype)


def _block_losses(
    m: QMap, head: _Head, product: Tensor, labels: Tensor, context: Mapping[str, Tensor], statistics: Statistics,
    with_gradient: bool,
) -> Tensor:  # fmt: skip
    """The losses (b,) of a block of rows; `with_gradient`, their gradient takes the place of `product`."""
    z = head.logits(product)
    t = TensorToken(z, labels, context, m.name, finite=not head.rules_out, statistics=statistics)
    loss = (torch.zeros_like(t.p_label) + m.loss(t))[:, 0] + _zero(z, context)
    if with_gradient and head.softcap is None and product.dtype == z.dtype:
        logit_gradient(t, m.pulls(t), out=product)
    elif with_gradient:
        product.copy_(head.product_gradient(logit_gradient(t, m.pulls(t)), z))
    return loss


def _zero(z: Tensor, context: Mapping[str, Tensor]) -> Tensor:
    """Zeros (b,); NaN in rows whose logits, or those of a context, have a largest one that is not finite."""
    return sum((0 * x.amax(-1) for name, x in context.items() if name.endswith("_logits")), 0 * z.amax(-1))


@functools.lru_cache(maxsize=128)
def _compiled(kind: type[QMap], name: str) -> Callable[..., Tensor]:
    """`_block_losses` compiled to one kernel; else every operation would read and write the block in an accelerator's
    memory. Each method has a copy of the code, for the compiler keeps few variants of one piece of code."""
    own = types.FunctionType(_block_losses.__code__.replace(co_name=f"_block_losses_{name}"), _block_losses.__globals__)
    return torch.compile(own)


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _losses_and_gradients(
    plan: _Plan, hidden: Tensor, weights: Tensor | None, factor: float, wanted: tuple[bool, ...]
) -> tuple[Tensor, Gradients]:
    """The losses of the kept rows (n,), and the gradients of Σ factor · w · loss with respect to hidden (n, d), weight
    and bias, as far as `wanted`. `weights` has the w of each row; None is 1 for all.

    The gradient of hidden is still to be multiplied by `factor`: one over a million labels, say, would vanish in half
    precision, so that no operand of a matrix product is multiplied by it.
    """
    head, n, device = plan.head, len(plan.labels), hidden.device
    losses = torch.empty(n, dtype=head.dtype, device=device)
    dh = torch.empty(n, hidden.shape[-1], dtype=head.weight.dtype, device=device) if wanted[0] else None
    dw = empty(head.vocab, head.weight.shape[1], head.dtype, device).zero_() if wanted[1] else None
    db = torch.zeros(head.vocab, 1, dtype=head.dtype, device=device) if wanted[2] else None
    statistics = plan.statistics(hidden)
    for at, h, z, products in plan.chunks(hidden):
        losses[at] = plan.losses(z, at, products, statistics, any(wanted))
        w = None if weights is None else weights[at, None]
        told = _moved_up(z, plan.labels[at]) if any(wanted) else None
        if told is not None:
            z, h, w = z[: len(told)], h[told], None if w is None else w[told]
        one = h.new_ones(len(h), 1)
        if dh is not None:
            product = dh[at] if told is None else dh.new_empty(len(told), dh.shape[1])
            torch.mm(z, head.weight, out=product)
            if w is not None:
                product.mul_(w)
            if told is not None:
                dh[at] = torch.zeros_like(dh[at]).index_copy_(0, told, product)
        if w is not None:  # multiplied into hidden states, which are smaller than logits
            h, one = (h * w).to(h.dtype), w.to(h.dtype)
        if dw is not None:
            _add_product(dw, z.T, h, factor)
        if db is not None:
            _add_product(db, z.T, one, factor)
    # A NaN or an infinity in any input ends up in one of these, which are small beside the logits.
    if not bool(torch.stack([x.isfinite().all() for x in (losses, hidden, dh) if x is not None]).all()):
        plan.refuse_what_is_not_finite(hidden)
    return losses, (dh, dw, None if db is None else db[:, 0])


def _moved_up(z: Tensor, labels: Tensor) -> Tensor | None:
    """Which rows of the gradient z (c, V) are not zero, where enough are that it is worth the copies: those rows are
    moved to the top of z, in the order told, and the matrix products need no others. Else None. To look costs an
    accelerator more than it saves."""
    if z.device.type != "cpu":
        return None
    maybe = (z.gather(1, labels[:, None])[:, 0] == 0).nonzero()[:, 0].tolist()
    silent = [i for i in maybe if not bool(z[i].any())]
    count = len(z) - len(silent)
    if len(silent) < FEWEST_SILENT * len(z):
        return None
    order = torch.arange(len(z))
    late = sorted({*range(count, len(z))} - {*silent})
    for to, row in zip((i for i in silent if i < count), late, strict=True):
        z[to], order[to] = z[row], row
    return order[:count]


def _add_product(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """total += factor · a b; a product of half precision is summed in the type of `total`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, alpha=factor)
    else:
        torch.addmm(total, a, b, total.dtype, alpha=factor, out=total)


class _FusedLoss(torch.autograd.Function):
    """`scale` times the sum of all losses; or, if it is None, every loss (…), zero at ignored positions."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan, scale: float | None
    ) -> Tensor:
        kept = _kept(hidden, plan.rows)
        ctx.like = [(x.shape, x.dtype) if x is not None else None for x in (hidden, weight, bias)]
        ctx.factor = plan.head.scale * (1 if scale is None else scale)
        ctx.name = plan.name
        if scale is None:  # the backward pass brings the weights of rows, and goes through the head again
            ctx.plan = plan
            ctx.save_for_backward(hidden, weight, bias, plan.rows, *plan.constants())  # none of which may change
            losses, _ = _losses_and_gradients(plan, kept, None, ctx.factor, (False, False, False))
            return _spread(losses, plan.rows, plan.shape)
        losses, gradients = _losses_and_gradients(plan, kept, None, ctx.factor, ctx.needs_input_grad[:3])
        ctx.plan = None  # so that the contexts it holds can be freed
        ctx.save_for_backward(*gradients, plan.rows)
        return losses.sum() * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives(ctx.name)
        *saved, rows = ctx.saved_tensors[:4]
        if ctx.plan is None:
            (dh, dw, db), up = saved, upstream.item()
        else:
            weights, plan = upstream.flatten()[rows].to(ctx.plan.head.dtype), ctx.plan
            if plan.pooling is None:  # or what a sequence has in common would be that of another
                live = weights != 0
                rows, weights, plan = rows[live], weights[live], plan.only(live)
            kept = _kept(saved[0], rows)
            _, (dh, dw, db) = _losses_and_gradients(plan, kept, weights, ctx.factor, ctx.needs_input_grad[:3])
            up = 1.0
        shape, dtype = ctx.like[0]
        if dh is not None:
            dh = (dh.to(torch.promote_types(dtype, torch.float32)) * (up * ctx.factor)).to(dtype)
            dh = _spread(dh, rows, shape[:-1])
        dw, db = (
            None if g is None else (g if up == 1 else g * up).to(like[1])
            for g, like in zip((dw, db), ctx.like[1:], strict=True)
        )
        return dh, dw, db, None, None


def _kept(hidden: Tensor, rows: Tensor) -> Tensor:
    """Hidden states (…, d) at the kept rows, (n, d)."""
    flat = hidden.detach().reshape(-1, hidden.shape[-1])
    return flat if len(rows) == len(flat) else flat[rows]


def _spread(x: Tensor, rows: Tensor, lead: torch.Size) -> Tensor:
    """(n, …) → (*lead, …), zero at the other rows."""
    if len(rows) != lead.numel():
        x = x.new_zeros(lead.numel(), *x.shape[1:]).index_copy_(0, rows, x)
    return x.reshape(*lead, *x.shape[1:])


def _by_autograd(
    name: str, f: LossFunction, z: Tensor, labels: Tensor, context: Mapping[str, Tensor], with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """The losses (b,) of a Python loss function at one block, and if wanted their gradient (b, V), by autograd. It is
    given copies, which it may change in place."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(with_gradient)
        own = {key: x.clone() for key, x in loss_arguments(context).items()}
        loss = f(z.clone(), labels.clone(), **own)
        check_losses(name, loss, tuple(labels.shape))
        loss = loss + _zero(z.detach(), context)
        if not with_gradient:
            return loss.detach(), None
        (g,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), g


def _rows_of(method: str, source: Tensor | TopK, name: str, rows: Tensor, head: _Head) -> Tensor:
    """The context `name` at these rows: finite logits (b, V), or numbers (b, V) or (b, 1)."""
    if name.endswith("_logits"):
        return raised(_logits_at(source, rows, head))
    assert isinstance(source, Tensor)
    source = source.detach()
    numbers = source.flatten()[rows, None] if name in PER_TOKEN else _listed(source, rows, head.vocab)
    if numbers.dtype == torch.bool:
        return numbers.to(head.dtype)
    return checked_number(method, name, numbers, head.dtype)


def _logits_at(source: Tensor | TopK, rows: Tensor, head: _Head) -> Tensor:
    """Logits at these rows, (b, V), as they were given."""
    if isinstance(source, TopK):
        return source.logits(rows, head.vocab, head.dtype)
    return _listed(source.detach(), rows, head.vocab).to(head.dtype)


def _listed(source: Tensor, rows: Tensor, vocab: int) -> Tensor:
    """A context (…, V), or (V,) for all, at these rows, (b, V)."""
    return source.expand(len(rows), -1) if source.shape == (vocab,) else source.flatten(0, -2)[rows]


def _check_shapes(name: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> None:
    if hidden.dim() == 0 or not hidden.is_floating_point():
        raise ValueError(f"{name}: hidden: expected floating point (…, d), got {tuple(hidden.shape)} of {hidden.dtype}")
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[-1]:
        raise ValueError(f"{name}: weight: expected shape (V, {hidden.shape[-1]}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{name}: bias: expected shape {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")
    if labels.shape != hidden.shape[:-1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"{name}: labels: expected integers of shape {tuple(hidden.shape[:-1])}, got {tuple(labels.shape)} of "
            f"{labels.dtype}"
        )


def _sources(name: str, m: QMap | None, given: Mapping[str, Any], labels: Tensor, vocab: int) -> dict[str, Source]:
    """The contexts that the method needs (of a loss function, m = None, all), checked against the labels' positions."""
    lead = labels.shape
    for key in given:
        if key not in CONTEXTS:
            raise ValueError(f"{name}: unknown context {key!r}; known contexts are {', '.join(CONTEXTS)}")
    wanted = tuple(given) if m is None else m.needs
    for key in wanted:
        if given.get(key) is None:
            expected = f"{KEYWORDS[key]} or {key}" if key in KEYWORDS else key
            raise ValueError(f"{name}: missing context, expected {expected}")
    sources: dict[str, Source] = {}
    for key in wanted:
        source = given[key]
        if not isinstance(source, tuple | TopK):
            source = as_tensor(name, key, source, labels.device)
        got, expected = _positions(key, source, vocab)
        if got not in (lead, None):
            shapes = " and ".join(str(tuple(x.shape)) for x in _tensors(source)) if got == _MISFIT else tuple(got)
            raise ValueError(f"{name}: {key}: expected {expected} for positions {tuple(lead)}, got {shapes}")
        sources[key] = source
    return sources


_MISFIT = torch.Size([-1])  # in place of a shape, where the tensors of a context do not fit each other


def _tensors(source: Any) -> list[Tensor]:
    """The tensors of a context."""
    parts = (source.values, source.indices) if isinstance(source, TopK) else source
    return [x for x in (parts if isinstance(parts, tuple) else (parts,)) if isinstance(x, Tensor)]


def _positions(key: str, source: Any, vocab: int) -> tuple[torch.Size | None, str]:
    """The shape of the positions that a context is for (None: one for all), and in words the shape expected of it."""
    if isinstance(source, TopK):
        same = source.values.shape == source.indices.shape
        return (source.values.shape[:-1] if same else _MISFIT), "values and indices (…, K)"
    if isinstance(source, tuple):
        fits = len(source) in (2, 3) and source[1].shape == (vocab, source[0].shape[-1])
        return (source[0].shape[:-1] if fits else _MISFIT), f"(hidden (…, d), weight ({vocab}, d)) or logits"
    if key in PER_TOKEN:
        return source.shape, "a number each"
    if source.shape == (vocab,) and key in SHARED:
        return None, ""
    fits = source.dim() > 0 and source.shape[-1] == vocab
    return (source.shape[:-1] if fits else source.shape), f"(…, {vocab})"
