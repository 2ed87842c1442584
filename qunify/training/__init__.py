"""Training with Q-maps: a loss module, and many small models at once. Names are loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.training.loss import Loss as Loss
    from qunify.training.many import Data as Data
    from qunify.training.many import Job as Job
    from qunify.training.many import Stack as Stack
    from qunify.training.networks import Linear as Linear
    from qunify.training.networks import Network as Network
    from qunify.training.networks import Tabular as Tabular
    from qunify.training.networks import TwoLayer as TwoLayer
    from qunify.training.sweeps import sweep as sweep
else:
    __getattr__, __dir__ = exported(__name__)
