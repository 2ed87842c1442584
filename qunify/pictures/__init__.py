"""Pages to open in a browser: one method's page, and the page of a report. Names are loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.pictures._facts import parameters, unit_target
    from qunify.pictures._method_page import method_page
    from qunify.pictures._one_token import CONTEXT, LABEL, TOKENS, WEIGHTS, curve, example, stated
    from qunify.pictures._report import Page, Section, html, write
else:
    __getattr__, __dir__ = exported(__name__)
