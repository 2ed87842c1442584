"""Colours that stay put, labels that stay apart, pictures that come out the same twice."""

from __future__ import annotations

import colorsys
import io
import itertools
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

import qunify as qu
from qunify import plots
from qunify.catalogue import ENTRIES, PAPER


def test_the_papers_fifteen_have_distinct_colours() -> None:
    for a, b in itertools.combinations(PAPER, 2):
        distance = sum((x - y) ** 2 for x, y in zip(to_rgb(plots.colour(a)), to_rgb(plots.colour(b)), strict=True))
        assert distance**0.5 > 0.12, (a, b)


def test_the_papers_fifteen_differ_without_colour() -> None:
    assert len({plots.line(name).marker for name in PAPER}) == len(PAPER)


def test_colours_are_fixed() -> None:
    assert plots.colour("sft") == "#1b1b1b"
    assert plots.colour("dft") == "#0072B2"
    assert plots.colour("target_sft") == "#D55E00"


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_a_look_that_stands_out_from_white(name: str) -> None:
    look = plots.line(name)
    assert look == plots.line(name)
    assert sum(to_rgb(look.colour)) < 2.4


def test_a_name_outside_the_catalogue_has_a_look_too() -> None:
    assert plots.line("my_own") == plots.line("another")


def test_style_leaves_the_settings_outside_alone() -> None:
    before = dict(mpl.rcParams)
    with plots.style():
        assert mpl.rcParams["svg.hashsalt"] == "qunify"
    assert dict(mpl.rcParams) == before


def test_spread_keeps_what_is_apart_and_separates_what_is_not() -> None:
    assert plots.spread([0.1, 0.9], 0.2) == pytest.approx([0.1, 0.9])
    assert plots.spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert plots.spread([1.0, 0.99], 0.1) == pytest.approx([1.0, 0.9])
    assert plots.spread([0.0, 0.01], 0.1) == pytest.approx([0.0, 0.1])
    assert plots.spread([], 0.1) == []


def test_end_labels_do_not_touch() -> None:
    with plots.style():
        figure = Figure(figsize=(4, 3))
        ax = figure.add_axes((0.1, 0.1, 0.6, 0.8))
        plots.label_ends(ax, [plots.EndLabel(1, 0.5 + i / 1000, f"line {i}", "black") for i in range(8)])
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the leader
    for a, b in itertools.combinations(boxes, 2):
        assert a.y1 <= b.y0 or b.y1 <= a.y0


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_data_give_the_same_bytes(kind: Literal["png", "svg"]) -> None:
    first, second = (plots.render(plots.overview([qu.get("dft")]), kind) for _ in range(2))
    assert first == second


def test_a_note_is_kept_in_the_picture() -> None:
    assert b"made by hand" in plots.render(Figure(), "svg", note="made by hand")
    png = Image.open(io.BytesIO(plots.render(Figure(), "png", note="made by hand")))
    assert png.info["Description"] == "made by hand"


@pytest.mark.parametrize("names", [["sft"], ["sft", "dft", "target_sft"], ["iw_sft", "unlikelihood", "kd", "gem"]])
def test_overview_draws_each_method_once(names: list[str]) -> None:
    figure = plots.overview([qu.get(name) for name in names])
    assert [text.get_text() for text in figure.axes[0].texts] == names
    assert len(figure.axes) == 1 + 2 * len(names)


def test_a_notebook_shows_an_overview() -> None:
    figure: Any = plots.overview([qu.get("dft")])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_overview_draws_what_the_method_computes() -> None:
    """DFT at u = 0.1: Q_y = 2u − u² = 0.19, and the rest of Q is (1 − u) p_k."""
    panel = plots.overview([qu.get("dft")]).axes[1]
    heights = [bar.get_height() for bar in panel.patches if isinstance(bar, Rectangle)]
    assert len(heights) == len(panel.patches)
    assert heights[:3] == pytest.approx([0.19, 0.9 * 0.9 * 0.75, 0.9 * 0.9 * 0.25])
    assert heights[3:] == pytest.approx([0.1, 0.9 * 0.75, 0.9 * 0.25])


def test_overview_says_where_there_is_no_target() -> None:
    figure = plots.overview([qu.get("sft"), qu.get("z_loss")])
    written = [[text.get_text() for text in ax.texts] for ax in figure.axes[1:]]
    assert written == [[], [], ["no target"], ["no target"]]


def test_overview_tells_two_settings_of_a_method_apart() -> None:
    curves = plots.overview([qu.get("gem", beta=0.5), qu.get("gem", beta=0.9)]).axes[0].lines
    assert [curve.get_linestyle() for curve in curves[:2]] == ["-", "--"]


def test_overview_numbers_those_that_bear_one_name() -> None:
    figure = plots.overview([qu.get("dft"), qu.design("dft", trust=lambda t: 1, residual=lambda t: t.policy)])
    assert {text.get_text() for text in figure.axes[0].texts} == {"dft", "dft (2)"}
    assert "dft (2)" in {ax.get_title(loc="left") for ax in figure.axes}


def test_overview_takes_one_method_alone() -> None:
    def mine(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    for method, name in (("dft", "dft"), (qu.get("sft"), "sft"), (mine, "mine")):
        assert [text.get_text() for text in plots.overview(method).axes[0].texts] == [name]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_methods_second_look_has_another_dash(name: str) -> None:
    twice = [qu.get(name)] * 2
    assert plots._look(twice, 0).dash != plots._look(twice, 1).dash


@pytest.mark.parametrize("count", [0, 7])
def test_overview_names_the_number_it_cannot_draw(count: int) -> None:
    with pytest.raises(ValueError, match=f"expected one to six methods, got {count}"):
        plots.overview([qu.get("sft")] * count)


def test_names_are_read_on_white_and_keep_their_hue() -> None:
    def hue(shade: str) -> float:
        return colorsys.rgb_to_hls(*to_rgb(shade))[0]

    words = {name: plots.as_text(plots.colour(name)) for name in qu.names()}
    assert min(plots.contrast(shade, "white") for shade in words.values()) >= 3
    moved = [name for name, shade in words.items() if shade != plots.colour(name).lower()]
    assert {"akl", "jsd", "kd", "gce", "label_smoothing"} <= set(moved)
    assert [name for name in moved if abs(hue(words[name]) - hue(plots.colour(name))) > 0.02] == []
    named = [t for t in plots.overview(["akl", "sft"]).findobj(Text) if t.get_text().startswith("akl")]
    assert len(named) == 2
    assert {to_hex(text.get_color()) for text in named} == {words["akl"]}


def test_an_overview_fits_a_column_of_a_paper(tmp_path: Path) -> None:
    figure = plots.overview(["sft", "dft", "target_sft"], width="column")
    assert figure.get_figwidth() == 3.3
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if any(map(str.isalpha, text.get_text()))]  # ticks may lie outside
    assert len(texts) > 12
    assert min(float(text.get_fontsize()) for text in texts) >= 6.5
    box = figure.bbox.padded(1)
    assert [t.get_text() for t in texts if not box.contains(*t.get_window_extent().max)] == []
    with pytest.raises(ValueError, match="one to three methods in a column, got 4"):
        plots.overview(["sft"] * 4, width="column")
    figure.savefig(tmp_path / "a.pdf")  # as a user does, whatever matplotlib's own settings are
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()
