"""Writes traced methods as JavaScript: a function of a token and of the parameters, which stay inputs.

`ScriptToken` records what the body of a method does, as a graph; here each node becomes an expression, and one that is
used twice a statement. A branch that a body takes on a parameter becomes an `if` with both outcomes. The functions and
the token `t` that the generated code uses are those of runtime.js.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qunify.maps import QMap
from qunify.token import Branch, Node, ScriptToken, Trace

#: Functions of numbers, taken entry by entry of vectors. Every other function takes arrays, and is called once.
_ENTRYWISE = {"log", "exp", "Math.sign", "qLog", "logAdd"}


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


def script(
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


def loss_script(m: type[QMap]) -> str:
    """The per-token loss as a function (t, P) → number."""

    def body(method: QMap, t: ScriptToken, trace: Trace) -> Any:
        node = trace.node("+", 0, method.loss(t))
        return [node], lambda w: w.text(node)

    return script(m, body)


def pulls_script(m: type[QMap]) -> str:
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

    return script(m, body)


def catalogue_script(entries: dict[str, type[QMap]]) -> str:
    """Every entry's two functions, as one JavaScript object."""
    lines = [f"{name}: {{loss: {loss_script(m)},\npulls: {pulls_script(m)}}}" for name, m in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}"
