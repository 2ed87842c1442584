"""A method from two functions of a Token: the trust in the label, and the residual that gets the remaining mass."""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch

from qunify.maps._qmap import FromFunctions, Pulls, QMap
from qunify.samples import two_tokens
from qunify.token import CONTEXTS, Distribution, Scalar, Token, is_symbolic


class UserDesigned(FromFunctions):
    """A target of the user's own, made by `design`: trust γ in the label, and the residual π̃."""

    title = "Designed target"
    summary = "Cross-entropy to a target chosen by the user."
    loss_text = "−sg(γ) log u − (1 − sg(γ)) Σ sg(π̃_k) log p_k"
    pulls_text = "γ → label, 1 − γ → π̃"
    source = "qunify.design"
    family = "designed"
    formula = r"-\mathrm{sg}(\gamma)\log u-(1-\mathrm{sg}(\gamma))\sum_k\mathrm{sg}(\tilde\pi_k)\log p_k"

    trust: Callable[..., Scalar]
    residual: Callable[..., Distribution]
    settings: tuple[tuple[str, Any], ...] = ()  # its parameters: names and values

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.settings)
        return f"<{self.name}{f'({settings})' if settings else ''}, designed>"

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.settings)

    def _replaced(self, params: Mapping[str, Any]) -> Self:
        return super()._replaced({"settings": tuple((self.params | dict(params)).items())})

    def _call(self, f: Callable[..., Any], t: Token) -> Any:
        accepted = inspect.signature(f).parameters
        return f(t, **{k: v for k, v in self.settings if k in accepted})

    def _trust(self, t: Token) -> Scalar:
        gamma = self._call(self.trust, t)
        if not (isinstance(gamma, numbers.Real | torch.Tensor) or is_symbolic(gamma)):
            raise ValueError(f"{self.name}: trust: expected one number per token, got {type(gamma).__name__}")
        shape = tuple(getattr(gamma, "shape", ()))
        expected = tuple(getattr(t.p_label, "shape", ()))
        if shape not in ((), expected):
            raise ValueError(f"{self.name}: trust: expected one number per token, shape {expected}, got {shape}")
        return gamma

    def _residual(self, t: Token) -> Distribution:
        d = self._call(self.residual, t)
        if not isinstance(d, Distribution):
            got = type(d).__name__
            raise ValueError(f"{self.name}: residual: expected a distribution such as t.policy or t.teacher, got {got}")
        return d

    def loss(self, t: Token) -> Scalar:
        gamma = t.stop(self._trust(t))
        return -gamma * t.log_p_label + (1 - gamma) * t.cross_entropy(t.stop(self._residual(t)), t.policy)

    def pulls(self, t: Token) -> Pulls:
        gamma = self._trust(t)
        return (gamma, t.label), (1 - gamma, self._residual(t))


def _number(method: str, key: str, value: Any) -> Any:
    """A tensor or array of one number as that number; anything else as it is."""
    shape = getattr(value, "shape", None)
    if shape is None or is_symbolic(value):
        return value
    if tuple(shape) != ():
        raise ValueError(
            f"{method}: parameter {key}: expected one number, got an array of shape {tuple(shape)}; trust and residual "
            "may use it as a variable of their own"
        )
    return value.item()


def design(name: str, *, trust: Callable[..., Scalar], residual: Callable[..., Distribution], **params: Any) -> QMap:
    """A new QMap from two functions of a `Token`: trust γ and residual π̃, Q = γδ + (1 − γ)π̃.

    Its loss is the cross-entropy to the detached target. Both functions receive the Token, and those of `params`
    that they name. `design` runs them once on a small batch, to see which contexts they use: these are its `needs`.
    Parameters may be SymPy symbols; for that run they are one half.

    >>> half = design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.teacher, a=0.5)
    >>> half.needs
    ('teacher_logits',)

    Raises
    ------
    ValueError
        If `trust` or `residual` is no function, fails, does not give one number per token and a distribution, or if
        neither takes one of `params`, or one of these is an array of several numbers.
    """
    for what, f in (("trust", trust), ("residual", residual)):
        if not callable(f):
            raise ValueError(f"{name}: {what}: expected a function of a Token, got {f!r}")
    named = {*inspect.signature(trust).parameters, *inspect.signature(residual).parameters}
    for key in params:
        if key not in named:
            raise ValueError(f"{name}: unknown parameter {key!r}, expected a name that trust or residual takes")
    params = {key: _number(name, key, value) for key, value in params.items()}
    m = UserDesigned(name=name, trust=trust, residual=residual, settings=tuple(params.items()))
    t, tried = two_tokens(), m.replace(**{k: 0.5 for k, v in params.items() if is_symbolic(v)})
    for what, ask in (("trust", tried._trust), ("residual", tried._residual)):
        try:
            with torch.no_grad():
                ask(t)
        except (AttributeError, RuntimeError, TypeError) as error:
            if isinstance(error, AttributeError) and isinstance(error.obj, type(t)):
                public = [key for key in dir(t) if not key.startswith("_")]
                near = difflib.get_close_matches(str(error.name), public, 1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name}: {what}: a Token has no {error.name!r}{hint}") from error
            raise ValueError(
                f"{name}: {what}: expected a function of a whole batch, with t.minimum, t.maximum and t.where in place "
                f"of min, max and if, and t.mixture of distributions, got {type(error).__name__}: {error}"
            ) from error
    return UserDesigned(
        name=name, trust=trust, residual=residual, settings=m.settings, needs=tuple(n for n in CONTEXTS if n in t.used)
    )
