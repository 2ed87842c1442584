"""Does the first step foretell what training does to your model? Methods × learning rates × seeds, each with LoRA.

`python examples/real_settings.py MODEL DEMONSTRATIONS --out settings.csv` takes a folder with a causal language model
and a jsonl, or another file that `qunify audit` reads, and needs the extra `hf`. What each method's first step does to
each kind of token is worked out first, on some 2,000 tokens; then every method is trained on three quarters of the
demonstrations, and the change of mean log u is measured on the rest. A run is written to the file as soon as it ends;
started again, it goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import set_seed
from trl import SFTConfig

from qunify import audit, hf

KEY = ["method", "rate", "seed"]

parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
parser.add_argument("model")
parser.add_argument("demonstrations")
parser.add_argument("--methods", default="sft,dft,beyond_log,eaft")
parser.add_argument("--rates", default="2e-4,1e-3")
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--limit", type=int, help="take the first so many demonstrations")
parser.add_argument("--out", type=Path, default=Path("settings.csv"))
args = parser.parse_args()

methods, rates = args.methods.split(","), [float(rate) for rate in args.rates.split(",")]
foretold = audit.run(
    args.model, args.demonstrations, methods=methods, influence=True, limit=args.limit, progress=True,
    keep=args.out.with_suffix(".parts"),
)  # fmt: skip
rows = foretold.training_rows()
order = np.random.default_rng(0).permutation(len(rows))
held = set(order[: max(1, len(rows) // 4)].tolist())
train = Dataset.from_list([row for i, row in enumerate(rows) if i not in held])
done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=KEY)


def mean_log_u(model: object) -> pd.Series:
    """By kind of token, on the demonstrations held out."""
    tokens = audit.run(model, args.demonstrations, args.model, methods=["sft"], limit=args.limit).tokens
    numbers = {example: i for i, example in enumerate(tokens["example"].unique())}
    here = tokens[tokens["example"].map(numbers).isin(held)]
    return np.log(here["u"]).groupby(here["group"]).mean()


def trained(method: str, rate: float, seed: int) -> object:
    cpu = not torch.accelerator.is_available()
    set_seed(seed)  # of the adapter
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder, max_steps=args.steps, learning_rate=rate, lr_scheduler_type="constant", seed=seed, use_cpu=cpu,
            bf16=not cpu, save_strategy="no", report_to="none",
        )  # fmt: skip
        peft = LoraConfig(target_modules="all-linear")
        trainer = hf.SFTTrainer(args.model, settings, method=method, train_dataset=train, peft_config=peft)
        trainer.train()
    return trainer.model.eval()


start = mean_log_u(args.model)
for method, rate, seed in itertools.product(methods, rates, range(args.seeds)):
    if ((done["method"] == method) & (done["rate"] == rate) & (done["seed"] == seed)).any():
        continue
    after = mean_log_u(trained(method, rate, seed))
    first = foretold.groups[foretold.groups["method"] == method].set_index("group")["influence"]
    new = pd.DataFrame({"influence": first, "before": start, "after": after}).rename_axis("group").reset_index()
    done = pd.concat([done, new.assign(method=method, rate=rate, seed=seed)], ignore_index=True)
    done.to_csv(args.out.with_suffix(".partial"), index=False)
    args.out.with_suffix(".partial").replace(args.out)
changes = (
    done.assign(change=done["after"] - done["before"]).groupby([*KEY[:2], "group"])[["influence", "change"]].mean()
)
print(changes.pivot_table(index=KEY[:2], columns="group", values="change").round(2).to_string())
print(f"Rank correlation of the first step with training: {changes.corr('spearman').to_numpy()[0, 1]:.2f}")
