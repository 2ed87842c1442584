"""LaTeX formulas as MathML, which every browser draws by itself: no script, no font and no picture to load.

It reads the part of LaTeX in which losses are written: letters, numbers, scripts, fractions, roots, accents, sums,
brackets and cases. A formula with anything else is shown as its source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

_SMALL = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
    "upsilon varphi chi psi omega"
)
_LARGE = {"Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ", "Omega": "Ω"}
_LETTERS = {name: chr(ord("α") + i) for i, name in enumerate(_SMALL.split())} | _LARGE
_LETTERS |= {"epsilon": "ϵ", "phi": "ϕ", "ell": "ℓ", "infty": "∞", "partial": "∂", "nabla": "∇"}
_SYMBOLS = {
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "cdot": "⋅", "times": "×", "propto": "∝",
    "in": "∈", "to": "→", "sim": "∼", "approx": "≈", "pm": "±", "ldots": "…", "dots": "…", "mid": "∣", "mapsto": "↦",
    "langle": "⟨", "rangle": "⟩", "lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|", "|": "‖", "{": "{", "}": "}",
    "lfloor": "⌊", "rfloor": "⌋", "odot": "⊙", "circ": "∘", "forall": "∀", "notin": "∉", "subset": "⊂", "wedge": "∧",
    "%": "%", "#": "#", "&": "&", "_": "_", "$": "$",
}  # fmt: skip
_SPACES = {",": 0.167, ":": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, "quad": 1.0, "qquad": 2.0}  # em
_NAMES = ("log", "exp", "max", "min", "arg", "ln", "sup", "inf", "det", "Pr", "sin", "cos", "tanh")
_LIMITS = {"sum": "∑", "prod": "∏"} | {name: name for name in ("max", "min", "sup", "inf")}
_ACCENTS = {"hat": "^", "tilde": "~", "bar": "¯", "widehat": "^", "widetilde": "~", "dot": "˙", "vec": "→"}
_SIZES = {"big": "1.2em", "Big": "1.8em", "bigg": "2.4em"}
_STYLES = ("textstyle", "displaystyle", "limits", "nolimits")
_UPRIGHT = ("mathrm", "operatorname", "text", "textrm", "mathit", "mathsf")
_TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|\s+|.", re.S)


class _Unknown(ValueError):
    """Something in the formula that is not read here."""


def mathml(latex: str, *, display: bool = False) -> str:
    """A `<math>` element, which keeps the source as its annotation; the source alone where it cannot be read."""
    try:
        body = _Reader(latex).formula()
    except (_Unknown, RecursionError):
        return f"<code>{escape(latex)}</code>"
    block = ' display="block"' if display else ""
    source = f'<annotation encoding="application/x-tex">{escape(latex)}</annotation>'
    return f"<math{block}><semantics>{body}{source}</semantics></math>"


class _Reader:
    """Reads a formula from left to right; `_spot` is the next token."""

    def __init__(self, latex: str) -> None:
        self._tokens = _TOKEN.findall(latex)
        self._spot = 0

    def formula(self) -> str:
        return self._row("")

    def _peek(self) -> str:
        """The next token that is no space; empty at the end."""
        while self._spot < len(self._tokens) and self._tokens[self._spot].isspace():
            self._spot += 1
        return self._tokens[self._spot] if self._spot < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise _Unknown("the formula ends too early")
        self._spot += 1
        return token

    def _row(self, *ends: str) -> str:
        """Everything up to one of these tokens, which is left standing."""
        parts = []
        while (token := self._peek()) not in ends:
            if token in ("}", "&", r"\\", r"\right", r"\end", ""):
                raise _Unknown(token)
            parts.append(self._scripted())
        return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"

    def _group(self) -> str:
        """{…} or one token, the argument of a command or a script: \\tfrac12 has two, and x^23 has the power 2."""
        if self._peek().isdigit():
            return f"<mn>{self._take()}</mn>"
        if self._peek() != "{":
            return self._atom()
        self._take()
        row = self._row("}")
        self._take()
        return row

    def _words(self) -> str:
        """The plain text of an argument: letters as they stand, with their spaces."""
        if self._take() != "{":
            return self._tokens[self._spot - 1]
        start = self._spot
        while self._take() != "}":
            pass
        found = "".join(self._tokens[start : self._spot - 1])
        if re.search(r"[\\{$^]", found):
            raise _Unknown(found)
        return found

    def _scripted(self) -> str:
        """An atom with what stands below and above it."""
        token = self._peek()
        base = "<mrow></mrow>" if token in ("^", "_") else self._atom()
        name, scripts = token[1:] if token.startswith("\\") else "", {}
        while (mark := self._peek()) in ("^", "_", "'"):
            self._take()
            if mark in scripts:
                raise _Unknown("two scripts in one place")
            scripts["^" if mark == "'" else mark] = "<mo>′</mo>" if mark == "'" else self._group()
        if scripts:
            kind = ("munder", "mover", "munderover") if name in _LIMITS else ("msub", "msup", "msubsup")
            tag = kind[2 if len(scripts) == 2 else 0 if "_" in scripts else 1]
            base = f"<{tag}>{base}{''.join(scripts[mark] for mark in ('_', '^') if mark in scripts)}</{tag}>"
        return base

    def _atom(self) -> str:
        token = self._take()
        if token.startswith("\\"):
            return self._command(token[1:])
        if token == "{":
            row = self._row("}")
            self._take()
            return row
        if token.isdigit():
            return f"<mn>{token}{self._digits()}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in "&^_}":
            raise _Unknown(token)
        return _operator({"-": "−", "*": "∗"}.get(token, token))

    def _digits(self) -> str:
        """The rest of a number: 1.5 is one, and so is 12, but not the comma of (1,2)."""
        rest = ""
        while self._spot < len(self._tokens):
            here, after = self._tokens[self._spot], self._tokens[self._spot + 1 : self._spot + 2]
            if not (here.isdigit() or (here == "." and after and after[0].isdigit())):
                break
            rest, self._spot = rest + here, self._spot + 1
        return rest

    def _command(self, name: str) -> str:
        plain: dict[str, Callable[[], str]] = {
            "sqrt": lambda: f"<msqrt>{self._group()}</msqrt>",
            "left": self._fenced,
            "begin": self._cases,
            "mathbf": lambda: f"<mi>{_bold(self._words())}</mi>",
        }
        if name in plain:
            return plain[name]()
        if name in ("frac", "tfrac", "dfrac"):
            fraction = f"<mfrac>{self._group()}{self._group()}</mfrac>"
            return f'<mstyle displaystyle="false">{fraction}</mstyle>' if name == "tfrac" else fraction
        if name in _LETTERS:
            return f"<mi>{_LETTERS[name]}</mi>"
        if name in ("sum", "prod"):
            return f'<mo movablelimits="true">{_LIMITS[name]}</mo>'
        if name in _NAMES:
            after = 0 if self._peek() in ("(", "[", r"\left", r"\bigl", r"\Bigl", r"\,") else 0.167
            return f'<mo lspace="0.167em" rspace="{after}em">{name}</mo>'
        if name in _SYMBOLS:
            return _operator(_SYMBOLS[name])
        if name in _SPACES:
            return f'<mspace width="{_SPACES[name]}em"></mspace>'
        if name in _ACCENTS:
            return f'<mover accent="true">{self._group()}<mo stretchy="false">{_ACCENTS[name]}</mo></mover>'
        if name in _UPRIGHT:
            words = escape(self._words()).replace(" ", "\u00a0")
            return f"<mtext>{words}</mtext>" if name.startswith("text") else f'<mi mathvariant="normal">{words}</mi>'
        if name in _STYLES:
            return ""
        if name.rstrip("lr") in _SIZES:
            size = _SIZES[name.rstrip("lr")]
            return f'<mo minsize="{size}" maxsize="{size}">{self._bracket()}</mo>'
        raise _Unknown(name)

    def _bracket(self) -> str:
        token = self._take()
        if token in "()[]|./":
            return "" if token == "." else token
        if token[1:] in _SYMBOLS:
            return _SYMBOLS[token[1:]]
        raise _Unknown(token)

    def _fenced(self) -> str:
        left = self._bracket()
        row = self._row(r"\right")
        self._take()
        return f'<mrow><mo fence="true">{left}</mo>{row}<mo fence="true">{self._bracket()}</mo></mrow>'

    def _cases(self) -> str:
        if self._words() != "cases":
            raise _Unknown("an environment")
        lines: list[list[str]] = [[]]
        while True:
            lines[-1].append(self._row("&", r"\\", r"\end"))
            end = self._take()
            if end == r"\end":
                break
            if end == r"\\":
                lines.append([])
        if self._words() != "cases":
            raise _Unknown("an environment")
        rows = "".join(f"<mtr>{''.join(f'<mtd>{cell}</mtd>' for cell in line)}</mtr>" for line in lines)
        return f'<mrow><mo fence="true">{{</mo><mtable class="cases">{rows}</mtable></mrow>'


def _operator(text: str) -> str:
    shown = escape(text)
    if text == "/":
        return '<mo lspace="0" rspace="0">/</mo>'
    return f'<mo stretchy="false">{shown}</mo>' if text in "()[]{}|‖⟨⟩⌊⌋" else f"<mo>{shown}</mo>"


def _bold(text: str) -> str:
    """Bold letters are characters of their own."""
    first = {"0": 0x1D7CE, "A": 0x1D400, "a": 0x1D41A}
    start = [next((s for s in "0Aa"[::-1] if s <= c and c.isascii() and c.isalnum()), "") for c in text]
    return "".join(chr(first[s] + ord(c) - ord(s)) if s else escape(c) for s, c in zip(start, text, strict=True))
