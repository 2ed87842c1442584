"""The checker of the course's exercises: right is right, wrong is named, and the answer is never given away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import qunify as qu
from docs.exercises import check

RIGHT: list[tuple[Any, Any]] = [
    (0.36, torch.tensor(0.36)),
    (torch.tensor([0.2], requires_grad=True), 0.2),
    (sp.Rational(1, 10), 0.1),
    ([0.2, 0.8], torch.tensor([[0.2, 0.8]], dtype=torch.float64)),
    ((1, 2), np.array([1.0, 2.0])),
    (float("nan"), torch.tensor(torch.nan)),
    (" Identical ", "identical"),
    (True, torch.tensor([True])),
    (np.bool_(False), False),
    ("dft", qu.get("mae")),
    (qu.get("target_sft", eta=0), qu.get("dft")),
    (qu.design("mine", trust=lambda t: t.p_label, residual=lambda t: t.policy), qu.get("dft")),
]

WRONG: list[tuple[Any, Any, str]] = [
    (0.37, 0.36, "too large"),
    (0.35, 0.36, "too small"),
    (float("nan"), 0.36, "another number"),
    ("0.36", 0.36, "of type str"),
    (True, 1.0, "of type bool"),
    (None, 1.0, "of type NoneType"),
    ([0.2, 0.7], [0.2, 0.8], "1 of 2 numbers are off, the first at index 1"),
    ([0.2], [0.2, 0.8], "2 numbers"),
    ("scaled", "identical", "not 'scaled'"),
    (1, "identical", "a word"),
    (False, True, "other way round"),
    (1, True, "True or False"),
    ("sft", qu.get("dft"), "64 of 64 random tokens"),
    ("dtf", qu.get("dft"), "the id of one"),
    (0.5, qu.get("dft"), "of type float"),
]


@pytest.mark.parametrize(("answer", "expected"), RIGHT)
def test_right_answers(answer: Any, expected: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("QUNIFY_DOCS", "1")
    check(answer, expected, hint="Never seen.")
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(("answer", "expected", "said"), WRONG)
def test_wrong_answers(answer: Any, expected: Any, said: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("QUNIFY_DOCS", raising=False)
    check(answer, expected, hint="Look again.")
    out = capsys.readouterr().out
    assert said in out
    assert out.startswith("Not yet: ")
    assert out.endswith(". Look again.\n")
    monkeypatch.setenv("QUNIFY_DOCS", "1")
    with pytest.raises(AssertionError, match=r"Look again\."):
        check(answer, expected, hint="Look again.")


def test_the_answer_is_not_given_away(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("QUNIFY_DOCS", raising=False)
    check(1.0, 0.123456)
    check("kd", "target_sft")
    check([1.0, 2.0], [0.123456, 2.0])
    out = capsys.readouterr().out
    assert "0.123" not in out
    assert "target_sft" not in out


def test_an_answer_to_come_is_no_error(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("QUNIFY_DOCS", "1")
    check(..., 1.0)
    assert "Replace the dots" in capsys.readouterr().out


def test_the_tolerance_is_the_callers(capsys: Any) -> None:
    check(0.4, 0.41, tolerance=0.02)
    assert capsys.readouterr().out == "Right.\n"
