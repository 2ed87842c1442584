"""Optima that can be written down: LaTeX beside the numbers, one line per method.

η is the truth, p* the optimum; C is the one number at which p* sums to 1, and x₊ = max(x, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qunify.flow import Flow
from qunify.qmap import QMap


class Known(NamedTuple):
    """One closed form: `value(m, η, context)`, η (B, V) and the distributions given by context name, and where it
    holds: at which parameters, contexts and vocabulary."""

    latex: str
    value: Callable[[Any, Tensor, dict[str, Tensor]], Tensor]
    holds: Callable[[Any, Tensor, dict[str, Tensor]], bool] = lambda m, eta, given: True
    power: Callable[[Any], float] | None = None  # the exponent c, where p* ∝ η^c


class ClosedForm(NamedTuple):
    """An optimum written down. Two methods with one `key` have one optimum, whatever the truth."""

    latex: str
    key: object


def find(flow: Flow) -> ClosedForm | None:
    """The closed form of a flow's optimum, where there is one."""
    known = _known(flow)
    if known is None:
        return None
    if known.power is None:
        return ClosedForm(known.latex, known.latex)
    return ClosedForm(known.latex, ("power of the truth", Fraction(known.power(flow.m)).limit_denominator(10**6)))


def value(flow: Flow) -> Tensor | None:
    """Its numbers, (B, V)."""
    known = _known(flow)
    return None if known is None else known.value(flow.m, flow.truth, _given(flow))


def _known(flow: Flow) -> Known | None:
    known = TABLE.get(flow.m.name)
    return known if known is not None and known.holds(flow.m, flow.truth, _given(flow)) else None


def _given(flow: Flow) -> dict[str, Tensor]:
    return {k: torch.softmax(v, -1) if k.endswith("_logits") else v for k, v in flow.context.items()}


def _normal(x: Tensor) -> Tensor:
    return x / x.sum(-1, keepdim=True)


def _powered(eta: Tensor, power: float) -> Tensor:
    return torch.softmax(power * eta.log(), -1)


def _leader(eta: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(eta.argmax(-1), eta.shape[-1]).to(eta.dtype)


def _one_leader(m: QMap, eta: Tensor, given: object) -> bool:
    top = eta.topk(2).values
    return bool((top[:, 0] > top[:, 1]).all())


def _positive(m: QMap, eta: Tensor, given: object) -> bool:
    return bool((eta > 0).all())


def _balanced(share: Callable[[Tensor], Tensor], least: Tensor | float = 0.0) -> Tensor:
    """share(C) at the C > least at which it sums to 1; it falls with C. C is (B, 1)."""
    low, high = torch.full((1, 1), -80.0, dtype=torch.float64), torch.full((1, 1), 40.0, dtype=torch.float64)
    for _ in range(100):
        middle = (low + high) / 2
        over = share(least + middle.exp()).sum(-1, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return _normal(share(least + ((low + high) / 2).exp()))


def _above_line(constant: float, slope: float, eta: Tensor) -> Tensor:
    """The optimum of a gate constant + slope·u: every share is constant·η / (C − slope·η)."""
    least = (slope * eta).amax(-1, keepdim=True).clamp(min=0)
    return _balanced(lambda c: constant * eta / (c - slope * eta), least)


def _teacher(m: QMap, eta: Tensor, given: dict[str, Tensor]) -> Tensor:
    return given["teacher_logits"]


def _rest(falls: Callable[[Any, Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor, object], Tensor]:
    """The optimum whose shares are the positive parts of falls(m, η, C)."""
    return lambda m, eta, given: _balanced(lambda c: falls(m, eta, c).clamp(min=0))


def _power(latex: str, exponent: Callable[[Any], float], holds: Callable[[Any], bool] = lambda m: True) -> Known:
    """p* ∝ η^exponent."""
    return Known(latex, lambda m, eta, given: _powered(eta, exponent(m)), lambda m, eta, given: holds(m), exponent)


_TRUTH = Known(r"p^*=\eta", lambda m, eta, given: eta, power=lambda m: 1.0)
_TEACHER = Known(r"p^*=\pi_{\mathrm{tea}}", _teacher)
_ARGMAX = Known(r"p^*=\delta_{\arg\max\eta}", lambda m, eta, given: _leader(eta), _one_leader)


def _gained(context: str) -> Known:
    """The truth, where the weight per token is positive."""
    return _TRUTH._replace(holds=lambda m, eta, given: bool((given[context] > 0).all()))


TABLE: dict[str, Known] = {
    "sft": _TRUTH,
    "brier": _TRUTH,
    "spherical": _TRUTH,
    "eaft": _TRUTH._replace(holds=_positive),
    "mile": _TRUTH,
    "threshold": _TRUTH._replace(holds=lambda m, eta, given: (m.low, m.high, m.base) == (0, 1, "log")),
    "iw_sft": _gained("token_weight"),
    "cft": _gained("token_mask"),
    "dft": _ARGMAX,
    "mae": _ARGMAX,
    "gce": _power(r"p^*\propto\eta^{1/(1-q)}", lambda m: 1 / (1 - m.q), lambda m: m.q < 1),
    "beyond_log": _power(r"p^*\propto\eta^{1/(1-\alpha)}", lambda m: 1 / (1 - m.alpha), lambda m: m.alpha < 1),
    "poly1": Known(r"p^*=\frac{\eta}{C-\epsilon\eta}", lambda m, eta, given: _above_line(1.0, m.epsilon, eta)),
    "mixce": Known(
        r"p^*=\frac{\beta\eta}{C-(1-\beta)\eta},\quad\beta\text{ the parameter eta}",
        lambda m, eta, given: _above_line(m.eta, 1 - m.eta, eta),
        lambda m, eta, given: m.eta > 0,
    ),
    "symmetric_ce": Known(
        r"p^*=\frac{\alpha\eta}{C+\beta A\eta}",
        lambda m, eta, given: _above_line(m.ce_weight, -m.rce_weight * m.log_zero, eta),
        lambda m, eta, given: m.ce_weight > 0,
    ),
    "tailr": Known(
        r"p^*=\Bigl(\frac{\eta}{C}-\frac{\gamma}{1-\gamma}\Bigr)_+",
        _rest(lambda m, eta, c: eta / c - m.gamma / (1 - m.gamma)),
        lambda m, eta, given: m.gamma < 1,
    ),
    "forward_correction": Known(
        r"p^*=\Bigl(\frac{\eta}{C}-\frac{\epsilon}{(1-\epsilon)V}\Bigr)_+",
        _rest(lambda m, eta, c: eta / c - m.noise / ((1 - m.noise) * eta.shape[-1])),
        lambda m, eta, given: m.noise < 1,
    ),
    "chord_phi": Known(r"p^*=\Bigl(1-\frac{C}{\eta}\Bigr)_+", _rest(lambda m, eta, c: 1 - c / eta)),
    "taylor_ce": Known(
        r"p^*=\Bigl(2-\frac{C}{\eta}\Bigr)_+", _rest(lambda m, eta, c: 2 - c / eta), lambda m, eta, given: m.order == 2
    ),
    "luffy": Known(r"p^*=\Bigl(\sqrt{\eta/C}-\gamma\Bigr)_+", _rest(lambda m, eta, c: (eta / c).sqrt() - m.gamma)),
    "agce": Known(
        r"p^*=\Bigl((\eta/C)^{1/(1-q)}-a\Bigr)_+",
        _rest(lambda m, eta, c: (eta / c) ** (1 / (1 - m.q)) - m.a),
        lambda m, eta, given: m.q < 1,
    ),
    "aue": Known(
        r"p^*=\Bigl(a-(C/\eta)^{1/(q-1)}\Bigr)_+",
        _rest(lambda m, eta, c: m.a - (c / eta) ** (1 / (m.q - 1))),
        lambda m, eta, given: m.q > 1,
    ),
    "ael": Known(r"p^*=\Bigl(a\log\frac{\eta}{C}\Bigr)_+", _rest(lambda m, eta, c: m.a * (eta / c).log())),
    "infosft": Known(
        r"p^*=\sigma\Bigl(\bigl(1-\tfrac{C}{\eta}\bigr)\,\mathrm{logit}\,P\Bigr)",
        _rest(lambda m, eta, c: torch.sigmoid(math.log(m.certain / (1 - m.certain)) * (1 - c / eta))),
    ),
    "label_smoothing": Known(
        r"p^*=(1-\lambda)\eta+\frac{\lambda}{V}",
        lambda m, eta, given: (1 - m.smoothing) * eta + m.smoothing / eta.shape[-1],
    ),
    "sft_kl": Known(
        r"p^*=\frac{\eta+\lambda\pi_{\mathrm{ref}}}{1+\lambda}",
        lambda m, eta, given: (eta + m.kl_weight * given["reference_logits"]) / (1 + m.kl_weight),
    ),
    "kd_hybrid": Known(
        r"p^*=(1-\lambda)\eta+\lambda\pi_{\mathrm{tea}}",
        lambda m, eta, given: (1 - m.mix) * eta + m.mix * given["teacher_logits"],
    ),
    "asft": Known(
        r"p^*=\frac{\lambda\pi_{\mathrm{ref}}}{C-\eta}",
        lambda m, eta, given: _balanced(
            lambda c: m.kl_weight * given["reference_logits"] / (c - eta), eta.amax(-1, keepdim=True)
        ),
        lambda m, eta, given: m.kl_weight > 0,
    ),
    "target_sft": Known(
        r"p^*\propto\pi_{\mathrm{tea}}(1-\eta)^{-1/\beta},\quad\beta\text{ the parameter eta}",
        lambda m, eta, given: torch.softmax(given["teacher_logits"].log() - torch.log1p(-eta) / m.eta, -1),
        lambda m, eta, given: m.eta > 0 and bool((eta < 1).all()),
    ),
    "kd": _TEACHER,
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
    ),
    "sparsemax": Known(r"p^*=\mathrm{softmax}(\eta)", lambda m, eta, given: torch.softmax(eta, -1), _positive),
    "entmax15": Known(
        r"p^*\propto\exp(2\sqrt{\eta})", lambda m, eta, given: torch.softmax(2 * eta.sqrt(), -1), _positive
    ),
    "bi_tempered": Known(
        r"p^*\propto\exp\Bigl(\frac{\eta^{1-t_2}}{1-t_2}\Bigr)",
        lambda m, eta, given: torch.softmax((eta.pow(1 - m.t2) - 1) / (1 - m.t2), -1),
        lambda m, eta, given: m.t2 > 1 and _positive(m, eta, given),
    ),
}
