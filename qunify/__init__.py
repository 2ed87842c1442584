"""qunify: see the target distribution that a fine-tuning loss teaches.

Public names are loaded when first used, so that `import qunify` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.catalogue import get, names
    from qunify.comparison import Bindings, Equivalence, Match, compare, identify, subsumes
    from qunify.maps import Gate, Gauge, QMap, QTarget, design, gradients, induced, param
    from qunify.population import Optimum, Properness, drift, is_proper, optimum
    from qunify.training import TopK, linear_loss, loss
else:
    __getattr__, __dir__ = exported(__name__)

__version__ = "0.1.0"
