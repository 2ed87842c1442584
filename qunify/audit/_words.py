"""Numbers as a reader of sentences and tables wants them."""

from __future__ import annotations

import math
from typing import Any

MANY = 1e6


def number(x: Any, digits: int = 3) -> str:
    """So many digits; a dash where there is none, "never" for an infinite time."""
    if x is None or math.isnan(x):
        return "–"
    if math.isinf(x):
        return "never"
    if abs(x) >= MANY:
        return "more than a million"
    return f"{x:,.0f}" if abs(x) >= 10**digits else f"{x:.{digits}g}"


def percent(share: Any, decimals: int = 1) -> str:
    """34 %, or with a decimal 34.1 %; two digits below 1 %."""
    if share is None or math.isnan(share):
        return "–"
    value = 100 * share
    return f"{value:.2g} %" if 0 < value < 1 else f"{value:.{decimals}f} %"


def signed(x: float) -> str:
    """+6.5 or −0.65."""
    return f"{x:+.2g}".replace("-", "−")
