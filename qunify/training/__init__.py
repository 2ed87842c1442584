"""Training with Q-maps: many small models at once."""

from qunify.training.many import Data, Job, Stack
from qunify.training.networks import Linear, Network, Tabular, TwoLayer
from qunify.training.sweeps import sweep

__all__ = ["Data", "Job", "Linear", "Network", "Stack", "Tabular", "TwoLayer", "sweep"]
