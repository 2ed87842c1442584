"""What the study found of where training ends."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding, at
from analyses.studies.theory_vs_training import AGREE, NONE, VOCAB, reasons, untied


def _reasons(t: pd.DataFrame) -> dict[str, list[str]]:
    """Methods by why they are off their optimum; those under "" reach it."""
    found = reasons(t)
    return {str(why): list(some["Method"]) for why, some in found.groupby("Above 0.001, because", sort=False)}


def _elsewhere(t: pd.DataFrame, method: str) -> tuple[int, int]:
    """States in which Adam ends at another optimum than the predicted one, and all; ties left out."""
    adam = at(untied(t), method=method, optimiser="adam")
    return int(((adam["distance"] > AGREE) & (adam["nearest"] <= AGREE)).sum()), len(adam)


def _agreement_words(t: pd.DataFrame) -> str:
    why, found, tied = _reasons(t), reasons(t), len(at(t, method="sft")) - len(at(untied(t), method="sft"))
    alone = {key: int((found[f"TV, {key}"] <= AGREE).sum()) for key in ("gradient descent", "Adam")}
    elsewhere, states = _elsewhere(t, "dft_undetached")
    rest = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in why.items() if reason not in ("", NONE))
    return (
        f"Of {len(found)} methods {len(found) - len(why[NONE])} have an optimum at every truth tried. Tabular models "
        f"are trained on labels by gradient descent and by Adam, {t['seed'].nunique()} seeds of {t['state'].nunique()} "
        f"states ({tied // 2} of them left out, where two labels tie). In every state the nearer of the two ends "
        f"within {AGREE:g} total variation of the optimum for {len(why[''])} methods; gradient descent alone does so "
        f"for {alone['gradient descent']}, Adam alone for {alone['Adam']}. The others, and why: {rest}. None of them "
        "is unexplained, but that the nearer optimiser counts hides one: Adam takes dft_undetached to another of its "
        f"optima in {elsewhere} of {states} states."
    )


def _agreement_holds(t: pd.DataFrame) -> bool:
    why, (elsewhere, states) = _reasons(t), _elsewhere(t, "dft_undetached")
    predicted = sum(map(len, why.values())) - len(why.get(NONE, []))
    return (
        len(why.get("", [])) > 0.75 * predicted
        and not any("unexplained" in reason for reason in why)
        and "dft_undetached" in why[""]
        and elsewhere > states / 2
    )


def _likeliest(t: pd.DataFrame, method: str, what: str) -> pd.Series:
    """The largest probability in every state, ties left out: predicted, or trained by Adam."""
    mine = at(untied(t), method=method, optimiser="adam")
    return mine[[f"{what} {k}" for k in range(VOCAB)]].max(axis=1)


def _corner_words(t: pd.DataFrame) -> str:
    trained = _likeliest(t, "dft", "trained")
    return (
        f"Unless two labels tie, the theory puts all of DFT's mass on the commonest one, whatever their shares. In "
        f"{len(trained)} states models trained by Adam have {trained.mean():.4f} there on average, {trained.min():.4f} "
        f"at least; with SFT on the same labels they have {_likeliest(t, 'sft', 'trained').mean():.3f} on average, "
        f"which is their share."
    )


def _corner_holds(t: pd.DataFrame) -> bool:
    sft = at(untied(t), method="sft", optimiser="adam")
    return (
        bool((_likeliest(t, "dft", "predicted") > 1 - 1e-6).all())
        and bool((_likeliest(t, "dft", "trained") > 0.99).all())
        and _likeliest(t, "sft", "trained").mean() < 0.9
        and bool((sft["distance"] <= AGREE).all())
    )


FINDINGS = (
    Finding("Training ends where the drift says", _agreement_words, _agreement_holds),
    Finding("DFT ends in the commonest token, whatever its share", _corner_words, _corner_holds),
)
