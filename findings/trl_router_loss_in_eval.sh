#!/usr/bin/env bash
# TRL's eval_loss of a mixture of experts is no cross-entropy: the router loss is in it, asked for or not.
#
# Guess    A model loaded with output_router_logits=False, as all are by default, has no router loss: eval_loss is the
#          mean of -log p, as of a dense model, and exp of it the perplexity.
# Truth    SFTTrainer switches the router logits on wherever the configuration has a coefficient other than 0, in
#          training and in evaluation, and adds coefficient times loss, whose least value is the number of experts per
#          token. For OLMoE, with 0.01 and 8, that is 0.08 nats, 8 % of perplexity; configurations with a larger
#          coefficient get more. transformers' Trainer leaves the same model alone.
# Source   trl 1.16.0, trainer/sft_trainer.py, __init__ (aux_loss_enabled) and compute_loss.
# Instead  router_aux_loss_coef=0.0 for an evaluation, or subtract coefficient times eval_aux_loss.
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
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

datasets.disable_progress_bars()
print("trl", version("trl"), "transformers", version("transformers"))
words = ["<pad>", "</s>", *(f"w{i}" for i in range(30))]
vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>", eos_token="</s>", unk_token="<pad>")
size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
text = "w1 w5 w2 w8 w9 w3 w20 w7 w7 w6 w11 w13"


def olmoe():
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    return OlmoeForCausalLM(OlmoeConfig(vocab_size=len(words), **special, **size)).eval()


model = olmoe()
print(f"output_router_logits {model.config.output_router_logits}, coefficient {model.config.router_aux_loss_coef}")
ids = torch.tensor(tokenizer(text + " </s>")["input_ids"])
with torch.no_grad():
    seen = {"by hand": F.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:]).item()}
    seen["the model's own loss"] = model(ids[None], labels=ids[None]).loss.item()
for name, more in {"TRL": {}, "TRL, router_aux_loss_coef=0": {"router_aux_loss_coef": 0.0}}.items():
    usual = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    arguments = SFTConfig(tempfile.mkdtemp(), **usual, **more)
    data = datasets.Dataset.from_dict({"text": [text]})
    with contextlib.redirect_stdout(io.StringIO()):
        seen[name] = SFTTrainer(olmoe(), arguments, None, data, data, tokenizer).evaluate()["eval_loss"]
for name, value in seen.items():
    print(f"{name:28} {value:.4f}")
by_hand, own, trl, without = seen.values()
holds = abs(own - by_hand) < 1e-4 and abs(without - by_hand) < 1e-4 and 0.07 < trl - by_hand < 0.1
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
