"""What the rows show of the losses that libraries ship."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding
from analyses.kit.words import listed
from analyses.studies.atlas import words

OVER_ALL, OVER_OTHERS = "label_smoothing(smoothing=0.1)", "label_smoothing(smoothing=0.1*V/(V - 1))"


def libraries(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["library"]))


# ---- label smoothing --------------------------------------------------------------------------------------------
def smoothed(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The losses that are asked for a smoothing of 0.1: those that spread it over all tokens, over the others, and
    those that do neither."""
    asked = words.told(table)
    asked = asked[asked["claim"] == OVER_ALL]
    exact = asked["level"] == "identical"
    first, second = (exact & (asked["found"] == name) for name in (OVER_ALL, OVER_OTHERS))
    return asked[first], asked[second], asked[~(first | second)]


def smoothing_words(table: pd.DataFrame) -> str:
    over_all, over_others, neither = smoothed(table)
    rest = listed(f"{row['library']} ({row['is']})" for row in neither.to_dict("records"))
    return (
        f"Asked for a smoothing of 0.1, {len(over_all)} losses spread it over the whole vocabulary, the label included "
        f"({listed(libraries(over_all))}), and {len(over_others)} over the other tokens "
        f"({listed(libraries(over_others))}), which is a smoothing of 0.1 V/(V − 1). "
        f"{len(neither)} do neither: {rest}."
    )


def smoothing_holds(table: pd.DataFrame) -> bool:
    over_all, over_others, neither = smoothed(table)
    return min(len(over_all), len(over_others)) >= 5 and len(neither) >= 2


# ---- distillation -----------------------------------------------------------------------------------------------
def at_two(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The distillations at T = 2: those times T², those without it, and those divided by the vocabulary."""
    asked = words.told(table)
    asked = asked[(asked["claim"] == "kd(temperature=2)") & (asked["method"] == "kd")]
    by_size = asked["factor"].str.contains("V")
    whole, quarter = (asked["factor"].isin(values) & ~by_size for values in (("1.0", "1"), ("0.25", "1/4")))
    return asked[whole], asked[quarter], asked[by_size]


def temperature_words(table: pd.DataFrame) -> str:
    whole, quarter, by_size = at_two(table)
    return (
        f"At T = 2, {listed(libraries(whole))} multiply the divergence by T², as Hinton et al. do, and "
        f"{listed(libraries(quarter))} do not: their step is a quarter of it, and 1/T² of it at any T. "
        f"{listed(libraries(by_size))} divide by the size of the vocabulary, where the mean is taken over all entries."
    )


def temperature_holds(table: pd.DataFrame) -> bool:
    return all(len(libraries(group)) >= least for group, least in zip(at_two(table), (3, 3, 2), strict=True))


def top_k(table: pd.DataFrame) -> pd.DataFrame:
    asked = words.told(table)
    return asked[asked["claim"].str.startswith("topk_kd")]


def top_k_words(table: pd.DataFrame) -> str:
    asked = top_k(table)
    kinds = asked.groupby("is", sort=False)["library"].agg(lambda names: listed(list(names)))
    said = "; ".join(f"{is_it}: {names}" for is_it, names in kinds.items())
    return f"The teacher's three likeliest tokens make at least {len(kinds)} losses in {len(asked)} functions. {said}."


def top_k_holds(table: pd.DataFrame) -> bool:
    return top_k(table)["is"].nunique() >= 3


# ---- batches ----------------------------------------------------------------------------------------------------
def none_kept(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The losses that leave tokens out: those that are NaN where none is kept, and those that are 0."""
    table = words.told(table)
    return table[table["none_kept"] == "NaN"], table[table["none_kept"] == "0"]


def none_kept_words(table: pd.DataFrame) -> str:
    nan, zero = none_kept(table)
    return (
        f"A batch of which every token is left out has no number for a loss in {len(nan)} of them "
        f"({listed(libraries(nan))}), and 0 in {len(zero)}. With long prompts "
        "and small micro-batches such a batch comes, and one is all it takes."
    )


def none_kept_holds(table: pd.DataFrame) -> bool:
    return min(len(part) for part in none_kept(table)) >= 10


FINDINGS = (
    Finding("Label smoothing of ε is two losses, and a few more", smoothing_words, smoothing_holds),
    Finding("At a temperature, some multiply by T², and some divide by V", temperature_words, temperature_holds),
    Finding("Distillation from a teacher's top k is several losses", top_k_words, top_k_holds),
    Finding("Where no token is kept, some losses are no number and some are 0", none_kept_words, none_kept_holds),
)
