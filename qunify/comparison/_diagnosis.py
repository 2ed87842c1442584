"""What can be said of a loss that nobody has named: on what its weight depends, what it leaves, how far it reaches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunify.comparison._subjects import Jump, Measured, Subject, jumps_of
from qunify.samples import ROWS, Batch, along_u, spread_over_u, with_label_at


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of the loss, whether or not the catalogue has it."""

    reduction: str  # none, mean, sum or other
    notes: tuple[str, ...]  # how it treats a batch
    apart: bool  # its tokens interact, and each was judged alone
    silent: bool  # its gradient is zero everywhere
    used: tuple[str, ...]  # contexts its gradient depends on
    unused: tuple[str, ...]
    shift_invariant: bool
    violation: float  # largest |sum of the gradient over the vocabulary|
    in_simplex: float  # share of the tokens whose unit target is a distribution; NaN without a target
    gate: bool
    curve: tuple[tuple[float, ...], tuple[float, ...]] | None  # a gate's u and weight, the rest of the token fixed
    on_u_alone: bool  # a gate's weight depends on nothing but u
    jumps: tuple[Jump, ...]  # of a gate's weight, the rest of the token fixed
    residual: str  # where the target's mass off the label goes, in words; empty for gates

    def sentences(self) -> list[str]:
        said = [*self.notes]
        if self.unused:
            said.append(f"Its gradient does not depend on {', '.join(self.unused)}.")
        if self.used:
            said.append(f"It uses {', '.join(self.used)}.")
        if self.silent:
            return said
        if not self.shift_invariant:
            said.append(
                f"It is not shift-invariant: its gradient sums to as much as {self.violation:.3g} over the vocabulary, "
                "so it also moves the logits as a whole and has no target."
            )
            return said
        inside = {1.0: "at every token tried", 0.0: "at no token tried"}.get(
            self.in_simplex, f"at {self.in_simplex:.0%} of the tokens tried"
        )
        said.append(f"It is shift-invariant, and its target is a distribution {inside}.")
        if self.curve:
            at = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
            values = ", ".join(f"w({u:g}) = {w + 0.0:.4g}" for u, w in zip(at, np.interp(at, *self.curve), strict=True))
            alone = "which depends on u alone" if self.on_u_alone else "which depends on more than u; at one token"
            said.append(f"It is a gate: its gradient is w (p − label), {alone}: {values}.")
        if self.jumps:
            steps = " and ".join(f"at u = {j.u:.6g} from {j.below:.4g} to {j.above:.4g}" for j in self.jumps)
            said.append(f"The weight jumps {steps}." if self.on_u_alone else f"There the weight jumps {steps}.")
        if self.residual:
            said.append(self.residual)
        return said


def diagnose(subject: Subject, batches: list[Batch], measured: list[Measured]) -> Diagnosis:
    invariant = all(q.shift_invariant for q in measured)
    gate = invariant and all(q.is_gate for q in measured)
    used = tuple(
        name
        for name in subject.contexts
        if any(_depends(subject, p, q, name) for p, q in zip(batches, measured, strict=True))  # a top-k may be all of V
    )
    curve, alone = None, False
    if gate:
        u = torch.arange(1, 100, dtype=torch.float64) / 100
        curve = (tuple(u.tolist()), tuple(subject(along_u(u)).gate.weight[:, 0].tolist()))
        alone = not used and _on_u_alone(subject)
    return Diagnosis(
        reduction=subject.calling.reduction,
        notes=subject.notes,
        apart=subject.calling.apart,
        silent=not any(bool(q.gradient.any()) for q in measured),
        used=used,
        unused=tuple(name for name in subject.contexts if name not in used),
        shift_invariant=invariant,
        violation=max(float(q.violation.max()) for q in measured),
        in_simplex=float(torch.cat([q.in_simplex for q in measured]).double().mean()) if invariant else float("nan"),
        gate=gate,
        curve=curve,
        on_u_alone=alone,
        jumps=jumps_of(subject) if gate else (),
        residual=_residual(batches[1], measured[1], used) if invariant and not gate else "",
    )


def _depends(subject: Subject, p: Batch, q: Measured, name: str) -> bool:
    few = slice(0, 40)
    other = subject(p[few], **{name: p.context[name][few].roll(1, 0)})
    return bool((other.gradient - q.gradient[few]).abs().max() > 1e-6 * q.gradient[few].abs().max())


def _on_u_alone(subject: Subject) -> bool:
    """Whether the weight depends on nothing but u: at ten values of u it must be the same whatever the vocabulary and
    however the other tokens share the rest."""
    weights = []
    for vocab in tuple(ROWS)[:2]:
        u = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
        p = spread_over_u(vocab, 0)[:10]
        there = Batch(with_label_at(u, p.logits, p.labels), p.labels, p.context)
        weights.append(subject(there).gate.weight)
    return torch.allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6 * float(weights[0].abs().max()))


def _residual(p: Batch, q: Measured, used: tuple[str, ...]) -> str:
    """A sentence on where the unit target's mass off the label goes: the mixture of the fewest distributions that
    explains it at every token."""
    t = p.token
    parts: dict[str, Tensor] = {"the model": t.policy.probs, "the uniform distribution": t.uniform.probs}
    others = [name for name in used if name.endswith("_logits")]
    parts |= {f"the {name.removesuffix('_logits').replace('_', ' ')}": t.context(name).probs for name in others}
    for n in range(1, len(parts) + 1):
        for names in itertools.combinations(parts, n):
            weights, missing = _explained(q.target, torch.stack([parts[name] for name in names], -1), p.labels)
            if missing < 1e-4:
                of = [f"{share} of " if (share := _range(weights[:, i])) != "1" else "" for i in range(n)]
                shares = " and ".join(share + name for share, name in zip(of, names, strict=True))
                return f"Off the label, its target is {shares}."
    return f"Off the label, its target is no mixture of {', '.join(parts)}."


def _explained(target: Tensor, parts: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """The weights (N, n) with which the parts (N, V, n) come nearest to the target off the label, by least squares,
    and the largest relative error that is left."""
    keep = torch.ones_like(target).scatter(1, labels[:, None], 0.0)
    a, b = parts * keep[..., None], (target * keep)[..., None]
    weights = torch.linalg.lstsq(a, b, driver="gelsd").solution
    left = (a @ weights - b).norm(dim=1) / b.norm(dim=1).clamp(min=1e-12)
    return weights[..., 0], float(left.max())


def _range(x: Tensor) -> str:
    low, high = float(x.min()), float(x.max())
    if high - low <= 1e-5 * max(abs(low), abs(high)):
        return short_number(low)
    return f"{low:.3g} to {high:.3g}"


def short_number(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, float) else str(x).replace("*", "·")
