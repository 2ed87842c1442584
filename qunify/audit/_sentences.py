"""What to expect, in sentences: every number is read from the tables, and each sentence says what it rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from qunify.audit._words import number, percent, signed

#: Below this share of the tokens a group is too small for a sentence.
FEW = 0.005
DOUBTED = 0.01  # but for one whose median token the model gives less
SLOW = 10  # times as long as SFT
SLOWER = 2  # times as long as the quickest group
MANY = 3  # sentences of a kind
TOLD = 4  # methods of whose rehearsal each is told
CLEAR = 4  # a group's push is told where two methods differ by this factor


def sentences(
    tokens: pd.DataFrame, methods: pd.DataFrame, groups: pd.DataFrame, about: dict[str, Any]
) -> tuple[str, ...]:
    """Sentences for a reader who knows the data and not the methods' formulas."""
    if tokens.empty:
        return ("No demonstration was audited; model, data and options fit together.",)
    table = methods.set_index("method")
    found = [*_conflicts(groups, about), _data(tokens, about), *_rehearsed(table, about), *_doubted(table)]
    found += [*_groups(groups), *_outside(table), *_flagged(table)]
    if "influence" not in about and "rehearsal" not in about:
        found.append(
            "All of this is what a loss asks at each token, were every token free. In training the tokens share the "
            "model's parameters, and an optimiser rescales the steps: what is asked of a group is not yet what happens "
            "to it."
        )
    return tuple(found)


def _conflicts(groups: pd.DataFrame, about: dict[str, Any]) -> list[str]:
    """Where what is asked, what a first step does and what a rehearsal measures disagree: a sentence per method. That a
    group falls contradicts what is asked only of a method that pulls toward its tokens."""
    large = groups[(groups["share"] >= FEW) | (groups["u"] < DOUBTED)]
    toward = large[large["trust"] > 0]
    found = []
    if "influence" in about:
        found += _each_method(toward[toward["influence"] < 0], "influence", _lowered)
        first = large.loc[large.groupby("method")["influence"].idxmax().dropna()]
        quickest = large.assign(there=large["patience"].fillna(0)).groupby("method")["there"].min()
        slow = (first["patience"] >= SLOW) & (first["patience"] > SLOWER * first["method"].map(quickest))
        found += _each_method(first[slow & (first["influence"] > 0)], "influence", _carried)
    if "rehearsal" in about:
        found += _each_method(toward[toward["rehearsed_high"] < 0], "rehearsed", _fell)
    if "influence" in about and "rehearsal" in about:
        clear = (large["rehearsed_low"] > 0) | (large["rehearsed_high"] < 0)
        other = clear & (np.sign(large["influence_adam"]) * np.sign(large["rehearsed"]) < 0)
        found += _each_method(large[other], "rehearsed", _turned)
    return found


Rows = list[dict[Any, Any]]


def _each_method(table: pd.DataFrame, by: str, say: Callable[[str, Rows], str]) -> list[str]:
    """A sentence per method from its rows, the lowest first; of at most MANY methods."""
    told = [(str(name), rows.sort_values(by).to_dict("records")) for name, rows in table.groupby("method", sort=False)]
    left = f" The same is true, of some kind of token, of {_listed([n for n, _ in told[MANY:]])}."
    return [say(*one) + (left if len(told) > MANY and one is told[MANY - 1] else "") for one in told[:MANY]]


def _and_others(rows: Rows) -> str:
    """ ", and of digits and punctuation"."""
    return f", and of {_listed([str(row['group']) for row in rows[1:]])}" if len(rows) > 1 else ""


def _lowered(method: str, rows: Rows) -> str:
    return (
        f"Asked and done disagree: a first step of {method} lowers the probability of {rows[0]['group']} (mean log u "
        f"{signed(rows[0]['influence'])} per unit step of gradient descent){_and_others(rows)}, though it pulls toward "
        "them: steps for other tokens move them more."
    )


def _carried(method: str, rows: Rows) -> str:
    row = rows[0]
    alone = (
        "never get there" if np.isinf(row["patience"]) else f"take {number(row['patience'], 2)} times as long as sft"
    )
    return (
        f"Asked and done disagree: alone, the median token of {row['group']} would {alone} under {method}; done, its "
        f"first step raises {row['group']} more than any other kind (mean log u {signed(row['influence'])} per unit "
        "step)."
    )


def _fell(method: str, rows: Rows) -> str:
    low, high = signed(rows[0]["rehearsed_low"]), signed(rows[0]["rehearsed_high"])
    return (
        f"Asked and rehearsed disagree: training by {method} lowered, on held-out demonstrations, the probability of "
        f"{rows[0]['group']} (mean log u {signed(rows[0]['rehearsed'])} [{low}, {high}] nats){_and_others(rows)}."
    )


def _turned(method: str, rows: Rows) -> str:
    return (
        f"Done and rehearsed disagree for {method}: Adam's first step moves {_listed([str(r['group']) for r in rows])} "
        "one way, the rehearsal the other."
    )


def _rehearsed(table: pd.DataFrame, about: dict[str, Any]) -> list[str]:
    """How the held-out demonstrations fared: of many methods SFT, best and worst."""
    if "rehearsal" not in about:
        return []
    plan, after = about["rehearsal"], table["nll_after"].dropna()
    few = ["sft", str(after.idxmin()), str(after.idxmax())] if len(after) > TOLD else map(str, after.index)
    told = [name for name in dict.fromkeys(few) if name in after.index]
    steps, held = _counted(plan["steps"], "step"), _counted(plan["held_out"], "held-out demonstration")
    return [
        f"Rehearsed: after {steps} of Adam at rate {plan['rate']:g} through {plan['trainable']}, the "
        f"mean −log u of {held} went from {number(table['nll_before'].iloc[0])} "
        f"to {', '.join(f'{number(after[name])} ({name})' for name in told)} nats."
    ]


def _data(tokens: pd.DataFrame, about: dict[str, Any]) -> str:
    template = "the tokenizer's chat template" if about["chat_template"] else "no chat template"
    text = (
        f"{_counted(about['demonstrations'], 'demonstration')} with {_counted(about['tokens'], 'token')} to train on, "
        f"under {template}; "
        f"the model gives them a median probability of {number(tokens['u'].median(), 2)}, and "
        f"{percent((tokens['u'] < 0.05).mean(), 0)} of them less than 5 %."
    )
    if about["cut_off"]:
        text += f" {about['cut_off']:,} were cut off, with {about['tokens_cut_off']:,} tokens that would count."
    if about.get("too_long"):
        text += (
            f" {about['too_long']:,} are longer than the {about['positions']:,} tokens that the model is made for, "
            "beyond which what it says means little: --max-length cuts them off."
        )
    if about["left_out"]:
        text += f" {about['left_out']:,} more have no token to train on."
    if about.get("weight_zero"):  # of an audit saved by an older version: unknown
        text += (
            f" Among what counts: {_counted(about['weight_zero'], 'answer')} of weight 0, which OpenAI's format does "
            "not train on and TRL does."
        )
    if about.get("empty_groups"):
        text += f" No token belongs to {_listed(about['empty_groups'])}: the expression matches none."
    if about.get("digits"):
        text += f" Methods that compare numbers take {_counted(about['digits'], 'token')} of the vocabulary for digits."
    if "teacher_tokens" in about:
        text += (
            f" Of the teacher at least {about['teacher_tokens']:,} tokens are listed everywhere, with "
            f"{percent(about['teacher_mass'], 0)} of its probability; the rest counts as spread evenly."
        )
    return text


def _doubted(table: pd.DataFrame) -> list[str]:
    """How much of the push goes to what the model gives less than 5 %: most, least, and SFT between."""
    below = (table["push_below_0.001"] + table["push_below_0.05"]).dropna()
    if len(below) < 2:
        return []
    most, least = str(below.idxmax()), str(below.idxmin())
    middle = f" (sft: {percent(below['sft'], 0)})" if "sft" in below.index and "sft" not in (most, least) else ""
    high, low = percent(below[most], 0), percent(below[least], 0)
    shares = f"of {most}, {low} of that of {least}{middle}" if high != low else "of every method"
    return [f"Asked of tokens that the model gives less than 5 %: {high} of the push {shares}."]


def _groups(groups: pd.DataFrame) -> list[str]:
    """For every group that methods treat differently: who asks most and least of it, and who needs longest."""
    found = []
    for group, rows in groups.groupby("group", sort=False):
        push = rows.set_index("method")["push"].dropna()
        if rows["share"].iloc[0] < FEW or len(push) < 2:
            continue
        most, least = str(push.idxmax()), str(push.idxmin())
        if push[most] < CLEAR * push[least]:
            continue
        text = (
            f"Asked of {group} ({percent(rows['share'].iloc[0], 0)} of the tokens, median probability "
            f"{number(rows['u'].iloc[0], 2)}): {percent(push[most], 0)} of the push of {most}, "
            f"{percent(push[least], 0)} of that of {least}."
        )
        patience = rows.set_index("method")["patience"]
        slow = patience[np.isfinite(patience)]
        never = [str(name) for name in patience.index[np.isinf(patience)]]
        if len(slow) and slow.max() >= 2:
            text += f" Alone, its median token would take {slow.idxmax()} {number(slow.max(), 2)} times as long as sft"
            text += f"; {_listed(never)} would not learn it." if never else "."
        elif never:
            text += f" Alone, its median token would not be learned by {_listed(never)}."
        found.append(text)
    return found


def _outside(table: pd.DataFrame) -> list[str]:
    inside = table["in_simplex"][table["trust"].notna()]
    outside = inside[inside < 0.995]
    if outside.empty:
        return []
    more = f" The same holds somewhere for {_counted(len(outside) - 1, 'other method')}." if len(outside) > 1 else ""
    return [
        f"The target of {outside.idxmin()} is no distribution at {percent(1 - outside.min(), 0)} of the tokens: it "
        f"asks to move more than there is.{more}"
    ]


def _flagged(table: pd.DataFrame) -> list[str]:
    if "auc" not in table:
        return []
    if table["auc"].isna().all():
        return ["Of the flag nothing is told: it takes flagged demonstrations and others, and a method with a trust."]
    best = str(table["auc"].idxmax())
    auc, low, high = (table[key][best] for key in ("auc", "auc_low", "auc_high"))
    pairs = f"in {percent(auc, 0)} of pairs ({percent(low, 0)} to {percent(high, 0)})"
    if low > 0.5:
        return [
            f"Mean trust tells the flagged demonstrations apart, that of {best} best: {pairs} the flagged one is "
            "trusted less; half would be chance."
        ]
    return [
        f"No method's mean trust is seen to tell the flagged demonstrations apart: {pairs} {best}, which comes "
        "nearest, trusts the flagged one less; half would be chance."
    ]


def _counted(n: int, what: str) -> str:
    """1 step, or 2 steps."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _listed(names: list[str]) -> str:
    shown = names[:4]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown) + more
