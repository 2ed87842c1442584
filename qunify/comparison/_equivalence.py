"""Is one method another one? Numbers propose, symbols prove, and a concrete token separates."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import sympy as sp

from qunify import catalogue
from qunify._lib import html
from qunify.catalogue import numbered, signature
from qunify.comparison._counterexamples import Witness, agree_in_decimals, counterexample
from qunify.comparison._numeric import Relation, relate
from qunify.comparison._proofs import Proof, on_one_ray, proportional
from qunify.comparison._ranges import range_of, symbol_within
from qunify.comparison._shared_optima import share_optima
from qunify.comparison._two_values import refuted
from qunify.maps import Alias, Method, QMap, computed_in, judged_alone, measured_in
from qunify.symbolic import Step, TooLargeError, as_text, runs_on_symbols
from qunify.token import CONTEXTS

LEVELS = ("identical", "scaled", "directional", "optimum", "distinct")

#: The level that a witness refutes.
FINER = {"scaled": "identical", "directional": "scaled", "optimum": "directional", "distinct": "directional"}


@dataclass(frozen=True)
class Equivalence:
    """The verdict of `compare`.

    Attributes
    ----------
    a, b : str
        The two methods, with the parameters that are not at their defaults; of two that bear one name and are not the
        same, the second has a number.
    level : str
        The first of `LEVELS` that holds. `identical`: equal gradients at every token; `scaled`: equal up to a
        positive constant, a learning rate; `directional`: at every token on one closed ray, neither being zero
        everywhere; `optimum`: the same stable population optima; `distinct`: none of these.
    same_direction, same_optimum : bool
        These two levels do not imply each other; both are always decided.
    factor : sympy expression or None
        g_b = factor · g_a, for identical and scaled.
    proved : bool
        For `identical`, `scaled` and `directional`: by symbols, for every vocabulary size, and confirmed at fractions
        for V = 2 to 5. For `optimum`: one closed form for both. For `distinct`: `witness` refutes the common
        direction, and the optima differ at a concrete truth. False where only floating point speaks.
    steps : tuple of Step
        The argument, each step in LaTeX and in plain Unicode.
    witness : Witness or None
        Where the next finer level fails, evaluated to fifty digits.
    silent_a, silent_b : bool
        Whether one gradient vanishes where the other does not, at one of the tokens that were tried.
    ties : tuple of str
        Tokens at which the proof does not hold: a quantity is exactly the threshold it is compared with, and one
        method takes the bound in where the other leaves it out. No token drawn at random is one.
    precision : str
        What the functions among the two compute in, the narrower one: `float32` where one casts its logits to it.
        Casts are left out of what is measured, so that the level is that of the loss as it is written; the numbers of
        its own are the same to this type's rounding.
    values : tuple of str
        With symbols among the parameters: the values of these at which the verdict was measured, or at one of which
        two distinct methods differ. Empty where symbols prove it for every value.
    alone : bool
        Tokens interact in a function among the two, which weights by a mean or a rank over the batch, say: it was given
        one token at a time, and the verdict is of that.
    too_large : bool
        A proof was given up, since it takes more terms or cases than are tried. They are counted, so that this is so on
        every machine.
    """

    a: str
    b: str
    level: str
    same_direction: bool
    same_optimum: bool
    factor: sp.Expr | None = None
    proved: bool = False
    steps: tuple[Step, ...] = ()
    witness: Witness | None = field(default=None, repr=False)
    silent_a: bool = False
    silent_b: bool = False
    ties: tuple[str, ...] = ()
    precision: str = "float64"
    values: tuple[str, ...] = ()
    alone: bool = False
    too_large: bool = False

    def meets(self, level: str) -> bool:
        """Whether this level, or a finer one, holds."""
        if level not in LEVELS[:-1]:
            raise ValueError(f"level: expected one of {', '.join(LEVELS[:-1])}, got {level!r}")
        if level == "optimum":
            return self.same_optimum
        return self.same_direction and LEVELS.index(self.level) <= LEVELS.index(level)

    def _repr_latex_(self) -> str:
        return html.array([step.latex for step in self.steps]) if self.steps else ""

    def _repr_html_(self) -> str:
        rows = [("same direction", self.same_direction), ("same optimum", self.same_optimum), ("proved", self.proved)]
        argument = "".join(html.paragraph(step.plain) for step in self.steps)
        witness = html.paragraph(str(self.witness)) if self.witness else ""
        return html.paragraph(str(self)) + html.table(("", ""), rows) + argument + witness

    def __str__(self) -> str:
        said = {
            "identical": "have the same gradient at every token",
            "scaled": f"differ by the constant factor {self.factor}, a learning rate",
            "directional": "share their direction at every token and differ in weight",
            "optimum": "reach the same population optima by different paths",
            "distinct": "teach different things",
        }[self.level]
        ties = f", ties apart: {', '.join(self.ties)}" if self.ties else ""
        at = f", as at {' or '.join(self.values)}" if self.level == "distinct" else f" at {'; '.join(self.values)}"
        at = at if self.values else ""
        taken = "Taken one token at a time, " if self.alone else ""
        why = ", as a proof would be too large" if self.too_large else ""
        return f"{taken}{self.a} and {self.b} {said}{ties}{at} ({measured_in(self.precision, self.proved)}{why})."


def compare(a: Method, b: Method, alias: Mapping[str, str] | None = None) -> Equivalence:
    """Decide how two methods are related, with a proof or a token that separates them.

    Parameters
    ----------
    a, b
        An id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token, in
        nats, with the contexts it takes among its parameter names. Functions are measured, never proved, and so are
        maps written in operations of tensors in place of the Token's own; a proof that takes too many terms or cases is
        given up. Parameters may be SymPy symbols: a verdict that is proved holds for every value in range, one that is
        measured for the `values` that were tried, ends of ranges, negative and large ones among them.
    alias
        Contexts that count as one, as in `{"teacher_logits": "reference_logits"}`.

    Notes
    -----
    Gradients are compared on distributions, Σ p = 1, for every V ≥ 2; what formulas do elsewhere does not count.
    Where a weight is zero both gradients lie on one ray, and `silent_a`, `silent_b` say so. Token weights count as
    nonnegative. Methods that differ only at ties are equivalent, and `ties` names them.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        Neither id, QMap nor function; a loss function that `induced` refuses; an unknown context in `alias`; or
        symbolic parameters for which no value fits.
    """
    key = _checked_alias(alias)
    a, b = (catalogue.as_method(m, "compare", symbols=True) for m in (a, b))
    within = _ranges(a, b)
    names = {s: symbol_within(s.name, values) for s, values in within.items()}
    a, b = (_renamed(m, names) for m in (a, b))
    unknown = {names[s]: values for s, values in sorted(within.items(), key=str)}
    tried = _instances(a, b, unknown) if unknown else [_Evidence(a, b)]
    evidence = [e._replace(relation=relate(e.a, e.b, key)) for e in tried]
    evidence.sort(key=lambda e: -LEVELS.index(e.relation.level))
    coarsest = evidence[0]  # its level holds at all values tried
    relation = coarsest.relation
    symbolic = runs_on_symbols(a) and runs_on_symbols(b)
    proof, too_large = None, False
    try:
        proof = _prove(a, b, relation, key, bool(unknown)) if symbolic else None
    except TooLargeError:
        too_large = True
    corrected = (
        refuted(a, b, relation, key) if symbolic and not (unknown or proof or relation.level == "distinct") else None
    )
    if corrected:
        relation = corrected[0]
        evidence = [coarsest := coarsest._replace(relation=relation)]
    if unknown and relation.level in ("identical", "scaled") and proof is None:
        relation = dataclasses.replace(relation, level="directional", factor=None)  # no one factor was found
    together = []
    for e in evidence if relation.factor is None else ():
        together.append(share_optima(e.a, e.b, key))
        if not together[-1].same:
            coarsest = e if e.relation.level == relation.level else coarsest
            break
    same_optimum = all(v.same for v in together)
    level = relation.level if relation.level != "distinct" else "optimum" if same_optimum else "distinct"
    witness = counterexample(coarsest.a, coarsest.b, FINER[level], key) if symbolic and level in FINER else None
    witness = corrected[1] if corrected else witness
    proved = {
        "optimum": all(v.proved for v in together) and not unknown,
        "distinct": witness is not None and not same_optimum,
    }.get(level, proof is not None)
    called = numbered([signature(a), signature(b)], [a, b])
    shown = (coarsest,) if level == "distinct" else () if proved else evidence
    return Equivalence(
        a=called[0],
        b=called[1],
        level=level,
        same_direction=relation.level != "distinct",
        same_optimum=same_optimum,
        factor=_plain(proof.factor, names) if proof else _fraction(relation.factor),
        proved=proved,
        steps=(proof.steps if proof else ()) + (together[0].steps if together else ()),
        witness=witness,
        silent_a=any(e.relation.silent_a for e in evidence),
        silent_b=any(e.relation.silent_b for e in evidence),
        ties=proof.ties if proof else (),
        precision=computed_in(a, b),
        values=tuple(e.at for e in shown if e.at),
        alone=judged_alone(a, b),
        too_large=too_large and not proved,
    )


class _Evidence(NamedTuple):
    """What the numbers say of two methods at one choice of values for the symbols among their parameters."""

    a: QMap
    b: QMap
    at: str = ""  # these values: `q = 1/5`
    relation: Relation = Relation("identical", 1.0, False, False)


def _prove(a: QMap, b: QMap, relation: Relation, alias: Alias, general: bool) -> Proof | None:
    """A proof in symbols of what the numbers say, confirmed at fractions to forty digits; None if there is none.
    TooLargeError where it is given up."""
    if relation.level == "distinct":
        return None
    try:
        if relation.level == "directional":
            return on_one_ray(a, b, alias)
        open_factor = general and relation.level == "scaled"
        found = proportional(a, b, alias, None if open_factor else _fraction(relation.factor))
    except TooLargeError:
        raise
    except TypeError:  # a condition on symbolic parameters that symbols do not decide
        return None
    confirmed = found is None or general or found.ties or agree_in_decimals(a, b, found.factor, alias)
    return found if confirmed else None


def _fraction(factor: float | None) -> sp.Expr | None:
    """The fraction nearest to a measured factor: 1/3 for 0.3333333333, 3 · 10⁻²⁰ for 3e-20."""
    if factor is None:
        return None
    if abs(factor) >= 1:
        return sp.Rational(Fraction(factor).limit_denominator(10**9))
    return 1 / sp.Rational((1 / Fraction(factor)).limit_denominator(10**9))


def _plain(factor: sp.Expr | None, names: Mapping[sp.Symbol, sp.Symbol]) -> sp.Expr | None:
    """The factor in the caller's own symbols."""
    return None if factor is None else sp.sympify(factor).xreplace({own: given for given, own in names.items()})


def _checked_alias(alias: Mapping[str, str] | None) -> Alias:
    for name in [x for pair in (alias or {}).items() for x in pair]:
        if name not in CONTEXTS:
            raise ValueError(f"compare: alias: expected names among {', '.join(CONTEXTS)}, got {name!r}")
    return tuple(sorted((alias or {}).items()))


# ---- symbolic parameters -------------------------------------------------------------------------------------

#: Values that are tried beside the ends of ranges.
_VALUES = tuple(map(sp.Rational, ("1/5", "1/2", "9/10", "-2", "40", "3/2", "5/2", "1/3", "4", "0", "1", "2", "-1/2")))


def _ranges(*maps: QMap) -> dict[sp.Symbol, sp.Set]:
    """For every symbol among the parameters the values that it may have: the ranges of those that it stands for."""
    within: dict[sp.Symbol, sp.Set] = {}
    for m in maps:
        fields = {f.name: f for f in m.parameters()}  # a designed map's parameters have none
        for name, value in m.params.items():
            for s in getattr(value, "free_symbols", ()):
                own = range_of(fields[name]) if name in fields and s == value else sp.Reals
                within[s] = within.get(s, sp.Reals).intersect(own)
    return within


def _renamed(m: QMap, names: Mapping[sp.Symbol, sp.Symbol]) -> QMap:
    """The same method with other symbols among its parameters."""
    return m.replace(**{k: v.xreplace(dict(names)) for k, v in m.params.items() if isinstance(v, sp.Basic)})


def _instances(a: QMap, b: QMap, unknown: Mapping[sp.Symbol, sp.Set], most: int = 8) -> list[_Evidence]:
    """Both methods at a few values of their symbols, within all ranges: the ends of each, and values between."""
    r, found = random.Random(0), []
    values = {s: [e for e in (w.inf, w.sup) if e in w] + [v for v in _VALUES if v in w] for s, w in unknown.items()}
    values = {s: list(dict.fromkeys(v)) for s, v in values.items()}
    most_values = max(map(len, values.values()))
    draws = [{s: v[(i + j) % len(v)] for j, (s, v) in enumerate(values.items()) if v} for i in range(most_values)] + [
        {s: r.choice(v) for s, v in values.items() if v} for _ in range(60)
    ]
    for point in draws:
        try:
            found.append(
                _Evidence(bound(a, point), bound(b, point), ", ".join(f"{s} = {as_text(v)}" for s, v in point.items()))
            )
        except (ValueError, TypeError):  # outside a range
            continue
        found = list(dict.fromkeys(found))
        if len(found) == most:
            break
    if not found:
        names = ", ".join(map(str, unknown))
        raise ValueError(
            f"compare: no value of {names} that was tried is in the range of {signature(a)} and {signature(b)}"
        )
    return found


def bound(m: QMap, point: Mapping[sp.Symbol, Any]) -> QMap:
    """The method with numbers for the symbols among its parameters; ValueError where one is out of range."""
    given = {k: v.subs(point) for k, v in m.params.items() if isinstance(v, sp.Basic)}
    whole = {f.name for f in m.parameters() if isinstance(f.default, int)}
    return m.replace(**{k: int(v) if k in whole and v.is_Integer else float(v) for k, v in given.items()})
