"""Symbolic expressions as a reader would write them: LaTeX, and one line of Unicode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.printer import Printer
from sympy.printing.str import StrPrinter

from qunify.symbolic._normal_form import canonical
from qunify.symbolic._size import is_large, with_names, without_names
from qunify.token import SumOverOthers, at_label, evaluate, renamed, sg

SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
LETTERS = {"tea": r"\pi^{\mathrm{tea}}", "ref": r"\pi^{\mathrm{ref}}", "old": r"\pi^{\mathrm{old}}"}
LETTERS |= {"prior": r"\pi^{\mathrm{prior}}", "tempered": "q", "lse": r"\mathrm{lse}", "val": "v"}
LETTERS |= {"base": r"\pi^{\mathrm{base}}"}


#: How many characters of plain text a formula may have; what is longer is abbreviated, or not shown: nobody reads it.
LONGEST_LINE = 150  # of a derivation
LONGEST_OPTIMUM = 160
LONGEST_BIAS = 260
LONGEST_GRADIENT = 400  # of a proof

#: How many operations a derivation still writes out, abbreviated.
MOST_OPERATIONS = 1000


class Step(NamedTuple):
    r"""One line of an argument: the formula in LaTeX, the same in one line of Unicode, and what is done, if it says so.

    `Step(r"g_y=u\,(u-1)", "g_y = u (u − 1)", "The gradient in the logits")`
    """

    latex: str
    plain: str
    words: str = ""


class SumOverAll(sp.Function):
    """Σ over all k of an expression in per-token symbols."""

    is_real = True


def readable(expr: Any) -> sp.Expr:
    """The shortest of a few equal forms, some with sums over all k: Σ[j] p_j² in place of p_y² + Σ[j≠y] p_j²."""
    expr = evaluate(expr)
    named = with_names(expr)
    if is_large(named):
        return expr
    forms = [f for e in dict.fromkeys((named, canonical(named))) for f in _forms_by_sums(e)]
    return without_names(shortest(dict.fromkeys(forms)))


def _forms_by_sums(expr: sp.Expr) -> list[sp.Expr]:
    """Equal forms with sums over k ≠ y, then with sums over all k."""
    ordered = sorted(expr.atoms(SumOverOthers), key=str)  # so that every run gives the same form
    if not ordered:
        return _equal_forms(expr)
    sums = {a: sp.Dummy(real=True) for a in ordered}
    over_others = {d: a for a, d in sums.items()}
    over_all = {d: SumOverAll(a.args[0]) for a, d in sums.items()}
    completed = {a: d - at_label(a.args[0]) for a, d in sums.items()}
    return [f.xreplace(over_others) for f in _equal_forms(expr.xreplace(sums))] + [
        f.xreplace(over_all) for f in _equal_forms(expr.xreplace(completed))
    ]


def shortest(forms: Iterable[sp.Expr], first: Callable[[sp.Expr], int] = lambda form: 0) -> sp.Expr:
    """The form that is shortest as text, and the first of such; with `first`, among those of lowest rank."""
    return min(forms, key=lambda form: (first(form), len(as_text(form).replace("eta", "η"))))


def abbreviated(forms: Sequence[sp.Expr]) -> tuple[list[sp.Expr], dict[sp.Symbol, sp.Expr]]:
    """The same expressions with a name S1, S2, … for each sum, and the sum that each name stands for."""
    names: dict[sp.Expr, sp.Symbol] = {}
    for form in forms:
        for a in sorted(_outermost(form), key=as_text):
            names.setdefault(a, sp.Symbol(f"S{len(names) + 1}"))
    return [f.xreplace(names) for f in forms], {s: a for a, s in names.items()}


def _outermost(expr: sp.Expr) -> set[sp.Expr]:
    if isinstance(expr, SumOverOthers | SumOverAll):
        return {expr}
    return set().union(*(_outermost(a) for a in expr.args))


def _equal_forms(expr: sp.Expr) -> list[sp.Expr]:
    forms = [expr, sp.factor_terms(expr)]
    if not expr.has(sp.Piecewise) and sp.count_ops(expr) < 120:
        expanded = sp.expand(expr)
        forms += [expanded, sp.factor_terms(expanded)]
        roots = any(p.exp.is_Rational and not p.exp.is_Integer for p in expr.atoms(sp.Pow))
        divisors = {p.base for p in expr.atoms(sp.Pow) if p.exp.is_negative}
        few = not roots or len(expr.free_symbols) <= 2  # x^(8/5) counts as degree 8: with more symbols it takes hours
        if few and not is_large(sp.Mul(*divisors)):
            forms.append(sp.factor(expr))
    return forms


def _at_j(summand: sp.Expr) -> sp.Expr:
    return summand.xreplace(renamed(summand, "_k", "_j"))


def _display_name(name: str) -> str:
    """A symbol's name for readers: `argmax_k` for `argmax0_k`, and `[p_j > 0]` for the mask `[p_k > 0]_j`."""
    if name.startswith(("sign(", "[")):
        condition, _, at = name.rpartition("_")
        return condition.replace("_k", f"_{at}")
    return re.sub(r"^(argmax|topP|top|rank|place|sorted|entmax|tempered)\d+_", r"\1_", name)


class _PositiveFirst(Printer):
    """Sums begin with a term that has no minus sign, if there is one."""

    def _as_ordered_terms(self, expr: sp.Expr, order: Any = None) -> list[sp.Expr]:
        return sorted(super()._as_ordered_terms(expr, order), key=lambda t: bool(t.could_extract_minus_sign()))


class _Text(_PositiveFirst, StrPrinter):
    def _print_Symbol(self, expr: sp.Symbol) -> str:
        return _display_name(expr.name).replace("tempered", "q")

    def _print_SumOverOthers(self, expr: SumOverOthers) -> str:
        return f"Σ[j≠y] {self.parenthesize(_at_j(expr.args[0]), 50)}"

    def _print_SumOverAll(self, expr: SumOverAll) -> str:
        return f"Σ[j] {self.parenthesize(_at_j(expr.args[0]), 50)}"

    def _print_sg(self, expr: sg) -> str:
        return f"sg({self._print(expr.args[0])})"

    def _print_Piecewise(self, expr: sp.Piecewise) -> str:
        cases = [
            f"{self._print(value)} {'otherwise' if condition == sp.true else f'if {self._print(condition)}'}"
            for value, condition in expr.args
        ]
        return "{" + ", ".join(cases) + "}"


class _Latex(_PositiveFirst, LatexPrinter):
    def _print_Symbol(self, expr: sp.Symbol, style: str = "plain") -> str:
        if expr.name.startswith(("sign(", "[")):
            return rf"\text{{{_display_name(expr.name)}}}"
        name, _, at = _display_name(expr.name).rpartition("_")
        if at not in ("y", "k", "j") or not name:
            return LETTERS.get(expr.name) or super()._print_Symbol(expr)
        letter = LETTERS.get(name) or (name if len(name) == 1 else rf"\mathrm{{{name}}}")
        return rf"{{{letter}}}_{{{at}}}"

    def _print_SumOverOthers(self, expr: SumOverOthers, exp: Any = None) -> str:
        return self._sum(r"\sum_{j\ne y}", expr, exp)

    def _print_SumOverAll(self, expr: SumOverAll, exp: Any = None) -> str:
        return self._sum(r"\sum_{j}", expr, exp)

    def _sum(self, sign: str, expr: sp.Expr, exp: Any) -> str:
        body = self._print(_at_j(expr.args[0]))
        written = rf"\Bigl({sign} {body}\Bigr)"
        return written if exp is None else f"{written}^{{{exp}}}"

    def _print_sg(self, expr: sg, exp: Any = None) -> str:
        written = rf"\mathrm{{sg}}\left({self._print(expr.args[0])}\right)"
        return written if exp is None else f"{written}^{{{exp}}}"


def as_text(expr: sp.Expr) -> str:
    """One line of Unicode."""
    line = _Text().doprint(expr).replace("sqrt(", "√(")
    line = re.sub(r"\*\*(\d+)|\*\*\((-\d+)\)", lambda m: (m[1] or m[2]).translate(SUPERSCRIPTS), line)
    return line.replace("**", "^").replace("*", " ").replace("<=", "≤").replace(">=", "≥").replace("-", "−")


def as_latex(expr: sp.Expr) -> str:
    return _Latex({"ln_notation": False}).doprint(expr)
