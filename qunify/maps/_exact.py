"""A method at one token, to fifty digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from qunify._lib.simple import as_written
from qunify.maps._qmap import QMap
from qunify.maps._remembered import remembered
from qunify.token import EXACT, DecimalToken, Number, Symbolic, decimal, decimals


class ExactParameter(EXACT.mpf, Symbolic):
    """A parameter to fifty digits. `Symbolic`, so that a method takes it without rounding it to a float."""


@remembered
def _with_exact_params(m: QMap) -> QMap:
    """The method with its parameters to fifty digits: 0.7 is 7/10, not the nearest float."""
    floats = {k: v for k, v in m.params.items() if isinstance(v, float)}
    return m.replace(**{k: ExactParameter(decimal(as_written(v))) for k, v in floats.items()})


def exact_loss(m: QMap, probs: Sequence[Number], label: int, context: Mapping[str, Any]) -> Any:
    """The published loss at one token given by probabilities; contexts are probabilities too. An mpmath number."""
    return EXACT.mpf(_with_exact_params(m).loss(DecimalToken(probs, label, context)))


def exact_gradient(
    m: QMap, probs: Sequence[Number], label: int, context: Mapping[str, Any], lse: Number = 0
) -> tuple[Any, ...]:
    """The logit gradient from the pulls, to fifty digits."""
    return exact_gradient_at(m, DecimalToken(probs, label, context, lse))


def exact_gradient_at(m: QMap, t: DecimalToken) -> tuple[Any, ...]:
    """The same at a token that several methods may share."""
    total = decimals([EXACT.mpf(0)] * len(t.policy.probs))
    for pull in _with_exact_params(m).pulls(t):
        total = total + ((t.policy.probs - pull[1].probs) * pull[0] if isinstance(pull, tuple) else pull)
    return tuple(total)


#: log Σ exp z at the tokens where exact gradients are compared: z-loss, for one, depends on it.
WITNESS_LSE = Fraction(1, 2)
