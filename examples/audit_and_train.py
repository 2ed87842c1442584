"""Ask what a recipe would do to your model, train an adapter by it, and ask again: what moved?

`python examples/audit_and_train.py MODEL DEMONSTRATIONS --method eaft` takes a folder with a causal language model and
a jsonl of demonstrations, or another file that `qunify audit` reads, and needs the extra `hf`.
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig

from qunify import audit, hf

parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
parser.add_argument("model")
parser.add_argument("demonstrations")
parser.add_argument("--method", default="sft")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--rate", type=float, default=2e-4)
parser.add_argument("--out", default="trained")
args = parser.parse_args()

cpu = not torch.accelerator.is_available()
before = audit.run(args.model, args.demonstrations, methods=[args.method], progress=True)
trainer = hf.SFTTrainer(
    args.model,
    SFTConfig(args.out, max_steps=args.steps, learning_rate=args.rate, use_cpu=cpu, bf16=not cpu, report_to="none"),
    method=args.method,
    train_dataset=Dataset.from_list(before.training_rows()),
    peft_config=LoraConfig(target_modules="all-linear"),
)
trainer.train()
trainer.save_model()
after = audit.run(trainer.model, args.demonstrations, args.model, methods=[args.method], progress=True)
print(before.sentences[0], after.sentences[0], sep="\n")
moved = before.groups.merge(after.groups, on=["group", "method"], suffixes=(" before", " after"))
print(moved[["group", "tokens before", "u before", "u after", "trust before", "trust after"]].to_string(index=False))
