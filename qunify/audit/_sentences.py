"""What to expect, in sentences: every number is read from the tables, and each sentence says what it rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

#: Below this share of the tokens a group is too small for a sentence.
FEW = 0.005
CLEAR = 4  # a group's push is told where two methods differ by this factor


def sentences(
    tokens: pd.DataFrame, methods: pd.DataFrame, groups: pd.DataFrame, about: dict[str, Any]
) -> tuple[str, ...]:
    """Sentences for a reader who knows the data and not the methods' formulas."""
    table = methods.set_index("method")
    found = [_data(tokens, about), *_doubted(table), *_groups(groups), *_outside(table), *_flagged(table)]
    found.append(
        "All of this is what a loss asks at each token, were every token free. In training the tokens share the "
        "model's parameters, and an optimiser rescales the steps: what is asked of a group is not yet what happens to "
        "it."
    )
    return tuple(found)


def _data(tokens: pd.DataFrame, about: dict[str, Any]) -> str:
    template = "the tokenizer's chat template" if about["chat_template"] else "no chat template"
    text = (
        f"{about['demonstrations']:,} demonstrations with {about['tokens']:,} tokens to train on, under {template}; "
        f"the model gives them a median probability of {_number(tokens['u'].median())}, and "
        f"{_percent((tokens['u'] < 0.05).mean())} of them less than 5 %."
    )
    if about["cut_off"]:
        text += f" {about['cut_off']:,} were cut off, with {about['tokens_cut_off']:,} tokens that would count."
    if about["left_out"]:
        text += f" {about['left_out']:,} more have no token to train on."
    if "teacher_tokens" in about:
        text += (
            f" Of the teacher at least {about['teacher_tokens']:,} tokens are listed everywhere, with "
            f"{_percent(about['teacher_mass'])} of its probability; the rest counts as spread evenly."
        )
    return text


def _doubted(table: pd.DataFrame) -> list[str]:
    """How much of the push goes to what the model gives less than 5 %: most, least, and SFT between."""
    below = (table["push_below_0.001"] + table["push_below_0.05"]).dropna()
    if len(below) < 2:
        return []
    most, least = str(below.idxmax()), str(below.idxmin())
    middle = f" (sft: {_percent(below['sft'])})" if "sft" in below.index and "sft" not in (most, least) else ""
    return [
        f"Asked of tokens that the model gives less than 5 %: {_percent(below[most])} of the push of {most}, "
        f"{_percent(below[least])} of that of {least}{middle}."
    ]


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
            f"Asked of {group} ({_percent(rows['share'].iloc[0])} of the tokens, median probability "
            f"{_number(rows['u'].iloc[0])}): {_percent(push[most])} of the push of {most}, "
            f"{_percent(push[least])} of that of {least}."
        )
        patience = rows.set_index("method")["patience"]
        slow = patience[np.isfinite(patience)]
        never = [str(name) for name in patience.index[np.isinf(patience)]]
        if len(slow) and slow.max() >= 2:
            text += f" Alone, its median token would take {slow.idxmax()} {_number(slow.max())} times as long as sft"
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
    more = f" The same holds somewhere for {len(outside) - 1} other methods." if len(outside) > 1 else ""
    return [
        f"The target of {outside.idxmin()} is no distribution at {_percent(1 - outside.min())} of the tokens: it asks "
        f"to move more than there is.{more}"
    ]


def _flagged(table: pd.DataFrame) -> list[str]:
    if "auc" not in table or table["auc"].isna().all():
        return []
    best = str(table["auc"].idxmax())
    auc, low, high = (table[key][best] for key in ("auc", "auc_low", "auc_high"))
    verdict = "tells the flagged apart" if low > 0.5 else "does not tell the flagged apart"
    return [
        f"Mean trust of {best} {verdict} better than the others': in {_percent(auc)} of pairs "
        f"({_percent(low)} to {_percent(high)}) the flagged demonstration is trusted less; half "
        "would be chance."
    ]


def _listed(names: list[str]) -> str:
    shown = names[:4]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown) + more


def _percent(share: float) -> str:
    value = 100 * share
    return f"{value:.2g} %" if 0 < value < 1 else f"{value:.0f} %"


def _number(x: float) -> str:
    if x >= 1e6:
        return "more than a million"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.2g}"
