"""What the texts of the project say is true: their examples run, their table is current, their links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import qunify
from docs import methods
from qunify.maps import QMap
from tests.battery import autograd, batch

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
TEXTS = [README, CONTRIBUTING, ROOT / "CHANGELOG.md"]


def blocks(text: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text.read_text(encoding="utf-8"), re.M | re.S)


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {"__name__": __name__} if names is None else names
    exec(compile(code, "example", "exec", dont_inherit=True), names)
    return names


def test_the_examples_print_what_the_readme_says() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    for example, expected in zip(blocks(README, "python"), blocks(README, "text"), strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run(example, names)
        assert printed.getvalue() == expected


def test_every_row_of_the_table_is_the_catalogues() -> None:
    """The table may lack what was just added, which `make lint` tells; what it has must be true."""
    text = README.read_text(encoding="utf-8")
    shown = text.split(methods.BEGIN)[1].split(methods.END)[0].splitlines()
    rows = [line for line in shown if line.startswith("| ")]
    assert len(rows) > 70
    assert [row for row in rows if row not in methods.table().splitlines()] == []


def test_a_table_that_is_not_the_catalogues_is_told_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "README.md"
    text = methods.filled(README.read_text(encoding="utf-8"))
    copy.write_text(text.replace("| DFT<br>`dft` |", "| FDT<br>`dft` |"), encoding="utf-8")
    monkeypatch.setattr(methods, "README", copy)
    assert methods.main(["--check"]) == 1
    assert "run `python -m docs.methods`" in capsys.readouterr().err
    assert methods.main([]) == 0
    assert copy.read_text(encoding="utf-8") == text
    assert methods.main(["--check"]) == 0


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_links_into_the_checkout_lead_somewhere(text: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_the_worked_method_is_right(power: float) -> None:
    cautious = run(blocks(CONTRIBUTING, "python")[0])["Cautious"]
    m: QMap = cautious(power=power)
    assert (m.title, m.source) == (
        "Cautious",
        "an example for this page, 2026; otherwise authors, year and arXiv number",
    )
    b = batch(5)
    q = m(b.logits, b.labels)
    torch.testing.assert_close(q.gradient, autograd(m, b), rtol=0, atol=1e-12)
    assert bool(q.in_simplex.all())


def test_the_worked_method_at_zero_is_sft_as_it_says() -> None:
    cautious = run(blocks(CONTRIBUTING, "python")[0])["Cautious"]
    b = batch(5)
    torch.testing.assert_close(
        cautious(power=0)(b.logits, b.labels).gradient, qunify.get("sft")(b.logits, b.labels).gradient
    )


def test_costs_on_an_accelerator_are_those_measured() -> None:
    """Each number that README says of a way to take the loss is in that way's row of the benchmark."""
    measured = (ROOT / "benchmarks" / "accelerator.md").read_text(encoding="utf-8")
    ways = [line.strip("| ").split(" | ") for line in measured.splitlines() if line.startswith("| ")]
    cost = {way: f"{ms} ms and {peak} MiB" for way, ms, *_, peak in ways}
    (told,) = re.findall(r"(\[On an accelerator\].*?) On a CPU:", README.read_text(encoding="utf-8"))
    assert "(benchmarks/accelerator.md), in bf16 at 8,192 tokens of a vocabulary of 151,936" in told
    assert "tokens 8192, vocabulary 151936" in measured
    for words in (
        f"DFT {cost['dft']} here",
        f"{cost['TRL, dft']} in TRL",
        f"{cost['all logits, DFT']} on all logits",
        f"takes {cost['Liger, CE']}",
    ):
        assert words in told
    ours, theirs = (float(row[-1].replace(",", "")) for row in ways if row[0] in ("dft", "TRL, dft"))
    assert ours / theirs == pytest.approx(4 / 3, abs=0.05), "a third more memory"


def test_no_text_installs_a_release_that_does_not_exist() -> None:
    """Until there is one, a name on an index would be somebody else's package."""
    texts = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("qunify/**/*.py"),
        *ROOT.glob("analyses/**/*.py"),
    ]
    assert len(texts) > 100
    assert [path for path in texts if re.search(r"install\b[^.`\n]*['\" ]qunify\b(?!, pip)", path.read_text())] == []


def test_the_citation_has_the_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == qunify.__version__
    assert citation["references"][0]["url"] == "https://arxiv.org/abs/2606.11189"
    (bibtex,) = blocks(README, "bibtex")
    paper = citation["references"][0]
    assert f"title = {{{paper['title']}}}" in bibtex
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert f"author = {{{names}}}" in bibtex
    assert f"version = {{{qunify.__version__}}}" in bibtex
    assert f"title = {{qunify: {citation['abstract'][:1].lower()}{citation['abstract'][1:-1]}}}" in bibtex
    assert f"## [{qunify.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
