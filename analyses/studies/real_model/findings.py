"""What training a real model found: what could be foretold, and which sayings about DFT and its kin survive."""

from __future__ import annotations

import pandas as pd

from analyses.kit.findings import Finding
from analyses.kit.real import END, MARKS, NAMED
from analyses.kit.words import listed, minus, percent
from analyses.studies.real_model import (
    REHEARSAL,
    correlation,
    foretold_of,
    moved,
    named,
    pairs,
    rank_correlation,
    value,
    with_interval,
    worst_first,
)
from analyses.studies.real_model.flagged import DIGITS, EVERY, TRAINED
from analyses.studies.real_model.recipes import DESCENT, LONGER, MAIN, PLAIN, RATES, SPACE, STEPS, WAYS, WORDS
from analyses.studies.real_model.verdicts import alone, by_seed, furthest, learned, longer, on_flagged

FASTER = max(RATES)


def _told(found: pd.DataFrame, quantity: str) -> str:
    return with_interval(*correlation(found, quantity))


def _foretold_words(t: pd.DataFrame) -> str:
    found = pairs(t)
    rest = found[~found["group"].isin([MARKS, END])]
    by_rate = " and ".join(f"{_told(pairs(t, rate), 'influence')} where all train at {rate:g}" for rate in RATES)
    seeds, median, most = by_seed(t)
    return (
        f"Over {len(found)} pairs of a method and a kind of token ({found['recipe'].nunique()} methods), the change of "
        f"mean log u by the first step of gradient descent, worked out from inner products of gradients before any "
        f"training, has a rank correlation of {_told(found, 'influence')} with what {STEPS} steps of Adam did on "
        f"held-out demonstrations, each method at its own rate (95 % intervals over methods); {by_rate}. Without the "
        f"end of turn and the calculator marks, where most is to be learned, it has {_told(rest, 'influence')}. Adam's "
        f"own first step has {_told(found, 'influence_adam')}, a rehearsal of ten steps {_told(found, 'rehearsed')}, "
        f"the share of its push that a method spends there {_told(found, 'push ratio')}. The {len(MAIN)} main methods "
        f"have {len(seeds)} seeds, the others one: with each seed by itself the first step of gradient descent has "
        f"{', '.join(f'{r:.2f}' for r in seeds)}, and a kind of token's gain has a standard deviation over seeds of "
        f"{median:.2f} nats in the median, {most:.2f} at most. {_furthest_off(t)}"
    )


def _furthest_off(t: pd.DataFrame) -> str:
    """The pair whose place in the order was foretold worst."""
    worst = worst_first(pairs(t)).iloc[0]
    first, came = (minus(f"{worst[name]:+.2f}") for name in ("influence", "trained"))
    return (
        f"Furthest off: {NAMED.get(worst['group'], worst['group'])} under {named(worst['recipe'])}, where {first} per "
        f"unit of rate was foretold and {came} nats came."
    )


def _foretold_holds(t: pd.DataFrame) -> bool:
    found = pairs(t)
    (done, done_low, *_), (asked, *_) = (correlation(found, q) for q in ("influence", "push ratio"))
    return 0.75 < done < 0.95 and done_low > asked


def _falls(t: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All pairs; and those whose mean log u training lowered, the deepest fall first."""
    found = pairs(t)
    return found, found[found["trained"] < 0].sort_values("trained")


def _falls_words(t: pd.DataFrame) -> str:
    found, fell = _falls(t)
    same = int(((found["influence"] < 0) == (found["trained"] < 0)).sum())
    told = fell["influence"] < 0

    def deepest(some: pd.DataFrame) -> str:
        return listed(
            f"{NAMED.get(group, group)} under {named(recipe)} ({minus(f'{came:+.1f}')})"
            for recipe, group, came in some[["recipe", "group", "trained"]].head(3).itertuples(index=False)
        )

    return (
        f"In {len(fell)} of the {len(found)} pairs training lowered mean log u. The first step of gradient descent had "
        f"the sign right in {same}, where saying that everything rises would have it right in "
        f"{len(found) - len(fell)}. Of the {len(fell)} that fell it foretold {int(told.sum())}, the deepest of them "
        f"{deepest(fell[told])}; the deepest that it did not foretell are {deepest(fell[~told])}."
    )


def _falls_holds(t: pd.DataFrame) -> bool:
    _, fell = _falls(t)
    told = fell["influence"] < 0
    return 0 < 2 * int(told.sum()) < len(fell) and bool(told.iloc[0])


def _in_order(marks: pd.DataFrame) -> tuple[int, int]:
    """Of the pairs of a method that learned the marks and one that did not, in how many the first step of gradient
    descent raised them more in the former; and how many pairs there are."""
    yes, no = (marks.loc[marks["came"] == came, "influence"].to_numpy() for came in (True, False))
    return int((yes[:, None] > no).sum()), len(yes) * len(no)


def _learned_words(t: pd.DataFrame) -> str:
    found = learned(t)
    parts = {group: found[found["group"] == group] for group in (END, MARKS)}
    not_so = {group: listed(map(named, part.loc[~part["came"], "recipe"])) for group, part in parts.items()}
    wrong = {how: int((found[how] != found["came"]).sum()) for how in ("asked", "done")}
    patient = listed(map(named, parts[END].loc[~parts[END]["asked"], "recipe"]))
    first, of = _in_order(parts[MARKS])
    missed = parts[MARKS].query("not came").nlargest(1, "influence").iloc[0]
    target = foretold_of("target", END)
    noisy = "target_sft, noisy teacher"
    return (
        f"Of {len(parts[END])} methods all but {not_so[END]} end with a probability of the end of turn above one half "
        f"(geometric mean); the calculator marks come as far under all but {not_so[MARKS]}. What is asked token by "
        f"token had it wrong in {wrong['asked']} of {len(found)} cases: by their patience the end of turn should have "
        f"been out of reach of {patient}, and the marks of nobody. Adam's first step had it wrong in {wrong['done']}: "
        f"it raises everything. The first step of gradient descent raises the marks more for those that learn them in "
        f"{first} of {of} pairs; what it has out of order is {named(missed['recipe'])} "
        f"({missed['influence']:+.2f} nats per unit of rate). That {named(noisy)} does not learn to stop could be read "
        f"from its target, which has a mean of {target[noisy]:.2f} there; of the tuned teacher's it is "
        f"{target['target_sft']:.2f}."
    )


def _learned_holds(t: pd.DataFrame) -> bool:
    found = learned(t)
    first, of = _in_order(found[found["group"] == MARKS])
    ends = found[found["group"] == END].set_index("recipe")["came"]
    return (
        [name for name in ends.index if not ends[name]] == ["target_sft, noisy teacher"]
        and first > 0.9 * of
        and min((found[how] != found["came"]).sum() for how in ("asked", "done")) >= 5
    )


def _furthest_words(t: pd.DataFrame) -> str:
    push, found = foretold_of("push"), furthest(t)
    return (
        f"How much a method asks at step 0, its push, has a rank correlation of {with_interval(*found)} over "
        f"{found[3]} methods with how far the model ends from the start on its own answers to other requests (KL), "
        f"each at its own rate. DFT asks to move {push['dft']:.2f} of the probability at a token, SFT "
        f"{push['sft']:.2f}; at the same rate DFT moves further: {_far(t, 'dft'):.2f} and {_far(t, 'sft'):.2f} nats "
        f"at {FASTER:g}."
    )


def _furthest_holds(t: pd.DataFrame) -> bool:
    return furthest(t)[1] < 0.5 and _far(t, "dft") > _far(t, "sft")


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
    return _at(pairs(t).set_index(["recipe", "group"]), quantity, "dft", group)


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


def _at(table: pd.DataFrame, column: str, *row: str) -> float:
    """One number of a table whose index is a name, or several."""
    return float(table[column].to_dict()[row if len(row) > 1 else row[0]])


def _descent(t: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs of the recipes that were also trained by plain descent: by Adam, and by it."""
    by_adam, by_descent = (pairs(t, way=way).set_index(["recipe", "group"]) for way in (PLAIN, DESCENT))
    return by_adam.loc[by_descent.index], by_descent


def _descent_words(t: pd.DataFrame) -> str:
    by_adam, by_descent = _descent(t)
    told = [minus(f"{correlation(one.reset_index(), 'influence')[0]:.2f}") for one in (by_descent, by_adam)]

    def both(recipe: str, group: str) -> str:
        return " and ".join(minus(f"{_at(one, 'trained', recipe, group):+.2f}") for one in (by_descent, by_adam))

    names = by_descent.index.unique("recipe")
    first, ten, last = (
        minus(f"{_at(by_descent, x, 'gem', SPACE):+.2f}") for x in ("influence", "rehearsed", "trained")
    )
    ended = ", ".join(f"{_at(by_descent, 'rehearsed', name, END):.1f}" for name in ("sft", "gem"))
    return (
        f"What the first step was worked out for is plain gradient descent. Trained by that, at rate "
        f"{WAYS[DESCENT][0]:g}, {listed(map(named, names))} come to a rank correlation of {told[0]} with it, by "
        f"Adam to {told[1]}. DFT unlearns the marks and the first pieces of words either way ({both('dft', MARKS)}, "
        f"{both('dft', WORDS)} nats by descent and by Adam). The white space under GEM, foretold worst of what rises "
        f"({first} per unit of rate), has changed by {ten} nats after {REHEARSAL} steps and by {last} after {STEPS} of "
        f"plain descent: the step is foretold right only while it lasts. Most of a first step is the end of turn; it "
        f"has risen by {ended} nats in the first {REHEARSAL} steps under SFT and GEM and is learned then, and the "
        f"gradient is another one. {_alone_words(t)}"
    )


def _alone_words(t: pd.DataFrame) -> str:
    """What a kind of token gains alone, beside what it gains among all."""
    found = alone(t).set_index(["recipe", "group"])

    def both(recipe: str, group: str) -> str:
        by_itself, among = (minus(f"{_at(found, name, recipe, group):+.2f}") for name in ("alone", "among"))
        return f"{by_itself} (among all {among})"

    return (
        f"Trained alone, the white space gains {both('gem', SPACE)} under GEM, and the calculator marks "
        f"{both('dft', MARKS)} under DFT: both are held down by what else is learned. The first pieces of words fall "
        f"under DFT also alone, {both('dft', WORDS)}."
    )


def _descent_holds(t: pd.DataFrame) -> bool:
    by_adam, by_descent = _descent(t)
    by_itself = alone(t).set_index(["recipe", "group"])
    one, other = (correlation(table.reset_index(), "influence")[0] for table in (by_descent, by_adam))
    end = [_at(by_descent, name, "sft", END) for name in ("rehearsed", "trained")]
    return (
        max(_at(by_descent, "trained", "dft", group) for group in (MARKS, WORDS)) < 0
        and _at(by_descent, "influence", "gem", SPACE) > 0 > _at(by_descent, "trained", "gem", SPACE)
        and end[0] > 0.8 * end[1]
        and abs(one - other) < 0.1
        and _at(by_itself, "alone", "gem", SPACE) > 0.2
        and _at(by_itself, "alone", "dft", MARKS) > 0 > _at(by_itself, "alone", "dft", WORDS)
    )


_AFTER = ("before", "trained")  # columns of `longer`: after the first steps, and after all


def _longer_words(t: pd.DataFrame) -> str:
    found = longer(t)
    between = with_interval(*rank_correlation(found, "before", "trained"))
    first, then = (with_interval(*rank_correlation(found, "influence", after)) for after in _AFTER)
    turned = found[(found["before"] > 0) != (found["trained"] > 0)]
    most = turned.iloc[int((turned["trained"] - turned["before"]).abs().to_numpy().argmax())]
    largest = " to ".join(minus(f"{most[after]:+.2f}") for after in _AFTER)
    words = " and ".join(minus(f"{_at(found.set_index(['recipe', 'group']), x, 'dft', WORDS):+.1f}") for x in _AFTER)
    full, steps = {name: f"{name}, {LONGER.name}" for name in ("sft", "dft")}, LONGER.steps
    marks = {name: minus(f"{moved(t, own, MARKS, steps):+.1f}") for name, own in full.items()}
    likely = {name: f"{-value(t, own, 'log u', step=steps):.2f}" for name, own in full.items()}
    whole = {name: percent(value(t, own, "marks", "answers", steps), digits=0) for name, own in full.items()}
    return (
        f"The {found['recipe'].nunique()} main methods were trained on, to {LONGER.name} on demonstrations of which "
        f"none comes twice. What all of these did has a rank correlation of {between} with what the first {STEPS} did "
        f"({len(found)} pairs), and the first step of gradient descent of {then} with it ({first} with the first "
        f"{STEPS} of the same training). {len(turned)} of the {len(found)} changes have another sign then, most of all "
        f"that of {NAMED.get(most['group'], most['group'])} under {named(most['recipe'])} ({largest} nats). Under DFT "
        f"the first pieces of words have changed by {words} nats after {STEPS} and {steps} steps, and the calculator "
        f"marks by {marks['dft']} after {steps} (under SFT by {marks['sft']}); these stand whole in {whole['dft']} of "
        f"its answers ({whole['sft']}), and its mean −log u is {likely['dft']} ({likely['sft']})."
    )


def _longer_holds(t: pd.DataFrame) -> bool:
    found = longer(t).set_index(["recipe", "group"])
    turned = int(((found["before"] > 0) != (found["trained"] > 0)).sum())
    return (
        rank_correlation(found.reset_index(), "before", "trained")[0] > 0.9
        and 0 < turned < 0.1 * len(found)
        and max(_at(found, "trained", "dft", group) for group in (MARKS, WORDS)) < -1
    )


def _flagged_words(t: pd.DataFrame) -> str:
    def told(part: str, place: str) -> str:
        rows = on_flagged(t, part, place).sort_values("more")
        return " to ".join(
            f"{minus(format(row['more'], '+.2f'))} ± {row['more, standard error']:.2f} ({named(row['recipe'])})"
            for _, row in rows.iloc[[0, -1]].iterrows()
        )

    whole = on_flagged(t).set_index("recipe")
    right, wrong = (f"{_at(whole, f'gain, {kind}', 'sft'):.2f}" for kind in ("right", "wrong"))
    n = int(whole["n"].iloc[0])
    return (
        f"Trained on a right and a wrong solution of each of {TRAINED} questions, mean log u of the right ones rises "
        f"by {right} nats per token under SFT, of the wrong ones by {wrong} ({n} questions of those trained on). How "
        f"much more the right solution of a question gains, lowest and highest of {len(whole)} methods: "
        f"{told(EVERY, 'trained on')}; in the digits of its calculations, against those of the first wrong step: "
        f"{told(DIGITS, 'trained on')}; in solutions held out: {told(EVERY, 'held out')} (means over questions ± "
        "standard errors)."
    )


def _flagged_holds(t: pd.DataFrame) -> bool:
    """No method's difference is two standard errors from none, or one tenth of what SFT gains."""
    whole = on_flagged(t)
    sft = _at(whole.set_index("recipe"), "gain, right", "sft")
    clear = whole["more"].abs() > 2 * whole["more, standard error"]
    return not bool((clear & (whole["more"].abs() > 0.1 * sft)).any())


FINDINGS = (
    Finding(
        "The first step foretells what training does to a real model, far from perfectly",
        _foretold_words,
        _foretold_holds,
    ),
    Finding("Of what falls the first step foretells less than half", _falls_words, _falls_holds),
    Finding(
        "Who learns the format is seen in the first step, and not in what is asked", _learned_words, _learned_holds
    ),
    Finding(
        "What the first step misses is not the optimiser's doing: kinds of token pull at each other",
        _descent_words,
        _descent_holds,
    ),
    Finding("Further training goes on where the first steps went", _longer_words, _longer_holds),
    Finding("How much is asked hardly tells how far a model moves", _furthest_words, _furthest_holds),
    Finding("An anchor is not seen in the first step", _anchor_words, _anchor_holds),
    Finding("DFT learns to stop and unlearns the format", _marks_words, _marks_holds),
    Finding("DFT is right more often than the start, and far too sure", _sharp_words, _sharp_holds),
    Finding("Wrong solutions are learned as right ones are", _flagged_words, _flagged_holds),
)
