"""The pictures: what every library ships, which ε a smoothing has, and what a distillation minimises."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.studies.atlas import asking, words
from qunify import plots

#: What name and finding say of each other: a colour, and a sign that tells it apart where colours do not.
AGREEMENT = {
    asking.NAMED: ("#0072B2", "o"),
    asking.SCALED: ("#56B4E9", "o"),
    asking.NEARLY: ("#56B4E9", "D"),
    asking.MISCOUNTED: ("#CC79A7", "P"),
    asking.OTHERWISE: ("#E69F00", "s"),
    asking.ANOTHER: ("#D55E00", "X"),
    asking.NONE: ("#7F7F7F", "X"),
    asking.RENAMED: ("#009E73", "^"),
    asking.OURS: ("#009E73", "v"),
    asking.RANDOM: ("#1b1b1b", "*"),
    asking.UNASKABLE: ("#1b1b1b", "_"),
}
COLUMNS = 2
LINE, STEP = 0.31, 0.15  # inches from library to library, and from loss to loss


def draw(table: pd.DataFrame) -> Figure:
    """A line for every library, a mark for every loss."""
    table = words.told(table)
    libraries = list(dict.fromkeys(table["library"]))
    longest = math.ceil(len(libraries) / COLUMNS)
    counts = Counter(table["agreement"])
    shown = [word for word in AGREEMENT if counts[word]]
    key = math.ceil(len(shown) / 3)
    top = 0.8 + 0.36 * key + 0.3
    height = top + LINE * longest + 0.15
    with plots.style():
        figure, ax = _page(10.1, height)
        title = f"{len(table)} losses of {len(libraries)} libraries: are they what their names say?"
        ax.text(0.25, 0.4, title, fontsize=17, va="center")
        for i, word in enumerate(shown):
            x, y = 0.35 + 3.2 * (i % 3), 0.95 + 0.36 * (i // 3)
            _mark(ax, x, y, word)
            ax.text(x + 0.2, y, f"{word} ({counts[word]})", fontsize=14, va="center")
        for i, library in enumerate(libraries):
            x, y = 0.25 + 4.8 * (i // longest), top + LINE * (i % longest)
            ax.text(x, y, library, fontsize=14, va="center")
            for k, word in enumerate(table[table["library"] == library]["agreement"]):
                _mark(ax, x + 3.12 + STEP * k, y + 0.015, word)
    return figure


def which_epsilon(table: pd.DataFrame) -> Figure:
    """Who spreads a smoothing of 0.1 over the vocabulary, who over the others, and who does something else."""
    groups = smoothings(table)
    heads = {
        "V": ("over all V tokens", "the label keeps 1 − ε + ε/V"),
        "V − 1": ("over the V − 1 others", "the label keeps 1 − ε"),
        "else": ("in another way", ""),
    }
    longest = max(len(groups[name]) for name in heads)
    height = 3.75 + 0.25 * longest
    with plots.style():
        figure, page = _page(11.5, height)
        page.text(0.3, 0.42, "Label smoothing of ε = 0.1: which ε?", fontsize=17, va="center")
        for i, (name, (head, kept)) in enumerate(heads.items()):
            x, colour = 0.3 + 3.75 * i, ("#0072B2", "#E69F00", "#7F7F7F")[i]
            page.text(x, 0.95, head, fontsize=14.5, va="center", color=plots.as_text(colour))
            page.text(x, 1.25, kept, fontsize=11.5, va="center", color=plots.SOFT)
            if name != "else":
                ax = figure.add_axes((x / 11.5, 1 - 3.2 / height, 3.2 / 11.5, 1.65 / height))
                _target(ax, 0.1 if name == "V" else 0.125, colour)
            first = 3.65 if name != "else" else 1.65
            for k, line in enumerate(groups[name]):
                page.text(x, first + 0.25 * k, line, fontsize=11.5, va="center")
    return figure


def smoothings(table: pd.DataFrame) -> dict[str, list[str]]:
    """The losses that are asked for a smoothing of 0.1, by what they spread it over: a line for each."""
    table = words.told(table)
    table = table[table["claim"] == "label_smoothing(smoothing=0.1)"]
    found: dict[str, list[str]] = {"V": [], "V − 1": [], "else": []}
    for row in table.to_dict("records"):
        of_library = table[table["library"] == row["library"]]
        functions, targets = (set(of_library[column]) for column in ("function", "found"))
        option = row["function"] if len(functions) > 1 else _option(row["setting"]) if len(targets) > 1 else ""
        line = row["library"] + (f", {option}" if option else "")
        kind = {"label_smoothing(smoothing=0.1)": "V", "label_smoothing(smoothing=0.1*V/(V - 1))": "V − 1"}
        exactly = kind.get(row["found"], "else") if row["level"] == "identical" else "else"
        if exactly == "else":
            found[exactly] += [f"{line}:", f"    {_otherwise(row)}"]
        elif line not in found[exactly]:
            found[exactly].append(line)
    return found


def _option(setting: str) -> str:
    """What a setting has beside the share."""
    parts = [part for part in setting.split(", ") if "0.1" not in part and "normalize" not in part and "=" in part]
    return ", ".join(part.rpartition("=")[2] for part in parts)


def _otherwise(row: words.Row) -> str:
    known = {"label_smoothing(smoothing=0.09091)": "ε/(1 + ε) over all V"}
    return str(known.get(row["found"], "another loss" if row["level"] == "none" else words.finding(row)))


def _target(ax: Axes, smoothing: float, colour: str) -> None:
    """The target that five tokens have, the first of which is the label."""
    target = [1 - smoothing * 4 / 5, *[smoothing / 5] * 4]
    ax.bar(range(5), target, color=colour, width=0.7)
    for i, value in enumerate(target):
        ax.text(i, value + 0.03, f"{value:.3g}", ha="center", fontsize=11)
    ax.set_ylim(0, 1.15)
    ax.set_yticks([])
    ax.set_xticks([0, 2.5], ["label", "the other four of five tokens"], fontsize=11)
    ax.tick_params(length=0)
    ax.spines["left"].set_visible(False)


#: What the columns of the picture on distillation ask of a loss, and their possible answers.
DIRECTIONS = ("teacher\n‖ student", "between", "student\n‖ teacher", "no KL")
FACTORS = ("times\nT²", "no\nfactor", "no T")
#: Of the rows' normalisers, and of factors.
BY = {
    "nothing: a sum": "nothing",
    "nothing: one loss per token": "nothing",
    "sequences": "sequen-\nces",
    "kept tokens": "kept\ntokens",
    "tokens": "all\ntokens",
    "all tokens": "all\ntokens",
}
DIVISORS = (*dict.fromkeys(BY.values()), "and V")


def distillation(table: pd.DataFrame) -> Figure:
    """A line for every library that distils: directions, temperature, divisor."""
    facts = distillations(table)
    blocks: list[tuple[str, tuple[str, ...], str]] = [
        ("KL: in which direction?", DIRECTIONS, "#0072B2"),
        ("At T: what factor?", FACTORS, "#D55E00"),
        ("Divided by what?", DIVISORS, "#009E73"),
    ]
    height, left, step = 1.75 + 0.29 * len(facts), 3.75, 0.74
    with plots.style():
        figure, page = _page(13.3, height)
        page.text(0.3, 0.35, "Distillation of logits: what is minimised?", fontsize=17, va="center")
        x = left
        for head, answers, colour in blocks:
            page.text(x - 0.3, 0.82, head, fontsize=13.5, va="center", color=plots.as_text(colour))
            for i, answer in enumerate(answers):
                page.text(x + step * i, 1.2, answer, fontsize=11.5, ha="center", va="center", linespacing=1.1)
                for k, marks in enumerate(facts.values()):
                    there = answer in marks
                    page.plot(
                        x + step * i, 1.62 + 0.29 * k, marker="o", markersize=10 if there else 3,
                        color=colour if there else plots.FAINT,
                    )  # fmt: skip
            x += step * len(answers) + 0.35
        for k, name in enumerate(facts):
            page.text(0.3, 1.62 + 0.29 * k, name, fontsize=11.5, va="center")
    return figure


def distillations(table: pd.DataFrame) -> dict[str, set[str]]:
    """The answers that hold of each library's losses with a teacher, as far as its rows tell."""
    table = words.told(table)
    table = table[(table["contexts"] == "teacher_logits") & ~table["claim"].str.startswith("topk_kd")]
    facts: dict[str, set[str]] = {}
    for row in table.to_dict("records"):
        if marks := _answers(row):
            named = f"{row['library']} {row['function'].strip('_')}"
            facts.setdefault(named if len(named) < 42 else row["library"], set()).update(marks)
    for marks in facts.values():
        if set(FACTORS[:2]) & marks:
            marks.discard(FACTORS[2])
    return dict(sorted(facts.items(), key=lambda fact: [answer not in fact[1] for answer in (*FACTORS, *DIRECTIONS)]))


def _answers(row: words.Row) -> set[str]:
    nearly = row["level"] == "near" and float(row["error"]) < 0.01
    known = row["method"] in ("kd", "logit_std_kd", "kd_hybrid", "jsd", "reverse_kl")
    if (row["level"] in ("identical", "scaled") or nearly) and known:
        return _directions(row) | _factors(row) | _divisors(row)
    if row["level"] == asking.SUM:
        return _directions(row) | _factors(row) | _divisors(row)
    return {DIRECTIONS[3]} if row["claim"] and not known else set()


def _directions(row: words.Row) -> set[str]:
    if row["level"] == asking.SUM:
        return {DIRECTIONS[0]} | ({DIRECTIONS[2]} if "reverse_kl" in row["found"] else set())
    if row["method"] == "jsd":
        beta = float(row["found"].partition("=")[2].rstrip(")"))
        return {DIRECTIONS[0] if beta == 0 else DIRECTIONS[2] if beta == 1 else DIRECTIONS[1]}
    return {DIRECTIONS[2] if row["method"] == "reverse_kl" else DIRECTIONS[0]}


def _factors(row: words.Row) -> set[str]:
    if "temp" not in row["setting"] or "=2" not in row["setting"]:
        return {FACTORS[2]}
    without = row["factor"] in ("0.25", "1/4")
    return {FACTORS[1] if without else FACTORS[0]}


def _divisors(row: words.Row) -> set[str]:
    found = {BY[row["normaliser"]]} if row["normaliser"] in BY else set()
    return found | ({"and V"} if "V" in row["factor"] else set())


def _page(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one sheet, measured in inches from above."""
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_axis_off()
    return figure, ax


def _mark(ax: Axes, x: float, y: float, word: str) -> None:
    colour, sign = AGREEMENT[word]
    ax.plot(x, y, marker=sign, color=colour, markersize=9, markeredgecolor="white" if sign != "_" else colour)
