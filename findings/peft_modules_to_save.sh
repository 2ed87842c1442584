#!/usr/bin/env bash
# PEFT: modules_to_save=["norm"] trains every norm of a Llama, not the last one.
#
# Guess    modules_to_save matches like target_modules in the same configuration: a name stands for whole parts of a
#          path, so that "norm" is model.norm alone.
# Truth    target_modules wants "." before the name ("proj" finds nothing), modules_to_save takes any path that ends
#          in it: "norm" is input_layernorm and post_attention_layernorm of every layer as well, 65 modules instead of
#          one in a model of 32 layers, each copied, trained and saved whole.
# Source   peft 0.21.2, peft/utils/other.py, _set_trainable: key.endswith(target_key).
# Instead  The path: modules_to_save=["model.norm"].
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

from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

print("peft", version("peft"), "transformers", version("transformers"))
size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 32, "num_attention_heads": 2}


def whole(name):
    """The modules that train whole beside the adapters."""
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **size))
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=[name]))
    names = [n.removeprefix("base_model.model.") for n, p in model.named_parameters() if p.requires_grad]
    return [n.split(".modules_to_save")[0] for n in names if "modules_to_save" in n]


seen = {name: whole(name) for name in ("norm", "model.norm")}
for name, found in seen.items():
    print(f'modules_to_save=["{name}"]: {len(found)} modules: {", ".join(found[:2])}{" ..." if len(found) > 2 else ""}')
try:
    get_peft_model(LlamaForCausalLM(LlamaConfig(vocab_size=32, **size)), LoraConfig(r=2, target_modules=["proj"]))
    matched = True
except ValueError as error:
    matched = False
    print(f'target_modules=["proj"]: {type(error).__name__}: {str(error)[:60]}...')
holds = len(seen["norm"]) == 65 and seen["model.norm"] == ["model.norm"] and not matched
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
