"""Exercises that check themselves: an answer against the one that the page computes.

Where the environment variable QUNIFY_DOCS is set, as the build of the documentation does, a wrong answer is an
AssertionError: no page is published with one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

import qunify as qu
from qunify.catalogue import as_method
from qunify.samples import every_context

_TOKENS, _VOCAB = 64, 7  # where two methods are compared


def check(answer: Any, expected: Any, hint: str = "", tolerance: float = 1e-6) -> None:
    """Say in a sentence whether an answer is right, or what is off, and the hint; never the answer itself.

    Parameters
    ----------
    answer
        The student's. Dots, `...`, stand for an answer still to come.
    expected : number, bool, str, sequence, array, tensor or QMap
        Numbers agree up to the tolerance, text up to case and outer spaces, methods where their gradients agree; a
        method may be answered by its id. Axes of length one do not count: `q.target` of one token is a vector.
    hint : str
        A whole sentence, printed after what is off.
    tolerance : float
        Absolute, and relative to numbers above one.

    Raises
    ------
    AssertionError
        For a wrong answer where QUNIFY_DOCS is set.
    """
    if answer is ...:
        print("Replace the dots with your answer.")
        return
    fault = _fault(answer, expected, tolerance)
    if not fault:
        print("Right.")
        return
    sentence = f"Not yet: {fault}. {hint}".strip()
    if os.environ.get("QUNIFY_DOCS"):
        raise AssertionError(sentence)
    print(sentence)


def _fault(answer: Any, expected: Any, tolerance: float) -> str:
    """What is off, in words; empty if nothing is."""
    if isinstance(expected, qu.QMap):
        return _method(answer, expected, tolerance)
    if isinstance(expected, str):
        if not isinstance(answer, str):
            return f"the answer is a word, and this is {_kind(answer)}"
        return "" if _plain(answer) == _plain(expected) else f"it is not {answer!r}"
    if _truth(expected) is not None:
        if _truth(answer) is None:
            return f"the answer is True or False, and this is {_kind(answer)}"
        return "" if _truth(answer) == _truth(expected) else "it is the other way round"
    wanted, got = _numbers(expected), _numbers(answer)
    if wanted is None:
        raise TypeError(f"check: expected: a number, bool, word, sequence, tensor or QMap, got {_kind(expected)}")
    what = "a number" if wanted.ndim == 0 else f"{' × '.join(map(str, wanted.shape))} numbers"
    if got is None:
        return f"the answer is {what}, and this is {_kind(answer)}"
    if got.shape != wanted.shape:
        return f"the answer is {what}, and this is {' × '.join(map(str, got.shape)) or 'one'}"
    off = ~np.isclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not off.any():
        return ""
    if wanted.ndim == 0:
        return "it is too large" if got > wanted else "it is too small" if got < wanted else "it is another number"
    first = ", ".join(str(i) for i in np.argwhere(off)[0])
    return f"{int(off.sum())} of {off.size} numbers are off, the first at index {first}"


def _method(answer: Any, expected: qu.QMap, tolerance: float) -> str:
    """Two methods are one where they have one gradient, whatever they are called."""
    try:
        m = as_method(answer, "check")
    except (KeyError, ValueError):
        given = repr(answer) if isinstance(answer, str) else _kind(answer)
        return f"the answer is a method, or the id of one, and this is {given}"
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(_TOKENS, _VOCAB, generator=g, dtype=torch.float64)
    labels = torch.randint(0, _VOCAB, (_TOKENS,), generator=g)
    rows = torch.rand(_TOKENS, generator=g, dtype=torch.float64)
    context = every_context(
        lambda _: 2 * torch.randn(_TOKENS, _VOCAB, generator=g, dtype=torch.float64),
        weight=2 * rows,
        mask=rows < 0.5,
        negative=logits > 1,
        values=torch.arange(_VOCAB, dtype=torch.float64).expand(_TOKENS, -1),
    )
    needed: dict[str, Any] = {name: context[name] for name in (*m.needs, *expected.needs)}
    got, wanted = qu.gradients([m, expected], logits, labels, **needed)
    apart = int((~torch.isclose(got, wanted, rtol=tolerance, atol=tolerance)).any(-1).sum())
    return f"its gradient is another one at {apart} of {_TOKENS} random tokens" if apart else ""


def _truth(x: Any) -> bool | None:
    """A bool, also as an array or a tensor of one; None for anything else."""
    if isinstance(x, torch.Tensor | np.ndarray):
        x = x.tolist()
    while isinstance(x, list) and len(x) == 1:
        (x,) = x
    return bool(x) if isinstance(x, bool | np.bool_) else None


def _numbers(x: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if isinstance(x, str | bool) or x is None:
        return None
    try:
        found = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
        return np.asarray(found, dtype=float).squeeze()
    except (TypeError, ValueError):
        return None


def _plain(text: str) -> str:
    return text.strip().casefold()


def _kind(x: Any) -> str:
    return f"of type {type(x).__name__}"
