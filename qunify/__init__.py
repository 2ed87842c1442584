"""qunify: see the target distribution that a fine-tuning loss teaches.

Public names are loaded when first used, so that `import qunify` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.catalogue import get as get
    from qunify.catalogue import names as names
    from qunify.equivalence import Equivalence as Equivalence
    from qunify.equivalence import compare as compare
    from qunify.gauges import Gauge as Gauge
    from qunify.gauges import QTarget as QTarget
    from qunify.population import Optimum as Optimum
    from qunify.population import drift as drift
    from qunify.population import optimum as optimum
    from qunify.properness import Properness as Properness
    from qunify.properness import is_proper as is_proper
    from qunify.qmap import Gate as Gate
    from qunify.qmap import QMap as QMap
    from qunify.qmap import design as design
    from qunify.qmap import gradients as gradients
    from qunify.qmap import param as param
    from qunify.recognition import Match as Match
    from qunify.recognition import identify as identify
    from qunify.special_cases import Bindings as Bindings
    from qunify.special_cases import subsumes as subsumes
    from qunify.targets import induced as induced
    from qunify.training.linear import TopK as TopK
    from qunify.training.linear import linear_loss as linear_loss
    from qunify.training.loss import loss as loss
else:
    __getattr__, __dir__ = exported(__name__)

__version__ = "0.1.0"
