"""What the study found of how long learning takes."""

from __future__ import annotations

import pandas as pd

import qunify as qu
from analyses.kit.findings import Finding, at
from analyses.studies.dynamics import UNLEARNING, never, summary
from analyses.studies.dynamics.runs import LIMIT, RATE, VOCAB


def _steps(t: pd.DataFrame, method: str, case: str) -> float:
    """Mean over seeds; NaN where one of them never learns it."""
    return float(at(t, method=method, case=case)["steps"].mean(skipna=False))


def _never(t: pd.DataFrame) -> list[str]:
    """Methods not made to unlearn that never learn the wrong token: they rest where they began, or a little above."""
    wrong = at(t, case="wrong").groupby("method", sort=False)
    lost = [str(name) for name, mine in wrong if mine["steps"].isna().all() and mine["end"].max() < 0.01]
    return [name for name in lost if qu.get(name).family != UNLEARNING]


def _speed_words(t: pd.DataFrame) -> str:
    sft, dft = (_steps(t, name, "wrong") for name in ("sft", "dft"))
    slow = [_steps(t, name, "wrong") / sft for name in t["method"].unique()]
    return (
        f"One token of {VOCAB}, gradient descent at rate {RATE:g}: where the model is sure of another, learning it "
        f"takes SFT {sft:.0f} steps and DFT {dft:.0f}, {dft / sft:.0f} times as many; where it believes the token, "
        f"{_steps(t, 'sft', 'easy'):.0f} and {_steps(t, 'dft', 'easy'):.0f}. {sum(x > 10 for x in slow)} of "
        f"{len(slow)} methods need more than ten times SFT's steps, and {len(_never(t))} that are not made to unlearn "
        f"do not get it to a hundredth within {LIMIT:,}: {', '.join(_never(t))}."
    )


def _speed_holds(t: pd.DataFrame) -> bool:
    easy, hard, wrong = (_steps(t, "dft", case) / _steps(t, "sft", case) for case in ("easy", "hard", "wrong"))
    found = summary(t)
    undetached = t[(t["method"] == "dft_undetached") & (t["case"] != "easy")]
    return (
        easy < 1.5 < hard < 10 < 40 < wrong < 55
        and {"profit", "psft", "dft_undetached", "idft"} <= set(never(found, "wrong"))
        and {"psft"} == set(never(found, "easy")) & {"profit", "psft", "dft_undetached", "idft"}
        and {"profit", "dft_undetached"} <= set(_never(t))
        and bool((undetached["end"] < 1e-3).all())  # it unlearns below 1/e
    )


FINDINGS = (
    Finding("Trust in what is believed is paid in steps where the belief is wrong", _speed_words, _speed_holds),
)
