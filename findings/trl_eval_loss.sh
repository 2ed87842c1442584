#!/usr/bin/env bash
# TRL's eval_loss depends on per_device_eval_batch_size and on packing.
#
# Guess    The evaluation loss is the mean over the labels of the evaluation set, as the training loss is over those
#          of a step (num_items_in_batch): a batch size is a question of memory.
# Truth    It is the mean of batch means, each weighted by its number of examples. Short answers, which are often
#          easier or harder than long ones, count for more the smaller the batch: of one model on one set, 0.67 at
#          batch size 1 and 0.25 over all labels. Packing moves it too, and eval_packing follows packing.
#          transformers' Trainer averages in the same way.
# Source   trl 1.16.0, trainer/sft_trainer.py, compute_loss (num_items_in_batch is None in evaluation); transformers
#          5.23.0, trainer.py, evaluation_loop.
# Instead  Compare eval_loss at one batch size and packing only, or sum the log-probabilities over the set yourself.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
import contextlib
import io
import tempfile
from importlib.metadata import version

import datasets
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

datasets.disable_progress_bars()
print("trl", version("trl"), "transformers", version("transformers"))
words = ["<pad>", "</s>", *(f"w{i}" for i in range(30))]
vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>", eos_token="</s>", unk_token="<pad>")
torch.manual_seed(0)
size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, bos_token_id=None, eos_token_id=1, **size))
# Half of the texts are short, half are long, and the long ones repeat themselves.
texts = [f"w{2 + i} w{11 + i} w{7 + i}" for i in range(8)] + [" ".join(["w0 w1"] * (10 + i)) for i in range(8)]
data = datasets.Dataset.from_dict({"text": texts})


def trainer(**settings):
    usual = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    arguments = SFTConfig(tempfile.mkdtemp(), **usual, **settings)
    return SFTTrainer(model, arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer)


def nll(text):
    ids = torch.tensor(tokenizer(text + " </s>")["input_ids"])
    with torch.no_grad():
        return F.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:], reduction="sum").item(), len(ids) - 1


seen = {}
with contextlib.redirect_stdout(io.StringIO()):
    trainer(max_steps=30, learning_rate=0.02, per_device_train_batch_size=16).train()  # learns the long ones first
    for packing in (False, True):
        for batch in (1, 4, 16):
            own = trainer(per_device_eval_batch_size=batch, packing=packing, max_length=64)
            seen[batch, packing] = own.evaluate()["eval_loss"]
model.eval()
sums = [nll(text) for text in texts]
mean = sum(value for value, _ in sums) / sum(n for _, n in sums)
print(f"mean over all labels: {mean:.4f}")
for (batch, packing), value in seen.items():
    print(f"eval_loss, batch size {batch:2}, packing {packing!s:5}: {value:.4f}")
holds = abs(seen[16, False] - mean) < 1e-3 and abs(seen[1, False] - mean) > 0.2 and abs(seen[1, True] - mean) > 0.003
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
