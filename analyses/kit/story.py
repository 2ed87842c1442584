"""The report on the studies: which ones, in which order, in which words."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import qunify
from analyses.kit import runner
from qunify import pictures

#: Every study, in the order in which the report tells them.
STUDIES = (
    "worked_example",
    "paper_table",
    "targets",
    "gradients",
    "gates",
    "equivalence",
    "family",
    "atlas",
    "simplex",
    "theory_vs_training",
    "dynamics",
    "calibration_bias",
    "noise",
    "ambiguity",
    "prior_conflict",
    "sequence",
    "digits",
    "demonstrations",
    "real_audit",
    "real_model",
    "ten_settings",
    "cost",
)

LEAD = (
    "A language model predicts the next token with probabilities p, the softmax of its logits, and a fine-tuning "
    "loss moves those logits by a gradient g.",
    "Whenever g sums to zero it can be read as g = s (p − Q): the step pulls the prediction p toward a target "
    "distribution Q, with strength s, so Q is what the loss really teaches at that token.",
    "Q splits into two choices, Q = γ δ + (1 − γ) π̃: how far to trust the observed label δ (the trust γ), and where "
    "to put what is not trusted (the residual π̃).",
)
#: Marks a study that is too long for a quick run.
COMMITTED = "(Rows of the committed full run.)"


def write(out: Path, full: bool, commit: str) -> Path:
    """Write the report on every study that is finished in this mode; returns the path of `report.html`."""
    sections = [_section(name, out, full) for name in STUDIES if runner.finished(name, full, out)]
    footer = (
        f"qunify {qunify.__version__}, commit {commit}, {'full' if full else 'quick'} sizes.",
        ", ".join(f"{library} {metadata.version(library)}" for library in runner.LIBRARIES) + ".",
        "Beside this page lie every study's complete table (NAME.csv) and picture (NAME.svg, NAME.png).",
    )
    page = pictures.Page("What fine-tuning losses teach", LEAD, sections, footer)
    return pictures.write(page, out / "report.html")


def _section(name: str, out: Path, full: bool) -> pictures.Section:
    study, table = runner.load(name), runner.read(name, out)
    see = study.see(table)
    if not full and (table["mode"] == "full").all():
        see += " " + COMMITTED
    return pictures.Section(
        anchor=name,
        heading=study.question,
        title=study.title,
        text=see,
        svg=(out / f"{name}.svg").read_bytes(),
        alt=f"{study.title}. {see}",
        table=study.digest(table),
    )
