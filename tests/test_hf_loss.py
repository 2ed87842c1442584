"""The loss function of a Trainer: steps by hand, with the inputs it sees once attached; and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import trl
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import BartConfig, BertConfig, GPT2Config, Trainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

import qunify as qu
from qunify import hf
from qunify.hf import _frozen_models as frozen
from tests import small_llama, trainers
from tests.trainers import TEXTS, apart, by_hand, examples, logits, losses, model

pytestmark = pytest.mark.slow

EXACT = 1e-12
DATA = examples()
ROWS = trainers.dataset(input_ids=[ids for ids, _ in DATA], labels=[ids for ids, _ in DATA])


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return DataCollatorForLanguageModeling(pad_token_id=1)(rows)


def run(
    out: Path, criterion: hf.CausalLoss, m: Any, *, attach: bool = True, collator: Any = collate, **settings: Any
) -> Any:
    callbacks = settings.pop("callbacks", None)
    trainer = Trainer(
        m, trainers.config(out, remove_unused_columns=False, **settings), train_dataset=ROWS, data_collator=collator,
        compute_loss_func=criterion, callbacks=callbacks,
    )  # fmt: skip
    if attach:
        assert criterion.attach(trainer) is criterion
    trainer.train()
    return trainer


SPLIT: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


@pytest.mark.parametrize("settings", [{}, SPLIT], ids=["whole", "accumulated"])
def test_a_trainer_takes_the_step_by_hand(settings: dict[str, Any], tmp_path: Path) -> None:
    expected, values = by_hand(model(), qu.get("focal", focusing=1.0), DATA)
    trainer = run(tmp_path, hf.loss("focal", focusing=1.0), model(), attach=False, **settings)
    assert apart(trainer.model, expected) < EXACT
    assert losses(trainer) == pytest.approx(values, abs=1e-6)


def test_models_whose_labels_are_counted_unshifted(tmp_path: Path) -> None:
    """Trainer counts the first label of GPT-2's rows, which is never predicted: −100 there takes it out."""

    def masked(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows)
        batch["labels"][:, 0] = -100
        return batch

    start = model(config=GPT2Config, n_embd=16, n_layer=1, n_head=2, num_attention_heads=2)
    start.eval()
    for module in start.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected, _ = by_hand(start, qu.get("dft"), DATA)
    first_hidden = [(ids, [-100, *ids[1:]]) for ids, _ in DATA]
    assert apart(by_hand(start, qu.get("dft"), first_hidden)[0], expected) == 0
    trainer = run(tmp_path, hf.loss("dft"), copy.deepcopy(start), attach=False, collator=masked, **SPLIT)
    assert apart(trainer.model, expected) < EXACT
    fused = trainers.train(tmp_path, model=copy.deepcopy(start), method="dft", settings=SPLIT)
    assert apart(fused.model, expected) < EXACT


@pytest.mark.parametrize(("method", "argument"), [("target_sft", "teacher"), ("asft", "reference")])
def test_a_frozen_model(method: str, argument: str, tmp_path: Path) -> None:
    other = model(seed=1)
    with torch.no_grad():
        given = {f"{argument}_logits": logits(other, DATA)}
    expected, _ = by_hand(model(), qu.get(method), DATA, context=lambda *_: given)
    trainer = run(tmp_path, hf.loss(method, **{argument: other}), model(), **SPLIT)
    assert apart(trainer.model, expected) < EXACT


def test_the_adapter_switched_off(tmp_path: Path) -> None:
    def policy() -> Any:
        base = model()
        torch.manual_seed(3)
        return get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], r=2)).double()

    runs = [
        run(tmp_path, hf.loss("asft", reference=reference, kl_weight=1.0), policy(), max_steps=3, learning_rate=1.0)
        for reference in ("base", model(), model(seed=1))
    ]
    assert apart(runs[0].model, runs[1].model) == 0
    assert apart(runs[0].model, runs[2].model) > 1e-3


def test_trls_trainer(tmp_path: Path) -> None:
    teacher = model(seed=1)
    with torch.no_grad():
        given = {"teacher_logits": logits(teacher, DATA)}
    expected, _ = by_hand(model(), qu.get("target_sft"), DATA, context=lambda *_: given)
    criterion = hf.loss("target_sft", teacher=teacher)
    with pytest.warns(FutureWarning, match="compute_loss_func"):
        trainer: Any = trl.SFTTrainer(
            model(), trainers.config(tmp_path, padding_free=True, max_length=None), train_dataset=trainers.dataset(),
            processing_class=trainers.TOKENIZER, compute_loss_func=criterion,
        )  # fmt: skip
    criterion.attach(trainer)
    trainer.train()
    assert apart(trainer.model, expected) < EXACT


def test_weights_and_negatives_of_a_batch(tmp_path: Path) -> None:
    numbers = [[0.5 + ((7 * i + j) % 5) for j in range(len(ids))] for i, (ids, _) in enumerate(DATA)]
    by_ids = {tuple(ids): row for (ids, _), row in zip(DATA, numbers, strict=True)}

    def weighted(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows)
        batch["token_weight"] = torch.zeros(batch["labels"].shape)
        for out, row in zip(batch["token_weight"], rows, strict=True):
            out[: len(row["input_ids"])] = torch.tensor(by_ids[tuple(row["input_ids"])])
        return batch

    flat = torch.tensor([w for row in numbers for w in row[1:]]).double()
    expected, _ = by_hand(model(), qu.get("iw_sft"), DATA, context=lambda *_: {"token_weight": flat})
    trainer = run(tmp_path, hf.loss("iw_sft"), model(), collator=weighted, **SPLIT)
    assert apart(trainer.model, expected) < EXACT
    fused = trainers.train(tmp_path, method="unlikelihood", settings=SPLIT)
    assert apart(run(tmp_path, hf.loss("unlikelihood"), model(), **SPLIT).model, fused.model) < EXACT


def test_a_loop_of_ones_own() -> None:
    m, teacher = model(), model(seed=1)
    criterion = hf.loss("kd", teacher=teacher).attach(m)
    ids = torch.tensor([DATA[1][0]])
    loss = criterion(m(ids), ids)
    with torch.no_grad():
        whole = qu.loss("kd")(m(ids).logits[:, :-1], ids[:, 1:], teacher_logits=teacher(ids).logits[:, :-1])
    assert loss.item() == pytest.approx(whole.item(), abs=1e-12)
    with pytest.raises(ValueError, match=r"kd: teacher_logits: expected a loss that sees the model: call attach"):
        hf.loss("kd", teacher=teacher)(m(ids), ids)


def test_the_inputs_of_one_call_serve_one_loss() -> None:
    """Else a batch that the model has not seen would be read with the teacher's logits of the batch before."""
    m = model()
    criterion = hf.loss("kd", teacher=model(seed=1)).attach(m)
    first, second = (torch.tensor([ids]) for ids in (DATA[1][0], DATA[1][0][::-1]))
    outputs = m(first)
    value = criterion(outputs, first).item()
    with pytest.raises(ValueError, match=r"kd: teacher_logits: expected a loss that sees the model"):
        criterion(outputs, second)
    assert criterion(m(second), second).item() != value
    assert criterion(m(first), first).item() == value


def test_a_frozen_model_keeps_no_cache_whatever_the_policy_does() -> None:
    m, teacher, seen = model(), model(seed=1), []
    teacher.register_forward_hook(lambda *a: seen.append(a[-1].past_key_values))
    criterion = hf.loss("kd", teacher=teacher).attach(m)
    ids = torch.tensor([DATA[1][0]])
    for use_cache in (True, False):
        outputs = m(input_ids=ids, use_cache=use_cache)
        assert (outputs.past_key_values is not None) == use_cache
        criterion(outputs, ids)
    assert seen == [None, None]


def test_losses_of_one_model_do_not_disturb_each_other() -> None:
    ids = torch.tensor([DATA[1][0]])
    kinds: dict[str, dict[str, Any]] = {"asft": {"reference": "base"}, "iw_sft": {}, "unlikelihood": {}}

    def values(*names: str) -> list[float]:
        torch.manual_seed(3)
        m = get_peft_model(model(), LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)).double()
        losses = [hf.loss(name, **kinds[name]).attach(m) for name in names]
        outputs = m(input_ids=ids, token_weight=torch.arange(1.0, 1 + ids.numel())[None])
        return [loss(outputs, ids).item() for loss in losses]

    assert values(*kinds) == [value for name in kinds for value in values(name)]


def test_a_frozen_model_computes_as_the_policy_does(tmp_path: Path) -> None:
    teacher, seen = small_llama.model(seed=1), []
    teacher.lm_head.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    run(tmp_path, hf.loss("kd", teacher=teacher), small_llama.model(), bf16=True)
    assert seen == [torch.bfloat16]


def test_a_prior_and_no_labels_kept() -> None:
    m, ids, prior = model(), torch.tensor([DATA[1][0]]), torch.arange(1.0, 97).log().double()
    loss = hf.loss("logit_adjustment", prior_logits=prior)(m(ids), ids)
    whole = qu.loss("logit_adjustment")(m(ids).logits[:, :-1], ids[:, 1:], prior_logits=prior)
    assert loss.item() == pytest.approx(whole.item(), abs=1e-12)
    assert hf.loss("logit_adjustment", prior_logits=prior.tolist())(m(ids), ids).item() == pytest.approx(loss.item())
    assert hf.loss("dft")(m(ids), torch.full_like(ids, -100), torch.tensor(0)).item() == 0


def test_a_schedule(tmp_path: Path) -> None:
    def smoothing(step: int, total: int) -> float:
        return step / total

    expected, _ = by_hand(model(), lambda step: qu.get("label_smoothing", smoothing=step / 3), DATA, 3)
    callbacks = [hf.Schedule(smoothing=smoothing)]
    trainer = run(tmp_path, hf.loss("label_smoothing"), model(), max_steps=3, callbacks=callbacks)
    assert apart(trainer.model, expected) < EXACT
    assert trainers.logged(trainer, "smoothing") == pytest.approx([0, 1 / 3, 2 / 3])
    unbound = [hf.Schedule(smoothing=smoothing)]
    with pytest.raises(ValueError, match="expected a loss to set"):
        run(tmp_path, hf.loss("label_smoothing"), model(), attach=False, callbacks=unbound)


# ---- what is refused --------------------------------------------------------------------------------------------

ENCODER = BertConfig(
    vocab_size=96, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
    id2label=dict(enumerate("abcd")),
)  # fmt: skip
ENCODER_DECODER = BartConfig(
    vocab_size=96, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=24, decoder_ffn_dim=24, pad_token_id=1, bos_token_id=2, eos_token_id=2, decoder_start_token_id=2,
)  # fmt: skip

TEACHER = small_llama.model(seed=1)
OTHERS = small_llama.model(seed=1, vocab_size=100)
IDS = torch.tensor([DATA[0][0]])


def headless() -> hf.CausalLoss:
    criterion = hf.loss("kd", teacher=OTHERS.model).attach(TEACHER)
    TEACHER(IDS)
    return criterion


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hf.loss("kd"), r"kd: teacher: expected what the method needs, got None"),
        (
            lambda: hf.loss("asft", reference="some/where"),  # type: ignore[arg-type]
            r'asft: reference: expected a model or "base", got \'some/where\'; load it first',
        ),
        (lambda: hf.loss("psft"), r"psft: old_logits: .*use qunify.hf.SFTTrainer"),
        (lambda: hf.loss("logit_adjustment"), r"logit_adjustment: prior_logits: expected what the method needs"),
        (lambda: hf.loss("focal", gamma=1.0), r"focal: unknown parameter 'gamma'"),
        (lambda: hf.loss("asft", reference="base").attach(TEACHER), r"asft: reference: expected a model, got \"base\""),
        (lambda: hf.loss("kd", teacher=TEACHER).attach(TEACHER), r"kd: teacher: expected another model"),
        (lambda: hf.loss("dft")(TEACHER(IDS), None), r"dft: labels: expected a batch with them, got None"),  # type: ignore[arg-type]
        (lambda: hf.loss("dft")(TEACHER.model(IDS), IDS), r"dft: model: expected outputs with logits, got BaseModel"),
        (lambda: headless()(TEACHER(IDS), IDS), r"kd: teacher: expected outputs with logits, got BaseModelOutput"),
    ],
)  # fmt: skip
def test_refused_by_the_loss(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_another_vocabulary_is_refused_by_the_loss() -> None:
    m, ids = small_llama.model(), torch.tensor([DATA[0][0]])
    criterion = hf.loss("kd", teacher=OTHERS).attach(m)
    with pytest.raises(ValueError, match="kd: teacher: expected a vocabulary of 96, got 100"):
        criterion(m(ids), ids)


def test_a_trainer_that_passes_the_loss_by_is_refused(tmp_path: Path) -> None:
    criterion = hf.loss("dft")
    trainer = Trainer(
        TEACHER, trainers.config(tmp_path, label_smoothing_factor=0.1), train_dataset=ROWS, compute_loss_func=criterion
    )
    with pytest.raises(ValueError, match=r"dft: label_smoothing_factor: expected 0, .*got 0.1"):
        criterion.attach(trainer)
    with pytest.raises(ValueError, match="dft: attach: expected a trainer with this loss"):
        hf.loss("dft").attach(trainer)


PREFIX = PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
BASE = {"method": "asft", "reference_model": "base"}
CUT = trainers.dataset(prompt=["the cat dog bird sees likes "] * 2, completion=["a bird", "likes"])
BIASED = small_llama.model(attention_bias=True)
GATHERED = small_llama.model()
GATHERED.lm_head.weight.data = torch.empty(0)  # as ZeRO-3 leaves a weight outside the call of its module


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"method": "kd"}, {}, r"kd: teacher_model: expected what the method needs, got None"),
        ({"method": "asft"}, {}, r"asft: reference_model: expected what the method needs"),
        ({"method": "asft", "reference_model": 3}, {}, r'asft: reference_model: expected a model or "base", got 3'),
        (BASE, {}, r'asft: reference_model: expected a model, got "base"'),
        ({"method": "kd", "teacher_model": OTHERS}, {}, r"kd: teacher_model: expected a vocabulary of 96, got 100"),
        ({"method": "kd", "teacher_model": OTHERS.model}, {}, r"kd: teacher_model: .* an output head, got LlamaModel"),
        ({"method": "logit_adjustment", "prior_logits": [1.0, 2.0]}, {}, r"prior_logits: expected shape .* got \(2,\)"),
        ({"method": "psft"}, {}, r"psft: old_every: expected what the method needs"),
        ({"method": "psft", "old_every": 0}, {}, r"psft: old_every: expected an integer of at least 1, got 0"),
        ({"method": "logit_adjustment", "prior_logits": torch.ones(5)}, {}, r"prior_logits: expected shape \(96,\)"),
        ({"method": "no_such"}, {}, r"unknown method 'no_such'"),
        ({"method_params": {"eta": 1}}, {}, r"dft: unknown parameter 'eta'"),
        ({"method": "focal", "method_params": {"focusing": -1}}, {}, r"focal: parameter focusing: expected"),
        ({"compute_loss_func": hf.loss("dft")}, {}, r"dft: compute_loss_func: expected None"),
        ({"callbacks": [hf.Schedule(eta=lambda step, total: 0.5)]}, {}, r"dft: Schedule: unknown parameter 'eta'"),
        ({"peft_config": PREFIX}, {}, r"dft: peft_config: expected .* got PREFIX_TUNING"),
        ({}, {"label_smoothing_factor": 0.1}, r"dft: label_smoothing_factor: expected 0.*got 0.1"),
        ({}, {"use_liger_kernel": True}, r"dft: use_liger_kernel: expected False.*got True"),
        ({}, {"loss_type": "dft"}, r"dft: loss_type: expected 'nll'.*got 'dft'"),
        ({}, {"packing": True, "packing_strategy": "wrapped"}, r'dft: packing_strategy: expected "bfd".*got "wrapped"'),
        ({"train_dataset": CUT}, {"max_length": 5}, r"dft: train dataset: .* max_length=5, got none of 2 ex"),
        (
            {"train_dataset": CUT.add_column("weight", [1.0, 2.0]), "method": "iw_sft"},
            {"max_length": 5},
            r"iw_sft: train dataset: expected an example with a label within max_length=5, got none of 2 examples",
        ),
        ({"model": GATHERED}, {}, r"dft: model: expected a head whose weight is there, got one divided by DeepSpeed"),
        ({"model": transformers.BertLMHeadModel(ENCODER)}, {}, r"dft: model: .* BertLMHeadModel, whose predictions"),
        ({**BASE, "peft_config": LoraConfig(init_lora_weights="pissa")}, {}, r"init_lora_weights='pissa', which"),
        ({**BASE, "peft_config": LoraConfig(init_lora_weights="olora")}, {}, r"init_lora_weights='olora', which"),
        ({**BASE, "model": BIASED, "peft_config": LoraConfig(target_modules=["q_proj"], bias="lora_only")}, {},
         r'asft: reference_model: .* got "base" and a parameter outside the adapter that trains, .*q_proj.*bias'),
        ({}, {"eval_packing": True, "packing_strategy": "wrapped"}, r'dft: packing_strategy: expected "bfd"'),
    ],
)  # fmt: skip
def test_refused_by_the_trainer(
    options: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    kind = KeyError if "no_such" in message else ValueError
    given = {"model": None, "method": "dft", "train_dataset": trainers.dataset(text=TEXTS[:2]), **options}
    given["model"] = small_llama.model() if given["model"] is None else copy.deepcopy(given["model"])
    with pytest.raises(kind, match=message):
        hf.SFTTrainer(args=trainers.config(tmp_path, **settings), processing_class=trainers.TOKENIZER, **given)


def test_the_method_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'method'"):
        hf.SFTTrainer(small_llama.model(), trainers.config(tmp_path), train_dataset=trainers.dataset())  # type: ignore[call-arg]


@pytest.mark.parametrize("begin", frozen._LEAVE_THE_BASE)
def test_adapters_that_pass_leave_the_base_as_it_is(begin: Any) -> None:
    plain = small_llama.model()
    adapted = get_peft_model(small_llama.model(), LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=begin))
    ids = torch.tensor([DATA[1][0]])
    with adapted.disable_adapter(), torch.no_grad():
        assert torch.equal(adapted(ids).logits, plain(ids).logits)


def test_an_older_policy_in_parts_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(hf.SFTTrainer, "_refuse_layouts", lambda self: setattr(self, "is_fsdp_enabled", True))
    with pytest.raises(ValueError, match="psft: old_every: expected parameters whole on every device, got FSDP"):
        hf.SFTTrainer(
            small_llama.model(), trainers.config(tmp_path), method="psft", old_every=1,
            train_dataset=trainers.dataset(text=TEXTS[:2]), processing_class=trainers.TOKENIZER,
        )  # fmt: skip


def test_the_model_itself_is_no_reference(tmp_path: Path) -> None:
    m = small_llama.model()
    settings: tuple[dict[str, Any], ...] = ({}, {"peft_config": LoraConfig(target_modules=["q_proj"])})
    for more in settings:
        with pytest.raises(ValueError, match="asft: reference_model: expected another model"):
            hf.SFTTrainer(
                m, trainers.config(tmp_path), method="asft", reference_model=m, train_dataset=trainers.dataset(),
                processing_class=trainers.TOKENIZER, **more,
            )  # fmt: skip


def test_a_missing_extra_is_one_sentence(monkeypatch: Any) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "trl" else found(name, *a))
    monkeypatch.delitem(sys.modules, "qunify.hf")
    with pytest.raises(ImportError, match=r"^qunify.hf needs trl: in a checkout of qunify, pip install '.\[hf\]'$"):
        importlib.import_module("qunify.hf")


def test_the_core_imports_none_of_it() -> None:
    code = "import sys, qunify.hf; print([m for m in ('transformers', 'trl', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (transformers.BertForMaskedLM, ENCODER),
        (transformers.BertForTokenClassification, ENCODER),
        (transformers.BertForSequenceClassification, ENCODER),
        (transformers.BartForConditionalGeneration, ENCODER_DECODER),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else "",
)
def test_models_whose_logits_line_up_with_their_labels_are_refused(kind: Any, config: Any, tmp_path: Path) -> None:
    m, ids = kind(config), torch.tensor([[5, 6, 7, 3]])
    labels = torch.tensor([2]) if "Sequence" in kind.__name__ else ids % 4
    criterion = hf.loss("sft")
    with pytest.raises(ValueError, match=r"sft: model: expected outputs of a causal language model, .* got .*Output"):
        criterion(m(input_ids=ids), labels)
    trainer = Trainer(m, trainers.config(tmp_path), train_dataset=ROWS, compute_loss_func=criterion)
    with pytest.raises(ValueError, match=f"sft: attach: expected a causal language model, .* got {kind.__name__}"):
        criterion.attach(trainer)


def test_labels_stand_beside_every_token() -> None:
    m = small_llama.model()
    with pytest.raises(
        ValueError, match=r"sft: labels: expected one for each token, got \(1, 2\) for logits \(1, 4, 96"
    ):
        hf.loss("sft")(m(torch.tensor([[5, 6, 7, 3]])), torch.tensor([[5, 6]]))


def test_several_devices_in_one_process(tmp_path: Path) -> None:
    """Trainer then gives the number of labels once for each."""
    m, ids = small_llama.model(), torch.tensor([DATA[1][0]])
    losses = [
        hf.loss("dft")(m(ids), ids, num_items_in_batch=items).item()
        for items in (3, torch.tensor(3), torch.tensor(3).unsqueeze(0).expand(2, -1))
    ]
    assert losses[0] == losses[1] == losses[2]
    args = trainers.config(tmp_path)
    assert args.n_gpu <= 1
    args._n_gpu = 2
    criterion = hf.loss("kd", teacher=TEACHER)
    trainer = SimpleNamespace(compute_loss_func=criterion, args=args, model=m)
    with pytest.raises(ValueError, match=r"kd: attach: expected one device in each process, got 2 in one: launch"):
        criterion.attach(trainer)


def test_labels_are_shifted_once() -> None:
    m = model()
    ids = torch.tensor([DATA[1][0]])
    loss = hf.loss("sft")(m(ids), ids)
    assert loss.item() == pytest.approx(m(ids, labels=ids).loss.item(), abs=1e-6)
