"""Special cases at the end of a parameter's range: AGCE as a → ∞."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy as sp
import torch

from qunify.comparison._bindings import EXACT, Bindings, simple_fraction, with_expressions
from qunify.comparison._fitting import Sample, fit
from qunify.comparison._subjects import gradient_of
from qunify.maps import Gate, QMap, limits
from qunify.samples import spread_over_u
from qunify.symbolic import P_Y, gate_weight
from qunify.token import rational


def limit_case(cls: type[QMap], m: QMap) -> Bindings | None:
    """A parameter driven to an end that its range does not hold, the others fitted on the way."""
    every = spread_over_u(5, seed=0)
    order = every.token.p_label[:, 0].argsort()
    u = every.token.p_label[order, 0]
    order = order[(u > 0.004) & (u < 0.996)]  # limits need not be uniform towards u = 0 and 1
    middle = every[order[torch.linspace(0, len(order) - 1, 60).long()]]
    sample = Sample((middle,), (gradient_of(m, middle).numpy(),), issubclass(cls, Gate))
    for name, end, path in _ends(cls):
        errors: list[float] = []
        for value in path:
            try:
                last = fit(cls, sample, "ratio", EXACT, {name: value}, thorough=False)
            except ValueError:  # parameters that exclude each other
                break
            errors.append(last.error)
            if errors[-1] > 0.9 * errors[0] * 0.8 ** (len(errors) - 2):
                break
        else:
            found = {k: simple_fraction(v) if isinstance(v, float) else v for k, v in last.method.params.items()} | {
                name: end
            }
            if any(v is None for v in found.values()):
                continue
            factor, proved = _limit_factor(cls, m, name, end, found)
            if not proved and abs(last.factor - 1) < 1e-2:
                factor = sp.S.One
            if proved or errors[-1] < 1e-3:
                at_defaults = bool(m.params)
                return Bindings(cls, m.name, found, factor, limit=True, proved=proved, at_defaults=at_defaults)
    return None


def _ends(cls: type[QMap]) -> Iterator[tuple[str, Any, Sequence[Any]]]:
    """Every parameter, each end it may tend to, and values on the way there."""
    for f in cls.parameters():
        known = limits(f)
        if known["choices"]:
            continue
        if isinstance(f.default, int):
            if known["high"] is None:
                yield f.name, sp.oo, (10, 100, 3000)
            continue
        for key, side in (("above", 1), ("below", -1)):
            if known[key] is not None:
                end = float(known[key])
                yield f.name, rational(end), [end + side * e for e in (1e-2, 1e-5, 1e-9)]
        if known["high"] is None and known["below"] is None:
            yield f.name, sp.oo, (1e1, 1e3, 1e6)
        if known["low"] is None and known["above"] is None:
            yield f.name, -sp.oo, (-1e1, -1e2, -3e2)


def _limit_factor(cls: type[QMap], m: QMap, name: str, end: Any, found: Mapping[str, Any]) -> tuple[sp.Expr, bool]:
    """c, a function of the moving parameter, with c · general → special, and whether symbols show it. Gates only."""
    moving = sp.Symbol(name, positive=end != -sp.oo)
    try:
        general = _near(gate_weight(with_expressions(cls, dict(found) | {name: moving})), moving, end)
        special = _near(gate_weight(m), moving, end)
        if general is None or special is None:
            return sp.nan, False
        way = moving if end in (sp.oo, -sp.oo, 0) else abs(end - moving)
        for factor in (sp.S.One, way, 1 / way, sp.exp(moving), sp.exp(-moving)):
            left = sp.limit(sp.simplify(special / general / factor), moving, end, dir="-" if end == 1 else "+")
            if left.is_number and left.is_finite and left != 0:
                return left * factor, True
    except (TypeError, NotImplementedError, AttributeError):  # SymPy does not know
        pass
    return sp.nan, False


def _near(weight: sp.Expr | None, moving: sp.Symbol, end: Any) -> sp.Expr | None:
    """The case of a weight that holds at every u once the parameter is near enough to its end."""
    if not isinstance(weight, sp.Piecewise):
        return weight
    close = {sp.oo: 10**9, -sp.oo: -(10**9)}.get(end, end - sp.Rational(1, 10**9) if end == 1 else end + 10**-9)
    for value, condition in weight.args:
        holds = [condition.subs({P_Y: sp.Rational(n, 1000), moving: close}) for n in (1, 500, 999)]
        if all(h == True for h in holds):  # noqa: E712  SymPy's true
            return value
        if any(h == True for h in holds):  # noqa: E712
            return None
    return None
