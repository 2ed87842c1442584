"""What the study found of real demonstrations, right and wrong."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding, Mean, mean
from analyses.kit.words import percent, within
from analyses.studies.demonstrations.runs import SAME_QUESTION


def _told_apart(t: pd.DataFrame, method: str) -> Mean:
    """Trust in right solutions less that in wrong ones of the same question, at the end."""
    apart = t[(t["metric"] == SAME_QUESTION) & (t["tokens"] == "all")]
    return mean(apart[apart["step"] == apart["step"].max()], "value", method=method)


def _trained(t: pd.DataFrame) -> list[str]:
    return list(t.loc[t["metric"] == SAME_QUESTION, "method"].unique())


def _tell_words(t: pd.DataFrame) -> str:
    dft, weighted = (within(*_told_apart(t, name)) for name in ("dft", "iw_sft"))
    share = mean(t, "value", method="data", metric="share wrong", text="train")[0]
    return (
        f"Language models' solutions of GSM8K, {percent(share, digits=0)} of them wrong, read by a transformer of a "
        "tenth of a million parameters: where a right and a wrong solution answer one question, DFT's trust differs "
        f"by {dft}. iw-SFT, which weighs whole solutions by the pretrained model, is the one of the {len(_trained(t))} "
        f"methods whose trust tells them apart ({weighted}). A model this small cannot know which are right; whether "
        "belief tells at scale is not decided here."
    )


def _tell_holds(t: pd.DataFrame) -> bool:
    telling = [name for name, (by, half) in ((name, _told_apart(t, name)) for name in _trained(t)) if abs(by) > half]
    return telling == ["iw_sft"] and _told_apart(t, "iw_sft")[0] > 0


FINDINGS = (
    Finding(
        "A popular claim that does not hold at this scale: the model's belief tells right demonstrations from wrong "
        "ones",
        _tell_words,
        _tell_holds,
    ),
)
