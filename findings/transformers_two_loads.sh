#!/usr/bin/env bash
# transformers: two models loaded at once, in two threads, and no tied head is tied any more in that process.
#
# Guess    Threads that load models at the same time get what each of them would get alone, or an error; and what
#          happened to them is over once they are done.
# Truth    While from_pretrained builds a model it puts an empty function in the place of PreTrainedModel.tie_weights,
#          for all models, and puts back what it found there. A second thread finds the empty function and puts that
#          back. From then on no load in this process ties a head: it is reported as missing and holds no weights, or
#          whatever stood in the memory.
# Source   transformers 5.23.0, initialization.py, no_tie_weights.
# Instead  Load under one lock, or in processes; compare model.lm_head.weight with the embedding's after loading.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - "$folder/model" <<'END'
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
config = LlamaConfig(vocab_size=500, num_hidden_layers=8, tie_word_embeddings=True, **sizes)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])


def tied(_):
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    return model.lm_head.weight is model.model.embed_tokens.weight


print("torch", version("torch"), "transformers", version("transformers"))
before = [tied(i) for i in range(5)]
with ThreadPoolExecutor(2) as pool:
    meanwhile = [*pool.map(tied, range(20))]
after = [tied(i) for i in range(5)]
print(f"heads that are tied: one after another {sum(before)} of 5, in two threads {sum(meanwhile)} of 20,")
print(f"one after another again {sum(after)} of 5")
holds = all(before) and not any(after)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
