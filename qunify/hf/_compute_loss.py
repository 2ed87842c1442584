"""A method as the `compute_loss_func` of a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qunify import catalogue
from qunify.hf._answers import Answers
from qunify.hf._answers_of_batches import check_dataset, rows_of_batch
from qunify.hf._frozen_models import MODELS, Given, Use, is_constant, needed, use_frozen
from qunify.hf._heads import core
from qunify.hf._schedule import bind
from qunify.hf._token_columns import COLUMNS, previous_tokens, sequences, shifted
from qunify.maps import Method, QMap
from qunify.token import SEQUENCES, as_tensor
from qunify.training import Loss

_ARGUMENTS = {
    "reference_logits": "reference",
    "teacher_logits": "teacher",
    "teacher_base_logits": "teacher_base",
    "prior_logits": "prior_logits",
    "token_values": "token_values",
}
_CAUSAL = "a causal language model, whose logits are those of the next token"
#: What transformers calls the losses of models whose logits line up with their labels already.
_ALIGNED = ("ForMaskedLM", "ForTokenClassification", "ForSequenceClassification", "ForQuestionAnswering")
_FROM_INPUTS = (*MODELS, "negative_mask", *COLUMNS)


class CausalLoss:
    """The loss of a causal language model's next tokens; made by `qunify.hf.loss`.

    Attributes
    ----------
    method : QMap
        May be set between steps, as a `Schedule` does.
    """

    def __init__(
        self, method: Method, models: dict[str, Given], shared: dict[str, Tensor], answers: Answers | None = None
    ) -> None:
        self._loss = Loss(method)
        self._given, self._shared, self._answers = models, shared, answers
        self._models: dict[str, Use] = {}
        self._autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._hooks: list[Any] = []
        self._call: tuple[tuple[Any, ...], dict[str, Any], dict[str, Tensor]] | None = None

    @property
    def method(self) -> QMap:
        return self._loss.method

    @method.setter
    def method(self, method: QMap) -> None:
        self._loss.method = method

    def attach(self, trainer_or_model: Any) -> CausalLoss:
        """Let the loss see the inputs of a model, and a trainer's `Schedule` set its parameters. Gives itself.

        Needed for methods with a reference, a teacher, token weights or masks, or negatives, and for a schedule. To be
        called once the trainer is made: by then it has put its adapter around the model. Token weights and masks are
        taken from the batch by their names, `token_weight` and `token_mask`, (B, T), aligned with the labels.

        Raises
        ------
        ValueError
            For a trainer whose options pass the loss by, a model that does not predict the next token, "base" where
            that is not the model that training began with, or a frozen model that is the trained one.
        """
        name = self.method.name
        is_model = isinstance(trainer_or_model, nn.Module)
        if not is_model:
            trainer = trainer_or_model
            if trainer.compute_loss_func is not self:
                raise ValueError(f"{name}: attach: expected a trainer with this loss as its compute_loss_func")
            if trainer.args.label_smoothing_factor:
                got = trainer.args.label_smoothing_factor
                raise ValueError(f"{name}: label_smoothing_factor: expected 0, which the loss would ignore, got {got}")
            if trainer.args.n_gpu > 1 and set(self.method.needs) & set(_FROM_INPUTS):
                got = f"{trainer.args.n_gpu} in one: launch with accelerate or torchrun, or show one"
                raise ValueError(f"{name}: attach: expected one device in each process, got {got}")
            trainer._loss_shifts_labels = True  # labels are counted as they are used here
            bind(trainer, self)
            self._autocast = trainer.accelerator.autocast
            if self._answers is not None:
                check_dataset(self._answers, trainer.train_dataset)
        model = trainer_or_model if is_model else trainer_or_model.model
        kind, inner = getattr(core(model), "loss_type", None), type(core(model)).__name__
        if kind in _ALIGNED or getattr(getattr(core(model), "config", None), "is_encoder_decoder", False):
            raise ValueError(f"{name}: attach: expected {_CAUSAL}, got {inner}")
        self._models = {
            context: use_frozen(given, model, name, _ARGUMENTS[context]) for context, given in self._given.items()
        }
        for hook in self._hooks:
            hook.remove()
        # Weights and masks, which no model takes, are taken out last: other losses attached to it need to see them.
        self._hooks = [
            model.register_forward_pre_hook(self._record, with_kwargs=True, prepend=True),
            model.register_forward_pre_hook(_without_numbers, with_kwargs=True),
        ]
        return self

    def _record(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not is_constant(model):  # a constant one is being called as a reference or a teacher
            inputs = {k: v for k, v in kwargs.items() if k not in ("labels", "num_items_in_batch")}
            self._call = args, inputs, shifted(inputs)

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss in nats: a sum over the labels kept, divided by `num_items_in_batch`, or else by their number.

        Parameters
        ----------
        outputs : model output
            With `logits`, (B, T, V).
        labels : Tensor of int, (B, T)
            Not shifted: that is done here. −100 where a token does not count.
        num_items_in_batch : int or Tensor, optional
            How many labels count over all accumulation steps, after shifting.

        Raises
        ------
        ValueError
            For a batch without labels, outputs of a model that does not predict the next token, a method that needs
            what the loss has not been attached to, and what a call of `qunify.loss` refuses.
        """
        if labels is None:
            raise ValueError(f"{self.method.name}: labels: expected a batch with them, got None")
        logits, items = _logits(outputs, self.method.name, "model"), num_items_in_batch
        if labels.shape != outputs.logits.shape[:-1]:
            got = f"{tuple(labels.shape)} for logits {tuple(outputs.logits.shape)}"
            raise ValueError(f"{self.method.name}: labels: expected one for each token, got {got}")
        if isinstance(items, Tensor):  # with several devices in one process, Trainer repeats the number for each
            items = items.max().clamp(min=1)
        elif isinstance(items, int):
            items = max(items, 1)
        context = self._context(labels, logits.shape[-1])
        loss: Tensor = self._loss(logits, labels[:, 1:], items, **context)
        return loss

    def _context(self, labels: Tensor, vocab: int) -> dict[str, Tensor]:
        """What the method needs of the batch whose forward pass was recorded, from its inputs and the other models."""
        needs, name = self.method.needs, self.method.name
        context = {name: value.to(labels.device) for name, value in self._shared.items()}
        if not set(needs) & set(_FROM_INPUTS) and (self._call is None or not self.method.pools):
            return context
        if self._call is None:
            raise ValueError(f"{name}: {', '.join(needs)}: expected a loss that sees the model: call attach(trainer)")
        (args, inputs, numbers), self._call = self._call, None
        context |= numbers
        if self.method.pools and (documents := sequences(inputs, labels)) is not None:
            context[SEQUENCES] = documents
        if "negative_mask" in needs:
            context["negative_mask"] = previous_tokens(inputs, labels, vocab)
        if self._answers is not None:
            self._answers.check(self.method, vocab)
            rows = rows_of_batch(self._answers, inputs, labels)
            listed = self._answers.top_k(rows[:, 1:], labels[:, 1:])
            every = torch.arange(listed.values[..., 0].numel(), device=labels.device)
            teacher = listed.logits(every, vocab, torch.float32)
            context["teacher_logits"] = teacher.unflatten(0, listed.values.shape[:-1])
        for key, use in self._models.items():
            with use() as model, self._autocast():
                outputs = model(*args, **inputs | {"use_cache": False})
            context[key] = _logits(outputs, name, _ARGUMENTS[key])
            if (got := context[key].shape[-1]) != vocab:
                raise ValueError(f"{name}: {_ARGUMENTS[key]}: expected a vocabulary of {vocab}, got {got}")
        return context


def _without_numbers(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The call without token weights and masks."""
    return args, {k: v for k, v in kwargs.items() if k not in COLUMNS}


def _logits(outputs: Any, name: str, argument: str) -> Tensor:
    """The logits of all tokens but the last, whose next one is not known."""
    if not isinstance(getattr(outputs, "logits", None), Tensor):
        raise ValueError(f"{name}: {argument}: expected outputs with logits, got {type(outputs).__name__}")
    kind = type(outputs).__name__
    if outputs.logits.dim() != 3 or any(part in kind for part in ("Masked", "Seq2Seq", "Classifier")):
        raise ValueError(f"{name}: {argument}: expected outputs of {_CAUSAL}, got {kind}")
    logits: Tensor = outputs.logits[:, :-1]
    return logits


def loss(
    method: Method,
    reference: Given | None = None,
    teacher: Given | None = None,
    *,
    teacher_answers: str | Path | Answers | None = None,
    prior_logits: Tensor | Sequence[float] | None = None,
    teacher_base: Given | None = None,
    token_values: Tensor | Sequence[float] | None = None,
    **params: Any,
) -> CausalLoss:
    """A method as a `compute_loss_func`, for transformers' Trainer and for TRL's SFTTrainer below version 2.

    Labels are shifted here, and accumulation of gradients is exact. `qunify.hf.SFTTrainer` does the same in one pass
    of the backbone and without all logits at once.

    Parameters
    ----------
    method : str, QMap or function
        An id of the catalogue or a class of QMaps, with its parameters as keywords; any QMap, also a designed one; or a
        Python loss `(logits, labels, **context)` giving one loss per token.
    reference, teacher, teacher_base : Module or "base", optional
        A frozen causal language model over the same tokens, on the same device, or the trained model with its adapter
        switched off. Used if the method needs it. The loss must then be attached to the trainer. The base is what the
        teacher was before its own fine-tuning.
    teacher_answers : path or Answers, optional
        In place of a teacher, a jsonl file of its recorded answers, found by the tokens of each example in every batch;
        these may be cut off at their ends.
    prior_logits : Tensor or sequence of float, (V,), optional
        Say, the logarithms of how often each token occurs.
    token_values : Tensor or sequence of float, (V,), optional
        What each token is as a number, NaN for one that is none; say, `qunify.hf.digit_values`.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        Unknown or out-of-range parameter, a reference or teacher that is needed and missing or no model, a method
        that needs an older policy.

    Examples
    --------
    >>> from qunify import hf
    >>> criterion = hf.loss("focal", focusing=1.0)  # Trainer(..., compute_loss_func=criterion)

    With a frozen model, `criterion.attach(trainer)` before training:

    >>> criterion = hf.loss("asft", reference="base", kl_weight=0.1)
    """
    m = catalogue.as_method(method, "hf.loss", **params)
    if "old_logits" in m.needs:
        raise ValueError(f"{m.name}: old_logits: expected a method without an older policy: use qunify.hf.SFTTrainer")
    given = {
        "reference_logits": reference,
        "teacher_logits": teacher,
        "teacher_base_logits": teacher_base,
        "prior_logits": prior_logits,
        "token_values": token_values,
    }
    answers: Answers | None = None
    if teacher_answers is not None and "teacher_logits" in m.needs:
        if teacher is not None:
            raise ValueError(f"{m.name}: teacher_answers: expected these or a teacher, got both")
        answers = teacher_answers if isinstance(teacher_answers, Answers) else Answers.read(teacher_answers)
        del given["teacher_logits"]
    found = needed(m, given, _ARGUMENTS)
    models = {context: value for context, value in found.items() if context in MODELS}
    shared = {context: as_tensor(m.name, context, value) for context, value in found.items() if context not in MODELS}
    return CausalLoss(m, models, shared, answers)
