"""Any method of the catalogue in transformers' Trainer and TRL's SFTTrainer. Names are loaded when first used."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from qunify._lib.exports import exported

for _package in ("transformers", "trl", "datasets", "accelerate", "peft"):
    if importlib.util.find_spec(_package) is None:
        raise ImportError(f"qunify.hf needs {_package}: in a checkout of qunify, pip install '.[hf]'", name=_package)

if TYPE_CHECKING:
    from qunify.hf._answers import Answers
    from qunify.hf._compute_loss import CausalLoss, loss
    from qunify.hf._frozen_models import from_folder
    from qunify.hf._gguf import from_gguf
    from qunify.hf._heads import Head, last_hidden
    from qunify.hf._number_tokens import digit_values
    from qunify.hf._schedule import Schedule
    from qunify.hf._trainer import SFTTrainer
else:
    __getattr__, __dir__ = exported(__name__)
