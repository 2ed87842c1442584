"""Special cases at the end of a parameter's range: AGCE as a → ∞."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sympy as sp
import torch

from qunify._lib.simple import simplest
from qunify._lib.tolerances import EXACT
from qunify.comparison._bindings import Bindings, simple_fraction, with_expressions
from qunify.comparison._fitting import Fit, Sample, fit
from qunify.comparison._subjects import gradient_of
from qunify.maps import Gate, QMap, limits
from qunify.samples import Batch, spread_over_u
from qunify.symbolic import P_Y, gate_weight
from qunify.token import rational


class Limit(NamedTuple):
    """A parameter on its way to an end that its range does not hold: `Limit("temperature", 0, 1, …)` goes to 0 from
    above."""

    parameter: str
    end: sp.Expr
    side: int  # 1 where it comes from above, −1 from below
    path: Sequence[Any]  # values on the way

    @property
    def is_infinite(self) -> bool:
        return bool(self.end.is_infinite)

    @property
    def close(self) -> sp.Expr:
        """A value near the end, at which a weight with cases is already in the case that holds in the limit."""
        return -self.side * sp.Integer(10**9) if self.is_infinite else self.end + self.side * sp.Rational(1, 10**9)


@functools.cache
def _middle() -> Batch:
    """Tokens at which u is neither near 0 nor near 1, towards which limits need not be uniform."""
    every = spread_over_u(5, seed=0)
    order = every.token.p_label[:, 0].argsort()
    u = every.token.p_label[order, 0]
    order = order[(u > 0.004) & (u < 0.996)]
    return every[order[torch.linspace(0, len(order) - 1, 60).long()]]


def limit_case(cls: type[QMap], m: QMap) -> Bindings | None:
    """The special case as a limit of the general method: one parameter goes to an end that its range does not hold, the
    others are fitted on the way, and the error must shrink at every step."""
    middle = _middle()
    sample = Sample((middle,), (gradient_of(m, middle).numpy(),), issubclass(cls, Gate))
    for limit in _limits(cls):
        errors: list[float] = []
        last: Fit | None = None
        for value in limit.path:
            try:
                fitted = fit(cls, sample, "ratio", EXACT, {limit.parameter: value}, thorough=False)
            except ValueError:  # parameters that exclude each other
                break
            carried = _carried_on(last, sample, {limit.parameter: value})
            last = min([fitted, *carried], key=lambda f: f.error)
            errors.append(last.error)
            if not _shrinks(errors):
                break
        else:
            assert last is not None
            idle = set(_idle(cls, sample, limit, last.method))
            kept = {k: v for k, v in last.method.params.items() if k not in idle}
            found = {k: simple_fraction(v) if isinstance(v, float) else v for k, v in kept.items()}
            found[limit.parameter] = limit.end
            if any(v is None for v in found.values()):
                continue
            factor, proved = _limit_factor(cls, m, limit, found)
            if not proved and abs(last.factor - 1) < 1e-2:
                factor = sp.S.One
            if proved or errors[-1] < 1e-3:
                at_defaults = bool(m.params)
                return Bindings(cls, m.name, found, factor, limit=True, proved=proved, at_defaults=at_defaults)
    return None


def _carried_on(last: Fit | None, sample: Sample, moved: dict[str, Any]) -> Iterator[Fit]:
    """The last step's fit one step on, with simple numbers in place of what nearly are: where large terms cancel near
    the end, as (a^α − b^α)/α at α = 0, rounding hides the slopes by which a fit would find them."""
    if last is None:
        return
    near = {k: float(simplest(v, 1e-4)) for k, v in last.method.params.items() if isinstance(v, float)}
    try:
        m = last.method.replace(**near | moved)
        yield Fit(m, "ratio", sample.difference(m, "ratio")[1], sample.error(m, "ratio"))
    except ValueError:  # out of range
        return


def _shrinks(errors: Sequence[float]) -> bool:
    """Whether the last step was long enough, of errors on the way that shrank so far."""
    return errors[-1] <= 0.9 * errors[0] * 0.8 ** (len(errors) - 2)


def _idle(cls: type[QMap], sample: Sample, limit: Limit, m: QMap) -> Iterator[str]:
    """The other parameters whose value does not matter in the limit: how many tokens slips are drawn from, once there
    are none."""
    for f in cls.parameters():
        if f.name == limit.parameter or getattr(m, f.name) == f.default:
            continue
        try:
            errors = [sample.error(m.replace(**{f.name: f.default, limit.parameter: x}), "ratio") for x in limit.path]
        except ValueError:  # parameters that exclude each other
            continue
        if all(_shrinks(errors[:n]) for n in range(1, len(errors) + 1)) and errors[-1] < 1e-3:
            yield f.name


def _limits(cls: type[QMap]) -> Iterator[Limit]:
    """Every parameter with each end that it may tend to."""
    for f in cls.parameters():
        known = limits(f)
        if known["choices"]:
            continue
        if isinstance(f.default, int):
            if known["high"] is None:
                yield Limit(f.name, sp.oo, -1, (10, 100, 3000))
            continue
        for key, side in (("above", 1), ("below", -1)):
            if known[key] is not None:
                end = float(known[key])
                yield Limit(f.name, rational(end), side, [end + side * e for e in (1e-2, 1e-5, 1e-9)])
        if known["high"] is None and known["below"] is None:
            yield Limit(f.name, sp.oo, -1, (1e1, 1e3, 1e6))
        if known["low"] is None and known["above"] is None:
            yield Limit(f.name, -sp.oo, 1, (-1e1, -1e2, -3e2))


def _limit_factor(cls: type[QMap], m: QMap, limit: Limit, found: Mapping[str, Any]) -> tuple[sp.Expr, bool]:
    """c, a function of the moving parameter x, with c · general → special, and whether symbols show it; for gates
    alone. Tried are 1, x or its distance from the end, its inverse, and exp(±x): 1/x where a weight grows like x."""
    moving = sp.Symbol(limit.parameter, positive=limit.end != -sp.oo)
    try:
        general = _lasting_case(
            gate_weight(with_expressions(cls, dict(found) | {limit.parameter: moving})), moving, limit
        )
        special = _lasting_case(gate_weight(m), moving, limit)
        if general is None or special is None:
            return sp.nan, False
        way = moving if limit.is_infinite or limit.end == 0 else abs(limit.end - moving)
        for factor in (sp.S.One, way, 1 / way, sp.exp(moving), sp.exp(-moving)):
            ratio = sp.simplify(special / general / factor)
            left = sp.limit(ratio, moving, limit.end, dir="+" if limit.side > 0 else "-")
            if left.is_number and left.is_finite and left != 0:
                return left * factor, True
    except (TypeError, NotImplementedError, AttributeError):  # SymPy does not know
        pass
    return sp.nan, False


def _lasting_case(weight: sp.Expr | None, moving: sp.Symbol, limit: Limit) -> sp.Expr | None:
    """The case of a weight that holds at every u once the parameter is near enough to its end; None without one."""
    if not isinstance(weight, sp.Piecewise):
        return weight
    for value, condition in weight.args:
        holds = [condition.subs({P_Y: sp.Rational(n, 1000), moving: limit.close}) for n in (1, 500, 999)]
        if all(h is sp.true for h in holds):
            return value
        if any(h is sp.true for h in holds):
            return None
    return None
