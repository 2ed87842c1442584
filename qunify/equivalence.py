"""Is one method another one? Numbers propose, symbols prove, and a concrete token separates."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sympy as sp
import torch
from torch import Tensor

from qunify import catalogue, population, symbols, witness
from qunify.qmap import QMap
from qunify.screening import Alias, Foreign, Method, Relation, as_map, relate
from qunify.token import CONTEXTS
from qunify.witness import Witness

LEVELS = ("identical", "scaled", "directional", "optimum", "distinct")


#: The level that a witness refutes.
FINER = {"scaled": "identical", "directional": "scaled", "optimum": "directional", "distinct": "directional"}


class Step(NamedTuple):
    latex: str
    plain: str


@dataclass(frozen=True)
class Equivalence:
    """The verdict of `compare`.

    Attributes
    ----------
    level : str
        The first of `LEVELS` that holds. `identical`: equal gradients at every token; `scaled`: equal up to a
        positive constant, a learning rate; `directional`: at every token on one closed ray, neither being zero
        everywhere; `optimum`: the same stable population optima; `distinct`: none of these.
    same_direction, same_optimum : bool
        These two levels do not imply each other; both are always decided.
    factor : sympy expression or None
        g_b = factor · g_a, for identical and scaled.
    proved : bool
        By symbols for every vocabulary size; a `distinct` pair by its witness. False where numbers alone speak.
    steps : tuple of Step
        The argument, each step in LaTeX and in plain Unicode.
    witness : Witness or None
        Where the next finer level fails.
    silent_a, silent_b : bool
        Whether one gradient vanishes at a token where the other does not.
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

    def meets(self, level: str) -> bool:
        """Whether this level, or a finer one, holds."""
        if level not in LEVELS[:-1]:
            raise ValueError(f"level: expected one of {', '.join(LEVELS[:-1])}, got {level!r}")
        if level == "optimum":
            return self.same_optimum
        return self.same_direction and LEVELS.index(self.level) <= LEVELS.index(level)

    def __str__(self) -> str:
        said = {
            "identical": "have the same gradient at every token",
            "scaled": f"differ by the constant factor {self.factor}, a learning rate",
            "directional": "share their direction at every token and differ in weight",
            "optimum": "reach the same population optima by different paths",
            "distinct": "teach different things",
        }[self.level]
        return f"{self.a} and {self.b} {said} ({'proved' if self.proved else 'measured'})."


# ---- optima -------------------------------------------------------------------------------------------------

#: Truths over four tokens, from nearly certain to nearly flat, none with a tie.
_TRUTHS = ((0.85, 0.08, 0.04, 0.03), (0.55, 0.25, 0.15, 0.05), (0.4, 0.3, 0.2, 0.1), (0.28, 0.26, 0.24, 0.22))


@dataclass(frozen=True)
class Optima:
    """Whether two methods settle at the same places."""

    same: bool
    proved: bool = False
    steps: tuple[Step, ...] = ()


@functools.lru_cache(maxsize=1024)
def _stable(m: QMap, alias: Alias) -> tuple[tuple[Tensor, ...], str | None]:
    """The stable zeros of the drift for each of the truths, and their closed form if there is one."""
    truths = torch.tensor(_TRUTHS, dtype=torch.float64)
    r = torch.Generator().manual_seed(7)
    context: dict[str, Any] = {
        name: torch.randn(truths.shape, generator=r, dtype=torch.float64) for name in CONTEXTS if "logits" in name
    }
    context["token_weight"], context["token_mask"] = torch.ones(len(truths)), torch.ones(len(truths))
    context["negative_mask"] = torch.zeros(truths.shape)
    context |= {name: context[source] for name, source in alias}
    given = {name: context[name] for name in m.needs}
    found = population.optimum(m, truths, **given)
    return found.all, found.closed_form


def _compare_optima(a: QMap, b: QMap, relation: Relation, alias: Alias) -> Optima:
    if relation.factor is not None:
        return Optima(True)
    if not (a.shift_invariant and b.shift_invariant):
        return Optima(False)
    (points_a, form_a), (points_b, form_b) = _stable(a, alias), _stable(b, alias)
    found = any(len(x) for x in points_a)
    same = found and all(_same_points(x, y) for x, y in zip(points_a, points_b, strict=True))
    proved = same and form_a is not None and form_a == form_b
    return Optima(same, proved, (Step(str(form_a), "one closed form for both optima"),) if proved else ())


def _same_points(x: Tensor, y: Tensor) -> bool:
    """Whether every point of one set has its equal in the other."""
    if len(x) == 0 or len(y) == 0:
        return len(x) == len(y)
    distance = torch.cdist(x, y, p=1)
    return bool((distance.amin(0) < 1e-5).all() and (distance.amin(1) < 1e-5).all())


# ---- proof --------------------------------------------------------------------------------------------------


class _Aliased(symbols.SymbolicToken):
    """Symbols in which some contexts are the same distribution."""

    def __init__(self, alias: Mapping[str, str]) -> None:
        super().__init__()
        self._alias = alias

    def context(self, name: str) -> Any:
        return super().context(self._alias.get(name, name))


@functools.lru_cache(maxsize=1)
def _token(alias: Alias) -> _Aliased:
    """One token for all methods, so that what sorts and projects is the same symbol in each."""
    return _Aliased(dict(alias))


@functools.lru_cache(maxsize=1024)
def _form(m: QMap, alias: Alias) -> symbols.Vector:
    t = _token(alias)
    return symbols.pulled(t, symbols.exact(m).pulls(t)).apply(lambda e: sp.expand(symbols.evaluate(e)))


@functools.lru_cache(maxsize=1024)
def _weight(m: QMap, alias: Alias) -> sp.Expr | None:
    """w where the method is provably a gate, g = w (p − δ); None elsewhere."""
    t, g = _token(alias), _form(m, alias)
    w = sp.simplify(g.label / (t.p_y - 1))
    return w if _vanishes(g.elsewhere - w * t.p_k) else None


def _vanishes(e: sp.Expr) -> bool:
    return sp.expand(e) == 0 or sp.simplify(e) == 0


@functools.lru_cache(maxsize=1024)
def _never_negative(w: sp.Expr) -> bool:
    """Whether SymPy sees that a weight is ≥ 0 at every token: u is 1/(1 + x), and logarithms of probabilities are
    negative. Token weights count as nonnegative, as importance ratios are."""
    signed = w.replace(
        lambda e: isinstance(e, sp.log) and e.args[0].is_Symbol and e.args[0] != symbols.SymbolicToken.p_y,
        lambda e: -sp.Symbol(f"minus_log_{e.args[0]}", positive=True),
    )
    signed = signed.replace(symbols.Rest, _signed_sum)
    signed = signed.subs({s: sp.Symbol(s.name, nonnegative=True) for s in signed.free_symbols if s.name in "wc"})
    x = sp.Symbol("x", positive=True)
    pieces = [e for e, _ in signed.args] if isinstance(signed, sp.Piecewise) else [signed]
    return all(
        bool(sp.simplify(sp.expand_log(e.subs(symbols.SymbolicToken.p_y, 1 / (1 + x)))).is_nonnegative) for e in pieces
    )


def _signed_sum(summand: sp.Expr) -> sp.Expr:
    name = f"sum_{summand}"
    if summand.is_positive:
        return sp.Symbol(name, positive=True)
    return -sp.Symbol(name, positive=True) if summand.is_negative else sp.Symbol(name, real=True)


def _prove(a: QMap, b: QMap, relation: Relation, alias: Alias) -> tuple[bool, sp.Expr | None, tuple[Step, ...]]:
    """Whether symbols confirm what the numbers say, the exact factor, and the argument."""
    if relation.factor is not None:
        factor = rational(relation.factor)
        ga, gb = _form(a, alias), _form(b, alias)
        difference = gb - ga * factor
        proved = _vanishes(difference.label) and _vanishes(difference.elsewhere)
        steps = (*_entries("a", ga), *_entries("b", gb), _step("g^b", "g_b", factor, r"\,g^a", " · g_a, for every V"))
        return proved, factor, steps if proved else ()
    wa, wb = _weight(a, alias), _weight(b, alias)
    if relation.level != "directional" or wa is None or wb is None:
        return False, None, ()
    proved = _never_negative(wa) and _never_negative(wb)
    gates = (
        _step(
            rf"g^{side}=w_{side}(p-\delta),\quad w_{side}",
            f"g_{side} = w_{side} (p − δ), w_{side}",
            w,
            r"\ge 0",
            " ≥ 0",
        )
        for side, w in (("a", wa), ("b", wb))
    )
    return proved, None, tuple(gates) if proved else ()


def _entries(side: str, g: symbols.Vector) -> tuple[Step, Step]:
    return (
        _step(f"g^{side}_y", f"g_{side} at the label", g.label),
        _step(f"g^{side}_k", f"g_{side} elsewhere", g.elsewhere),
    )


def _step(latex: str, words: str, e: sp.Expr, latex_end: str = "", words_end: str = "") -> Step:
    return Step(f"{latex}={sp.latex(e)}{latex_end}", f"{words} = {_plain(e)}{words_end}")


def _plain(e: sp.Expr) -> str:
    """One line of Unicode: u for p_y, Σ for the sum over the other tokens."""
    text = sp.sstr(e)
    for old, new in (("**", "^"), ("Rest(", "Σ("), ("p_y", "u"), ("*", " ")):
        text = text.replace(old, new)
    return text


# ---- verdict ------------------------------------------------------------------------------------------------


def compare(a: Method, b: Method, alias: Mapping[str, str] | None = None) -> Equivalence:
    """Decide how two methods are related, with a proof or a token that separates them.

    Parameters
    ----------
    a, b
        An id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token, in
        nats, with the contexts it takes among its parameter names. Functions are measured, never proved.
    alias
        Contexts that count as one, as in `{"teacher_logits": "reference_logits"}`.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        A loss function that `induced` refuses, or an unknown context in `alias`.
    """
    key = _checked_alias(alias)
    a, b = as_map(a), as_map(b)
    relation = relate(a, b, key)
    optima = _compare_optima(a, b, relation, key)
    level = relation.level if relation.level != "distinct" else "optimum" if optima.same else "distinct"
    symbolic = not isinstance(a, Foreign) and not isinstance(b, Foreign)
    proved, factor, steps = _prove(a, b, relation, key) if symbolic else (False, rational(relation.factor), ())
    refuted = witness.find(a, b, FINER[level], key) if symbolic and level in FINER else None
    if level == "optimum":
        proved = optima.proved
    elif level == "distinct":
        proved = refuted is not None and not optima.same
    return Equivalence(
        a=title(a),
        b=title(b),
        level=level,
        same_direction=relation.level != "distinct",
        same_optimum=optima.same,
        factor=factor,
        proved=proved,
        steps=steps + optima.steps,
        witness=refuted,
        silent_a=relation.silent_a,
        silent_b=relation.silent_b,
    )


def rational(factor: float | None) -> sp.Expr | None:
    return None if factor is None else sp.nsimplify(factor, rational=True, tolerance=1e-9)


def _checked_alias(alias: Mapping[str, str] | None) -> Alias:
    for name in [x for pair in (alias or {}).items() for x in pair]:
        if name not in CONTEXTS:
            raise ValueError(f"compare: alias: expected names among {', '.join(CONTEXTS)}, got {name!r}")
    return tuple(sorted((alias or {}).items()))


def title(m: QMap) -> str:
    """`gem(beta=0.5)`: the id, and the parameters that are not the default ones."""
    if type(m).name != m.name:  # designed or foreign: it has no defaults
        return m.name
    default = catalogue.get(m.name).params
    changed = ", ".join(f"{k}={v}" for k, v in m.params.items() if v != default[k])
    return f"{m.name}({changed})" if changed else m.name
