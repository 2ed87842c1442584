"""The page of an audit in a browser: a method chosen, keyboard, phone, screen reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qunify import audit
from tests import small_llama
from tests.browser import address, browser, complaints, inaccessible, narrowed

pytestmark = pytest.mark.slow

SAID = [*small_llama.sentences(), "<b>\u05e9\u05dc\u05d5\u05dd</b> & " + "cat" * 200]


@pytest.fixture(scope="module")
def found() -> audit.Audit:
    rows = [{"question": "the cat sees", "answer": said} for said in SAID]
    model = small_llama.model(max_position_embeddings=1024)
    return audit.run(model, rows, small_llama.tokenizer(), ["sft", "dft", "gem"], influence=True, rehearse=1)


@pytest.fixture(scope="module")
def page(found: audit.Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.page(tmp_path_factory.mktemp("audit") / "audit.html")


def colours(driver: Any, example: int) -> list[float]:
    """How strongly each token of a demonstration is coloured."""
    script = f"return [...document.querySelectorAll('#demonstration-{example} i')].map(i => i.style.background)"
    return [float(c.rpartition(", ")[2].rstrip(")")) if c else 0.0 for c in driver.execute_script(script)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as driver:
        yield driver


def test_the_text_is_coloured_by_the_method_that_is_chosen(found: audit.Audit, page: Path, chromium: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    chromium.get(address(page))
    choice = chromium.find_element("css selector", "#method")
    assert choice.get_attribute("value") == "1"
    trust = found.tokens.loc[found.tokens["example"] == 0, "trust_dft"].to_numpy()
    levels = np.clip(trust * 10, 0, 9).astype(int)
    np.testing.assert_allclose(colours(chromium, 0), 0.55 * (9 - levels) / 9, atol=0.006)
    assert chromium.find_element("css selector", "#code").text == 'method="dft"'
    choice.send_keys(Keys.ARROW_UP)
    assert chromium.find_element("css selector", "#code").text == 'method="sft"'
    assert colours(chromium, 0) == [0.0] * len(trust)
    assert complaints(chromium) == []


@pytest.mark.parametrize("width", [1280, 400])
def test_a_demonstration_that_is_gone_to_is_not_covered(page: Path, chromium: Any, width: int) -> None:
    with narrowed(chromium, width):
        chromium.get(address(page, "demonstration-3"))
        covered = """const bar = document.querySelector(".controls").getBoundingClientRect();
            const text = document.querySelector("#demonstration-3").getBoundingClientRect();
            return [bar.top, bar.bottom, text.top]"""
        top, bottom, text = chromium.execute_script(covered)
        assert top == 0
        assert text >= bottom


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read_aloud(page: Path, chromium: Any, width: int) -> None:
    with narrowed(chromium, width):
        chromium.get(address(page))
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
        assert chromium.find_elements("css selector", ".text b > b, .text i > b") == [], (
            "what is said is text, not markup"
        )
        assert inaccessible(chromium) == []
