"""The page that asks which recipe to take: by situation, what the studies found, each sentence worded from their rows.

A `Statement` is to several studies what a `Finding` is to one: words, and the test that withdraws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import qunify as qu
from analyses.kit import findings
from analyses.kit.findings import Finding
from analyses.kit.words import markdown, minus, percent, points, title, within
from analyses.studies.noise import runs as noise
from analyses.studies.real_model.recipes import SEEDS
from docs.findings import anchor as finding_anchor
from docs.findings import linked_rows
from docs.yardsticks import (
    ANSWERS,
    CALIBRATION,
    CLEAN,
    CONFUSED,
    DENIED,
    EVERYWHERE,
    EVERYWHERE_LATE,
    FACTS,
    FACTS_GREEDY,
    GREEDY,
    KIND,
    LEARNED,
    LEARNED_LATE,
    MIXED,
    PARTNER,
    PEOPLES,
    RARE,
    REDRAWN,
    SAMPLED,
    SCALE,
    TRUTH,
    UNIFORM,
    Seen,
    Yardstick,
    asks_a_teacher,
    committed,
    compared,
)


@dataclass(frozen=True)
class Statement:
    """What several studies say together. Both functions get all comparisons."""

    title: str
    words: Callable[[Seen], str]
    holds: Callable[[Seen], bool]


@dataclass(frozen=True)
class Situation:
    """A section of the page.

    Attributes
    ----------
    title : str
    yardsticks : sequence of Yardstick
        The comparisons that bear on it, of which the table is made.
    statements : sequence of Statement
    told : sequence of (study, title)
        Findings of single studies, which belong here too.
    limit : str
        What the comparisons leave open.
    """

    title: str
    yardsticks: Sequence[Yardstick]
    statements: Sequence[Statement]
    told: Sequence[tuple[str, str]] = ()
    limit: str = ""


HALF = 0.5  # of the comparisons: a method in fewer is not judged by them together


# ---- reading comparisons --------------------------------------------------------------------------------------------
def against(method: str, yardsticks: Iterable[Yardstick], seen: Seen, other: str = "sft") -> Counter[int]:
    """In how many comparisons a method is ahead of another (1), behind (−1), or cannot be told apart (0)."""
    return Counter(seen[y].apart(method, other) for y in yardsticks if method in seen[y].values)


def tried(yardsticks: Sequence[Yardstick], seen: Seen, least: float) -> list[str]:
    """The methods, SFT apart, in at least this share of the comparisons."""
    count = Counter(m for y in yardsticks for m in seen[y].order)
    return [m for m, n in count.items() if n >= least * len(yardsticks) and m != "sft"]


def shown(y: Yardstick, seen: Seen, method: str) -> str:
    return y.show(seen[y].mean(method))


def led(y: Yardstick, seen: Seen, method: str, other: str = "sft") -> str:
    """By how many points a method is above another, with the interval."""
    return minus(points(*seen[y].ahead(method, other)))


def farther(y: Yardstick, seen: Seen, method: str, other: str = "sft") -> str:
    """By how many nats a method is worse than another, with the interval."""
    return within(*seen[y].ahead(other, method), digits=2) + " nats"


def names(methods: Iterable[str]) -> str:
    return ", ".join(map(title, methods))


# ---- several right answers ------------------------------------------------------------------------------------------
SPREAD = (ANSWERS, CALIBRATION, CLEAN)


def _keep_words(seen: Seen) -> str:
    return (
        f"Take SFT, or a loss that ends near it. {_where(ANSWERS, seen)}: {shown(ANSWERS, seen, 'sft')} after SFT, "
        f"{shown(ANSWERS, seen, 'dft')} after DFT. From the true probabilities linear models end "
        f"{shown(CALIBRATION, seen, 'sft')} away with SFT and {shown(CALIBRATION, seen, 'dft')} with DFT, a small "
        f"transformer on sequences {shown(CLEAN, seen, 'sft')} and {shown(CLEAN, seen, 'dft')}. DFT is last in all "
        f"{len(SPREAD)} comparisons; of losses that ask no teacher, SFT has the nearest mean in the two last."
    )


def _keep_holds(seen: Seen) -> bool:
    answers, *near = (seen[y] for y in SPREAD)
    return (
        all(c.order[-1] == "dft" for c in (answers, *near))
        and all(c.asking(teacher=False)[0] == "sft" for c in near)
        and answers.mean("sft") > 3 * answers.mean("dft")
    )


def _gem_words(seen: Seen) -> str:
    return (
        f"In tables GEM shows more of the right answers than SFT ({shown(ANSWERS, seen, 'gem')}, SFT "
        f"{shown(ANSWERS, seen, 'sft')}), but linear models and the transformer end farther from the truth with it "
        f"({shown(CALIBRATION, seen, 'gem')} and {shown(CLEAN, seen, 'gem')})."
    )


def _gem_holds(seen: Seen) -> bool:
    return [seen[y].apart("gem", "sft") for y in SPREAD] == [1, -1, -1]


# ---- wrong labels ---------------------------------------------------------------------------------------------------
BY_HEART, ONCE = (UNIFORM, PARTNER, REDRAWN, CONFUSED), (MIXED, PEOPLES)
WRONG = (*BY_HEART, *ONCE, SAMPLED, GREEDY)


def _disagree_words(seen: Seen) -> str:
    passes = noise.STEPS[-1] * noise.BATCH / noise.TRAINING
    by_heart = ", ".join(led(y, seen, "dft") for y in BY_HEART)
    apart = " and ".join(farther(y, seen, "dft") for y in ONCE)
    return (
        f"Where small networks see the same labels again and again ({passes:.0f} times in the study noise), and SFT "
        f"learns wrong ones by heart, DFT is more accurate ({by_heart} over SFT). Where small transformers see every "
        f"text once, DFT is worse than SFT by {apart} a token. No study varies the passes alone: this is where they "
        f"part, not a proof of why."
    )


def _disagree_holds(seen: Seen) -> bool:
    return {seen[y].apart("dft", "sft") for y in BY_HEART} == {1} and {seen[y].apart("dft", "sft") for y in ONCE} == {
        -1
    }


def _safe(seen: Seen) -> list[str]:
    """Methods that ask no teacher, are in half of the comparisons or more, and behind SFT in none."""
    found = [m for m in tried(WRONG, seen, HALF) if not asks_a_teacher(m)]
    return [m for m in found if not against(m, WRONG, seen)[-1]]


def _safe_words(seen: Seen) -> str:
    told, over = ("; ".join(_record(m, of, seen) for m in _safe(seen)) for of in (WRONG, EVERY))
    return (
        f"Of the losses without a teacher that are in half of these comparisons or more, these are behind SFT in none: "
        f"{told}. Both ask the starting model, SFT+KL to stay near it, iw-SFT for a weight of each demonstration, and "
        f"are as good as it is: in the digits it had read right labels alone. Over all comparisons here: {over}."
    )


def _safe_holds(seen: Seen) -> bool:
    found = set(_safe(seen))
    return found == {"iw_sft", "sft_kl"} and all(against(m, WRONG, seen)[1] >= 2 for m in found)


def _decoding_words(seen: Seen) -> str:
    c = seen[GREEDY]
    return (
        f"In the ten settings (small transformers, {c.seeds} seeds), with slips among the demonstrations, SFT solves "
        f"{shown(SAMPLED, seen, 'sft')} in samples and {shown(GREEDY, seen, 'sft')} where the likeliest token is "
        f"always taken; there {len(c.level)} of {len(c.order) - 1} methods, SFT among them, cannot be told from the "
        f"first, {title(c.order[0])}."
    )


def _decoding_holds(seen: Seen) -> bool:
    return "sft" in seen[GREEDY].level and "sft" not in seen[SAMPLED].level


# ---- a model that is wrong about the domain -------------------------------------------------------------------------
CONFLICT = (LEARNED, EVERYWHERE, LEARNED_LATE, EVERYWHERE_LATE, DENIED, FACTS, FACTS_GREEDY)


def _belief_words(seen: Seen) -> str:
    return (
        f"DFT, and a threshold such as ProFiT's, are no start where there are few steps. {_where(LEARNED, seen)}: SFT "
        f"{shown(LEARNED, seen, 'sft')}, DFT {shown(LEARNED, seen, 'dft')}, ProFiT {shown(LEARNED, seen, 'profit')}. "
        f"{_where(FACTS, seen)}: SFT {shown(FACTS, seen, 'sft')}, DFT {shown(FACTS, seen, 'dft')}, ProFiT "
        f"{shown(FACTS, seen, 'profit')}, though with so few seeds the interval does not tell SFT from DFT there "
        f"({led(FACTS, seen, 'dft')})."
    )


def _belief_holds(seen: Seen) -> bool:
    learned, facts = seen[LEARNED], seen[FACTS]
    return (
        learned.order[0] == "sft"
        and max(learned.mean(m) for m in ("dft", "profit")) < 0.1
        and facts.mean("sft") > facts.mean("dft") > facts.mean("profit")
        and not facts.apart("dft", "sft")
    )


def _late_words(seen: Seen) -> str:
    return (
        f"With many more steps DFT arrives, and it has kept more. {_where(LEARNED_LATE, seen)}: DFT "
        f"{shown(LEARNED_LATE, seen, 'dft')}, SFT {shown(LEARNED_LATE, seen, 'sft')}, ProFiT still "
        f"{shown(LEARNED_LATE, seen, 'profit')}. {_capital(EVERYWHERE_LATE.what)} DFT is first, "
        f"{shown(EVERYWHERE_LATE, seen, 'dft')} (SFT {shown(EVERYWHERE_LATE, seen, 'sft')})."
    )


def _late_holds(seen: Seen) -> bool:
    late = seen[LEARNED_LATE]
    return (
        seen[EVERYWHERE_LATE].order[0] == "dft"
        and seen[EVERYWHERE_LATE].apart("dft", "sft") > 0
        and late.mean("sft") > late.mean("dft") > 0.5
        and late.order[-1] == "profit"
    )


def _softer_words(seen: Seen) -> str:
    return (
        f"In the same tables Beyond-log has {shown(LEARNED, seen, 'beyond_log')} at first (SFT "
        f"{shown(LEARNED, seen, 'sft')}) and is the best later, {shown(LEARNED_LATE, seen, 'beyond_log')} (SFT "
        f"{shown(LEARNED_LATE, seen, 'sft')}). What is kept counted too, it is ahead of SFT early on "
        f"({led(EVERYWHERE, seen, 'beyond_log')}). On changed facts, its power tuned, it is not told from the first, "
        f"{title(seen[FACTS].order[0])} ({led(FACTS, seen, 'beyond_log', seen[FACTS].order[0])})."
    )


def _softer_holds(seen: Seen) -> bool:
    return (
        seen[LEARNED].apart("beyond_log", "sft") < 0
        and seen[LEARNED_LATE].order[0] == "beyond_log"
        and seen[EVERYWHERE].apart("beyond_log", "sft") > 0
        and "beyond_log" in seen[FACTS].level
    )


# ---- a teacher at hand ----------------------------------------------------------------------------------------------
TAUGHT = (ANSWERS, CALIBRATION, MIXED, PEOPLES, EVERYWHERE, FACTS, SAMPLED, GREEDY, TRUTH)


def _with_and_without(y: Yardstick, seen: Seen) -> tuple[str, str, int]:
    """The best method that asks a teacher, the best that asks none, and whether the first is ahead."""
    c = seen[y]
    taught, alone = (c.asking(teacher=which)[0] for which in (True, False))
    return taught, alone, c.apart(taught, alone)


def _teacher_words(seen: Seen) -> str:
    count = Counter(_with_and_without(y, seen)[2] for y in TAUGHT)
    behind = [y for y in TAUGHT if _with_and_without(y, seen)[2] < 0]
    return (
        f"The best loss with a teacher is ahead of the best without one in {count[1]} of {len(TAUGHT)} comparisons, "
        f"not told apart in {count[0]}, and behind in {count[-1]} ({_listed(_studies(behind))}): there the teacher is "
        "the truth, blurred."
    )


def _teacher_holds(seen: Seen) -> bool:
    found = {y: _with_and_without(y, seen)[2] for y in TAUGHT}
    behind = {y for y, ahead in found.items() if ahead < 0}
    return sum(x > 0 for x in found.values()) >= 3 and behind == {ANSWERS, CALIBRATION}


def _mix_words(seen: Seen) -> str:
    told = "; ".join(_record(m, TAUGHT, seen) for m in ("kd_hybrid", "kd", "target_sft", "posterior"))
    return (
        f"Against SFT, in those comparisons in which each was tried: {told}. Target-SFT is first where solutions are "
        f"sampled, in small transformers "
        f"({shown(SAMPLED, seen, 'target_sft')}; SFT {shown(SAMPLED, seen, 'sft')}), but ends farther from the "
        f"distribution of right ones ({shown(TRUTH, seen, 'target_sft')}) than KD ({shown(TRUTH, seen, 'kd')}), "
        f"Posterior ({shown(TRUTH, seen, 'posterior')}) and SFT ({shown(TRUTH, seen, 'sft')}). So: Target-SFT where "
        f"a sample has to be right, KD, Posterior or a mixture (Hybrid KD) where probabilities have to be."
    )


def _mix_holds(seen: Seen) -> bool:
    mixed, own = (against(m, TAUGHT, seen) for m in ("kd_hybrid", "target_sft"))
    truth = seen[TRUTH]
    return (
        seen[SAMPLED].order[0] == "target_sft"
        and set(truth.order[:3]) == {"kd", "posterior", "kd_hybrid"}
        and truth.apart("target_sft", "sft") < 0
        and mixed[1] > own[1] - own[-1]
        and mixed[-1] <= 1
        and not against("posterior", TAUGHT, seen)[-1]
    )


# ---- a format that the model does not know --------------------------------------------------------------------------
FORMAT = (RARE, DENIED)
SLOW = 3  # times SFT's steps


def _format_words(seen: Seen) -> str:
    slow = [m for m in seen[RARE].order if seen[RARE].mean(m) > SLOW * seen[RARE].mean("sft")]
    told = ", ".join(f"{title(m)} {shown(RARE, seen, m)}" for m in slow)
    return (
        f"One study follows a format in a real model, with {SEEDS} seeds (below: DFT unlearns it). What a single "
        f"token tells, in {RARE.what}: SFT needs "
        f"{shown(RARE, seen, 'sft')}, fewest of all; more than {SLOW} times as many need {told}. A mark or "
        "an end of turn that the model hardly expects is such a token, but in a model tokens share parameters, and "
        "others can carry it along."
    )


def _format_holds(seen: Seen) -> bool:
    c = seen[RARE]
    return c.order[0] == "sft" == seen[DENIED].order[0] and c.mean("dft") > SLOW * c.mean("sft")


# ---- nothing known --------------------------------------------------------------------------------------------------
EVERY = tuple(dict.fromkeys((*SPREAD, *WRONG, *CONFLICT, *TAUGHT, *FORMAT)))


def _start_words(seen: Seen) -> str:
    first, last = (sum(seen[y].order[place] == "sft" for y in EVERY) for place in (0, -1))
    alone = [m for m in tried(EVERY, seen, HALF) if not asks_a_teacher(m)]
    return (
        f"SFT is first in {first} of {len(EVERY)} comparisons and last in {last or 'none'}. Of the {len(alone)} losses "
        f"without a teacher that are in half of them or more, none is ahead of SFT more often than behind it, and each "
        f"that is ahead somewhere is behind elsewhere. So start with SFT, and leave it for a reason from above."
    )


def _start_holds(seen: Seen) -> bool:
    alone = [against(m, EVERY, seen) for m in tried(EVERY, seen, HALF) if not asks_a_teacher(m)]
    return (
        all(count[1] <= count[-1] for count in alone)
        and all(count[-1] for count in alone if count[1])
        and not any(seen[y].order[-1] == "sft" for y in EVERY)
    )


def _mixture_words(seen: Seen) -> str:
    ahead, level, behind = (against("kd_hybrid", EVERY, seen)[k] for k in (1, 0, -1))
    return (
        f"Hybrid KD, half label and half teacher, is ahead of SFT in {ahead} comparisons, not told apart in {level} "
        f"and behind in {behind}, the best balance of all methods that are in half of them or more. Where "
        f"Target-SFT is first, it gains less: {shown(SAMPLED, seen, 'kd_hybrid')} of samples right in the ten "
        f"settings, Target-SFT {shown(SAMPLED, seen, 'target_sft')}, SFT {shown(SAMPLED, seen, 'sft')}."
    )


def _mixture_holds(seen: Seen) -> bool:
    balance = {m: _balance(against(m, EVERY, seen)) for m in tried(EVERY, seen, HALF)}
    return (
        max(balance, key=lambda m: balance[m]) == "kd_hybrid"
        and against("kd_hybrid", EVERY, seen)[-1] <= 1
        and seen[SAMPLED].apart("target_sft", "kd_hybrid") > 0
        and seen[SAMPLED].apart("kd_hybrid", "sft") > 0
        and qu.get("kd_hybrid").params["mix"] == HALF
    )


def _record(method: str, yardsticks: Sequence[Yardstick], seen: Seen) -> str:
    count = against(method, yardsticks, seen)
    return f"{title(method)} ahead in {count[1]}, behind in {count[-1]} of {count.total()}"


def _where(y: Yardstick, seen: Seen) -> str:
    """What is measured, and at what scale."""
    return f"{_capital(y.what)} ({KIND[y.study]}, {seen[y].seeds} seeds)"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _listed(studies: Iterable[str]) -> str:
    return ", ".join(f"{{ref}}`{study} <study-{study}>`" for study in studies)


def _studies(yardsticks: Iterable[Yardstick]) -> list[str]:
    return list(dict.fromkeys(y.study for y in yardsticks))


# ---- the situations -------------------------------------------------------------------------------------------------
SITUATIONS = (
    Situation(
        "Several answers are right",
        SPREAD,
        (
            Statement("Keep them with SFT; DFT loses them", _keep_words, _keep_holds),
            Statement(
                "GEM shows more of them in tables, and ends farther from the truth elsewhere", _gem_words, _gem_holds
            ),
        ),
        (
            ("ambiguity", "Of several right answers DFT keeps one"),
            ("theory_vs_training", "DFT ends in the commonest token, whatever its share"),
        ),
        "Worlds whose truth is known; no natural text.",
    ),
    Situation(
        "Some labels are wrong",
        WRONG,
        (
            Statement("The studies disagree on DFT", _disagree_words, _disagree_holds),
            Statement("Two losses that ask the starting model are nowhere behind SFT here", _safe_words, _safe_holds),
            Statement("Before changing the loss, look at how you sample", _decoding_words, _decoding_holds),
        ),
        (
            ("noise", "A popular claim that does not hold here: a bounded loss is robust"),
            ("noise", "Robust is not calibrated"),
            (
                "demonstrations",
                "A popular claim that does not hold at this scale: the model's belief tells right demonstrations from "
                "wrong ones",
            ),
        ),
        "In the study noise the teacher of Target-SFT and Hybrid KD is the starting model itself. A larger model knows "
        "more of what is wrong than these could.",
    ),
    Situation(
        "The model is wrong about the domain",
        CONFLICT,
        (
            Statement("A loss that trusts belief learns last what contradicts it", _belief_words, _belief_holds),
            Statement("Stopped late, the order is another", _late_words, _late_holds),
            Statement("A softer trust is the compromise without a teacher", _softer_words, _softer_holds),
        ),
        (
            ("prior_conflict", "A popular claim that does not hold here: a KL anchor is how to keep what was known"),
            ("ten_settings", "The p-loss wins at mathematics, and not where facts have changed"),
        ),
        "In tables nothing learned in one place helps in another.",
    ),
    Situation(
        "There is a teacher",
        TAUGHT,
        (
            Statement(
                "A teacher helps in some comparisons, and a blurred one sets back in others",
                _teacher_words,
                _teacher_holds,
            ),
            Statement("Which loss with a teacher depends on what counts", _mix_words, _mix_holds),
        ),
        (
            ("ten_settings", "Trust carries Target-SFT in arithmetic, its teacher where facts have changed"),
            ("ten_settings", "The method designed for slips ends nearer to the truth, not higher"),
        ),
        "The teachers had learned these very tasks; a general model is a weaker one.",
    ),
    Situation(
        "The format is new to the model",
        FORMAT,
        (Statement("SFT is the quickest at a token that the model does not expect", _format_words, _format_holds),),
        (
            ("dynamics", "Trust in what is believed is paid in steps where the belief is wrong"),
            ("real_model", "DFT learns to stop and unlearns the format"),
            (
                "real_audit",
                "A real model learns to stop under every loss rehearsed, whatever it asks of the end of turn",
            ),
            ("real_audit", "DFT makes real demonstrations less likely than they were"),
        ),
        "In the tables each token is by itself, by gradient descent at one rate for all; Adam rescales. The audit's "
        "influence and rehearsal say more of your own model than this does.",
    ),
    Situation(
        "Nothing of this is known",
        EVERY,
        (
            Statement("Start with SFT", _start_words, _start_holds),
            Statement("With a teacher, a mixture has the best balance", _mixture_words, _mixture_holds),
        ),
        (("ten_settings", "Some change places from setting to setting; Target-SFT hardly"),),
        "Comparisons of one study share their models and are not independent: counts are no vote.",
    ),
)
STATEMENTS = tuple(s for situation in SITUATIONS for s in situation.statements)


# ---- the page -------------------------------------------------------------------------------------------------------
def table() -> str:
    """MyST: a line for each situation."""
    return overview(_all())


def sections() -> str:
    """MyST: a section for each situation."""
    seen = _all()
    return "\n\n".join(section(it, seen) for it in SITUATIONS) + "\n"


def _all() -> Seen:
    return compared(EVERY, committed(EVERY))


def overview(seen: Seen) -> str:
    """A line per situation: who was first and last how often, and how sure that is."""
    lines = []
    for it in SITUATIONS:
        found = [seen[y] for y in it.yardsticks]
        alone = sum(not c.level for c in found)
        seeds = sorted({c.seeds for c in found})
        span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        kinds = ", ".join(dict.fromkeys(KIND[study] for study in _studies(it.yardsticks)))
        sure = f"the first told from all others in {alone} of {len(found)}; {span} seeds; {kinds}"
        level = sum("sft" in (c.order[0], *c.level) for c in found)
        best, worst = (_counted(c.order[place] for c in found) for place in (0, -1))
        place = f"{level} of {len(found)}"
        lines.append([f"{{ref}}`{it.title} <{anchor(it)}>`", best, worst, place, sure])
    head = ["situation", "was best (in how many comparisons)", "was worst", "SFT best or level with it", "how sure"]
    return _left(markdown(head, lines))


def _counted(methods: Iterable[str]) -> str:
    return ", ".join(f"{title(m)} {n}" for m, n in Counter(methods).most_common())


def anchor(it: Situation) -> str:
    return "recipe-" + it.title.lower().replace(" ", "-")


def _left(table: str) -> str:
    """The same with words in all columns."""
    return table.replace("--:", ":--")


def section(it: Situation, seen: Seen) -> str:
    """What was found in a situation: sentences, the findings of single studies, and the comparisons behind them."""
    lines = [f"- **{s.title}.** {s.words(seen)}" for s in it.statements]
    for study, name in it.told:
        finding = named(study, name)
        link = f"{{ref}}`{finding.title} <{finding_anchor(finding)}>`"
        lines.append(f"- {link}: {finding.words(findings.committed(study))} Rows: {linked_rows(study)}.")
    studies = _studies(it.yardsticks)
    scale = "; ".join(f"{study}: {SCALE[study]}" for study in dict.fromkeys([*studies, *(s for s, _ in it.told)]))
    rows_of = ", ".join(linked_rows(study) for study in studies)
    return (
        f"({anchor(it)})=\n## {it.title}\n\n" + "\n".join(lines) + f"\n\n{_table(it, seen)}\n\n"
        f"Rows: {rows_of}. Scale: {scale}. {it.limit}"
    )


def named(study: str, name: str) -> Finding:
    (found,) = [f for f in findings.of(study) if f.title == name]
    return found


def _table(it: Situation, seen: Seen) -> str:
    """A line per comparison, or per method where the situation is that of all comparisons."""
    return records(seen) if it.yardsticks is EVERY else comparisons(it.yardsticks, seen)


def comparisons(yardsticks: Sequence[Yardstick], seen: Seen) -> str:
    lines = []
    for y in yardsticks:
        c = seen[y]
        first, last = c.order[0], c.order[-1]
        second = "sft" if first != "sft" else c.order[1]
        by, half = c.ahead(first, second)
        lead = f"{100 * by:.1f} ± {100 * half:.1f} points" if y.show is percent else f"{by:.2g} ± {half:.1g}"
        lines.append(
            [
                f"{{ref}}`{y.study} <study-{y.study}>`: {y.what}",
                f"{title(first)} {y.show(c.mean(first))}",
                y.show(c.mean("sft")),
                f"{title(last)} {y.show(c.mean(last))}",
                f"{lead} before {title(second)}",
                names(c.level) or "none",
                f"{c.seeds}",
            ]
        )
    head = ["compared by", "first", "SFT", "last", "the first leads by", "level with the first", "seeds"]
    return _left(markdown(head, lines))


def records(seen: Seen) -> str:
    """Each method that was tried in half of the comparisons or more, against SFT."""
    lines = []
    for method in sorted(tried(EVERY, seen, HALF), key=lambda m: -_balance(against(m, EVERY, seen))):
        count = against(method, EVERY, seen)
        asks = "a teacher" if asks_a_teacher(method) else ", ".join(map(_words, qu.get(method).needs)) or "nothing"
        lines.append([title(method), asks, *(f"{count[k]}" for k in (1, 0, -1)), f"{count.total()}"])
    head = ["against SFT", "asks", "ahead", "not told apart", "behind", "comparisons"]
    return _left(markdown(head, lines))


def _balance(count: Counter[int]) -> float:
    return (count[1] - count[-1]) / count.total()


_WORDS = {
    "reference_logits": "the starting model",
    "old_logits": "the model some steps ago",
    "token_weight": "a weight for each token",
    "token_mask": "which tokens to keep",
}


def _words(context: str) -> str:
    return _WORDS[context]
