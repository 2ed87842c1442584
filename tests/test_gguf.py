"""A model written as GGUF, read again: it can be saved, trained and audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from qunify import audit, hf
from tests import small_llama

pytestmark = pytest.mark.slow  # transformers takes seconds to load

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def written(model: Any, path: Path) -> Path:
    """The model as GGUF: other names, and rotary dimensions of queries and keys in another order."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for name, value in model.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads
            value = value.view(heads, 2, -1, config.hidden_size).transpose(1, 2).reshape_as(value)
        writer.add_tensor(_name(name), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in whole:
        return f"{whole[stem]}.weight"
    _, _, block, part = stem.split(".", 3)
    return f"blk.{block}.{NAMES[part]}.weight"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(small_llama.model(), tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_it_is_the_same_model_and_can_be_saved_and_trained(file: Path, tmp_path: Path) -> None:
    model, ids = hf.from_gguf(file), torch.tensor([[3, 7, 11, 5]])
    expected = small_llama.model().eval()(input_ids=ids).logits
    torch.testing.assert_close(model.eval()(input_ids=ids).logits, expected)
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(hf.from_folder(tmp_path / "saved").eval()(input_ids=ids).logits, expected)
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_an_audit_of_the_file_or_its_folder(file: Path) -> None:
    rows = [{"question": "the cat sees", "answer": said} for said in small_llama.sentences(3)]
    expected = audit.run(small_llama.model(), rows, small_llama.tokenizer(), ["sft"]).tokens["u"]
    for model in (file, file.parent):
        assert audit.run(model, rows, small_llama.tokenizer(), ["sft"]).tokens["u"].tolist() == pytest.approx(expected)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF of another time")
    with pytest.raises(ValueError, match=r"from_gguf: .*model\.gguf: transformers cannot read it"):
        hf.from_gguf(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="no such file"):
        hf.from_gguf(tmp_path / "other.gguf")
