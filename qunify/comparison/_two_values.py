"""What numbers say of two methods, tried where no ordinary token goes: vocabularies of any size, nearly certain and
nearly impossible labels, large weights, and both sides of every threshold.

The label has the probability u and every other token the same, and so in every context. There a gradient in symbols is
a number, a sum over k ≠ y being V − 1 times its summand, and the cost does not depend on V.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import sympy as sp

from qunify.comparison._counterexamples import Point, Witness
from qunify.comparison._numeric import Relation
from qunify.maps import Alias, QMap, remembered
from qunify.symbolic import P_Y, symbolic_gradient, thresholds
from qunify.token import EXACT, SYMBOLS, SumOverOthers, V, decimal

_LABELS = tuple(map(Fraction, ("1/5", "1/2", "9/10", "1/100", "99/100", "1e-6", "1e-12", "1e-15")))
_LABELS += tuple(1 - Fraction(x) for x in ("1e-6", "1e-9", "1e-12"))
_SIZES = (2, 3, 5, 31, 1013, 152064)

#: Distribution → the label's probability in it; a weight; a mask.
_GIVEN = {
    **dict.fromkeys(("tea", "ref", "old", "prior"), tuple(map(Fraction, ("3/8", "1/500", "0.997")))),
    "w": tuple(map(Fraction, ("1/20", "1", "20", "10007"))),
    "c": (Fraction(1), Fraction(0)),
}
_MOST = 10_000  # tokens: where there are more to combine, so many at random
_NAMES = {symbol: name for name, symbol in SYMBOLS.items()}
#: The symbols that have a number at such a token.
_SYMBOLS = {"V"} | {name + at for name in ("p", *_GIVEN) for at in ("", "_y", "_k")}

_CLEAR = EXACT.mpf(10) ** -30  # of fifty digits, twenty may be lost


class _Token(NamedTuple):
    size: int
    label: Fraction
    given: dict[str, Fraction]

    def number(self, name: str) -> Fraction | int:
        """The number of a symbol: `V`, `p_y`, `tea_k`, `w`."""
        if name == "V":
            return self.size
        of, _, at = name.rpartition("_")
        of = of or name
        u = self.label if of == "p" else self.given[of]
        return (1 - u) / (self.size - 1) if at == "k" else u

    def probs(self, u: Fraction) -> tuple[Fraction, ...]:
        return (u, *[(1 - u) / (self.size - 1)] * (self.size - 1))

    def point(self, x: Any, y: Any) -> Point:
        context = {_NAMES[n]: v if n in ("w", "c") else self.probs(v) for n, v in self.given.items()}
        rest = -1 / EXACT.mpf(self.size - 1)
        gradients = [(float(g), *[float(g * rest)] * (self.size - 1)) for g in (x, y)]
        return Point(self.probs(self.label), 0, context, *gradients)


def refuted(a: QMap, b: QMap, relation: Relation, alias: Alias) -> tuple[Relation, Witness] | None:
    """A coarser relation than the numbers proposed, with the tokens that show it; None where none here does, or where
    symbols have no value at such tokens, as those of sorting have none."""
    f, g = (_gradient_at_label(m, alias) for m in (a, b))
    if f is None or g is None:
        return None
    symbols = {s for m in (a, b) for s in symbolic_gradient(m, alias).label.free_symbols}
    seen = [(t, f(t), g(t)) for t in _tokens(symbols, thresholds(*(symbolic_gradient(m, alias).label for m in (a, b))))]
    silent = (any(not x and abs(y) > _CLEAR for _, x, y in seen), any(not y and abs(x) > _CLEAR for _, x, y in seen))
    opposed = next((s for s in seen if s[1] * s[2] < 0 and min(abs(s[1]), abs(s[2])) > _CLEAR), None)
    if opposed:
        return Relation("distinct", None, *silent), Witness("directional", (opposed[0].point(*opposed[1:]),))
    if relation.factor is None:
        return None
    factor = EXACT.mpf(relation.factor)
    apart = [s for s in seen if abs(s[2] - factor * s[1]) > 1e-6 * max(abs(s[2]), abs(factor * s[1])) > _CLEAR]
    like = [s for s in seen if s not in apart and s[1] and s[2]]
    if not apart or not like:
        return None
    points = tuple(t.point(x, y) for t, x, y in (like[0], apart[0]))
    return Relation("directional", None, *silent), Witness("scaled", points)


@remembered
def _gradient_at_label(m: QMap, alias: Alias) -> Callable[[_Token], Any] | None:
    """The gradient's entry at the label as a function of a token; the others are the rest of zero, all the same. None
    for standardised logits: their deviation, the root of a difference, has no digits at tokens that are all but
    uniform."""
    if not m.shift_invariant:
        return None
    g = symbolic_gradient(m, alias).label.replace(SumOverOthers, lambda summand: (V - 1) * summand)
    if any(power.base.is_Add and abs(power.exp) == sp.Rational(1, 2) for power in g.atoms(sp.Pow)):
        return None
    symbols = sorted(g.free_symbols, key=str)
    names = [s.name for s in symbols]
    if any(name not in _SYMBOLS for name in names):
        return None
    functions = {n: getattr(EXACT, n) for n in ("mpf", "log", "exp", "sqrt")}
    value = sp.lambdify(symbols, g, [functions, "mpmath"])

    @functools.lru_cache(maxsize=_MOST)  # tokens that differ in what only the other method asks for are one
    def at(numbers: tuple[Fraction | int, ...]) -> Any:
        return EXACT.mpf(value(*map(_decimal, numbers)))

    return lambda t: at(tuple(map(t.number, names)))


@functools.lru_cache(maxsize=_MOST)
def _decimal(x: Fraction | int) -> Any:
    return decimal(x)


def _tokens(symbols: set[sp.Symbol], at: dict[sp.Expr, set[Any]]) -> Iterator[_Token]:
    """Tokens from small vocabularies to large ones, and from both sides of every threshold of u and of V."""
    given = sorted({s.name.removesuffix("_y").removesuffix("_k") for s in symbols} & set(_GIVEN))
    steps = [Fraction(int(x.p), int(x.q)) for x in at.get(P_Y, ()) if x.is_Rational and 0 < x < 1]
    labels = (*_LABELS, *[u for x in steps for u in (x / 2, x * Fraction(999, 1000), x + (1 - x) / 1000, (x + 1) / 2)])
    turns = [int(x) for x in at.get(V, ()) if x.is_number]
    sizes = sorted({v for x in turns for v in (x - 1, x, x + 1, 10 * x) if v >= 2} | set(_SIZES))
    axes: list[Sequence[Any]] = [sizes, labels, *[_GIVEN[n] for n in given]]
    if math.prod(map(len, axes)) <= _MOST:
        drawn: Iterable[tuple[Any, ...]] = itertools.product(*axes)
    else:
        r = random.Random(0)
        drawn = (tuple(map(r.choice, axes)) for _ in range(_MOST))
    for size, label, *values in drawn:
        yield _Token(size, label, dict(zip(given, values, strict=True)))
