"""Pages to open in a browser: one method's page, and the page of a report. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qunify.pictures._method_page import method_page
    from qunify.pictures._report import Page, Section, html, write

_HOME = {"method_page": "_method_page"} | dict.fromkeys(("Page", "Section", "html", "write"), "_report")

__all__ = ["Page", "Section", "html", "method_page", "write"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qunify.pictures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"qunify.pictures.{_HOME[name]}"), name)
