"""The Token of scripts: it records what the body of a method does, so that it can be written in another language.

Operations build a graph, in which what is written twice is one node. A branch that a body takes on a parameter is
traced both ways: the run stops there, and starts again once for each outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qunify._lib.arithmetic import Arithmetic
from qunify.token._base import CONTEXTS, Distribution, Scalar, Symbolic, Token

#: No body repeats something more often than this: a parameter that counts terms is tried up to here.
MOST_TERMS = 9


class Branch(Exception):
    """A run came to a decision it has not been told: what may hold there, and the value that goes with each."""

    def __init__(self, outcomes: Sequence[tuple[Node, Any]]) -> None:
        self.outcomes = outcomes


class Trace:
    """One run: its nodes, and the decisions it has been given."""

    def __init__(self, decisions: Sequence[Any] = ()) -> None:
        self._left = list(decisions)
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def node(self, op: str, *args: Any, vector: bool | None = None) -> Node:
        """The node of an operation; a vector if one of its arguments is, unless said otherwise."""
        args = tuple(a if isinstance(a, Node | str) else self.node("number", repr(a)) for a in args)
        if vector is None:
            vector = any(isinstance(a, Node) and a.vector for a in args)
        key = (op, vector, *(id(a) if isinstance(a, Node) else a for a in args))
        if key not in self._nodes:
            self._nodes[key] = Node(self, op, args, vector)
        return self._nodes[key]

    def decide(self, outcomes: Sequence[tuple[Node, Any]]) -> Any:
        if not self._left:
            raise Branch(outcomes)
        return self._left.pop(0)


class Node(Arithmetic, Symbolic):
    """An expression: one number, or the entry at k of a vector."""

    __hash__ = object.__hash__

    def __init__(self, trace: Trace, op: str, args: tuple[Node | str, ...], vector: bool) -> None:
        self.trace, self.op, self.args, self.vector = trace, op, args, vector

    def _operation(self, name: str, *operands: Any) -> Node:
        nothing = name == "+" and not isinstance(operands[1], Node) and operands[1] == 0
        return self if nothing else self.trace.node(name, *operands)

    def __ge__(self, other: Any) -> Node:
        return self._operation(">=", self, other)

    def __le__(self, other: Any) -> Node:
        return self._operation("<=", self, other)

    def __and__(self, other: Any) -> Node:
        return self._operation("&&", self, other)

    def __eq__(self, other: object) -> Any:
        return self._operation("===", self, repr(other) if isinstance(other, str) else other)

    def __ne__(self, other: object) -> Any:
        return self._operation("!==", self, repr(other) if isinstance(other, str) else other)

    def __bool__(self) -> bool:
        return bool(self.trace.decide([(self, True), (self._operation("!", self), False)]))

    def __index__(self) -> int:
        return int(self.trace.decide([(self == n, n) for n in range(MOST_TERMS + 1)]))


class ScriptToken(Token):
    """One position with a finite logit for every token."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._label = self._given("t.label")
        self._policy = self._given("t.policy")

    def _scalar(self, text: str) -> Node:
        return self._trace.node("text", text, vector=False)

    def _vector(self, text: str) -> Node:
        """An array of the runtime."""
        return self._trace.node("array", text, vector=True)

    def _given(self, text: str) -> Distribution:
        return Distribution(lambda: self._vector(f"{text}.probs"), lambda: self._vector(f"{text}.log"))

    def _made(self, op: str, *args: Any) -> Distribution:
        """What a function of the runtime gives."""
        made = self._trace.node(op, *args, vector=False)
        return Distribution(
            lambda: self._trace.node(".probs", made, vector=True), lambda: self._trace.node(".log", made, vector=True)
        )

    @property
    def label(self) -> Distribution:
        return self._label

    @property
    def policy(self) -> Distribution:
        return self._policy

    @property
    def uniform(self) -> Distribution:
        return self._given("t.uniform")

    @property
    def vocab(self) -> Scalar:
        return self._scalar("t.vocab")

    @property
    def logits(self) -> Node:
        return self._vector("t.logits")

    @property
    def log_sum_exp(self) -> Scalar:
        return self._scalar("t.logSumExp")

    @property
    def p_label(self) -> Scalar:
        return self._scalar("t.u")

    @property
    def log_p_label(self) -> Scalar:
        return self._scalar("t.logU")

    @property
    def p_rest(self) -> Scalar:
        return self._scalar("t.rest")

    @property
    def log_p_rest(self) -> Scalar:
        return self._scalar("t.logRest")

    def context(self, name: str) -> Any:
        text = f"t.{CONTEXTS[name]}"
        if name.endswith("_logits"):
            return self._given(text)
        return self._vector(text) if name == "negative_mask" else self._scalar(text)

    def stop(self, x: Any) -> Any:
        return x

    def log(self, x: Any) -> Any:
        return self._trace.node("log", x)

    def exp(self, x: Any) -> Any:
        return self._trace.node("exp", x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self._trace.node("?", condition, a, b)

    def sign(self, x: Any) -> Any:
        return self._trace.node("Math.sign", x)

    def sum(self, v: Any) -> Scalar:
        return self._trace.node("sum", v, vector=False)

    def sum_others(self, v: Any) -> Node:
        return self._trace.node("sumOthers", v, vector=True)

    def at_label(self, v: Any) -> Scalar:
        return self._trace.node("at label", v, vector=False)

    def softmax(self, logits: Any) -> Distribution:
        return self._made("softmax", logits)

    def conditioned(self, d: Distribution, mask: Any) -> Distribution:
        return self._made("conditioned", d.log, mask)

    def argmax(self, d: Distribution) -> Distribution:
        return self._made("argmax", d.log)

    def in_top_k(self, d: Distribution, k: Any) -> Node:
        return self._trace.node("inTopK", d.log, k, vector=True)

    def top_p(self, d: Distribution, mass: Any) -> Node:
        return self._trace.node("topP", d.probs, mass, vector=True)

    def q_log(self, log_x: Any, q: Any) -> Any:
        return self._trace.node("qLog", log_x, q)

    def log_add(self, log_x: Any, c: Any) -> Any:
        return self._trace.node("logPlus", log_x, c)

    def log1m(self, d: Distribution) -> Node:
        return self._trace.node("log1m", d.probs, vector=True)

    def entmax(self, alpha: float) -> Distribution:
        return self._made("entmax", self.policy.log, alpha)

    def tempered_softmax(self, t: Any) -> Distribution:
        return self._made("temperedSoftmax", self.policy.log, t)
