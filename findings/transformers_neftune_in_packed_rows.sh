#!/usr/bin/env bash
# transformers' NEFTune divides the noise by the length of the padded batch: packing takes most of it away.
#
# Guess    Noise of alpha / sqrt(L d) for a demonstration of L tokens, as in the paper, whatever lies beside it.
# Truth    L is the length of the row that reaches the embedding, padding and neighbours included. A demonstration of
#          25 tokens gets noise of up to 0.177 alone, 0.062 beside one of 200, and 0.040 in a packed row of 500. The
#          longest example of a batch decides for all of it, and an alpha that was tuned on short rows does next to
#          nothing on packed ones.
# Source   transformers 5.23.0, integrations/neftune.py; Jain et al. 2023, arXiv:2310.05914.
# Instead  A forward hook of one's own that takes the lengths from the attention mask or the position ids; or alpha
#          times the square root of row length / demonstration length.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error "$python" - <<'END'
import tempfile
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

print("transformers", version("transformers"))
ALPHA, D, OWN = 5.0, 32, 25
rows = {"alone": [OWN], "beside one of 200, padded": [OWN, 200], "in a packed row of 500": [500]}


def batch(lengths):
    """The demonstration first, in every batch with the same tokens; 0 is padding."""
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, n in enumerate(lengths):
        ids[row, :n] = 1 + torch.arange(n) % 60
    return [{"input_ids": x, "labels": x.masked_fill(x == 0, -100), "attention_mask": (x > 0).long()} for x in ids]


class Watch(TrainerCallback):
    """The embeddings of the demonstration as the layers get them, less what they are without noise."""

    def on_train_begin(self, args, state, control, model=None, **_):
        table = model.get_input_embeddings()

        def seen(module, given, noisy):
            own = (given[0][:, :OWN] == 1 + torch.arange(OWN) % 60).all(-1)
            self.noise = (noisy - module.weight[given[0]])[own, :OWN].abs().max().item()

        table.register_forward_hook(seen)


found = {}
for name, lengths in rows.items():
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=D, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    data, watch = batch(lengths), Watch()
    args = TrainingArguments(
        tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=len(data), neftune_noise_alpha=ALPHA, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(model, args, train_dataset=data, callbacks=[watch]).train()
    found[name] = watch.noise
    print(f"largest noise of the demonstration of {OWN} tokens {name:26} {found[name]:.3f}")
paper = ALPHA / (OWN * D) ** 0.5
print(f"alpha / sqrt(L d) with its own L: {paper:.3f}")
alone, padded, packed = (x / paper for x in found.values())
holds = alone > 0.95 and abs(padded - (OWN / 200) ** 0.5) < 0.03 and abs(packed - (OWN / 500) ** 0.5) < 0.03
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
