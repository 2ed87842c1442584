"""What stands in the atlas: losses as libraries ship them, and the libraries, by the version that is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

LOSS = Callable[..., Tensor]

TEACHER = ("teacher_logits",)


@dataclass(frozen=True)
class Shipped:
    """One loss: whose code it is, what its name or documentation says it is, and how it is called.

    The adapter `loss` only rearranges arguments. It takes logits (N, V) and labels (N,), or where `sequences` says so
    (B, T, V) and (B, T), and whatever the library makes of them: one loss per token, a mean, a sum.
    """

    code: Any  # the library's own function or class, which names itself
    loss: LOSS  # (logits, labels, **contexts)
    claim: str = ""  # id of the method that its name means; empty where the catalogue has none
    params: Mapping[str, Any] = field(default_factory=dict)  # the claimed parameters
    setting: str = ""  # as passed to the library
    contexts: tuple[str, ...] = ()
    sequences: bool = False
    padding: int = -100  # the label that its users give to tokens that are left out
    padded: LOSS | None = None  # the loss as it is called where that label is one of the vocabulary's
    says: str = ""  # its name in words, where the catalogue has no method of that name

    @property
    def where(self) -> str:
        """Where the code is, in its own words."""
        code = inspect.unwrap(self.code)
        name = getattr(code, "__qualname__", type(code).__qualname__)
        return f"{code.__module__}.{name}"

    def on_rows(self, logits: Tensor, labels: Tensor, **context: Any) -> Tensor:
        """The loss of tokens (N, V), which are one sequence to a loss of sequences."""
        if not self.sequences:
            return self.loss(logits, labels, **context)
        given = {k: x[None] if isinstance(x, Tensor) else x for k, x in context.items()}
        losses = self.loss(logits[None], labels[None], **given)
        return losses.reshape(-1) if losses.numel() == len(labels) > 1 else losses.reshape(losses.shape[1:])


@dataclass(frozen=True)
class Library:
    """A package of the registry, and how it is made to give its losses without its dependencies."""

    name: str
    version: str  # "" for what the project's own environment has, at whatever version
    losses: Callable[[], Iterator[Shipped]]
    also: tuple[str, ...] = ()  # small packages put beside it, pinned
    stubs: tuple[str, ...] = ()  # what it imports and its losses do not use
    bare: tuple[str, ...] = ()  # its packages whose own __init__ is not run, since it loads everything
    python: str = ""  # the Python that it is published for, where the project's is another

    @property
    def here(self) -> bool:
        """Whether it is asked in the project's own environment."""
        return not self.version


#: Every library, by name.
LIBRARIES: dict[str, Library] = {}


def ships(name: str, version: str = "", **how: Any) -> Callable[[Callable[[], Iterator[Shipped]]], Library]:
    """Enters the losses that a function yields; it imports the library, and is called in its environment alone."""

    def enter(losses: Callable[[], Iterator[Shipped]]) -> Library:
        LIBRARIES[name] = Library(name, version, losses, **how)
        return LIBRARIES[name]

    return enter
