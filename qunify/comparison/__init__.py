"""Is X just Y, and what is this loss? Proofs, counterexamples, special cases, identification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.comparison._bindings import Bindings
    from qunify.comparison._equivalence import LEVELS, Equivalence, compare
    from qunify.comparison._identification import Match, Matches, identify
    from qunify.comparison._special_cases import subsumes
else:
    __getattr__, __dir__ = exported(__name__)
