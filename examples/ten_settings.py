"""The ten settings with public models and data, on GPUs of one's own: five models, mathematics and medicine.

`python examples/ten_settings.py maths qwen2.5-1.5b --method target_sft --out runs/a` fine-tunes one of them and saves
it. Models, teachers and data come from the Hugging Face hub, or from the folders and files given in their place.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

import qunify as qu
from qunify import hf

#: Model → its name on the hub, and one at least as large over the same tokens, as the teacher.
MODELS = {
    "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen2.5-math-1.5b": ("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen2.5-3b": ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-3B-Instruct"),
    "llama-3.2-1b": ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B-Instruct"),
}


def maths(row: Mapping[str, str]) -> dict[str, str]:
    return {"prompt": row["problem"] + "\n\n", "completion": row["solution"]}


def medicine(row: Mapping[str, str]) -> dict[str, str]:
    return {"prompt": row["Question"] + "\n\n", "completion": row["Complex_CoT"] + "\n\n" + row["Response"]}


#: Data → the arguments of `load_dataset`, and how a row becomes prompt and completion.
DATA: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, str]], dict[str, str]]]] = {
    "maths": (("AI-MO/NuminaMath-CoT",), maths),
    "medicine": (("FreedomIntelligence/medical-o1-reasoning-SFT", "en"), medicine),
}

CONFIG: dict[str, Any] = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 20,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 16,
    "max_length": 4096,
    "packing": True,
    "bf16": True,
    "gradient_checkpointing": True,
    "completion_only_loss": True,
    "logging_steps": 10,
    "report_to": "none",
}


def demonstrations(data: str, file: Path | None, examples: int) -> Dataset:
    """The first so many rows as prompts and completions; of a JSON file with the same columns, if one is given."""
    names, converted = DATA[data]
    rows = load_dataset("json", data_files=str(file)) if file else load_dataset(*names)
    rows = rows["train"].select(range(min(examples, len(rows["train"]))))
    return rows.map(converted, remove_columns=rows.column_names)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--method", default="target_sft", choices=qu.names(), metavar="ID")
    parser.add_argument("--params", type=json.loads, default={}, metavar="JSON", help="such as '{\"eta\": 0.5}'")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--examples", type=int, default=30_000)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model-path", help="a folder in place of the hub's model")
    parser.add_argument("--teacher-path", help="a folder in place of the hub's teacher")
    parser.add_argument("--data-file", type=Path, help="a JSON file in place of the hub's data")
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="more of TRL's SFTConfig")
    args = parser.parse_args(arguments)

    name, teacher = MODELS[args.model]
    method = qu.get(args.method, **args.params)
    others: dict[str, Any] = {
        keyword: AutoModelForCausalLM.from_pretrained(path, dtype="auto")
        for context, keyword, path in (
            ("teacher_logits", "teacher_model", args.teacher_path or teacher),
            ("reference_logits", "reference_model", args.model_path or name),
        )
        if context in method.needs
    }
    trainer = hf.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(args.model_path or name, dtype="auto"),
        SFTConfig(output_dir=str(args.out), max_steps=args.steps, **CONFIG | args.config),
        method=method,
        old_every=10 if "old_logits" in method.needs else None,
        train_dataset=demonstrations(args.data, args.data_file, args.examples),
        processing_class=AutoTokenizer.from_pretrained(args.model_path or name),
        **others,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
