"""Logit gradients in symbols: of a published loss, by differentiation, and of pulls, by adding them up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sympy as sp

from qunify.maps import QMap
from qunify.token import (
    LSE,
    SOFTMAX,
    Prediction,
    SumOverOthers,
    SymbolicToken,
    SymbolicVector,
    evaluate,
    rational,
    sum_over_others,
)


def with_fractions(m: QMap) -> QMap:
    """The same method with its parameters as fractions."""
    return m.replace(**{k: rational(v) for k, v in m.params.items() if isinstance(v, float)})


@lru_cache(maxsize=64)  # asked for by the proof, and again by what is shown of it
def entry_slopes(loss: Any, prediction: Prediction = SOFTMAX) -> SymbolicVector:
    """∂L/∂p_y and ∂L/∂p_k, every other entry and whatever is stopped held fixed."""
    at_label, elsewhere = prediction.entries.label, prediction.entries.elsewhere
    return SymbolicVector(loss.diff(at_label), _slope_elsewhere(loss, elsewhere)).apply(evaluate)


def gradient_of_loss(loss: Any, predictions: Iterable[Prediction] = (SOFTMAX,)) -> SymbolicVector:
    """The logit gradient of a per-token loss for every V, stop-gradients held fixed and then removed."""
    loss = sp.sympify(loss)
    total = SOFTMAX.entries * evaluate(loss.diff(LSE))
    for q in predictions:
        total = total + through(q, entry_slopes(loss, q))
    return total


def through(prediction: Prediction, c: SymbolicVector) -> SymbolicVector:
    """dL/dz from c = dL/dq: q^t ∘ (c − Σ q^t c/Σ q^t)."""
    escort = prediction.escort
    mean = _whole(escort * c) / _whole(escort)
    return escort * (c - mean)


def _whole(v: SymbolicVector) -> Any:
    return v.label + sum_over_others(v.elsewhere)


def _slope_elsewhere(expr: Any, p_k: sp.Symbol) -> Any:
    """dL/dp_k for one k ≠ y: every sum contributes its summand's derivative there, also from inside another sum."""
    stand_in, outer = _sums(expr)
    own = [outer.diff(d) * _slope_of_sum(a.args[0], p_k) for a, d in stand_in.items()]
    return sum(own, start=sp.S.Zero).xreplace({d: a for a, d in stand_in.items()})


def _slope_of_sum(summand: Any, p_k: sp.Symbol) -> Any:
    """The summand's own derivative at k, and the derivative at k of each sum inside it, over all summands."""
    stand_in, outer = _sums(summand)
    back = {d: a for a, d in stand_in.items()}
    inside = [sum_over_others(outer.diff(d).xreplace(back)) * _slope_elsewhere(a, p_k) for a, d in stand_in.items()]
    return sum(inside, start=outer.diff(p_k).xreplace(back))


def _sums(expr: Any) -> tuple[dict[SumOverOthers, sp.Dummy], Any]:
    """The sums that are in no other sum where they stand, and the expression with a symbol in place of each."""
    found, ahead = {}, [expr]
    while ahead:
        e = ahead.pop()
        if isinstance(e, SumOverOthers):
            found[e] = sp.Dummy(real=True)
        else:
            ahead += e.args
    return found, expr.xreplace(found)


@lru_cache(maxsize=1024)
def runs_on_symbols(m: QMap) -> bool:
    """Whether a method can be asked with symbols. A loss function cannot, nor a map that is written in operations of
    tensors, such as torch.sigmoid, in place of the Token's own: these are measured."""
    try:
        list(with_fractions(m).pulls(SymbolicToken()))
    except (TypeError, AttributeError, NotImplementedError):
        return False
    return True


def gradient_of_pulls(t: SymbolicToken, pulls: Any) -> SymbolicVector:
    """The logit gradient that pulls add up to."""
    total = SymbolicVector(0, 0)
    for pull in pulls:
        if isinstance(pull, tuple):
            weight, d = pull
            pull = (t.policy.probs - d.probs) * weight
        total = total + pull
    return total
