"""Does a loss leave a calibrated model alone, and is it a proper scoring rule? Symbols prove, numbers decide the rest.

Unbiased: E_{y~p} Q = p for every p, so that the drift vanishes where the model predicts the truth. Proper: the expected
loss S(p, η) = Σ η_y L(p, y) is least at p = η. For a loss without detached parts that is unbiased,
S(p, η) = G(p) + ⟨∂G(p), η − p⟩ with G(p) = S(p, p), the value at η of the tangent of G at p. Tangents lie above G, that
is, S(p, η) ≥ S(η, η), exactly if G is concave (Savage 1971; Gneiting and Raftery 2007, who reward where we punish, so
that their G is convex). Example: for L = −log p_y, G is the entropy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from qunify import catalogue
from qunify._lib import html
from qunify._lib.tolerances import CLEAR_DIFFERENCE, ROUNDING
from qunify.catalogue import signature
from qunify.maps import (
    WITNESS_LSE,
    Method,
    QMap,
    computed_in,
    exact_gradient,
    exact_loss,
    judged_alone,
    logit_gradient,
    measured_in,
    remembered,
)
from qunify.population._drift_at_truth import Calibrated, calibrated, drift_direction, every_label
from qunify.population._gradient_flow import Flow, is_stable_zero, logits_of
from qunify.population._symbolic_drift import Drift, symbolic_bias
from qunify.samples import in_fractions, sizes
from qunify.symbolic import LONGEST_BIAS, TooLargeError, as_latex, as_text, settled_by_symbols, vanishes_everywhere
from qunify.token import TensorToken, decimal

_VOCABS = (2, 3, 5, 24)
_LARGEST = 1100  # the drift costs V² numbers: larger vocabularies are left to the symbols
_SHARP = (0.2, 7.0)  # standard deviations of logits: predictions from nearly flat to nearly certain,
_ORDINARY = (0.2, 2.0)  # and to those of an ordinary model

#: Truths at which a bias is looked for, the most readable first.
_TRUTHS = ((5, 3, 2), (17, 2, 1), (9, 6, 3, 2), (94, 5, 1), (8, 5, 4, 2, 1), (999990, 9, 1))


@dataclass(frozen=True)
class Biased:
    """A truth at which the drift does not vanish: what it is there, to fifty digits (shown as floats)."""

    truth: tuple[Fraction, ...]
    context: Mapping[str, Any]
    drift: tuple[float, ...]

    def __str__(self) -> str:
        return f"at p = truth = ({_listed(self.truth)}) the drift is ({_listed(f'{x:.4g}' for x in self.drift)})"


@dataclass(frozen=True)
class NotConcave:
    """Where G(p) = Σ_y p_y L(p, y) is not concave: by `gap`, G(share·p + (1 − share)·q) falls short of the chord."""

    p: tuple[Fraction, ...]
    q: tuple[Fraction, ...]
    share: Fraction
    context: Mapping[str, Any]
    gap: float

    def __str__(self) -> str:
        return (
            f"between p = ({_listed(self.p)}) and q = ({_listed(self.q)}), at λ = {self.share}, the expected loss of a "
            f"calibrated model is {self.gap:.4g} below the chord"
        )


@dataclass(frozen=True)
class Properness:
    """The verdict of `is_proper`.

    Attributes
    ----------
    method, link : str
        The method, with the parameters that are not at their defaults, and what the prediction p is.
    unbiased : bool
        Whether the drift vanishes wherever the prediction is the truth, in every context, at tokens not masked out.
    proved : bool
        Whether `unbiased` is decided by symbols, for every vocabulary size, or refuted by `witness`. False where only
        floating point speaks.
    attracts : bool
        Whether the truth is then a stable zero of the drift, at every truth tried. Unbiased is not enough: gradient
        ascent is, and runs away.
    proper, strict : bool
        Whether the expected loss is least where the prediction is the truth, and nowhere else. Measured. False for
        losses with detached parts, whose gradient is that of no expected loss, even where they are unbiased.
    direction : str
        Where a calibrated model is led: "none", "sharpening", "flattening", "toward uniform", "toward the teacher", …
        Read off the drift of many calibrated models; "mixed" where no one direction holds for all. "no target" where
        the loss is not shift-invariant.
    bias : str or None
        LaTeX of the drift b_k at p = η, with sums over all tokens j. None where it vanishes or is too long to read.
    formula : sympy expression or None
        The same for computing with it.
    reason : str
        Why it is not proper; empty if it is.
    witness : Biased or NotConcave or None
        Where unbiased, or else concave, fails.
    through_link : Properness or None
        The same verdict where the prediction is not the softmax but goes through the method's own link.
    precision : str
        What a loss function computes in: the verdict holds to the rounding of that type.
    alone : bool
        Tokens interact in a loss function: it was given one token at a time, and the verdict is of that.
    """

    method: str
    link: str
    unbiased: bool
    proved: bool
    direction: str
    attracts: bool = False
    proper: bool = False
    strict: bool = False
    bias: str | None = None
    formula: sp.Expr | None = field(default=None, repr=False)
    reason: str = ""
    witness: Biased | NotConcave | None = field(default=None, repr=False)
    through_link: Properness | None = None
    precision: str = "float64"
    alone: bool = False

    def __str__(self) -> str:
        said = f"{'Taken one token at a time, ' if self.alone else ''}{self.method} {self._said()}"
        if self.through_link is not None:
            said += f"; through its link {self.through_link.link} it {self.through_link._said()}"
        return f"{said}."

    def _said(self) -> str:
        how = measured_in(self.precision, self.proved)
        if self.proper:
            return f"is {'strictly proper' if self.strict else 'proper, not strictly'} (unbiased: {how})"
        if self.unbiased:
            stays = "attracts" if self.attracts else "does not attract"
            return f"is unbiased ({how}) and the truth {stays}, but it is not proper: {self.reason}"
        if self.direction == "no target":
            return f"is not proper: {self.reason}"
        direction = "in no one direction" if self.direction == "mixed" else self.direction
        return f"is biased ({how}): from the truth it drifts, {direction}"

    def _repr_latex_(self) -> str:
        if self.unbiased or self.direction == "no target":
            return html.array([html.words(str(self))])
        return html.array([rf"b_k={self.bias}" if self.bias else html.words(str(self))])

    def _repr_html_(self) -> str:
        shown = [v for v in (self, self.through_link) if v is not None]
        rows = [
            (name, *(getattr(v, name) for v in shown))
            for name in ("unbiased", "proved", "attracts", "proper", "strict", "direction")
        ]
        more = [] if self.formula is None else [f"Drift at p = η: b_k = {as_text(self.formula)}"]
        more += [] if self.witness is None else [f"Witness: {self.witness}"]
        table = html.table(("", *(v.link for v in shown)), rows)
        return html.paragraph(str(self)) + table + "".join(map(html.paragraph, more))


def is_proper(m: Method) -> Properness:
    """Decide whether a method leaves a calibrated model alone, and whether it is a proper scoring rule.

    Parameters
    ----------
    m
        An id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token, in nats.

    Notes
    -----
    What is said holds for every context. Token weights count as positive and tokens as unmasked: at weight zero
    nothing is learned, whatever the loss. A loss that is not shift-invariant has no target, hence no drift: it is
    neither unbiased nor proper here, even where its expected loss is least at the truth, as that of z_loss is.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        Neither id, QMap nor function, or parameters that are symbols.
    """
    return _decide(catalogue.as_method(m, "is_proper"))


@remembered
def _decide(m: QMap) -> Properness:
    if not m.shift_invariant or not _shift_invariant(m):
        return _no_target(m)
    linked = None if m.link == "softmax" else _verdict(m, through_link=True)
    return _verdict(m, through_link=False, linked=linked)


def _no_target(m: QMap) -> Properness:
    return Properness(
        method=signature(m),
        link="softmax",
        unbiased=False,
        proved=settled_by_symbols(m) and _refuted(m) is not None,
        direction="no target",
        reason="it is not shift-invariant, so it has no target",
        witness=_refuted(m),
    )


def _verdict(m: QMap, *, through_link: bool, linked: Properness | None = None) -> Properness:
    prediction = m.link if through_link else "softmax"
    drift = _symbolic(m, through_link) if settled_by_symbols(m) else None
    if not _unbiased(m, through_link):
        refuted = None if through_link else _refuted(m)
        form = None if drift is None else drift.at_k
        form = form if form is not None and len(as_text(form)) <= LONGEST_BIAS else None
        return Properness(
            method=signature(m),
            link=prediction,
            unbiased=False,
            proved=refuted is not None and settled_by_symbols(m),
            direction=drift_direction(m, through_link=through_link),
            bias=None if form is None else as_latex(form),
            formula=form,
            reason="it is biased",
            witness=refuted,
            through_link=linked,
            precision=computed_in(m),
            alone=judged_alone(m),
        )
    proper, strict, reason = _scoring(m, through_link)
    return Properness(
        method=signature(m),
        link=prediction,
        unbiased=True,
        proved=drift is not None and _vanishes(drift),
        attracts=_attracts(m, through_link),
        proper=proper,
        strict=strict,
        direction="none",
        reason=reason,
        witness=None if proper or through_link or reason == _DETACHED else _not_concave(m),
        through_link=linked,
        precision=computed_in(m),
        alone=judged_alone(m),
    )


def _symbolic(m: QMap, through_link: bool) -> Drift | None:
    """The drift where the prediction is the truth, in symbols; None where it cannot be written in them."""
    try:
        return symbolic_bias(m, through_link=through_link)
    except (ValueError, TypeError, NotImplementedError):  # entangled sums, or a user's function of tensors alone
        return None


def _vanishes(drift: Drift) -> bool:
    """Whether it is proved to be zero at every token."""
    try:
        return vanishes_everywhere(drift.at_y).holds
    except TooLargeError:
        return False


# ---- the drift at the truth ----------------------------------------------------------------------------------


def _batches(m: QMap, through_link: bool) -> list[Calibrated]:
    vocabs = (*_VOCABS, *(v for v in sizes(m) if max(_VOCABS) < v <= _LARGEST))
    return [calibrated(m, v, max(min(64, 1500 // v**2), 1), spread=_SHARP, through_link=through_link) for v in vocabs]


def _shift_invariant(m: QMap) -> bool:
    """Measured, since a user's function need not be what its class says."""
    c = calibrated(m, 5, 16, spread=_ORDINARY)
    return bool((c.violation < ROUNDING).all())


def _unbiased(m: QMap, through_link: bool) -> bool:
    small = all(bool((c.relative.abs() < ROUNDING).all()) for c in _batches(m, through_link))
    return small and (through_link or not settled_by_symbols(m) or _refuted(m) is None)


def _attracts(m: QMap, through_link: bool) -> bool:
    """Whether the truth is a stable zero of the drift, for every truth tried."""
    spread = (0.05, 0.15) if through_link else (0.3, 0.8)  # so flat that a sparse link leaves every token some mass
    groups = (calibrated(m, v, 4, spread=spread, through_link=through_link) for v in (2, 3, 5))
    return all(bool(is_stable_zero(c.flow, c.probs, c.rows).all()) for c in groups)


@remembered
def _refuted(m: QMap) -> Biased | None:
    """The first truth at which the drift is clearly not zero: in fractions, and to fifty digits."""
    for weights in _TRUTHS:
        truth = tuple(Fraction(w, sum(weights)) for w in weights)
        context = {name: in_fractions(len(truth), 0)[name] for name in m.needs}
        drift, size = _exact_drift(m, truth, context)
        if max(map(abs, drift)) > CLEAR_DIFFERENCE * size:
            return Biased(truth, context, drift)
    return None


def _exact_drift(m: QMap, truth: Sequence[Fraction], context: Mapping[str, Any]) -> tuple[tuple[float, ...], float]:
    """The drift, and the largest entry of the gradients whose mean it is, which says what is small."""
    if not settled_by_symbols(m):
        g = _floats(m, truth, context).flow
        at = logits_of(g.truth), torch.zeros(1, dtype=torch.long)
        return tuple(g.drift(*at)[0].tolist()), float(g.size(*at).amax())
    rows = [exact_gradient(m, truth, y, context, WITNESS_LSE) for y in range(len(truth))]
    shares = list(map(decimal, truth))
    drift = [-sum(t * g for t, g in zip(shares, column, strict=True)) for column in zip(*rows, strict=True)]
    return tuple(map(float, drift)), float(max(abs(g) for row in rows for g in row))


# ---- the expected loss ---------------------------------------------------------------------------------------

_DETACHED = "part of it is detached, so that its gradient is that of no expected loss"


def _scoring(m: QMap, through_link: bool) -> tuple[bool, bool, str]:
    """Whether the loss is proper, whether strictly, and why not. Measured on every pair of a prediction and a truth of
    one context: the expected loss must not be smaller than where the prediction is that truth."""
    if _detached(m):
        return False, False, _DETACHED
    regret = torch.cat([_regret(m, v, seed, through_link) for v in (2, 3, 5) for seed in range(3)])
    if regret.numel() == 0:
        return False, False, "in float64 its predictions are all the same"
    least, clear = float(regret.amin()), 1e-6 * float(regret.abs().median())
    if least < -clear:
        return False, False, "a prediction other than the truth has a smaller expected loss"
    return True, least > clear, ""


@torch.no_grad()
def _detached(m: QMap) -> bool:
    """Whether the method's gradient differs from the central differences of its loss: then part of it is detached."""
    c, step = calibrated(m, 5, 40, spread=_ORDINARY), 1e-5
    n, v = c.logits.shape
    z, rows, y = c.logits.repeat_interleave(v, 0), c.rows.repeat_interleave(v), every_label(n, v)
    along = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    ahead, behind = (_losses(m, c.flow.token(z + s * step * along, rows, y)) for s in (1, -1))
    t = c.flow.token(z, rows, y)
    slope = (logit_gradient(t, m.pulls(t)) * along).sum(-1)
    off = ((ahead - behind) / (2 * step) - slope).abs() > 1e-6 * (slope.abs().amax() + slope.abs() + ahead.abs())
    return float(off.double().mean()) > 0.02  # a few tokens may sit on a jump


def _losses(m: QMap, t: TensorToken) -> Tensor:
    """The loss of every token, (N,), also where it does not depend on the token."""
    return (m.loss(t) + torch.zeros_like(t.p_label))[:, 0]


@torch.no_grad()
def _regret(m: QMap, vocab: int, seed: int, through_link: bool, count: int = 30) -> Tensor:
    """The regret S(p, q) − S(q, q) over ‖p − q‖², for pairs of a prediction p and a truth q in one context, near and
    far apart: negative where the loss is not proper, near 0 where it is not strictly proper."""
    c = calibrated(m, vocab, 2 * count, spread=_ORDINARY, through_link=through_link)
    r = torch.Generator().manual_seed(seed)
    z = c.logits.clone()
    z[count:] = z[:count] + 0.05 * torch.randn(count, vocab, generator=r, dtype=z.dtype)  # neighbours
    n = len(z)
    one = torch.full((n * vocab,), seed)  # the context of one row serves all
    t = c.flow.token(z.repeat_interleave(vocab, 0), one, every_label(n, vocab))
    loss = _losses(m, t).view(n, vocab)
    predicted = (m.prediction(t) if through_link else t.policy).probs.view(n, vocab, vocab)[:, 0]
    expected = loss @ predicted.T  # (prediction, truth)
    apart = torch.cdist(predicted, predicted).square()
    regret = (expected - expected.diagonal()) / apart.clamp(min=1e-300)
    return regret[apart > 1e-6 * apart.amax()]


def _not_concave(m: QMap) -> NotConcave | None:
    """Two predictions, in fractions, at whose midpoint G lies below its chord; None if none are found."""
    half = Fraction(1, 2)
    points = [tuple(Fraction(w, sum(x)) for w in x) for x in ((5, 3, 2), (2, 3, 5), (17, 2, 1), (1, 1, 1), (1, 15, 4))]
    context = {name: in_fractions(3, 0)[name] for name in m.needs}
    for i, p in enumerate(points):
        for q in points[:i]:
            middle = tuple(half * (a + b) for a, b in zip(p, q, strict=True))
            mine, chord = _own_loss(m, middle, context), (_own_loss(m, p, context) + _own_loss(m, q, context)) / 2
            if chord - mine > CLEAR_DIFFERENCE * abs(chord):
                return NotConcave(p, q, half, context, float(chord - mine))
    return None


def _own_loss(m: QMap, p: Sequence[Fraction], context: Mapping[str, Any]) -> Any:
    """G(p) = Σ_y p_y L(p, y), to fifty digits where the method has them."""
    if not settled_by_symbols(m):
        c = _floats(m, p, context)
        t = c.flow.token(c.logits.expand(len(p), -1), torch.zeros(len(p), dtype=torch.long), torch.arange(len(p)))
        return float(_losses(m, t) @ c.probs[0])
    return sum(decimal(x) * exact_loss(m, p, y, context) for y, x in enumerate(p))


def _floats(m: QMap, truth: Sequence[Fraction], context: Mapping[str, Any]) -> Calibrated:
    """One model that predicts a truth given in fractions."""
    given = {}
    for name, value in context.items():
        x = torch.tensor([float(a) for a in (value if isinstance(value, tuple) else (value,))], dtype=torch.float64)
        given[name] = (x.log() if name.endswith("_logits") else x)[None]
    p = torch.tensor([[float(x) for x in truth]], dtype=torch.float64)
    return Calibrated(Flow(m, p, given), p.log())


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
