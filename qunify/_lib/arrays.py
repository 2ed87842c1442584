"""Numbers as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_of(value: Any) -> Tensor:
    """A tensor; Python's numbers in float64, which torch would round to float32."""
    value = np.asarray(value) if isinstance(value, list | tuple | float) else value
    return torch.as_tensor(for_torch(value) if isinstance(value, np.ndarray) else value)


def for_torch(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array as torch can read it: in native byte order, with positive strides, writable; bfloat16 of ml_dtypes, as
    JAX gives it, in float32."""
    dtype = np.dtype(np.float32) if array.dtype.name == "bfloat16" else array.dtype.newbyteorder("=")
    return np.require(array, dtype, ["C", "W"])
