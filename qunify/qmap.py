"""QMap: one method, written once, as its published loss and as the pulls it exerts."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, cast, dataclass_transform

import torch

from qunify import gauges, tensors
from qunify._lib import html
from qunify.samples import two_tokens
from qunify.token import CONTEXTS, Distribution, Scalar, Token, Vector, is_symbolic

#: `w → D` is the pair (w, D) and contributes w·(p − D); a bare vector contributes itself.
Pulls = Iterable["tuple[Scalar, Distribution] | Vector"]


def param(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] = (),
    letter: str = "",
    telling: Any = None,
    elsewhere: str = "",
    doc: str,
) -> Any:
    """A method's parameter: everything that is to be known of it, in the one place where it is declared.

    Parameters
    ----------
    default
        A float for a real number, an int for a whole one, a string for one of `choices`.
    low, high, above, below
        Its range: closed ends, or open ones.
    letter
        Its symbol in the docstring's formulas, as in "λ".
    telling
        A value that shows what the parameter does: off the default, and no round number by which another method could
        be taken for this one. `QMap.telling` gives those of all parameters.
    elsewhere
        What papers and libraries call it, for the glossary.
    doc
        Its meaning, in a few words.
    """
    facts = {"low": low, "high": high, "above": above, "below": below, "choices": choices, "doc": doc}
    return dataclasses.field(
        default=default, metadata=facts | {"letter": letter, "telling": telling, "elsewhere": elsewhere}
    )


def limits(f: dataclasses.Field[Any]) -> Mapping[str, Any]:
    """A parameter's range and meaning, as `param` has them. A field declared without `param` is a number of any size,
    or else stays at its default."""
    if "doc" in f.metadata:
        return f.metadata
    free = isinstance(f.default, int | float) and not isinstance(f.default, bool)
    return {**dict.fromkeys(("low", "high", "above", "below")), "choices": () if free else (f.default,), "doc": ""}


_SECTIONS = {"Loss": "loss_text", "Pulls": "pulls_text", "Source": "source", "Release": "release"}


def _facts(doc: str, name: str) -> dict[str, str]:
    """title, summary and the named lines of an entry's docstring; a title that is missing is the name."""
    head, _, body = inspect.cleandoc(doc).partition("\n\n")
    title, _, summary = " ".join(head.split()).partition(": ")
    facts = {"title": title or name, "summary": summary}
    for key, text in re.findall(rf"^({'|'.join(_SECTIONS)})\s+(.*?)(?=^\S|\Z)", body, re.M | re.S):
        facts[_SECTIONS[key]] = " ".join(text.split())
    return facts


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(param, dataclasses.field))
class QMap(ABC):
    """A supervised fine-tuning loss as a map from a token to the target it teaches.

    Called as `m(logits, labels, *, ignore_index=-100, **context)` it returns a `QTarget`; logits (…, V) of any
    floating type, labels (…) of any integer type, contexts by name (`reference_logits`,
    `teacher_logits`, `old_logits`, `prior_logits`, `token_weight`, `token_mask`, `negative_mask`).
    Computed in float32, or in float64 for float64 logits, in log space.

    Subclasses are frozen dataclasses whose fields are parameters. `title`, `summary`, `loss_text`,
    `pulls_text`, `source` and `release` are read from the docstring, which has one shape everywhere. A class without
    a `name` goes by that of the class, and `family` is the file that it stands in.
    """

    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""  # LaTeX of the published loss
    family: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    link: ClassVar[str] = "softmax"
    shift_invariant: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()  # settings worth checking beside defaults and bounds

    title: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    loss_text: ClassVar[str] = ""
    pulls_text: ClassVar[str] = ""
    source: ClassVar[str] = ""
    release: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        doc = own.get("__doc__") or ""  # before dataclass writes one for a class that has none
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        lineage = cls.__mro__[: cls.__mro__.index(QMap)]
        if any("name" in vars(c).get("__annotations__", ()) for c in lineage):  # every instance has a name of its own
            return
        if "name" not in own:
            cls.name = cls.__name__
        if "family" not in own:
            cls.family = cls.__module__.rpartition(".")[2]
        for key, value in _facts(doc, cls.name).items():
            setattr(cls, key, value)

    def __post_init__(self) -> None:
        for f in self.parameters():
            if "doc" in f.metadata:
                object.__setattr__(self, f.name, _checked(self.name, f, getattr(self, f.name)))

    @abstractmethod
    def loss(self, t: Token) -> Scalar:
        """The published per-token loss, stop-gradients included."""

    @abstractmethod
    def pulls(self, t: Token) -> Pulls:
        """Its logit gradient, derived by hand: pairs (w, D) for w·(p − D), or a signed vector."""

    def prediction(self, t: Token) -> Distribution:
        """What the model predicts through the method's own link; the softmax of the logits unless `link` says more."""
        return t.policy

    @property
    def simplex(self) -> str:
        """Whether the unit target is a distribution: "always", "sometimes" or "never". Entries override it, by a plain
        class attribute unless it depends on the parameters."""
        return "sometimes"

    @classmethod
    def parameters(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The fields that are parameters, with default, range and meaning, in the order in which they are written."""
        return dataclasses.fields(cast(Any, cls))

    @property
    def params(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in self.parameters()}

    def replace(self, **params: Any) -> Self:
        """The same method at other parameters: `get("focal").replace(focusing=1.0)`.

        Raises
        ------
        ValueError
            Unknown or out-of-range parameter.
        """
        check_params(self, params)
        return self._replaced(params)

    def _replaced(self, params: Mapping[str, Any]) -> Self:
        return dataclasses.replace(cast(Any, self), **params)

    @classmethod
    def telling(cls) -> dict[str, Any]:
        """A value off the default for every parameter that has one: the setting that shows the method best."""
        told = {f.name: f.metadata.get("telling") for f in cls.parameters()}
        return {name: value for name, value in told.items() if value is not None}

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.formula}$"

    def _repr_html_(self) -> str:
        rows = [
            ("loss", self.loss_text),
            ("pulls", self.pulls_text),
            ("source", self.source),
            ("needs", ", ".join(self.needs) or "logits and labels"),
        ]
        rows += [(name, value) for name, value in self.params.items()]
        title = f"{self.name}: {self.title}. {self.summary}"
        return html.paragraph(title) + html.table(("", ""), rows)

    @torch.no_grad()
    def __call__(self, logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any) -> gauges.QTarget:
        t, layout = tensors.read(self.name, self.needs, logits, labels, ignore_index, context)
        pulled = gauges.Pulled.of(t, self.pulls(t))
        loss = torch.zeros_like(pulled.on_label) + self.loss(t)
        return gauges.finish(loss, pulled, layout, self.shift_invariant)


@torch.no_grad()
def gradients(
    maps: Iterable[QMap], logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any
) -> list[torch.Tensor]:
    """The logit gradients of many methods on one batch, each (…, V): as `m(…).gradient`, sharing all they can."""
    maps = list(maps)
    needs = tuple(dict.fromkeys(name for m in maps for name in m.needs))
    t, layout = tensors.read("gradients", needs, logits, labels, ignore_index, context)
    found = [torch.empty_like(t.support) for _ in maps]
    for at, block in t.blocks():
        for m, g in zip(maps, found, strict=True):
            g[at] = gauges.gradient(block, m.pulls(block))
    return [layout.spread(g) for g in found]


class Gate(QMap):
    """A method with a single pull, toward the label: g = weight · (p − δ)."""

    @abstractmethod
    def weight(self, t: Token) -> Scalar:
        """w = −u dL/du, detached factors held fixed; derived by hand."""

    def pulls(self, t: Token) -> Pulls:
        return ((self.weight(t), t.label),)


class FromFunctions(QMap):
    """A method made of a user's functions: it brings its own name and needs, and has no fields that are parameters."""

    name: str  # type: ignore[misc]
    needs: tuple[str, ...] = ()  # type: ignore[misc]

    @classmethod
    def parameters(cls) -> tuple[dataclasses.Field[Any], ...]:
        return ()


class Designed(FromFunctions):
    """A target of the user's own: trust in the label, and where the remaining mass goes."""

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


def design(name: str, *, trust: Callable[..., Scalar], residual: Callable[..., Distribution], **params: Any) -> QMap:
    """A new QMap from two functions of a `Token`: trust γ and residual π̃, Q = γδ + (1 − γ)π̃.

    Its loss is the cross-entropy to the detached target. Both functions receive the Token, and those of `params`
    that they name. They are tried once on a small batch, which shows the contexts they use: `needs`. Parameters may be
    SymPy symbols, which are tried at one half.

    >>> half = design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.teacher, a=0.5)
    >>> half.needs
    ('teacher_logits',)

    Raises
    ------
    ValueError
        If `trust` or `residual` is no function, fails, does not give one number per token and a distribution, or if
        neither takes one of `params`.
    """
    for what, f in (("trust", trust), ("residual", residual)):
        if not callable(f):
            raise ValueError(f"{name}: {what}: expected a function of a Token, got {f!r}")
    named = {*inspect.signature(trust).parameters, *inspect.signature(residual).parameters}
    for key in params:
        if key not in named:
            raise ValueError(f"{name}: unknown parameter {key!r}, expected a name that trust or residual takes")
    m = Designed(name=name, trust=trust, residual=residual, settings=tuple(params.items()))
    t, tried = two_tokens(), m.replace(**{k: 0.5 for k, v in params.items() if is_symbolic(v)})
    for what, ask in (("trust", tried._trust), ("residual", tried._residual)):
        try:
            with torch.no_grad():
                ask(t)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{name}: {what}: expected a function of a whole batch, with t.minimum, t.maximum and t.where in place "
                f"of min, max and if, and t.mixture of distributions, got {type(error).__name__}: {error}"
            ) from error
    return Designed(
        name=name, trust=trust, residual=residual, settings=m.settings, needs=tuple(n for n in CONTEXTS if n in t.used)
    )


def check_params(m: QMap | type[QMap], names: Iterable[str], argument: str = "") -> None:
    """ValueError unless these are parameters of the method, or of the class of methods."""
    known = [f.name for f in m.parameters()] if isinstance(m, type) else list(m.params)
    for key in names:
        if key not in known:
            expected = " or ".join(known) or "none: it has no parameters"
            given = f"{argument}: " if argument else ""
            raise ValueError(f"{m.name}: {given}unknown parameter {key!r}, expected {expected}")


def _checked(method: str, f: dataclasses.Field[Any], value: Any) -> Any:
    """The parameter's value, or a ValueError naming it and its range. Symbols pass: they stand for any value."""
    if is_symbolic(value):
        return value
    known = f.metadata
    if known["choices"]:
        if value not in known["choices"]:
            expected = " or ".join(repr(c) for c in known["choices"])
            raise ValueError(f"{method}: parameter {f.name}: expected {expected}, got {value!r}")
        return value
    whole = isinstance(f.default, int)
    kind = numbers.Integral if whole else numbers.Real
    fits = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and -sys.float_info.max <= value <= sys.float_info.max  # type: ignore[operator]
        and (known["low"] is None or value >= known["low"])
        and (known["above"] is None or value > known["above"])
        and (known["high"] is None or value <= known["high"])
        and (known["below"] is None or value < known["below"])
    )
    if not fits:
        raise ValueError(f"{method}: parameter {f.name}: expected {range_text(f)}, got {value!r}")
    return int(value) if whole else float(value)


def ordered(m: QMap, low: str, high: str) -> None:
    """ValueError unless one parameter is at most another. Symbols pass."""
    smaller, larger = getattr(m, low), getattr(m, high)
    if not any(map(is_symbolic, (smaller, larger))) and smaller > larger:
        raise ValueError(f"{m.name}: parameter {low}: expected at most {high}={larger:g}, got {smaller:g}")


def range_text(f: dataclasses.Field[Any]) -> str:
    """A parameter's range in words: `a number in [0, 1]`."""
    known = limits(f)
    if known["choices"]:
        return " or ".join(repr(c) for c in known["choices"])
    left, right = "(-inf", "inf)"
    if known["low"] is not None:
        left = f"[{known['low']:g}"
    elif known["above"] is not None:
        left = f"({known['above']:g}"
    if known["high"] is not None:
        right = f"{known['high']:g}]"
    elif known["below"] is not None:
        right = f"{known['below']:g})"
    return f"{'an integer' if isinstance(f.default, int) else 'a number'} in {left}, {right}"
