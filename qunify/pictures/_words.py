"""The sentences on the page of one method, each from its facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qunify._lib.simple import three_digits
from qunify.catalogue import identities
from qunify.pictures._facts import Facts
from qunify.population import SIMPLEX_NAMES, SIMPLEX_TRUTH

NEAR = 1e-4  # two distributions closer than this are called the same

#: What an identity's context is, in words.
GIVEN = {"label": "the one-hot label", "uniform": "the uniform distribution"} | {
    context: f"the {name}" for context, name in SIMPLEX_NAMES.items()
}


def numbers(values: Sequence[float] | Tensor) -> str:
    return f"({', '.join(f'{x:.3f}' for x in torch.as_tensor(values).tolist())})"


# ---- at one token -------------------------------------------------------------------------------------------------


def reading(facts: Facts) -> str:
    """How to read the table of one token."""
    example = facts.example
    if not facts.has_target:
        total = three_digits(sum(example["gradient"]))
        loss = three_digits(example["loss"])
        return f"The loss is {loss}. The gradient sums to {total}, not to zero: there is no target."
    inside = "is a distribution" if example["in_simplex"] else "has a negative entry, so it is no distribution"
    return (
        f"The loss is {three_digits(example['loss'])}. The unit target {inside}. In each gauge "
        r"$Q=\gamma\,\delta+(1-\gamma)\,\tilde\pi$, with $\delta$ the one-hot label; a dash stands where the gauge or "
        "the residual is undefined."
    )


# ---- pictures -----------------------------------------------------------------------------------------------------


def caption(facts: Facts) -> str:
    """What the two pictures show."""
    left = (
        "*Left:* its weight, which is its trust in the unit gauge; dotted, those of SFT and DFT."
        if facts.curve.gate
        else "*Left:* its pull on the label's logit; dotted, that of SFT"
        + ("." if bool(facts.curve.trust.isnan().any()) else "; dashed, its trust in the unit gauge.")
    )
    left += " The other tokens keep their shares of what remains; ● is the token of the next section."
    if facts.m.pools:
        left += " It looks at a sequence: here, and in the next section, the token is one of its own."
    if facts.field is None:
        return left
    others = "".join(f"; the {SIMPLEX_NAMES[name]} is {numbers(value)}" for name, value in facts.field.named.items())
    return (
        f"{left} *Right:* labels drawn from the truth {numbers(SIMPLEX_TRUTH)} on three tokens{others}. Arrows: where "
        "the drift moves a prediction. Lines: training by gradient flow from five starts ○. ●: stable optimum."
        + " Every sequence is a long text of such positions."
        * bool(facts.m.pools)
    )


def alternatives(facts: Facts) -> dict[str, str]:
    """The pictures of the page by name, each in words for those who cannot see it."""
    c = facts.curve
    what = "Weight" if c.gate else "Pull on the label's logit"
    shown = c.trust if c.gate else c.pull
    at = ", ".join(f"{float(shown[(c.u - u).abs().argmin()]):.2f} at u = {u}" for u in (0.01, 0.5, 0.99))
    found = {"curve": f"{what} of {facts.m.name}: {at}."}
    if facts.field is not None:
        found["field"] = f"Drift and training paths on three tokens. {ending(facts)}".replace("$p^*$", "p*")
    return found


# ---- where training ends ------------------------------------------------------------------------------------------


def ending(facts: Facts) -> str:
    """Where training ends in the world of three tokens, in words."""
    field = facts.field
    if field is None:
        return "The loss is not shift-invariant: it has no target, and so no drift toward one."
    points = field.end.all[0]
    if len(points) == 0:
        return "No stable zero of the drift was found: there is no point that training by it alone would return to."
    if len(points) > 1:
        listed = ", ".join(numbers(p) for p in points)
        reached = f"From the uniform distribution training reaches {numbers(field.end.probs)}."
        if not bool(field.end.converged):
            reached = "From the uniform distribution none of them is reached."
        return f"The drift has {len(points)} stable zeros, {listed}, and the start decides between them. {reached}"
    point = points[0]
    words = f"On the truth of the picture training settles at $p^*$ = {numbers(point)}: {_explained(facts, point)}."
    if float((field.end.probs - point).abs().max()) > NEAR:
        words += f" From the uniform distribution it is not reached: the flow was last at {numbers(field.end.probs)}."
    return words


def rest(facts: Facts) -> str:
    """How training by it ends, in one of a few words, for an index of methods."""
    if facts.field is None:
        return "no target"
    points = facts.field.end.all[0]
    if len(points) == 0:
        return "no stable zero"
    if len(points) > 1:
        return "several, as the start decides"
    return _place(facts, points[0])


def _place(facts: Facts, point: Tensor) -> str:
    """What a point at which training settles is: "the truth", "the teacher", "sharper than the truth", …"""
    truth = torch.tensor(SIMPLEX_TRUTH, dtype=torch.float64)
    assert facts.field is not None

    def same(other: Sequence[float] | Tensor) -> bool:
        return float((point - torch.as_tensor(other, dtype=torch.float64)).abs().max()) < NEAR

    if same(truth):
        return "the truth"
    for name, value in facts.field.named.items():
        if same(value):
            return f"the {SIMPLEX_NAMES[name]}"
    if float(point.max()) > 1 - NEAR:
        return "the likeliest token" if point.argmax() == truth.argmax() else "one token"
    gap = _entropy(point) - _entropy(truth)
    return "as spread out as the truth" if abs(gap) < NEAR else f"{'flatter' if gap > 0 else 'sharper'} than the truth"


def _explained(facts: Facts, point: Tensor) -> str:
    """The same as part of a sentence: "the truth itself", "all mass on the likeliest token", …"""
    place = _place(facts, point)
    if place == "the truth":
        return "the truth itself"
    if place.endswith("token"):
        return f"all mass on {place}"
    if place.endswith("the truth"):
        apart = float((point - torch.tensor(SIMPLEX_TRUTH, dtype=torch.float64)).abs().sum() / 2)
        return f"{place}, and {apart:.3f} from it in total variation"
    return f"{place}, whatever the labels say"


def _entropy(p: Tensor) -> float:
    return float(-torch.xlogy(p, p).sum())


def legend(latex: str) -> str:
    """The letters of a closed form."""
    parts = [r"$\eta$ is the truth"]
    if re.search(r"(?<![a-zA-Z\\])C(?![a-zA-Z])", latex):
        parts.append("$C$ the number at which $p^*$ sums to 1")
    if "_+" in latex or "_{+}" in latex:
        parts.append("$x_+=\\max(x,0)$")
    return f"{parts[0]}{''.join(', ' + p for p in parts[1:])}."


# ---- relations ----------------------------------------------------------------------------------------------------


def identity_lines(name: str, link: Callable[[str], str]) -> list[str]:
    """The identities of the catalogue in which a method takes part, the other methods as `link` shows them; first the
    names under which it goes elsewhere."""
    lines = [
        f"{alias.title} (`{name_elsewhere(alias)}` in {alias.source}) = {_term(term, name, link)}"
        for alias in identities.ALIASES
        for term in alias.right
        if term.name == name
    ]
    for i in identities.IDENTITIES:
        if name in {i.left.name, *(term.name for term in i.right)}:
            right = " + ".join(_term(term, name, link) for term in i.right)
            given = [f"`{key}` are those of {GIVEN[value]}" for key, value in i.given.items()]
            where = f", where {' and '.join(given)}" if given else ""
            lines.append(f"{_term(i.left, name, link)} = {right}{where}")
    for c in identities.CHANNELS:
        if name in {c.method.name, c.equals.name}:
            lines.append(
                f"{_term(c.method, name, link)} on labels that stay with probability `{c.stay}` and move to each other "
                f"token with `{c.move}`, on average = {_term(c.equals, name, link)}"
            )
    return lines


def name_elsewhere(alias: identities.Alias) -> str:
    """`trsft(alpha)`."""
    return f"{alias.name}({', '.join(alias.defaults)})" if alias.defaults else alias.name


def _term(term: identities.Term, own: str, link: Callable[[str], str]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in term.params.items())
    shown = f"`{term.name}`" if term.name == own else link(term.name)
    factor = "" if term.factor == 1 else f"`{term.factor}` · "
    return f"{factor}{shown}{f' `({settings})`' if settings else ''}"
