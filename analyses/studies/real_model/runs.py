"""Trainings of SmolLM2-135M by qunify's trainer, each kept when it is finished: a stopped run goes on."""

from __future__ import annotations

import functools
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.kit import cache
from analyses.kit.real import MODEL
from analyses.studies.real_model import chosen, flagged, measure
from analyses.studies.real_model.data import (
    ANSWERED,
    ELSEWHERE,
    ELSEWHERE_TOKENS,
    Text,
    demonstrations,
    encoded,
    kinds,
    model,
    prompt,
    tokenizer,
)
from analyses.studies.real_model.recipes import (
    LATER,
    LONGER,
    MAIN,
    MEASURED,
    OLD_EVERY,
    PER_STEP,
    PLAIN,
    RATES,
    RECIPES,
    SEEDS,
    STEPS,
    Recipe,
    otherwise,
)

TEACHER_STEPS, TEACHER_RATE = 50, 1e-3
NOISE = 0.1  # of the standard deviation of each matrix, in the noisy teacher
ROUNDED = 6  # decimals kept: the arithmetic is float32
COLUMNS = ["recipe", "method", "rate", "seed", "step", "group", "quantity", "value", "n"]


def measured() -> pd.DataFrame:
    """All rows: the start, and every training. One takes five minutes of a core."""
    parts = [cache.part("real_model", "start", start)]
    parts += [run(recipe, rate, 0) for recipe in RECIPES for rate in RATES]
    parts += [run(*one) for one in further(_typed(pd.concat(parts)))]
    return _typed(pd.concat(parts))


def further(first: pd.DataFrame) -> list[tuple[Recipe, float, int]]:
    """What is trained once each recipe has its rate: further seeds, and the other ways."""
    own = {recipe.method: chosen(first, recipe.name) for recipe in RECIPES if recipe.name in MAIN}
    seeds = [(r, own[r.method], seed) for seed in range(1, SEEDS) for r in RECIPES if r.name in MAIN]
    return seeds + [(recipe, rate or own[recipe.method], 0) for recipe, rate in otherwise()]


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    table = table[COLUMNS].astype({"rate": float, "seed": int, "step": int, "n": int})
    return table.assign(value=pd.to_numeric(table["value"]).round(ROUNDED)).reset_index(drop=True)


def run(recipe: Recipe, rate: float, seed: int) -> pd.DataFrame:
    way = f"-{recipe.way.name.replace(' ', '_')}" if recipe.way.name else ""
    name = f"{recipe.method}-{recipe.teacher or 'alone'}{way}-{rate:g}-{seed}"
    return cache.part("real_model", name, lambda: trained(recipe, rate, seed))


@functools.cache
def held_out() -> list[Text]:
    return [encoded(row) for row in demonstrations().held_out]


@functools.cache
def groups() -> list[str]:
    return kinds(demonstrations().held_out, model())


@functools.cache
def elsewhere() -> list[Text]:
    """Other requests, with the answers of the model as it was."""
    prompts = [prompt(request) for request in ELSEWHERE]
    said = measure.continued(model(), prompts, ELSEWHERE_TOKENS)
    return [Text(p + s, [*range(len(p), len(p) + len(s))]) for p, s in zip(prompts, said, strict=True)]


@functools.cache
def as_it_was() -> list[Tensor]:
    """log p of the model as it was, at these answers of its own."""
    first = model().eval()
    return [measure.log_probabilities(first, text) for text in elsewhere()]


def start() -> pd.DataFrame:
    """Measured before any training."""
    first = model().eval()
    table = pd.concat([_state(first, 0), measure.answers(first, demonstrations().held_out[:ANSWERED])])
    return table.assign(recipe="start", method="start", rate=0.0, seed=0, step=0)[COLUMNS]


def _state(model: Any, step: int) -> pd.DataFrame:
    table = measure.summary(measure.predictions(model, held_out()), groups())
    if step in (0, STEPS):
        choice = measure.predictions(model, [encoded(row) for row in demonstrations().choice])
        chosen = {"group": "all", "quantity": "accuracy, choice", "value": float(choice["right"].mean())}
        table = pd.concat([table, pd.DataFrame([{**chosen, "n": len(choice)}])])
    return table.assign(step=step)


def trained(recipe: Recipe, rate: float, seed: int) -> pd.DataFrame:
    """One training, measured on the way; the ledger is its last rows. Questions are answered after the plain way and
    after more steps of it."""
    found: list[pd.DataFrame] = []
    begun, spent = time.perf_counter(), [0.0]
    before = flagged.measured(model().eval()) if recipe.way.flagged else None

    def watch(step: int, model: Any) -> bool:
        """Measure; whether the model is still one."""
        if step not in (*MEASURED, *LATER):
            return True
        since = time.perf_counter()
        model.eval()
        table = _state(model, step)
        far = {"group": "elsewhere", "quantity": "KL from the start", "n": sum(len(t.places) for t in elsewhere())}
        parts = [table, pd.DataFrame([{**far, "value": measure.moved(model, elsewhere(), as_it_was())}])]
        if before is not None and step == STEPS:
            parts.append(flagged.gains(before, flagged.measured(model)))
        found.append(pd.concat(parts).assign(step=step))
        model.train()
        spent[0] += time.perf_counter() - since
        return bool(np.isfinite(table["value"]).all())

    texts = _in_order(recipe, seed)
    spent[0] += time.perf_counter() - begun
    trainer = _trainer(recipe, texts, rate, seed, watch)
    trainer.train()
    seconds = time.perf_counter() - begun - spent[0]
    last = int(trainer.state.global_step)
    ledger = {"seconds": seconds, "tokens": sum(len(text.places) for text in texts), "steps": last}
    if recipe.way in (PLAIN, LONGER):
        found.append(measure.answers(trainer.model.eval(), demonstrations().held_out[:ANSWERED]).assign(step=last))
    rows = [{"group": "ledger", "quantity": k, "value": v, "n": 1, "step": last} for k, v in ledger.items()]
    table = pd.concat([*found, pd.DataFrame(rows)])
    return table.assign(recipe=recipe.name, method=recipe.method, rate=rate, seed=seed)[COLUMNS]


def _in_order(recipe: Recipe, seed: int) -> list[Text]:
    """The texts of all steps, one after the other: of every recipe the same, where all kinds of token are trained on
    people's demonstrations."""
    rows = demonstrations().train
    texts = flagged.training() if recipe.way.flagged else [encoded(row) for row in rows]
    kept = _only(texts, rows, recipe.way.only) if recipe.way.only else texts
    first = [kept[i] for i in np.random.default_rng(seed).permutation(len(kept))[: STEPS * PER_STEP]]
    return first + [encoded(row) for row in demonstrations().further[: recipe.way.steps * PER_STEP - len(first)]]


def _only(texts: list[Text], rows: list[dict[str, Any]], kind: str) -> list[Text]:
    """The same texts, trained on tokens of one kind."""
    of = iter(kinds(rows, model()))
    return [Text(text.ids, [place for place in text.places if next(of) == kind]) for text in texts]


def _trainer(recipe: Recipe, texts: list[Text], rate: float, seed: int, watch: Any) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if not watch(state.global_step, model):
                control.should_training_stop = True

    rows: list[dict[str, Any]] = [text.row for text in texts]
    if recipe.method == "iw_sft":
        rows = [
            {**row, "token_weight": [w] * len(row["input_ids"])} for row, w in zip(rows, _weights(texts), strict=True)
        ]
    if recipe.method == "cft":
        rows = [{**row, "token_mask": _mask(text)} for row, text in zip(rows, texts, strict=True)]
    given: dict[str, Any] = {"old_every": OLD_EVERY} if recipe.method == "psft" else {}
    if "reference_logits" in recipe.map.needs:
        given["reference_model"] = str(MODEL) if recipe.way.all_parameters else "base"
    if recipe.teacher:
        given["teacher_model"] = str(teacher(recipe.teacher))
    return build(rows, recipe, rate, seed, [Watch()], recipe.way.steps, given)


def build(
    rows: list[dict[str, Any]], recipe: Recipe, rate: float, seed: int, callbacks: list[Any], steps: int,
    given: dict[str, Any],
) -> Any:  # fmt: skip
    """The trainer: Adam at a constant rate on LoRA of rank 8 on every linear layer but the head, unless the recipe's
    way says otherwise; the arithmetic in bfloat16 where trainers have it so, texts in their order, 4 a step."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from trl import SFTConfig

    from qunify import hf

    class InOrder(hf.SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    folder = tempfile.mkdtemp()
    # Plain descent is what its first step was foretold for only where gradients are not clipped.
    optimizer: dict[str, Any] = {"optim": "sgd", "max_grad_norm": 0.0} if recipe.way.plain_descent else {}
    args = SFTConfig(
        folder, max_steps=steps, per_device_train_batch_size=PER_STEP, learning_rate=rate, seed=seed,
        lr_scheduler_type="constant", weight_decay=0.0, use_cpu=True, bf16=True,
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True, max_length=None,
        dataloader_pin_memory=False, **optimizer,
    )  # fmt: skip
    set_seed(seed)  # of the adapter
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return InOrder(
            model(), args, method=recipe.map, processing_class=tokenizer(), train_dataset=Dataset.from_list(rows),
            peft_config=None if recipe.way.all_parameters else lora, callbacks=callbacks, **given,
        )  # fmt: skip


def _weights(texts: list[Text]) -> list[float]:
    """One for each demonstration: each counts the same, however long, and their mean is 1."""
    weights = [1 / len(text.places) for text in texts]
    return [w / float(np.mean(weights)) for w in weights]


def _mask(text: Text) -> list[float]:
    """Digits, calculator marks and the end of turn are what counts; everything else is left out."""
    pieces = [tokenizer().decode([x]) for x in text.ids]
    return [float(any(c.isdigit() or c in "<>" for c in piece)) for piece in pieces]


def teacher(kind: str) -> Path:
    """The folder of a teacher: "tuned" by cross-entropy on other demonstrations, or the start made "noisy"."""
    folder = cache.FOLDER / "real_model" / f"teacher-{kind}-{TEACHER_STEPS}-{TEACHER_RATE:g}-{NOISE:g}"
    if not folder.is_dir():
        made = _tuned() if kind == "tuned" else _noisy()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            made.save_pretrained(Path(work) / "model")
            (Path(work) / "model").rename(folder)
    return folder


def _tuned() -> Any:
    rows = [encoded(row).row for row in demonstrations().teacher]
    trainer = build(rows, Recipe("sft"), TEACHER_RATE, 0, [], TEACHER_STEPS, {})
    trainer.train()
    return trainer.model.merge_and_unload()


@torch.no_grad()
def _noisy() -> Any:
    made, draw = model(), torch.Generator().manual_seed(0)
    for p in made.parameters():
        if p.dim() == 2:
            p += NOISE * p.std() * torch.randn(p.shape, generator=draw)
    return made
