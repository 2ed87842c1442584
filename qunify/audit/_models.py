"""A causal language model and its tokenizer, from a folder or as they are. Nothing is unpickled, nothing fetched."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qunify.hf import from_folder, from_gguf


class Models(dict[str, Any]):
    """The models of an audit by what they are to it, model, reference, teacher and teacher_base, loaded or as they were
    given; and what each token of their vocabulary is as a number, (V,), where a method asks."""

    def __init__(self, models: Mapping[str, Any], token_values: Tensor | None = None) -> None:
        super().__init__(models)
        self.token_values = token_values

    def with_model(self, model: Any) -> Models:
        """The same, with another model in question."""
        return Models({**self, "model": model}, self.token_values)


def check_model(model: Any, what: str) -> None:
    """ValueError unless this is a model, a folder with a configuration and safetensors weights, or a GGUF file."""
    if isinstance(model, str | Path):
        _check(Path(model), what)
    elif not isinstance(model, torch.nn.Module):
        raise ValueError(f"audit: {what}: expected a model or its folder, got {type(model).__name__}")


def _check(folder: Path, what: str) -> None:
    where = f"audit: {what}: {folder}"
    if _gguf(folder) is not None:
        if importlib.util.find_spec("gguf") is None:
            raise ValueError(f"{where}: the package gguf is needed to read it: pip install gguf")
        return
    if not folder.is_dir():
        raise ValueError(f"{where}: no such folder")
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(f"{where}: expected a folder with config.json or adapter_config.json, got neither")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        got = "pickled ones, which could run any code: convert them to safetensors" if pickled else "none"
        raise ValueError(f"{where}: expected weights in safetensors files, got {got}")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"{where}: {file.name}: expected a whole safetensors file, got one cut short, or a pointer to one: "
                f"{error}"
            ) from None


def _gguf(path: Path) -> Path | None:
    """The GGUF file that this is, or the only one in a folder without safetensors weights."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    there = [*path.glob("*.gguf")]
    return there[0] if len(there) == 1 and not any(path.glob("*.safetensors")) else None


def load_model(model: Any, device: str | torch.device | None = None) -> Any:
    """A model in evaluation mode: the one given, or that of a folder with `config.json` and safetensors weights, or
    with an adapter's `adapter_config.json` and safetensors weights, whose base is another such folder; or that of a
    GGUF file, or of a folder with one."""
    loaded = _load(Path(model)) if isinstance(model, str | Path) else model
    return loaded.to(device).eval() if device is not None else loaded.eval()


def _load(folder: Path) -> Any:
    if (file := _gguf(folder)) is not None:
        return from_gguf(file)
    if not (folder / "adapter_config.json").is_file():
        return from_folder(folder)
    from peft import PeftModel

    base = Path(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"])
    _check(base, "the adapter's base")
    return PeftModel.from_pretrained(from_folder(base), folder)


def load_tokenizer(tokenizer: Any, model: Any) -> Any:
    """A tokenizer: the one given, that of a folder, or where none is given, that beside the model.

    Raises
    ------
    ValueError
        None there.
    """
    source = model if tokenizer is None else tokenizer
    if not isinstance(source, str | Path):
        if tokenizer is None:
            raise ValueError("audit: tokenizer: expected one beside a model that is loaded already, got none")
        return tokenizer
    from transformers import AutoTokenizer

    file = _gguf(Path(source))
    where, how = (source, {}) if file is None else (file.parent, {"gguf_file": file.name})
    try:
        return AutoTokenizer.from_pretrained(where, local_files_only=True, **how)
    except (OSError, ValueError) as error:
        raise ValueError(f"audit: tokenizer: {source}: none found there ({str(error).splitlines()[0]})") from None
