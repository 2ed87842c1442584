"""Where training ends: the drift over a population, its stable zeros, and whether a loss is proper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.population._drift_field import (
        SIMPLEX_NAMES,
        SIMPLEX_STARTS,
        SIMPLEX_TOKENS,
        SIMPLEX_TRUTH,
        SIMPLEX_WORLD,
        simplex_context,
        simplex_grid,
        simplex_moves,
        simplex_paths,
    )
    from qunify.population._first_zeros import FirstZeros, first_zeros_of
    from qunify.population._optima import Optimum, StablePoints, closed_form, drift, optimum, stable_points_of
    from qunify.population._properness import Biased, NotConcave, Properness, is_proper
else:
    __getattr__, __dir__ = exported(__name__)
