"""What the audit of a real model found: asked, done and rehearsed; and what trust tells of wrong solutions."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding
from analyses.kit.real import END, MARKS, MODEL
from analyses.kit.words import minus, percent, title
from analyses.studies.real_audit import best, foretold, value
from analyses.studies.real_audit.runs import RATE, REHEARSED, STEPS


def _end_words(t: pd.DataFrame) -> str:
    patience = value(t, "dft", "patience", END)["value"]
    rises = [value(t, name, "rehearsed", END) for name in REHEARSED]
    least, most = (choose(row["value"] for row in rises) for choose in (min, max))
    start = value(t, "sft", "u", END)["value"]
    return (
        f"{MODEL.name} gives the end of turn a median probability of {start:.3f}. Token by token DFT would need "
        f"{patience:.0f} times as long as SFT to teach it. {STEPS} steps of a LoRA adapter later (Adam at {RATE:g}) "
        f"its mean log u has risen by {least:.1f} to {most:.1f} nats under all {len(REHEARSED)} methods that were "
        f"rehearsed, on {rises[0]['n']:.0f} held-out demonstrations."
    )


def _end_holds(t: pd.DataFrame) -> bool:
    rises = [value(t, name, "rehearsed", END) for name in REHEARSED]
    values = [row["value"] for row in rises]
    return (
        value(t, "dft", "patience", END)["value"] > 10
        and all(row["low"] > 0 for row in rises)
        and max(values) - min(values) < 0.25 * min(values)
    )


def _worse_words(t: pd.DataFrame) -> str:
    before = value(t, "dft", "nll_before")["value"]
    after = {name: value(t, name, "nll_after")["value"] for name in REHEARSED}
    marks = {name: value(t, name, "rehearsed", MARKS) for name in ("sft", "dft")}
    told = {name: minus(f"{row['value']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]") for name, row in marks.items()}
    return (
        f"The mean −log u of held-out demonstrations goes from {before:.2f} nats to {after['dft']:.2f} under DFT, and "
        f"to {after['sft']:.2f} under SFT and {after['eaft']:.2f} under EAFT. The calculator marks, which the model "
        f"hardly knows, change by {told['dft']} nats under DFT and by {told['sft']} under SFT. The rate, {RATE:g}, is "
        "high for DFT and the same for all: Adam does not notice that DFT's gradient is smaller."
    )


def _worse_holds(t: pd.DataFrame) -> bool:
    dft, sft, marks = (
        value(t, "dft", "rehearsed"),
        value(t, "sft", "rehearsed"),
        value(t, "dft", "rehearsed", MARKS),
    )
    return bool(dft["high"] < 0 < sft["low"] and marks["high"] < 0 < value(t, "sft", "rehearsed", MARKS)["low"])


def _foretold_words(t: pd.DataFrame) -> str:
    (done, n), (adam, _), (asked, _) = (foretold(t, name) for name in ("influence", "influence_adam", "push ratio"))
    return (
        f"Over {n} pairs of a method and a kind of token, the change that a first step of gradient descent makes, "
        f"through the adapter's own parameters, has a rank correlation of {done:.2f} with what {STEPS} steps of Adam "
        f"came to on held-out demonstrations (Adam's own first step: {adam:.2f}). The share of its push that a method "
        f"spends there has {minus(f'{asked:.2f}')}. One model, one rate, one seed."
    )


def _foretold_holds(t: pd.DataFrame) -> bool:
    return foretold(t, "influence")[0] > 0.8 and abs(foretold(t, "push ratio")[0]) < 0.4


def _trust_words(t: pd.DataFrame) -> str:
    told, same, wrong = best(t), best(t, "auc, same question"), value(t, "data", "wrong")
    dft = value(t, "dft", "auc")

    def share(row: pd.Series) -> str:
        return f"{percent(row['value'], digits=0)} [{percent(row['low'], digits=0)}, {percent(row['high'], digits=0)}]"

    count = t.loc[t["quantity"] == "auc", "value"].count()
    return (
        f"Of {wrong['n']:.0f} solutions that language models wrote, {percent(wrong['value'], digits=0)} are wrong. "
        f"DFT's mean trust, which is the model's mean probability, is lower in the wrong one in {share(dft)} of pairs, "
        f"where half is chance. The best of the {count} methods, picked after looking, is {title(told['method'])} with "
        f"{share(told)}; among the solutions of one question, where neither length nor topic helps, "
        f"{title(same['method'])} with {share(same)}."
    )


def _trust_holds(t: pd.DataFrame) -> bool:
    told = t[t["quantity"].isin(["auc", "auc, same question"])].dropna(subset=["value"])
    return bool((told["low"] <= 0.5).all() and (value(t, "dft", "auc")["high"] >= 0.5))


FINDINGS = (
    Finding(
        "A real model learns to stop under every loss rehearsed, whatever it asks of the end of turn",
        _end_words,
        _end_holds,
    ),
    Finding("DFT makes real demonstrations less likely than they were", _worse_words, _worse_holds),
    Finding(
        "The first step foretells a rehearsal; what is asked does not",
        _foretold_words,
        _foretold_holds,
    ),
    Finding(
        "A real model's trust does not tell wrong solutions from right ones",
        _trust_words,
        _trust_holds,
    ),
)
