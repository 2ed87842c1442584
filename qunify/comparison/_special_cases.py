"""Is one method a special case, or a limit, of another? Parameters are guessed or fitted, then proved in symbols."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import sympy as sp
import torch

from qunify import catalogue
from qunify._lib.tolerances import EXACT
from qunify.comparison._bindings import Bindings, exact_number, simple_fraction, with_expressions
from qunify.comparison._fitting import Fit, Sample, fit, simplified
from qunify.comparison._limits import limit_case
from qunify.comparison._numeric import relate
from qunify.comparison._proofs import Proof, proportional
from qunify.comparison._ranges import Condition
from qunify.comparison._subjects import Measured, gradient_of, is_gate
from qunify.maps import Gate, LossFunctionMap, Method, QMap, UserDesigned, limits, remembered
from qunify.samples import spread_over_u
from qunify.symbolic import shortest
from qunify.token import V

#: Vocabulary → how many tokens are fitted: as many as it takes to tell methods apart.
ROWS = {5: 60, 24: 12}


#: Values at which a special case's own parameters are tried: away from those at which methods coincide.
VALUES = (0.31, 0.47, 0.62, 0.83, 1.37, 2.21, 3.3)


def subsumes(general: Method, special: Method) -> Bindings | None:
    """Parameters that make one method equal another, up to a positive factor.

    Parameters
    ----------
    general
        An id, or a QMap or a class of them, whose parameters are all taken as free.
    special
        An id or a class, its real parameters taken as free symbols of their own names, or at their defaults where
        that fails; or a QMap, its parameters as they are.

    Returns
    -------
    Bindings or None
        A dict with a value for every parameter of `general`: a number or a SymPy expression in the parameters of
        `special` and in V, with the attributes `factor`, `where`, `limit`, `proved` and `ties`. None if no values
        are found, or none that are in range with a positive factor.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        A loss function, or a designed map as the general method.

    Examples
    --------
    >>> subsumes("agce", "luffy")
    {'a': gamma, 'q': -1}
    >>> subsumes("beyond_log", "sft")
    {'alpha': 0}
    """
    cls, m = type(catalogue.as_method(general, "subsumes")), catalogue.as_method(special, "subsumes", symbols=True)
    if issubclass(cls, UserDesigned):
        raise ValueError(
            "subsumes: general: expected a class that says in which range its parameters are free, as those of the "
            "catalogue or a QMap of your own; a designed map has but the values it was given"
        )
    for what, given in (("general", cls), ("special", type(m))):
        if issubclass(given, LossFunctionMap):
            raise ValueError(
                f"subsumes: {what}: expected an id or a QMap; identify finds out what a loss function is, and "
                "qunify.design makes a QMap"
            )
    if cls is type(m) or not set(m.needs) <= set(cls.needs) or cls.shift_invariant != m.shift_invariant:
        return None
    if not cls.parameters() or (issubclass(cls, Gate) and not is_gate(m)):
        return None
    free = tuple(k for k, v in m.params.items() if isinstance(v, float)) if isinstance(special, str | type) else ()
    for own in dict.fromkeys((free, ())):
        found = _guessed(cls, m, own) or _fitted(cls, m, own)
        if found is not None:
            return found
    return limit_case(cls, m)


def _guessed(cls: type[QMap], m: QMap, free: tuple[str, ...]) -> Bindings | None:
    """Bindings from values somebody would think of: defaults, ends of ranges, 0, 1, and simple expressions in the other
    method's parameters. Example: `{"a": gamma, "q": -1}`."""
    settings = _settings(m, free)
    samples = [_sample(s, cls) for s in settings]
    for found in _guesses(cls, free):
        if _at(cls, found, settings[0], samples[0].only(0)) is None:
            continue
        each = [_at(cls, found, s, x) for s, x in zip(settings, samples, strict=True)]
        factor = _expression([dict.fromkeys(ROWS, f) for f in each], settings, free) if None not in each else None
        if factor is not None:
            certain = _certain(cls, m, free, {k: exact_number(v) for k, v in found.items()}, factor, settings[0])
            if certain is not None:
                return certain
    return None


def _certain(
    cls: type[QMap], m: QMap, free: tuple[str, ...], found: Mapping[str, Any], factor: sp.Expr, setting: QMap
) -> Bindings | None:
    """The bindings, if they are proved, or else hold at many other tokens and larger vocabularies; None otherwise."""
    condition = Condition(cls, m, free, found, factor)
    where = condition.in_words()
    if where == sp.false:
        return None
    proof = _proof(cls, m, condition.symbols(), found, factor)
    met_at_every_size = any(isinstance(v, sp.Basic) and v.has(V) for v in found.values())
    if proof is None and not met_at_every_size:
        relation = relate(cls(**_values(found, setting)), setting)
        if relation.level not in ("identical", "scaled"):
            return None
    at_defaults = bool(m.params) and not free
    known = {"proved": proof is not None, "ties": proof.ties if proof else (), "where": where}
    return Bindings(cls, m.name, found, factor, limit=False, at_defaults=at_defaults, **known)


def _values(found: Mapping[str, Any], special: QMap) -> dict[str, Any]:
    """The values found, with the special method's parameters put in where they are expressions."""
    point = {sp.Symbol(k): v for k, v in special.params.items() if isinstance(v, float)}
    return {k: float(v.subs(point)) if isinstance(v, sp.Basic) else v for k, v in found.items()}


def _at(cls: type[QMap], found: Mapping[str, Any], special: QMap, sample: Sample) -> float | None:
    """The factor, where these values make the two equal; None where they do not."""
    try:
        left, factor = sample.difference(cls(**_values(found, special)), "ratio")
    except ValueError:  # out of range here
        return None
    return factor if sample.largest_norm(left) <= EXACT and factor > 0 else None


def _guesses(cls: type[QMap], free: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every combination of the options of each parameter, those with the fewest changes from the defaults first."""
    fields = cls.parameters()
    options = [_options(f, free, few=len(fields) > 2) for f in fields]
    defaults = tuple(f.default for f in fields)
    combinations = sorted(
        itertools.product(*options), key=lambda c: sum(a != b for a, b in zip(c, defaults, strict=True))
    )
    return [dict(zip((f.name for f in fields), c, strict=True)) for c in combinations]


def _options(f: dataclasses.Field[Any], free: tuple[str, ...], *, few: bool) -> list[Any]:
    known = limits(f)
    if known["choices"]:
        return list(known["choices"])
    ends = [v for v in (known["low"], known["high"]) if v is not None]
    if isinstance(f.default, int):
        return list(dict.fromkeys([f.default, *map(int, ends), 1, 2]))
    names = [sp.Symbol(k) for k in free]
    constants = [f.default, *map(float, ends), 0.0, 1.0, *(() if few else (-1.0, 2.0))]
    expressions = [e for x in names for e in ((x, 1 - x) if few else (x, 1 - x, 1 / x, x / (1 - x)))]
    return list(dict.fromkeys([*constants, *expressions]))


def _fitted(cls: type[QMap], m: QMap, free: tuple[str, ...]) -> Bindings | None:
    """Bindings from fits at several settings of the special method: if γ = 0.31 gives a = 0.31 and γ = 0.47 gives
    a = 0.47, then a = γ."""
    settings = _settings(m, free)
    fits = []
    for s in settings:
        try:
            by_vocab = _fit(cls, s)
        except ValueError:  # parameters that exclude each other
            by_vocab = None
        if by_vocab is None:
            return None
        fits.append(by_vocab)
    found = {}
    for name in [f.name for f in cls.parameters()]:
        expr = _expression([{v: getattr(f.method, name) for v, f in by.items()} for by in fits], settings, free)
        if expr is None:
            return None
        found[name] = expr
    factor = _expression([{v: f.factor for v, f in by.items()} for by in fits], settings, free)
    if factor is None:
        return None
    return _certain(cls, m, free, found, factor, settings[0])


def _fit(cls: type[QMap], m: QMap) -> dict[int, Fit] | None:
    """The fit for every vocabulary: one for all where that is exact, else one each."""
    whole = _sample(m, cls)
    first = fit(cls, whole.only(0), "ratio", EXACT, thorough=False)
    if first.error > EXACT:
        return None
    close = fit(cls, whole, "ratio", EXACT, thorough=False)
    if close.error <= EXACT:
        return dict.fromkeys(ROWS, simplified(close, whole, EXACT))
    apart = {v: fit(cls, whole.only(i), "ratio", EXACT, thorough=False) for i, v in enumerate(ROWS)}
    if any(f.error > EXACT for f in apart.values()):
        return None
    return {v: simplified(f, whole.only(i), EXACT) for i, (v, f) in enumerate(apart.items())}


@remembered
def _measured(m: QMap) -> tuple[Measured, ...]:
    batches = [spread_over_u(vocab, seed=0).first(rows) for vocab, rows in ROWS.items()]
    return tuple(Measured(p, gradient_of(m, p), torch.float64) for p in batches)


def _sample(m: QMap, cls: type[QMap]) -> Sample:
    seen = _measured(m)
    return Sample(tuple(x.batch for x in seen), tuple(x.gradient.numpy() for x in seen), issubclass(cls, Gate))


def _settings(m: QMap, free: tuple[str, ...], most: int = 4) -> list[QMap]:
    """The special method at a few values of its free parameters, all of them in range."""
    below_zero = {f.name for f in m.parameters() if limits(f)["high"] == 0}
    found = []
    for i in range(len(VALUES) if free else 0):
        given = {k: VALUES[(i + 3 * j) % len(VALUES)] * (-1 if k in below_zero else 1) for j, k in enumerate(free)}
        try:
            found.append(m.replace(**given))
        except ValueError:  # out of range
            continue
    return (found or [m])[:most]


def _expression(values: list[dict[int, Any]], settings: list[QMap], free: tuple[str, ...]) -> sp.Expr | None:
    """The expression that values follow over settings and vocabularies; None if they follow none of these.

    Numbers x are the same everywhere, or one of the shapes x, 1 − x, x/(1 − x) and x − 1 is a simple number times a
    product of parameters, of one less a parameter, and of V. Example: 0.69 and 0.53 at γ = 0.31 and 0.47 are 1 − γ."""
    if isinstance(values[0][5], (str, int)):
        same = {v for by_vocab in values for v in by_vocab.values()}
        return same.pop() if len(same) == 1 else None
    x = [float(by_vocab[v]) for by_vocab in values for v in ROWS]
    points = [(s, v) for s in settings for v in ROWS]
    if max(x) - min(x) <= 1e-6 * max(map(abs, x)):
        return simple_fraction(sum(x) / len(x))
    for forward, back in _SHAPES:
        with_shape = [forward(t) for t in x]
        if not all(abs(t) < 1e9 for t in with_shape):
            continue
        for term in _monomials(free):
            at = [float(term.subs({sp.Symbol(k): getattr(s, k) for k in free} | {V: v})) for s, v in points]
            if any(t == 0 for t in at):
                continue
            ratios = [a / b for a, b in zip(with_shape, at, strict=True)]
            if max(ratios) - min(ratios) <= 1e-6 * max(map(abs, ratios)):
                multiple = simple_fraction(sum(ratios) / len(ratios))
                if multiple is not None:
                    found = back(multiple * term)
                    return shortest([found, sp.together(found), sp.factor(found), sp.expand(found)])
    return None


#: Each shape and its inverse: where shape(x) = term, x = inverse(term).
_SHAPES = (
    (lambda x: x, lambda x: x),
    (lambda x: 1 - x, lambda x: 1 - x),
    (lambda x: x / (1 - x) if x != 1 else float("inf"), lambda x: x / (1 + x)),
    (lambda x: x - 1, lambda x: 1 + x),
)


def _monomials(free: tuple[str, ...]) -> Iterator[sp.Expr]:
    """Products of at most three factors or their inverses, among parameters, one less a parameter, and V: the simplest
    first."""
    factors = [f for k in free for f in (sp.Symbol(k), 1 - sp.Symbol(k))] + [V]
    exponents = sorted(itertools.product((0, 1, -1), repeat=len(factors)), key=lambda e: sum(map(abs, e)))
    for powers in exponents:
        if 0 < sum(map(abs, powers)) <= 3:
            yield sp.Mul(*[f**e for f, e in zip(factors, powers, strict=True)])


def _proof(
    cls: type[QMap], m: QMap, names: Mapping[sp.Symbol, sp.Symbol], found: Mapping[str, Any], factor: sp.Expr
) -> Proof | None:
    """The proof of the bindings in symbols, each of the special method's free parameters by one of known sign."""
    bound = {k: v.xreplace(names) if isinstance(v, sp.Basic) else v for k, v in found.items()}
    own = {x.name: s for x, s in names.items()}
    try:
        general = with_expressions(cls, bound)
        special = with_expressions(type(m), {k: own.get(k, v) for k, v in m.params.items()})
        return proportional(general, special, (), factor.xreplace(names))
    except (TypeError, AttributeError):  # a condition on parameters that symbols do not decide, or a map without any
        return None
