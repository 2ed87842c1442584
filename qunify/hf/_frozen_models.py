"""Models that stay constant in a call: a frozen one, the policy without its adapter, the policy of some steps ago."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback

from qunify._lib import files
from qunify.hf._heads import Head, core, last_hidden
from qunify.maps import QMap

#: A frozen model, or the policy without its adapter.
Given = nn.Module | Literal["base"]
#: Ways to begin an adapter that leave the weights of the base as they are.
_LEAVE_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
_FILE = "old_policy.safetensors"  # in a checkpoint
MODELS = ("reference_logits", "teacher_logits", "teacher_base_logits")  # the contexts that such a model gives
#: Entered, it gives the model to call: in evaluation mode, without gradients.
Use = Callable[[], AbstractContextManager[nn.Module]]


@contextmanager
def constant(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode and without gradients; `is_constant` is true of each of its modules meanwhile."""
    before = {module: (module.training, is_constant(module)) for module in model.modules()}
    model.eval()
    try:
        for module in before:
            vars(module)["_is_constant"] = True
        with torch.no_grad():
            yield model
    finally:
        for module, (training, was) in before.items():
            module.training = training
            vars(module)["_is_constant"] = was


def is_constant(model: nn.Module) -> bool:
    """Whether a model is inside `constant`: called for its predictions, as a reference or a teacher, not trained."""
    return bool(vars(model).get("_is_constant", False))


def check(model: nn.Module, name: str, argument: str) -> None:
    """ValueError unless the model's logits are its output head applied to what reaches it, and depend on no later
    token, as tried on two tokens. They are not such where an adapter changes the head or adds virtual tokens, or where
    logits line up with their labels already, as in encoders."""
    inner = core(model)
    if not isinstance(inner, PreTrainedModel) or inner.get_output_embeddings() is None:
        got = type(inner).__name__
        raise ValueError(f"{name}: {argument}: expected a causal language model with an output head, got {got}")
    head = Head.of(model)
    weight = head.weight
    if not weight.numel():
        raise ValueError(
            f"{name}: {argument}: expected a head whose weight is there, got one divided by DeepSpeed ZeRO-3, which is "
            "not supported"
        )
    if weight.is_meta or isinstance(weight, DTensor):
        return  # the weight is on no device, or sharded over several: nothing can be tried
    tokens = {"input_ids": torch.tensor([[0, 1], [0, 2]], device=weight.device), "use_cache": False}
    try:
        with constant(model):
            parts = head.logits(last_hidden(model, tokens))
            whole = model(**tokens).logits.to(parts.dtype)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        raise ValueError(f"{name}: {argument}: expected a model that is called with token ids, got {why}") from error
    rounding = 1e-3 if weight.dtype == torch.float32 else 1e-6 if weight.dtype == torch.float64 else 0.05
    close = functools.partial(torch.allclose, rtol=rounding, atol=rounding * whole.std())
    if whole.shape != parts.shape or not close(whole, parts):
        raise ValueError(f"{name}: {argument}: expected logits that are a head of the last hidden states, got others")
    if not close(whole[0, 0], whole[1, 0]):
        got = f"{type(inner).__name__}, whose predictions look at later tokens"
        raise ValueError(f"{name}: {argument}: expected a causal language model, got {got}")


def loaded(given: Any, argument: str) -> Any:
    """A model where the folder of one is given; else what is given. ValueError, beginning with the argument, for a
    folder that is not there."""
    if not isinstance(given, str | Path) or given == "base":
        return given
    if not Path(given).is_dir():
        raise ValueError(f'{argument}: expected a model, its folder or "base", got {str(given)!r}: no such folder')
    return from_folder(given)


def from_folder(folder: str | Path) -> Any:
    """A causal language model as transformers has saved it, in its own type: safetensors alone, and nothing fetched.
    ValueError where weights are missing, in whose place transformers would put random ones."""
    model, said = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(said["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{folder}: expected all weights of {type(model).__name__}, got none of {missing[0]}{more}")
    return model


def needed(m: QMap, given: Mapping[str, Any], arguments: Mapping[str, str]) -> dict[str, Any]:
    """The contexts that the method needs, among those given. ValueError where one of them is None, or neither a model
    nor "base" where it should be one; `arguments` has the name of the argument for each context."""
    found = {context: value for context, value in given.items() if context in m.needs}
    for context, value in found.items():
        if value is None:
            raise ValueError(f"{m.name}: {arguments[context]}: expected what the method needs, got None")
        if context in MODELS and not (value == "base" or isinstance(value, nn.Module)):
            hint = "; load it first" if isinstance(value, str | Path) else ""
            raise ValueError(f'{m.name}: {arguments[context]}: expected a model or "base", got {value!r}{hint}')
    return found


def use_frozen(given: Given, policy: nn.Module, name: str, argument: str) -> Use:
    """How to call a model that is constant while `policy` trains."""
    if core(given) is core(policy):
        raise ValueError(f"{name}: {argument}: expected another model than the one in training, got the same")
    if isinstance(given, nn.Module):
        return lambda: constant(given)
    if not isinstance(policy, PeftModel):
        raise ValueError(f'{name}: {argument}: expected a model, got "base" and a policy without an adapter')
    _check_base(policy, name, argument)

    @contextmanager
    def base() -> Iterator[nn.Module]:
        trains = [(p, p.requires_grad) for p in policy.parameters()]
        try:
            with policy.disable_adapter(), constant(policy):
                yield policy
        finally:  # peft lets all of an adapter train when it is switched on again
            for p, was in trains:
                p.requires_grad = was

    return base


def _check_base(policy: PeftModel, name: str, argument: str) -> None:
    """ValueError unless the policy with its adapter switched off is the model that it was made from, and stays it."""
    for config in policy.peft_config.values():
        if (kind := getattr(config, "init_lora_weights", True)) not in _LEAVE_THE_BASE:
            got = f'"base" and init_lora_weights={kind!r}, which changes the weights of the base'
            raise ValueError(f"{name}: {argument}: expected a model, got {got}")
    marks = (str(policy.base_model.prefix), "modules_to_save.", "trainable_tokens_")
    outside = [n for n, p in policy.named_parameters() if p.requires_grad and not any(mark in n for mark in marks)]
    if outside:
        got = f'"base" and a parameter outside the adapter that trains, {outside[0]}'
        raise ValueError(f"{name}: {argument}: expected a model, got {got}")


class Snapshot(TrainerCallback):
    """The older policy: a copy of the parameters that train, taken every few optimizer steps. For a call it changes
    places with the present ones."""

    def __init__(self, policy: nn.Module, every: int) -> None:
        self.policy, self.every = policy, every
        self.parameters: dict[str, nn.Parameter] = {}
        self.values: dict[str, Tensor] = {}
        self._resumes = False

    def take(self) -> None:
        self.parameters = {name: p for name, p in self.policy.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    def save(self, folder: str | Path) -> None:
        whole = {name: value.contiguous() for name, value in self.values.items()}
        files.write(Path(folder) / _FILE, safetensors.torch.save(whole))

    def load(self, folder: str | Path) -> None:
        """Begin training with the older policy of a checkpoint. ValueError if it is of other parameters."""
        path = Path(folder) / _FILE
        if not path.exists():  # the folder holds a model and no state of training
            warnings.warn(f"old_every: {folder} holds no older policy: the present one takes its place", stacklevel=2)
            return
        self.take()
        saved = safetensors.torch.load_file(path)
        if saved.keys() != self.values.keys():
            raise ValueError(f"old_every: {path}: expected the parameters that train, got others")
        for name, value in self.values.items():
            value.copy_(saved[name])
        self._resumes = True

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if not self._resumes:
            self.take()
        self._resumes = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            for name, p in self.parameters.items():
                self.values[name].copy_(p.detach())

    @contextmanager
    def use(self) -> Iterator[nn.Module]:
        if not self.values:  # evaluated before any training
            self.take()
        self._exchange()
        try:
            with constant(self.policy):
                yield self.policy
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, p in self.parameters.items():
            p.data, self.values[name] = self.values[name], p.data
