#!/usr/bin/env bash
# transformers' Trainer decides by name what decays: some norms do, and RoBERTa-PreLayerNorm's matrices do not.
#
# Guess    Weight decay leaves out biases and norms, and takes matrices.
# Truth    Left out is what is an nn.LayerNorm, or has `bias`, `layernorm`, `rmsnorm`, `norm.` or `_norm.` in its full
#          name. The weights of norms called norm_f (NemotronH), post_norm1 (HyperCLOVAX) or norm_mlstm (xLSTM) decay
#          toward 0, and so do the attention sinks of GPT-OSS and A_log of Qwen3-Next. In RoBERTa-PreLayerNorm every
#          name begins with roberta_prelayernorm, so that no matrix of the backbone decays.
# Source   transformers 5.23.0 (5.24.0 does the same), trainer.py, get_decay_parameter_names.
# Instead  Print trainer.get_decay_parameter_names(model) once; give your own optimizer, or override that method.
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
from transformers import AutoConfig, AutoModelForCausalLM, Trainer

print("transformers", version("transformers"))


def decayed(kind, **small):
    """(vectors that decay, matrices that do not, all matrices), of a model without weights in memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small))
    parameters = dict(model.named_parameters())  # tied ones once
    names = set(Trainer.get_decay_parameter_names(None, model)) & parameters.keys()
    matrices = [name for name, p in parameters.items() if p.ndim > 1]
    return [n for n in names if parameters[n].ndim == 1], [n for n in matrices if n not in names], matrices


seen = {}
for kind in ("llama", "nemotron_h", "hyperclovax", "xlstm", "gpt_oss", "qwen3_next", "roberta-prelayernorm"):
    vectors, spared, matrices = seen[kind] = decayed(kind, num_hidden_layers=4)
    kinds = sorted({name.split(".layers.")[-1].split(".blocks.")[-1].lstrip("0123456789.") for name in vectors})
    told = ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "") if kinds else "none"
    print(f"{kind:21} vectors that decay: {told}; matrices that do not: {len(spared)} of {len(matrices)}")


def has(kind, name):
    return any(name in vector for vector in seen[kind][0])


holds = seen["llama"][:2] == ([], []) and has("nemotron_h", "norm_f") and has("hyperclovax", "post_norm1")
holds = holds and has("xlstm", "norm") and has("gpt_oss", "sinks") and has("qwen3_next", "A_log")
holds = holds and len(seen["roberta-prelayernorm"][1]) >= len(seen["roberta-prelayernorm"][2]) - 2
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
