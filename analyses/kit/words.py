"""How numbers and methods are worded, in sentences, in tables and beside pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qunify import catalogue


def title(method: str) -> str:
    """What a method is called: "Target-SFT" for `target_sft`."""
    return catalogue.get(method).title if method in catalogue.names() else method.capitalize()


def listed(names: Iterable[str]) -> str:
    """Each once, in their order, the last after "and"."""
    each = list(dict.fromkeys(names))
    return " and ".join([", ".join(each[:-1]), each[-1]] if len(each) > 1 else each)


def percent(share: float, half: float | None = None, digits: int = 1) -> str:
    """A share, and half of its 95 % interval: "12.3 %", "12.3 ± 0.4 %"."""
    within = "" if half is None else f" ± {100 * half:.{digits}f}"
    return f"{100 * share:.{digits}f}{within} %"


def points(share: float, half: float) -> str:
    """A difference of two shares: "+1.2 ± 0.4 points"."""
    return f"{100 * share:+.1f} ± {100 * half:.1f} points"


def within(mean: float, half: float, digits: int = 3, *, sign: bool = False) -> str:
    """A mean and half of its 95 % interval: "0.123 ± 0.004", "+0.123 ± 0.004"."""
    return f"{mean:{'+' if sign else ''}.{digits}f} ± {half:.{digits}f}"


def minus(text: str) -> str:
    """The same with the minus sign − in place of hyphens."""
    return text.replace("-", "−")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column to the left, numbers to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
