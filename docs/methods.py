"""The catalogue as text: the table in README.md, and a page for every method.

`python -m docs.methods` rewrites the table; with `--check` it says whether that would change anything.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import qunify
from qunify import catalogue
from qunify._lib import files
from qunify.maps import QMap
from qunify.pictures._markdown import code
from qunify.pictures._markdown import table as markdown

if TYPE_CHECKING:
    import pandas as pd

    from qunify.pictures._facts import Facts

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- methods:begin -->", "<!-- methods:end -->"
TEMPLATES = Path(__file__).parent / "_templates"

#: The order of what the index tells apart; … are all others.
ENDS = ("the truth", "the teacher", "…", "several, as the start decides", "no stable zero", "no target")
UNIT = ("always a distribution", "signed at some tokens", "always signed", "…", "none")

#: Context → a line that makes one, and how the trainer gets it.
MADE = {
    "reference_logits": "torch.randn(4, 50)",
    "teacher_logits": "torch.randn(4, 50)",
    "old_logits": "torch.randn(4, 50)",
    "prior_logits": "torch.randn(4, 50)",
    "token_weight": "torch.rand(4)",
    "token_mask": "torch.rand(4) < 0.5",
    "teacher_base_logits": "torch.randn(4, 50)",
    "negative_mask": "torch.rand(4, 50) < 0.1",
    "token_values": "torch.where(torch.arange(50) < 10, torch.arange(50.0), torch.nan)  # ten digits, 40 other tokens",
}
ARGUMENT = {
    "reference_logits": 'reference_model=reference,  # a frozen model, or "base": the adapter switched off',
    "teacher_logits": "teacher_model=teacher,",
    "old_logits": "old_every=100,  # steps until the present policy becomes the old one",
    "prior_logits": "prior_logits=prior,  # (V,), say the log frequency of each token",
    "teacher_base_logits": "teacher_base_model=base,  # what the teacher was before its own fine-tuning",
}
NOTE = {
    "token_weight": "The dataset has a column `weight`: a number for an example, a message or a token.",
    "token_mask": "The dataset has a column `mask`: true or false for an example, a message or a token.",
    "negative_mask": "The negatives are the tokens that the sequence already holds.",
    "token_values": "The numbers are the tokenizer's digits, unless `token_values=…`, (V,), says what tokens are as "
    "numbers: NaN for one that is none.",
}


# ---- README -------------------------------------------------------------------------------------------------------


def table() -> str:
    """Every method in one Markdown table, folded away under its own count."""
    maps = [qunify.get(name) for name in qunify.names()]
    lines = ["| Method | Loss | Pulls | Source |", "|---|---|---|---|"]
    for m in maps:
        lines.append(f"| {m.title}<br>`{m.name}` | {code(m.loss_text)} | {code(m.pulls_text)} | {m.source} |")
    summary = f"<summary>All {len(maps)} methods, in {len(catalogue.families())} families</summary>"
    return "\n".join(["<details>", summary, "", *lines, "", "</details>"])


def parameters() -> str:
    """The glossary's table: every parameter, its default, its letter, and what others call it."""
    rows = ["| Method | Parameter here | Letter | Elsewhere |", "|---|---|---|---|"]
    for name, entry in catalogue.ENTRIES.items():
        for f in entry.parameters():
            default = f"{f.default:g}" if isinstance(f.default, float) else f.default
            facts = (f.metadata[key].replace("|", r"\|") for key in ("letter", "elsewhere"))
            rows.append(f"| `{name}` | `{f.name}` = {default} | {' | '.join(facts)} |")
    return "\n".join(rows)


def aliases() -> str:
    """The glossary's table: names of other papers and trainers, and what they are here."""
    rows = ["| Elsewhere | By default | Here | Published in |", "|---|---|---|---|"]
    for alias in catalogue.ALIASES.values():
        (term,) = alias.right
        defaults = ", ".join(f"{key} = {value:g}" for key, value in alias.defaults.items())
        settings = ", ".join(f"{key}={value}" for key, value in term.params.items())
        here = f"`{term.name}({settings})`" if settings else f"`{term.name}`"
        rows.append(f"| {alias.title}, `{alias.name}` | {defaults} | {here} | {alias.source} |")
    return "\n".join(rows)


def filled(readme: str) -> str:
    """The README with the table between its markers as the catalogue now has it."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str]) -> int:
    """1 where a check fails, 0 otherwise."""
    before = README.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" in arguments:
        if before != after:
            print(
                "README.md: the table of methods is not the catalogue's: run `python -m docs.methods`", file=sys.stderr
            )
        return int(before != after)
    files.write(README, after.encode())
    return 0


# ---- a page for every method --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Line:
    """What the indexes say of a method."""

    m: QMap
    year: int
    target: str  # its unit target
    at_truth: str  # what it does to a model that predicts the truth
    ends: str  # where training by it ends


def write(folder: Path) -> None:
    """The pages and pictures of all methods and families and the index of them, in a folder that git ignores. A file
    that would not change is left alone."""
    import joblib

    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    # processes that have torch already, as Sphinx's own have
    made = joblib.Parallel(n_jobs=2, backend="multiprocessing")(
        joblib.delayed(_make)(name, folder) for name in [*qunify.names(), ""]
    )
    lines = [line for line, _ in made if line is not None]
    kept = {path for _, paths in made for path in paths}
    kept |= {_put(folder / f"{family}.md", family_page(family).encode()) for family in catalogue.families()}
    kept |= {_put(folder / "index.txt", index(lines).encode()), _put(folder / ".gitignore", b"*\n")}
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _make(name: str, folder: Path) -> tuple[Line | None, list[Path]]:
    """The files of one method, or the pictures of the front page if there is no name."""
    from docs import pictures
    from qunify.pictures import _facts, _method_page

    if not name:
        made, line = [], None
        drawn = {f"front-{shown}": pictures.front(shown) for shown in pictures.FRONT}
    else:
        facts = _facts.of(name)
        made, line = [_put(folder / f"{name}.md", page(facts).encode())], listed(facts)
        drawn = {f"{name}-{kind}": both for kind, both in _method_page.drawn(facts).items()}
    for stem, both in drawn.items():
        for shade, picture in zip(("light", "dark"), both, strict=True):
            made.append(_put(folder / "pictures" / f"{stem}-{shade}.svg", picture))
    return line, made


def _put(path: Path, content: bytes) -> Path:
    if not path.exists() or path.read_bytes() != content:
        files.write(path, content)
    return path


def page(facts: Facts) -> str:
    """A method's page in MyST: the one that the package writes, its pictures as files, and its links, relations and
    use beside."""
    from docs import atlas
    from qunify.pictures import _method_page
    from qunify.pictures._templates import environment

    return _method_page.markdown(
        facts,
        environment(markdown=True, folders=[TEMPLATES]),
        "entry.md.j2",
        link=link,
        pictured=pictured,
        relations=relation_lines(facts.m.name),
        special_cases=special_cases(facts.m.name),
        shippers=atlas.shippers(facts.m.name),
        usage=usage(facts.m),
    )


def listed(facts: Facts) -> Line:
    """The method's line in the indexes."""
    from qunify.pictures import _words

    target = facts.target if facts.has_target else "none"
    return Line(facts.m, _year(facts), target, _at_truth(facts), _words.rest(facts))


def _year(facts: Facts) -> int:
    if facts.year is None:
        raise ValueError(f"{facts.m.name}: source: expected a year, got {facts.m.source!r}")
    return facts.year


def _at_truth(facts: Facts) -> str:
    v = facts.verdict
    if v.direction == "no target":
        return "no target"
    if v.proper:
        return "strictly proper" if v.strict else "proper, not strictly"
    if v.unbiased:
        return "unbiased, not proper" if v.attracts else "unbiased, and the truth does not attract"
    return "biased: in no one direction" if v.direction == "mixed" else f"biased: {v.direction}"


# ---- relations ----------------------------------------------------------------------------------------------------


def link(name: str, folder: str = "") -> str:
    return f"[`{name}`]({folder}{name}.md)"


def relation_lines(name: str) -> list[str]:
    """What the study of all pairs says of the method at its default parameters."""
    t = _rows("equivalence")
    mine = t[(t["a"] == name) | (t["b"] == name)]
    other = mine["a"].where(mine["b"] == name, mine["b"])
    level = mine["level"]
    lines: list[str] = []
    for words, chosen in (
        ("Equal gradients: {}.", level == "identical"),
        ("Equal up to a learning rate: {}.", level == "scaled"),
        ("The same direction at every token, with other weights: {}.", level == "directional"),
        ("The same optima, by other paths: {}.", mine["same_optimum"] & ~level.isin(("identical", "scaled"))),
    ):
        if chosen.any():
            lines.append("At default parameters. " * (not lines) + words.format(", ".join(map(link, other[chosen]))))
    return lines


def special_cases(name: str) -> dict[str, list[str]]:
    """What the study of special cases found of the method: by a heading, a line for each other method."""
    t = _rows("family")
    sides = (
        ("It is a special case, or a limit (→), of", t[t["special"] == name], "general"),
        ("At some parameters, or in a limit (→), it is", t[t["general"] == name], "special"),
    )
    return {
        heading: [f"{link(other)}: `{said}`" for other, said in zip(found[column], found["statement"], strict=True)]
        for heading, found, column in sides
        if len(found)
    }


@functools.cache
def _rows(study: str) -> pd.DataFrame:
    from analyses.kit import runner

    return runner.read(study, runner.FIGURES)


# ---- use ----------------------------------------------------------------------------------------------------------


def usage(m: QMap) -> dict[str, str]:
    """How to use a method: Python that runs as it stands, a terminal, a trainer, and what its data must hold."""
    settings = "".join(f", {key}={value!r}" for key, value in m.params.items())
    given = "".join(f", {name}={name}" for name in m.needs)
    seen = "target" if m.shift_invariant else "gradient"
    python = [
        "import torch",
        "import qunify as qu",
        "",
        "logits, labels = torch.randn(4, 50), torch.randint(50, (4,))",
        *(f"{name} = {MADE[name]}" for name in m.needs),
        "",
        f'm = qu.get("{m.name}"{settings})',
        f"{seen} = m(logits, labels{given}).{seen}",
        f"loss = qu.loss(m)(logits, labels{given})",
    ]
    first = next(iter(m.params.items()), None)
    shell = [
        f"qunify show {m.name}" + (f" --set {first[0]}={first[1]}" if first else ""),
        f"qunify show {m.name} --derive",
        f"qunify compare {m.name} {'dft' if m.name == 'sft' else 'sft'}",
        f"qunify plot {' '.join(dict.fromkeys((m.name, 'sft', 'dft')))}",
    ]
    params = ", ".join(f'"{key}": {value!r}' for key, value in m.params.items())
    trainer = [
        "from qunify import hf",
        "",
        "trainer = hf.SFTTrainer(",
        "    model, args, train_dataset=data,",
        f'    method="{m.name}",' + (f" method_params={{{params}}}," if params else ""),
        *(f"    {ARGUMENT[name]}" for name in m.needs if name in ARGUMENT),
        ")",
    ]
    notes = " ".join(NOTE[name] for name in m.needs if name in NOTE)
    return {"code": "\n".join(python), "shell": "\n".join(shell), "trainer": "\n".join(trainer), "note": notes}


def front() -> str:
    """The pictures of the front page."""
    from docs import pictures

    shown = [(qunify.get(name), " ".join(words.split())) for name, words in pictures.FRONT.items()]
    return pictured((f"{m.title}: {words}", f"catalogue/pictures/front-{m.name}") for m, words in shown)


def pictured(pictures: Iterable[tuple[str, str]]) -> str:
    """Pictures, from what they show and where they lie: the one for light pages, and the one for dark ones."""
    return "\n".join(
        f"![{alt}]({stem}-{shade}.svg){{.only-{shade}}}" for alt, stem in pictures for shade in ("light", "dark")
    )


# ---- indexes ------------------------------------------------------------------------------------------------------


def family_page(family: str) -> str:
    """One family: its methods in a table, and as entries of the navigation."""
    from qunify.pictures import _facts

    rows = []
    for m in map(qunify.get, qunify.names(family)):
        target = _facts.unit_target(m) if m.shift_invariant else _facts.NO_TARGET
        rows.append([f"[{m.title}]({m.name}.md)", code(m.loss_text), code(m.pulls_text), target])
    body = markdown(["Method", "Loss", "Pulls", "Unit target"], rows, align=":--")
    entries = "\n".join(qunify.names(family))
    return f"# {family.capitalize()}\n\n{about(family)}\n\n{body}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def about(family: str) -> str:
    """What the family has in common: the first line of its file."""
    (module,) = (m for m in catalogue.MODULES if m.__name__.endswith(f".{family}"))
    text = (module.__doc__ or "").splitlines()[0].partition(": ")[2]
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def index(lines: Sequence[Line]) -> str:
    """By family, by property and by year, for docs/catalogue.md, and the families for its navigation."""

    def listed(chosen: Iterable[Line]) -> str:
        return ", ".join(f"[{x.m.title}](catalogue/{x.m.name}.md)" for x in chosen)

    def groups(title: str, key: Callable[[Line], str], order: Sequence[str]) -> list[str]:
        at = {k: i for i, k in enumerate(order, -order.index("…"))}  # before and after all others, by name
        found = sorted({key(x) for x in lines}, key=lambda k: (at.get(k, 0), k))
        body = [f"{k[:1].upper()}{k[1:]}\n: {listed(x for x in lines if key(x) == k)}\n" for k in found]
        return [f"### {title}\n", *body]

    parts = ["## By family\n"]
    for family in catalogue.families():
        mine = listed(x for x in lines if x.m.family == family)
        parts.append(f"[{family.capitalize()}](catalogue/{family}.md)\n: {about(family)}\n\n  {mine}\n")
    parts.append("## By property\n")
    proper = ("strictly proper", "proper, not strictly", "unbiased, not proper")
    parts += groups("To a model that predicts the truth", lambda x: x.at_truth, (*proper, "…", "no target"))
    parts.append("Decided by `qu.is_proper` at default parameters, in every context. Biased: where it drifts to.\n")
    parts += groups("Where training ends", lambda x: x.ends, ENDS)
    parts.append("Computed on three tokens with labels from one truth, as on each method's page.\n")
    parts += groups("The unit target", lambda x: x.target, UNIT)
    parts.append("### What it needs beside logits and labels\n")
    for context in dict.fromkeys(name for x in lines for name in x.m.needs):
        parts.append(f"`{context}`\n: {listed(x for x in lines if context in x.m.needs)}\n")
    parts.append(f"Nothing\n: {listed(x for x in lines if not x.m.needs)}\n")
    parts.append("### It predicts through another link than softmax\n")
    parts.append(listed(x for x in lines if x.m.link != "softmax") + "\n")
    parts.append("## By year\n")
    for year in sorted({x.year for x in lines}, reverse=True):
        parts.append(f"{year}\n: {listed(x for x in lines if x.year == year)}\n")
    pages = "\n".join(f"catalogue/{family}" for family in catalogue.families())
    parts.append(f"```{{toctree}}\n:hidden:\n\n{pages}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
