#!/usr/bin/env bash
# PEFT's add_weighted_adapter does not add adapters: weights 1 and 1 of two LoRAs give something else than their sum.
#
# Guess    The weighted adapter is the sum w1 B1 A1 + w2 B2 A2; "svd", the default, is called precise by its
#          documentation.
# Truth    "linear" adds the factors and not the products: (B1 + B2)(A1 + A2) with square roots of the weights, so
#          that half of what comes is cross terms, 99 % off here; "svd" cuts the sum, of rank 2r, back to rank r: 48 %
#          off. Only "cat" is the sum, or "svd" with svd_rank=2r. A single adapter is right in each, which is what a
#          first check looks at.
# Source   peft 0.21.2, tuners/lora/model.py, add_weighted_adapter and _generalized_task_arithmetic_weighted_adapter
#          (its documentation calls linear a rough approximation).
# Instead  combination_type="cat".
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet peft==0.21.2 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

print("peft", version("peft"), "transformers", version("transformers"))
torch.manual_seed(0)
size = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **size))
lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)  # as if trained: random A and B
model = get_peft_model(model, lora, adapter_name="one")
model.add_adapter("two", lora)
layer = model.base_model.model.model.layers[0].self_attn.q_proj
one, two = layer.get_delta_weight("one"), layer.get_delta_weight("two")
seen = {}
for weights in ((1.0, 0.0), (1.0, 1.0), (1.0, -1.0)):
    wanted = weights[0] * one + weights[1] * two
    for kind, more in (("linear", {}), ("svd", {}), ("svd", {"svd_rank": 8}), ("cat", {})):
        name = f"{len(seen)}"
        model.add_weighted_adapter(["one", "two"], list(weights), name, combination_type=kind, **more)
        seen[weights, kind, bool(more)] = off = ((layer.get_delta_weight(name) - wanted).norm() / wanted.norm()).item()
        rank = ", svd_rank=8" if more else ""
        print(f"weights {weights}: {kind + rank:15} off by {off:6.1%}")
both = (1.0, 1.0)
holds = (
    seen[both, "linear", False] > 0.5 and seen[both, "svd", False] > 0.2 and seen[(1.0, 0.0), "linear", False] < 1e-5
)
holds = holds and seen[both, "cat", False] < 1e-5 and seen[both, "svd", True] < 1e-5
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
