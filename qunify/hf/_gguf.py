"""A model from a GGUF file, as one that can be trained and saved."""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def from_gguf(file: str | Path) -> Any:
    """A causal language model in float32 from a GGUF file, its quantised weights restored by transformers.

    What `from_pretrained(folder, gguf_file=...)` of transformers 5 gives counts as quantised although its weights are
    float32, so that it refuses to be saved, trained or halved; this is the same model without that mark. The tokenizer
    in the file is read by `AutoTokenizer.from_pretrained(folder, gguf_file=name)`.

    Parameters
    ----------
    file : path
        Of an architecture that transformers reads from GGUF.

    Raises
    ------
    ValueError
        No such file, or none that transformers can read.
    ImportError
        Without the package `gguf`.

    Examples
    --------
    >>> hf.from_gguf("model.Q4_1.gguf").save_pretrained("model")  # doctest: +SKIP
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"from_gguf: {path}: no such file")
    try:
        read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, NotImplementedError, struct.error) as error:  # the last: cut short
        raise ValueError(f"from_gguf: {path}: transformers cannot read it ({str(error).splitlines()[0]})") from error
    config = copy.deepcopy(read.config)
    del config.quantization_config
    model = type(read)._from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = read.generation_config
    return model
