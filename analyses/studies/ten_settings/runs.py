"""One cell of the ten settings: a small transformer, pretrained on a mixture, fine-tuned on one task by one method."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from analyses.kit import cache
from analyses.studies.ten_settings.tasks import (
    END,
    INDEX,
    LENGTH,
    TASKS,
    VOCAB,
    Illegible,
    Reader,
    ReasoningTask,
    World,
    Writer,
    clean,
    verify,
    worlds,
    written,
)
from qunify import training
from qunify.calibration import against_truth
from qunify.catalogue import PAPER
from qunify.maps import QMap
from qunify.training import FineTuningTask, SmallTransformer, TransformerSize, pretrain, shuffled_batches

NAME = "ten_settings"
ROUNDED = 6  # decimals kept: the arithmetic is float32

Row = dict[str, Any]
Question = Sequence[str]


#: The paper's fifteen; a gate with a floor, which theory says learns what the model does not believe; a divergence that
#: practice prefers to KL; and one made for labels with slips.
METHODS = (*PAPER, "mixce", "skew_kl", "posterior")
#: Methods with more seeds: those that the paper's claim is about, and the two that it is tested against.
CLAIM = ("sft", "dft", "asft", "gem", "kd_hybrid", "target_sft", "posterior", "beyond_log")

#: The values tried beside the default, in the second half of the tuning.
OTHERS: Mapping[str, tuple[str, tuple[float, float]]] = {
    "beyond_log": ("alpha", (0.2, 0.8)),
    "profit": ("threshold", (0.02, 0.3)),
    "eaft": ("top_k", (5, 10)),
    "label_smoothing": ("smoothing", (0.03, 0.2)),
    "sft_kl": ("kl_weight", (0.03, 0.3)),
    "asft": ("kl_weight", (0.03, 0.3)),
    "psft": ("clip", (0.1, 0.4)),
    "gem": ("beta", (0.5, 0.9)),
    "kd": ("temperature", (0.7, 1.5)),
    "kd_hybrid": ("mix", (0.25, 0.75)),
    "target_sft": ("eta", (0.25, 0.75)),
    "mixce": ("eta", (0.2, 0.8)),
    "skew_kl": ("skew", (0.03, 0.3)),
    "posterior": ("noise", (0.03, 0.3)),
}
#: Parameters that are set and not tuned: a slip can be any token of the language, also where theory narrows predictions
#: to a few of them.
FIXED: Mapping[str, Mapping[str, int]] = {"posterior": {"tokens": len(VOCAB)}}
RATES = (1e-3, 3e-3)
FINER = (0.5, 1.7)  # times the better of them, for methods without a parameter


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    seeds: tuple[int, ...]
    claim_seeds: tuple[int, ...]
    small: TransformerSize
    large: TransformerSize
    teacher: TransformerSize
    pretraining_steps: int
    teacher_steps: int
    pretraining_batch: int  # texts
    pretraining_rate: float
    demonstrations: int
    steps: int
    batch: int
    validation: int  # problems
    test: int
    samples: int
    ablated: tuple[str, ...]  # tasks
    dtype: torch.dtype = torch.float32

    @property
    def sizes(self) -> dict[str, TransformerSize]:
        """By how many parameters they have at full size, in millions."""
        return {"0.1 M": self.small, "0.35 M": self.large}

    def seeds_of(self, method: str) -> tuple[int, ...]:
        return self.claim_seeds if method in CLAIM else self.seeds


FULL = Plan(
    seeds=(0, 1, 2),
    claim_seeds=(0, 1, 2, 3, 4),
    small=TransformerSize(len(VOCAB), 64, 2, 4, LENGTH),
    large=TransformerSize(len(VOCAB), 96, 3, 4, LENGTH),
    teacher=TransformerSize(len(VOCAB), 128, 3, 4, LENGTH),
    pretraining_steps=4000,
    teacher_steps=3000,
    pretraining_batch=32,
    pretraining_rate=3e-3,
    demonstrations=1024,
    steps=150,
    batch=32,
    validation=64,
    test=100,
    samples=16,
    ablated=("mod", "kin"),
)


#: Small enough for a test, and in double precision, so that it gives the same row everywhere but for its start, which
#: is drawn in single precision.
TINY = dataclasses.replace(
    FULL,
    small=TransformerSize(len(VOCAB), 16, 1, 2, LENGTH),
    large=TransformerSize(len(VOCAB), 16, 1, 2, LENGTH),
    teacher=TransformerSize(len(VOCAB), 24, 1, 2, LENGTH),
    pretraining_steps=60,
    teacher_steps=120,
    pretraining_rate=1e-2,
    demonstrations=128,
    steps=20,
    validation=4,
    test=20,
    samples=4,
    dtype=torch.float64,
)


@dataclass(frozen=True)
class Choice:
    """A method as it was tuned."""

    method: str
    rate: float
    parameter: str = ""
    value: float = float("nan")

    @property
    def qmap(self) -> QMap:
        value = int(self.value) if self.parameter == "top_k" else self.value
        params = {self.parameter: value} if self.parameter else {}
        return qu.get(self.method, **FIXED.get(self.method, {}), **params)


#: Task, size, method and seed of the cell that is run with it.
TINY_CELL = ("dx", "0.1 M", Choice("target_sft", 3e-3, "eta", 0.75), 0)


@dataclass(frozen=True)
class Texts:
    """N questions with one solution each, as tokens (N, LENGTH), padded by END."""

    questions: list[Question]
    tokens: Tensor
    at: Tensor  # (N, LENGTH) bool: the tokens of the solutions
    truth: Tensor  # (N, LENGTH, V): the exact distribution of each of them
    valid: Tensor  # (N, LENGTH, V) bool: what is no slip there
    slipped: Tensor  # (N, LENGTH) bool
    worked: Tensor  # (N, LENGTH) bool: tokens that might be slips
    conflict: Tensor  # (N, LENGTH) bool: right, and pretraining taught otherwise

    @classmethod
    def of(cls, task: ReasoningTask, questions: list[Question], world: World, prior: World, seed: int) -> Texts:
        draw = np.random.default_rng((seed, 11))
        pens = [written(task, question, world, draw) for question in questions]
        tokens = padded([[*question, *pen.tokens] for question, pen in zip(questions, pens, strict=True)])
        at, slipped, worked, conflict = (torch.zeros(tokens.shape, dtype=torch.bool) for _ in range(4))
        truth, valid = (torch.zeros(*tokens.shape, len(VOCAB)) for _ in range(2))
        for i, (question, pen) in enumerate(zip(questions, pens, strict=True)):
            here = slice(len(question), len(question) + len(pen.tokens))
            at[i, here] = True
            slipped[i, here] = torch.tensor(pen.slipped)
            worked[i, here] = torch.tensor(pen.worked)
            conflict[i, here] = torch.tensor(_against(task, question, pen, prior))
            for whole, each in ((truth, pen.truth), (valid, pen.options)):
                for j, shares in enumerate(each, start=len(question)):
                    whole[i, j, [INDEX[token] for token in shares]] = torch.tensor(
                        list(shares.values()), dtype=torch.float32
                    )
        return cls(questions, tokens, at, truth, valid > 0, slipped, worked, conflict)


def padded(texts: Sequence[Sequence[str]]) -> Tensor:
    """As tokens, (N, LENGTH), padded by END."""
    ids = [[INDEX[token] for token in text] + [INDEX[END]] * (LENGTH - len(text)) for text in texts]
    return torch.tensor(ids)


def _against(task: ReasoningTask, question: Question, pen: Writer, prior: World) -> list[bool]:
    """Which tokens of a solution pretraining would not have written there, slips aside."""
    reader = Reader(pen.tokens)
    with contextlib.suppress(Illegible):
        task.solve(reader, question, prior)
    seen = [not valid for valid in reader.valid] + [False] * (len(pen.tokens) - len(reader.valid))
    return [no and not slip for no, slip in zip(seen, pen.slipped, strict=True)]


@dataclass(frozen=True)
class CachedTask(FineTuningTask):
    """A task with the logits of its frozen models, which are computed once and not at every step."""

    logits: Mapping[str, Tensor]  # context → (N, T, V): logits of each token, from what stands before it

    def context(self, needs: Sequence[str], old: SmallTransformer, rows: Tensor) -> dict[str, Any]:
        known = {name: logits[rows][self.at[rows]] for name, logits in self.logits.items() if name in needs}
        return known | super().context([name for name in needs if name not in known], old, rows)


@dataclass(frozen=True)
class Prepared:
    """What all cells of one seed share: what is true, the models trained on it, and questions that no training text
    asks."""

    prior: World
    taught: World
    models: Mapping[str, SmallTransformer]  # by size; pretrained
    teacher: SmallTransformer
    mixture: Tensor  # (N, LENGTH): text as in pretraining
    validation: Mapping[str, list[Question]]  # by task
    test: Mapping[str, list[Question]]


@functools.lru_cache(maxsize=1)
def prepared(plan: Plan, seed: int) -> Prepared:
    prior, taught = worlds(seed)
    questions = held_out(plan, seed)
    return Prepared(
        prior,
        taught,
        {size: model(plan, size, seed) for size in plan.sizes},
        model(plan, "teacher", seed),
        _texts(prior, questions, 100, seed + 1000),
        {name: some[: plan.validation] for name, some in questions.items()},
        {name: some[plan.validation :] for name, some in questions.items()},
    )


def held_out(plan: Plan, seed: int) -> dict[str, list[Question]]:
    """By task, questions that no training text asks: for validation, then for the test."""
    return {name: questions_not_in(task, plan.validation + plan.test, seed) for name, task in TASKS.items()}


#: Worse teachers than the one of the cells, for an ablation: `training_recipe` says what each has read.
TEACHERS = ("noisy teacher", "small teacher", "wrong teacher")


@dataclass(frozen=True)
class TrainingRecipe:
    """How large a model is, which world's texts it reads, and for how many steps."""

    size: TransformerSize
    world: World
    steps: int


def training_recipe(plan: Plan, name: str, seed: int) -> TrainingRecipe:
    """How the model of this name is trained: "0.1 M" and "0.35 M" are to be fine-tuned; the teacher reads solutions
    without slips; of the worse teachers one reads solutions with slips, one is no larger than a student, and one reads
    what pretraining reads. ValueError for another name."""
    prior, taught = worlds(seed)
    if name in plan.sizes:
        return TrainingRecipe(plan.sizes[name], prior, plan.pretraining_steps)
    read = {
        "teacher": clean(taught),
        "noisy teacher": taught,
        "small teacher": clean(taught),
        "wrong teacher": prior,
    }
    if name not in read:
        raise ValueError(f"training_recipe: name: expected one of {', '.join([*plan.sizes, *read])}, got {name!r}")
    return TrainingRecipe(plan.small if name == "small teacher" else plan.teacher, read[name], plan.teacher_steps)


def model(plan: Plan, name: str, seed: int) -> SmallTransformer:
    """The model of this name, trained by its recipe and frozen."""
    recipe = training_recipe(plan, name, seed)
    return trained_on(plan, name, recipe.size, recipe.world, recipe.steps, held_out(plan, seed), seed)


def trained(plan: Plan, name: str, seed: int) -> pd.DataFrame:
    """One row: how long it took to train the model of this name."""
    begin = time.perf_counter()
    model(plan, name, seed)
    return table_of([{"seed": seed, "method": name, "training_seconds": time.perf_counter() - begin}])


def time_per_step(plan: Plan) -> pd.DataFrame:
    """A row per kind of model: seconds for a step of training it on one core, the mean of `TIMED_STEPS`."""
    prior, _ = worlds(0)
    text = _texts(prior, held_out(plan, 0), TIMED_STEPS * plan.pretraining_batch, 0).split(plan.pretraining_batch)
    rows = []
    for name, size in {**plan.sizes, "teacher": plan.teacher}.items():
        begun = SmallTransformer(size, 0, plan.dtype)
        begin = time.perf_counter()
        pretrain(begun, text, plan.pretraining_rate, muon=False)
        rows.append({"seed": 0, "method": name, "step_seconds": (time.perf_counter() - begin) / TIMED_STEPS})
    return table_of(rows)


TIMED_STEPS = 50


def trained_on(
    plan: Plan,
    name: str,
    size: TransformerSize,
    world: World,
    steps: int,
    questions: Mapping[str, list[Question]],
    seed: int,
) -> SmallTransformer:
    """A model trained on texts of a world that ask none of these questions; frozen. The training runs on an accelerator
    where there is one."""
    model = SmallTransformer(size, seed, plan.dtype)
    place = "cuda" if torch.cuda.is_available() and plan.dtype == torch.float32 else "cpu"

    def train() -> None:
        text = _texts(world, questions, steps * plan.pretraining_batch, seed).to(place)
        pretrain(model.to(place), text.split(plan.pretraining_batch), plan.pretraining_rate, muon=False)
        model.to("cpu")

    kept = f"{seed}-{name.replace(' ', '-')}-{size.width}x{size.layers}-{steps}"
    cache.trained(NAME, kept, model, train)
    return model.requires_grad_(False)


def questions_not_in(task: ReasoningTask, count: int, seed: int, but: Sequence[Question] = ()) -> list[Question]:
    """Random questions of a task, none of them among `but`. Without `but` they are all different, as problems for
    validation and test must be; questions for training may repeat. Example: questions_not_in(task, 1024, 1, test).

    ValueError where the task has not so many.
    """
    draw = np.random.default_rng((seed, len(but), 3))
    never = {tuple(question) for question in but}
    found: list[Question] = []
    misses = 0  # how many in a row were not new
    while len(found) < count:
        question = task.question(draw)
        misses = misses + 1 if tuple(question) in never else 0
        if misses == MISSES:
            raise ValueError(f"{task.name}: questions: expected {count} beside {len(but)} others, got {len(found)}")
        if misses:
            continue
        if not but:
            never.add(tuple(question))
        found.append(question)
    return found


MISSES = 1000  # so many in a row mean that there are no more


def _texts(world: World, questions: Mapping[str, list[Question]], count: int, seed: int) -> Tensor:
    """Texts on all tasks in turn, (count, LENGTH), that ask none of these questions; padded by END."""
    draw = np.random.default_rng((seed, 5))
    different = min(count, DOCUMENTS) // len(TASKS)
    asks = [questions_not_in(task, different, seed, questions[name]) for name, task in TASKS.items()]
    texts = [
        [*question, *written(task, question, world, draw).tokens]
        for together in zip(*asks, strict=True)
        for task, question in zip(TASKS.values(), together, strict=True)
    ]
    return padded(texts)[shuffled_batches(len(texts), 1, count, seed)[0]]


#: How many different documents pretraining has, a fifth of them on each task; where it needs more, they come again.
DOCUMENTS = 15_000


@dataclass(frozen=True)
class Setting:
    """A task to be learned by a model of one size."""

    task: CachedTask
    texts: Texts
    exam: Texts  # right solutions of the test questions
    at_start: Tensor  # (N, V): what the pretrained model predicts of their tokens
    loss: float  # of that model on text as in pretraining, nats a token


@functools.lru_cache(maxsize=1)
def setting(plan: Plan, name: str, size: str, seed: int) -> Setting:
    h, task = prepared(plan, seed), TASKS[name]
    questions = questions_not_in(task, plan.demonstrations, seed + 1, [*h.validation[name], *h.test[name]])
    texts = Texts.of(task, questions, h.taught, h.prior, seed)
    exam = Texts.of(task, h.test[name], clean(h.taught), h.prior, seed + 1)
    reference = h.models[size]
    return Setting(
        cached(reference, h.teacher, texts), texts, exam, _predicted(reference, exam), _loss(reference, h.mixture)
    )


def cached(reference: SmallTransformer, teacher: SmallTransformer, texts: Texts) -> CachedTask:
    base = FineTuningTask.of(reference, teacher, texts.tokens, texts.at)
    logits = {"reference_logits": _logits(reference, texts.tokens), "teacher_logits": _logits(teacher, texts.tokens)}
    return CachedTask(**{f.name: getattr(base, f.name) for f in dataclasses.fields(FineTuningTask)}, logits=logits)


@torch.no_grad()
def _logits(model: SmallTransformer, tokens: Tensor) -> Tensor:
    """Logits (N, T, V) of each token, from what stands before it; zero for the first."""
    logits = torch.cat([model.logits(model(some[:, :-1])) for some in tokens.split(64)])
    return torch.nn.functional.pad(logits, (0, 0, 1, 0))


def fine_tune(plan: Plan, task: CachedTask, method: QMap, rate: float, seed: int) -> SmallTransformer:
    return training.fine_tune(method, task, steps=plan.steps, batch=plan.batch, lr=rate, seed=seed, decay=True)


def solutions(
    model: SmallTransformer,
    questions: Sequence[Question],
    samples: int,
    draw: torch.Generator | None,
    temperature: float = 1.0,
) -> list[list[list[str]]]:
    """For each question `samples` solutions drawn from the model; without a generator the likeliest token is taken."""
    found: list[list[list[str]]] = [[] for _ in questions]
    for length in sorted({len(question) for question in questions}):
        which = [i for i, question in enumerate(questions) if len(question) == length]
        prompts = torch.tensor([[INDEX[token] for token in questions[i]] for i in which])
        drawn = model.sample(prompts.repeat_interleave(samples, 0), LENGTH, INDEX[END], draw, temperature)
        for i, tokens in zip([i for i in which for _ in range(samples)], drawn[:, length:].tolist(), strict=True):
            found[i].append([VOCAB[token] for token in tokens])
    return found


def solved(
    plan: Plan, name: str, model: SmallTransformer, which: str, samples: int, seed: int, temperature: float = 1.0
) -> Row:
    """How often sampled solutions are right. `right` has a letter for each problem: a where none of its solutions is
    right, b where one is, …; `average` is the share of right solutions, `passed` that of problems with one."""
    h, task = prepared(plan, seed), TASKS[name]
    questions = getattr(h, which)[name]
    draw = torch.Generator().manual_seed(seed)
    drawn = solutions(model, questions, samples, draw, temperature)
    verdicts = [[verify(task, q, text, h.taught) for text in texts] for q, texts in zip(questions, drawn, strict=True)]
    right = [sum(v.right for v in some) for some in verdicts]
    return {
        "right": "".join(chr(ord("a") + count) for count in right),
        "average": sum(right) / samples / len(right),
        "passed": sum(count > 0 for count in right) / len(right),
        "valid": sum(v.valid for some in verdicts for v in some) / samples / len(right),
    }


def measured(plan: Plan, name: str, size: str, model: SmallTransformer, seed: int) -> Row:
    """What is measured of one trained model. Its smooth ECE (Błasiok and Nakkiran) is that of the likeliest token."""
    from relplot import smECE  # takes seconds to import

    h, task, given = prepared(plan, seed), TASKS[name], setting(plan, name, size, seed)
    questions, exam = h.test[name], given.exam
    greedy = [some[0] for some in solutions(model, questions, 1, None)]
    p, labels = _predicted(model, exam), exam.tokens[exam.at]
    found = against_truth(p, exam.truth[exam.at])
    confidence, choice = p.max(-1)
    return solved(plan, name, model, "test", plan.samples, seed) | {
        "greedy": sum(verify(task, q, text, h.taught).right for q, text in zip(questions, greedy, strict=True))
        / len(questions),
        "kl_truth": found["kl"].mean().item(),
        "smooth_ece": float(smECE(confidence.numpy(), (choice == labels).double().numpy())),
        "kl_start": (torch.xlogy(p, p) - torch.xlogy(p, given.at_start)).sum(-1).mean().item(),
        "forgotten": _loss(model, h.mixture) - given.loss,
    }


def _predicted(model: SmallTransformer, texts: Texts) -> Tensor:
    """The model's distributions of the solutions' tokens, (N, V) float64."""
    return model.predictions(texts.tokens, texts.at).double().softmax(-1)


def _loss(model: SmallTransformer, tokens: Tensor) -> float:
    """The mean cross-entropy of all tokens but the first, in nats a token."""
    at = (torch.arange(tokens.shape[1]) > 0).expand(tokens.shape)
    return torch.nn.functional.cross_entropy(model.predictions(tokens, at).double(), tokens[at]).item()


def trusted(plan: Plan, name: str, size: str, choice: Choice, seed: int) -> Row:
    """The method's mean trust before the first step in three groups of tokens of demonstrations: slips, right tokens
    that were worked out, and those of the latter that pretraining taught otherwise."""
    given = setting(plan, name, size, seed)
    rows = torch.arange(min(256, plan.demonstrations))
    trust = given.task.trust(choice.qmap, given.task.reference, given.task.reference, rows)
    texts, at = given.texts, given.texts.at[rows]  # noqa: PD008
    slipped, worked, conflict = (x[rows][at] for x in (texts.slipped, texts.worked, texts.conflict))
    groups = {"slipped": slipped, "worked": worked & ~slipped, "conflict": conflict & worked & ~slipped}
    return {f"trust_{group}": trust[which].mean().item() for group, which in groups.items()}


def cell(plan: Plan, name: str, size: str, choice: Choice, seed: int) -> pd.DataFrame:
    """One row: a model fine-tuned by one method in one setting, and what is measured of it."""
    given = setting(plan, name, size, seed)  # what cells share does not count
    begin = time.perf_counter()
    model = fine_tune(plan, given.task, choice.qmap, choice.rate, seed)
    trained = time.perf_counter()
    row = measured(plan, name, size, model, seed)
    seconds = {"training_seconds": trained - begin, "measuring_seconds": time.perf_counter() - trained}
    return table_of([about(name, size, choice, seed) | row | trusted(plan, name, size, choice, seed) | seconds])


def before_fine_tuning(plan: Plan, name: str, size: str, seed: int) -> pd.DataFrame:
    """Two rows: what is measured of the pretrained model and of the teacher."""
    h = prepared(plan, seed)
    models = {"pretrained": h.models[size], "teacher": h.teacher}
    rows = [
        about(name, size, Choice(which, 0.0), seed) | measured(plan, name, size, model, seed)
        for which, model in models.items()
    ]
    return table_of(rows)


def about(name: str, size: str, choice: Choice, seed: int) -> Row:
    return {"task": name, "size": size, "seed": seed} | dataclasses.asdict(choice)


def table_of(rows: list[Row]) -> pd.DataFrame:
    rounded = [{k: round(v, ROUNDED) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    return pd.DataFrame(rounded).assign(torch=torch.__version__)


def steps_timed(plan: Plan, choices: Mapping[tuple[str, str], Choice]) -> pd.DataFrame:
    """A row per method: seconds for a step of fine-tuning on one core with nothing beside it, the least of three means
    over `TIMED` steps."""
    name, size, seed = next(iter(TASKS)), next(iter(plan.sizes)), plan.seeds[0]
    task, short = setting(plan, name, size, seed).task, dataclasses.replace(plan, steps=TIMED)
    taken: dict[str, list[float]] = {method: [] for method in METHODS}
    for method in METHODS * 3:
        begin = time.perf_counter()
        fine_tune(short, task, choices[name, method].qmap, 1e-3, seed)
        taken[method].append((time.perf_counter() - begin) / TIMED)
    return table_of([about(name, size, choices[name, m], seed) | {"step_seconds": min(taken[m])} for m in METHODS])


TIMED = 20  # steps


# ---- tuning ----------------------------------------------------------------------------------------------------------
def tuned(plan: Plan, name: str, method: str) -> pd.DataFrame:
    """Four runs of the small model on the first seed: two rates, and at the better of them two more values of the
    method's parameter, or two more rates where it has none. A row for each run, with the share of right solutions
    among four of every validation problem."""
    size, seed = next(iter(plan.sizes)), plan.seeds[0]
    rows: list[Row] = []
    task = setting(plan, name, size, seed).task

    def tried(choice: Choice) -> None:
        begin = time.perf_counter()
        model = fine_tune(plan, task, choice.qmap, choice.rate, seed)
        trained = time.perf_counter() - begin
        found = solved(plan, name, model, "validation", 4, seed)
        shares = {"average": found["average"], "valid": found["valid"]}
        rows.append(about(name, size, choice, seed) | shares | {"training_seconds": trained})

    for rate in RATES:
        tried(Choice(method, rate))
    best = max(rows, key=lambda row: row["average"])["rate"]
    parameter, values = OTHERS.get(method, ("", ()))
    for value in values:
        tried(Choice(method, best, parameter, value))
    for factor in () if parameter else FINER:
        tried(Choice(method, best * factor))
    return table_of(rows)


def chosen(table: pd.DataFrame) -> Choice:
    """The best of the runs of one task and method."""
    best = table.iloc[int(table["average"].astype(float).to_numpy().argmax())]
    value = float(best["value"]) if best["parameter"] else float("nan")
    return Choice(str(best["method"]), float(best["rate"]), str(best["parameter"]), value)
