"""Every known method, one class each, one file per family.

Every class of these files whose own name does not begin with an underscore is an entry: nothing else is registered.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import numbers
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from qunify.catalogue import identities
from qunify.maps import LossFunctionMap, Method, QMap, afresh, check_params, with_numbers
from qunify.token import is_symbolic

#: The order of the families; one that is not named here follows, by the alphabet.
_FAMILY_ORDER = (
    "gates", "sequence", "smoothing", "anchored", "designed", "distillation", "scores", "warped", "penalties",
    "policy", "unlearning", "ranks", "numeric",
)  # fmt: skip


def _entries(module: ModuleType) -> dict[str, type[QMap]]:
    """{id: class} of the entries that a file defines, in the order of their definition."""
    defined = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return {c.name: c for c in defined if issubclass(c, QMap) and not c.__name__.startswith("_")}


def _modules() -> tuple[ModuleType, ...]:
    """The files of this folder that define methods."""
    modules = [importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    place = {f"{__name__}.{family}": i for i, family in enumerate(_FAMILY_ORDER)}
    return tuple(sorted(filter(_entries, modules), key=lambda m: (place.get(m.__name__, len(place)), m.__name__)))


MODULES = _modules()

#: id → class, in catalogue order.
ENTRIES: dict[str, type[QMap]] = {name: cls for module in MODULES for name, cls in _entries(module).items()}

#: Name elsewhere → the entry that it is, with its parameters in those of the name.
ALIASES: dict[str, identities.Alias] = {alias.name: alias for alias in identities.ALIASES}

#: The methods of the unifying table of Xie et al. 2026, in its order.
PAPER = (
    "sft", "dft", "beyond_log", "profit", "eaft", "iw_sft", "cft", "label_smoothing", "sft_kl", "asft", "psft",
    "gem", "kd", "kd_hybrid", "target_sft",
)  # fmt: skip


def families() -> tuple[str, ...]:
    """The families, in catalogue order."""
    return tuple(dict.fromkeys(cls.family for cls in ENTRIES.values()))


def names(family: str | None = None) -> tuple[str, ...]:
    """The ids of all methods, or of one family, in catalogue order."""
    if family is None:
        return tuple(ENTRIES)
    if family not in families():
        raise KeyError(f"unknown family {family!r}, expected one of {', '.join(families())}")
    return tuple(name for name, cls in ENTRIES.items() if cls.family == family)


def get(name: str, **params: Any) -> QMap:
    """The method with this id and these parameters, or the one that goes by this name elsewhere, as `trsft` does: then
    the parameters are those of the name.

    Raises
    ------
    KeyError
        Unknown id; the message names near matches.
    ValueError
        Unknown or out-of-range parameter; the message names it and its range.
    """
    if isinstance(name, str) and name in ALIASES:
        return _of_alias(ALIASES[name], params)
    if not isinstance(name, str) or name not in ENTRIES:
        wanted = str(name).lower()
        near = difflib.get_close_matches(wanted, ENTRIES, 3) + difflib.get_close_matches(wanted, ALIASES, 1, 0.75)
        hint = f", did you mean {' or '.join(near)}?" if near else "; qunify.names() lists them"
        raise KeyError(f"unknown method {name!r}{hint}")
    return _instantiate(ENTRIES[name], params)


def _of_alias(alias: identities.Alias, given: Mapping[str, Any]) -> QMap:
    """The entry that an alias is, at parameters of the alias."""
    for key, value in given.items():
        if key not in alias.defaults:
            expected = " or ".join(alias.defaults) or "none: it has no parameters"
            raise ValueError(f"{alias.name}: unknown parameter {key!r}, expected {expected}")
        if isinstance(value, str | bool) or not (isinstance(value, numbers.Real) or is_symbolic(value)):
            raise ValueError(f"{alias.name}: parameter {key}: expected a number, got {value!r}")
    (term,) = alias.right
    try:
        return get(term.name, **{key: _bound(e, {**alias.defaults, **given}) for key, e in term.params.items()})
    except ValueError as error:
        settings = ", ".join(f"{key}={e}" for key, e in term.params.items())
        raise ValueError(f"{alias.name}, which is {term.name}({settings}): {error}") from None


def _bound(expression: identities.Expression, values: Mapping[str, Any]) -> Any:
    """An expression of an identity with numbers, or expressions, for its parameters."""
    if not isinstance(expression, str):
        return expression
    import sympy as sp  # takes a while to load

    found = sp.sympify(expression).subs({sp.Symbol(key): value for key, value in values.items()})
    if found.is_finite is False:
        raise ValueError(f"{expression} has no value there")
    return float(found) if found.is_number else found


def _instantiate(cls: type[QMap], params: dict[str, Any]) -> QMap:
    check_params(cls, params)
    try:
        return cls(**params)
    except TypeError as error:  # abstract, or a field without a default
        raise ValueError(f"{cls.__name__}: {error}") from None


def has(m: QMap) -> bool:
    """Whether a method is an entry of the catalogue, and not a user's class of the same id, of which nothing that is
    known of the entry, such as a closed form, need be true."""
    return ENTRIES.get(m.name) is type(m)


def elsewhere(m: QMap) -> list[str]:
    """The names under which an entry goes elsewhere, with what their parameters are here: `trsft (tau=1/alpha)`."""
    if not has(m):
        return []
    found = [(alias.name, term.params) for alias in identities.ALIASES for term in alias.right if term.name == m.name]
    return [name + (f" ({', '.join(f'{k}={v}' for k, v in given.items())})" if given else "") for name, given in found]


def signature(m: QMap) -> str:
    """`gem(beta=0.5)`: the name, and the parameters that are not the default ones."""
    if type(m).name != m.name:  # designed or foreign: it has no defaults
        return m.name
    default = {f.name: f.default for f in m.parameters()}
    changed = ", ".join(f"{k}={v}" for k, v in m.params.items() if v != default[k])
    return f"{m.name}({changed})" if changed else m.name


def numbered(names: Sequence[str], maps: Sequence[QMap]) -> list[str]:
    """Names for methods shown together: where two that differ bear one, as two functions of a user's may, the later
    ones have a number, `mine` and `mine (2)`."""
    bearers: dict[str, list[QMap]] = {}
    found = []
    for name, m in zip(names, maps, strict=True):
        same = bearers.setdefault(name, [])
        if m not in same:
            same.append(m)
        number = 1 + same.index(m)
        found.append(name if number == 1 else f"{name} ({number})")
    return found


def as_method(method: Method, caller: str, *, symbols: bool = False, **params: Any) -> QMap:
    """The QMap of whatever a caller gives for a method. Every function that takes methods begins here.

    Parameters
    ----------
    method
        An id of the catalogue or a class of QMaps, each with its parameters; a QMap; or a loss function
        `(logits, labels, **context)` giving one loss per token, which is measured, never proved.
    caller
        The name that error messages begin with.
    symbols
        Whether parameters may be symbols.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        If `method` is none of these, or the parameters do not fit.
    """
    return with_numbers(_as_method(method, caller, params), symbols=symbols)


def _as_method(method: Method, caller: str, params: dict[str, Any]) -> QMap:
    if isinstance(method, str):
        return get(method, **params)
    if isinstance(method, type) and issubclass(method, QMap):
        return _instantiate(method, params)
    if isinstance(method, type) or not callable(method):  # a QMap is callable
        expected = "an id of the catalogue, a QMap or a loss function"
        raise ValueError(f"{caller}: method: expected {expected}, got {method!r}")
    if params:
        has_its_own = "a QMap, which has its own" if isinstance(method, QMap) else "a function: bind them first"
        raise ValueError(f"{caller}: parameters {', '.join(params)}: expected none beside {has_its_own}")
    if not isinstance(method, QMap):
        return LossFunctionMap.of(method)
    return method if has(method) else afresh(method)
