"""What training a real model found: what could be foretold, and which sayings about DFT and its kin survive."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding
from analyses.kit.real import END, MARKS, NAMED
from analyses.kit.words import minus, percent, title
from analyses.studies.real_model import REHEARSAL, correlation, moved, pairs, value, worst_first
from analyses.studies.real_model.recipes import MAIN, RATES, STEPS
from analyses.studies.real_model.verdicts import by_seed, furthest, learned

DEEP = 1.0  # nats
FASTER = max(RATES)


def _told(t: pd.DataFrame, quantity: str, rate: float = 0) -> str:
    r, low, high, _ = correlation(pairs(t, rate), quantity)
    return minus(f"{r:.2f} [{low:.2f}, {high:.2f}]")


def _foretold_words(t: pd.DataFrame) -> str:
    n = len(pairs(t))
    by_rate = " and ".join(f"{_told(t, 'influence', rate)} where all train at {rate:g}" for rate in RATES)
    seeds, median, most = by_seed(t)
    return (
        f"Over {n} pairs of a method and a kind of token ({pairs(t)['recipe'].nunique()} methods), the change of mean "
        f"log u by the first step of gradient descent, worked out from inner products of gradients before any "
        f"training, has a rank correlation of {_told(t, 'influence')} with what {STEPS} steps of Adam did on held-out "
        f"demonstrations, each method at its own rate (95 % intervals over methods); {by_rate}. Adam's own first step "
        f"has {_told(t, 'influence_adam')}, a rehearsal of ten steps {_told(t, 'rehearsed')}, the share of its push "
        f"that a method spends there {_told(t, 'push ratio')}. The {len(MAIN)} main methods have "
        f"{len(seeds)} seeds, the others one: with each seed by itself the first step of gradient descent has "
        f"{', '.join(f'{r:.2f}' for r in seeds)}, and a kind of token's gain has a standard deviation over seeds of "
        f"{median:.2f} nats in the median, {most:.2f} at most. {_furthest_off(t)}"
    )


def _furthest_off(t: pd.DataFrame) -> str:
    """The pair whose place in the order was foretold worst."""
    worst = worst_first(pairs(t)).iloc[0]
    first, came = (minus(f"{worst[name]:+.2f}") for name in ("influence", "trained"))
    return (
        f"Furthest off: {NAMED.get(worst['group'], worst['group'])} under {title(worst['recipe'])}, where {first} per "
        f"unit of rate was foretold and {came} nats came."
    )


def _foretold_holds(t: pd.DataFrame) -> bool:
    found = pairs(t)
    (done, done_low, *_), (asked, *_) = (correlation(found, q) for q in ("influence", "push ratio"))
    return done > 0.75 and done_low > 0.5 > asked and done < 0.95


def _fallen(t: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All pairs; those whose mean log u training lowered; and of these those that fell far."""
    found = pairs(t)
    fell = found[found["trained"] < 0]
    return found, fell, fell[fell["trained"] < -DEEP]


def _falls_words(t: pd.DataFrame) -> str:
    found, fell, deep = _fallen(t)
    same = int(((found["influence"] < 0) == (found["trained"] < 0)).sum())
    those = " and ".join(
        f"{NAMED.get(group, group)} under {title(recipe)} ({minus(f'{came:+.1f}')})"
        for recipe, group, came in deep[["recipe", "group", "trained"]].itertuples(index=False)
    )
    missed = fell.loc[fell["influence"] >= 0, "trained"]
    return (
        f"In {len(fell)} of the {len(found)} pairs training lowered mean log u. The first step of gradient descent "
        f"had the sign right in {same}, where saying that everything rises would have it right in "
        f"{len(found) - len(fell)}; of the {len(fell)} that fell it foretold {len(fell) - len(missed)}, among them "
        f"all that fell by more than {DEEP:g} nat: {those}. What it missed fell by {-missed.min():.2f} nats at most."
    )


def _falls_holds(t: pd.DataFrame) -> bool:
    _, fell, deep = _fallen(t)
    return len(deep) > 0 and bool((deep["influence"] < 0).all()) and 2 * int((fell["influence"] < 0).sum()) >= len(fell)


def _learned_words(t: pd.DataFrame) -> str:
    found = learned(t)
    marks = found[found["group"] == MARKS]
    yes, no = marks[marks["came"]], marks[~marks["came"]]
    wrong = {how: int((found[how] != found["came"]).sum()) for how in ("asked", "done")}
    low, high = (minus(f"{x:+.2f}") for x in (no["influence"].max(), yes["influence"].min()))
    end = found[found["group"] == END]
    patient = [title(name) for name in end.loc[~end["asked"], "recipe"]]
    return (
        f"Each of the {len(end)} methods ends with a probability of the end of turn above one half (geometric mean), "
        f"{len(yes)} with one of the calculator marks: {', '.join(map(title, no['recipe']))} do not. What is asked "
        f"token by token had it wrong in {wrong['asked']} of {len(found)} cases: by its patience the end of turn "
        f"should have been out of reach of {', '.join(patient)}, and the marks of nobody. Adam's first step had it "
        f"wrong in {wrong['done']}: it raises everything. By the first step of gradient descent those that do not "
        f"learn the marks come last, all of them: {low} nats per unit of rate at most, {high} or more for those that "
        "do."
    )


def _learned_holds(t: pd.DataFrame) -> bool:
    found = learned(t)
    marks = found[found["group"] == MARKS]
    first = marks.groupby("came")["influence"]
    return (
        bool(found.loc[found["group"] == END, "came"].all())
        and first.min()[True] > 2 * max(first.max()[False], 0.0)
        and min((found[how] != found["came"]).sum() for how in ("asked", "done")) >= 5
    )


def _furthest_words(t: pd.DataFrame) -> str:
    r, low, high, n = furthest(t)
    return (
        f"How much a method asks at step 0, its push, has a rank correlation of {minus(f'{r:.2f} [{low:.2f}, {high:.2f}]')} over "
        f"{n} methods with how far the model ends from the start on its own answers to other requests (KL), each at "
        f"its own rate. DFT asks a quarter of what SFT does and moves as far at the same rate: {_far(t, 'dft'):.2f} "
        f"and {_far(t, 'sft'):.2f} nats at {FASTER:g}."
    )


def _furthest_holds(t: pd.DataFrame) -> bool:
    _, low, high, _ = furthest(t)
    return low < 0.5 and _far(t, "dft") > _far(t, "sft")


def _anchor_words(t: pd.DataFrame) -> str:
    foretold = pairs(t).set_index(["recipe", "group"])["influence"]
    one, other = (minus(f"{foretold[name, MARKS]:+.2f}") for name in ("dft", "asft"))
    ten, last = (
        {name: minus(f"{moved(t, name, MARKS, step, FASTER):+.2f}") for name in ("dft", "asft")}
        for step in (REHEARSAL, STEPS)
    )
    far = {name: _far(t, name) for name in ("dft", "asft", "sft")}
    return (
        f"ASFT is DFT and a KL to the model as it was, which has no gradient at the start: the first step foretells "
        f"the same of both ({one} and {other} nats for the calculator marks, per unit of rate). At rate {FASTER:g} "
        f"these have changed by {ten['dft']} and {ten['asft']} after {REHEARSAL} steps, by {last['dft']} and "
        f"{last['asft']} after {STEPS}: what an anchor holds back is not in the first step, and "
        f"hardly in {REHEARSAL}. On its own answers to other requests ASFT is {far['asft']:.2f} nats from the start, "
        f"DFT {far['dft']:.2f}, SFT {far['sft']:.2f}."
    )


def _anchor_holds(t: pd.DataFrame) -> bool:
    foretold = pairs(t).set_index(["recipe", "group"])["influence"]
    same = abs(foretold["dft", MARKS] - foretold["asft", MARKS]) < 0.01
    parted = moved(t, "asft", MARKS, rate=FASTER) - moved(t, "dft", MARKS, rate=FASTER)
    return bool(same) and parted > 1 and _far(t, "asft") < _far(t, "dft")


def _far(t: pd.DataFrame, recipe: str) -> float:
    """How far it has moved from the start on its own answers to other requests, in nats, at the faster rate."""
    return value(t, recipe, "KL from the start", "elsewhere", rate=FASTER)


def _marks_words(t: pd.DataFrame) -> str:
    changed = " and ".join(minus(f"{moved(t, 'dft', MARKS, rate=rate):+.1f}") for rate in RATES)
    sft = minus(f"{moved(t, 'sft', MARKS):+.1f}")
    end = {name: minus(f"{value(t, name, 'log u', END):.2f}") for name in ("dft", "sft")}
    whole = {name: percent(value(t, name, "marks", "answers"), digits=0) for name in ("dft", "sft")}
    stops = {name: percent(value(t, name, "stops", "answers"), digits=0) for name in ("dft", "sft")}
    before = percent(value(t, "start", "stops", "answers", 0), digits=0)
    n = int(t[t["group"] == "answers"]["n"].iloc[0])
    start = {group: minus(f"{value(t, 'start', 'log u', group, 0):.1f}") for group in (MARKS, END)}
    step = {group: minus(f"{_first_step(t, 'influence', group):+.2f}") for group in (MARKS, END)}
    return (
        f"The model hardly expects the calculator marks (mean log u {start[MARKS]}) and the end of turn "
        f"({start[END]}). After {STEPS} steps DFT has "
        f"learned to stop (mean log u {end['dft']}, SFT {end['sft']}) and unlearned the marks: their mean log u has "
        f"changed by {changed} nats at the two rates, by {sft} under SFT. Of {n} greedy answers {whole['dft']} have "
        f"whole calculator marks under DFT and {whole['sft']} under SFT; {stops['dft']} and {stops['sft']} stop, "
        f"{before} before. That DFT does not learn what the model does not believe is true of the one and false of the "
        f"other. The first step of gradient descent foretold which ({step[MARKS]} for the marks, {step[END]} for the "
        "end of turn, per unit of rate); Adam's own first step did not: by it both rise."
    )


def _first_step(t: pd.DataFrame, quantity: str, group: str) -> float:
    """What a first step by DFT was foretold to change mean log u by, per unit of rate."""
    found = pairs(t)
    return float(found.loc[(found["recipe"] == "dft") & (found["group"] == group), quantity].item())


def _marks_holds(t: pd.DataFrame) -> bool:
    return (
        all(moved(t, "dft", MARKS, rate=rate) < 0 < moved(t, "sft", MARKS, rate=rate) for rate in RATES)
        and value(t, "dft", "log u", END) > -0.5
        and value(t, "dft", "marks", "answers") < 0.2 < 0.8 < value(t, "sft", "marks", "answers")
        and _first_step(t, "influence", MARKS) < 0 < _first_step(t, "influence", END)
        and min(_first_step(t, "influence_adam", group) for group in (MARKS, END)) > 0
    )


def _sharp_words(t: pd.DataFrame) -> str:
    start, sft, dft = (
        {q: value(t, name, q, step=step) for q in ("entropy", "smooth ECE", "accuracy", "log u")}
        for name, step in (("start", 0), ("sft", STEPS), ("dft", STEPS))
    )

    def told(quantity: str, form: str) -> str:
        return f"{start[quantity]:{form}} to {dft[quantity]:{form}} (SFT: {sft[quantity]:{form}})"

    likely = minus(f"{start['log u']:.2f} to {dft['log u']:.2f} (SFT: {sft['log u']:.2f})")
    return (
        f"Under DFT the mean entropy goes from {told('entropy', '.2f')} nats, the smooth calibration error from "
        f"{told('smooth ECE', '.3f')}, the share of tokens whose label is the likeliest from "
        f"{told('accuracy', '.0%').replace('%', ' %')}, and mean log u from {likely}: it is right more often than "
        "before, surer than it is right, and no better than SFT in either."
    )


def _sharp_holds(t: pd.DataFrame) -> bool:
    start, sft, dft = (
        {q: value(t, name, q, step=step) for q in ("entropy", "smooth ECE", "accuracy", "log u")}
        for name, step in (("start", 0), ("sft", STEPS), ("dft", STEPS))
    )
    return (
        dft["entropy"] < 0.5 * sft["entropy"]
        and dft["smooth ECE"] > 2 * max(start["smooth ECE"], sft["smooth ECE"])
        and start["accuracy"] < dft["accuracy"] < sft["accuracy"]
        and dft["log u"] < sft["log u"]
    )


FINDINGS = (
    Finding(
        "The first step foretells what training does to a real model, far from perfectly",
        _foretold_words,
        _foretold_holds,
    ),
    Finding("What falls far was foretold to fall", _falls_words, _falls_holds),
    Finding("Who learns the format is seen in the first step, and not in what is asked", _learned_words, _learned_holds),
    Finding("An anchor is not seen in the first step", _anchor_words, _anchor_holds),
    Finding("DFT learns to stop and unlearns the format", _marks_words, _marks_holds),
    Finding("DFT is right more often than the start, and far too sure", _sharp_words, _sharp_holds),
)
