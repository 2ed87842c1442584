"""TRL's SFTTrainer on the loss of any method, computed from hidden states."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import datasets
import torch
import trl
from peft import PeftModel
from torch import Tensor, nn
from transformers import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from qunify import catalogue
from qunify.hf import _dataset_columns as columns
from qunify.hf._answers import Answers
from qunify.hf._dataset_columns import Collator, answers_of, numbers_of, prepared, together
from qunify.hf._frozen_models import MODELS, Given, Snapshot, Use, check, loaded, needed, use_frozen
from qunify.hf._heads import Head, last_hidden
from qunify.hf._number_tokens import digit_values
from qunify.hf._objective import add_objective, parts
from qunify.hf._rounded_steps import warn_of_unmoved
from qunify.hf._schedule import bind
from qunify.hf._statistics import NAMES, Source, observe
from qunify.hf._token_columns import ANSWER, COLUMNS, previous_tokens, sequences, shifted
from qunify.maps import Method
from qunify.token import as_tensor
from qunify.training import KEYWORDS, linear_loss

#: Context → the trainer's argument it comes from.
_ARGUMENTS = {
    "reference_logits": "reference_model",
    "teacher_logits": "teacher_model",
    "old_logits": "old_every",
    "prior_logits": "prior_logits",
    "teacher_base_logits": "teacher_base_model",
}


class SFTTrainer(trl.SFTTrainer):
    """TRL's `SFTTrainer` with any method's loss: one pass of the backbone, and never all logits at once.

    Logged beside TRL's own numbers, from up to 256 evenly spaced tokens of every micro-batch of a logging step and of
    every batch in evaluation: `entropy` and `mean_token_accuracy`; `trust`, the method's γ (unit gauge);
    `gradient_scale`, the sum of the absolute values of the loss's gradient by a token's logits, twice the probability
    that it asks to move; `in_simplex`, the share of tokens whose target is a distribution. The loss of a weighted
    method cannot be compared with another's; these can.

    Parameters
    ----------
    model, args, **kwargs
        As for `trl.SFTTrainer`.
    method : str, QMap or function
        An id of the catalogue or a class of QMaps; any QMap, also a designed one; or a Python loss
        `(logits, labels, **context)` giving one loss per token.
    method_params : mapping, optional
        The parameters, beside an id or a class.
    reference_model, teacher_model, teacher_base_model : Module, folder or "base", optional
        A frozen causal language model over the same tokens, the folder that one was saved to (as safetensors), or the
        trained model with its adapter switched off. Run only if the method needs it. The base is what the teacher was
        before its own fine-tuning.
    teacher_answers : path or Answers, optional
        In place of a teacher, a jsonl file of its recorded answers, as `qunify record` or a server writes them. They
        are found by the token ids of each example, before it is truncated or packed; every token that is trained on
        must have one.
    old_every : int, optional
        For a method with an older policy: how many optimizer steps until the present one takes its place. Costs a
        second copy of the parameters in training.
    prior_logits : Tensor, (V,), optional
        For a method with a prior: say, the logarithms of how often each token occurs.
    token_values : Tensor, (V,), optional
        For a method that counts tokens as numbers: what each one is, NaN for one that is none. By default the digits of
        the tokenizer, as `digit_values` finds them.

    Columns of the dataset named `weight` and `mask` become `token_weight` and `token_mask` where the method needs them:
    a number for an example, or a list with one for each message, or, beside `input_ids`, for each token; there they may
    bear those names themselves. Negatives of `unlikelihood` are the tokens that the sequence already holds; they cost
    one byte for each token and entry of the vocabulary. A `Schedule` among the callbacks changes the parameters.

    Raises
    ------
    KeyError
        Unknown id.
    ValueError
        Before training: unknown or out-of-range parameter; a model, column or number that the method needs and does not
        get; a model with another vocabulary; options of the trainer that would pass the loss by.

    Examples
    --------
    >>> from qunify import hf
    >>> trainer = hf.SFTTrainer(model, args, method="asft", method_params={"kl_weight": 0.1}, reference_model="base",
    ...                         train_dataset=dataset, peft_config=LoraConfig())  # doctest: +SKIP
    """

    loss_is_scaled_for_ga: Any = True
    model: Any
    data_collator: Any
    _signature_columns: Any

    def __init__(
        self,
        model: Any,
        args: Any = None,
        *,
        method: Method,
        method_params: Mapping[str, Any] | None = None,
        reference_model: Given | str | Path | None = None,
        teacher_model: Given | str | Path | None = None,
        teacher_answers: str | Path | Answers | None = None,
        old_every: int | None = None,
        prior_logits: Tensor | None = None,
        teacher_base_model: Given | str | Path | None = None,
        token_values: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        self.method = catalogue.as_method(method, "SFTTrainer", **(method_params or {}))
        name = self.method.name
        models = {
            "reference_logits": reference_model,
            "teacher_logits": teacher_model,
            "teacher_base_logits": teacher_base_model,
        }
        given: dict[str, Any] = {
            context: loaded(model, f"{name}: {_ARGUMENTS[context]}") if context in self.method.needs else None
            for context, model in models.items()
        }
        given |= {"old_logits": old_every, "prior_logits": prior_logits}
        self._answers: Answers | str | Path | None = None
        if teacher_answers is not None and "teacher_logits" in self.method.needs:
            if teacher_model is not None:
                raise ValueError(f"{name}: teacher_answers: expected these or a teacher_model, got both")
            self._answers = teacher_answers
            del given["teacher_logits"]
        given = needed(self.method, given, _ARGUMENTS)
        every = given.get("old_logits", 1)
        if not (isinstance(every, int) and every >= 1):
            raise ValueError(f"{name}: old_every: expected an integer of at least 1, got {every!r}")
        _refuse_bypasses(name, args, kwargs)
        rows = kwargs.get("train_dataset")
        if isinstance(rows, Sized) and len(rows) == 0:
            raise ValueError(f"{name}: train_dataset: expected at least one row, got none")

        super().__init__(model, args, **kwargs)

        self._refuse_layouts()
        self._check_answers()
        self._loss_shifts_labels = self.model_accepts_loss_kwargs = True  # labels are counted as they are used here
        add_objective(self.model)
        self._uses: dict[str, Use] = {}
        self._snapshot: Snapshot | None = None
        for context in given.keys() & set(MODELS):
            self._uses[context] = self._other(given[context], _ARGUMENTS[context])
        if "old_logits" in given:
            if self.is_fsdp_enabled:
                raise ValueError(f"{name}: old_every: expected parameters whole on every device, got FSDP")
            self._snapshot = Snapshot(self.model, given["old_logits"])
            self.add_callback(self._snapshot)
            self._uses["old_logits"] = self._snapshot.use
        self._constant: dict[str, Any] = {}
        vocab = Head.of(self.model).vocab
        if "token_values" in self.method.needs:
            given["token_values"] = digit_values(self._tokenizer, vocab) if token_values is None else token_values
        for context in ("prior_logits", "token_values"):
            if context in given:
                value = as_tensor(name, context, given[context], self.accelerator.device)
                if value.shape != (vocab,):
                    raise ValueError(f"{name}: {context}: expected shape ({vocab},), got {tuple(value.shape)}")
                self._constant[context] = value
        if type(self.data_collator) is columns.DataCollatorForLanguageModeling:
            self.data_collator = Collator(**vars(self.data_collator))
        self._observed: dict[str, Tensor] = {}
        bind(self, self)
        keeps_copies = self.is_deepspeed_enabled or self.is_fsdp_enabled  # of the weights, in float32
        if "adam" in self.args.optim and not keeps_copies:
            warn_of_unmoved(name, self.model.parameters(), self.args.learning_rate)

    def _other(self, given: Given, argument: str) -> Use:
        """How to call a reference or a teacher."""
        name, vocab = self.method.name, Head.of(self.model).vocab
        if isinstance(given, nn.Module):
            check(given, name, argument)
            if (got := Head.of(given).vocab) != vocab:
                raise ValueError(f"{name}: {argument}: expected a vocabulary of {vocab}, got {got}")
            self.accelerator.prepare_model(given, evaluation_mode=True)
            self.accelerator._models.pop()  # else an evaluation before training would take the policy for prepared
        return use_frozen(given, self.model, name, argument)

    def add_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> None:
        super().add_callback(callback)
        bind(self, self)

    # ---- data -------------------------------------------------------------------------------------------------
    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Any:
        def prepare(dataset: Any, args: Any, packing: bool = False) -> Any:
            return super(SFTTrainer, self)._prepare_dataset(
                dataset, processing_class, args, packing, formatting_func, dataset_name
            )

        name, needs, present = self.method.name, self.method.needs, next(iter(dataset))
        aligned = present.keys() & COLUMNS.keys() if "input_ids" in present else ()  # named as in a batch
        columns_needed = {
            context: context if context in aligned else column
            for context, column in COLUMNS.items()
            if context in needs
        }
        for context, column in COLUMNS.items():
            if column in present and context not in needs:
                warnings.warn(f"{name}: {dataset_name} dataset: column {column!r} is not used", stacklevel=2)
        if self._answers is not None and not isinstance(self._answers, Answers):
            self._answers = Answers.read(self._answers, self._tokenizer)
        answers = self._answers
        made = [*columns_needed, *([] if answers is None else [ANSWER])]
        if not made:
            return self._with_labels(prepare(dataset, args, packing), dataset, args, dataset_name)
        if {*made, "seq_lengths"} <= present.keys():  # packed before
            return dataset
        if answers is not None and "seq_lengths" in present:
            got = "one that is packed already, whose documents cannot be told apart"
            raise ValueError(f"{name}: teacher_answers: expected a {dataset_name} dataset of examples, got {got}")
        for column in columns_needed.values():
            if column not in present:
                got = ", ".join(present)
                raise ValueError(f"{name}: {dataset_name} dataset: expected a column {column!r}, got {got}")
        template = self.chat_template  # no function below may hold the trainer: datasets would hash all of its model

        def tokenize(messages: list[Any], example: dict[str, Any]) -> list[int]:
            ids: list[int] = processing_class.apply_chat_template(
                messages,
                tokenize=True,
                return_dict=True,
                chat_template=template,
                tools=json.loads(tools) if isinstance(tools := example.get("tools"), str) else tools,
                **example.get("chat_template_kwargs", {}),
            )["input_ids"]
            return ids

        special = set(self._tokenizer.all_special_ids)
        parts = [numbers_of(columns_needed, "input_ids" in present, tokenize, special)]
        if answers is not None:
            parts.append(answers_of(answers, dataset_name))
        found = prepared(dataset, made, together(*parts), prepare, args, packing)
        return self._with_labels(found, dataset, args, dataset_name)

    def _with_labels(self, found: Any, dataset: Any, args: Any, dataset_name: str) -> Any:
        """What has become of a dataset, unless nothing has: truncation drops examples whose labels are all cut off."""
        if isinstance(found, datasets.Dataset) and isinstance(dataset, datasets.Dataset) and not len(found):
            limit = "" if args.max_length is None else f" within max_length={args.max_length}"
            got = f"none of {len(dataset)} examples"
            raise ValueError(
                f"{self.method.name}: {dataset_name} dataset: expected an example with a label{limit}, got {got}"
            )
        return found

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        used = (context for context in COLUMNS if context in self.method.needs)
        self._signature_columns = [*dict.fromkeys((*self._signature_columns, *used, ANSWER))]

    # ---- loss -------------------------------------------------------------------------------------------------
    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        mode = "train" if self.model.training else "eval"
        inputs = dict(inputs)
        if "labels" not in inputs:
            raise ValueError(f"{self.method.name}: labels: expected a batch with them, got {', '.join(inputs)}")
        labels = inputs.pop("labels")
        inputs["use_cache"] = False
        rows = inputs.pop(ANSWER, None)
        sources: dict[str, Source] = self._constant | shifted(inputs)
        if isinstance(self._answers, Answers):
            if rows is None:
                raise ValueError(f"{self.method.name}: {ANSWER}: expected a batch with it, got {', '.join(inputs)}")
            sources["teacher_logits"] = self._answers.top_k(rows[:, 1:], labels[:, 1:])
        if "negative_mask" in self.method.needs:
            sources["negative_mask"] = previous_tokens(inputs, labels, Head.of(self.model).vocab)
        documents = sequences(inputs, labels) if self.method.pools else None
        sources |= self._predictions(model, inputs)
        labels = labels[:, 1:]
        items = max(1.0, float((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch))
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The items of all processes are counted, and gradients are averaged over processes.
            items /= self.accelerator.num_processes // self.get_tp_size()
        observes = mode == "eval" or self._logs_this_step()

        def objective(hidden: Tensor, head: Head) -> tuple[Tensor, Tensor | None]:
            hidden = hidden[:, :-1]

            def fused(method: Method, **context: Any) -> Tensor:
                return linear_loss(
                    hidden,
                    head.weight,
                    labels,
                    method,
                    bias=head.bias,
                    logit_scale=head.scale,
                    softcap=head.softcap,
                    num_items_in_batch=items,
                    sequence_ids=documents,
                    **context,
                )

            loss = fused(self.method, **{KEYWORDS.get(context, context): source for context, source in sources.items()})
            if not observes:
                return loss, None
            observed = observe(self.method, head, hidden, labels, sources, documents)
            if mode == "eval":  # exact, over every label
                totals = items * torch.stack((fused("sft"), loss.detach()))
                observed[:, -2:] = torch.stack((totals, (labels != -100).sum().expand(2)))
            return loss, observed

        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        loss, observed, auxiliary = model(**inputs, objective=objective)
        if auxiliary is not None:  # a mean over the micro-batch
            steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * auxiliary / steps
            self._metrics[mode]["aux_loss"].append(
                self.accelerator.gather_for_metrics(auxiliary.detach()).mean().item()
            )
        if observed is not None:  # added up here, where all processes are: one of them alone may call `log`
            self._observed[mode] = self._observed.get(mode, 0) + self.accelerator.reduce(observed, "sum")
        self._count_tokens(mode, inputs)
        if not return_outputs:
            return loss
        with torch.no_grad():
            return loss, model(**inputs)

    def _predictions(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Source]:
        """The other models' predictions on the same inputs: their hidden states and heads, or logits, (B, T − 1, …).

        The policy without its adapter, or with older parameters, is called as in training, through its wrappers.
        """
        found: dict[str, Source] = {}
        for context, use in self._uses.items():
            with use() as other, self.accelerator.autocast():
                if other is self.model:
                    hidden, head, _ = model(**inputs, objective=parts)
                else:
                    hidden, head = last_hidden(other, inputs), Head.of(other)
                own, hidden = Head.of(self.model), hidden[:, :-1]
                if (head.scale, head.softcap) == (own.scale, own.softcap):
                    found[context] = hidden, head.weight.detach(), None if head.bias is None else head.bias.detach()
                else:
                    found[context] = head.logits(hidden)
        return found

    # ---- what evaluations and checkpoints need ----------------------------------------------------------------
    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._observed.pop("eval", None)  # left by `predict`, which logs nothing
        self._metrics["eval"].clear()
        output = super().evaluation_loop(*args, **kwargs)
        sums, counts = self._observed["eval"].tolist()  # a mean over batches would depend on their size
        metrics = output.metrics or {}
        for key in metrics:
            if key.endswith("_loss") and counts[-1]:
                metrics[key] = sums[-1] / counts[-1]
        return output

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._snapshot is not None and self.args.should_save:
            self._snapshot.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._snapshot is not None and checkpoint is not None:
            self._snapshot.load(checkpoint)

    # ---- numbers ----------------------------------------------------------------------------------------------
    def _logs_this_step(self) -> bool:
        step, strategy = self.state.global_step + 1, self.args.logging_strategy
        if strategy == "steps":
            return step % self.state.logging_steps == 0 or (step == 1 and self.args.logging_first_step)
        return bool(strategy == "epoch")

    def _count_tokens(self, mode: str, inputs: dict[str, Any]) -> None:
        if mode == "train":
            mask = inputs.get("attention_mask")
            count = torch.tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
            counts = self.accelerator.gather_for_metrics(count.to(self.accelerator.device))
            self._total_train_tokens += int(counts.sum()) // self._tp_size
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        none = torch.zeros(2, len(NAMES))
        sums, counts = self._observed.pop(mode, none).tolist()
        for name, total, count in zip(NAMES, sums, counts, strict=True):
            if count:
                self._metrics[mode][name] = [total / count]
        super().log(logs, start_time)

    # ---- refusals ---------------------------------------------------------------------------------------------
    def _check_answers(self) -> None:
        """ValueError unless the recorded answers are of the model's vocabulary, and tell the method enough."""
        if self._answers is None:
            return
        if not isinstance(self._answers, Answers):
            got = "one whose preparation is skipped"
            raise ValueError(f"{self.method.name}: teacher_answers: expected a dataset of text or token ids, got {got}")
        self._answers.check(self.method, Head.of(self.model).vocab)

    def _refuse_layouts(self) -> None:
        """ValueError where hidden states and labels would not lie side by side."""
        name = self.method.name
        per_token = sorted(COLUMNS.keys() & self.method.needs) + ["teacher_answers"] * (self._answers is not None)
        if per_token and isinstance(self.data_collator, DataCollatorForVisionLanguageModeling):
            got = "a dataset with pictures, whose collator leaves it out"
            raise ValueError(f"{name}: {per_token[0]}: expected a dataset of text, got {got}")
        if isinstance(self.model, PeftModel) and self.model.active_peft_config.is_prompt_learning:
            got = self.model.active_peft_config.peft_type.value
            raise ValueError(f"{name}: peft_config: expected an adapter without virtual tokens, got {got}")
        parallel = self.accelerator.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            raise ValueError(f"{name}: parallelism_config: expected whole sequences on every device, got split ones")
        check(self.model, name, "model")


def _refuse_bypasses(name: str, args: Any, kwargs: Mapping[str, Any]) -> None:
    """ValueError for options under which something else than the method would train."""
    if kwargs.get("compute_loss_func") is not None:
        raise ValueError(f"{name}: compute_loss_func: expected None, which method= stands for, got a function")
    if args is None:
        return
    wanted = {"label_smoothing_factor": 0, "use_liger_kernel": False, "loss_type": "nll"}
    for option, value in wanted.items():
        if (got := getattr(args, option, value)) != value:
            raise ValueError(f"{name}: {option}: expected {value!r}, else the method would be passed by, got {got!r}")
    packs = getattr(args, "packing", False) or getattr(args, "eval_packing", False)
    if packs and args.packing_strategy == "wrapped":
        raise ValueError(f'{name}: packing_strategy: expected "bfd", got "wrapped", which joins documents')
