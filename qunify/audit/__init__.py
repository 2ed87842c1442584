"""What would each recipe do to my model, on my data, before I train? Names are loaded when first used."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from qunify._lib.exports import exported

for _package in ("transformers", "trl", "datasets", "peft"):
    if importlib.util.find_spec(_package) is None:
        raise ImportError(f"qunify.audit needs {_package}: in a checkout of qunify, pip install '.[hf]'", name=_package)

if TYPE_CHECKING:
    from qunify.audit._audit import Audit, load, run
    from qunify.audit._processes import is_main_process
    from qunify.audit._record import record
else:
    __getattr__, __dir__ = exported(__name__)
