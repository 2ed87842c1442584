"""What notebooks show: HTML with every text escaped, LaTeX that balances."""

from __future__ import annotations

import torch

import qunify as qu
from qunify import catalogue
from qunify._lib import html


def test_equivalence_shows_its_argument() -> None:
    verdict = qu.compare("sft", "dft")
    page, latex = verdict._repr_html_(), verdict._repr_latex_()
    assert str(verdict) in page
    assert "w_b = u ≥ 0" in page
    assert r"w_b=u\ge 0" in latex
    assert latex.startswith(r"$\begin{array}{l}")
    assert latex.endswith(r"\end{array}$")
    assert latex.count("{") == latex.count("}")


def test_match_and_matches() -> None:
    found = qu.identify(lambda z, y: -z.log_softmax(-1).gather(1, y[:, None])[:, 0])
    assert "&lt;lambda&gt; is identical to sft" in found._repr_html_()
    assert "<lambda>" not in found._repr_html_()
    assert "identical to sft" in found[0]._repr_html_()


def test_targets_show_their_first_tokens() -> None:
    page = qu.get("dft")(torch.zeros(30, 50), torch.zeros(30, dtype=torch.long))._repr_html_()
    assert page.count("<tr>") == 1 + 6
    assert "0: 0.02 → 0.0396" in page
    ignored = qu.get("sft")(torch.zeros(1, 3), torch.tensor([-100]))._repr_html_()
    assert "tokens=0" in ignored


def test_methods_show_formula_and_parameters() -> None:
    m = qu.get("focal")
    assert m.formula in m._repr_latex_()
    assert m.loss_text in m._repr_html_()
    assert "$" not in m._repr_html_(), "raw LaTeX is unreadable where nothing sets it"
    assert "<td>focusing</td><td>2</td>" in m._repr_html_()
    assert "Lin et al. 2017" in m._repr_html_()


def test_texts_are_escaped() -> None:
    assert html.table(("<b>",), [("a & b",)]) == (
        "<table><thead><tr><th>&lt;b&gt;</th></tr></thead><tbody><tr><td>a &amp; b</td></tr></tbody></table>"
    )


def balanced(latex: str) -> bool:
    return latex.startswith("$") and latex.endswith("$") and latex.count("{") == latex.count("}")


def test_match_as_latex() -> None:
    found = qu.identify(focal)
    latex = found[0]._repr_latex_()
    assert qu.get("focal").formula in latex
    assert r"\text{identical to focal(focusing=2)" in latex
    assert balanced(latex)
    together = found._repr_latex_()
    assert html.words(found.verdict) in together
    assert all(qu.get(m.name).formula in together for m in found)
    assert balanced(together)
    assert html.words("a_b 5% {x}") == r"\text{a\_b 5\% \{x\}}"


def focal(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    log_u = z.log_softmax(-1).gather(1, y[:, None])[:, 0]
    return -((1 - log_u.exp()) ** 2) * log_u


def test_optimum_in_words_and_as_latex() -> None:
    end = qu.optimum("label_smoothing", [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    assert str(end) == "p* = (0.573, 0.303, 0.123), stable\np* = (0.213, 0.213, 0.573), stable"
    assert end.closed_form is not None
    assert end.closed_form in end._repr_latex_()
    assert "p^*=(0.573, 0.303, 0.123)" in end._repr_latex_()
    assert balanced(end._repr_latex_())


def test_ones_own_maps_print_short() -> None:
    half = qu.design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.uniform, a=0.5)
    assert repr(half) == "<half(a=0.5), designed>"
    assert repr(catalogue.as_method(focal, "test")) == "<focal, a loss function>"


def test_target_as_latex() -> None:
    latex = qu.get("dft")(torch.zeros(2, 50), torch.zeros(2, dtype=torch.long))._repr_latex_()
    assert latex.count(r"\gamma_") == 2
    assert "Q_{0}=0.0396" in latex
    assert balanced(latex)
    z_loss = qu.get("z_loss")(torch.zeros(1, 3), torch.tensor([0]))._repr_latex_()
    assert r"Q_{0}=\text{none}" in z_loss
    assert balanced(z_loss)
    assert html.number(1.5e-9) == r"1.5\cdot 10^{-9}"
