"""The pictures of the front page: transparent SVG, for light pages and dark ones."""

from __future__ import annotations

import functools
from typing import Any

import torch
from matplotlib.figure import Figure

import qunify as qu
from qunify import plots
from qunify.pictures import CONTEXT, LABEL, WEIGHTS

#: The losses on the front page, and what each says there.
FRONT = {
    "sft": "the label, nothing else",
    "dft": "the label, as far as\nthe model believes it",
    "label_smoothing": "a little of everything",
    "kd": "the teacher,\nwhatever the label",
    "target_sft": "label and teacher,\nby the model's belief",
}


def front(name: str) -> tuple[bytes, bytes]:
    """One token, and what one of the losses on the front page teaches there: on a light page, and on a dark one."""
    return plots.light_and_dark(functools.partial(_drawn, name), name)


def _drawn(name: str) -> bytes:
    p = torch.tensor(WEIGHTS, dtype=torch.float64)
    p = p / p.sum()
    teacher = torch.tensor(CONTEXT["teacher_logits"], dtype=torch.float64).log()
    m = qu.get(name)
    given: dict[str, Any] = {"teacher_logits": teacher[None]} if m.needs else {}
    target = m(p.log()[None], torch.tensor([LABEL]), **given).target[0]
    with plots.style():
        figure = Figure(figsize=(2.15, 2.7))
        ax = figure.add_axes((0.14, 0.26, 0.84, 0.6))
        plots.bars(ax, p.tolist(), target.tolist(), LABEL, plots.colour(name))
        ax.set_ylim(0, 1.02)
        ax.set_title(m.title, color=plots.as_text(plots.colour(name)), fontsize=13, pad=8)
        ax.set_xticks([])
        ax.set_yticks([0, 0.5, 1], ["0", "½", "1"])
        ax.spines["bottom"].set_visible(False)
        ax.text(0.5, -0.13, FRONT[name], transform=ax.transAxes, ha="center", va="top", fontsize=10)
    return plots.render(figure, "svg", transparent=True)
