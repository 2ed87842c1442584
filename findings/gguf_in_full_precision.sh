#!/usr/bin/env bash
# transformers: a float32 GGUF, loaded as float32, is a quantised model that must not be trained or saved.
#
# Guess    from_pretrained(..., gguf_file=...) dequantises: what comes is an ordinary float32 model, and a file of F32
#          tensors was never quantised.
# Truth    The model is marked is_quantized whatever the file holds: save_pretrained, half() and Trainer raise a
#          ValueError that speaks of quantised models, although each weight is the original to the bit, and a training
#          step by hand works.
# Source   transformers 5.23.0 (5.24.0 does the same) with gguf 0.19.0; quantizers (is_quantized, quantization_method
#          GGUF), trainer_utils.py, modeling_utils.py.
# Instead  from_config of the same configuration without its quantization_config, then load_state_dict.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 gguf==0.19.0
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

print("transformers", version("transformers"), "gguf", version("gguf"))
V = D = 32
HEADS = 2
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def written(model, path):
    """The model as GGUF, every tensor F32; queries and keys in the order of llama.cpp."""
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(64)
    out.add_embedding_length(D)
    out.add_feed_forward_length(D)
    out.add_block_count(1)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_vocab_size(V)
    for name, weight in model.state_dict().items():
        short = NAMES[name.split(".")[-2]]
        values = weight.numpy()
        if short in ("attn_q", "attn_k"):
            values = values.reshape(HEADS, 2, D // HEADS // 2, D).swapaxes(1, 2).reshape(D, D)
        out.add_tensor(f"blk.0.{short}.weight" if ".layers." in name else f"{short}.weight", values)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def refusal(do):
    try:
        do()
    except ValueError as error:
        return f"ValueError: {str(error)[:70]}..."
    return "works"


torch.manual_seed(0)
size = {"vocab_size": V, "hidden_size": D, "intermediate_size": D, "num_hidden_layers": 1}
original = LlamaForCausalLM(LlamaConfig(**size, num_attention_heads=HEADS, num_key_value_heads=HEADS))
with tempfile.TemporaryDirectory() as name:
    folder, tokens = Path(name), torch.arange(8)[None]
    written(original, folder / "f32.gguf")
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(folder / "f32.gguf").tensors}
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="f32.gguf", dtype=torch.float32)
    state = model.state_dict()
    equal = all(torch.equal(state[k], v) for k, v in original.state_dict().items())
    print(f"in the file: {kinds}; loaded as {model.dtype}; weights equal: {equal}; quantised: {model.is_quantized}")
    arguments = TrainingArguments(folder / "out", use_cpu=True, report_to="none")
    plain = LlamaForCausalLM(original.config)
    plain.load_state_dict(state)
    seen = {
        "save_pretrained": refusal(lambda: model.save_pretrained(folder / "saved")),
        "half()": refusal(lambda: model.half()),
        "Trainer(...)": refusal(lambda: Trainer(model, arguments)),
        "a step by hand": refusal(lambda: model(tokens, labels=tokens).loss.backward()),
        "the same weights in a new model, Trainer(...)": refusal(lambda: Trainer(plain, arguments)),
    }
for what, came in seen.items():
    print(f"{what}: {came}")
holds = equal and kinds == {"F32"} and [came == "works" for came in seen.values()] == [False] * 3 + [True] * 2
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
