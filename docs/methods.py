"""The catalogue as text: the table in README.md (`python -m docs.methods` rewrites it), and a page for every method."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import joblib
import pandas as pd
from qunify.terminal import number

import qunify
from qunify import catalogue, files
from qunify.catalogue import identities
from qunify.qmap import QMap, range_text

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- methods:begin -->", "<!-- methods:end -->"
TEMPLATES = Path(__file__).parent / "_templates"

SIMPLEX = {
    "always": "always a distribution",
    "sometimes": "signed at some tokens",
    "never": "always signed",
}
NO_TARGET = "none: the loss is not shift-invariant"

#: The order of what the index tells apart; … are all others.
ENDS = ("the truth", "the teacher", "…", "several, as the start decides", "no stable zero", "no target")
UNIT = (*SIMPLEX.values(), "…", "none")

#: What an identity's context is, in words.
GIVEN = {"label": "the one-hot label", "uniform": "the uniform distribution", "teacher_logits": "the teacher"}
#: Context → a line that makes one, and how the trainer gets it.
MADE = {
    "reference_logits": "torch.randn(4, 50)",
    "teacher_logits": "torch.randn(4, 50)",
    "old_logits": "torch.randn(4, 50)",
    "prior_logits": "torch.randn(4, 50)",
    "token_weight": "torch.rand(4)",
    "token_mask": "torch.rand(4) < 0.5",
    "negative_mask": "torch.rand(4, 50) < 0.1",
}
ARGUMENT = {
    "reference_logits": 'reference_model=reference,  # a frozen model, or "base": the adapter switched off',
    "teacher_logits": "teacher_model=teacher,",
    "old_logits": "old_every=100,  # steps until the present policy becomes the old one",
    "prior_logits": "prior_logits=prior,  # (V,), say the log frequency of each token",
}
NOTE = {
    "token_weight": "The dataset has a column `weight`: a number for an example, a message or a token.",
    "token_mask": "The dataset has a column `mask`: true or false for an example, a message or a token.",
    "negative_mask": "The negatives are the tokens that the sequence already holds.",
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


def code(text: str) -> str:
    """Inline code that may stand in a table cell."""
    return f"`{text}`".replace("|", r"\|")


def filled(readme: str) -> str:
    """The README with the table between its markers as the catalogue now has it."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    files.write(README, filled(README.read_text(encoding="utf-8")).encode())


# ---- a page for every method --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Line:
    """What the indexes say of a method."""

    m: QMap
    year: int
    at_truth: str  # what it does to a model that predicts the truth
    ends: str  # where training by it ends


def write(folder: Path) -> str:
    """The pages and pictures of all methods and families, in a folder that git ignores; returns the indexes. A file
    that would not change is left alone."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    # processes that have torch already, as Sphinx's own have
    made = joblib.Parallel(n_jobs=2, backend="multiprocessing")(
        joblib.delayed(_make)(name, folder) for name in [*qunify.names(), ""]
    )
    lines = [line for line, _ in made if line is not None]
    kept = {path for _, paths in made for path in paths}
    kept |= {_put(folder / f"{family}.md", family_page(family).encode()) for family in catalogue.families()}
    kept.add(_put(folder / ".gitignore", b"*\n"))
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    return index(lines)


def _make(name: str, folder: Path) -> tuple[Line | None, list[Path]]:
    """The files of one method, or the pictures of the front page if there is no name."""
    from docs import facts, pictures

    drawn: dict[str, Callable[[bool], bytes]]
    if not name:
        made, line = [], None
        drawn = {f"front-{shown}": functools.partial(pictures.front, shown) for shown in pictures.FRONT}
    else:
        found = facts.of(name)
        made = [_put(folder / f"{name}.md", page(found).encode())]
        line = Line(found.m, found.year, _at_truth(found), facts.rest(found))
        drawn = {f"{name}-curve": functools.partial(pictures.curve, found)}
        if found.field is not None:
            drawn[f"{name}-field"] = functools.partial(pictures.field, found)
    for stem, draw in drawn.items():
        for dark in (False, True):
            path = folder / "pictures" / f"{stem}-{'dark' if dark else 'light'}.svg"
            made.append(_put(path, draw(dark)))
    return line, made


def _put(path: Path, content: bytes) -> Path:
    if not path.exists() or path.read_bytes() != content:
        files.write(path, content)
    return path


def page(found: Any) -> str:
    """A method's page in MyST, of its `docs.facts.Facts`."""
    from docs import facts
    from qunify.commands import one_token

    m = found.m
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("method.md.j2").render(
        facts=found,
        m=m,
        target=SIMPLEX[m.simplex] if m.shift_invariant else NO_TARGET,
        source=linked(m.source),
        pictures=pictured((alt, f"pictures/{m.name}-{kind}") for kind, alt in _alt(found).items()),
        caption=_caption(found),
        stated=one_token.stated(m.needs),
        token=_token_table(found.example),
        reading=_reading(found),
        ending=facts.ending(found),
        legend=_legend(found.closed_form or ""),
        verdict=f"At $p=\\eta$: {found.verdict}",
        identities=identity_lines(m.name),
        relations=relation_lines(m.name),
        parameters=[_parameter(f) for f in m.parameters()],
        release=_sentence(linked(m.release)),
        usage=usage(m),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def linked(text: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _parameter(f: dataclasses.Field[Any]) -> dict[str, str]:
    return {
        "name": f.name,
        "default": code(repr(f.default)),
        "range": range_text(f).replace("|", r"\|"),
        "doc": f.metadata["doc"].replace("|", r"\|"),
    }


def _token_table(example: dict[str, Any]) -> str:
    """Prediction, gradient, and the target, its trust and its residual in three gauges."""
    tokens, label = example["tokens"], example["label"]
    head = ["", *(f"{t} (label)" if k == label else t for k, t in enumerate(tokens)), "scale $s$", "trust $\\gamma$"]
    rows = [["prediction $p$", *map(number, example["p"]), "", ""]]
    rows += [
        [name.removesuffix("_logits"), *map(number, _softmax(value)), "", ""]
        for name, value in example["context"].items()
        if name.endswith("_logits")
    ]
    rows.append(["gradient $g$", *map(number, example["gradient"]), "", ""])
    for what in ("target", "residual"):
        symbol = {"target": "$Q$", "residual": r"$\tilde\pi$"}[what]
        for name, gauge in example["gauges"].items():
            more = [number(gauge["scale"]), number(gauge["trust"])] if what == "target" else ["", ""]
            rows.append([f"{what} {symbol}, {name}", *map(number, gauge[what]), *more])
    return markdown(head, rows)


def _softmax(logits: Sequence[float]) -> list[float]:
    import torch

    return torch.tensor(logits, dtype=torch.float64).softmax(-1).tolist()


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _reading(found: Any) -> str:
    m, example = found.m, found.example
    if not m.shift_invariant:
        total = number(sum(example["gradient"]))
        return f"The loss is {number(example['loss'])}. The gradient sums to {total}, not to zero: there is no target."
    inside = "is a distribution" if example["in_simplex"] else "has a negative entry, so it is no distribution"
    return (
        f"The loss is {number(example['loss'])}. The unit target {inside}. In each gauge "
        r"$Q=\gamma\,\delta+(1-\gamma)\,\tilde\pi$, with $\delta$ the one-hot label; a dash stands where the gauge or "
        f"the residual is undefined. `qunify show {m.name}` prints the same token."
    )


def _caption(found: Any) -> str:
    from docs import facts

    left = (
        "*Left:* its weight, which is its trust in the unit gauge; dotted, those of SFT and DFT."
        if found.curve.gate
        else "*Left:* its pull on the label's logit; dotted, that of SFT; dashed, its trust in the unit gauge."
    )
    left += " The other tokens keep their shares of what remains; ● is the token of the next section."
    if found.field is None:
        return left
    truth = ", ".join(f"{x:g}" for x in facts.TRUTH)
    return (
        f"{left} *Right:* labels drawn from the truth ({truth}) on three tokens. Arrows: where the drift moves a "
        "prediction. Lines: training by gradient flow from five starts ○. ●: stable optimum."
    )


def _alt(found: Any) -> dict[str, str]:
    from docs import facts

    c = found.curve
    what = "Weight" if c.gate else "Pull on the label's logit"
    shown = c.trust if c.gate else c.pull
    at = ", ".join(f"{float(shown[(c.u - u).abs().argmin()]):.2f} at u = {u}" for u in (0.01, 0.5, 0.99))
    alt = {"curve": f"{what} of {found.m.name}: {at}."}
    if found.field is not None:
        alt["field"] = f"Drift and training paths on three tokens. {facts.ending(found)}".replace("$p^*$", "p*")
    return alt


def _legend(latex: str) -> str:
    parts = [r"$\eta$ is the truth"]
    if re.search(r"(?<![a-zA-Z\\])C(?![a-zA-Z])", latex):
        parts.append("$C$ the number at which $p^*$ sums to 1")
    if "_+" in latex or "_{+}" in latex:
        parts.append("$x_+=\\max(x,0)$")
    return f"{parts[0]}{''.join(', ' + p for p in parts[1:])}."


def _at_truth(found: Any) -> str:
    v = found.verdict
    if v.direction == "no target":
        return "no target"
    if v.proper:
        return "strictly proper" if v.strict else "proper, not strictly"
    if v.unbiased:
        return "unbiased, not proper" if v.attracts else "unbiased, and the truth does not attract"
    return "biased: in no one direction" if v.direction == "mixed" else f"biased: {v.direction}"


# ---- relations ----------------------------------------------------------------------------------------------------


def identity_lines(name: str) -> list[str]:
    """The identities that the method takes part in, the other methods as links."""
    lines = []
    for i in identities.IDENTITIES:
        if name in {i.left.name, *(term.name for term in i.right)}:
            right = " + ".join(_term(term, name) for term in i.right)
            given = [f"`{key}` are those of {GIVEN[value]}" for key, value in i.given.items()]
            where = f", where {' and '.join(given)}" if given else ""
            lines.append(f"{_term(i.left, name)} = {right}{where}")
    for c in identities.CHANNELS:
        if name in {c.method.name, c.equals.name}:
            lines.append(
                f"{_term(c.method, name)} on labels that stay with probability `{c.stay}` and move to each other token "
                f"with `{c.move}`, on average = {_term(c.equals, name)}"
            )
    return lines


def _term(term: identities.Term, own: str) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in term.params.items())
    shown = f"`{term.name}`" if term.name == own else link(term.name)
    factor = "" if term.factor == 1 else f"`{term.factor}` · "
    return f"{factor}{shown}{f' `({settings})`' if settings else ''}"


def link(name: str, folder: str = "") -> str:
    return f"[`{name}`]({folder}{name}.md)"


def relation_lines(name: str) -> list[str]:
    """What the study of all pairs says of the method at its default parameters."""
    t = _pairs()
    mine = t[(t["a"] == name) | (t["b"] == name)]
    other = mine["a"].where(mine["b"] == name, mine["b"])
    level, lines = mine["level"], []
    for words, chosen in (
        ("Equal gradients: {}.", level == "identical"),
        ("Equal up to a learning rate: {}.", level == "scaled"),
        ("The same direction at every token, with other weights: {}.", level == "directional"),
        ("The same optima, by other paths: {}.", mine["same_optimum"] & ~level.isin(("identical", "scaled"))),
    ):
        if chosen.any():
            lines.append("At default parameters. " * (not lines) + words.format(", ".join(map(link, other[chosen]))))
    return lines


@functools.cache
def _pairs() -> pd.DataFrame:
    from analyses.kit import runner

    return runner.read("equivalence", runner.FIGURES)


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
    rows = []
    for m in map(qunify.get, qunify.names(family)):
        cells = (f"[{m.title}]({m.name}.md)", code(m.loss_text), code(m.pulls_text), SIMPLEX[m.simplex])
        rows.append(cells if m.shift_invariant else (*cells[:3], NO_TARGET))
    head = ["Method", "Loss", "Pulls", "Unit target"]
    lines = [head, ["---"] * len(head), *rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    entries = "\n".join(qunify.names(family))
    return f"# {family.capitalize()}\n\n{about(family)}\n\n{body}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def about(family: str) -> str:
    """What the family has in common: the first line of its file."""
    (module,) = (m for m in catalogue.MODULES if m.__name__.endswith(f".{family}"))
    return _sentence((module.__doc__ or "").splitlines()[0].partition(": ")[2])


def index(lines: Sequence[Line]) -> str:
    """By family, by property and by year, for docs/catalogue.md."""

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
    parts += groups("The unit target", lambda x: SIMPLEX[x.m.simplex] if x.m.shift_invariant else "none", UNIT)
    parts.append("### What it needs beside logits and labels\n")
    for context in dict.fromkeys(name for x in lines for name in x.m.needs):
        parts.append(f"`{context}`\n: {listed(x for x in lines if context in x.m.needs)}\n")
    parts.append(f"Nothing\n: {listed(x for x in lines if not x.m.needs)}\n")
    parts.append("### It predicts through another link than softmax\n")
    parts.append(listed(x for x in lines if x.m.link != "softmax") + "\n")
    parts.append("## By year\n")
    for year in sorted({x.year for x in lines}, reverse=True):
        parts.append(f"{year}\n: {listed(x for x in lines if x.year == year)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
