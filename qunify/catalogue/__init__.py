"""Every known method, one class each, one file per family.

Every class of these files whose own name does not begin with an underscore is an entry: nothing else is registered.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from qunify.maps import LossFunctionMap, Method, QMap, afresh, check_params, with_numbers

#: The order of the families; one that is not named here follows, by the alphabet.
_FAMILY_ORDER = (
    "gates", "smoothing", "anchored", "designed", "distillation", "scores", "warped", "penalties", "policy",
    "unlearning",
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
    """The method with this id and these parameters.

    Raises
    ------
    KeyError
        Unknown id; the message names near matches.
    ValueError
        Unknown or out-of-range parameter; the message names it and its range.
    """
    if not isinstance(name, str) or name not in ENTRIES:
        near = difflib.get_close_matches(str(name).lower(), ENTRIES, 3)
        hint = f", did you mean {' or '.join(near)}?" if near else "; qunify.names() lists them"
        raise KeyError(f"unknown method {name!r}{hint}")
    return _instantiate(ENTRIES[name], params)


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


def signature(m: QMap) -> str:
    """`gem(beta=0.5)`: the name, and the parameters that are not the default ones."""
    if type(m).name != m.name:  # designed or foreign: it has no defaults
        return m.name
    default = {f.name: f.default for f in m.parameters()}
    changed = ", ".join(f"{k}={v}" for k, v in m.params.items() if v != default[k])
    return f"{m.name}({changed})" if changed else m.name


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
