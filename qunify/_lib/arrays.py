"""Numbers as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_of(value: Any) -> Tensor:
    """A tensor; Python's numbers in float64, which torch would round to float32."""
    return torch.as_tensor(np.asarray(value) if isinstance(value, list | tuple | float) else value)
