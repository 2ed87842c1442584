"""The page of one method, as a user makes it of a map of their own."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.cli import main
from qunify.cli._settings import method_of
from qunify.maps import Gate, param
from qunify.pictures import _facts, _markdown, method_page
from qunify.pictures._mathml import mathml
from qunify.population import (
    SIMPLEX_NAMES,
    SIMPLEX_STARTS,
    SIMPLEX_TRUTH,
    SIMPLEX_WORLD,
    simplex_grid,
    simplex_moves,
    simplex_paths,
)
from qunify.token import CONTEXTS, Scalar, Token
from tests.check_site import Page
from tests.test_report import MALICIOUS, Tags

OWN = '''
import qunify as qu
from qunify.maps import Gate, param


class Doubt(Gate):
    """Doubt: trust the label by a power of what the model believes.

    Loss    −sg(u^power) log u
    Pulls   u^power → label
    Source  Nobody 2031, arXiv:3101.00001
    """

    name = "doubt"
    formula = r"-\\mathrm{sg}(u^{a})\\log u"
    power: float = param(0.5, low=0, doc="how much it doubts")

    def loss(self, t):
        return -t.stop(self.weight(t)) * t.log_p_label

    def weight(self, t):
        return t.p_label**self.power


class Unfinished(Gate):
    name = "unfinished"


half = qu.design("half", trust=lambda t, share: share * t.p_label, residual=lambda t: t.teacher, share=0.5)


def believed(logits, labels):
    """One minus the label's probability, as somebody wrote it."""
    return 1 - logits.softmax(-1).gather(-1, labels[:, None])[:, 0]


def normaliser(logits, labels):
    return logits.logsumexp(-1) ** 2


def whole(logits, labels):
    return logits


number = 3
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return str(path)


def text_of(page: str) -> str:
    """What a reader sees, without tags, sources of formulas and pictures."""
    body = re.sub(r"<style>.*?</style>|<annotation.*?</annotation>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def alone(page: str) -> None:
    """The page loads nothing from elsewhere, and its tags are closed in order."""
    assert [address for address in Page(page).loaded if not address.startswith("data:image/svg+xml;base64,")] == []
    tags = Tags(page)
    assert tags.open == []
    assert {tag for tag, _ in tags.seen}.isdisjoint({"script", "link", "iframe"})
    assert not any(key.startswith("on") for _, attributes in tags.seen for key in attributes)


# ---- maps of a user's own -----------------------------------------------------------------------------------------


def test_a_class_in_a_users_own_file_has_the_page_of_an_entry(own: str) -> None:
    page = method_page(method_of(f"{own}:Doubt").replace(power=2))
    alone(page)
    words = text_of(page)
    assert "<h1>Doubt</h1>" in page
    assert "doubt(power=2.0) · own · 2031" in words
    assert '<a href="https://arxiv.org/abs/3101.00001">' in page
    assert "2.0 (default 0.5 )" in words
    assert "how much it doubts" in words
    assert "a distribution at each of 240 random tokens" in words
    assert "Its weight" in words or "its weight" in words
    assert "is biased (proved): from the truth it drifts, sharpening" in words
    assert page.count("<picture>") == 2
    assert "<math" in page


def test_a_designed_map_has_one(own: str) -> None:
    page = method_page(method_of(f"{own}:half").replace(share=0.25))
    alone(page)
    words = text_of(page)
    assert "<h1>half</h1>" in page
    assert "share 0.25" in words
    assert "teacher ∝ (2, 12, 4, 1, 1)" in words
    assert "Needs: teacher_logits" in words


def test_a_loss_function_has_one_with_what_is_measured(own: str) -> None:
    page = method_page(method_of(f"{own}:believed"))
    alone(page)
    words = text_of(page)
    assert "believed · a loss function" in words
    assert "One minus the label's probability" in words.replace("&#x27;", "'")
    assert "biased (measured)" in words
    row = re.search(r"target Q , unit ((?:[\d.]+ )+)", words)
    assert row is not None
    known = qu.get("dft")
    z = torch.tensor([8.0, 5, 4, 2, 1], dtype=torch.float64).log()
    target = known(z[None], torch.tensor([1])).target[0]
    assert [float(x) for x in row[1].split()[:5]] == pytest.approx(target.tolist(), abs=6e-4)


@pytest.mark.parametrize("method", ["normaliser", "z_loss"])
def test_what_has_no_target_is_told_so_and_shown_no_field(own: str, method: str) -> None:
    page = method_page(method_of(f"{own}:{method}" if method == "normaliser" else method))
    alone(page)
    words = text_of(page)
    assert "there is no target" in words
    assert "target Q" not in words
    assert "dotted, that of SFT. The other" in words, "a trust that there is not is not drawn"
    assert page.count("<picture>") == 1


def test_a_map_that_calls_itself_shift_invariant_is_measured() -> None:
    class Wrong(qu.QMap):
        name = "wrong"

        def loss(self, t: Token) -> Scalar:
            return t.log_p_label**2

        def pulls(self, t: Token) -> Any:
            return (t.label.probs,)

    assert Wrong().title == "wrong", "a class without a docstring has its name for a title"
    words = text_of(method_page(Wrong()))
    assert "there is no target" in words
    assert "<h1>wrong</h1>" in method_page(Wrong())


def test_a_signed_target_of_ones_own_is_counted() -> None:
    pushed = qu.design("pushed", trust=lambda t: 1 + t.p_label, residual=lambda t: t.uniform)
    facts = _facts.of(pushed)
    assert re.fullmatch(r"signed at \d+ of 240 random tokens", facts.target)


def test_a_map_that_bears_the_name_of_an_entry_is_not_it() -> None:
    class Impostor(Gate):
        """Impostor: half of everything."""

        name = "luffy"

        def loss(self, t: Token) -> Scalar:
            return -t.log_p_label / 2

        def weight(self, t: Token) -> Scalar:
            return 0.5 + 0 * t.p_label

    assert "Relations" in text_of(method_page("luffy"))
    assert "Relations" not in text_of(method_page(Impostor()))


# ---- what a page says is escaped ----------------------------------------------------------------------------------


def test_nothing_that_a_method_says_of_itself_becomes_a_tag_or_loads_anything() -> None:
    class Evil(Gate):
        __doc__ = f"""{MALICIOUS}: ![x](https://x.org/a.png) [y](javascript:alert(1)) **b** `c` $d$ {MALICIOUS}

        Loss    {MALICIOUS} | `
        Pulls   ``` {MALICIOUS}
        Source  {MALICIOUS} arXiv:2606.11189 ![x](//x.org/b.png)
        Release - {MALICIOUS}
        """
        name = MALICIOUS
        family = MALICIOUS
        formula = rf"\text{{{MALICIOUS}}}"
        power: float = param(0.5, low=0, doc=f"| {MALICIOUS} |")

        def loss(self, t: Token) -> Scalar:
            return -t.stop(self.weight(t)) * t.log_p_label

        def weight(self, t: Token) -> Scalar:
            return t.p_label**self.power

    page = method_page(Evil())
    alone(page)
    seen = Tags(page).seen
    assert [tag for tag, _ in seen].count("img") == 2  # the pictures
    assert [attributes["href"] for tag, attributes in seen if tag == "a"] == ["https://arxiv.org/abs/2606.11189"]
    assert {"strong", "em"} & {tag for tag, _ in seen} == {"strong", "em"}  # the page's own
    words = text_of(page)
    assert "**b** `c` $d$" in words
    assert "![x](https://x.org/a.png) [y](javascript:alert(1))" in words


@pytest.mark.slow
def test_a_name_with_a_dollar_or_a_long_one_can_be_drawn() -> None:
    for name in ("$", "a$b$c", "$\\frac$", "x" * 80, "one_" * 20):
        m = qu.design(name, trust=lambda t: t.p_label, residual=lambda t: t.policy)
        alone(method_page(m))


@pytest.mark.parametrize(
    "text",
    [
        "a_b*c*",
        "<b>x</b>",
        "`x` ``y",
        "- a",
        "1. a",
        "# a",
        "a | b",
        "$x$",
        "[a](b)",
        "![a](b)",
        "a\\_b",
        "&amp;",
        "~~",
    ],
)
def test_plain_text_and_code_come_back_from_markdown(text: str) -> None:
    shown = ElementTree.fromstring(_markdown.html(_markdown.plain(text), {}))
    assert (shown.tag, "".join(shown.itertext())) == ("p", text)
    table = _markdown.html(_markdown.table(["a", "b"], [[_markdown.code(text), _markdown.plain(text)]]), {})
    cells = ElementTree.fromstring(table).findall(".//td")
    assert ["".join(cell.itertext()) for cell in cells] == [text, text]


def test_html_in_markdown_is_shown_as_it_is_written() -> None:
    assert _markdown.html("<b>x</b> ![y](z)\n\n<script>w</script>", {}) == (
        "<p>&lt;b&gt;x&lt;/b&gt; y</p>\n<p>&lt;script&gt;w&lt;/script&gt;</p>\n"
    )


def test_the_page_reads_on_dark_on_a_phone_and_on_paper() -> None:
    page = method_page("sft")
    assert page.count('<source media="(prefers-color-scheme: dark)"') == 2
    assert 'name="viewport"' in page
    assert "@media print" in page
    assert all(attributes["alt"] for tag, attributes in Tags(page).seen if tag == "img")


# ---- the command --------------------------------------------------------------------------------------------------


def test_show_html_writes_the_page(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "doubt.html"
    assert main(["show", f"{own}:Doubt", "--set", "power=2", "--html", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {out} (")
    assert out.read_text(encoding="utf-8") == method_page(method_of(f"{own}:Doubt").replace(power=2))
    assert main(["show", f"{own}:Doubt", "--set", "power=2", "--html", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "bytes": out.stat().st_size, "replaced": True}
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["doubt.html", "own.py"]


@pytest.mark.parametrize("name", ["Doubt", "half", "believed", "normaliser"])
def test_show_prints_a_method_of_ones_own(own: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", f"{own}:{name}"]) == 0
    page = capsys.readouterr().out
    assert ("No target" in page) == (name == "normaliser")
    assert "At one token" in page


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("sfft --html a.html", "unknown method 'sfft', did you mean sft"),
        ("sft --html a.gif", "--html a.gif: expected a file name that ends in .html, .htm"),
        ("sft --html missing/a.html", "--html missing/a.html: the folder missing does not exist"),
        ("sft --html a.html --derive", "not allowed with argument"),
        ("OWN:Doubt --set power=-1 --html a.html", "parameter power: expected a number in [0, inf), got -1"),
        ("OWN:Doubt --set pwer=1 --html a.html", "unknown parameter 'pwer', expected power"),
        ("OWN:believed --set a=1", "unknown parameter 'a', expected none"),
        ("OWN:Doubbt --html a.html", "has no Doubbt, did you mean Doubt?"),
        ("OWN:Unfinished --html a.html", "abstract"),
        ("OWN:number --html a.html", "expected a loss function or a QMap, got int"),
        ("OWN:whole --html a.html", "expected one loss per token"),
        ("OWN:believed --derive", "a derivation needs symbols"),
        ("nowhere.py:f --html a.html", "no such file"),
    ],
)
def test_a_page_that_cannot_be_made_is_refused_in_a_sentence(
    argv: str, sentence: str, own: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(own).parent
    monkeypatch.chdir(folder)
    assert main(["show", *argv.replace("OWN", "own.py").split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1
    assert [path.name for path in folder.glob("*.*")] == ["own.py"]


@pytest.mark.parametrize("wrong", [3, None, ["sft"]])
def test_what_is_no_method_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected an id of the catalogue"):
        method_page(wrong)  # type: ignore[arg-type]


# ---- formulas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENTRIES)
def test_every_formula_of_the_catalogue_becomes_mathml(name: str) -> None:
    m = qu.get(name)
    shown = ElementTree.fromstring(mathml(m.formula, display=True))
    assert shown.tag == "math"
    assert shown.findtext(".//annotation") == m.formula


def test_a_named_function_keeps_its_distance_and_symbols_are_symbols() -> None:
    shown = ElementTree.fromstring(mathml(r"-\log u<\log\bigl(v\bigr)\cdot\log_2 w"))
    body = shown.find("semantics/mrow")
    assert body is not None
    assert [part.text or part.tag for part in body if part.tag != "msub"][:6] == ["−", "log", "mspace", "u", "<", "log"]
    assert len(body.findall("mspace")) == 2, "before u and w, and not before a bracket"


@pytest.mark.parametrize("latex", [r"\foo{x}", "x^2^3", r"\left(x", "{" * 500])
def test_a_formula_that_cannot_be_read_is_shown_as_its_source(latex: str) -> None:
    assert mathml(latex) == f"<code>{latex}</code>"


# ---- the drift on three tokens ------------------------------------------------------------------------------------


def test_the_world_of_three_tokens_has_every_context() -> None:
    assert set(SIMPLEX_WORLD) == set(CONTEXTS)
    assert set(SIMPLEX_NAMES) == {name for name in CONTEXTS if name.endswith("_logits")}


def test_sft_moves_straight_to_the_truth() -> None:
    """Under SFT dz = η − p, so dp = (diag p − p pᵀ)(η − p)."""
    p = simplex_grid(6)
    assert p.shape == (6, 3)
    torch.testing.assert_close(p.sum(-1), torch.ones(6, dtype=torch.float64))
    eta = torch.tensor(SIMPLEX_TRUTH, dtype=torch.float64)
    expected = torch.stack([(row.diag() - row.outer(row)) @ (eta - row) for row in p])
    torch.testing.assert_close(simplex_moves(qu.get("sft"), p), expected, rtol=0, atol=1e-12)


def test_paths_begin_at_the_starts_and_take_steps_of_one_length() -> None:
    path = simplex_paths(qu.get("sft"), steps=5)
    torch.testing.assert_close(path[0], torch.tensor(SIMPLEX_STARTS, dtype=torch.float64))
    assert path.shape == (6, 5, 3)
    assert (path[1:] - path[:-1]).norm(dim=-1).numpy() == pytest.approx(0.02, rel=0.2)
