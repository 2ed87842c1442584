#!/usr/bin/env bash
# transformers 5 trains the bf16 weights of a file as they are: at a rate of 1e-5, five of six weights never move.
#
# Guess    from_pretrained gives float32, as for years, and bf16=True in TrainingArguments means mixed precision, with
#          weights kept in float32.
# Truth    Since version 5 the weights come in the type of the file, and Trainer keeps no copy: Adam steps of about the
#          learning rate are rounded to bf16 after every step. Beside a weight of 0.02 the next bf16 number is 0.0001
#          away. After 100 steps of full fine-tuning at 1e-5, 15 % of the weights have moved (98 % in float32), and the
#          loss has fallen by a sixth of what it falls in float32; at 1e-4 the two agree. Nothing is said.
# Source   transformers 5.23.0; Trainer, AdamW of torch 2.13.0. TRL hands the model on as it is given.
# Instead  from_pretrained(..., dtype=torch.float32) with bf16=True; adapters of PEFT are float32 in any case.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 TQDM_DISABLE=1 "$python" - <<'END'
import tempfile
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

print("transformers", version("transformers"), "torch", version("torch"))
torch.manual_seed(0)
folder = tempfile.mkdtemp()
config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
)  # weights of standard deviation 0.02, as the usual ones
LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
ids = torch.stack([torch.randperm(256)[:64] for _ in range(8)])
data = [{"input_ids": row, "labels": row} for row in ids]


def trained(rate, **given):
    """Which share of the weights has moved after 100 steps, and by how much the loss has fallen."""
    model = AutoModelForCausalLM.from_pretrained(folder, **given)
    before = [p.detach().clone() for p in model.parameters()]
    args = TrainingArguments(
        tempfile.mkdtemp(), max_steps=100, per_device_train_batch_size=8, learning_rate=rate, bf16=True, use_cpu=True,
        lr_scheduler_type="constant", report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    with torch.no_grad():
        first = model(input_ids=ids, labels=ids).loss.item()
    Trainer(model, args, train_dataset=data).train()
    with torch.no_grad():
        fallen = first - model(input_ids=ids, labels=ids).loss.item()
    moved = sum(int((p != b).sum()) for p, b in zip(model.parameters(), before, strict=True))
    share = moved / sum(b.numel() for b in before)
    print(f"rate {rate:g}, {before[0].dtype}: {share:.0%} of the weights have moved, the loss fell by {fallen:.3f}")
    return before[0].dtype, share, fallen


as_filed, upcast = trained(1e-5), trained(1e-5, dtype=torch.float32)
faster, upcast_faster = trained(1e-4), trained(1e-4, dtype=torch.float32)
holds = as_filed[0] == torch.bfloat16 and as_filed[1] < 0.3 and upcast[1] > 0.9 and as_filed[2] < upcast[2] / 3
holds = holds and abs(faster[2] / upcast_faster[2] - 1) < 0.2
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
