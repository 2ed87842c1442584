"""Training with Q-maps: a loss module, and many small models at once. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qunify.training.loss import Loss
    from qunify.training.many import Data, Job, Stack
    from qunify.training.networks import Linear, Network, Tabular, TwoLayer
    from qunify.training.sweeps import sweep

_HOME = {"Loss": "loss", "Data": "many", "Job": "many", "Stack": "many", "sweep": "sweeps"}
_HOME |= dict.fromkeys(("Linear", "Network", "Tabular", "TwoLayer"), "networks")

__all__ = ["Data", "Job", "Linear", "Loss", "Network", "Stack", "Tabular", "TwoLayer", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qunify.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"qunify.training.{_HOME[name]}"), name)
