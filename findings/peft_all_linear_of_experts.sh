#!/usr/bin/env bash
# PEFT's all-linear: experts and router in Qwen3-MoE, neither in GPT-OSS, the router alone in Llama 4 and Phi-MoE.
#
# Guess    target_modules="all-linear" adapts every matrix but the head: of a mixture of experts, the experts, which
#          are most of it.
# Truth    In transformers 5 the experts of a layer are one 3-dimensional parameter and no nn.Linear. PEFT translates
#          that for some families (Mixtral, Qwen3-MoE, DeepSeek-V3, OLMoE: experts and router); for GPT-OSS and
#          Granite-MoE only attention is adapted, for Llama 4 and Phi-MoE attention and the router, which then learns
#          to route to experts that stay as they are. No word is said, and the count of trainable parameters looks
#          like that of any LoRA.
# Source   peft 0.21.2 with transformers 5.23.0, peft/utils/transformers_weight_conversion.py,
#          _convert_peft_config_moe.
# Instead  target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"] beside target_modules; and look at
#          the names that require gradients.
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
from transformers import AutoConfig, AutoModelForCausalLM

print("peft", version("peft"), "transformers", version("transformers"))
SIZE = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "eos_token_id": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts": 4}
OWN = {"head_dim": 16, "moe_intermediate_size": 48, "num_experts_per_tok": 2, "intermediate_size_mlp": 48}


def adapted(kind):
    """(share of the weights that lie in experts, whether those are adapted, whether the router is)."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZE, **HEADS, **OWN))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    share = sum(n for name, n in sizes.items() if ".experts." in name) / sum(sizes.values())
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    router = any(".gate.lora" in name or ".gate." in name or ".router" in name for name in names)
    return share, any(".experts." in name for name in names), router


seen = {
    kind: adapted(kind) for kind in ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe", "llama4_text", "phimoe")
}
for kind, (share, experts, router) in seen.items():
    told = [f"{part} {'adapted' if on else 'left out'}" for part, on in (("experts", experts), ("router", router))]
    print(f"{kind:12} {share:.0%} of the weights in experts; {', '.join(told)}")
both = {"mixtral": (True, True), "qwen3_moe": (True, True), "olmoe": (True, True)}
none = {"gpt_oss": (False, False), "granitemoe": (False, False)}
holds = {kind: found[1:] for kind, found in seen.items()} == both | none | dict.fromkeys(
    ("llama4_text", "phimoe"), (False, True)
)
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
