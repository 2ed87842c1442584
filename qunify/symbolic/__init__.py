"""What can be shown for every vocabulary size: gradients in symbols, their normal form, cases, signs, printing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.symbolic._cases import decided, thresholds, vanishes_everywhere
    from qunify.symbolic._gates import P_Y, gate_weight, symbolic_gradient
    from qunify.symbolic._gradients import gradient_of_pulls, runs_on_symbols, settled_by_symbols, with_fractions
    from qunify.symbolic._loss_to_pulls import loss_to_pulls
    from qunify.symbolic._normal_form import canonical, exponential
    from qunify.symbolic._printing import (
        LONGEST_BIAS,
        LONGEST_GRADIENT,
        LONGEST_OPTIMUM,
        Step,
        SumOverAll,
        as_latex,
        as_text,
        readable,
        shortest,
    )
    from qunify.symbolic._signs import GIVEN, is_nonnegative_gate
    from qunify.symbolic._size import TooLargeError, check_size, with_names, without_names
else:
    __getattr__, __dir__ = exported(__name__)
