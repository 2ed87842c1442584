"""The documentation's parts that are made: pages of the catalogue, notebooks, the check of a site, the style."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import qunify as qu
import qunify.hf
import qunify.training
from analyses.kit import findings
from docs import methods, notebooks, pictures
from docs._ext import commands, studies
from qunify import catalogue, plots
from qunify.catalogue import ENTRIES, PAPER
from qunify.cli._commands import COMMANDS
from qunify.pictures import _drawings as drawings
from qunify.pictures import _facts as facts
from qunify.pictures import _markdown, _method_page, _words
from qunify.pictures._one_token import LABEL
from tests import check_site
from tests.check_site import problems

pytestmark = pytest.mark.slow

DOCS = Path(methods.__file__).parent
NAMES = list(ENTRIES)
TELLING = ["sft", "target_sft", "agce", "nce", "z_loss", "temperature_ce", "unlikelihood", "iw_sft"]


@pytest.fixture(scope="module")
def found() -> dict[str, facts.Facts]:
    return {name: facts.of(name) for name in TELLING}


# ---- the catalogue ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TELLING)
def test_a_page_says_all_there_is(found: dict[str, facts.Facts], name: str) -> None:
    page, m = methods.page(found[name]), qu.get(name)
    for part in ("At one token", "Where training ends", "Relations", "Parameters", "Use it"):
        assert f"\n## {part}\n" in page
    assert page.startswith(f"# {m.title}\n")
    assert m.formula in page
    assert m.pulls_text in page
    assert _markdown.plain(found[name].verdict) in page
    assert all(f"`{f.name}`" in page for f in m.parameters())
    assert all(f"`{need}`" in page for need in m.needs)
    assert ("released code" in page) == bool(m.release)
    assert "nan" not in re.sub(r"[a-z_]*nan[a-z_]+|[a-z_]+nan[a-z_]*", "", page.lower())
    assert "None" not in page.replace("None is known", "")


def test_a_page_shows_the_numbers_of_the_command_line(found: dict[str, facts.Facts]) -> None:
    """DFT's kin at u = 0.25: Target-SFT has trust u, and its unit target is its fixed one."""
    page = methods.page(found["target_sft"])
    table = [line.split(" | ") for line in page.splitlines() if line.startswith("|")]
    rows = {head.strip("| "): cells for head, *cells in table}
    assert rows["target $Q$, unit"] == rows["target $Q$, fixed"]
    assert float(rows["target $Q$, unit"][-1].strip(" |")) == 0.25
    p, g, q = (
        [float(x.strip(" |").replace("−", "-")) for x in rows[row][:5]]
        for row in ("prediction $p$", "gradient $g$", "target $Q$, unit")
    )
    assert [a - b for a, b in zip(p, g, strict=True)] == pytest.approx(q, abs=0.0011)


def test_ends_in_words(found: dict[str, facts.Facts]) -> None:
    assert "the truth itself" in _words.ending(found["sft"])
    assert _words.rest(found["sft"]) == "the truth"
    assert _words.rest(found["agce"]) == "several, as the start decides"
    assert "the start decides" in _words.ending(found["agce"])
    assert _words.rest(found["nce"]) == "no stable zero"
    assert _words.rest(found["z_loss"]) == "no target"
    assert "sharper" in _words.ending(found["temperature_ce"])


def test_paths_end_where_the_optimum_is(found: dict[str, facts.Facts]) -> None:
    for name in ("sft", "target_sft", "temperature_ce"):
        field = found[name].field
        assert field is not None
        assert field.paths[-1].numpy() == pytest.approx(field.end.probs.expand(5, 3).numpy(), abs=0.02), name


def test_curves_pass_through_the_token_of_the_page(found: dict[str, facts.Facts]) -> None:
    for name in TELLING:
        c, example = found[name].curve, found[name].example
        at = (c.u - example["p"][LABEL]).abs().argmin()
        assert float(c.pull[at]) == pytest.approx(-example["gradient"][LABEL], abs=2e-3), name


def test_gates_are_told_from_other_methods(found: dict[str, facts.Facts]) -> None:
    assert {name for name in TELLING if found[name].curve.gate} == {"sft", "agce", "iw_sft"}


@pytest.mark.parametrize("name", TELLING)
def test_pictures_are_the_same_twice_and_have_no_ground(found: dict[str, facts.Facts], name: str) -> None:
    (light, dark), again = (_method_page.drawn(found[name])["curve"] for _ in range(2))
    assert light == again[0] != dark
    assert plots.INK.encode() in light
    assert plots.INK.encode() not in dark
    assert b"#131416" not in dark.partition(b'<g id="axes_1">')[0]


def without_ids(picture: bytes) -> list[bytes]:
    """An SVG whose hashed names stand by their order."""
    return re.split(rb"\b[a-z][0-9a-f]{10}\b", picture)


@pytest.mark.parametrize("name", TELLING)
def test_pictures_for_dark_pages_are_as_drawn_in_the_dark_style(found: dict[str, facts.Facts], name: str) -> None:
    for kind, (_, dark) in _method_page.drawn(found[name]).items():
        with plots.style(dark=True):
            assert without_ids(dark) == without_ids(getattr(drawings, kind)(found[name]))


def test_the_front_is_as_drawn_in_the_dark_style() -> None:
    for name in pictures.FRONT:
        with plots.style(dark=True):
            assert without_ids(pictures.front(name)[1]) == without_ids(pictures._drawn(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_python_of_a_page_runs(name: str) -> None:
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(methods.usage(qu.get(name))["code"], names)
    assert bool(torch.isfinite(names["loss"]))
    seen = names["target"] if "target" in names else names["gradient"]
    assert seen.shape == (4, 50)
    assert bool(torch.isfinite(seen).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_trainer_of_a_page_gives_what_the_method_needs(name: str) -> None:
    m, text = qu.get(name), methods.usage(qu.get(name))
    compile(text["trainer"], name, "exec")
    assert all(methods.ARGUMENT[need] in text["trainer"] for need in m.needs if need in methods.ARGUMENT)
    assert all(methods.NOTE[need] in text["note"] for need in m.needs if need in methods.NOTE)
    assert set(m.needs) <= {*methods.ARGUMENT, *methods.NOTE}


def test_every_source_has_a_year() -> None:
    years = {name: facts.year(qu.get(name)) or 0 for name in NAMES}
    assert (years["brier"], years["spherical"], years["dft"], years["taylor_ce"]) == (1950, 1971, 2025, 2020)
    assert all(1900 < year < 2100 for year in years.values())


def test_no_family_has_the_name_of_a_method() -> None:
    assert not set(catalogue.families()) & set(NAMES)
    assert all(f"\n{name}\n" in methods.family_page(qu.get(name).family) for name in NAMES)


def test_identities_name_the_other_methods_as_links() -> None:
    lines = _words.identity_lines("luffy", methods.link)
    assert lines == ["`luffy` `(gamma=g)` = `g` · [`agce`](agce.md) `(a=g, q=-1)`"]
    assert any("redrawn" in line or "labels that stay" in line for line in _words.identity_lines("kd", methods.link))
    assert methods.relation_lines("mae")[0].startswith("At default parameters. Equal gradients: [`dft`](dft.md)")
    assert methods.relation_lines("gem") == []
    of, *_ = methods.special_cases("dft").values()
    named = {line.partition(":")[0] for line in of}
    for general in (
        "beyond_log",
        "gce",
        "taylor_ce",
        "phuber_ce",
        "threshold",
        "aue",
        "luffy",
        "ael",
        "infosft",
        "js_noisy",
    ):
        assert methods.link(general) in named
    assert "[`beyond_log`](beyond_log.md): `dft = beyond_log(alpha=1)`" in of
    assert "[`luffy`](luffy.md): `dft = gamma · luffy(gamma → ∞)`" in of
    told = [line for name in qunify.names() for lines in methods.special_cases(name).values() for line in lines]
    assert len(told) == 2 * len(findings.committed("family")) > 200


def test_the_index_holds_every_method_in_every_order(found: dict[str, facts.Facts]) -> None:
    text = methods.index([methods.listed(f) for f in found.values()])
    assert tuple(re.findall(r"^catalogue/(\w+)$", text, re.M)) == catalogue.families()
    by_family, by_property, by_year = re.split(r"^## By .*$", text, flags=re.M)[1:]
    for name in TELLING:
        link = f"(catalogue/{name}.md)"
        assert by_family.count(link) == by_year.count(link) == 1
        assert by_property.count(link) >= 4


def test_files_that_would_not_change_are_left_alone(tmp_path: Path) -> None:
    path = methods._put(tmp_path / "a", b"1")
    before = path.stat().st_mtime_ns
    methods._put(path, b"1")
    assert path.stat().st_mtime_ns == before
    assert methods._put(path, b"2").read_bytes() == b"2"


# ---- other pages that are made ------------------------------------------------------------------------------------


def test_the_page_of_the_command_line_has_every_command() -> None:
    page = commands.page(lambda words: f"what {words} prints")
    for name, command in COMMANDS.items():
        assert f"\n## qunify {name}\n" in page
        assert " ".join(command.help.split()[:4]) in " ".join(page.split())
    assert set(commands.EXAMPLES) <= set(COMMANDS)
    assert all(f"what {words} prints" in page for words in commands.EXAMPLES.values())


def test_an_example_of_a_command_is_run_where_the_loss_of_ones_own_lies() -> None:
    before = Path.cwd()
    assert "mine and dft have the same gradient" in commands.run(commands.EXAMPLES["check"])
    assert Path.cwd() == before


def test_the_page_of_the_report_has_every_committed_figure() -> None:
    page = studies.page()
    figures = {path.stem for path in studies.runner.FIGURES.glob("*.png") if "." not in path.stem}  # a study's first
    assert set(re.findall(r"\]\(\.\./figures/(\w+)\.png\)$", page, re.M)) == figures


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names: list[str] = vars(qu)["__getattr__"]("__all__")
    for module in (qu, qunify.hf, qunify.training):
        parts = re.findall(rf"currentmodule:: {module.__name__}\n(.*?)(?=.. currentmodule|\Z)", page, re.S)
        written = set(re.findall(r":: (\w+)$", "".join(parts), re.M))
        told_there = {name for name in names if module is not qu and getattr(module, name, None) is getattr(qu, name)}
        own = set(module.__all__) - told_there
        assert own - written == set(), module.__name__


# ---- notebooks ----------------------------------------------------------------------------------------------------

LESSON = """\
---
file_format: mystnb
kernelspec:
  name: python3
---

# A lesson

(label)=
Text with {term}`trust`, {doc}`a page <../api>`, a [link](../api.md), [one](https://arxiv.org/abs/1) and $x$.

```{code-cell} ipython3
import qunify as qu
from docs.exercises import check
```

## Second

```{code-cell} ipython3
---
tags: [hide-cell]
---
check(x := "```", "```")
```

```python
kept = 1
```
"""


def test_what_lesson_1_says_of_a_step_is_so() -> None:
    """Against the gradient of SFT both other logits fall, and yet one of their probabilities rises."""
    text = (DOCS / "course/1_what_a_loss_teaches.md").read_text(encoding="utf-8")
    assert "both others fall" in text
    assert "that of *Melbourne* rises a little at first" in text
    p = torch.tensor([[0.70, 0.20, 0.10]], dtype=torch.float64)
    gradient = qu.get("sft")(p.log(), torch.tensor([1])).gradient
    assert gradient[0, [0, 2]].tolist() == pytest.approx([0.7, 0.1])
    after = (p.log() - 0.5 * gradient).softmax(-1)[0]
    assert bool(after[2] > p[0, 2])
    assert bool(after[0] < p[0, 0])


def test_all_that_can_be_asked_of_ones_own_loss_is_on_one_page() -> None:
    page = (DOCS / "equivalence.md").read_text(encoding="utf-8")
    steps = ("qu.identify(mine)", 'qu.compare(mine, "dft")', "qu.is_proper(mine)", "qu.optimum(mine,", "qu.design(")
    for step in (*steps, "qunify show losses.py", 'plots.overview(["dft", mine])', "(contributing.md)"):
        assert step in page


def test_what_a_cell_prints_is_one_box_that_wraps() -> None:
    assert "nb_merge_streams = True" in (DOCS / "conf.py").read_text(encoding="utf-8")
    style = (DOCS / "_static/qunify.css").read_text(encoding="utf-8")
    assert re.search(r"\.cell_output pre \{[^}]*white-space: pre-wrap;[^}]*overflow-wrap: anywhere;", style)


def test_building_the_site_ends_with_its_first_page() -> None:
    makefile = (DOCS.parent / "Makefile").read_text(encoding="utf-8")
    (last,) = re.findall(r"^docs:.*\n(?:\t.*\n)*\t(.*)\n\n", makefile, re.M)
    assert last == '@echo "The site: build/docs/html/index.html"'


def test_a_lesson_becomes_a_notebook() -> None:
    notebook = json.loads(notebooks.convert(LESSON, "1.2"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells[0][0] == "markdown"
    assert "1.2" in cells[0][1]
    text = "Text with trust, a page, a link, [one](https://arxiv.org/abs/1) and $x$."
    assert cells[1] == ("markdown", f"# A lesson\n\n{text}")
    assert cells[2] == ("code", "import qunify as qu\n")
    assert cells[3] == ("markdown", "## Second")
    assert cells[4] == ("markdown", notebooks.BEFORE)  # where it is first needed: a notebook opens with its lesson
    assert cells[5][0] == "code"
    assert "def check(" in cells[5][1]
    assert cells[6] == ("code", 'check(x := "```", "```")')
    assert cells[7] == ("markdown", "```python\nkept = 1\n```")
    assert len(cells) == 8
    for i in (5, 6):
        assert notebook["cells"][i]["metadata"] == {"jupyter": {"source_hidden": True}, "tags": ["hide-cell"]}
    nbformat.validate(nbformat.from_dict(notebook))
    assert notebooks.convert(LESSON, "1.2") == notebooks.convert(LESSON, "1.2")


LESSONS = [DOCS / "start.md", *(path for path in sorted(DOCS.glob("course/*.md")) if path.stem != "index")]


@pytest.mark.parametrize("page", LESSONS, ids=lambda path: path.stem)
def test_a_notebook_has_the_cells_of_its_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    cells = json.loads(notebooks.convert(text, "0"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    imports = text.count("from docs.exercises import")
    assert len(code) == text.count("```{code-cell}") + bool(imports)
    assert not any("from docs.exercises" in cell for cell in code)
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert not re.search(r"^```\{|^:::|\{(term|doc|ref)\}`", prose, re.M)


# ---- the check of the built site ----------------------------------------------------------------------------------


def site(folder: Path, **pages: str) -> list[str]:
    for name, text in pages.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return problems(folder)


def test_a_sound_site_has_no_problems(tmp_path: Path) -> None:
    page = (
        '<a href="b.html#here">b</a><a href="#top" id="top"></a><a href="https://arxiv.org">x</a>'
        '<img src="a/x.svg"><link rel="stylesheet" href="s.css?v=1"><script src="s.js"></script>'
    )
    assert not site(
        tmp_path,
        a_dot_html=page,
        b_dot_html='<p id="here"></p><img src="data:image/png;base64,x">',
        a__x_dot_svg='<svg xmlns="http://www.w3.org/2000/svg"><use href="#a"/><g id="a"/></svg>',
        s_dot_css="@font-face { src: url('a/x.svg') }",
        s_dot_js="const home = 'https://example.org/'; import('./s.js')",
    )


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ('<img src="https://x.org/a.png">', "loads https://x.org/a.png"),
        ('<img srcset="//x.org/a.png 2x">', "loads //x.org/a.png"),
        ('<img srcset="data:image/png;base64,a 1x, //x.org/b.png 2x">', "loads //x.org/b.png"),
        ('<script src="http://x.org/a.js"></script>', "loads http://x.org/a.js"),
        ('<link rel="stylesheet" href="https://x.org/a.css">', "loads https://x.org/a.css"),
        ('<style>a { background: url("https://x.org/a.png") }</style>', "loads https://x.org/a.png"),
        ("<style>@import 'https://x.org/a.css'</style>", "loads https://x.org/a.css"),
        ('<p style="background: url(//x.org/a.png)"></p>', "loads //x.org/a.png"),
        ('<script>import a from "https://x.org/a.js"</script>', "loads https://x.org/a.js"),
        ("<script>fetch('https://x.org/a')</script>", "loads https://x.org/a"),
        ("<pre>&lt;Figure size 640x480 with 1 Axes&gt;</pre>", "shows the text of a figure"),
        ('<a href="gone.html">a</a>', "links to gone.html, which is not there"),
        ('<a href="#gone">a</a>', "links to #gone, an anchor that is not there"),
        ('<a href="../outside.html">a</a>', "links to ../outside.html, which is not there"),
        ('<a href="file:///etc/x">a</a>', "which a page should not"),
        ('<img src="gone.png">', "loads gone.png, which is not there"),
    ],
)
def test_what_is_wrong_with_a_page_is_said(tmp_path: Path, page: str, said: str) -> None:
    (only,) = site(tmp_path, a_dot_html=page)
    assert only.startswith("a.html: ")
    assert said in only


def test_style_sheets_and_pictures_are_checked_too(tmp_path: Path) -> None:
    found = site(
        tmp_path,
        a_dot_html="",
        s_dot_css="a { src: url(https://x.org/f.woff) }",
        x_dot_svg='<svg><image xlink:href="https://x.org/a.png"/></svg>',
    )
    assert [line.split(":")[0] for line in found] == ["s.css", "x.svg"]


def test_the_check_says_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(tmp_path, a_dot_html='<a href="gone.html">a</a>')
    assert check_site.main([str(tmp_path)]) == 1
    assert "gone.html" in capsys.readouterr().out
    site(tmp_path, a_dot_html="<p>fine</p>")
    assert check_site.main([str(tmp_path)]) == 0
    assert check_site.main([]) == 2


# ---- the style of figures -----------------------------------------------------------------------------------------


def test_the_style_is_one_that_matplotlib_finds() -> None:
    with plt.style.context(["qunify.style", "qunify.dark"]):
        assert mpl.rcParams["figure.facecolor"] == "#131416"
        assert plots.is_dark()
    with plt.style.context("qunify.style"):
        assert mpl.rcParams["text.color"] == plots.INK
        assert (mpl.rcParams["axes.edgecolor"], mpl.rcParams["grid.color"]) == (plots.SOFT, plots.FAINT)
        assert not plots.is_dark()


@pytest.mark.parametrize("name", NAMES)
def test_a_colour_can_be_read_on_dark_and_is_unchanged_on_light(name: str) -> None:
    plain = plots.line(name)
    with plots.style():
        assert plots.line(name) == plain
    with plots.style(dark=True):
        on_dark, ground = plots.line(name), mpl.rcParams["axes.facecolor"]
    assert plots.contrast(on_dark.colour, ground) >= 3
    assert (on_dark.dash, on_dark.marker) == (plain.dash, plain.marker)


def test_text_and_axes_can_be_read_in_both() -> None:
    for dark in (False, True):
        with plots.style(dark=dark):
            ground = mpl.rcParams["axes.facecolor"]
            assert plots.contrast(mpl.rcParams["text.color"], ground) > 7
            assert plots.contrast(mpl.rcParams["xtick.color"], ground) > 4.5


def test_the_papers_fifteen_stay_apart_on_dark() -> None:
    with plots.style(dark=True):
        colours = {name: to_rgb(plots.colour(name)) for name in PAPER}
    for a, b in itertools.combinations(PAPER, 2):
        assert sum((x - y) ** 2 for x, y in zip(colours[a], colours[b], strict=True)) ** 0.5 > 0.1, (a, b)


def test_contrast_is_that_of_the_guidelines() -> None:
    assert plots.contrast("white", "black") == pytest.approx(21)
    assert plots.contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)


def test_a_picture_is_as_dark_as_its_surroundings() -> None:
    with plots.style(dark=True):
        dark = plots.overview([qu.get("sft")])
    assert to_rgb(dark.get_facecolor()) == to_rgb("#131416")
    assert plots.render(dark, "svg").count(b"#9a9a9a") > 5  # ticks, drawn only now
    assert to_rgb(plots.overview([qu.get("sft")]).get_facecolor()) == (1, 1, 1)


def test_a_transparent_picture_has_no_ground() -> None:
    with plots.style():
        figure = Figure(figsize=(1, 1))
    assert b"fill: #ffffff" in plots.render(figure, "svg")
    assert b"fill: #ffffff" not in plots.render(figure, "svg", transparent=True)
