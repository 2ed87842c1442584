"""Large tensors in huge pages.

The system clears every page of memory before a process gets it. In pages of 2 MiB, which Linux gives on request, this
is much cheaper than in pages of 4 KiB.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PAGE = 2**12
_WORTH = 2**22  # bytes from which the request pays: two large pages
_HUGE_PAGES = 14  # MADV_HUGEPAGE of Linux


def empty(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor (rows, columns). On Linux its memory is requested in pages of 2 MiB, which makes the
    first pass over it several times faster; a system without such pages ignores the request."""
    x = torch.empty(rows, columns, dtype=dtype, device=device)
    advise = _advise() if device.type == "cpu" and x.nbytes >= _WORTH else None
    if advise is not None:
        start = -(-x.data_ptr() // _PAGE) * _PAGE
        end = (x.data_ptr() + x.nbytes) // _PAGE * _PAGE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _HUGE_PAGES)
    return x


@functools.cache
def _advise() -> Callable[..., Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
