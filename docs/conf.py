"""Sphinx, set so that building needs no address outside this checkout and a warning is an error (see the Makefile).

Pages are written by hand, save for the catalogue, whose pages are made before anything is read, and for the places in
which the directive `made` of docs/_ext names the function that writes them.
"""

from __future__ import annotations

import importlib.resources
import itertools
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sphinx.util.parallel import make_chunks

import qunify
from docs import methods, notebooks
from qunify import explorer

HERE = Path(__file__).parent
# What the cells of the pages see: exercises that fail the build, and a core for each of the pages that run at once.
os.environ["QUNIFY_DOCS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

for library in ("traitlets", "datasets"):  # a study's library makes every library tell what it does
    logging.getLogger(library).setLevel(logging.WARNING)

project = "qunify"
author = copyright = "The qunify developers"
version = release = qunify.__version__

extensions = ["docs._ext", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_ext", "_templates", "notebooks"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline", "substitution"]
myst_substitutions = {"count": len(qunify.names())}
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_merge_streams = True  # what a cell prints is one box, however it arrived
nb_execution_raise_on_error = True
nb_execution_timeout = 180  # seconds a cell; a busy machine is slow
nb_ipywidgets_js: dict[str, Any] = {}  # no page has widgets, whose scripts lie elsewhere
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"  # docstrings write code in single backticks

html_theme = "furo"
html_title = f"qunify {release}"
html_static_path = ["_static"]
html_css_files = ["qunify.css"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/explorer.html",
        "sidebar/scroll-end.html",
    ]
}
html_favicon = "_static/favicon.svg"
html_copy_source = html_show_sourcelink = False
templates_path = ["_templates"]

# MathJax 3 in one file that holds its letters as outlines and all of TeX: nothing is fetched later.
MATHJAX = "mathjax/tex-svg-full.js"
mathjax_path = MATHJAX
mathjax3_config = {"options": {"enableMenu": False}}  # the menu would fetch what it offers

CATALOGUE, NOTEBOOKS = HERE / "catalogue", HERE / "notebooks"


def make(app: Any) -> None:
    """The catalogue's pages and the notebooks of the pages that run: files that git ignores."""
    methods.write(CATALOGUE)
    NOTEBOOKS.mkdir(exist_ok=True)
    (NOTEBOOKS / ".gitignore").write_text("*\n")
    for page in lessons():
        source = (HERE / f"{page}.md").read_text(encoding="utf-8")
        (NOTEBOOKS / f"{page.replace('/', '_')}.ipynb").write_text(notebooks.convert(source, release), encoding="utf-8")


def quiet_kernels(app: Any) -> None:
    """The cells run by nobody's settings but these, which silence a warning on how kernel and page talk."""
    profile = Path(app.doctreedir) / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n")
    os.environ["IPYTHONDIR"] = str(profile.parent)


def lessons() -> list[str]:
    """The pages that one may also open as notebooks."""
    return ["start", *(f"course/{path.stem}" for path in sorted(HERE.glob("course/*.md")) if path.stem != "index")]


def fill(app: Any, name: str, source: list[str]) -> None:
    """The notebook of a lesson, below its title."""
    text = source[0]
    if name in lessons():
        up = "../" * name.count("/")
        link = f"{{download}}`Open as a notebook <{up}notebooks/{name.replace('/', '_')}.ipynb>`"
        title = next(line for line in text.splitlines() if line.startswith("# "))
        text = text.replace(title, f"{title}\n\n:::{{container}} notebook\n{link}\n:::", 1)
    source[0] = text


def spread(app: Any, env: Any, names: list[str]) -> None:
    """Pages are read in batches, by as many processes as there are jobs: each batch gets its share of those that run,
    but for the last ones, which not every process would have."""
    sizes = [len(batch) for batch in make_chunks(names, app.parallel)]
    full = max(len(sizes) // app.parallel * app.parallel, 1)
    runs = [name for name in names if "file_format: mystnb" in Path(env.doc2path(name)).read_text(encoding="utf-8")]
    others = iter([name for name in names if name not in runs])
    shares = [runs[i::full] if i < full else [] for i in range(len(sizes))]
    names[:] = [
        name
        for size, share in zip(sizes, shares, strict=True)
        for name in (*share, *itertools.islice(others, size - len(share)))
    ]


def share_writing(app: Any, env: Any) -> list[str]:
    """When pages are written, one process of all jobs only hands them out: one more. No page is to be read again."""
    app.parallel += app.parallel > 1
    return []


def bring_mathjax(app: Any) -> None:
    there = Path(app.outdir) / "_static" / MATHJAX
    there.parent.mkdir(parents=True, exist_ok=True)
    with importlib.resources.as_file(importlib.resources.files("sphinx-mathjax-offline") / "static" / MATHJAX) as file:
        shutil.copyfile(file, there)


def explore(app: Any, problem: Exception | None) -> None:
    """The explorer, one page that stands alone."""
    if problem is None:
        (Path(app.outdir) / "explorer.html").write_text(explorer.page(), encoding="utf-8")


#: What axe-core finds in the pages that the libraries write: their HTML, and what it should be.
MENDED = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<summary aria-label="Toggle hidden content">': "<summary>",  # its text says what it does
    "<pre>": '<pre tabindex="0">',  # wide code scrolls, also by the keyboard
}


def mend(app: Any, problem: Exception | None) -> None:
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for wrong, right in MENDED.items():
            text = text.replace(wrong, right)
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    app.connect("builder-inited", make)
    app.connect("builder-inited", bring_mathjax)
    app.connect("builder-inited", quiet_kernels)
    app.connect("env-before-read-docs", spread)
    app.connect("source-read", fill)
    app.connect("env-updated", share_writing)
    app.connect("build-finished", mend)
    app.connect("build-finished", explore)
