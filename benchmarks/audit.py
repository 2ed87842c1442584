"""An audit beside the forward pass that it needs: every method without a second model, and the paper's own.

On SmolLM2-135M and the text of this project's guides where `make real` has fetched it, else on a model of its size
with random weights and on random tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import qunify as qu
from analyses.kit.real import MODEL
from benchmarks.timing import Result, alternate, sandwiched
from qunify.audit._encoding import Encoded
from qunify.audit._forward import ROWS, hidden_states, logits
from qunify.audit._measure import asked
from qunify.audit._models import Models, load_model, load_tokenizer
from qunify.audit._pass import _asked
from qunify.catalogue import PAPER
from qunify.hf import Head

DEMONSTRATIONS, LENGTH, PROMPT = 12, 300, 50
LOOP = 128  # tokens for the loop over methods
ROUNDS = 3


def run() -> list[Result]:
    model = _model()
    vocab = Head.of(model).vocab
    batch = [Encoded(row, [t >= PROMPT for t in range(LENGTH)]) for row in _tokens(vocab).tolist()]
    everything = [m for name in qu.names() if not (m := qu.get(name)).needs]
    own = [m for m in everything if m.name in PAPER]
    sizes = {
        "model": MODEL.name if MODEL.is_dir() else "random weights",
        "tokens": DEMONSTRATIONS * (LENGTH - PROMPT),
        "vocabulary": vocab,
        "threads": torch.get_num_threads(),
    }
    found = []
    for what, methods, bar in (("all", everything, 2.0), ("the paper's", own, 1.25)):
        times = alternate(
            functools.partial(_forward, model, batch),
            functools.partial(_asked, Models({"model": model}), methods, batch),
            ROUNDS,
        )
        more = {"at_most": bar, "sizes": {**sizes, "methods": len(methods)}}
        found.append(
            Result.of(f"audit by {what} {len(methods)} methods / its forward pass", sandwiched(*times), "×", **more)
        )
    read, labels, _ = next(logits({"model": model}, batch[:1], LOOP))
    z = read["model"]

    def one_by_one() -> None:
        for m in everything:
            m(z, labels)

    times = alternate(lambda: asked(everything, z, labels, {}), one_by_one, ROUNDS)
    found.append(
        Result.of("one method after another / all at once", sandwiched(*times), "×", sizes={**sizes, "tokens": LOOP})
    )
    return found


def _model() -> Any:
    if MODEL.is_dir():
        return load_model(MODEL)
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def _tokens(vocab: int) -> torch.Tensor:
    """(DEMONSTRATIONS, LENGTH)"""
    n = DEMONSTRATIONS * LENGTH
    if not MODEL.is_dir():
        return torch.randint(vocab, (DEMONSTRATIONS, LENGTH), generator=torch.Generator().manual_seed(0))
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(Path("docs").glob("*.md")))
    ids = load_tokenizer(MODEL, None)(text[: 12 * n])["input_ids"]
    return torch.tensor(ids[:n]).view(DEMONSTRATIONS, LENGTH)


@torch.no_grad()
def _forward(model: Any, batch: Sequence[Encoded]) -> None:
    """Hidden states, and logits in chunks: what the tokens' probabilities take."""
    hidden, _, _ = hidden_states(model, batch)
    for part in hidden.split(ROWS):
        Head.of(model).logits(part)
