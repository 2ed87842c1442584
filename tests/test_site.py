"""The built site, opened as a person does. `make docs` builds it; without it these tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import address, browser, complaints, inaccessible

SITE = Path(__file__).parents[1] / "build" / "docs" / "html"
PAGES = (
    "index", "start", "course/1_what_a_loss_teaches", "course/6_design_your_own", "questions", "catalogue",
    "catalogue/target_sft", "catalogue/z_loss", "api", "command_line", "glossary", "findings", "ten_settings", "report",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the site is not built: make docs"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as driver:
        yield driver


def wait(driver: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 30).until(lambda d: d.execute_script(f"return {condition}"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_complaint(chromium: Any, page: str) -> None:
    chromium.get(address(SITE / f"{page}.html"))
    wait(chromium, "document.readyState === 'complete'")
    broken = "Array.from(document.images).filter(i => i.complete && !i.naturalWidth && i.offsetParent).map(i => i.src)"
    assert chromium.execute_script(f"return {broken}") == []
    assert complaints(chromium) == []
    foreign = "performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^(file|data|blob):/.test(n))"
    assert chromium.execute_script(f"return {foreign}") == []


def test_formulas_are_set_in_local_fonts(chromium: Any) -> None:
    chromium.get(address(SITE / "catalogue" / "target_sft.html"))
    wait(chromium, "document.querySelector('mjx-container') !== null")
    assert "\\frac" not in chromium.find_element("css selector", "article").text


def test_the_front_leads_to_a_lesson_and_to_the_explorer(chromium: Any) -> None:
    chromium.get(address(SITE / "index.html"))
    chromium.find_element("link text", "course").click()
    assert chromium.current_url.endswith("course/index.html")
    chromium.back()
    chromium.find_element("link text", "explorer").click()
    wait(chromium, "document.querySelectorAll('#table tr[data-slot]').length === 2")


@pytest.mark.parametrize("page", ["index", "course/1_what_a_loss_teaches", "catalogue/target_sft", "questions"])
def test_axe_finds_no_serious_problem(chromium: Any, page: str) -> None:
    chromium.get(address(SITE / f"{page}.html"))
    wait(chromium, "document.readyState === 'complete'")
    assert inaccessible(chromium) == []


@pytest.fixture(scope="module")
def phone() -> Iterator[Any]:
    with browser(390) as driver:
        yield driver


@pytest.mark.parametrize("page", ["index", "catalogue/target_sft", "course/1_what_a_loss_teaches"])
def test_nothing_is_wider_than_a_phone(phone: Any, page: str) -> None:
    phone.get(address(SITE / f"{page}.html"))
    wait(phone, "document.readyState === 'complete'")
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
