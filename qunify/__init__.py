"""qunify: see the target distribution that a fine-tuning loss teaches.

Public names are loaded when first used, so that `import qunify` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qunify.catalogue import get, names
    from qunify.equivalence import Equivalence, compare
    from qunify.gauges import Gauge, QTarget
    from qunify.population import Optimum, drift, optimum, stable_points
    from qunify.properness import Properness, is_proper
    from qunify.qmap import Gate, QMap, design, gradients, param
    from qunify.recognition import Match, identify
    from qunify.special_cases import Bindings, subsumes
    from qunify.targets import induced
    from qunify.training.linear import TopK, linear_loss
    from qunify.training.loss import loss

__version__ = "0.1.0"

_HOME = {
    "names": "catalogue",
    "get": "catalogue",
    "QMap": "qmap",
    "Gate": "qmap",
    "design": "qmap",
    "param": "qmap",
    "gradients": "qmap",
    "QTarget": "gauges",
    "Gauge": "gauges",
    "induced": "targets",
    "compare": "equivalence",
    "Equivalence": "equivalence",
    "subsumes": "special_cases",
    "Bindings": "special_cases",
    "identify": "recognition",
    "Match": "recognition",
    "drift": "population",
    "optimum": "population",
    "Optimum": "population",
    "stable_points": "population",
    "loss": "training.loss",
    "linear_loss": "training.linear",
    "TopK": "training.linear",
    "is_proper": "properness",
    "Properness": "properness",
}

__all__ = [
    "Bindings",
    "Equivalence",
    "Gate",
    "Gauge",
    "Match",
    "Optimum",
    "Properness",
    "QMap",
    "QTarget",
    "TopK",
    "compare",
    "design",
    "drift",
    "get",
    "gradients",
    "identify",
    "induced",
    "is_proper",
    "linear_loss",
    "loss",
    "names",
    "optimum",
    "param",
    "stable_points",
    "subsumes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qunify' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"qunify.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
