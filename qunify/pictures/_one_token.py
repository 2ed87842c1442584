"""What one method does at one small token: the numbers that `qunify show` prints and draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from qunify.maps import QMap

#: The token that every page uses: five vocabulary entries, logits log(weights), so p = weights / Σ weights.
TOKENS = "abcde"
LABEL = 1
WEIGHTS = (8.0, 5.0, 4.0, 2.0, 1.0)
CONTEXT = {
    "reference_logits": (6.0, 6.0, 4.0, 3.0, 1.0),  # these five as weights too
    "teacher_logits": (2.0, 12.0, 4.0, 1.0, 1.0),
    "old_logits": (9.0, 4.0, 4.0, 2.0, 1.0),
    "prior_logits": (10.0, 2.0, 4.0, 3.0, 1.0),
    "teacher_base_logits": (4.0, 6.0, 4.0, 4.0, 2.0),
    "token_weight": 0.8,
    "token_mask": 1.0,
    "negative_mask": (1.0, 0.0, 0.0, 0.0, 0.0),
    "token_values": (0.0, 1.0, 2.0, 3.0, math.nan),  # the last one is no number
}
CURVE_POINTS = 101


def example(m: QMap) -> dict[str, Any]:
    """What the method teaches at the one token: p, the loss, the gradient, and Q in three gauges."""
    import torch

    from qunify.maps import GAUGES

    z = torch.tensor(WEIGHTS, dtype=torch.float64).log()
    q = m(z[None], torch.tensor([LABEL]), **_context(1))
    gauges = {}
    for name in GAUGES:
        scale, target, trust, residual = q.in_gauge(name)
        gauges[name] = {
            "scale": _plain(scale[0]),
            "target": _plain(target[0]),
            "trust": _plain(trust[0]),
            "residual": _plain(residual[0]),
        }
    return {
        "tokens": list(TOKENS),
        "label": LABEL,
        "logits": _plain(z),
        "context": {name: _plain(value[0]) for name, value in _context(1).items() if name in m.needs},
        "p": _plain(z.softmax(-1)),
        "loss": _plain(q.loss[0]),
        "gradient": _plain(q.gradient[0]),
        "in_simplex": bool(q.in_simplex[0]),
        "gauges": gauges,
    }


def curve(m: QMap) -> dict[str, Any]:
    """−g_y while u goes from 0 to 1 and the other tokens keep their proportions; for a gate also its weight."""
    import torch

    u = torch.linspace(0.002, 0.998, CURVE_POINTS, dtype=torch.float64)
    gradient, _, is_gate = along(m, u)
    pull = -gradient[:, LABEL]
    return {"u": _plain(u), "pull": _plain(pull), "weight": _plain(pull / (1 - u)) if is_gate else None}


def along(m: QMap, u: Tensor, mass: float = 1.0) -> tuple[Tensor, Tensor, bool]:
    """The gradient (N, V) and the trust (N,) at the token with label probabilities u (N,), the other tokens in their
    proportions, and whether the gradient is one weight times p − δ. Each is a sequence of its own. `mass` is Σ exp z,
    which matters to losses that are not shift-invariant."""
    import torch

    from qunify.maps import Gated

    others = torch.tensor(WEIGHTS, dtype=torch.float64)
    others[LABEL] = 0
    p = (1 - u)[:, None] * others / others.sum()
    p[:, LABEL] = u
    labels = torch.full((len(u),), LABEL)
    z, context = (mass * p).log(), _context(len(u))
    rows = range(len(u)) if m.pools else [slice(None)]  # where others are looked at, there are none
    found = [m(z[at], labels[at], **{name: value[at] for name, value in context.items()}) for at in rows]
    gradient = torch.cat([q.gradient.view(-1, len(WEIGHTS)) for q in found])
    trust = torch.cat([q.trust.view(-1) for q in found])
    gate = Gated.of(gradient, p, labels[:, None], 1e-9 * gradient.abs() + 1e-12)
    return gradient, trust, bool(gate.holds.all())


def _context(rows: int) -> dict[str, Any]:
    import torch

    given = {}
    for name, value in CONTEXT.items():
        row = torch.tensor(value, dtype=torch.float64)
        given[name] = (row.log() if name.endswith("_logits") else row).expand(rows, *row.shape)
    return given


def _plain(x: Tensor) -> Any:
    """Numbers for JSON, which has no NaN: None where a value is undefined."""
    values = x.tolist()
    if isinstance(values, list):
        return [v if math.isfinite(v) else None for v in values]
    return values if math.isfinite(values) else None


def stated(needs: Sequence[str]) -> str:
    """The token in words, with the contexts that the method needs."""

    def listed(values: Any) -> str:
        return "(" + ", ".join(f"{v:g}" for v in values) + ")" if isinstance(values, tuple) else f"{values:g}"

    parts = [f"z = log {listed(WEIGHTS)}", f"label {TOKENS[LABEL]}"]
    for name in needs:
        what, logits, _ = name.partition("_logits")
        parts.append(f"{what} {'∝' if logits else '='} {listed(CONTEXT[name])}")
    return ", ".join(parts)
