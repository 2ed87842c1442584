"""Lines of JSON that other programs have written."""

from __future__ import annotations

import json
from typing import Any


def object_in(line: str) -> dict[str, Any]:
    """The object that a line holds; ValueError that says what it holds instead, or where it is no JSON."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:  # whose own line is 1
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from None
    except ValueError as error:  # a number of more digits than Python takes
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, got {type(found).__name__}")
    return found
