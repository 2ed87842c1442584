"""What `subsumes` gives: the parameters at which one method is another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from qunify._lib.simple import simplest
from qunify.maps import QMap, limits
from qunify.symbolic import as_text
from qunify.token import V, rational


class Bindings(dict[str, Any]):
    """Parameters of the general method, as expressions in the special one's parameters and in V; true if found.

    Attributes
    ----------
    general, special : str
        Their names.
    factor : sympy expression
        gradient of special = factor · gradient of general. In a limit it may tend to 0 or ∞ with the parameter.
    limit : bool
        Whether a parameter only tends to its value, which lies outside its range.
    where : sympy condition
        What the special method's parameters must meet, within their ranges, for the values to be in range and the
        factor to be positive: `epsilon >= 0`. True where that is always so.
    proved : bool
        By symbols, for every vocabulary size.
    ties : tuple of str
        Tokens at which a quantity is exactly its threshold, where the proof does not hold, as in `Equivalence`.
    at_defaults : bool
        Whether it takes the special method's own parameters at their defaults.
    """

    def __init__(
        self,
        general: type[QMap],
        special: str,
        values: Mapping[str, Any],
        factor: Any,
        *,
        limit: bool,
        proved: bool,
        at_defaults: bool,
        where: Any = sp.true,
        ties: tuple[str, ...] = (),
    ) -> None:
        super().__init__({k: plainest(v) if isinstance(v, sp.Expr) else v for k, v in values.items()})
        self.general, self.special, self.factor = general.name, special, plainest(sp.sympify(factor))
        self._open = {f.name: (limits(f)["above"], limits(f)["below"]) for f in general.parameters()}
        self.limit, self.proved, self.at_defaults = limit, proved, at_defaults
        self.where, self.ties = where, ties

    def __str__(self) -> str:
        inside = ", ".join(self.texts())
        times = f"{self.factor} · " if self.factor.is_Symbol or self.factor.is_Number else f"({self.factor}) · "
        times = "" if self.factor == 1 else times
        where = "" if self.where == sp.true else f" where {as_text(self.where)}"
        ties = f", ties apart: {', '.join(self.ties)}" if self.ties else ""
        return f"{self.special} = {times}{self.general}({inside}){where}{ties}{'' if self.proved else ' (measured)'}"

    def texts(self) -> list[str]:
        """`a=gamma`, `prior → 0`: one for every parameter."""
        return [f"{k} → {str(v).replace('oo', '∞')}" if self._moves(k, v) else f"{k}={v}" for k, v in self.items()]

    def _moves(self, name: str, value: Any) -> bool:
        return self.limit and (value in (sp.oo, -sp.oo) or value in self._open[name])


def plainest(v: sp.Expr) -> sp.Expr:
    """The same value without sums that begin with a minus: noise/(V*(1 - noise)) for noise/(-V*noise + V)."""
    if not v.free_symbols:
        return v
    above, below = sp.fraction(sp.together(v))
    turned = (sp.collect(sp.expand(s * above), V) / sp.collect(sp.expand(s * below), V) for s in (1, -1))
    return min((v, *turned), key=lambda form: (f"({form}".count("(-"), len(str(form))))


def exact_number(v: Any) -> Any:
    """A float as the fraction that is written, 0.3 as 3/10; anything else as it is."""
    return rational(v) if isinstance(v, float) else v


def simple_fraction(x: float) -> sp.Rational | None:
    """The simple fraction that x is, to within a millionth: 1/3 for 0.3333333; None if it is none."""
    if abs(x) < 1e-7:
        return sp.S.Zero
    near = simplest(x, within=1e-6)
    return sp.Rational(near) if near.denominator <= 200 else None


def with_expressions(cls: type[QMap], params: Mapping[str, Any]) -> QMap:
    """A method with expressions for parameters; numbers keep their checks, fractions stay fractions."""
    return cls(**{k: exact_number(v) for k, v in params.items()})
