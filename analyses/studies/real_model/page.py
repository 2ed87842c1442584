"""The documentation's page on a real model in training, where it is not written by hand: tables and numbers of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyses.kit.findings import committed
from analyses.kit.real import MODEL, NAMED
from analyses.kit.words import markdown, minus, percent
from analyses.studies import real_model
from analyses.studies.real_model import (
    correlation,
    foretold,
    groups,
    moved,
    named,
    pairs,
    rank_correlation,
    verdicts,
    with_interval,
    worst_first,
)
from analyses.studies.real_model.data import ANSWERED, CHOICE, ELSEWHERE, HELD_OUT, LONGEST
from analyses.studies.real_model.flagged import DIGITS, EVERY
from analyses.studies.real_model.recipes import (
    DESCENT,
    LONGER,
    MAIN,
    MEASURED,
    PATIENT,
    PER_STEP,
    RATES,
    STEPS,
    WAYS,
    WHOLE,
)

NAME = "real_model"
FORETOLD = {
    "push ratio": "asked: share of the push per share of the tokens",
    "influence": "done: the first step of gradient descent",
    "influence_adam": "done: the first step of Adam",
    "rehearsed": "rehearsed: ten steps",
}
SHARES = ("accuracy", "stops", "marks well formed", "sums right", "answer right")


def setting() -> str:
    """What was trained, and on what it was measured."""
    t = committed(NAME)
    at = ", ".join(map(str, MEASURED[:-1]))
    return (
        f"{MODEL.name} (`make real`) is trained by LoRA of rank 8 on every linear layer but the head, with "
        f"`qunify.hf.SFTTrainer`: {STEPS} steps of {PER_STEP} solutions of GSM8K of at most {LONGEST} tokens, "
        f"{_ledger('tokens', ['sft']).max():,.0f} trained tokens for every method, the same ones in the same "
        f"order; Adam at a constant rate, {RATES[0]:g} or {RATES[1]:g}, of which each method has the one after which "
        f"its likeliest token is the label most often, on {CHOICE} demonstrations set apart. {HELD_OUT} others, of "
        f"{int(t[t['quantity'] == 'log u']['n'].max()):,} tokens, are measured at the start and after {at} and "
        f"{MEASURED[-1]} steps; {ANSWERED} of their questions are answered greedily; and how far the model has moved "
        f"elsewhere is measured on its own answers to {len(ELSEWHERE)} requests that have nothing to do with them. "
        f"Trained were {len(real_model.names_of(t))} recipes, the {len(MAIN)} main ones with {t['seed'].nunique()} "
        f"seeds at their rate, the others with one. Of {foretold()['recipe'].nunique()} of them predictions were made: "
        f"an audit knows nothing of weights and masks, and at its start PSFT is SFT."
    )


def _ledger(quantity: str, recipes: list[str] | None = None) -> pd.Series:
    t = committed(NAME)
    rows = t[(t["group"] == "ledger") & (t["quantity"] == quantity)]
    return rows[rows["recipe"].isin(recipes)]["value"] if recipes else rows["value"]


def predictions() -> str:
    """Rank correlations of each kind of prediction with training, each method at its rate and all at one."""
    t = committed(NAME)
    lines = []
    for quantity, words in FORETOLD.items():
        cells = []
        for rate in (0.0, *RATES):
            cells.append(with_interval(*correlation(pairs(t, rate), quantity)))
        lines.append([words, *cells])
    head = ["what was foretold", "each method at its own rate", *(f"all at {rate:g}" for rate in RATES)]
    return markdown(head, lines)


def furthest_off() -> str:
    """The pairs whose place in the order was foretold worst."""
    worst = worst_first(pairs(committed(NAME)))[:5]
    lines = [
        [f"{NAMED.get(group, group)} under {named(recipe)}", minus(f"{first:+.2f}"), minus(f"{ten:+.2f}"),
         minus(f"{came:+.2f}")]
        for recipe, group, first, ten, came in worst[
            ["recipe", "group", "influence", "rehearsed", "trained"]
        ].itertuples(index=False)
    ]  # fmt: skip
    return markdown(["", "foretold, per unit of rate", "after ten steps", f"after {STEPS} steps"], lines)


def longer() -> str:
    """Rank correlations of each kind of prediction with the main methods' training, as it went on."""
    found = verdicts.longer(committed(NAME))
    lines = [
        [words, *(with_interval(*rank_correlation(found, quantity, after)) for after in ("before", "trained"))]
        for quantity, words in FORETOLD.items()
    ]
    lines.append([f"the first {STEPS} steps", "", with_interval(*rank_correlation(found, "before", "trained"))])
    return markdown(["what was foretold", f"{STEPS} steps", LONGER.name], lines)


def methods() -> str:
    """A row per method at its own rate, and the start: shares in per cent, everything else in nats."""
    table = real_model.digest(committed(NAME))
    head = [column for column in table.columns if column not in ("recipe", "rate")]
    lines = [
        [
            named(row["recipe"]),
            f"{row['rate']:g}" if row["rate"] else "",
            *(percent(row[h], digits=0) if h in SHARES else f"{row[h]:.2f}" for h in head),
        ]
        for _, row in table.iterrows()
    ]
    return markdown(["", "rate", *head], lines)


def kinds() -> str:
    """Change of mean log u, a row per method and a column per kind of token."""
    t = committed(NAME)
    lines = [
        [named(recipe), *(minus(f"{moved(t, recipe, group):+.2f}") for group in groups(t))]
        for recipe in real_model.names_of(t)
    ]
    return markdown(["", *(NAMED.get(group, group) for group in groups(t))], lines)


def learned() -> str:
    """Of the end of turn and the calculator marks: who was foretold to learn them, and who did."""
    words = (
        "The end of turn and the calculator marks, which the model does not expect. *Learned* is a probability above "
        f"{np.exp(verdicts.LEARNED):g} at the end (geometric mean over held-out demonstrations). Foretold were: by "
        f"patience, that a method needs less than {PATIENT} times as long as SFT; by Adam's first step, that it raises "
        "the group; and the change of its mean log u by the first step of gradient descent, in nats per unit of rate."
    )
    found = verdicts.learned(committed(NAME)).sort_values(["group", "influence"])
    said = {True: "yes", False: "no"}
    lines = [
        [NAMED.get(row["group"], row["group"]), named(row["recipe"]), said[row["asked"]], said[row["done"]],
         minus(f"{row['influence']:+.2f}"), said[row["came"]], minus(f"{row['log_u']:.2f}")]
        for _, row in found.iterrows()
    ]  # fmt: skip
    head = ["", "", "by patience", "by Adam's first step", "first step of descent", "learned", "mean log u"]
    return f"{words}\n\n{markdown(head, lines)}"


def in_other_ways() -> str:
    """How far the first step carries where the same methods are trained otherwise."""
    words = {
        "": f"an adapter, Adam, rates {RATES[0]:g} and {RATES[1]:g}",
        DESCENT.name: f"an adapter, plain gradient descent at {WAYS[DESCENT][0]:g}",
        WHOLE.name: f"all parameters, Adam at {WAYS[WHOLE][0]:g}",
    }
    lines = [
        [words[row["way"]], with_interval(*row["correlation"]), f"{row['right']} of {row['n']}"]
        for _, row in verdicts.in_other_ways(committed(NAME)).iterrows()
    ]  # fmt: skip
    return markdown(["trained", "rank correlation with its first step", "sign right"], lines)


def alone() -> str:
    """What one kind of token gains where all kinds are trained on, and where it is the only one."""
    lines = [
        [f"{NAMED.get(row['group'], row['group'])} under {named(row['recipe'])}",
         *(minus(f"{row[name]:+.2f}") for name in ("foretold", "among", "alone"))]
        for _, row in verdicts.alone(committed(NAME)).iterrows()
    ]  # fmt: skip
    return markdown(["", "foretold, per unit of rate", "among all kinds", "alone"], lines)


def flagged() -> str:
    """Right and wrong solutions of the same questions: how much each rose."""
    t = committed(NAME)
    parts = [(part, place) for place in ("trained on", "held out") for part in (EVERY, DIGITS)]
    lines = []
    for part, place in parts:
        for _, row in verdicts.on_flagged(t, part, place).iterrows():
            more = f"{row['more']:+.3f} ± {row['more, standard error']:.3f}"
            gains = [f"{row[name]:+.2f}" for name in ("gain, right", "gain, wrong")]
            lines.append([f"{part}, {place}", named(row["recipe"]), *map(minus, gains), minus(more), str(row["n"])])
    return markdown(["", "", "right", "wrong", "right more than wrong", "questions"], lines)


def ledger() -> str:
    seconds = _ledger("seconds")
    return (
        f"{len(seconds)} trainings of {seconds.mean() / 60:.1f} minutes of a core on average "
        f"({seconds.min() / 60:.1f} to {seconds.max() / 60:.1f}), {seconds.sum() / 3600:.1f} hours in all, without "
        f"what was measured on the way."
    )
