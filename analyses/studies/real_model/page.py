"""The documentation's page on a real model in training, where it is not written by hand: tables and numbers of rows."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import committed
from analyses.kit.real import MODEL, NAMED
from analyses.kit.words import markdown, minus, percent, title
from analyses.studies import real_model
from analyses.studies.real_model import correlation, foretold, groups, pairs, worst_first
from analyses.studies.real_model.data import ANSWERED, CHOICE, ELSEWHERE, HELD_OUT, LONGEST
from analyses.studies.real_model.recipes import MEASURED, PER_STEP, RATES, STEPS

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
        f"{_ledger('tokens').max():,.0f} trained tokens for every method, the same ones in the same order; Adam at a "
        f"constant rate, {RATES[0]:g} or {RATES[1]:g}, of which each method has the one after which its likeliest "
        f"token is the label most often, on {CHOICE} demonstrations set apart. {HELD_OUT} others, of "
        f"{int(t[t['quantity'] == 'log u']['n'].max()):,} tokens, are measured at the start and after {at} and "
        f"{MEASURED[-1]} steps; {ANSWERED} of their questions are answered greedily; and how far the model has moved "
        f"elsewhere is measured on its own answers to {len(ELSEWHERE)} requests that have nothing to do with them. "
        f"Trained were {len(real_model.names_of(t))} of the {foretold()['recipe'].nunique()} recipes that predictions "
        f"were made of, each with one seed."
    )


def _ledger(quantity: str) -> pd.Series:
    t = committed(NAME)
    return t[(t["group"] == "ledger") & (t["quantity"] == quantity)]["value"]


def predictions() -> str:
    """Rank correlations of each kind of prediction with training, each method at its rate and all at one."""
    t = committed(NAME)
    lines = []
    for quantity, words in FORETOLD.items():
        cells = []
        for rate in (0.0, *RATES):
            r, low, high, _ = correlation(pairs(t, rate), quantity)
            cells.append(minus(f"{r:.2f} [{low:.2f}, {high:.2f}]"))
        lines.append([words, *cells])
    head = ["what was foretold", "each method at its own rate", *(f"all at {rate:g}" for rate in RATES)]
    return markdown(head, lines)


def furthest_off() -> str:
    """The pairs whose place in the order was foretold worst."""
    worst = worst_first(pairs(committed(NAME)))[:5]
    lines = [
        [f"{NAMED.get(group, group)} under {title(recipe)}", minus(f"{first:+.2f}"), minus(f"{ten:+.2f}"),
         minus(f"{came:+.2f}")]
        for recipe, group, first, ten, came in worst[
            ["recipe", "group", "influence", "rehearsed", "trained"]
        ].itertuples(index=False)
    ]  # fmt: skip
    return markdown(["", "foretold, per unit of rate", "after ten steps", f"after {STEPS} steps"], lines)


def methods() -> str:
    """A row per method at its own rate, and the start: shares in per cent, everything else in nats."""
    table = real_model.digest(committed(NAME))
    head = [column for column in table.columns if column not in ("recipe", "rate")]
    lines = [
        [
            title(row["recipe"]),
            f"{row['rate']:g}" if row["rate"] else "",
            *(percent(row[h], digits=0) if h in SHARES else f"{row[h]:.2f}" for h in head),
        ]
        for _, row in table.iterrows()
    ]
    return markdown(["", "rate", *head], lines)


def kinds() -> str:
    """Change of mean log u of every kind of token, a column per method."""
    found = pairs(committed(NAME)).set_index(["group", "recipe"])["trained"]
    names = real_model.names_of(committed(NAME))
    lines = [
        [NAMED.get(group, group), *(minus(f"{found[group, name]:+.2f}") for name in names)]
        for group in groups(committed(NAME))
    ]
    return markdown(["", *map(title, names)], lines)


def ledger() -> str:
    seconds = _ledger("seconds")
    return (
        f"{len(seconds)} trainings of {seconds.mean() / 60:.1f} minutes of a core on average "
        f"({seconds.min() / 60:.1f} to {seconds.max() / 60:.1f}), {seconds.sum() / 3600:.1f} hours in all, without "
        f"what was measured on the way."
    )
