"""From a gradient to the target it teaches: g = s (p − Q), in three gauges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qunify._lib import html
from qunify.maps._pulls import Pulled
from qunify.token import Layout

GaugeName = Literal["unit", "fixed", "boundary"]


SHOWN = 6  # how many tokens a notebook shows, and how many entries of each


GAUGES: tuple[GaugeName, ...] = ("unit", "fixed", "boundary")


class Gauge(NamedTuple):
    """One point on the ray of targets: g = scale · (p − target), target = trust·δ + (1 − trust)·residual.

    NaN where the gauge is undefined; `residual` is NaN also where trust is 1 (nothing remaining).
    """

    scale: Tensor  # (…)
    target: Tensor  # (…, V)
    trust: Tensor  # (…)
    residual: Tensor  # (…, V)


@dataclass(frozen=True, eq=False, repr=False)
class QTarget:
    """What a loss teaches at every token. Zero at ignored positions.

    Attributes
    ----------
    loss : Tensor, (…)
        Per-token loss in nats, as published.
    gradient : Tensor, (…, V)
        Its gradient with respect to the logits.
    target : Tensor, (…, V)
        Q = p − gradient (unit gauge). Sums to 1; may be negative. NaN where the loss is not shift-invariant.
    mask : Tensor of bool, (…)
        True at the positions that count.
    in_simplex : Tensor of bool, (…)
        Whether the target is a distribution, up to rounding.
    shift_invariant : bool
        Whether the gradient sums to zero; without that there is no target.
    violation : Tensor, (…)
        Absolute value of the sum of the gradient.
    """

    loss: Tensor
    gradient: Tensor
    target: Tensor
    mask: Tensor
    in_simplex: Tensor
    shift_invariant: bool
    violation: Tensor
    _layout: Layout = field(repr=False)
    _pulled: Pulled = field(repr=False)

    def __repr__(self) -> str:
        kept = int(self.mask.sum())
        inside = int(self.in_simplex.sum())
        where = (
            f"{inside} of {kept} targets in the simplex" if self.shift_invariant else "not shift-invariant: no target"
        )
        return f"QTarget(shape={tuple(self.target.shape)}, tokens={kept}, {where})"

    def _shown(self) -> list[tuple[int, float, float, list[tuple[int, float, float]]]]:
        """Number, loss, trust and (k, p_k, Q_k) of the first tokens; of a large vocabulary the entries with most
        mass in prediction or target."""
        rows = self._layout.rows
        q, p = rows(self.target)[:SHOWN], self._pulled.policy[:SHOWN]
        trust, loss = rows(self.trust)[:SHOWN], rows(self.loss)[:SHOWN]
        most = torch.maximum(p, q.nan_to_num()).argsort(dim=-1, descending=True, stable=True)[:, :SHOWN].sort(-1).values
        return [
            (i, float(loss[i]), float(trust[i]), [(k, float(p[i, k]), float(q[i, k])) for k in most[i].tolist()])
            for i in range(len(q))
        ]

    def _repr_html_(self) -> str:
        table = [
            (i, loss, trust, ", ".join(f"{k}: {p:.3g} → {q:.3g}" for k, p, q in entries))
            for i, loss, trust, entries in self._shown()
        ]
        header = ("token", "loss (nats)", "trust γ", "entry: prediction p → target Q")
        return html.paragraph(repr(self)) + html.table(header, table)

    def _repr_latex_(self) -> str:
        lines = []
        for i, _, trust, entries in self._shown():
            parts = ",\\ ".join(f"Q_{{{k}}}={html.number(q)}" for k, _, q in entries)
            lines.append(rf"\gamma_{{{i}}}={html.number(trust)}&{parts}")
        return html.array(lines, columns="ll")

    @property
    def trust(self) -> Tensor:
        """γ in the unit gauge, (…)."""
        return self.in_gauge("unit").trust

    @property
    def residual(self) -> Tensor:
        """π̃ in the unit gauge, (…, V): how the mass that is not trusted to the label is spread."""
        return self.in_gauge("unit").residual

    def in_gauge(self, gauge: GaugeName) -> Gauge:
        """The target in another gauge: `unit` (s = 1), `fixed` (s = Σ of the declared weights) or `boundary`
        (the smallest s at which the target is still a distribution)."""
        if gauge not in GAUGES:
            raise ValueError(f"in_gauge: gauge: expected one of {', '.join(GAUGES)}, got {gauge!r}")
        x = self._pulled
        scale = {"unit": _unit, "fixed": _fixed, "boundary": _boundary}[gauge](x)
        scale = torch.where(self._layout.rows(self.target).isnan().any(-1, keepdim=True), torch.nan, scale)
        trust = x.on_label / scale
        target = x.policy - x.gradient / scale
        unclaimed = scale - x.on_label - x.off_label  # the weight that stays on the prediction
        none = unclaimed.abs() <= rounding_of(x.policy) * (scale + x.on_label.abs() + x.off_label.abs())
        unclaimed = torch.where(none, 0.0, unclaimed)
        remaining = torch.where(none, x.off_label, scale - x.on_label)  # scale − on_label, without cancellation
        nothing = (remaining == 0) | (trust == 1)  # to rounding, too
        residual = torch.where(nothing, torch.nan, (unclaimed * x.policy + x.off_label_sum) / remaining)
        spread = self._layout.spread
        return Gauge(spread(scale[:, 0]), spread(target), spread(trust[:, 0]), spread(residual))


def _unit(x: Pulled) -> Tensor:
    return torch.ones_like(x.on_label)


def _fixed(x: Pulled) -> Tensor:
    # At a negative total the fixed target would be one that the step moves away from.
    total = x.on_label + x.off_label
    return torch.where(total > rounding_of(x.policy) * x.weights, total, torch.nan)


def _boundary(x: Pulled) -> Tensor:
    # An entry counts where its gradient is more than rounding and its probability has all its digits.
    counts = (x.gradient > rounding_of(x.policy) * x.magnitude) & (
        x.policy > torch.finfo(x.policy.dtype).tiny / rounding_of(x.policy)
    )
    ratio = torch.where(counts, x.gradient / x.policy, 0.0).amax(-1, keepdim=True)
    return torch.where(ratio > 0, ratio, torch.nan)


def rounding_of(p: Tensor) -> float:
    """Relative rounding of a sum of a few terms."""
    return 8 * torch.finfo(p.dtype).eps


def in_simplex(x: Pulled, target: Tensor | None = None) -> Tensor:
    """Whether the unit target (N, V), by default p − g, is a distribution up to rounding, (N,); not where it is NaN."""
    q = x.policy - x.gradient if target is None else target
    return (q >= -target_rounding(x.policy, x.magnitude, x.log_conditioning)).all(-1)


def target_rounding(p: Tensor, magnitude: Tensor, log_conditioning: Tensor) -> Tensor:
    """How far rounding may have moved an entry of the target p − g, by the terms of `Pulled`."""
    return rounding_of(p) * (p + magnitude) * log_conditioning


def finish(loss: Tensor, pulled: Pulled, layout: Layout, invariant: bool | Tensor) -> QTarget:
    """Assemble a QTarget; `invariant` is declared (bool) or measured per token, (N, 1)."""
    good = torch.as_tensor(invariant, device=loss.device).expand_as(pulled.on_label)
    q = torch.where(good, pulled.policy - pulled.gradient, torch.nan)
    spread = layout.spread
    return QTarget(
        loss=spread(loss[:, 0]),
        gradient=spread(pulled.gradient),
        target=spread(q),
        mask=layout.mask,
        in_simplex=spread(in_simplex(pulled, q)),
        shift_invariant=bool(good.all()),
        violation=spread(pulled.gradient.sum(-1).abs()),
        _layout=layout,
        _pulled=pulled,
    )
