"""The Token of scripts: it records the operations of a method's body, so that they can be written in JavaScript.

Operations build a graph: `t.exp(a * t.p_label)` is a node "exp" over a node "*". The same operation on the same nodes
is one node. Where Python needs a definite value, as in `if a > 1` or `range(a)`, the run stops with a `Branch`; whoever
traces runs the body again once for each outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qunify._lib.arithmetic import Arithmetic
from qunify.token._base import CONTEXTS, PER_TOKEN, Distribution, Scalar, Symbolic, Token
from qunify.token._pools import Pool

#: A parameter that a body counts with, as in `range(a)`, is traced at every number from 0 to this one.
MOST_TERMS = 9


class Branch(Exception):
    """A body needs a value that its run was not given: pairs (condition, the value where it holds)."""

    def __init__(self, outcomes: Sequence[tuple[Node, Any]]) -> None:
        self.outcomes = outcomes


class Trace:
    """One run of a body: its nodes, and the values that its branches take, in their order."""

    def __init__(self, decisions: Sequence[Any] = ()) -> None:
        self._decisions = list(decisions)
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
        """The value of the next branch; a `Branch` is raised where the run was given no more."""
        if not self._decisions:
            raise Branch(outcomes)
        return self._decisions.pop(0)


class Node(Arithmetic, Symbolic):
    """A traced expression: a number, or a vector, which stands for its entry at k."""

    __hash__ = object.__hash__

    def __init__(self, trace: Trace, op: str, args: tuple[Node | str, ...], vector: bool) -> None:
        self.trace, self.op, self.args, self.vector = trace, op, args, vector

    def _operation(self, name: str, *operands: Any) -> Node:
        adds_zero = name == "+" and not isinstance(operands[1], Node) and operands[1] == 0  # as Python's sum() does
        return self if adds_zero else self.trace.node(name, *operands)

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
        """A distribution of the runtime's token."""
        return Distribution(lambda: self._vector(f"{text}.probs"), lambda: self._vector(f"{text}.log"))

    def _returned(self, op: str, *args: Any) -> Distribution:
        """The distribution that a function of the runtime returns."""
        made = self._trace.node(op, *args, vector=False)
        return Distribution(
            lambda: self._trace.node(".probs", made, vector=True),
            lambda: self._trace.node(".log", made, vector=True),
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
        return self._scalar(text) if name in PER_TOKEN else self._vector(text)

    @property
    def is_number(self) -> Node:
        return self._vector("t.isNumber")

    @property
    def teacher_logits(self) -> Node:
        return self._vector("t.teacherLogits")

    def pooled(self, pool: Pool) -> Any:
        return pool.alone(pool.of(self))

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
        return self._returned("softmax", logits)

    def conditioned(self, d: Distribution, mask: Any) -> Distribution:
        return self._returned("conditioned", d.log, mask)

    def argmax(self, d: Distribution) -> Distribution:
        return self._returned("argmax", d.log)

    def in_top_k(self, d: Distribution, k: Any) -> Node:
        return self._trace.node("inTopK", d.log, k, vector=True)

    def ranks(self, d: Distribution) -> Node:
        return self._trace.node("ranks", d.log, vector=True)

    def in_order_of(self, d: Distribution, by: Distribution) -> Node:
        return self._trace.node("inOrderOf", d.probs, by.log, vector=True)

    def top_p(self, d: Distribution, mass: Any) -> Node:
        return self._trace.node("topP", d.probs, mass, vector=True)

    def q_log(self, log_x: Any, q: Any) -> Any:
        return self._trace.node("qLog", log_x, q)

    def log_add(self, log_x: Any, c: Any) -> Any:
        return self._trace.node("logAdd", log_x, c)

    def log1m(self, d: Distribution) -> Node:
        return self._trace.node("log1m", d.probs, vector=True)

    def entmax(self, alpha: float) -> Distribution:
        return self._returned("entmax", self.policy.log, alpha)

    def tempered_softmax(self, t: Any) -> Distribution:
        return self._returned("temperedSoftmax", self.policy.log, t)
