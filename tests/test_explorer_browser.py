"""The explorer as a person uses it: opened from a file, dragged, typed into, read, and compared with Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qunify as qu
from qunify import explorer
from tests.browser import address, browser, complaints, inaccessible, narrowed

pytestmark = pytest.mark.slow

P = [0.1, 0.62, 0.2, 0.05, 0.03]
TEACHER = [0.75, 0.15, 0.08, 0.01, 0.01]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(explorer.page(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def opened(chromium: Any, page: Path) -> Any:
    chromium.get("about:blank")
    chromium.get(address(page))
    yield chromium
    assert complaints(chromium) == []


def find(driver: Any, css: str) -> Any:
    return driver.find_element("css selector", css)


def values(driver: Any, row: str) -> list[float]:
    """The numbers of a row of the table, in full."""
    cells = driver.find_elements("css selector", f"#table {row} td[data-value]")
    return [float(cell.get_attribute("data-value")) for cell in cells]


def model(driver: Any) -> torch.Tensor:
    return torch.tensor(values(driver, "#model-row"), dtype=torch.float64)


def choose(driver: Any, css: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(find(driver, css)).select_by_value(value)


def drag(driver: Any, css: str, dx: int, dy: int) -> None:
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    handle = find(driver, css)
    x, y = driver.execute_script(
        "arguments[0].closest('svg').scrollIntoView({block: 'center'});"
        "const b = arguments[0].getBoundingClientRect();"
        "return [Math.round(b.x + b.width / 2), Math.round(b.y + b.height / 2)]",
        handle,
    )
    actions = ActionBuilder(driver, duration=20)
    pointer = actions.pointer_action
    pointer.move_to_location(x, y).pointer_down().move_to_location(x + dx, y + dy).pointer_up()
    actions.perform()


def retype(driver: Any, css: str, text: str) -> Any:
    """Everything in a field replaced, as a person does it."""
    from selenium.webdriver.common.keys import Keys

    box = find(driver, css)
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(text)
    return box


def press(driver: Any, css: str, *keys: str) -> None:
    find(driver, css).send_keys(*keys)


def expected(name: str, p: torch.Tensor, label: int = 0, gauge: Any = "unit", **params: Any) -> list[float]:
    """loss, scale, trust, target and half the length of the gradient, as the table has them."""
    m = qu.get(name, **params)
    context = {"teacher_logits": torch.tensor(TEACHER, dtype=torch.float64).log()}
    given: dict[str, Any] = {n: context[n][None] for n in m.needs}
    q = m(p.log()[None], torch.tensor([label]), **given)
    g = q.in_gauge(gauge)
    return [
        float(q.loss), float(g.scale), float(g.trust), *g.target[0].tolist(), float(q.gradient.abs().sum() / 2)
    ]  # fmt: skip


def close(got: list[float], wanted: list[float]) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_it_opens_on_sft_and_dft(opened: Any) -> None:
    assert "Canberra" in find(opened, ".prompt").text
    np.testing.assert_allclose(model(opened), P, atol=1e-12)
    close(values(opened, "tr[data-slot='0']"), expected("sft", model(opened)))
    close(values(opened, "tr[data-slot='1']"), expected("dft", model(opened)))


def test_dragging_a_bar_moves_the_model_and_every_number(opened: Any) -> None:
    before = model(opened)
    drag(opened, "#p0", 0, -60)
    p = model(opened)
    assert p[0] > before[0] + 0.1
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(p[1:] / p[1:].sum(), before[1:] / before[1:].sum(), atol=1e-9)
    close(values(opened, "tr[data-slot='1']"), expected("dft", p))


def test_the_keyboard_moves_what_the_mouse_moves(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    press(opened, "#p1", Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert float(model(opened)[1]) == pytest.approx(0.60, abs=1e-9)
    assert opened.switch_to.active_element.get_attribute("id") == "p1"
    handle = find(opened, "#p1")
    assert handle.get_attribute("aria-valuetext") == "60 %"
    assert handle.get_attribute("role") == "slider"
    press(opened, "#curve-u", Keys.HOME)
    assert float(model(opened)[0]) == pytest.approx(0.001, abs=1e-6)


def test_methods_parameters_gauges_and_labels_can_be_chosen(opened: Any) -> None:
    choose(opened, "#method2", "gem")
    retype(opened, "#param2-beta-number", "0.5")
    close(values(opened, "tr[data-slot='2']"), expected("gem", model(opened), beta=0.5))
    choose(opened, "#gauge", "boundary")
    choose(opened, "#label", "3")
    close(values(opened, "tr[data-slot='2']"), expected("gem", model(opened), 3, "boundary", beta=0.5))
    assert find(opened, "#observed").text == "the"


def test_a_teacher_appears_where_it_is_needed_and_can_be_dragged(opened: Any) -> None:
    assert not opened.find_elements("css selector", "#teacher")
    choose(opened, "#method1", "target_sft")
    close(values(opened, "tr[data-slot='1']"), expected("target_sft", model(opened)))
    before = values(opened, "tr[data-slot='1']")
    drag(opened, "#teacher1", 0, -30)
    assert values(opened, "tr[data-slot='1']")[4] > before[4]


def test_a_wrong_entry_is_moved_into_its_range(opened: Any) -> None:
    choose(opened, "#method2", "label_smoothing")
    box = retype(opened, "#param2-smoothing-number", "7\t")
    assert box.get_attribute("value") == "1"
    close(values(opened, "tr[data-slot='2']"), expected("label_smoothing", model(opened), smoothing=1))


def test_the_address_holds_what_is_seen(opened: Any, page: Path) -> None:
    choose(opened, "#method2", "target_sft")
    drag(opened, "#p2", 0, -40)
    link, p, seen = opened.current_url, model(opened), values(opened, "tr[data-slot='2']")
    opened.get("about:blank")
    opened.get(link)
    np.testing.assert_allclose(model(opened), p, atol=1e-5)
    np.testing.assert_allclose(values(opened, "tr[data-slot='2']"), seen, atol=1e-4)
    opened.get("about:blank")
    opened.get(address(page, "m=nothing;dft:x=3&p=1,2&y=99&truth=a&g=%3Cb%3E"))  # a broken link opens all the same
    np.testing.assert_allclose(model(opened), P, atol=1e-12)
    close(values(opened, "tr[data-slot='1']"), expected("dft", model(opened)))


@pytest.mark.parametrize("name", ["sft", "label_smoothing", "kd_hybrid"])
def test_training_plays_to_the_optimum(opened: Any, page: Path, name: str) -> None:
    opened.get("about:blank")
    opened.get(address(page, f"m={name}&truth=0.5,0.3,0.2&start=0.2,0.5,0.3&a=0"))
    find(opened, "#play").click()
    outcome = find(opened, "#outcome")
    assert "comes to rest" in outcome.text
    teacher = torch.tensor(TEACHER[:3], dtype=torch.float64)
    m = qu.get(name)
    truth = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    context: dict[str, Any] = {"teacher_logits": (teacher / teacher.sum()).log()}
    predicted = qu.optimum(m, truth, **{n: context[n] for n in m.needs}).probs
    ended = [float(x) for x in outcome.get_attribute("data-end").split(",")]
    np.testing.assert_allclose(ended, predicted.numpy(), atol=1e-5)


def example(driver: Any, name: str) -> str:
    """Show it, and give what it says."""
    button = next(b for b in driver.find_elements("css selector", "#examples button") if b.text == name)
    button.click()
    return str(find(driver, "#lesson").text)


def test_examples_show_what_they_say(opened: Any) -> None:
    assert "SFT's target is Canberra alone" in find(opened, "#lesson").text  # on opening already
    assert "has a negative entry" in example(opened, "Below zero")
    assert min(values(opened, "tr[data-slot='1']")) < 0
    assert "wherever it starts" in example(opened, "Where DFT ends")
    find(opened, "#play").click()
    assert "Canberra" in find(opened, "#outcome").text
    example(opened, "A teacher's help")
    assert find(opened, "#outcome").text == ""


@pytest.mark.parametrize("start", ["0.02,0.96,0.02", "0.01,0.01,0.98"])
def test_dft_runs_to_the_likeliest_word_wherever_it_starts(opened: Any, page: Path, start: str) -> None:
    opened.get("about:blank")
    opened.get(address(page, f"m=dft&truth=0.5,0.3,0.2&start={start}&a=0"))
    find(opened, "#play").click()
    assert "corner: Canberra" in find(opened, "#outcome").text


def test_dft_runs_into_a_corner(opened: Any, page: Path) -> None:
    opened.get("about:blank")
    opened.get(address(page, "m=dft&truth=0.5,0.3,0.2&start=0.4,0.35,0.25&a=0"))
    find(opened, "#play").click()
    assert "corner: Canberra" in find(opened, "#outcome").text


def test_truth_and_model_can_be_dragged_on_the_triangle(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def where() -> str:
        return str(find(opened, "#truth").get_attribute("aria-valuetext"))

    before = where()
    drag(opened, "#truth", 0, 60)
    moved = where()
    assert moved != before
    press(opened, "#truth", Keys.ARROW_UP)
    assert where() != moved
    drag(opened, "#start", 30, 0)
    assert complaints(opened) == []


def test_every_method_can_be_shown(opened: Any, page: Path) -> None:
    names = list(explorer.shown())
    for three in [names[i : i + 3] for i in range(0, len(names), 3)]:
        opened.execute_script("location.hash = arguments[0]", f"m={';'.join(three)}")
        opened.execute_script("show(arguments[0])", f"m={';'.join(three)}")
        rows = opened.find_elements("css selector", "#table tr[data-slot]")
        assert len(rows) == len(three)
    assert complaints(opened) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(opened: Any, page: Path, width: int) -> None:
    with narrowed(opened, width):
        opened.get(address(page))
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_axe_finds_no_serious_problem(opened: Any) -> None:
    choose(opened, "#method2", "target_sft")
    assert inaccessible(opened) == []
