"""Logit gradients in symbols: of a published loss, by differentiation, and of pulls, by adding them up.

A stop-gradient is a function `sg` whose derivative is 0. After differentiation it is replaced by its argument: the
derivative of −sg(u) log u in u is −sg(u)/u, which is −1.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

import sympy as sp

from qunify.maps import QMap, remembered
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

M = TypeVar("M", bound=QMap)


def with_fractions(m: M) -> M:
    """The same method with its parameters as fractions."""
    return m.replace(**{k: rational(v) for k, v in m.params.items() if isinstance(v, float)})


@lru_cache(maxsize=64)  # the proof needs it, and the steps that are shown of it need it again
def entry_slopes(loss: Any, prediction: Prediction = SOFTMAX) -> SymbolicVector:
    """The partial derivatives ∂L/∂p_y and ∂L/∂p_k for one k ≠ y, stopped factors constant."""
    at_label, elsewhere = prediction.entries.label, prediction.entries.elsewhere
    return SymbolicVector(loss.diff(at_label), _slope_at_k(loss, elsewhere)).apply(evaluate)


def gradient_of_loss(loss: Any, predictions: Iterable[Prediction] = (SOFTMAX,)) -> SymbolicVector:
    """The logit gradient of a per-token loss, for every V: for −log p_y the entries p_y − 1 and p_k.

    By the chain rule: through each prediction that the loss may depend on, the softmax and tempered softmaxes, and
    through log Σ exp z, whose gradient is p.
    """
    loss = sp.sympify(loss)
    total = SOFTMAX.entries * evaluate(loss.diff(LSE))
    for q in predictions:
        total = total + prediction_vjp(q, entry_slopes(loss, q))
    return total


def prediction_vjp(prediction: Prediction, c: SymbolicVector) -> SymbolicVector:
    """The vector–Jacobian product of a prediction, dL/dz from c = dL/dq: q^t ∘ (c − Σ q^t c/Σ q^t)."""
    escort = prediction.escort
    mean = _sum_over_all(escort * c) / _sum_over_all(escort)
    return escort * (c - mean)


def _sum_over_all(v: SymbolicVector) -> Any:
    return v.label + sum_over_others(v.elsewhere)


def _slope_at_k(expr: Any, p_k: sp.Symbol) -> Any:
    """∂L/∂p_k for one k ≠ y. Each sum Σ f(p_j) contributes f′(p_k): from log Σ p_j² comes 2 p_k/Σ p_j²."""
    stand_in, outer = _outermost_sums(expr)
    own = [outer.diff(d) * _slope_of_sum(a.args[0], p_k) for a, d in stand_in.items()]
    return sum(own, start=sp.S.Zero).xreplace({d: a for a, d in stand_in.items()})


def _slope_of_sum(summand: Any, p_k: sp.Symbol) -> Any:
    """The derivative in p_k of Σ over j of a summand: of the term j = k, and of the sums that every term contains."""
    stand_in, outer = _outermost_sums(summand)
    back = {d: a for a, d in stand_in.items()}
    inside = [sum_over_others(outer.diff(d).xreplace(back)) * _slope_at_k(a, p_k) for a, d in stand_in.items()]
    return sum(inside, start=outer.diff(p_k).xreplace(back))


def _outermost_sums(expr: Any) -> tuple[dict[SumOverOthers, sp.Dummy], Any]:
    """The sums that no other sum contains, each with a symbol, and the expression with the symbols in their place."""
    found, ahead = {}, [expr]
    while ahead:
        e = ahead.pop()
        if isinstance(e, SumOverOthers):
            found[e] = sp.Dummy(real=True)
        else:
            ahead += e.args
    return found, expr.xreplace(found)


@remembered
def runs_on_symbols(m: QMap) -> bool:
    """Whether a method's pulls run on symbols. A loss function's do not, nor those of a map that calls operations of
    tensors, such as torch.sigmoid, in place of the Token's own: such methods are compared by numbers."""
    try:
        list(with_fractions(m).pulls(SymbolicToken()))
    except (TypeError, AttributeError, NotImplementedError):
        return False
    return True


def settled_by_symbols(m: QMap) -> bool:
    """Whether symbols say all that a method does in a population. What it takes from its sequence or batch, which they
    hold constant, changes there with the truth and the prediction."""
    return runs_on_symbols(m) and not m.pools


def gradient_of_pulls(t: SymbolicToken, pulls: Any) -> SymbolicVector:
    """The logit gradient Σ w (p − D) + Σ v of pulls."""
    total = SymbolicVector(0, 0)
    for pull in pulls:
        if isinstance(pull, tuple):
            weight, d = pull
            pull = (t.policy.probs - d.probs) * weight
        total = total + pull
    return total
