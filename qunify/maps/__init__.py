"""A method, and the target it teaches: QMap, its parameters, design, and the target of any loss function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.maps._calling import FEW, Calling, LossFunction, NotFinite, check_losses, name_of, type_name
    from qunify.maps._design import UserDesigned, design
    from qunify.maps._exact import WITNESS_LSE, exact_gradient, exact_gradient_at, exact_loss
    from qunify.maps._induced import (
        LossFunctionMap,
        Method,
        computed_in,
        induced,
        judged_alone,
        loss_arguments,
        measured_in,
        published,
        rounding_of_zeros,
    )
    from qunify.maps._params import limits, param, range_text
    from qunify.maps._pulls import Gated, Pulled, logit_gradient
    from qunify.maps._qmap import Alias, Gate, Pulls, QMap, check_order, check_params, gradients, with_numbers
    from qunify.maps._remembered import afresh, remembered
    from qunify.maps._target import GAUGES, Gauge, QTarget, in_simplex, rounding_of, target_rounding
else:
    __getattr__, __dir__ = exported(__name__)
