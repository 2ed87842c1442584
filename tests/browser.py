"""A headless Chromium for tests: a page opened from a file, with its console watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parents[1] / "build" / "axe.min.js"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A Chromium of its own profile that is not let out to the network. Skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--force-prefers-reduced-motion", "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},{height}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        _resize(driver, width, height)
        yield driver
    finally:
        driver.quit()


def _resize(driver: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def narrowed(driver: Any, width: int) -> Iterator[None]:
    """The page that is open, on a screen of another width for as long as this takes."""
    before = driver.execute_script("return [innerWidth, innerHeight]")
    _resize(driver, width, before[1])
    try:
        yield
    finally:
        _resize(driver, *before)


def complaints(driver: Any) -> list[str]:
    """What the console holds beside plain messages."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def address(page: Path, fragment: str = "") -> str:
    return page.resolve().as_uri() + (f"#{fragment}" if fragment else "")


def inaccessible(driver: Any) -> list[str]:
    """What axe-core finds on the page that is serious or worse. Skips where it is not installed."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make browser")
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [
        f"{v['id']}: {v['help']}, {v['nodes'][0]['target']}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
