"""What was found of a method, kept for as long as it stays true."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from qunify.maps._qmap import QMap

M = TypeVar("M", bound=QMap)
P = ParamSpec("P")
R = TypeVar("R")

_PUBLISHED = "qunify.catalogue."  # where the classes stand whose behaviour their name and parameters say
_ANSWERS = "_answers"


def remembered(ask: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """Keep the answers of a function of a method and of hashable arguments.

    Those of an entry of the catalogue hold for good. What a user wrote may read a variable, a module's weights or an
    attribute that changes later: its answers are kept with the object itself, which is `afresh` for every question.
    """
    for_good = functools.lru_cache(maxsize=1 << 15)(ask)

    @functools.wraps(ask)
    def answer(m: M, *rest: P.args, **named: P.kwargs) -> R:
        if type(m).__module__.startswith(_PUBLISHED):
            return for_good(m, *rest, **named)  # type: ignore[arg-type]
        known = vars(m).setdefault(_ANSWERS, {})
        question = (ask, rest, *sorted(named.items()))
        if question not in known:
            known[question] = ask(m, *rest, **named)
        return known[question]

    return answer


def afresh(m: M) -> M:
    """The same method, of which nothing has been found yet."""
    new = copy.copy(m)
    vars(new).pop(_ANSWERS, None)
    return new
