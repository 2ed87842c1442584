"""Optima that can be written down: derived in symbols where the drift separates, and from a table elsewhere.

η is the truth, p* the optimum; C is the one number at which p* sums to 1, and x₊ = max(x, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify import catalogue
from qunify.maps import QMap
from qunify.population._gradient_flow import Flow
from qunify.population._separable import separable_optima

#: Up to this many tokens numbers decide at once whether a drift separates; of more, symbols are asked first.
FEW = 100


class Known(NamedTuple):
    """One line of the table, LaTeX beside the numbers: `value(m, η, context)`, with η (B, V) and the distributions
    given by context name, and where it holds: at which parameters, contexts and vocabulary."""

    latex: str
    value: Callable[[Any, Tensor, dict[str, Tensor]], Tensor]
    holds: Callable[[Any, Tensor, dict[str, Tensor]], bool] = lambda m, eta, given: True
    power: Callable[[Any], float] | None = None  # the exponent c, where p* ∝ η^c
    of: str = ""  # the parameter that the formula holds


class ClosedForm(NamedTuple):
    """An optimum as a formula. Two methods whose `key` is equal have the same optimum at every truth."""

    latex: str
    key: object


def closed_form_of(flow: Flow) -> ClosedForm | None:
    """The closed form of a flow's optimum, where there is one."""
    known = _known(flow)
    if known is None:
        return _derived(flow)
    if known.power is not None:
        return ClosedForm(known.latex, _power_key(known.power(flow.m)))
    return ClosedForm(known.latex, (known.latex, getattr(flow.m, known.of) if known.of else None))


def _derived(flow: Flow) -> ClosedForm | None:
    from qunify.population._derived_optima import derived_optimum  # SymPy takes a while to load

    if flow.truth.shape[-1] > FEW and derived_optimum(flow.m) is None:
        return None  # without the tables that numbers take, quadratic in the vocabulary
    exact = separable_optima(flow)
    if exact is None or not bool(exact.unique.all()):
        return None
    found = derived_optimum(flow.m)
    if found is None:
        return None
    return ClosedForm(found.latex, found if found.power is None else _power_key(found.power))


def _power_key(exponent: Any) -> tuple[str, Any]:
    from qunify.token import rational  # SymPy takes a while to load

    return "power of the truth", rational(exponent)


def known_value(flow: Flow) -> Tensor | None:
    """The optimum in numbers, (B, V), where the table has it. Those that are derived have theirs from
    `separable_optima`."""
    known = _known(flow)
    return None if known is None else known.value(flow.m, flow.truth, _given(flow))


def _known(flow: Flow) -> Known | None:
    known = KNOWN.get(flow.m.name) if catalogue.has(flow.m) else None
    return known if known is not None and known.holds(flow.m, flow.truth, _given(flow)) else None


def _given(flow: Flow) -> dict[str, Tensor]:
    return {k: torch.softmax(v, -1) if k.endswith("_logits") else v for k, v in flow.context.items()}


def _powered(eta: Tensor, power: float) -> Tensor:
    return torch.softmax(power * eta.log(), -1)


def _leader(eta: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(eta.argmax(-1), eta.shape[-1]).to(eta.dtype)


def _one_leader(m: QMap, eta: Tensor, given: object) -> bool:
    top = eta.topk(2).values
    return bool((top[:, 0] > top[:, 1]).all())


def _positive(m: QMap, eta: Tensor, given: object) -> bool:
    return bool((eta > 0).all())


def _balanced(share: Callable[[Tensor], Tensor]) -> Tensor:
    """share(C), (B, V), at the C > 0, (B, 1), at which it sums to 1, by bisection over log C: the sum falls with C."""
    low, high = torch.full((1, 1), -80.0, dtype=torch.float64), torch.full((1, 1), 40.0, dtype=torch.float64)
    for _ in range(100):
        middle = (low + high) / 2
        over = share(middle.exp()).sum(-1, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    p = share(((low + high) / 2).exp())
    return p / p.sum(-1, keepdim=True)


def _teacher(m: QMap, eta: Tensor, given: dict[str, Tensor]) -> Tensor:
    return given["teacher_logits"]


def _below_certainty(m: Any, eta: Tensor, given: object) -> Tensor:
    """The optimum of infosft."""
    logit = math.log(m.certain / (1 - m.certain))
    return _balanced(lambda c: torch.sigmoid(logit * (1 - c / eta)))


def _power(latex: str, exponent: Callable[[Any], float]) -> Known:
    """p* ∝ η^exponent."""
    return Known(latex, lambda m, eta, given: _powered(eta, exponent(m)), power=exponent)


_TRUTH = Known(r"p^*=\eta", lambda m, eta, given: eta, power=lambda m: 1.0)
_TEACHER = Known(r"p^*=\pi_{\mathrm{tea}}", _teacher)
_ARGMAX = Known(r"p^*=\delta_{\arg\max\eta}", lambda m, eta, given: _leader(eta), _one_leader)

#: Where the drift does not separate, or jumps, or the optimum is a single token.
KNOWN: dict[str, Known] = {
    "brier": _TRUTH,
    "spherical": _TRUTH,
    "eaft": _TRUTH,
    "mile": _TRUTH,
    "tsallis_score": _TRUTH,
    "dft": _ARGMAX,
    "mae": _ARGMAX,
    "infosft": Known(
        r"p^*=\sigma\Bigl(\bigl(1-\tfrac{C}{\eta}\bigr)\,\mathrm{logit}\,P\Bigr)",
        _below_certainty,
        lambda m, eta, given: bool(((eta > 0).sum(-1) * m.certain > 1).all()),  # else no pull is left at certainty
        of="certain",
    ),
    "target_sft": Known(
        r"p^*\propto\pi_{\mathrm{tea}}(1-\eta)^{-1/\beta},\quad\beta\text{ the parameter eta}",
        lambda m, eta, given: torch.softmax(given["teacher_logits"].log() - torch.log1p(-eta) / m.eta, -1),
        lambda m, eta, given: m.eta > 0 and bool((eta < 1).all()),
        of="eta",
    ),
    "kd": _TEACHER,
    "mixed_kl": _TEACHER,
    "delta_kd": Known(
        r"p^*\propto\pi_{\mathrm{ref}}\,(\pi_{\mathrm{tea}}/\pi_{\mathrm{base}})^{\alpha}",
        lambda m, eta, given: torch.softmax(
            given["reference_logits"].log()
            + m.strength * (given["teacher_logits"].log() - given["teacher_base_logits"].log()),
            -1,
        ),
        of="strength",
    ),
    "bdkd": _TEACHER._replace(holds=lambda m, eta, given: m.large > 0 and m.small > 0),
    "eopd": _TEACHER,
    "csd": _TEACHER,
    "tad": _TEACHER._replace(holds=lambda m, eta, given: m.tail_weight > 0 or eta.shape[-1] <= m.k),
    "student_topk_jsd": _TEACHER._replace(holds=lambda m, eta, given: eta.shape[-1] <= m.k),
    "ttm": Known(
        r"p^*\propto\pi_{\mathrm{tea}}^{1/T}",
        lambda m, eta, given: torch.softmax(given["teacher_logits"].log() / m.temperature, -1),
        of="temperature",
    ),
    "reverse_kl": _TEACHER,
    "jsd": _TEACHER,
    "skew_kl": _TEACHER,
    "skew_reverse_kl": _TEACHER,
    "tvd": _TEACHER,
    "akl": _TEACHER,
    "abkd": _TEACHER,
    "todi": _TEACHER,
    "taid": _TEACHER._replace(holds=lambda m, eta, given: m.mix > 0),
    "dkd": _TEACHER._replace(holds=lambda m, eta, given: m.alpha > 0 and m.beta > 0),
    "topk_kd": _TEACHER._replace(holds=lambda m, eta, given: eta.shape[-1] <= m.k),
    "gem": _power(r"p^*\propto\eta^{\beta}", lambda m: m.beta),
    "temperature_ce": _power(r"p^*\propto\eta^{T}", lambda m: m.temperature),
    "logit_adjustment": Known(
        r"p^*\propto\eta\,\pi_{\mathrm{prior}}^{-\tau}",
        lambda m, eta, given: torch.softmax(eta.log() - m.tau * given["prior_logits"].log(), -1),
        of="tau",
    ),
    "sparsemax": Known(r"p^*=\mathrm{softmax}(\eta)", lambda m, eta, given: torch.softmax(eta, -1), _positive),
    "entmax15": Known(
        r"p^*\propto\exp(2\sqrt{\eta})", lambda m, eta, given: torch.softmax(2 * eta.sqrt(), -1), _positive
    ),
    "bi_tempered": Known(
        r"p^*\propto\exp\Bigl(\frac{\eta^{1-t_2}}{1-t_2}\Bigr)",
        lambda m, eta, given: torch.softmax((eta.pow(1 - m.t2) - 1) / (1 - m.t2), -1),
        lambda m, eta, given: m.t2 > 1,
        of="t2",
    ),
}
