"""Fine-tune a small Llama by four losses from one config; save, reload, and let each answer.

`python examples/finetune.py` makes everything itself: a tokenizer, a base model that has read sums with many wrong
answers, and a teacher that has read right ones. Then TRL fine-tunes copies of the base on answered sums, a few of them
wrong. It needs the extra `hf` and, on two CPU cores, under three minutes; `--quick` is too short to learn much.
"""

from __future__ import annotations

import argparse
import copy
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
)
from transformers.utils import logging
from trl import SFTConfig

import qunify as qu
from qunify import hf

#: What is compared: a method, its parameters, and whether it asks the teacher.
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "dft": {"method": "dft"},
    "target_sft": {"method": "target_sft", "method_params": {"eta": 0.5}, "teacher": True},
    "designed": {
        "method": qu.design(
            "half_trusting",
            trust=lambda t: 0.5 + 0.5 * t.p_label,
            residual=lambda t: t.geometric(t.policy, t.teacher, 0.5),
        ),
        "teacher": True,
    },
}

CONFIG: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 2,
    "learning_rate": 2e-3,
    "logging_steps": 10,
    "packing": False,
    "completion_only_loss": True,
    "max_length": 32,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "seed": 0,
}

WRONG = 0.15  # share of the answers to learn from that are wrong


def sums(count: int, wrong: float, seed: int) -> list[dict[str, str]]:
    """Questions such as "7 + 5 =", and answers, some of them off by a little."""
    r = random.Random(seed)
    found = []
    for _ in range(count):
        a, b = r.randint(0, 9), r.randint(0, 9)
        answer = a + b + (r.choice((-2, -1, 1, 2)) if r.random() < wrong else 0)
        found.append({"prompt": f"{a} + {b} =", "completion": f" {max(answer, 0)} ."})
    return found


def a_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<unk>", "<pad>", "<s>", "</s>"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def pretrained(tokenizer: PreTrainedTokenizerFast, texts: list[str], steps: int) -> LlamaForCausalLM:
    """A Llama of two layers that has read these texts."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    r = random.Random(0)
    for _ in range(steps):
        batch = tokenizer(r.choices(texts, k=64), return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def answered(model: Any, tokenizer: Any, questions: list[dict[str, str]]) -> float:
    """The share of questions that greedy decoding answers rightly."""
    batch = tokenizer([q["prompt"] for q in questions], return_tensors="pt", padding=True, padding_side="left")
    written = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=1, do_sample=False
    )
    said = tokenizer.batch_decode(written[:, -1:])
    return sum(s.strip() == q["completion"].split()[0] for s, q in zip(said, questions, strict=True)) / len(questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the models go (default: a temporary folder)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    disable_progress_bars()
    logging.disable_progress_bar()
    steps, reading = (10, 30) if args.quick else (60, 300)

    told = [s["prompt"] + s["completion"] for s in sums(4000, wrong=0.0, seed=1)]
    muddled = [s["prompt"] + s["completion"] for s in sums(4000, wrong=0.6, seed=2)]
    tokenizer = a_tokenizer(told + muddled)
    base, teacher = (pretrained(tokenizer, texts, reading * more) for texts, more in ((muddled, 1), (told, 2)))
    data = Dataset.from_list(sums(600 if args.quick else 2000, WRONG, seed=3))
    questions = [{"prompt": f"{a} + {b} =", "completion": f" {a + b} ."} for a in range(10) for b in range(10)]

    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        print(f"{'':12}{'loss':>8}{'trust':>8}{'scale':>8}{'in simplex':>12}{'right':>8}")
        print(f"{'before':12}{'':36}{answered(base.eval(), tokenizer, questions):>8.0%}")
        for name, setting in METHODS.items():
            trainer = hf.SFTTrainer(
                copy.deepcopy(base),
                SFTConfig(output_dir=str(out / name), max_steps=steps, **CONFIG),
                method=setting["method"],
                method_params=setting.get("method_params"),
                teacher_model=teacher if setting.get("teacher") else None,
                train_dataset=data,
                processing_class=tokenizer,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            trainer.save_model()  # safetensors
            last = next(entry for entry in reversed(trainer.state.log_history) if "trust" in entry)
            again = AutoModelForCausalLM.from_pretrained(out / name)
            right = answered(again.eval(), AutoTokenizer.from_pretrained(out / name), questions)
            loss, *shares = (last[key] for key in ("loss", "trust", "gradient_scale", "in_simplex"))
            print(f"{name:12}{loss:>8.3f}{shares[0]:>8.2f}{shares[1]:>8.2f}{shares[2]:>12.0%}{right:>8.0%}", flush=True)


if __name__ == "__main__":
    main()
