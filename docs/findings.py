"""What the studies found: each statement with its figure, its numbers, and the test of whether the rows still say so.

`page()` is the documentation's page. A statement is worded by a function of the committed rows, so that no number is
typed; `holds` is false as soon as the rows stop supporting it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

import qunify
from analyses.kit import runner
from analyses.kit.intervals import intervals
from analyses.studies import calibration_bias, theory_vs_training

FIGURES = "../figures"  # seen from the page


@dataclass(frozen=True)
class Finding:
    """One statement. Both functions get the study's committed table."""

    study: str
    title: str
    words: Callable[[pd.DataFrame], str]
    holds: Callable[[pd.DataFrame], bool]


def table(study: str) -> pd.DataFrame:
    return runner.read(study, runner.FIGURES)


def page() -> str:
    return told(FINDINGS)


def told(findings: Sequence[Finding], shown: Iterable[str] = ()) -> str:
    """MyST: a section per finding; a figure is shown where its study is told first, but for those `shown` before."""
    parts, shown = [], set(shown)
    for number, finding in enumerate(findings, 1):
        parts.append(f"## {number}. {finding.title}\n\n{finding.words(table(finding.study))}\n")
        if finding.study not in shown:
            alt = f"The figure of the study {finding.study}"
            parts.append(f"![{alt}]({FIGURES}/{finding.study}.png)\n")
            shown.add(finding.study)
        parts.append(f"Rows: `figures/{finding.study}.csv`, written by `python -m analyses {finding.study} --full`.\n")
    return "\n".join(parts)


# ---- what is said of the rows -----------------------------------------------------------------------------------
def at(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def mean(table: pd.DataFrame, column: str, **where: object) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % interval."""
    chosen = at(table, **where).assign(all="all")
    found = intervals(chosen, ["all"], column).iloc[0]
    return float(found["mean"]), float(found["half"])


def difference(table: pd.DataFrame, column: str, a: dict[str, object], b: dict[str, object]) -> tuple[float, float]:
    """The mean over seeds of a − b, seed by seed, and half of its 95 % interval."""
    first, second = (at(table, **where).set_index("seed")[column] for where in (a, b))
    apart = (first - second).rename("apart").reset_index().assign(all="all")
    found = intervals(apart, ["all"], "apart").iloc[0]
    return float(found["mean"]), float(found["half"])


def percent(found: tuple[float, float]) -> str:
    return f"{100 * found[0]:.1f} ± {100 * found[1]:.1f} %"


def points(found: tuple[float, float]) -> str:
    return f"{100 * found[0]:+.1f} ± {100 * found[1]:.1f} points"


# Theory against training
def _agreement(t: pd.DataFrame) -> tuple[int, int, int, int]:
    """Methods, those with an optimum, those that reach it, and those off it without a reason."""
    why = theory_vs_training.reasons(t)["Above 0.001, because"].fillna("")
    none = int((why == theory_vs_training.NONE).sum())
    return len(why), len(why) - none, int((why == "").sum()), int(why.str.contains("unexplained").sum())


def _agreement_words(t: pd.DataFrame) -> str:
    methods, predicted, reached, unexplained = _agreement(t)
    return (
        f"Of {methods} methods {predicted} have an optimum at every truth tried. Trained on labels, tabular models end "
        f"within {theory_vs_training.AGREE:g} total variation of it for {reached} of them, at every seed and state. "
        "The rest are still on their way to a place that is approached ever more slowly, or went to another of "
        "several "
        f"optima; {unexplained} are unexplained."
    )


def _corner(t: pd.DataFrame) -> tuple[float, float]:
    """The least probability of the likeliest token that is predicted for dft, and its mean after training."""
    dft = at(theory_vs_training.untied(t), method="dft", optimiser="adam")
    predicted, trained = (
        dft[[f"{what} {k}" for k in range(theory_vs_training.VOCAB)]] for what in ("predicted", "trained")
    )
    return float(predicted.max(axis=1).min()), float(trained.max(axis=1).mean())


def _corner_words(t: pd.DataFrame) -> str:
    predicted, trained = _corner(t)
    sft = at(t, method="sft", optimiser="adam")[[f"trained {k}" for k in range(theory_vs_training.VOCAB)]]
    return (
        f"Whatever the shares of the labels, the theory puts all of DFT's mass on the commonest one ({predicted:.3f} "
        f"or more), and trained models have {trained:.3f} there; SFT on the same labels has "
        f"{sft.max(axis=1).mean():.3f}, "
        "which is their share."
    )


# Calibration
def _bias(t: pd.DataFrame) -> tuple[int, int, pd.DataFrame]:
    s = calibration_bias.summary(t)
    told = s[s["predicted"].abs() > calibration_bias.SMALL]
    return len(told), int((told["predicted"] * told["entropy gap"] > 0).sum()), s


def _bias_words(t: pd.DataFrame) -> str:
    told, right, s = _bias(t)
    gap, error = s["entropy gap"].to_dict(), s["smooth_ece"].to_dict()
    return (
        f"The theory names a bias of at least {calibration_bias.SMALL:g} nats for {told} methods, and trained models "
        f"are off in that direction for {right} of them: label smoothing by {gap['label_smoothing']:+.2f} nats of "
        f"entropy, focal loss by {gap['focal']:+.2f}, DFT by {gap['dft']:+.2f} (smooth calibration error "
        f"{error['dft']:.3f}, where SFT has {error['sft']:.3f})."
    )


# Noise
HARD = {"kind": "uniform", "rate": 0.6, "step": 400}


def _noise(setting: str, column: str = "accuracy", **more: object) -> dict[str, object]:
    return HARD | {"setting": setting, "start": "reference"} | more


def _predicted_accuracy(t: pd.DataFrame) -> float:
    told = t[(t["start"] == "theory") & t["setting"].isin(["sft", "dft", "gce", "beyond_log"])]
    return float(told[(told["kind"] == "uniform") | (told["rate"] < 0.5)]["accuracy"].min())


def _memorised_words(t: pd.DataFrame) -> str:
    late, early = mean(t, "accuracy", **_noise("sft")), mean(t, "accuracy", **_noise("sft", step=60))
    return (
        f"With labels without end, SFT, DFT, GCE and beyond-log all keep {100 * _predicted_accuracy(t):.0f} % accuracy "
        "or more "
        f"at every rate of uniform noise tried, and at class noise below one half. With 240 labels of which 60 % are "
        f"replaced, SFT has {percent(early)} after 60 steps and {percent(late)} after 400, having learned "
        f"{percent(mean(t, 'memorised', **_noise('sft')))} of the wrong labels by heart. What breaks is memorising."
    )


def _bounded(t: pd.DataFrame) -> dict[str, tuple[float, float]]:
    return {n: difference(t, "accuracy", _noise(n), _noise("sft")) for n in ("beyond_log", "gce", "dft")}


def _bounded_words(t: pd.DataFrame) -> str:
    found = _bounded(t)
    return (
        f"There beyond-log, a bounded loss, is {points(found['beyond_log'])} from SFT, GCE {points(found['gce'])} and "
        "DFT "
        f"{points(found['dft'])}. That a bounded loss resists noise does not hold as such: it is how little a token "
        "that "
        "the model does not believe weighs, and for how long one trains."
    )


def _sure_words(t: pd.DataFrame) -> str:
    dft, sft = (mean(t, "overconfidence", **_noise(n)) for n in ("dft", "sft"))
    return (
        f"At the same noise DFT is {dft[0]:+.2f} ± {dft[1]:.2f} too sure of itself and SFT {sft[0]:+.2f} ± "
        f"{sft[1]:.2f}; "
        f"smooth calibration errors are {mean(t, 'smooth_ece', **_noise('dft'))[0]:.2f} and "
        f"{mean(t, 'smooth_ece', **_noise('sft'))[0]:.2f}. Accuracy under noise is bought with calibration."
    )


# Several right answers
def _kept(t: pd.DataFrame, method: str, column: str = "entropy_kept", step: int = 1000) -> tuple[float, float]:
    default = next(iter(qunify.get(method).params.values()), None)
    chosen = t[t["parameter"].isna() | (t["parameter"] == default)]
    return mean(chosen, column, method=method, labels=64, kind="trained", step=step)


def _answers_words(t: pd.DataFrame) -> str:
    seen = {n: 4 * _kept(t, n, "coverage_16")[0] for n in ("sft", "gem", "target_sft", "dft")}
    return (
        f"Of four right answers, 16 samples show {seen['sft']:.1f} after SFT, {seen['gem']:.1f} after GEM, "
        f"{seen['target_sft']:.1f} after Target-SFT and {seen['dft']:.1f} after DFT, which keeps "
        f"{percent(_kept(t, 'dft'))} of the entropy among them. Stopped after 30 steps it still keeps "
        f"{percent(_kept(t, 'dft', step=30))}."
    )


# A prior that is wrong
HALF = {"noise": "uniform", "rightness": 0.5, "default": True}


def _learned(t: pd.DataFrame, method: str, step: int) -> tuple[float, float]:
    return mean(t, "learned", **HALF, method=method, step=step)


def _belief_words(t: pd.DataFrame) -> str:
    return (
        f"Where the pretrained model was wrong, SFT gives a right continuation {percent(_learned(t, 'sft', 30))} of "
        "the "
        f"time after 30 steps, DFT {percent(_learned(t, 'dft', 30))}, and after 300 steps DFT has "
        f"{percent(_learned(t, 'dft', 300))}: it is late, not deaf. ProFiT, whose weight below its threshold is zero, "
        "has "
        f"{percent(_learned(t, 'profit', 300))}."
    )


def _anchor(t: pd.DataFrame) -> tuple[float, float, float]:
    """What SFT + KL of weight 1 keeps and has learned after 30 steps, and what SFT has learned when it keeps as "
    "much."""
    half = at(t, noise="uniform", rightness=0.5)
    anchored = half[(half["method"] == "sft_kl") & (half["setting"] == "kl_weight 1") & (half["step"] == 30)]
    kept, learned = float(anchored["kept"].mean()), float(anchored["learned"].mean())
    way = half[(half["method"] == "sft") & (half["step"] <= 30)].groupby("step")[["kept", "learned"]].mean()
    way = way.sort_values("kept")
    return kept, learned, float(np.interp(kept, way["kept"], way["learned"]))


def _anchor_words(t: pd.DataFrame) -> str:
    kept, learned, stopped = _anchor(t)
    return (
        f"SFT with a KL anchor of weight 1 keeps {100 * kept:.1f} % where the prior was right and learns "
        f"{100 * learned:.1f} % "
        f"where it was wrong. SFT stopped as soon as it keeps no more than that has learned {100 * stopped:.1f} %. In "
        "a model "
        "whose contexts share nothing, the anchor holds back what is to be learned as much as what is to be kept."
    )


# Speed
def _steps(t: pd.DataFrame, method: str, case: str) -> float:
    """Mean over seeds; NaN where one of them never learns it."""
    return float(at(t, method=method, case=case)["steps"].mean(skipna=False))


def _late(t: pd.DataFrame, case: str) -> float:
    """How many times SFT's steps DFT needs."""
    return _steps(t, "dft", case) / _steps(t, "sft", case)


def _never(t: pd.DataFrame) -> list[str]:
    """Methods that never learn the wrong token, though they rest at less than where they began or a little above."""
    wrong = at(t, case="wrong").groupby("method", sort=False)
    return [str(name) for name, mine in wrong if mine["steps"].isna().all() and mine["end"].max() < 0.01]


def _speed_words(t: pd.DataFrame) -> str:
    sft, dft = (_steps(t, name, "wrong") for name in ("sft", "dft"))
    slow = [float(_steps(t, n, "wrong")) / sft for n in t["method"].unique()]
    return (
        f"A token of which the model is sure that it is wrong takes SFT {sft:.0f} steps and DFT {dft:.0f}, "
        f"{dft / sft:.0f} "
        f"times as many, while one that it believes takes {_steps(t, 'sft', 'easy'):.0f} and "
        f"{_steps(t, 'dft', 'easy'):.0f}. {sum(x > 10 for x in slow)} of {len(slow)} methods need more than ten times "
        f"SFT's steps, and {', '.join(_never(t))} do not learn it within 100,000."
    )


# Sequences and real text
def _kl(t: pd.DataFrame, method: str, step: int = 120) -> tuple[float, float]:
    condition = "clean" if method == "reference" else "mixed"  # where all start from has seen neither
    where: dict[str, object] = {
        "condition": condition,
        "metric": "KL from the truth",
        "tokens_before": "all",
        "step": step,
    }
    return mean(t, "value", **where, method=method)


def _sequence_words(t: pd.DataFrame) -> str:
    start, sft, dft, kd = (_kl(t, n, 0 if n == "reference" else 120) for n in ("reference", "sft", "dft", "kd"))
    trust = [
        mean(
            t,
            "value",
            condition="mixed",
            metric=f"trust in {what} sequences",
            tokens_before="all",
            step=0,
            method="dft",
        )
        for what in ("right", "wrong")
    ]
    return (
        f"A small transformer on hidden Markov sequences, a fifth of them wrong, begins {start[0]:.3f} ± "
        f"{start[1]:.3f} nats "
        f"from the exact next-token distribution. SFT brings it to {sft[0]:.3f} ± {sft[1]:.3f}, a teacher that read "
        "only right "
        f"ones to {kd[0]:.3f} ± {kd[1]:.3f}, and DFT away, to {dft[0]:.3f} ± {dft[1]:.3f}, although its trust does "
        "tell right "
        f"sequences ({trust[0][0]:.2f}) from wrong ones ({trust[1][0]:.2f}) at the start."
    )


def _told_apart(t: pd.DataFrame, method: str) -> tuple[float, float]:
    apart = t[(t["metric"] == "trust, right less wrong, same question") & (t["tokens"] == "all")]
    return mean(apart[apart["step"] == apart["step"].max()], "value", method=method)


def _tell_words(t: pd.DataFrame) -> str:
    dft, weighted = _told_apart(t, "dft"), _told_apart(t, "iw_sft")
    share = mean(t, "value", method="data", metric="share wrong", text="train")[0]
    return (
        f"Language models' solutions of GSM8K, {100 * share:.0f} % of them wrong, read by a transformer of a tenth of "
        "a million "
        f"parameters: where a right and a wrong solution answer one question, DFT's trust differs by {dft[0]:.3f} ± "
        f"{dft[1]:.3f}. iw-SFT, which weighs whole solutions by the pretrained model, is the one of the fifteen whose "
        "trust "
        f"tells them apart ({weighted[0]:.3f} ± {weighted[1]:.3f}). A model this small cannot know which are right; "
        "whether "
        "belief tells at scale is not decided here."
    )


FINDINGS: tuple[Finding, ...] = (
    Finding(
        "theory_vs_training",
        "Training ends where the drift says",
        _agreement_words,
        lambda t: _agreement(t)[2] > 0.8 * _agreement(t)[1] and _agreement(t)[3] == 0,
    ),
    Finding(
        "theory_vs_training",
        "DFT ends in one token, whatever the truth",
        _corner_words,
        lambda t: _corner(t)[0] > 0.999 and _corner(t)[1] > 0.98,
    ),
    Finding(
        "calibration_bias",
        "Who sharpens and who flattens can be predicted",
        _bias_words,
        lambda t: _bias(t)[1] == _bias(t)[0],
    ),
    Finding(
        "noise",
        "Noise does not break a loss before memorising does",
        _memorised_words,
        lambda t: (
            _predicted_accuracy(t) > 0.95
            and difference(t, "accuracy", _noise("sft", step=60), _noise("sft"))[0]
            > difference(t, "accuracy", _noise("sft", step=60), _noise("sft"))[1]
            and mean(t, "memorised", **_noise("sft"))[0] > 2 * mean(t, "memorised", **_noise("dft"))[0]
        ),
    ),
    Finding(
        "noise",
        "A popular claim that does not hold here: a bounded loss is robust",
        _bounded_words,
        lambda t: (
            abs(_bounded(t)["beyond_log"][0]) < min(0.03, _bounded(t)["beyond_log"][1])
            and _bounded(t)["dft"][0] > _bounded(t)["dft"][1]
            and _bounded(t)["dft"][0] > _bounded(t)["gce"][0] > 0.05
        ),
    ),
    Finding(
        "noise",
        "Robust is not calibrated",
        _sure_words,
        lambda t: (
            mean(t, "overconfidence", **_noise("dft"))[0] > mean(t, "overconfidence", **_noise("dft"))[1]
            and mean(t, "overconfidence", **_noise("dft"))[0] > 0.1 > mean(t, "overconfidence", **_noise("sft"))[0]
            and difference(t, "smooth_ece", _noise("dft"), _noise("sft"))[0] > 0
        ),
    ),
    Finding(
        "ambiguity",
        "Of several right answers DFT keeps one",
        _answers_words,
        lambda t: (
            _kept(t, "dft")[0] < 0.1 < 0.7 < _kept(t, "target_sft")[0] < 0.9 < _kept(t, "sft")[0] < 1
            and _kept(t, "dft")[0] < _kept(t, "gce")[0] < _kept(t, "target_sft")[0]
            and _kept(t, "gem")[0] > 1
        ),
    ),
    Finding(
        "prior_conflict",
        "A loss that trusts belief learns late what the model does not believe, and one with a threshold never",
        _belief_words,
        lambda t: (
            _learned(t, "dft", 30)[0] < 0.1 < 0.6 < _learned(t, "dft", 300)[0] and _learned(t, "profit", 300)[0] < 0.05
        ),
    ),
    Finding(
        "dynamics",
        "Trust in what is believed is paid in steps where the belief is wrong",
        _speed_words,
        lambda t: (
            40 < _late(t, "wrong") < 55
            and _late(t, "easy") < 1.5 < _late(t, "hard") < 10
            and {"profit", "psft", "dft_undetached", "idft"} <= set(_never(t))
        ),
    ),
    Finding(
        "prior_conflict",
        "A popular claim that does not hold here: a KL anchor is how to keep what was known",
        _anchor_words,
        lambda t: _anchor(t)[1] < _anchor(t)[2] - 0.05,
    ),
    Finding(
        "sequence",
        "Trust that tells right from wrong does not by itself lead to the truth",
        _sequence_words,
        lambda t: _kl(t, "sft")[0] + _kl(t, "sft")[1] < _kl(t, "reference", 0)[0] < 1 < _kl(t, "dft")[0],
    ),
    Finding(
        "demonstrations",
        "A popular claim that does not hold at this scale: the model's belief tells right demonstrations from wrong "
        "ones",
        _tell_words,
        lambda t: abs(_told_apart(t, "dft")[0]) < _told_apart(t, "dft")[1] and _told_apart(t, "iw_sft")[0] > 0,
    ),
)
