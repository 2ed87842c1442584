"""A causal language model of two layers with a byte-level tokenizer: what real servers served to make tests/served/."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

WORDS = " the| cat| sees| a| bird| which| finds| two|the|user|assistant|system|\n"
END = "<|im_end|>"
SPECIAL = ["<|endoftext|>", "<|im_start|>", END]
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
#: What was asked, and what the assistant says; half a letter is a token of its own.
MESSAGES = [
    {"role": "user", "content": "which bird sees the cat"},
    {"role": "assistant", "content": "the café sees two é"},
]


def vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in the order of their ids, the special ones last, and merges."""
    byte = bytes_to_unicode()
    tokens, merges = [byte[i] for i in range(256)], []
    for word in WORDS.split("|"):
        letters = [byte[b] for b in word.encode()]
        for n in range(1, len(letters)):
            pair = "".join(letters[:n]), letters[n]
            if "".join(pair) not in tokens:
                tokens.append("".join(pair))
                merges.append(pair)
    return tokens + SPECIAL, merges


def tokenizer() -> PreTrainedTokenizerFast:
    tokens, merges = vocabulary()
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens) if token not in SPECIAL}, merges))
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=SPECIAL[0], bos_token=SPECIAL[1])
    found.chat_template = CHAT
    return found


def model() -> Any:
    """Its weights are a formula, so that the recorded answers stay those of this model."""
    size = len(vocabulary()[0])
    config = LlamaConfig(
        vocab_size=size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 3,
    )  # fmt: skip
    made = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for i, (name, p) in enumerate(made.named_parameters(), start=1):
            wave = torch.sin((torch.arange(p.numel(), dtype=torch.float64) + 1) ** 1.5 * (1 + i / 7)).reshape(p.shape)
            p.copy_(1 + 0.1 * wave if "norm" in name else wave * (0.35 if "lm_head" in name else 0.25))
    return made


def save(folder: Path) -> None:
    """As a folder that transformers reads, and as model.gguf in it, in float32 both."""
    import gguf

    made, tokens = model(), vocabulary()[0]
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    c = made.config
    out = gguf.GGUFWriter(folder / "model.gguf", "llama")
    out.add_context_length(c.max_position_embeddings)
    out.add_embedding_length(c.hidden_size)
    out.add_block_count(c.num_hidden_layers)
    out.add_feed_forward_length(c.intermediate_size)
    out.add_head_count(c.num_attention_heads)
    out.add_head_count_kv(c.num_key_value_heads)
    out.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    out.add_rope_freq_base(c.rope_parameters["rope_theta"])
    out.add_layer_norm_rms_eps(c.rms_norm_eps)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types([int(gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL) for t in tokens])
    out.add_token_merges([" ".join(pair) for pair in vocabulary()[1]])
    out.add_bos_token_id(c.bos_token_id)
    out.add_eos_token_id(c.eos_token_id)
    out.add_pad_token_id(c.pad_token_id)
    out.add_add_bos_token(False)
    out.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, p in made.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp turns neighbours, transformers halves
            p = p.reshape(c.num_attention_heads, 2, -1, p.shape[-1]).swapaxes(1, 2).reshape(p.shape)
        out.add_tensor(str(names.get_name(name, (".weight",))), p.contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def ids() -> tuple[list[int], int]:
    """The demonstration's tokens, and where what the assistant says begins."""
    made: Any = tokenizer()
    asked = made.apply_chat_template(MESSAGES[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
    return made.apply_chat_template(MESSAGES, return_dict=True)["input_ids"], len(asked)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
    print(json.dumps(ids()))
