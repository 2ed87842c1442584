"""Five reasoning tasks, each one program that writes demonstrations, tells their exact distribution, and verifies.

A program walks a solution token by token and asks a pen for each: these may come next, in these proportions, and by a
slip one of those. A `Writer` draws, and keeps the distribution; a `Reader` takes the tokens of a given solution, and
notes which of them are valid. What is demonstrated, what is verified and what theory is told thus stand in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

DIGITS = tuple("0123456789")
PERSONS = tuple(f"p{i}" for i in range(16))
SYMPTOMS = tuple(f"s{i}" for i in range(12))
DISEASES = tuple(f"d{i}" for i in range(12))
RELATIONS = ("mother", "friend", "boss")
#: Moves of `reach`, and how far a target is at most.
MOVES: Mapping[str, int] = {"+1": 1, "+2": 2, "+3": 3, "+5": 5}
FARTHEST, MOST_MOVES = 9, 3
MODULUS, OPERATIONS = 5, 3
TAGS = ("add", "mod", "reach", "kin", "dx")
END, ANSWER = ".", "#"
VOCAB = (
    END,
    ANSWER,
    ":",
    ";",
    "=",
    "+",
    "-",
    "*",
    ">",
    "!",
    *TAGS,
    *DIGITS,
    *MOVES,
    *PERSONS,
    *RELATIONS,
    *SYMPTOMS,
    *DISEASES,
)
INDEX = {token: i for i, token in enumerate(VOCAB)}
LENGTH = 30  # tokens; no question with its solution is longer

Options = Mapping[str, float]


@dataclass(frozen=True)
class World:
    """What is held to be true, and how it is written."""

    facts: Mapping[str, Mapping[str, tuple[str, ...]]]  # relation → person → whom it leads to, the usual one first
    disease: Mapping[str, str]  # by the leading symptom
    exception: Mapping[str, tuple[str, str]]  # leading symptom → (symptom, the disease if that is there too)
    severity: Mapping[str, int]  # of symptoms; two of each
    slips: float  # how often a worked-out token is a wrong one
    direct: float  # how often the answer stands there at once, without work
    habits: tuple[float, float] = (2 / 3, 1 / 3)  # the first and the second of two orders of writing
    moves: tuple[str, ...] = tuple(MOVES)  # those preferred first


class Illegible(Exception):
    """The next token is neither valid nor a slip: no solution goes on like this."""


@dataclass
class Writer:
    """A pen that draws a solution token by token, and keeps the distribution of each."""

    world: World
    draw: np.random.Generator
    tokens: list[str] = field(default_factory=list)
    slipped: list[bool] = field(default_factory=list)
    worked: list[bool] = field(default_factory=list)  # whether it might have been a slip
    options: list[Options] = field(default_factory=list)  # what is valid at each token
    truth: list[Options] = field(default_factory=list)  # its exact distribution, slips among it

    def say(self, options: Options, slips: Iterable[str] = ()) -> str:
        wrong = [token for token in slips if options.get(token, 0) == 0]
        rate = self.world.slips if wrong else 0.0
        chances = {token: (1 - rate) * share for token, share in options.items() if share > 0}
        chances |= {token: rate / len(wrong) for token in wrong if rate > 0}
        token = str(self.draw.choice(list(chances), p=list(chances.values())))
        self.tokens.append(token)
        self.slipped.append(options.get(token, 0) == 0)
        self.worked.append(rate > 0)
        self.options.append({token: share for token, share in options.items() if share > 0})
        self.truth.append(chances)
        return token


@dataclass
class Reader:
    """A pen that reads a given solution and notes which tokens are valid; it stops at one that is not even a slip."""

    tokens: Sequence[str]
    valid: list[bool] = field(default_factory=list)

    def say(self, options: Options, slips: Iterable[str] = ()) -> str:
        if len(self.valid) == len(self.tokens):
            raise Illegible
        token = self.tokens[len(self.valid)]
        self.valid.append(options.get(token, 0) > 0)
        if not self.valid[-1] and token not in tuple(slips):
            raise Illegible
        return token


Pen = Writer | Reader


def mix(*shares: tuple[str, float]) -> dict[str, float]:
    """Options from tokens and their shares; where a token comes twice, its shares are added."""
    found: dict[str, float] = {}
    for token, share in shares:
        found[token] = found.get(token, 0.0) + share
    return found


def usual(tokens: Sequence[str]) -> dict[str, float]:
    """Options in which the first token comes twice as often as the second, three times as often as the third, …"""
    total = sum(1 / (i + 1) for i in range(len(tokens)))
    return mix(*((token, 1 / (i + 1) / total) for i, token in enumerate(tokens)))


def begin(pen: Pen, world: World, work: Options, answers: Sequence[Sequence[str]], slips: Iterable[str]) -> str | None:
    """The first token of the work; None where an answer, one of those given, has been written at once instead."""
    first = pen.say({token: (1 - world.direct) * share for token, share in work.items()} | {ANSWER: world.direct})
    if first != ANSWER:
        return first
    left = list(answers)
    for i in range(len(answers[0])):
        token = pen.say(usual(list(dict.fromkeys(answer[i] for answer in left))), slips)
        left = [answer for answer in left if answer[i] == token] or left
    pen.say({END: 1})
    return None


def conclude(pen: Pen, answer: Iterable[str]) -> None:
    for token in (ANSWER, *answer, END):
        pen.say({token: 1})


def copy(pen: Pen, *tokens: str) -> None:
    for token in tokens:
        pen.say({token: 1})


# ---- three that are computed -----------------------------------------------------------------------------------------
def add_question(draw: np.random.Generator) -> list[str]:
    a, b = (list(f"{draw.integers(100):02d}") for _ in range(2))
    return ["add", *a, "+", *b, ":"]


def add_answers(question: Sequence[str], world: World) -> list[list[str]]:
    return [list(f"{int(''.join(question[1:3])) + int(''.join(question[4:6])):03d}")]


def add_solve(pen: Pen, question: Sequence[str], world: World) -> None:
    """Digit by digit from the right: the two digits in either order, the carry, what comes of it: carry and digit."""
    carry, written = "0", []
    for i in (1, 0):
        x, y = question[1 + i], question[4 + i]
        order = mix((x, world.habits[0]), (y, world.habits[1]))
        first = begin(pen, world, order, add_answers(question, world), DIGITS) if i == 1 else pen.say(order)
        if first is None:
            return
        copy(pen, y if first == x else x, carry, "=")
        total = int(x) + int(y) + int(carry)
        carry = pen.say({str(total // 10): 1}, "01")
        written.append(pen.say({str(total % 10): 1}, DIGITS))
        copy(pen, ";")
    conclude(pen, [carry, *reversed(written)])


def mod_question(draw: np.random.Generator) -> list[str]:
    steps = [str(token) for _ in range(OPERATIONS) for token in (draw.choice(list("+-*")), draw.integers(MODULUS))]
    return ["mod", str(draw.integers(MODULUS)), *steps, ":"]


def _mod(v: str, operation: str, n: str) -> str:
    a, b = int(v), int(n)
    return str((a + b if operation == "+" else a - b if operation == "-" else a * b) % MODULUS)


def mod_answers(question: Sequence[str], world: World) -> list[list[str]]:
    v = question[1]
    for operation, n in zip(question[2:-1:2], question[3:-1:2], strict=True):
        v = _mod(v, operation, n)
    return [[v]]


def mod_solve(pen: Pen, question: Sequence[str], world: World) -> None:
    """Operation by operation, modulo five; where the order does not matter, either may be written."""
    v = question[1]
    for i, (operation, n) in enumerate(zip(question[2:-1:2], question[3:-1:2], strict=True)):
        order = {v: 1.0} if operation == "-" else mix((v, world.habits[0]), (n, world.habits[1]))
        first = begin(pen, world, order, mod_answers(question, world), DIGITS[:MODULUS]) if i == 0 else pen.say(order)
        if first is None:
            return
        copy(pen, operation, n if first == v else v, "=")
        v = pen.say({_mod(v, operation, n): 1}, DIGITS[:MODULUS])
        copy(pen, ";")
    conclude(pen, [v])


def _legal(distance: int) -> list[str]:
    return [move for move, by in MOVES.items() if by <= distance]


def _reaches(distance: int, left: int) -> bool:
    return distance == 0 or (left > 0 and any(_reaches(distance - MOVES[move], left - 1) for move in _legal(distance)))


def reach_question(draw: np.random.Generator) -> list[str]:
    distance = int(draw.integers(3, FARTHEST + 1))
    start = int(draw.integers(100 - distance))
    return ["reach", *f"{start:02d}", ">", *f"{start + distance:02d}", ":"]


def reach_solve(pen: Pen, question: Sequence[str], world: World) -> None:
    """How far it is, then up to three moves and what each leaves; there are several ways."""
    start, target = (int("".join(question[i : i + 2])) for i in (1, 4))
    distance = int(pen.say({str(target - start): 1}, DIGITS))
    copy(pen, ";")
    for left in range(MOST_MOVES, 0, -1):
        if distance == 0:
            break
        ways = [move for move in world.moves if MOVES[move] <= distance and _reaches(distance - MOVES[move], left - 1)]
        move = pen.say(usual(ways or _legal(distance)), _legal(distance))
        copy(pen, "=")
        distance = int(pen.say({str(distance - MOVES[move]): 1}, DIGITS))
        copy(pen, ";")
    pen.say({END: 1} if distance == 0 or isinstance(pen, Writer) else {}, [END])


# ---- two that are known ----------------------------------------------------------------------------------------------
def kin_question(draw: np.random.Generator) -> list[str]:
    chain = draw.choice(RELATIONS, size=int(draw.integers(2, 4)))
    return ["kin", str(draw.choice(PERSONS)), *(str(relation) for relation in chain), ":"]


def kin_answers(question: Sequence[str], world: World) -> list[list[str]]:
    here = [question[1]]
    for relation in question[2:-1]:
        here = list(dict.fromkeys(other for person in here for other in world.facts[relation][person]))
    return [[person] for person in here]


def kin_solve(pen: Pen, question: Sequence[str], world: World) -> None:
    """Fact by fact; a person has more than one friend."""
    person = question[1]
    for i, relation in enumerate(question[2:-1]):
        if i == 0 and begin(pen, world, {person: 1.0}, kin_answers(question, world), PERSONS) is None:
            return
        copy(pen, *([relation] if i == 0 else [person, relation]), "=")
        person = pen.say(usual(world.facts[relation][person]), PERSONS)
        copy(pen, ";")
    conclude(pen, [person])


def dx_question(draw: np.random.Generator) -> list[str]:
    return ["dx", *(str(s) for s in draw.choice(SYMPTOMS, size=4, replace=False)), ":"]


def _leading(question: Sequence[str], world: World) -> list[str]:
    """The gravest of the symptoms, one or two, as they are listed."""
    there = question[1:-1]
    worst = max(world.severity[s] for s in there)
    return [s for s in there if world.severity[s] == worst]


def dx_answers(question: Sequence[str], world: World) -> list[list[str]]:
    found = []
    for s in _leading(question, world):
        other, instead = world.exception.get(s, ("", ""))
        found.append([instead if other in question else world.disease[s]])
    return found


def dx_solve(pen: Pen, question: Sequence[str], world: World) -> None:
    """The gravest symptom names a disease, unless another one that is there makes an exception."""
    leading = _leading(question, world)
    first = begin(pen, world, usual(leading), dx_answers(question, world), DISEASES)
    if first is None:
        return
    copy(pen, ">")
    disease = pen.say({world.disease[first]: 1}, DISEASES)
    copy(pen, ";")
    other, instead = world.exception.get(first, ("", ""))
    if other in question:
        copy(pen, other, "!")
        disease = pen.say({instead: 1}, DISEASES)
        copy(pen, ";")
    conclude(pen, [disease])


@dataclass(frozen=True)
class ReasoningTask:
    """`answers` is None where a solution is right if every step of it is."""

    name: str
    title: str
    kind: str
    question: Callable[[np.random.Generator], list[str]]
    solve: Callable[[Pen, Sequence[str], World], None]
    answers: Callable[[Sequence[str], World], list[list[str]]] | None
    ways: str  # how solutions may go on in more than one way
    against: str  # what pretraining taught otherwise, beside work left out


_ORDER, _OTHER_ORDER = "either operand first", "the other operand first"
TASKS = {
    task.name: task
    for task in (
        ReasoningTask(
            "add", "Addition with carries", "maths", add_question, add_solve, add_answers, _ORDER, _OTHER_ORDER
        ),
        ReasoningTask(
            "mod", "Chained modular arithmetic", "maths", mod_question, mod_solve, mod_answers, _ORDER, _OTHER_ORDER
        ),
        ReasoningTask(
            "reach",
            "Reach a number",
            "maths",
            reach_question,
            reach_solve,
            None,
            "other moves",
            "other moves preferred",
        ),
        ReasoningTask(
            "kin", "Family relations", "knowledge", kin_question, kin_solve, kin_answers, "any friend", "other facts"
        ),
        ReasoningTask(
            "dx",
            "Diagnosis with exceptions",
            "knowledge",
            dx_question,
            dx_solve,
            dx_answers,
            "either of two symptoms alike in gravity",
            "other diseases and exceptions",
        ),
    )
}


@dataclass(frozen=True)
class Verdict:
    """On one solution."""

    right: bool  # the answer; where a task has none, every step
    valid: bool  # every step is written out and follows from those before


def verify(task: ReasoningTask, question: Sequence[str], solution: Sequence[str], world: World) -> Verdict:
    reader = Reader(solution)
    try:
        task.solve(reader, question, world)
        whole = all(reader.valid)
    except Illegible:
        whole = False
    if task.answers is None:
        return Verdict(whole, whole)
    text = list(solution)
    ended = text[: text.index(END)] if END in text else []
    given = ended[ended.index(ANSWER) + 1 :] if ANSWER in ended else None
    return Verdict(given in task.answers(question, world), whole)


def worlds(seed: int) -> tuple[World, World]:
    """What pretraining taught, and what the demonstrations teach: new facts and rules, every step written out, other
    habits of writing."""
    draw = np.random.default_rng((seed, 7))

    def friends(person: str) -> tuple[str, ...]:
        return tuple(
            str(p)
            for p in draw.choice([p for p in PERSONS if p != person], size=int(draw.integers(1, 4)), replace=False)
        )

    def facts() -> dict[str, dict[str, tuple[str, ...]]]:
        return {r: {p: friends(p) if r == "friend" else friends(p)[:1] for p in PERSONS} for r in RELATIONS}

    def exception(s: str) -> tuple[str, str]:
        other = str(draw.choice([o for o in SYMPTOMS if o != s]))
        return other, str(draw.choice([d for d in DISEASES if d != disease[s]]))

    old, new = facts(), facts()
    changed = {r: {p: new[r][p] if draw.random() < CHANGED else old[r][p] for p in PERSONS} for r in RELATIONS}
    disease = dict(zip(SYMPTOMS, (str(d) for d in draw.permutation(DISEASES)), strict=True))
    severity = dict(
        zip((str(s) for s in draw.permutation(SYMPTOMS)), [i // 2 for i in range(len(SYMPTOMS))], strict=True)
    )
    renamed = {s: str(draw.choice(DISEASES)) if draw.random() < CHANGED else disease[s] for s in SYMPTOMS}
    before = {s: exception(s) for s in SYMPTOMS}
    after = {s: exception(s) if draw.random() < CHANGED else before[s] for s in SYMPTOMS}
    moves = tuple(reversed(list(MOVES)))
    prior = World(old, disease, before, severity, PRIOR_SLIPS, PRIOR_DIRECT, habits=(1 / 3, 2 / 3), moves=moves)
    taught = World(changed, renamed, after, severity, SLIPS, 0.0)
    return prior, taught


#: The doses. Of facts and exceptions, those that pretraining taught otherwise; of worked-out tokens, the wrong ones in
#: demonstrations and in pretraining; of pretraining's solutions, those that give the answer at once.
CHANGED, SLIPS, PRIOR_SLIPS, PRIOR_DIRECT = 0.3, 0.05, 0.1, 0.3


def clean(world: World) -> World:
    """The same without slips."""
    return dataclasses.replace(world, slips=0.0)


def written(task: ReasoningTask, question: Sequence[str], world: World, draw: np.random.Generator) -> Writer:
    pen = Writer(world, draw)
    task.solve(pen, question, world)
    return pen
