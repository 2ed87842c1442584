"""A step of the trainer for every family of causal language models in transformers, each made small.

`python -m tests.families` tries all of them, or those that are named, and keeps what it finds in docs/families.csv.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import re
import resource
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from qunify import hf
from qunify._lib import files
from tests import trainers

TABLE = Path(__file__).parents[1] / "docs" / "families.csv"
SECONDS = 120  # for one family
BYTES = 16 * 2**30  # some configurations cannot be made small

#: What is set in a configuration, where a name matches; what is None there by default only if it is in DERIVED.
SIZES: dict[str, Any] = {
    r".*vocab_size": 96,
    r"hidden_size|d_model|n_embd|dim|embedding_dim|emb_dim|embedding_size|hidden_dim": 16,
    r".*(intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|dim_ff)(_mlp)?": 24,
    r"(num|n)_(.*_)?layers?|(encoder|decoder)_layers": 2,
    r".*(num_attention_heads|n_heads?|num_heads|attention_heads|num_key_value_heads|num_kv_heads|n_kv_heads)": 2,
    r"(.*_)?head_dim": 8,
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len": 64,
    r"(num|n)_(.*_)?experts": 4,
    r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts": 2,
    r"n_group|topk_group|n_groups?|num_expert_groups?|num_kv_shared_layers": 1,
    r"(q|kv|o)_lora_rank": 8,
    r".*(sliding_window|chunk_size)": 8,
    r".*(drop|dropout|pdrop|layerdrop|drop_rate|drop_prob|dropout_prob)": 0.0,
}
#: What a library raises; a check of ours that fails is none of it.
ANY = (AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError, StrictDataclassError)
DERIVED = r"head_dim|num_key_value_heads|num_experts_per_tok|n_(routed|shared)_experts|moe_intermediate_size"
#: What the sizes above leave inconsistent.
MORE: dict[str, dict[str, Any]] = {
    "codegen": {"n_embd": 32, "n_head": 4, "rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "mamba2": {"num_heads": 4},
    "reformer": {"axial_pos_embds": False, "is_decoder": True},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_text": {"num_kv_shared_layers": 0},
    "gemma4_unified_text": {"num_kv_shared_layers": 0},
    "longcat_flash": {"qk_head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "ctrl": {"dff": 24},
}


def small(kind: str) -> PretrainedConfig:
    """A configuration of the family with two layers and sixteen hidden units."""
    made = CONFIG_MAPPING[kind]
    return _shrunk(made, made(), MORE.get(kind, {}))


def _shrunk(made: Any, usual: Any, more: dict[str, Any]) -> Any:
    given: dict[str, Any] = {}
    layers = getattr(usual, "num_hidden_layers", None)
    for name, value in usual.to_dict().items():
        if name.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int | float) or (value is None and re.fullmatch(DERIVED, name)):
            for pattern, size in SIZES.items():
                if re.fullmatch(pattern, name):
                    given[name] = size
        elif isinstance(value, list) and len(value) == layers and layers > 2:  # one entry for each layer
            kinds = {json.dumps(x, default=str): x for x in value}
            given[name] = (list(kinds.values()) * 2)[:2]
    for name in ("text_config", "vision_config", "audio_config", "decoder"):
        if isinstance(part := getattr(usual, name, None), PretrainedConfig):
            given[name] = _shrunk(type(part), part, {}).to_dict()
    given |= {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 2, "is_decoder": True}
    return made(**given | more)


def model(kind: str) -> Any:
    torch.manual_seed(0)
    found = AutoModelForCausalLM.from_config(small(kind))
    found.config._name_or_path = "small"
    with torch.no_grad():
        found.eval()(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    return found.train()


def step(m: Any, out: Any) -> tuple[float, float]:
    """The loss that the trainer logs for one step of SFT, and the cross-entropy of the model's own logits before."""
    ids = [trainers.tokens(text + "</s>") for text in trainers.TEXTS]
    with torch.no_grad():
        z = [m(input_ids=torch.tensor([x]), use_cache=False).logits[0, :-1].float() for x in ids]
    y = torch.tensor([token for x in ids for token in x[1:]])
    expected = torch.nn.functional.cross_entropy(torch.cat(z), y).item()
    before = [p.detach().clone() for p in m.parameters()]
    balance = {"router_aux_loss_coef": 0.0} if hasattr(m.config.get_text_config(), "output_router_logits") else {}
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, **balance}
    trainer = trainers.train(out, model=m, method="sft", settings=settings)
    assert any(not torch.equal(p, q) for p, q in zip(m.parameters(), before, strict=True)), "nothing has moved"
    return trainers.losses(trainer)[0], expected


def tried(kind: str) -> dict[str, str]:
    """A row: whether the family trains, is refused, or could not be made small, and what was said."""
    row = {"family": kind, "class": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]}

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    outcome = "not made small"
    try:
        with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
            m = model(kind)
            outcome = "refused"
            hf.SFTTrainer(
                m, trainers.config(out), method="sft", train_dataset=trainers.dataset(),
                processing_class=trainers.TOKENIZER,
            )  # fmt: skip
            outcome = "fails"
            loss, expected = step(model(kind), out)
        if abs(loss - expected) < 1e-3 * expected:
            return row | {"outcome": "trains", "words": ""}
        return row | {"outcome": outcome, "words": f"loss {loss:.4f}, expected {expected:.4f}"}
    except ANY as error:
        if outcome == "refused" and not isinstance(error, ValueError):
            outcome = "fails"
        words = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        return row | {"outcome": outcome, "words": words[:200]}
    finally:
        signal.alarm(0)
        gc.collect()


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    order = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    rows = pd.read_csv(TABLE, keep_default_na=False, index_col="family") if TABLE.exists() else pd.DataFrame()
    for kind in names or order:
        row = tried(kind) | {"transformers": transformers.__version__}
        print(*row.values(), flush=True)
        rows = pd.concat([rows.drop(kind, errors="ignore"), pd.DataFrame([row]).set_index("family")])
        files.write(TABLE, rows.loc[[x for x in order if x in rows.index]].to_csv().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
