"""The Token of scripts: it traces the body of a method into JavaScript, its parameters kept as inputs.

Operations build a graph, in which what is written twice is one node. A branch that a body takes on a parameter is
traced both ways: the run stops there, and starts again once for each outcome. The functions and the token `t` that
the generated code uses are those of runtime.js.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qunify._lib.arithmetic import Arithmetic
from qunify.qmap import QMap
from qunify.token import CONTEXTS, Distribution, Scalar, Symbolic, Token

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

    def softmax(self, field: Any) -> Distribution:
        return self._made("softmax", field)

    def restricted(self, d: Distribution, mask: Any) -> Distribution:
        return self._made("restricted", d.log, mask)

    def argmax(self, d: Distribution) -> Distribution:
        return self._made("argmax", d.log)

    def in_top_k(self, d: Distribution, k: Any) -> Node:
        return self._trace.node("inTopK", d.log, k, vector=True)

    def head(self, d: Distribution, mass: Any) -> Node:
        return self._trace.node("head", d.probs, mass, vector=True)

    def deformed_log(self, log_x: Any, q: Any) -> Any:
        return self._trace.node("deformedLog", log_x, q)

    def log_plus(self, log_x: Any, c: Any) -> Any:
        return self._trace.node("logPlus", log_x, c)

    def log1m(self, d: Distribution) -> Node:
        return self._trace.node("log1m", d.probs, vector=True)

    def sparse(self, alpha: float) -> Distribution:
        return self._made("sparse", self.policy.log, alpha)

    def heavy_tailed(self, t: Any) -> Distribution:
        return self._made("heavyTailed", self.policy.log, t)


#: Functions of numbers, taken entry by entry of vectors. Every other function takes arrays, and is called once.
_ENTRYWISE = {"log", "exp", "Math.sign", "deformedLog", "logPlus"}
_OPERATORS = {"+", "-", "*", "/", ">", "<", ">=", "<=", "&&", "===", "!=="}
_LEAVES = {"number", "text", "array"}


class Writer:
    """Statements for some results: what is used more than once has a name, the rest stands where it is used."""

    def __init__(self, results: Sequence[Node]) -> None:
        self.lines: list[str] = []
        self._names: dict[Node, str] = {}
        self._uses: dict[Node, int] = {}
        for node in results:
            self._count(node)

    def _count(self, node: Node) -> None:
        self._uses[node] = self._uses.get(node, 0) + 1
        if self._uses[node] == 1:
            for arg in node.args:
                if isinstance(arg, Node):
                    self._count(arg)

    def text(self, node: Node, index: str = "k") -> str:
        """An expression for one number: the node's, or that of its entry at the index."""
        if node.op in _LEAVES:
            return f"{node.args[0]}[{index}]" if node.op == "array" else str(node.args[0])
        if node not in self._names and (self._uses[node] > 1 or not self._inline(node)):
            self._bind(node)
        if node in self._names:
            return f"{self._names[node]}[{index}]" if node.vector else self._names[node]
        return self._written_out(node, index)

    def _written_out(self, node: Node, index: str = "k") -> str:
        """The node's own operation, whether or not it has a name."""
        parts = [self.text(a, index) if isinstance(a, Node) else a for a in node.args]
        if node.op in _OPERATORS:
            return f"({parts[0]} {node.op} {parts[1]})"
        if node.op == "?":
            return f"({parts[0]} ? {parts[1]} : {parts[2]})"
        if node.op == "!":
            return f"!{parts[0]}"
        if node.op == "**":
            return f"Math.pow({parts[0]}, {parts[1]})"
        return f"{'Math.abs' if node.op == 'abs' else node.op}({', '.join(parts)})"

    def array(self, node: Node) -> str:
        """An expression for a whole vector; a number stands at every entry."""
        if node.op == "array":
            return str(node.args[0])
        if node.vector and node not in self._names:
            self._bind(node)
        return self._names[node] if node.vector else f"vec(t.vocab, k => {self.text(node)})"

    @staticmethod
    def _inline(node: Node) -> bool:
        return node.op in _OPERATORS | _ENTRYWISE | {"?", "!", "**", "abs"}

    def _bind(self, node: Node) -> None:
        if node.op == "sum":
            value = f"sum(t.vocab, k => {self.text(node.args[0])})"  # type: ignore[arg-type]
        elif node.op == "at label":
            value = self.text(node.args[0], "t.label.index")  # type: ignore[arg-type]
        elif node.op.startswith("."):
            value = f"{self.text(node.args[0])}{node.op}"  # type: ignore[arg-type]
        elif self._inline(node):
            value = self._written_out(node)
            value = f"vec(t.vocab, k => {value})" if node.vector else value
        else:
            parts = [self.array(a) if a.vector else self.text(a) for a in node.args if isinstance(a, Node)]
            value = f"{node.op}({', '.join(parts)})"
        self._names[node] = f"x{len(self._names)}"
        self.lines.append(f"const {self._names[node]} = {value};")


def function(
    m: type[QMap], body: Callable[[QMap, ScriptToken, Trace], tuple[list[Node], Callable[[Writer], str]]]
) -> str:
    """A JavaScript function (t, P) of a token and the parameters: what `body` makes of the traced method."""
    return "(t, P) => {" + _branches(m, body, []) + "}"


def _branches(m: type[QMap], body: Callable[..., Any], decisions: list[Any]) -> str:
    trace = Trace(decisions)
    params = {f.name: trace.node("text", f"P.{f.name}", vector=False) for f in m.parameters()}
    try:
        results, finish = body(m(**params), ScriptToken(trace), trace)
    except Branch as branch:
        text = ""
        for condition, value in branch.outcomes:
            test = Writer([condition]).text(condition)
            text += f"if ({test}) {{{_branches(m, body, [*decisions, value])}}}\n"
        return text
    writer = Writer(results)
    end = finish(writer)
    return "".join(f"{line}\n" for line in writer.lines) + f"return {end};"


def loss(m: type[QMap]) -> str:
    """The per-token loss as a function (t, P) → number."""

    def body(method: QMap, t: ScriptToken, trace: Trace) -> Any:
        node = trace.node("+", 0, method.loss(t))
        return [node], lambda w: w.text(node)

    return function(m, body)


def pulls(m: type[QMap]) -> str:
    """The pulls as a function (t, P) → array of [w, D, whether D is the label] and of [v], a signed gradient vector."""

    def body(method: QMap, t: ScriptToken, trace: Trace) -> Any:
        found: list[tuple[Any, ...]] = []
        for pull in method.pulls(t):
            if isinstance(pull, tuple):
                weight, d = pull
                weight = weight if isinstance(weight, Node) else trace.node("number", repr(weight))
                found.append((weight, d.probs, d is t.label))
            else:
                found.append((pull,))

        def finish(w: Writer) -> str:
            parts = [
                f"[{w.array(p[0])}]"
                if len(p) == 1
                else f"[{w.text(p[0])}, {w.array(p[1])}, {'true' if p[2] else 'false'}]"
                for p in found
            ]
            return f"[{', '.join(parts)}]"

        return [n for p in found for n in p if isinstance(n, Node)], finish

    return function(m, body)


def catalogue(entries: dict[str, type[QMap]]) -> str:
    """Every entry's two functions, as one JavaScript object."""
    lines = [f"{name}: {{loss: {loss(m)},\npulls: {pulls(m)}}}" for name, m in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}"
