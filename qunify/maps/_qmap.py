"""QMap: one method, written once, as its published loss and as the pulls it exerts."""

from __future__ import annotations

import dataclasses
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import torch

from qunify._lib import html
from qunify.maps._params import checked
from qunify.maps._pulls import Pulled, logit_gradient
from qunify.maps._target import QTarget, finish
from qunify.token import Distribution, Layout, Pool, Scalar, TensorToken, Token, Vector, is_symbolic, read

#: `w → D` is the pair (w, D) and contributes w·(p − D); a bare vector contributes itself.
Pulls = Iterable["tuple[Scalar, Distribution] | Vector"]


_SECTIONS = {"Loss": "loss_text", "Pulls": "pulls_text", "Source": "source", "Release": "release"}


def _facts(doc: str, name: str) -> dict[str, str]:
    """title, summary and the named lines of an entry's docstring; a title that is missing is the name."""
    head, _, body = inspect.cleandoc(doc).partition("\n\n")
    title, _, summary = " ".join(head.split()).partition(": ")
    facts = {"title": title or name, "summary": summary}
    for key, text in re.findall(rf"^({'|'.join(_SECTIONS)})\s+(.*?)(?=^\S|\Z)", body, re.M | re.S):
        facts[_SECTIONS[key]] = " ".join(text.split())
    return facts


M = TypeVar("M", bound="QMap")


# `param` is no field specifier: to a type checker its result is a default, which every parameter has.
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
class QMap(ABC):
    """A supervised fine-tuning loss as a map from a token to the target it teaches.

    Called as `m(logits, labels, *, ignore_index=-100, **context)` it returns a `QTarget`; logits (…, V) of any
    floating type, labels (…) of any integer type, contexts by name (`reference_logits`,
    `teacher_logits`, `old_logits`, `prior_logits`, `teacher_base_logits`, `token_weight`, `token_mask`,
    `negative_mask`, `token_values`).
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
    pools: ClassVar[tuple[Pool, ...]] = ()  # what it takes from its sequence or batch
    weighed_by: ClassVar[str] = ""  # the context, if there is one, that multiplies the loss of its token
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
                object.__setattr__(self, f.name, checked(self.name, f, getattr(self, f.name)))

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

    def teacher_tokens(self, vocab: int) -> int:
        """How many of a teacher's likeliest tokens the method must be told, of `vocab`: 1 where those that are not may
        count as equally likely, which comes close as more are told; more than there are where logits are compared, of
        which even the log-probabilities of all tokens do not tell enough."""
        return 1

    def told_of_teacher(self, vocab: int) -> str:
        """What the method must be told of a teacher, in words."""
        least = self.teacher_tokens(vocab)
        return f"the teacher's {least} likeliest tokens" if least <= vocab else "the teacher's logits themselves"

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
        values = {f.name: f.metadata.get("telling") for f in cls.parameters()}
        return {name: value for name, value in values.items() if value is not None}

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
    def __call__(self, logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any) -> QTarget:
        if self is not (m := with_numbers(self)):
            return m(logits, labels, ignore_index=ignore_index, **context)
        return self.of_token(*read(self.name, self.needs, logits, labels, ignore_index, context))

    def of_token(self, t: TensorToken, layout: Layout) -> QTarget:
        """What calling it gives, of tokens that are read."""
        pulled = Pulled.of(t, self.pulls(t))
        loss = torch.zeros_like(pulled.on_label) + self.loss(t)
        return finish(loss, pulled, layout, self.shift_invariant)


@torch.no_grad()
def gradients(
    maps: Iterable[QMap], logits: Any, labels: Any, *, ignore_index: int = -100, **context: Any
) -> list[torch.Tensor]:
    """The logit gradients of many methods on one batch, each (…, V): as `m(…).gradient`, softmaxes computed once."""
    maps = list(maps)
    for m in maps:
        if not isinstance(m, QMap):
            serves = "qunify.get makes one of an id, and qunify.induced has the gradient of a loss function"
            raise ValueError(f"gradients: maps: expected QMaps, got {m!r}; {serves}")
    needs = tuple(dict.fromkeys(name for m in maps for name in m.needs))
    t, layout = read("gradients", needs, logits, labels, ignore_index, context)
    results = [torch.empty_like(t.support) for _ in maps]
    for at, block in t.blocks():
        for m, g in zip(maps, results, strict=True):
            g[at] = logit_gradient(block, m.pulls(block))
    return [layout.spread(g) for g in results]


class Gate(QMap):
    """A method with a single pull, toward the label: g = weight · (p − δ)."""

    @abstractmethod
    def weight(self, t: Token) -> Scalar:
        """w = −u dL/du, derived by hand, with detached factors as constants: 1 for −log u, u for −sg(u) log u."""

    def pulls(self, t: Token) -> Pulls:
        return ((self.weight(t), t.label),)


class FromFunctions(QMap):
    """A method made of a user's functions: it brings its own name and needs, and has no fields that are parameters."""

    name: str  # type: ignore[misc]
    needs: tuple[str, ...] = ()  # type: ignore[misc]

    @classmethod
    def parameters(cls) -> tuple[dataclasses.Field[Any], ...]:
        return ()


def check_params(m: QMap | type[QMap], names: Iterable[str], argument: str = "") -> None:
    """ValueError unless these are parameters of the method, or of the class of methods."""
    known = [f.name for f in m.parameters()] if isinstance(m, type) else list(m.params)
    for key in names:
        if key not in known:
            expected = " or ".join(known) or "none: it has no parameters"
            given = f"{argument}: " if argument else ""
            raise ValueError(f"{m.name}: {given}unknown parameter {key!r}, expected {expected}")


def with_numbers(m: M, *, symbols: bool = False) -> M:
    """The same method, each number of SymPy among its parameters as a float or an int.

    Raises
    ------
    ValueError
        A parameter that is a symbol, unless `symbols` lets it stand for any value.
    """
    found = {}
    for name, value in m.params.items():
        if is_symbolic(value):
            if getattr(value, "is_number", False) is not True:
                if symbols:
                    continue
                raise ValueError(f"{m.name}: parameter {name}: expected a number, got the symbol {value}")
            found[name] = int(value) if value.is_Integer else float(value)
    return m.replace(**found) if found else m


def check_order(m: QMap, low: str, high: str) -> None:
    """ValueError unless one parameter is at most another. Symbols pass."""
    smaller, larger = getattr(m, low), getattr(m, high)
    if not any(map(is_symbolic, (smaller, larger))) and smaller > larger:
        raise ValueError(f"{m.name}: parameter {low}: expected at most {high}={larger:g}, got {smaller:g}")


Alias = tuple[tuple[str, str], ...]  #: pairs (context, the one that stands in for it)
