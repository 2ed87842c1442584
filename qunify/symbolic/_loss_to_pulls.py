"""From the published loss to its pulls, for every V: the proof, and its steps as a reader would write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sympy as sp

from qunify import catalogue
from qunify.maps import QMap
from qunify.symbolic._cases import Vanishing, cells, vanishes_everywhere, without_varying_cases
from qunify.symbolic._gradients import (
    entry_slopes,
    gradient_of_loss,
    gradient_of_pulls,
    runs_on_symbols,
    with_fractions,
)
from qunify.symbolic._printing import LONGEST_LINE, MOST_OPERATIONS, Step, abbreviated, as_latex, as_text, readable
from qunify.symbolic._size import TooLargeError
from qunify.token import LSE, SOFTMAX, SymbolicToken, SymbolicVector, evaluate, sg, varies

#: Entries that are proved at all tokens but their ties, and what happens there.
OFF_TIES = {"psft": "at r = 1 − ε the loss is written as its flat branch, and the pulls as its sloping one"}


@dataclass(frozen=True)
class Derivation:
    """What `loss_to_pulls` gives.

    Attributes
    ----------
    name : str
    proved : bool
        Whether the gradient of the loss is the sum of its pulls, by symbols, for every vocabulary size.
    steps : tuple of Step
    reason : str
        Why it is not proved; empty if it is.
    holds_off_ties : bool
        Proved except at ties: tokens at which a quantity equals a threshold it is compared with.
    """

    name: str
    proved: bool
    steps: tuple[Step, ...]
    reason: str = ""
    holds_off_ties: bool = False


def prove(m: QMap) -> Vanishing:
    """Where the logit gradient of the loss less that of the pulls is not shown to be zero. Exact: no floating point."""
    t, m = SymbolicToken(), with_fractions(m)
    loss = without_varying_cases(m.loss(t))
    declared = gradient_of_pulls(t, m.pulls(t)).apply(without_varying_cases)
    difference = (gradient_of_loss(loss, t.predictions.values()) - declared).apply(evaluate)
    return vanishes_everywhere(difference.label, difference.elsewhere)


def loss_to_pulls(m: QMap) -> Derivation:
    """The derivation of a method's pulls from its loss: written out, and proved where it can be.

    Raises
    ------
    ValueError
        A loss function, or a map written in operations of tensors: there are no symbols in it.
    """
    if not runs_on_symbols(m):
        raise ValueError(
            f"{m.name}: a derivation needs symbols: expected a QMap written in the Token's own operations, such as "
            "t.exp and t.where, or by qunify.design"
        )
    written = steps(m)
    try:
        proof = prove(m)
    except TooLargeError as error:
        return Derivation(m.name, False, written, f"the gradient less the pulls is too large for a proof: {error}")
    if not proof.holds:
        where = f" where {proof.open_regions[0]}" if proof.open_regions[0] else ""
        return Derivation(m.name, False, written, f"the gradient less the pulls does not reduce to zero{where}")
    return Derivation(m.name, True, (*written, _conclusion(m, proof)), holds_off_ties=bool(proof.open_ties))


def steps(m: QMap) -> tuple[Step, ...]:
    """The lines of the derivation, whether it is proved or not."""
    t, m = SymbolicToken(), with_fractions(m)
    loss, pulls = sp.sympify(m.loss(t)), list(m.pulls(t))
    stops = _stopped_numbers(loss)
    loss = loss.xreplace(stops)
    g, h = gradient_of_loss(loss, t.predictions.values()), gradient_of_pulls(t, pulls)
    written = [Step(m.formula, m.loss_text, "The published loss")]
    for stop, name in stops.items():
        for i, (where, form) in enumerate(_cases(stop.args[0])):
            words = "" if i else "Stopped, a constant for the derivative"
            written.append(Step(*_equation(name.name, name.name, form, where), words))
    fixed = ", what is stopped held fixed" if loss.has(sg) else ""
    for q in t.predictions.values():
        letter = "p" if q is SOFTMAX else "q"
        slope = entry_slopes(loss, q)
        if slope.label == 0 and slope.elsewhere == 0:
            continue
        written += _entries(
            f"Its slope in {letter} at the label and at any other token k{fixed}", rf"\partial L/\partial {letter}",
            f"∂L/∂{letter}", slope,
        )  # fmt: skip
        written.append(_chain_rule(letter, q.t))
    shift = evaluate(loss.diff(LSE))
    if shift != 0:
        form = readable(shift)
        written.append(
            Step(
                *_equation(r"\partial L/\partial\mathrm{lse}", "∂L/∂lse", form),
                "Its slope in lse = log Σ exp z, which moves by p and adds p_j ∂L/∂lse",
            )
        )
    written += _entries("The gradient in the logits", "g", "g", g)
    written.append(Step(r"\sum w\,(p-D)", m.pulls_text, "The pulls"))
    return (*written, *_entries("They add up to", "h", "h", h))


def _stopped_numbers(loss: sp.Expr) -> dict[sp.Expr, sp.Symbol]:
    """A name for every stopped number, c or c1, c2, …; none if a vector is stopped, whose entries sum to one."""
    stops = sorted(loss.atoms(sg), key=str)
    if any(varies(a) for a in stops):
        return {}
    return {a: sp.Symbol(f"c{i}" if len(stops) > 1 else "c", real=True) for i, a in enumerate(stops, 1)}


def _chain_rule(letter: str, t: Any) -> Step:
    """The line that leads from slopes in the prediction to the gradient in the logits."""
    if letter == "p":
        return Step(
            r"g_j=p_j\Bigl(\frac{\partial L}{\partial p_j}-\sum_i p_i\frac{\partial L}{\partial p_i}\Bigr)",
            "g_j = p_j (∂L/∂p_j − Σ[i] p_i ∂L/∂p_i)",
            "Through the softmax, ∂p_i/∂z_j = p_i (δ_ij − p_j)",
        )
    power, shown = sp.latex(t), as_text(t)
    return Step(
        rf"g_j=q_j^{{{power}}}\Bigl(\frac{{\partial L}}{{\partial q_j}}-\sum_i"
        rf"\frac{{q_i^{{{power}}}}}{{\sum_l q_l^{{{power}}}}}\frac{{\partial L}}{{\partial q_i}}\Bigr)",
        "g_j = q_j^t (∂L/∂q_j − Σ[i] q_i^t ∂L/∂q_i / Σ[l] q_l^t)",
        f"Through the tempered softmax, ∂q_i/∂z_j = q_i^t (δ_ij − q_j^t/Σ[l] q_l^t) with t = {shown}",
    )


def _entries(words: str, left_latex: str, left: str, v: SymbolicVector) -> Iterable[Step]:
    """Lines for the entry at the label and the entry at k, cell by cell; long ones have names for their sums."""
    operations = max(sp.count_ops(v.label), sp.count_ops(v.elsewhere))
    if operations > MOST_OPERATIONS:
        length = f"{operations} operations, not written out"
        yield Step(rf"{left_latex}_y,\ {left_latex}_k:\ \text{{{length}}}", f"{left}_y, {left}_k: {length}", words)
        return
    lines = [(f"_{at}", *case) for at, entry in (("y", v.label), ("k", v.elsewhere)) for case in _cases(entry)]
    forms = [form for _, _, form in lines]
    names: dict[sp.Symbol, sp.Expr] = {}
    if max(len(as_text(form)) for form in forms) > LONGEST_LINE:
        forms, names = abbreviated(forms)
    for i, ((at, where, _), form) in enumerate(zip(lines, forms, strict=True)):
        yield Step(*_equation(left_latex + at, left + at, form, where), "" if i else words)
    for name, meaning in names.items():
        yield Step(*_equation(sp.latex(name), as_text(name), meaning))


def _cases(expr: Any) -> list[tuple[str, sp.Expr]]:
    """Pairs (where, readable expression); regions with the same expression are one pair."""
    expr = sp.sympify(expr)
    if not expr.has(sp.Piecewise):
        return [("", readable(expr))]
    regions = [(cell, readable(e)) for cell, e in cells(without_varying_cases(evaluate(expr))) if not cell.tie]
    places: dict[sp.Expr, list[str]] = {}
    for cell, form in regions:
        places.setdefault(form, []).append(str(cell))
    if len(places) == 1:
        return [("", regions[0][1])]
    return [(" or ".join(where), form) for form, where in places.items()]


def _equation(left_latex: str, left: str, form: sp.Expr, where: str = "") -> tuple[str, str]:
    condition = rf"\quad\text{{where {where}}}" if where else ""
    return (
        f"{left_latex}={as_latex(form)}{condition}",
        f"{left} = {as_text(form)}{f'   where {where}' if where else ''}",
    )


def _conclusion(m: QMap, proof: Vanishing) -> Step:
    known = OFF_TIES.get(m.name) if catalogue.has(m) else None
    ties = f", except at a tie: {known or proof.open_ties[0]}" if proof.open_ties else ""
    return Step(
        r"g_y-h_y=0,\quad g_k-h_k=0",
        "g_y − h_y = 0 and g_k − h_k = 0",
        f"By symbols, with Σ p = 1, for every V{ties}",
    )
