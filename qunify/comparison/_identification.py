"""What is this loss? Any Python function → the catalogue entries it is, or comes near to, and a diagnosis."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
import torch

from qunify import catalogue
from qunify._lib import html
from qunify._lib.simple import simple_numbers
from qunify._lib.tolerances import EXACT, EXACT_FLOAT32
from qunify.catalogue import ENTRIES
from qunify.comparison._conditions import Condition, at_jumps, condition_of, conditions_of
from qunify.comparison._diagnosis import Diagnosis, diagnose, short_number
from qunify.comparison._fitting import NEAR, Fit, Mode, Sample, fit, simplified
from qunify.comparison._label_weights import divided, label_weights
from qunify.comparison._partial import Partial, partly
from qunify.comparison._subjects import RARE, Measured, Subject, beside, examine, is_gate, jumps_of
from qunify.comparison._sums import Sum, as_sum
from qunify.maps import Method, QMap, limits, published
from qunify.samples import OTHER_MODELS, ROWS, Batch, spread_over_u
from qunify.token import V

DEGREES = ("identical", "scaled", "opposite", "weighted", "mostly", "directional", "near")  # how near a match is
EXACTLY = DEGREES[:3]  # the loss is the entry, but for a factor
TOLD = DEGREES[:5]  # what the loss is can be said by the entry
LIMIT = 1e-5  # distance of a fitted parameter from an end of its range within which it may have run off to that end
FAR_OUT = 30.0  # the size of a parameter without an end from which it may have run off to infinity
UNLIKE = 0.9  # relative error of an entry at its defaults above which it is not tried for a lost minus sign
CLOSE = 0.01  # the same with a free factor, up to which the entry is fitted again to see whether it is the loss
#: Relative gradient error that rounding may leave, by the type a loss computes in.
TOLERANCE = {torch.float64: EXACT, torch.float32: EXACT_FLOAT32}


FARTHEST = 6  # powers of ten of a factor, beyond which parameters have run off
FEWEST = 10  # tokens at which it is said what a loss is
FEW_ROWS = (100, 40, 10)  # enough to fit a loss that gives V numbers per token


@dataclass(frozen=True)
class Match:
    """One catalogue entry that the loss is, or comes near to.

    Attributes
    ----------
    name : str
        Id of the entry.
    params : dict
        Its parameters; a SymPy expression in V where the loss is the entry with a parameter that depends on V, and V
        itself where a number of tokens is all of them.
    level : str
        `identical` (equal gradients), `scaled` (equal up to `factor`), `opposite` (the same with a negative one),
        `directional` (at every token on the same ray, neither silent everywhere: the same target with other weights;
        of two gates, which share every ray, only if they are near), or `near` (none of these). `weighted`: equal but
        for a weight that depends on the label alone, as with class weights. `mostly`: equal, up to `factor`, at the
        `share` of the tokens tried, and otherwise at the others, as where something is clamped.
    error : float
        ‖g − factor · g_entry‖ / ‖g‖ on tokens that were not used in fitting, the largest over three vocabularies.
    factor : float or SymPy expression in V
        gradient of the loss = factor · gradient of the entry.
    share : float
        Share of the tokens at which that is so, of those that were not used in fitting.
    silent : bool
        Whether the loss has no gradient at any of the others.
    where : str
        The condition that tells these tokens from the others, where a plain one does.
    elsewhere : Match or None
        What the loss is at the others, where that is an entry, too.
    weights : tuple of float
        The smallest and the largest weight of a label, of the vocabularies tried.
    """

    name: str
    params: dict[str, Any]
    level: str
    error: float
    factor: Any = 1.0
    share: float = 1.0
    silent: bool = False
    where: str = ""
    elsewhere: Match | None = None
    weights: tuple[float, float] = (1.0, 1.0)

    def __str__(self) -> str:
        if self.level == "identical":
            return f"identical to {self._named()} (relative gradient error {self.error:.1g})"
        if self.level == "scaled":
            return (
                f"{short_number(self.factor)} × {self._named()}, a change of learning rate "
                f"(relative gradient error {self.error:.1g})"
            )
        if self.level == "opposite":
            return (
                f"{short_number(self.factor)} × {self._named()}, whose target a step of descent moves away from: "
                f"is a minus sign lost? (relative gradient error {self.error:.1g})"
            )
        if self.level == "weighted":
            low, high = map(short_number, self.weights)
            return f"{self._named()}, times a weight of {low} to {high} that depends on the label alone"
        if self.level == "mostly":
            others = "silent" if self.silent else self.elsewhere._times() if self.elsewhere else "something else"
            others += " at the others"
            if self.where:
                return f"{self._times()} {self.where}, and {others} ({1 - self.share:.0%} of those tried)"
            return f"{self._times()} at {self.share:.0%} of the tokens tried, and {others}"
        if self.level == "directional":
            return (
                f"in direction {self._named()} at every token, with other weights (they differ by {_share(self.error)})"
            )
        factor = "" if abs(self.factor - 1) < 1e-9 else f"{short_number(self.factor)} × "
        return f"near {factor}{self._named()}, but not it (gradients differ by {_share(self.error)})"

    def _repr_html_(self) -> str:
        return html.paragraph(str(self))

    def _repr_latex_(self) -> str:
        return rf"${html.words(str(self))}:\quad {ENTRIES[self.name].formula}$"

    def _times(self) -> str:
        return self._named() if self.factor == 1 else f"{short_number(self.factor)} × {self._named()}"

    def _named(self) -> str:
        inside = ", ".join(f"{k}={short_number(v)}" for k, v in self.params.items())
        return f"{self.name}({inside})" if inside else self.name


def _share(x: float) -> str:
    """7.04%, or 0.002%: never none of what is some."""
    return f"{x:.2%}" if x >= 1e-4 else f"{100 * x:.1g}%"


class Matches(list[Match]):
    """The matches, best first; printed, what the loss is in plain sentences.

    `sum` has the loss as a `Sum` of entries, where none alone has its gradient or direction and a sum has; else None.
    `together` is true where the matches weight by what a sequence or batch has in common, as the loss does: they were
    found on batches whose tokens are all of one sequence.
    """

    def __init__(
        self, matches: Sequence[Match], name: str, diagnosis: Diagnosis, total: Sum | None = None,
        together: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(matches)
        self.name, self.diagnosis, self.sum, self.together = name, diagnosis, total, together

    @property
    def verdict(self) -> str:
        """One sentence."""
        subject = self.name
        if self.diagnosis.apart:
            how = "All tokens of a batch taken for one sequence" if self.together else "Taken one token at a time"
            subject = f"{how}, {self.name}"
        if self.diagnosis.silent:
            return f"{subject} teaches nothing: its gradient is zero."
        best = self[0] if self else None
        if best and best.level in TOLD:
            return f"{subject} is {best}."
        if self.sum:
            return f"{subject} is a sum, {self.sum}."
        own = "a gate of its own" if self.diagnosis.gate else "unlike anything here"
        if not best:
            return f"{subject} is {own}{', and none of the catalogue comes near' if self.diagnosis.gate else ''}."
        if best.level == "directional":
            return f"{subject} {f'is {own}; it ' if self.diagnosis.gate else ''}points {best}."
        return f"{subject} is {own}; it is {best}."

    def __str__(self) -> str:
        also = [f"Also: {m}." for m in self[0 if self.sum else 1 :]]
        return "\n".join([self.verdict, *also, *self.diagnosis.sentences()])

    __repr__ = __str__

    def _repr_latex_(self) -> str:
        found = [rf"{html.words(m._named())}:\quad {ENTRIES[m.name].formula}" for m in self]
        return html.array([html.words(self.verdict), *found])

    def _repr_html_(self) -> str:
        rows = [(m._named(), m.level, short_number(m.factor), float(m.error)) for m in self]
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
        The context names it takes, such as `teacher_logits`. A QMap says by itself what it needs, and of a function
        all are given that its signature names: `contexts` leaves out some, or names those of a `**context`.
    top : int
        How many matches to return at most.

    Returns
    -------
    Matches
        A list of `Match`, best first: by level, then fewest parameters off their defaults, then catalogue
        order (nearest first below `opposite`). A multiple of an entry at its defaults counts as identical, with one
        parameter more. Empty when nothing comes near. Its `diagnosis` says what was measured, and its `sum` of which
        two entries a loss is made that is none of them.

    Raises
    ------
    ValueError
        The function raised (its message and `__cause__` are kept), or cannot be called with these contexts, or
        returns something other than finite, differentiable losses, or two calls on the same tokens differ.
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
    loss_fn, contexts = published(m), contexts or m.needs
    subject = examine(loss_fn, contexts)
    known = [spread_over_u(v, seed=0) for v in ROWS]
    measured = [subject(p) for p in known]
    diagnosis = diagnose(subject, known, measured)
    if diagnosis.apart and (beyond := _beyond(subject)):
        return Matches(beyond[:top], subject.name, diagnosis, together=True)
    few, near = (None, _at_jumps(subject, diagnosis)) if diagnosis.gate else (FEW_ROWS, [])
    if near:
        known[0] = functools.reduce(operator.add, near, known[0])
        measured[0] = subject(known[0])
    whole = _sample(measured, diagnosis.gate, few, tuple(j.u for j in diagnosis.jumps))
    sample = _usual(whole, measured, sum(len(p.labels) for p in near))
    apart = [subject(spread_over_u(v, seed=1)[:200]) for v in ROWS]
    held_out = _sample(apart, diagnosis.gate)
    if diagnosis.silent:
        return Matches([], subject.name, diagnosis)
    tolerance = TOLERANCE[subject.calling.rounding]
    usable = [cls for cls in ENTRIES.values() if set(cls.needs) <= set(diagnosis.used)]
    alike = [cls for cls in usable if _is_alike(cls, diagnosis)]
    matches, missed = _matches(alike, sample, held_out, tolerance)
    exact = any(m.level in EXACTLY for m in matches)
    if not exact and sample is not whole:
        found, _ = _matches(alike, whole, held_out, tolerance)  # where outliers alone tell parameters apart
        if exact := any(m.level in EXACTLY for m in found):
            matches = found
    tried, total = [*measured, *apart], None
    best = None if exact else _weighed_by_label(subject, alike, sample, held_out, tolerance)
    if not (exact or best):
        condition = condition_of(subject, tried, diagnosis.used, diagnosis.jumps)
        best = _where(condition, alike, sample, held_out, tolerance) if condition else None
    if not (exact or best):
        parts = [cls for cls in usable if _is_part(cls, diagnosis)]
        if sample.gate or not any(m.level == "directional" for m in matches):
            total = as_sum(parts, sample, held_out, tolerance)
        if total is None:
            if not matches:  # a gate at some tokens, which the loss as a whole is not
                missed = [fit(cls, sample, "ratio", tolerance) for cls in parts if cls not in alike] + missed
            in_parts = functools.partial(_in_parts, subject, diagnosis, missed, parts, sample, held_out, tolerance)
            best = in_parts(tried, range(len(ROWS)))
            if not (best and best.where):  # of two regions one has half of the tokens of every vocabulary alone
                both = in_parts([q for q in tried if q.batch.vocab == min(ROWS)], [0])
                best = both if both and both.elsewhere else best
    if best:
        matches = [best, *(m for m in matches if m.name != best.name)]
    return Matches(matches[:top], subject.name, diagnosis, total)


def _at_jumps(subject: Subject, d: Diagnosis) -> list[Batch]:
    """Tokens beside the jumps of a gate, also of those where the ratio to another model is large."""
    compares = not set(OTHER_MODELS).isdisjoint(d.used)
    far = jumps_of(subject, elsewhere=RARE) if compares else ()
    return [beside(jumps, elsewhere) for jumps, elsewhere in ((d.jumps, None), (far, RARE)) if jumps]


@functools.cache
def _one_sequence(vocab: int, seed: int) -> Batch:
    p = spread_over_u(vocab, seed)
    return replace(p, sequence=torch.zeros_like(p.labels))


def _beyond(subject: Subject) -> list[Match]:
    """The entries that look beyond the position and have the gradient of a loss in which tokens interact."""
    if subject.calling.reduction != "none":
        return []
    known, held_out = ([subject.together(_one_sequence(v, seed)) for v in ROWS] for seed in (0, 1))
    gate = all(q.is_gate for q in known)
    tolerance = TOLERANCE[subject.calling.rounding]
    samples = _usual(_sample(known, gate), known, 0), _sample(held_out, gate)
    usable = [cls for cls in ENTRIES.values() if cls.pools and set(cls.needs) <= set(subject.contexts)]
    found, _ = _matches([cls for cls in usable if is_gate(cls()) == gate], *samples, tolerance)
    return [match for match in found if match.level in EXACTLY]


def _sample(
    measured: Sequence[Measured], gate: bool, few: tuple[int, ...] | None = None, jumps: tuple[float, ...] = ()
) -> Sample:
    """Of all tokens, where no outlier counts for more than is bounded."""
    batches, gradients = tuple(q.batch for q in measured), tuple(q.gradient.numpy() for q in measured)
    outliers = any(bool(q.outliers.any()) for q in measured)
    importance = tuple(q.importance.numpy() for q in measured) if outliers else None
    return Sample(batches, gradients, gate, few, jumps, importance)


def _usual(whole: Sample, measured: Sequence[Measured], beside: int) -> Sample:
    """Without outliers, at which parameters that are a little off are far off, so that no search gets anywhere; but
    with the last tokens of the first vocabulary, those `beside` a jump."""
    outliers = [q.outliers.numpy() for q in measured]
    outliers[0][len(outliers[0]) - beside :] &= False
    return whole.at([np.flatnonzero(~x) for x in outliers]) if any(x.any() for x in outliers) else whole


def _is_alike(cls: type[QMap], d: Diagnosis) -> bool:
    """Whether an entry is of the same kind: gates for a gate, the same shift-invariance."""
    return cls.shift_invariant == d.shift_invariant and is_gate(cls()) == d.gate


def _is_part(cls: type[QMap], d: Diagnosis) -> bool:
    """Whether a sum of this kind may have the entry as a term: a sum of gates is one, and of shift-invariant losses."""
    return (not d.gate or is_gate(cls())) and (not d.shift_invariant or cls.shift_invariant)


def _weighed_by_label(
    subject: Subject, candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float
) -> Match | None:
    """The entry that the loss is but for a weight of the label."""
    weights = label_weights(subject, 10 * tolerance)
    if weights is None:
        return None
    known, apart = (replace(s, gradients=divided(s.gradients, s.batches, weights)) for s in (sample, held_out))
    found, _ = _exact_matches(candidates, known, apart, tolerance)
    if not found:
        return None
    best, every = min(found, key=_rank), np.concatenate(weights)
    ends = float(best.factor * every.min()), float(best.factor * every.max())
    return replace(best, level="weighted", factor=1.0, weights=ends)


def _where(
    condition: Condition, candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float
) -> Match | None:
    """The entry that the loss is at the tokens where it acts at all."""
    there = _exactly_at(condition, candidates, sample, held_out, tolerance)
    return there and replace(there, silent=True)


def _in_parts(
    subject: Subject, diagnosis: Diagnosis, missed: Sequence[Fit], candidates: list[type[QMap]],
    sample: Sample, held_out: Sample, tolerance: float, tried: Sequence[Measured], of: Sequence[int],
) -> Match | None:  # fmt: skip
    """The entry that the loss is at most tokens, or where a condition holds, and what it is at the others; looked for
    at the tokens `tried`, those of the vocabularies numbered `of`."""
    found = partly(missed, sample.only(*of), held_out.only(*of), tolerance)
    told = list(at_jumps(diagnosis.jumps))
    where = []
    for part in found:
        is_part = functools.partial(part.holds, gate=sample.gate, tolerance=tolerance)
        conditions = list(conditions_of(is_part, subject, tried, diagnosis.used, diagnosis.jumps))
        exactly = (c.words for c in conditions if all(np.array_equal(c.holds(q.batch), is_part(q)) for q in tried))
        where.append(next(exactly, ""))
        told += conditions
    for condition in told:
        if both := _either(condition, candidates, sample, held_out, tolerance):
            return both
    return _mostly(found[0], where[0]) if found else None


def _either(
    condition: Condition, candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float
) -> Match | None:
    """The entry that the loss is where a condition holds, with the one that it is at the others."""
    there = _exactly_at(condition, candidates, sample, held_out, tolerance)
    others = there and _exactly_at(condition.others, candidates, sample, held_out, tolerance)
    return there and others and replace(there, elsewhere=others)


def _exactly_at(
    condition: Condition, candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float
) -> Match | None:
    """The entry that the loss is, but for a factor, at the tokens where a condition holds."""
    there, apart = (s.at([np.flatnonzero(condition.holds(p)) for p in s.batches]) for s in (sample, held_out))
    shares = [len(g) / len(all_) for g, all_ in zip(apart.gradients, held_out.gradients, strict=True)]
    counts = [[len(g) for g in s.gradients] for s in (there, apart)]
    enough = [i for i in range(len(ROWS)) if all(n[i] for n in counts)]
    if any(sum(n[i] for i in enough) < FEWEST for n in counts):
        return None
    found, _ = _exact_matches(candidates, there.only(*enough), apart.only(*enough), tolerance)
    if not found:
        return None
    return replace(min(found, key=_rank), level="mostly", share=min(shares), where=condition.words)


def _mostly(part: Partial, where: str) -> Match:
    m = part.method
    return Match(m.name, m.params, "mostly", part.error, part.factor, part.share, part.silent, where)


def _exact_matches(
    candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float
) -> tuple[list[Match], list[Fit]]:
    """The entries that the loss is, but for a positive factor; and how near the others come."""
    found: list[Match] = []
    missed: list[Fit] = []
    for cls in candidates:
        close = fit(cls, sample, "ratio", tolerance)
        match = None
        if close.error <= CLOSE:  # equal is tried before proportional: a factor may stand for a parameter
            match = _exact(fit(cls, sample, "equal", tolerance), sample, held_out, tolerance)
            match = match or _exact(close, sample, held_out, tolerance)
        if match:
            found.append(match)
        else:
            missed.append(close)
    return found, missed


def _matches(
    candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float
) -> tuple[list[Match], list[Fit]]:
    """The entries that the loss is, or failing that comes near to, best first; and how near the others come."""
    found, missed = _exact_matches(candidates, sample, held_out, tolerance)
    if not any(m.level == "identical" for m in found):
        found += _depending_on_vocab(missed, sample, held_out, tolerance)
    if not found or sample.pushes:  # what unlearns on purpose is also what lost a minus sign
        found += _opposite(candidates, sample, held_out, tolerance)
    # Two gates whose weights have one sign share every ray, and a loss that is recognised needs no other.
    rays = not found and not sample.gate
    named = {m.name for m in found}
    for close in missed:
        if close.method.name not in named:
            ray = fit(type(close.method), sample, "ray", tolerance) if rays else close
            match = _inexact(close, ray, sample, held_out, tolerance)
            if match:
                found.append(match)
    return sorted(found, key=_rank), missed


def _rank(m: Match) -> tuple[Any, ...]:
    """The best first: by level, then the plainest."""
    order = list(ENTRIES)
    changed = sum(v != getattr(ENTRIES[m.name], k) for k, v in m.params.items())
    if m.level not in EXACTLY:  # of those that come as near but for rounding, the plainest
        return (DEGREES.index(m.level), float(f"{m.error:.4g}"), changed, order.index(m.name))
    if m.level == "scaled" and not changed:  # plainer than an entry in which a parameter stands for the factor
        return (0, 1, len(m.params), order.index(m.name))
    return (DEGREES.index(m.level), changed, len(m.params), order.index(m.name))


def _opposite(candidates: list[type[QMap]], sample: Sample, held_out: Sample, tolerance: float) -> list[Match]:
    """The entries of which the loss is a negative multiple."""
    found = []
    for cls in candidates:
        if sample.opposite.largest.error(cls(), "ratio") > UNLIKE:
            continue
        match = _exact(fit(cls, sample.opposite, "ratio", tolerance), sample.opposite, held_out.opposite, tolerance)
        if match:
            found.append(replace(match, level="opposite", factor=-match.factor))
    return found


def _exact(close: Fit, sample: Sample, held_out: Sample, tolerance: float) -> Match | None:
    """The match of a fit that is exact, also on tokens that it was not fitted to; None otherwise."""
    if close.error > tolerance:
        return None
    close = simplified(close, sample, tolerance)
    if _is_limit(close, sample, tolerance):
        return None
    error = held_out.error(close.method, close.mode, close.factor)
    if error > 10 * tolerance:
        return None
    params = close.method.params
    for name, value in params.items():  # where the largest vocabulary is passed, and it matters no more: all tokens
        if isinstance(value, int) and value >= max(ROWS):
            beyond = close.method.replace(**{name: 2 * value})
            if held_out.error(beyond, close.mode, close.factor) <= 10 * tolerance:
                params = params | {name: V}
    same = abs(close.factor - 1) <= tolerance
    factor = next(iter(simple_numbers(close.factor, within=10 * tolerance, least=0)), close.factor)
    return Match(close.method.name, params, "identical" if same else "scaled", error, factor)


def _inexact(close: Fit, ray: Fit, sample: Sample, held_out: Sample, tolerance: float) -> Match | None:
    """A match of direction, if the fit of directions `ray` is exact, or else a near one; None where it is far off."""
    if not _is_limit(ray, sample, tolerance) and all(
        s.same_rays(ray.method, 100 * tolerance) for s in (sample, held_out)
    ):
        _, factor = sample.difference(ray.method, "ratio")
        error = held_out.error(ray.method, "equal", factor)
        near = error <= NEAR or not sample.gate
        return Match(ray.method.name, ray.method.params, "directional", error, factor) if near else None
    error = held_out.error(close.method, "equal", close.factor)
    far = error > NEAR or abs(math.log10(close.factor or 1)) > FARTHEST
    if far or _is_limit(close, sample, tolerance):
        return None
    return Match(close.method.name, close.method.params, "near", error, close.factor)


def _is_limit(close: Fit, sample: Sample, tolerance: float) -> bool:
    """Whether a parameter has run off to an end of its range, or far out where there is none, so that values farther on
    do as well: then it is no method that is near, but what methods tend to. A closed end is met exactly where it is
    meant."""
    m = close.method
    for f in m.parameters():
        if not isinstance(f.default, float) or (value := getattr(m, f.name)) == f.default:
            continue
        ends = {limits(f)[key] for key in ("low", "high", "above", "below")} - {None}
        onward = [(end + (value - end) / 10, CLOSE) for end in ends if 0 < abs(value - end) < LIMIT]
        if abs(value) >= FAR_OUT and not any((end - value) * value > 0 for end in ends):
            onward.append((2 * value, 10 * tolerance))
        for farther, bound in onward:  # near an end, rounding may not be small
            if sample.error(m.replace(**{f.name: farther}), close.mode) <= max(close.error, bound):
                return True
    return False


FORMS = (V / (V - 1), (V - 1) / V, 1 / V, V, 1 / (V - 1), V - 1, 1 / sp.log(V), sp.log(V), 1 / sp.sqrt(V), sp.sqrt(V))
SHARES = (1 / V, 1 / (V - 1), 1 / (V + 1), 1 / sp.log(V), 1 / sp.sqrt(V))  # of which a + b · form is tried, too


def _depending_on_vocab(missed: list[Fit], sample: Sample, held_out: Sample, tolerance: float) -> list[Match]:
    """Entries that fit each vocabulary alone, with parameters or a factor that depend on V in a known form. Example: a
    smoothing of 0.1 (V − 1)/V."""
    found = []
    alone = [sample.only(i) for i in range(len(ROWS))]

    def apart(close: Fit) -> float:
        """How near the entry comes where every vocabulary has a factor of its own."""
        likely = (close.method, type(close.method)())
        return min(max(one.error(m, "ratio") for one in alone) for m in likely)

    for close in sorted(missed, key=apart)[:6]:
        cls = type(close.method)
        if fit(cls, sample.only(0), "ratio", tolerance).error > tolerance:  # not even with a factor
            continue
        for mode in ("equal", "ratio"):
            match = _per_vocab(cls, mode, sample, held_out, tolerance)
            if match:
                found.append(match)
                break
    return found


def _per_vocab(cls: type[QMap], mode: Mode, sample: Sample, held_out: Sample, tolerance: float) -> Match | None:
    fits: list[Fit] = []
    whole: dict[str, Any] = {}  # numbers, which smaller vocabularies may not tell: a top-k may be all of them
    for i in reversed(range(len(ROWS))):
        close = fit(cls, sample.only(i), mode, tolerance, whole)
        if close.error > tolerance:
            return None
        simple = simplified(close, sample.only(i), tolerance)
        whole = whole or {k: v for k, v in simple.method.params.items() if isinstance(v, int)}
        fits.insert(0, replace(simple, method=simple.method.replace(**whole)))
        if _is_limit(fits[0], sample.only(i), tolerance):
            return None
    values = {k: [getattr(f.method, k) for f in fits] for k in fits[0].method.params}
    params = {k: _in_vocab(v) for k, v in values.items()}
    wholes = [k for k in params.values() if isinstance(k, int)]
    factor = _in_vocab([f.factor for f in fits], wholes) if mode == "ratio" else 1.0
    if factor is None or any(v is None for v in params.values()):
        return None
    error = max(held_out.only(i).error(f.method, mode, f.factor) for i, f in enumerate(fits))
    if error > 10 * tolerance:
        return None
    return Match(cls.name, params, "identical" if mode == "equal" else "scaled", error, factor)


def _in_vocab(values: list[Any], wholes: Sequence[int] = ()) -> Any:
    """One value for all vocabularies, or a multiple of a known form of V, or None. A factor may also depend on how many
    tokens a number of them, of those in `wholes`, is where the vocabulary has fewer."""
    if isinstance(values[0], (str, int)):
        return values[0] if len(set(values)) == 1 else None
    counts = [sp.Min(k, V) for k in wholes]
    for form in (sp.Integer(1), *FORMS, *(f for n in counts for f in (sp.log(n), 1 / sp.log(n), n, 1 / n))):
        parts = [x / float(form.subs(V, vocab)) for x, vocab in zip(values, ROWS, strict=True)]
        if max(parts) - min(parts) <= 1e-5 * max(map(abs, parts)):
            multiple = next(iter(simple_numbers(parts[0], within=1e-5)), parts[0])
            return multiple if form == 1 else _exactly(multiple) * form
    for form in () if counts else SHARES:
        first, middle, last = (float(form.subs(V, vocab)) for vocab in ROWS)
        slope = (values[0] - values[2]) / (first - last)
        rest = values[0] - slope * first
        if abs(rest + slope * middle - values[1]) <= 1e-6 * max(map(abs, values)):
            written = [x for number in (rest, slope) for x in simple_numbers(number, within=1e-5)[:1]]
            if len(written) == 2:  # two numbers that nobody may have written say nothing of three
                return _exactly(written[0]) + _exactly(written[1]) * form
    return None


def _exactly(x: float) -> Any:
    """A whole number, or a fraction that no few digits have, as such."""
    near = Fraction(x).limit_denominator(100)
    return sp.Rational(near) if float(near) == x and (near.denominator == 1 or len(repr(x)) > 8) else x
