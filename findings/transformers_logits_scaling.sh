#!/usr/bin/env bash
# transformers: `logits_scaling` divides the logits in Granite and multiplies them in HyperCLOVAX.
#
# Guess    A configuration's logits_scaling says one thing: logits = head(h) / logits_scaling, as in Granite, where
#          the name comes from.
# Truth    With logits_scaling = 4, the logits are head(h)/4 in Granite and 4 head(h) in HyperCLOVAX: code that reads
#          the configuration (a fused loss, a converter, an exporter) is off by 16 in temperature. MiniCPM3 divides
#          the hidden states that reach the head, and has no such entry: there it is a property, hidden_size /
#          dim_model_base.
# Source   transformers 5.23.0 (5.24.0 does the same), forward of models/granite, models/hyperclovax, models/minicpm3.
#          Cohere's logit_scale multiplies, too.
# Instead  Read the scale off the model: compare its logits with head(last hidden state) on one input.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
from importlib.metadata import version

import torch
from transformers import AutoConfig, AutoModelForCausalLM

print("transformers", version("transformers"))
size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
entry = {
    "granite": {"num_key_value_heads": 2, "logits_scaling": 4.0},
    "hyperclovax": {"num_key_value_heads": 2, "logits_scaling": 4.0},
    "minicpm3": {"dim_model_base": 8},
}
seen, before = {}, {}
for kind, own in entry.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **size, **special, **own)
    model = AutoModelForCausalLM.from_config(config).eval()
    reached = []
    model.lm_head.register_forward_pre_hook(lambda module, given, reached=reached: reached.append(given[0]))
    with torch.no_grad():
        out = model(torch.arange(3, 11)[None], output_hidden_states=True)
        last = out.hidden_states[-1]
        seen[kind] = (out.logits / model.lm_head(last)).nanmedian().item()  # the padding token's are 0
    before[kind] = (reached[0] / last).median().item()
    written = "logits_scaling" in config.to_dict()
    print(f"{kind:12} config.logits_scaling {config.logits_scaling} ({'entry' if written else 'property'}):", end=" ")
    print(f"logits = {seen[kind]:g} head(h); the head is given {before[kind]:g} h")
holds = all(abs(seen[k] - v) < 1e-4 for k, v in {"granite": 0.25, "hyperclovax": 4, "minicpm3": 0.25}.items())
holds = holds and all(abs(before[k] - v) < 1e-4 for k, v in {"granite": 1, "hyperclovax": 1, "minicpm3": 0.25}.items())
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
