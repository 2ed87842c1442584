"""Short runs of a trainer on the small model, and the same optimizer steps by hand on whole logits."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from trl import SFTConfig

import qunify as qu
from qunify import hf
from tests import small_llama

datasets.disable_progress_bars()
gc.freeze()  # a trainer collects garbage when it starts, which costs more than its run if libraries are looked through

TOKENIZER = small_llama.tokenizer()
TEXTS = small_llama.sentences()
RATE = 0.1
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "padding_free": {"padding_free": True, "max_length": None},
    "packed": {"packing": True, "max_length": 24, "per_device_train_batch_size": 8},
    "checkpointed": {"gradient_checkpointing": True},
}


def config(out: Any, **settings: Any) -> SFTConfig:
    """One step of plain gradient descent on all examples at once, unless the settings say otherwise."""
    plain = {
        "output_dir": str(out), "max_steps": 1, "per_device_train_batch_size": 8, "learning_rate": RATE,
        "optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0, "logging_steps": 1, "max_length": 32,
        "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
        "disable_tqdm": True,
    }  # fmt: skip
    return SFTConfig(**{**plain, **settings})


def model(**settings: Any) -> Any:
    return small_llama.model(**settings).double()


def dataset(**columns: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns or {"text": TEXTS})


def train(out: Any, cls: Any = hf.SFTTrainer, *, settings: Any = None, **options: Any) -> Any:
    if issubclass(cls, hf.SFTTrainer):
        options = {"method": "dft", **options}
    options = {"model": None, "train_dataset": None, "processing_class": TOKENIZER, **options}
    options["model"] = model() if options["model"] is None else options["model"]
    options["train_dataset"] = dataset() if options["train_dataset"] is None else options["train_dataset"]
    trainer = cls(args=config(out, **settings or {}), **options)
    trainer.train()
    return trainer


def tokens(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def examples(texts: Sequence[str] = TEXTS) -> list[tuple[list[int], list[int]]]:
    """Ids and labels as the trainer makes them of text."""
    ids = [tokens(text + "</s>") for text in texts]
    return [(x, x) for x in ids]


def logits(m: nn.Module, data: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """(all positions but the last of each, V), one example at a time and without padding."""
    return torch.cat([m(torch.tensor([ids])).logits[0, :-1] for ids, _ in data])


def labels(data: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    return torch.cat([torch.tensor(y[1:]) for _, y in data])


def by_hand(
    m: nn.Module,
    method: Any,
    data: Sequence[tuple[list[int], list[int]]],
    steps: int = 1,
    context: Callable[[nn.Module, int], dict[str, Any]] = lambda m, step: {},
) -> tuple[nn.Module, list[float]]:
    """The model after some steps of gradient descent on all data at once, and the losses. `method` may be a function
    of the step."""
    m, found = copy.deepcopy(m), []
    for step in range(steps):
        given = context(m, step)
        now = method(step) if callable(method) and not isinstance(method, qu.QMap) else method
        loss = qu.loss(now)(logits(m, data), labels(data), **given)
        m.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in m.parameters():
                if p.grad is not None:
                    p.sub_(RATE * p.grad)
        found.append(loss.item())
    return m, found


def apart(a: nn.Module, b: nn.Module) -> float:
    """The largest difference of any two parameters; NaN counts as infinite."""
    pairs = list(zip(a.parameters(), b.parameters(), strict=True))
    return max(float((p - q).detach().abs().nan_to_num(torch.inf).max()) for p, q in pairs)


def losses(trainer: Any) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def logged(trainer: Any, name: str) -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]
