"""The drift of a method where its prediction is the truth, measured: its size, and the direction in which it points.

With b = E_{y~p} Q − p the expected target is p + b: what b does to p is what training does to a calibrated model.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from qunify._lib.tolerances import ROUNDING
from qunify.maps import Pulled, QMap, logit_gradient
from qunify.population._gradient_flow import Flow
from qunify.samples import at_predictions
from qunify.token import TensorToken

#: Contexts that are distributions or sets of tokens, as a reader would name them.
NAMED = {
    "reference_logits": "the reference",
    "teacher_logits": "the teacher",
    "old_logits": "the old policy",
    "prior_logits": "the prior",
    "teacher_base_logits": "the teacher's base",
    "negative_mask": "the negative tokens",
}


@dataclass(frozen=True)
class Calibrated:
    """N models that predict the truth, each in a context of its own. float64."""

    flow: Flow  # whose truths (N, V) are the predictions
    logits: Tensor  # (N, V)

    @property
    def rows(self) -> Tensor:
        return torch.arange(len(self.logits))

    @property
    def probs(self) -> Tensor:
        """The softmax of the logits, which is the truth unless the method predicts through another link."""
        return torch.softmax(self.logits, -1)

    @property
    def drift(self) -> Tensor:
        return self.flow.drift(self.logits, self.rows)

    @functools.cached_property
    def size(self) -> Tensor:
        """How large what adds up to the gradient is, E_y max_k, (N, 1): the drift is measured by it. Of rows that are
        far smaller than the largest, a share of that, as they are rounded."""
        n, v = self.logits.shape
        t = self._every_token
        largest = Pulled.of(t, self.flow.m.pulls(t)).magnitude.view(n, v, v).amax(-1)
        size = (self.flow.truth * largest).sum(-1, keepdim=True)
        return size.clamp(min=max(1e-5 * float(size.max()), 1e-300))

    @property
    def relative(self) -> Tensor:
        """The drift in units of `size`."""
        return self.drift / self.size

    @property
    def violation(self) -> Tensor:
        """|Σ_k b_k| in units of `size`, (N,): above rounding the loss is not shift-invariant."""
        return self.relative.sum(-1).abs()

    @property
    def _every_token(self) -> TensorToken:
        n, v = self.logits.shape
        return self.flow.token(self.logits.repeat_interleave(v, 0), self.rows.repeat_interleave(v), every_label(n, v))

    def by_pull(self) -> list[Tensor]:
        """The part of the drift that each pull makes, (N, V) each; they add up to `relative`."""
        n, v = self.logits.shape
        t = self._every_token
        parts = [logit_gradient(t, [pull]).view(n, v, v) for pull in self.flow.m.pulls(t)]
        return [-torch.einsum("ny,nyk->nk", self.flow.truth, g) / self.size for g in parts]


def every_label(n: int, v: int) -> Tensor:
    """Every label for each of n rows, (n·v,)."""
    return torch.arange(v).repeat(n)


@torch.no_grad()
def calibrated(
    m: QMap, vocab: int, count: int, *, spread: tuple[float, float], through_link: bool = False
) -> Calibrated:
    """Random predictions, from nearly flat to sharp: logits of a standard deviation from spread[0] to spread[1]. Token
    weights are positive, and no token is masked. Through a link that flattens, logits are larger by as much."""
    batch = at_predictions(vocab, count, spread)
    z = batch.logits
    given = {name: batch.token.given[name] for name in m.needs}
    truth = torch.softmax(z, -1)
    if through_link:
        flow, rows, labels = Flow(m, truth, given), torch.arange(count), torch.zeros(count, dtype=torch.long)
        for _ in range(8):
            truth = m.prediction(flow.token(z, rows, labels)).probs
            flattens = float((batch.logits.std(-1) / truth.log().std(-1)).nanmedian())  # no number beside zeros
            if not flattens > 4:
                break
            z = z * min(flattens, 1e8)
    return Calibrated(Flow(m, truth, given), z)


@torch.no_grad()
def drift_direction(m: QMap, *, through_link: bool = False) -> str:
    """Where a calibrated model is led, in a few words: one direction that holds for all predictions and contexts tried,
    else that of each pull, else "mixed"."""
    groups = [calibrated(m, v, 150, spread=(0.2, 3.0), through_link=through_link) for v in (3, 5)]
    whole = _common([(c, c.relative) for c in groups])
    if whole is not None:
        return whole
    parts = zip(*([(c, b) for b in c.by_pull()] for c in groups), strict=True)
    words = [_common(part) for part in parts]
    found = [w for w in words if w not in (None, "none")]
    return " and ".join(dict.fromkeys(w for w in found if w)) if found and None not in words else "mixed"


def _common(found: Iterable[tuple[Calibrated, Tensor]]) -> str | None:
    """The first direction that holds in every group; None if there is none."""
    candidates = [_directions(c, b) for c, b in found]
    return next((word for word in candidates[0] if all(word in other for other in candidates)), None)


def _directions(c: Calibrated, b: Tensor) -> list[str]:
    """Every direction in which b points at all rows, the most telling first. A sum that is NaN, as log p · b may be at
    probability zero, has no sign, so that nothing is said of it."""
    p, v = c.flow.truth, c.flow.vocab
    moves = b.abs().amax(-1) > ROUNDING
    if not bool(moves.any()):
        return ["none"]
    to_uniform = 1 / v - p
    said = []
    if bool((_off_ray(b, to_uniform) <= 1e-7 * b.norm(dim=-1) + ROUNDING).all()):
        said += _signed((b * to_uniform).sum(-1), "toward uniform", "away from uniform")
    for name in c.flow.m.needs:
        if name not in NAMED:
            continue
        given, what = c.flow.context[name], NAMED[name]
        if name.endswith("_logits"):
            given = torch.softmax(given, -1)
            said += _signed((given / p * b).sum(-1), f"toward {what}", f"away from {what}")  # −d KL(given‖p + b)
            said += _signed((given * b).sum(-1), f"toward tokens {what} favours", f"away from tokens {what} favours")
        else:
            said += _signed((given * b).sum(-1), f"toward {what}", f"away from {what}")
    return said + _signed((p.log() * b).sum(-1), "sharpening", "flattening")  # −d H(p + b)


def _off_ray(b: Tensor, ray: Tensor) -> Tensor:
    """How far b (N, V) is from its projection on the ray (N, V), (N,)."""
    along = (b * ray).sum(-1, keepdim=True) / (ray * ray).sum(-1, keepdim=True).clamp(min=1e-300)
    return (b - along * ray).norm(dim=-1)


def _signed(x: Tensor, positive: str, negative: str) -> list[str]:
    """The first word where x is positive in every row, the second where it is negative, rounding aside; else none."""
    if not bool((x.abs() > ROUNDING).any()):
        return []
    if bool((x > -ROUNDING).all()):
        return [positive]
    return [negative] if bool((x < ROUNDING).all()) else []
