"""Sphinx, set so that building needs no address outside this checkout and a warning is an error (see the Makefile)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import qunify
from docs import findings, methods

project = "qunify"
author = copyright = "The qunify developers"
version = release = qunify.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 180  # seconds a cell; a busy machine is slow
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"  # docstrings write code in single backticks

html_theme = "furo"
html_title = f"qunify {release}"


def fill(app: Any, name: str, source: list[str]) -> None:
    """Pages that are written from the catalogue and from the rows of the studies."""
    makers = {"catalogue": methods.page, "findings": findings.page}
    if name in makers:
        source[0] = source[0].replace(f"<!-- {name} -->", makers[name]())


def setup(app: Any) -> None:
    app.connect("source-read", fill)
