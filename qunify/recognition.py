"""What is this loss? Any Python function → the catalogue entries it is, or comes near to, and a diagnosis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from qunify import catalogue
from qunify._lib import html
from qunify._lib.simple import simple_numbers
from qunify.catalogue import ENTRIES
from qunify.fitting import Fit, Mode, Sample, fit, simplified
from qunify.probes import Measured, Subject, beside_jumps, examine, is_gate
from qunify.qmap import QMap
from qunify.samples import ROWS, Batch, along_u, spread_over_u
from qunify.symbols import V
from qunify.targets import Foreign, Method, published

DEGREES = ("identical", "scaled", "directional", "near")  # how near a match is
NEAR = 0.1  # relative gradient error up to which an entry is worth naming,
CLOSE = 0.01  # and, one factor free, up to which it may turn out to be the loss itself
#: Relative gradient error that rounding may leave, by the type a loss computes in.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 3e-5}
FEW_ROWS = (100, 40, 10)  # enough to fit a loss that gives V numbers per token


@dataclass(frozen=True)
class Match:
    """One catalogue entry that the loss is, or comes near to.

    Attributes
    ----------
    name : str
        Id of the entry.
    params : dict
        Its parameters; a SymPy expression in V where the loss is the entry with a parameter that depends on V.
    level : str
        `identical` (equal gradients), `scaled` (equal up to `factor`), `directional` (at every token on the same
        ray, neither silent everywhere: the same target with other weights), or `near` (none of these).
    error : float
        ‖g − factor · g_entry‖ / ‖g‖ on tokens that were not used in fitting, the largest over three vocabularies.
    factor : float or SymPy expression in V
        gradient of the loss = factor · gradient of the entry.
    """

    name: str
    params: dict[str, Any]
    level: str
    error: float
    factor: Any = 1.0

    def __str__(self) -> str:
        if self.level == "identical":
            return f"identical to {self._named()} (relative gradient error {self.error:.1g})"
        if self.level == "scaled":
            return (
                f"{_number(self.factor)} × {self._named()}, a change of learning rate "
                f"(relative gradient error {self.error:.1g})"
            )
        if self.level == "directional":
            return f"in direction {self._named()} at every token, with other weights (they differ by {self.error:.2%})"
        factor = "" if abs(self.factor - 1) < 1e-9 else f"{_number(self.factor)} × "
        return f"near {factor}{self._named()}, but not it (gradients differ by {self.error:.2%})"

    def _repr_html_(self) -> str:
        return html.paragraph(str(self))

    def _repr_latex_(self) -> str:
        return rf"${html.words(str(self))}:\quad {ENTRIES[self.name].formula}$"

    def _named(self) -> str:
        inside = ", ".join(f"{k}={_number(v)}" for k, v in self.params.items())
        return f"{self.name}({inside})" if inside else self.name


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
        if self.residual:
            said.append(self.residual)
        return said


class Matches(list[Match]):
    """The matches, best first; printed, what the loss is in plain sentences."""

    def __init__(self, matches: Sequence[Match], name: str, diagnosis: Diagnosis) -> None:
        super().__init__(matches)
        self.name, self.diagnosis = name, diagnosis

    @property
    def verdict(self) -> str:
        """One sentence."""
        subject = f"Taken one token at a time, {self.name}" if self.diagnosis.apart else self.name
        if self.diagnosis.silent:
            return f"{subject} teaches nothing: its gradient is zero."
        best = self[0] if self else None
        if best and best.level in ("identical", "scaled"):
            return f"{subject} is {best}."
        own = "a gate of its own" if self.diagnosis.gate else "unlike anything here"
        if not best:
            return f"{subject} is {own}."
        if best.level == "directional":
            return f"{subject} {f'is {own}; it ' if self.diagnosis.gate else ''}points {best}."
        return f"{subject} is {own}; it is {best}."

    def __str__(self) -> str:
        also = [f"Also: {m}." for m in self[1:]]
        return "\n".join([self.verdict, *also, *self.diagnosis.sentences()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(m._named(), m.level, _number(m.factor), float(m.error)) for m in self]
        found = html.table(("method", "level", "factor", "relative gradient error"), rows) if rows else ""
        return html.paragraph(self.verdict) + found + "".join(map(html.paragraph, self.diagnosis.sentences()))


def identify(loss_fn: Method, contexts: Sequence[str] = (), top: int = 5) -> Matches:
    """What is this loss?

    Parameters
    ----------
    loss_fn : callable, QMap or str
        `loss_fn(logits, labels, **contexts)` on logits (N, V) and labels (N,), giving one loss per token in
        nats, or their mean or sum. Of a QMap, or an id of the catalogue, the published loss.
    contexts : sequence of str
        The context names it takes, such as `teacher_logits`; a QMap says by itself what it needs.
    top : int
        How many matches to return at most.

    Returns
    -------
    Matches
        A list of `Match`, best first: by level, then fewest parameters off their defaults, then catalogue
        order (nearest first below `scaled`). Empty when nothing comes near. Its `diagnosis` says what was measured.

    Raises
    ------
    ValueError
        The function raised (its message and `__cause__` are kept), or cannot be called with these contexts, or
        returns something other than finite, differentiable losses.
    """
    if top < 1:
        raise ValueError(f"identify: top: expected at least 1, got {top}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for tensors this small, more threads only cost time
    try:
        return _identified(loss_fn, contexts, top)
    finally:
        torch.set_num_threads(threads)


def _identified(loss_fn: Method, contexts: Sequence[str], top: int) -> Matches:
    m = catalogue.as_method(loss_fn, "identify")
    loss_fn, contexts = published(m), contexts or (() if isinstance(m, Foreign) else m.needs)
    subject = examine(loss_fn, contexts)
    known = [spread_over_u(v, seed=0) for v in ROWS]
    measured = [subject(p) for p in known]
    diagnosis = _diagnose(subject, known, measured)
    few = None
    if not diagnosis.gate:
        few = FEW_ROWS
    elif diagnosis.on_u_alone:
        known[0] = known[0] + beside_jumps(subject)
        measured[0] = subject(known[0])
    sample = Sample(tuple(known), tuple(q.gradient.numpy() for q in measured), diagnosis.gate, few)
    fresh = tuple(spread_over_u(v, seed=1)[:200] for v in ROWS)
    held_out = Sample(fresh, tuple(subject(p).gradient.numpy() for p in fresh), diagnosis.gate)
    candidates = [] if diagnosis.silent else _candidates(diagnosis)
    matches = _matches(candidates, sample, held_out, TOLERANCE[subject.dtype])
    return Matches(matches[:top], subject.name, diagnosis)


# ---- matching -----------------------------------------------------------------------------------------------


def _candidates(d: Diagnosis) -> list[type[QMap]]:
    """Entries of the same kind: gates for a gate, the same shift-invariance, no context that the loss does not use."""
    return [
        cls
        for cls in ENTRIES.values()
        if set(cls.needs) <= set(d.used) and cls.shift_invariant == d.shift_invariant and is_gate(cls()) == d.gate
    ]


def _matches(candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float) -> list[Match]:
    found: list[Match] = []
    missed: list[Fit] = []
    for cls in candidates:
        close = fit(cls, sample, "ratio", tolerance)
        match = None
        if close.error <= CLOSE:  # equal before proportional: a factor may do what a parameter does
            match = _exact(fit(cls, sample, "equal", tolerance), sample, held_out, tolerance)
            match = match or _exact(close, sample, held_out, tolerance)
        if match:
            found.append(match)
        else:
            missed.append(close)
    if not any(m.level == "identical" for m in found):
        found += _depending_on_vocab(missed, sample, held_out, tolerance)
    known = bool(found)
    # Two gates whose weights have one sign share every ray, so where one is recognised the others say little.
    rays = not known and not sample.gate
    named = {m.name for m in found}
    for close in missed:
        if close.method.name not in named:
            ray = fit(type(close.method), sample, "ray", tolerance) if rays else close
            match = _inexact(close, ray, sample, held_out, tolerance)
            if match and not (known and sample.gate and match.error > NEAR):
                found.append(match)
    order = list(ENTRIES)

    def rank(m: Match) -> tuple[Any, ...]:
        level = DEGREES.index(m.level)
        changed = sum(v != getattr(ENTRIES[m.name], k) for k, v in m.params.items())
        return (level, changed if level < 2 else m.error, order.index(m.name))

    return sorted(found, key=rank)


def _exact(close: Fit, sample: Sample, held_out: Sample, tolerance: float) -> Match | None:
    if close.error > tolerance:
        return None
    close = simplified(close, sample, tolerance)
    error = held_out.error(close.method, close.mode, close.factor)
    if error > 10 * tolerance:
        return None
    same = abs(close.factor - 1) <= tolerance
    factor = next(iter(simple_numbers(close.factor, within=10 * tolerance)), close.factor)
    return Match(close.method.name, close.method.params, "identical" if same else "scaled", error, factor)


def _inexact(close: Fit, ray: Fit, sample: Sample, held_out: Sample, tolerance: float) -> Match | None:
    if all(s.same_rays(ray.method, 100 * tolerance) for s in (sample, held_out)):
        _, factor = sample.difference(ray.method, "ratio")
        error = held_out.error(ray.method, "equal", factor)
        return Match(ray.method.name, ray.method.params, "directional", error, factor)
    error = held_out.error(close.method, "equal", close.factor)
    return Match(close.method.name, close.method.params, "near", error, close.factor) if error <= NEAR else None


# ---- parameters that depend on the vocabulary ----------------------------------------------------------------

FORMS = (V / (V - 1), (V - 1) / V, 1 / V, V, 1 / (V - 1), V - 1, 1 / sp.log(V), sp.log(V))


def _depending_on_vocab(missed: list[Fit], sample: Sample, held_out: Sample, tolerance: float) -> list[Match]:
    """Entries that fit every vocabulary with parameters, or a factor, of its own, if those are a known form of V."""
    found = []
    for close in sorted(missed, key=lambda f: f.error)[:6]:
        cls = type(close.method)
        if fit(cls, sample.only(0), "ratio", tolerance).error > tolerance:  # then no fit is equal either
            continue
        for mode in ("equal", "ratio"):
            match = _per_vocab(cls, mode, sample, held_out, tolerance)
            if match:
                found.append(match)
                break
    return found


def _per_vocab(cls: type[QMap], mode: Mode, sample: Sample, held_out: Sample, tolerance: float) -> Match | None:
    fits = []
    for i in range(len(ROWS)):
        close = fit(cls, sample.only(i), mode, tolerance)
        if close.error > tolerance:
            return None
        fits.append(simplified(close, sample.only(i), tolerance))
    values = {k: [getattr(f.method, k) for f in fits] for k in fits[0].method.params}
    params = {k: _in_vocab(v) for k, v in values.items()}
    factor = _in_vocab([f.factor for f in fits]) if mode == "ratio" else 1.0
    if factor is None or any(v is None for v in params.values()):
        return None
    error = max(held_out.only(i).error(f.method, mode, f.factor) for i, f in enumerate(fits))
    if error > 10 * tolerance:
        return None
    return Match(cls.name, params, "identical" if mode == "equal" else "scaled", error, factor)


def _in_vocab(values: list[Any]) -> Any:
    """One value for all vocabularies, or a multiple of a known form of V, or None."""
    if isinstance(values[0], (str, int)):
        return values[0] if len(set(values)) == 1 else None
    for form in (sp.Integer(1), *FORMS):
        parts = [x / float(form.subs(V, vocab)) for x, vocab in zip(values, ROWS, strict=True)]
        if max(parts) - min(parts) <= 1e-5 * max(map(abs, parts)):
            multiple = next(iter(simple_numbers(parts[0], within=1e-5)), parts[0])
            if form == 1:
                return multiple
            return (int(multiple) if float(multiple).is_integer() else multiple) * form
    return None


# ---- diagnosis ----------------------------------------------------------------------------------------------


def _diagnose(subject: Subject, probes: list[Batch], measured: list[Measured]) -> Diagnosis:
    invariant = all(q.shift_invariant for q in measured)
    gate = invariant and all(q.is_gate for q in measured)
    used = tuple(name for name in subject.contexts if _depends(subject, probes[0], measured[0], name))
    curve, alone = None, False
    if gate:
        u = torch.linspace(0.0025, 0.9975, 101, dtype=torch.float64)
        curve = (tuple(u.tolist()), tuple(subject(along_u(u)).gate.weight[:, 0].tolist()))
        alone = not used and _on_u_alone(subject)
    return Diagnosis(
        reduction=subject.reduction,
        notes=subject.notes,
        apart=subject.apart,
        silent=not any(bool(q.gradient.any()) for q in measured),
        used=used,
        unused=tuple(name for name in subject.contexts if name not in used),
        shift_invariant=invariant,
        violation=max(float(q.violation.max()) for q in measured),
        in_simplex=float(torch.cat([q.in_simplex for q in measured]).double().mean()) if invariant else float("nan"),
        gate=gate,
        curve=curve,
        on_u_alone=alone,
        residual=_residual(probes[1], measured[1], used) if invariant and not gate else "",
    )


def _depends(subject: Subject, p: Batch, q: Measured, name: str) -> bool:
    few = slice(0, 40)
    other = subject(p[few], **{name: p.context[name][few].roll(1, 0)})
    return bool((other.gradient - q.gradient[few]).abs().max() > 1e-6 * q.gradient[few].abs().max())


def _on_u_alone(subject: Subject) -> bool:
    """Whether the weight stays when u stays and the other tokens' shares, or the vocabulary, change."""
    weights = []
    for vocab in tuple(ROWS)[:2]:
        u = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
        p = spread_over_u(vocab, 0)[:10]
        others = p.logits.scatter(1, p.labels[:, None], -torch.inf).log_softmax(-1) + (1 - u).log()[:, None]
        there = Batch(others.scatter(1, p.labels[:, None], u.log()[:, None]), p.labels, p.context)
        weights.append(subject(there).gate.weight)
    return torch.allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def _residual(p: Batch, q: Measured, used: tuple[str, ...]) -> str:
    """Where the unit target's mass off the label goes: the smallest mixture that explains it at every token."""
    t = p.token
    parts: dict[str, Tensor] = {"the model": t.policy.probs, "the uniform distribution": t.uniform.probs}
    parts |= {name.removesuffix("_logits"): t.context(name).probs for name in used if name.endswith("_logits")}
    for n in range(1, len(parts) + 1):
        for names in itertools.combinations(parts, n):
            weights, missing = _explained(q.target, torch.stack([parts[name] for name in names], -1), p.labels)
            if missing < 1e-4:
                shares = " and ".join(f"{_range(weights[:, i])} of {name}" for i, name in enumerate(names))
                return f"Off the label, its target is {shares}."
    return f"Off the label, its target is no mixture of {', '.join(parts)}."


def _explained(target: Tensor, parts: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Weights (N, n) of the parts (N, V, n) in the target's entries off the label, and the share they leave open."""
    keep = torch.ones_like(target).scatter(1, labels[:, None], 0.0)
    a, b = parts * keep[..., None], (target * keep)[..., None]
    weights = torch.linalg.lstsq(a, b, driver="gelsd").solution
    left = (a @ weights - b).norm(dim=1) / b.norm(dim=1).clamp(min=1e-12)
    return weights[..., 0], float(left.max())


def _range(x: Tensor) -> str:
    low, high = float(x.min()), float(x.max())
    if high - low <= 1e-5 * max(abs(low), abs(high)):
        return _number(low)
    return f"{low:.3g} to {high:.3g}"


def _number(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, float) else str(x).replace("*", "·")
