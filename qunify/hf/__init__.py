"""Any method of the catalogue in transformers' Trainer and TRL's SFTTrainer. Names are loaded when first used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qunify.hf.criterion import CausalLoss, loss
    from qunify.hf.schedule import Schedule
    from qunify.hf.trainer import SFTTrainer

_EXTRA = ("transformers", "trl", "datasets", "accelerate", "peft")
_HOME = {"loss": "criterion", "CausalLoss": "criterion", "Schedule": "schedule", "SFTTrainer": "trainer"}

__all__ = ["CausalLoss", "SFTTrainer", "Schedule", "loss"]

for _package in _EXTRA:
    if importlib.util.find_spec(_package) is None:
        raise ImportError(f"qunify.hf needs {_package}: pip install 'qunify[hf]'", name=_package)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qunify.hf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"qunify.hf.{_HOME[name]}"), name)
