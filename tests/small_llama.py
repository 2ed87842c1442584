"""A causal language model of two layers and its tokenizer, made in code: nothing is fetched."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

WORDS = "the a cat dog bird sees likes finds red blue old small house tree river and then today"
SAID = "{{ m['content'] + ' </s>' }}"
CHAT = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' }}"
    f"{{% if m['role'] == 'assistant' %}}{{% generation %}}{SAID}{{% endgeneration %}}{{% else %}}{SAID}{{% endif %}}"
    "{{ ' ' }}{% endfor %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, and whole letters for what it does not know."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<unk>", "<pad>", "</s>", "<user>", "<assistant>"]
    words.train_from_iterator([WORDS] * 4, trainers.BpeTrainer(vocab_size=96, special_tokens=special))
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
    )
    made.chat_template = CHAT
    return made


def model(seed: int = 0, vocab_size: int = 96, config: type[PretrainedConfig] = LlamaConfig, **settings: Any) -> Any:
    """Random weights, large enough that predictions are not uniform."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = AutoModelForCausalLM.from_config(
        config(
            **{
                "vocab_size": vocab_size, "num_key_value_heads": 2, "max_position_embeddings": 64,
                "initializer_range": 0.3, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": None,
                **sizes, **settings,
            }
        )
    )  # fmt: skip
    made.config._name_or_path = "small"
    return made


def sentences(n: int = 8) -> list[str]:
    """Of different lengths."""
    words = WORDS.split()
    return [" ".join(words[(3 * i + 5 * j) % len(words)] for j in range(3 + 2 * (i % 4))) for i in range(n)]
