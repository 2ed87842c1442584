"""The page on the losses of released libraries, and who ships a method: every line from the rows of the study."""

from __future__ import annotations

import functools

import pandas as pd

from analyses.kit import runner
from analyses.studies.atlas import words
from docs.findings import linked_rows
from docs.findings import told as found
from qunify.pictures._markdown import code, plain
from qunify.pictures._markdown import table as markdown

FIGURES = "../figures"  # seen from the page

#: The trainers that have a table of their own, by package, and what they are called.
TRAINERS = {
    "transformers": "transformers",
    "trl": "TRL",
    "llamafactory": "LLaMA-Factory",
    "axolotl": "axolotl",
    "ms-swift": "ms-swift",
    "verl": "verl",
    "openrlhf": "OpenRLHF",
    "megatron-core": "Megatron-Core",
    "torchtune": "torchtune",
    "torchtitan": "torchtitan",
    "nemo-automodel": "NeMo AutoModel",
    "litgpt": "LitGPT",
    "ai2-olmo-core": "OLMo-core",
    "google-tunix": "Tunix",
    "liger-kernel": "Liger Kernel",
}
HEADS = ("Function", "As called", "Its name says", "It is", "Divided by", "Left-out tokens", "If all are left out")


@functools.cache
def rows() -> pd.DataFrame:
    return words.told(runner.read("atlas", runner.FIGURES))


def lead() -> str:
    """What the study found, in a paragraph, and its picture."""
    study = runner.load("atlas")
    return f"{study.see(runner.read('atlas', runner.FIGURES))} Rows: {linked_rows('atlas')}.\n\n{picture('')}"


def picture(which: str) -> str:
    """One of the study's pictures, which leads to itself at full size."""
    path = f"{FIGURES}/atlas{which and '.'}{which}.png"
    said = {
        "": "A line for every library, a mark for each of its losses: as named, scaled, or something else",
        "epsilon": "Which libraries spread the smoothing over the whole vocabulary, and which over the other tokens",
        "distillation": "For each library that distils, its directions, its factor at a temperature and its divisor",
    }[which]
    return f"[![{said}]({path}){{.study}}]({path})\n"


def findings() -> str:
    return found("atlas")


def trainers() -> str:
    """A table for each trainer: what its options really do."""
    parts = []
    for package, name in TRAINERS.items():
        mine = rows()[rows()["library"] == package]
        if len(mine):
            parts.append(f"### {name} {mine['library_version'].iloc[0]}\n\n{_table(mine)}\n")
    return "\n".join(parts)


def others() -> str:
    """A table for each of the other libraries."""
    parts = []
    for library, mine in rows().groupby("library", sort=True):
        if library not in TRAINERS:
            parts.append(f"### {library} {mine['library_version'].iloc[0]}\n\n{_table(mine)}\n")
    return "\n".join(parts)


def _table(table: pd.DataFrame) -> str:
    lines = []
    for row in table.to_dict("records"):
        is_it = f"[{code(row['is'])}](catalogue/{row['method']}.md)" if _is_entry(row) else plain(row["is"])
        said = [plain(row[column]) for column in ("normaliser", "ignored", "none_kept")]
        lines.append([code(row["function"]), plain(row["setting"]), plain(row["says"]), is_it, *said])
    return markdown(list(HEADS), lines, align=":--")


def _is_entry(row: words.Row) -> bool:
    return row["level"] in ("identical", "scaled", "weighted", "mostly")


def shippers(method: str) -> list[str]:
    """Who ships a method, and as what: a line for each loss that is one, at some parameters."""
    mine = rows()[(rows()["method"] == method) & rows()["level"].isin(("identical", "scaled"))]
    lines = []
    for row in mine.to_dict("records"):
        setting = f" ({plain(row['setting'])})" if row["setting"] else ""
        named = "" if row["claim"].partition("(")[0] == method else f", by the name of {plain(row['says'])}"
        version = f"{row['library']} {row['library_version']}"
        lines.append(f"{version}: {code(row['function'])}{setting}{named}: {code(row['is'])}")
    return lines
