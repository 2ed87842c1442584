"""Text for a terminal: tables, bars and curves of Unicode blocks. Takes numbers, returns strings."""

from __future__ import annotations

import io
import math
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from qunify._lib.simple import three_digits

EIGHTHS = " ▁▂▃▄▅▆▇█"
HALVES = " ▀█"
Number = float | None


def harmless(data: Any) -> Any:
    """Plain data whose strings are only read: what would steer a terminal, as in somebody's name of a function, is
    escaped."""
    if isinstance(data, str):
        steers = (c for c in set(data) if c != "\n" and unicodedata.category(c)[0] == "C")
        return data.translate({ord(c): c.encode("unicode_escape").decode() for c in steers})
    if isinstance(data, dict):
        return {harmless(key): harmless(value) for key, value in data.items()}
    return [*map(harmless, data)] if isinstance(data, list | tuple) else data


def text(*blocks: Any) -> str:
    """Strings and rich renderables, laid out for the terminal's width; colours only where they are welcome."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=sys.stdout.isatty() or None,
        force_jupyter=False,  # text, in a notebook too
        width=_width(),
        markup=False,
        emoji=False,
        highlight=False,
    )
    for block in blocks:
        console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _width() -> int:
    return max(24, shutil.get_terminal_size().columns)


def heading(line: str) -> Any:
    from rich.text import Text

    return Text(line, style="bold")


def indented(paragraph: str) -> Any:
    from rich.padding import Padding

    return Padding(paragraph, (0, 0, 0, 2))


def pairs(lines: Sequence[tuple[str, str]]) -> Any:
    """Names on the left, their text wrapped on the right."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(name, value)
    return grid


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, pretty: bool) -> str:
    """For a pipe one aligned line per row; for a terminal a table, or a list where it is too narrow for one."""
    plain = columns([header, *rows])
    if not pretty:
        return "\n".join(plain)
    if max(map(len, plain)) + len(header) > _width():
        return text(pairs([(row[0], " · ".join(filter(None, row[1:]))) for row in rows]))
    from rich import box
    from rich.table import Table

    drawn = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*row)
    return text(drawn)


def columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Aligned lines; `right` sets every column but the first against its right edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if right and i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def paired_bars(names: Sequence[str], keys: tuple[str, str], values: Sequence[tuple[Number, Number]]) -> list[str]:
    """Two bars for each name, one below the other. A light bar is a negative number."""
    largest = max((abs(v) for pair in values for v in pair if v is not None), default=0.0) or 1.0
    room = min(40, _width() - 16)
    lines = []
    for name, pair in zip(names, values, strict=True):
        for i, (key, value) in enumerate(zip(keys, pair, strict=True)):
            lines.append(f"  {' ' if i else name} {key} {three_digits(value):>6} {_bar(value, room / largest)}")
    return lines


def _bar(value: Number, cells_per_unit: float) -> str:
    if value is None:
        return ""
    cells = abs(value) * cells_per_unit
    if value < 0:
        return "░" * max(1, round(cells))
    whole, part = divmod(round(cells * 8), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[part].strip()


def curve(values: Sequence[Number], *, axis: tuple[str, str, str], rows: int = 6) -> list[str]:
    """A filled curve over equally spaced points, up from zero and, where negative, down from it."""
    known = [v for v in values if v is not None]
    high, low = max(known, default=0.0), min(known, default=0.0)
    high, low = max(high, 0.0), min(low, 0.0)
    if high == low:
        high = 1.0
    up = math.ceil(rows * high / (high - low))
    down = math.ceil(rows * -low / (high - low))
    per_row = max(high / up if up else 0.0, -low / down if down else 0.0)
    width = min(60, _width() - 12)
    sampled = [values[round(i * (len(values) - 1) / (width - 1))] or 0.0 for i in range(width)]

    lines = []
    for row in range(up, -down, -1):  # each row covers (row − 1, row] in units of per_row
        if row > 0:
            cells = "".join(EIGHTHS[_clip(round(8 * (v / per_row - row + 1)), 8)] for v in sampled)
        else:
            cells = "".join(HALVES[_clip(round(2 * (row - v / per_row)), 2)] for v in sampled)
        edge = {up: up * per_row, 1 - down: -down * per_row}.get(row)  # the highest and the lowest value drawn
        label = f"{edge:.3g}".replace("-", "−") if edge else ""
        lines.append(f"  {label:>7} │{cells}".rstrip())
    lines.insert(up, f"  {'0':>7} ┼{'─' * width}")
    left, name, right = axis
    gap = width - len(left) - len(right)
    lines.append(" " * 11 + left + name.center(gap) + right)
    return lines


def _clip(level: int, top: int) -> int:
    return min(max(level, 0), top)
