"""Methods in TRL's trainer: every layout of a batch gives the step that one takes by hand on whole logits."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    MixtralConfig,
    TrainerCallback,
    TrainerState,
)

import qunify as qu
from qunify import hf
from qunify.hf import _statistics as statistics
from qunify.hf import _trainer
from qunify.hf._frozen_models import Snapshot, use_frozen
from qunify.hf._rounded_steps import share_unmoved
from qunify.hf._statistics import observe as observe_
from qunify.hf._token_columns import previous_tokens
from tests import small_llama, trainers
from tests.trainers import LAYOUTS, apart, by_hand, examples, logged, logits, losses, model, train

pytestmark = pytest.mark.slow

EXACT = 1e-12  # float64
DATA = examples()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["sft", "focal"])
def test_every_layout_is_the_step_by_hand(layout: str, method: str, tmp_path: Path) -> None:
    start = model()
    expected, values = by_hand(start, qu.get(method), DATA)
    trainer = train(tmp_path, model=start, method=method, settings=LAYOUTS[layout])
    assert apart(trainer.model, expected) < EXACT
    assert losses(trainer) == pytest.approx(values, abs=1e-6)
    assert apart(expected, model()) > 1e-3


@pytest.mark.parametrize("layout", ["padded", "padding_free", "packed"])
@pytest.mark.parametrize("method", ["srft", "cadft"])
def test_documents_are_told_apart_by_what_looks_at_sequences(layout: str, method: str, tmp_path: Path) -> None:
    start, of = model(), torch.repeat_interleave(torch.tensor([len(ids) - 1 for ids, _ in DATA]))
    expected, values = by_hand(start, qu.get(method), DATA, context=lambda *_: {"sequence_ids": of})
    trainer = train(tmp_path, model=start, method=method, settings=LAYOUTS[layout])
    assert apart(trainer.model, expected) < EXACT
    assert losses(trainer) == pytest.approx(values, abs=1e-6)
    one, _ = by_hand(start, qu.get(method), DATA)
    assert apart(one, expected) > 1e-9, "the documents differ"


@pytest.mark.parametrize(("kind", "method"), [("nll", "sft"), ("dft", "dft")])
def test_trls_own_losses(kind: str, method: str, tmp_path: Path) -> None:
    settings = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    theirs = train(tmp_path, trl.SFTTrainer, model=small_llama.model(), settings={**settings, "loss_type": kind})
    ours = train(tmp_path, model=small_llama.model(), method=method, settings=settings)
    assert apart(ours.model, theirs.model) < 1e-6
    assert apart(ours.model, small_llama.model()) > 1e-3
    for name in ("loss", "num_tokens", "grad_norm"):
        assert logged(ours, name) == pytest.approx(logged(theirs, name), rel=2e-5, abs=1e-6), name


def test_trls_own_numbers(tmp_path: Path) -> None:
    settings = {"max_steps": 3, "per_device_train_batch_size": 2}
    theirs = train(tmp_path, trl.SFTTrainer, model=small_llama.model(), settings=settings)
    ours = train(tmp_path, model=small_llama.model(), method="sft", settings=settings)
    for name in ("entropy", "mean_token_accuracy"):
        assert logged(ours, name) == pytest.approx(logged(theirs, name), rel=2e-5, abs=1e-6), name


def test_experts_are_balanced_as_by_trl(tmp_path: Path) -> None:
    def experts() -> Any:
        return small_llama.model(config=MixtralConfig, num_local_experts=3, router_aux_loss_coef=0.5)

    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    theirs = train(tmp_path, trl.SFTTrainer, model=experts(), settings=settings)
    ours = train(tmp_path, model=experts(), method="sft", settings=settings)
    unbalanced = train(tmp_path, model=experts(), method="sft", settings={**settings, "router_aux_loss_coef": 0.0})
    assert apart(ours.model, theirs.model) < 1e-6
    assert apart(ours.model, unbalanced.model) > 1e-5
    assert logged(ours, "aux_loss") == pytest.approx(logged(theirs, "aux_loss"), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"config": Gemma2Config, "final_logit_softcapping": 2.0, "head_dim": 8, "attn_implementation": "eager"},
        {"config": CohereConfig, "logit_scale": 0.3},
        {"config": GraniteConfig, "logits_scaling": 4.0},
    ],
    ids=["softcap", "scale", "divisor"],
)
def test_logits_are_scaled_and_capped_as_the_model_does(settings: dict[str, Any], tmp_path: Path) -> None:
    start, teacher = model(**settings), model(seed=1)  # a teacher of another family: not scaled, not capped
    with torch.no_grad():
        given = {"teacher_logits": logits(teacher, DATA)}
    expected, values = by_hand(start, qu.get("target_sft"), DATA, context=lambda *_: given)
    trainer = train(tmp_path, model=start, method="target_sft", teacher_model=teacher)
    assert apart(trainer.model, expected) < 1e-9  # their norms are computed in float32
    assert losses(trainer) == pytest.approx(values, abs=1e-6)
    assert logged(trainer, "trust")[0] == pytest.approx(_trust(model(**settings), "target_sft", given), abs=1e-6)


def _trust(m: Any, method: str, context: dict[str, Any]) -> float:
    with torch.no_grad():
        return qu.get(method)(logits(m, DATA), trainers.labels(DATA), **context).trust.mean().item()


@pytest.mark.parametrize("method", ["target_sft", "reverse_kl"])
@pytest.mark.parametrize("layout", ["accumulated", "packed"])
def test_a_teacher(method: str, layout: str, tmp_path: Path) -> None:
    start, teacher = model(), model(seed=1)
    kept = copy.deepcopy(teacher)
    with torch.no_grad():
        given = {"teacher_logits": logits(teacher, DATA)}
    expected, _ = by_hand(start, qu.get(method), DATA, context=lambda *_: given)
    trainer = train(tmp_path, model=start, method=method, teacher_model=teacher, settings=LAYOUTS[layout])
    assert apart(trainer.model, expected) < EXACT
    assert apart(teacher, kept) == 0


def test_a_teacher_in_a_folder(tmp_path: Path) -> None:
    teacher = small_llama.model(seed=1)
    teacher.save_pretrained(tmp_path / "teacher")
    runs = [
        train(tmp_path, model=small_llama.model(), method="kd", teacher_model=given)
        for given in (teacher, tmp_path / "teacher", str(tmp_path / "teacher"))
    ]
    assert apart(runs[0].model, runs[1].model) == apart(runs[0].model, runs[2].model) == 0


def test_a_teacher_and_what_it_was_before(tmp_path: Path) -> None:
    start, teacher, base = model(), model(seed=1), model(seed=2)
    with torch.no_grad():
        given = {"teacher_logits": logits(teacher, DATA), "teacher_base_logits": logits(base, DATA)}
        given["reference_logits"] = logits(start, DATA)
    expected, _ = by_hand(start, qu.get("delta_kd"), DATA, context=lambda *_: given)
    models = {"reference_model": copy.deepcopy(start), "teacher_model": teacher, "teacher_base_model": base}
    trainer = train(tmp_path, model=start, method="delta_kd", **models)
    assert apart(trainer.model, expected) < EXACT


def test_values_of_number_tokens(tmp_path: Path) -> None:
    start, values = model(), torch.full((96,), torch.nan, dtype=torch.float64)
    values[::3] = torch.arange(32.0, dtype=torch.float64)
    expected, _ = by_hand(start, qu.get("ntl_was"), DATA, context=lambda *_: {"token_values": values})
    trainer = train(tmp_path, model=start, method="ntl_was", token_values=values)
    assert apart(trainer.model, expected) < EXACT


def test_digits_are_the_numbers_of_a_tokenizer() -> None:
    class Tokens:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "7": 1, "12": 2, " 3": 3, "0": 4, "9": 9}

    assert hf.digit_values(Tokens(), 6).nan_to_num(-1).tolist() == [-1, 7, -1, -1, 0, -1]
    with pytest.raises(ValueError, match="expected a tokenizer with digits as tokens of their own"):
        hf.digit_values(Tokens(), 1)


def test_a_loss_function_is_a_method(tmp_path: Path) -> None:
    def own(logits: Tensor, labels: Tensor) -> Tensor:
        ce = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return ce * (-ce).exp().detach()

    expected, values = by_hand(model(), qu.get("dft"), DATA)
    trainer = train(tmp_path, method=own)
    assert apart(trainer.model, expected) < EXACT
    assert losses(trainer) == pytest.approx(values, abs=1e-6)
    assert logged(trainer, "trust") == pytest.approx(logged(train(tmp_path, method="dft"), "trust"), abs=1e-6)


def test_the_policy_without_its_adapter_is_the_frozen_copy(tmp_path: Path) -> None:
    settings = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1.0}
    options: dict[str, Any] = {"method": "asft", "method_params": {"kl_weight": 1.0}, "settings": settings}

    def run(reference: Any, **more: Any) -> Any:
        adapter = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=True)
        return train(tmp_path, reference_model=reference, peft_config=adapter, **{**options, **more})

    base, copied, other = run("base"), run(model()), run(model(seed=1))
    assert apart(base.model, copied.model) == 0
    assert apart(base.model, other.model) > 1e-3
    moved = [p for name, p in base.model.named_parameters() if "lora_B" in name]
    assert all(p.requires_grad and p.abs().max() > 0 for p in moved)


@pytest.mark.parametrize("every", [1, 2])
def test_snapshots_of_the_policy(every: int, tmp_path: Path) -> None:
    start, old = model(tie_word_embeddings=True), {}

    def context(m: Any, step: int) -> dict[str, Any]:
        if step % every == 0:
            with torch.no_grad():
                old["old_logits"] = logits(m, DATA)
        return old

    method, settings = qu.get("psft", clip=0.001), {"max_steps": 4, "learning_rate": trainers.RATE}
    expected, values = by_hand(start, method, DATA, steps=4, context=context)
    trainer = train(tmp_path, model=start, method=method, old_every=every, settings=settings)
    assert apart(trainer.model, expected) < EXACT
    assert losses(trainer) == pytest.approx(values, abs=1e-6)


def test_16_bit_weights_that_no_step_moves_are_told(tmp_path: Path) -> None:
    def begun(dtype: torch.dtype, rate: float, **options: Any) -> Any:
        return hf.SFTTrainer(
            model().to(dtype), trainers.config(tmp_path, learning_rate=rate, optim="adamw_torch"), method="dft",
            train_dataset=trainers.dataset(), processing_class=trainers.TOKENIZER, **options,
        )  # fmt: skip

    with pytest.warns(UserWarning, match=r"dft: 9\d% of the weights in training are 16-bit numbers"):
        trainer = begun(torch.bfloat16, 1e-5)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    for p in trainer.model.parameters():
        p.data -= 1e-5 * torch.ones_like(p).float()
    still = sum(int((p == b).sum()) for p, b in zip(trainer.model.parameters(), before, strict=True))
    assert share_unmoved([b.requires_grad_() for b in before], 1e-5) == pytest.approx(
        still / sum(b.numel() for b in before), abs=0.02
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*16-bit")
        begun(torch.float32, 1e-5)
        begun(torch.bfloat16, 1e-5, peft_config=LoraConfig(r=2))
        begun(torch.bfloat16, 0.05)


def test_snapshots_differ_by_how_often_they_are_taken(tmp_path: Path) -> None:
    runs = [
        train(tmp_path, method="psft", method_params={"clip": 0.001}, old_every=k, settings={"max_steps": 3})
        for k in (1, 2)
    ]
    assert apart(runs[0].model, runs[1].model) > 1e-4


def test_a_resumed_run_goes_on_with_the_older_policy(tmp_path: Path) -> None:
    settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 4, "save_only_model": False}
    whole = train(tmp_path, method="psft", method_params={"clip": 0.001}, old_every=3, settings=settings)
    resumed = hf.SFTTrainer(
        model(), trainers.config(tmp_path, **settings), method="psft", method_params={"clip": 0.001}, old_every=3,
        train_dataset=trainers.dataset(), processing_class=trainers.TOKENIZER,
    )  # fmt: skip
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert apart(whole.model, resumed.model) == 0
    (tmp_path / "checkpoint-4" / "old_policy.safetensors").unlink()
    with pytest.warns(UserWarning, match="holds no older policy: the present one takes its place"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert apart(whole.model, resumed.model) > 1e-6


def test_a_snapshot_is_taken_into_the_copy_that_is_there() -> None:
    m = small_llama.model()
    snapshot = Snapshot(m, every=1)
    snapshot.on_train_begin()
    with torch.no_grad():
        m.lm_head.weight += 1
    before = {name: value.data_ptr() for name, value in snapshot.values.items()}
    snapshot.on_step_end(None, TrainerState(global_step=1), None)
    assert {name: value.data_ptr() for name, value in snapshot.values.items()} == before
    assert torch.equal(snapshot.values["lm_head.weight"], m.lm_head.weight)


@pytest.mark.parametrize("kind", ["base", "old"])
def test_the_policy_in_another_state_is_called_through_its_wrappers(kind: str, tmp_path: Path) -> None:
    """Sharding gathers parameters where the outermost module is called."""
    options: dict[str, Any] = {
        "base": {"method": "asft", "reference_model": "base", "peft_config": LoraConfig(target_modules=["q_proj"])},
        "old": {"method": "psft", "old_every": 1},
    }[kind]
    trainer = hf.SFTTrainer(
        model(),
        trainers.config(tmp_path),
        train_dataset=trainers.dataset(),
        processing_class=trainers.TOKENIZER,
        **options,
    )
    called = []
    trainer.model.register_forward_pre_hook(lambda *a: called.append(torch.is_grad_enabled()))
    trainer.train()
    assert called == [False, True]


def test_what_of_an_adapter_is_frozen_stays_so() -> None:
    m = get_peft_model(model(), LoraConfig(target_modules=["q_proj"], r=2))
    frozen_one = next(p for name, p in m.named_parameters() if "lora_A" in name)
    frozen_one.requires_grad = False
    before = [p.requires_grad for p in m.parameters()]
    with use_frozen("base", m, "asft", "reference_model")():
        pass
    assert [p.requires_grad for p in m.parameters()] == before


def test_training_begins_with_a_snapshot_of_its_own() -> None:
    m = small_llama.model()
    snapshot, started = Snapshot(m, every=2), m.lm_head.weight.detach().clone()
    with snapshot.use():
        pass
    with torch.no_grad():
        m.lm_head.weight += 1
    with snapshot.use() as old:
        assert torch.equal(old.get_parameter("lm_head.weight"), started)
        assert not torch.is_grad_enabled()
    assert torch.equal(m.lm_head.weight, started + 1)
    snapshot.on_train_begin()
    with snapshot.use() as old:
        assert torch.equal(old.get_parameter("lm_head.weight"), started + 1)


def test_a_prior(tmp_path: Path) -> None:
    start, prior = model(), torch.arange(1.0, 97).log().double()
    expected, _ = by_hand(start, qu.get("logit_adjustment"), DATA, context=lambda *_: {"prior_logits": prior})
    trainer = train(tmp_path, model=start, method="logit_adjustment", prior_logits=prior)
    assert apart(trainer.model, expected) < EXACT


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_negatives_are_the_tokens_before(layout: str, tmp_path: Path) -> None:
    def negatives(m: Any, step: int) -> dict[str, Any]:
        rows = [[[v in ids[: t + 1] and v != ids[t + 1] for v in range(96)] for t in range(len(ids) - 1)]
                for ids, _ in DATA]  # fmt: skip
        return {"negative_mask": torch.tensor([row for example in rows for row in example])}

    start = model()
    expected, _ = by_hand(start, qu.get("unlikelihood"), DATA, context=negatives)
    trainer = train(tmp_path, model=start, method="unlikelihood", settings=LAYOUTS[layout])
    assert apart(trainer.model, expected) < EXACT
    assert apart(trainer.model, by_hand(model(), qu.get("sft"), DATA)[0]) > 1e-6


def test_a_token_is_no_negative_of_itself() -> None:
    ids = torch.tensor([[3, 5, 3, 4, 4]])

    def found(**inputs: list[int]) -> list[list[int]]:
        given = {"input_ids": ids} | {name: torch.tensor([row]) for name, row in inputs.items()}
        return [row.nonzero()[:, 0].tolist() for row in previous_tokens(given, ids, vocab=6)[0]]

    assert found() == [[3], [5], [3, 5], [3, 5]]
    assert found(position_ids=[0, 1, 2, 0, 1]) == [[3], [5], [3, 5], []]
    assert found(attention_mask=[0, 1, 1, 1, 1]) == [[], [5], [3, 5], [3, 5]]  # padded on the left


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    half = qu.design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.teacher, a=0.5)
    start, teacher = model(), model(seed=1)
    with torch.no_grad():
        given = {"teacher_logits": logits(teacher, DATA)}
    expected, _ = by_hand(start, half, DATA, context=lambda *_: given)
    assert apart(train(tmp_path, model=start, method=half, teacher_model=teacher).model, expected) < EXACT


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_prompts_do_not_count(layout: str, tmp_path: Path) -> None:
    data = trainers.dataset(prompt=["the cat sees "] * 4, completion=["a dog", "the bird and", "a", "old red tree"])
    ids = [[trainers.tokens(text) for text in (row["prompt"], row["completion"] + "</s>")] for row in data]
    start = model()
    expected, _ = by_hand(start, qu.get("dft"), [(p + c, [-100] * len(p) + c) for p, c in ids])
    trainer = train(tmp_path, model=start, train_dataset=data, settings=LAYOUTS[layout])
    assert apart(trainer.model, expected) < EXACT


def test_only_what_the_assistant_says(tmp_path: Path) -> None:
    chats = [[("user", "the cat"), ("assistant", "sees a dog"), ("user", "and"), ("assistant", "then")]] * 2
    rows = [[{"role": role, "content": text} for role, text in chat] for chat in chats]
    rendered = [
        [(role, trainers.tokens(f"<{role}>"), trainers.tokens(f"{text} </s>")) for role, text in c] for c in chats
    ]
    data = [
        (
            [i for _, a, b in chat for i in a + b],
            [i for role, a, b in chat for i in [-100] * len(a) + (b if role == "assistant" else [-100] * len(b))],
        )
        for chat in rendered
    ]
    start = model()
    expected, _ = by_hand(start, qu.get("dft"), data)
    trainer = train(
        tmp_path, model=start, train_dataset=trainers.dataset(messages=rows),
        settings={"assistant_only_loss": True},
    )  # fmt: skip
    assert apart(trainer.model, expected) < EXACT


def test_half_precision(tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "asft", "reference_model": small_llama.model(seed=1)}
    whole = train(tmp_path, model=small_llama.model(), **options)
    half = train(tmp_path, model=small_llama.model(), settings={"bf16": True}, **options)
    assert losses(half) == pytest.approx(losses(whole), rel=0.02)
    assert losses(half) != losses(whole)
    assert apart(half.model, whole.model) < 0.02


def test_evaluation_gives_the_same_loss(tmp_path: Path) -> None:
    options = {"eval_dataset": trainers.dataset(), "settings": {"per_device_eval_batch_size": 8}}
    trainer = train(tmp_path, method="dft", compute_metrics=lambda p: {"shape": p.predictions.shape[-1]}, **options)
    _, values = by_hand(trainer.model, qu.get("dft"), DATA)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(values[0], abs=1e-6)
    assert found["eval_shape"] == 96
    (trust,) = logged(trainer, "eval_trust")
    assert trust == pytest.approx(_trust(trainer.model, "dft", {}), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("method", ["sft", "dft"])
def test_an_evaluation_is_the_mean_over_all_labels_whatever_the_batch(
    batch: int, method: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(statistics, "LIMIT", 3)  # what is sampled has no part in it
    trainer = hf.SFTTrainer(
        model(), trainers.config(tmp_path, per_device_eval_batch_size=batch), method=method,
        train_dataset=trainers.dataset(), eval_dataset=trainers.dataset(), processing_class=trainers.TOKENIZER,
    )  # fmt: skip
    with torch.no_grad():
        z, y = logits(model(), DATA), trainers.labels(DATA)
    losses = {"eval_loss": qu.loss(method)(z, y).item(), "eval_nll": torch.nn.functional.cross_entropy(z, y).item()}
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(losses["eval_loss"], abs=1e-6)
    for name, value in losses.items():
        assert logged(trainer, name) == [pytest.approx(value, abs=1e-6)], name
    data: Any = trainer.eval_dataset
    assert (trainer.predict(data).metrics or {})["test_loss"] == pytest.approx(losses["eval_loss"], abs=1e-6)


def test_predictions_leave_nothing_in_the_numbers_of_an_evaluation(tmp_path: Path) -> None:
    trainer = train(tmp_path, eval_dataset=trainers.dataset(text=trainers.TEXTS[:3]))
    trainer.evaluate()
    trainer.predict(trainer.train_dataset)
    trainer.evaluate()
    alone, after = logged(trainer, "eval_trust")
    assert after == alone


def test_a_policy_is_in_half_precision_beside_a_teacher_before_training(tmp_path: Path) -> None:
    trainer = hf.SFTTrainer(
        small_llama.model(), trainers.config(tmp_path, bf16=True), method="kd", teacher_model=small_llama.model(seed=1),
        train_dataset=trainers.dataset(), eval_dataset=trainers.dataset(), processing_class=trainers.TOKENIZER,
    )  # fmt: skip
    seen = []
    trainer.model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    trainer.evaluate()
    assert seen == [torch.bfloat16]


def test_a_folder_that_is_not_there_and_no_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kd: teacher_model: expected a model, its folder .*nowhere': no such folder"):
        train(tmp_path, method="kd", teacher_model=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="dft: train_dataset: expected at least one row, got none"):
        train(tmp_path, method="dft", train_dataset=trainers.dataset().select([]))


def test_a_batch_without_labels_is_named(tmp_path: Path) -> None:
    trainer = train(tmp_path)
    with pytest.raises(ValueError, match="dft: labels: expected a batch with them, got input_ids"):
        trainer.compute_loss(trainer.model, {"input_ids": torch.tensor([[3, 4]])})


def test_saved_weights_are_the_models_own(tmp_path: Path) -> None:
    trainer = train(tmp_path)
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "model.safetensors").exists()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    assert apart(loaded, trainer.model) == 0
    assert apart(by_hand(trainer.model, qu.get("dft"), DATA)[0], trainer.model) > 1e-6  # a copy calls itself
    generated = trainer.model.generate(torch.tensor([DATA[0][0][:2]]), max_new_tokens=2, do_sample=False)
    assert generated.shape == (1, 4)


# ---- numbers beside the loss ------------------------------------------------------------------------------------


def test_what_is_logged_is_the_mean_over_tokens(tmp_path: Path) -> None:
    trainer = train(tmp_path, method="eaft", settings=LAYOUTS["accumulated"])
    with torch.no_grad():
        z, y = logits(model(), DATA), trainers.labels(DATA)
        q = qu.get("eaft")(z, y)
    p = z.softmax(-1)
    expected = {
        "entropy": -(p * p.log()).sum(-1).mean(),
        "mean_token_accuracy": (z.argmax(-1) == y).double().mean(),
        "nll": -p.gather(-1, y[:, None]).log().mean(),
        "trust": q.trust.mean(),
        "gradient_scale": q.gradient.abs().sum(-1).mean(),
        "in_simplex": q.in_simplex.double().mean(),
    }
    for name, value in expected.items():
        assert logged(trainer, name) == [pytest.approx(value.item(), abs=1e-6)], name
    assert logged(trainer, "num_tokens") == [sum(len(ids) for ids, _ in DATA)]


def test_losses_without_a_target_have_no_trust(tmp_path: Path) -> None:
    trainer = train(tmp_path, method="z_loss")
    assert logged(trainer, "trust") == []
    assert logged(trainer, "in_simplex") == [0]
    assert logged(trainer, "gradient_scale")[0] > 0


def test_only_logging_steps_are_observed_and_only_a_sample(tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[Tensor] = []

    def watched(*a: Any) -> Tensor:
        seen.append(observe_(*a))
        return seen[-1]

    monkeypatch.setattr(statistics, "LIMIT", 5)
    monkeypatch.setattr(_trainer, "observe", watched)
    trainer = train(tmp_path, settings={"max_steps": 4, "logging_steps": 2, "per_device_train_batch_size": 4})
    assert [int(found[1, 0]) for found in seen] == [5, 5]
    assert logged(trainer, "trust") == pytest.approx([float(found[0, 2] / found[1, 2]) for found in seen])


# ---- schedules --------------------------------------------------------------------------------------------------


def test_a_schedule_sets_and_logs_the_parameter(tmp_path: Path) -> None:
    def mix(step: int, total: int) -> float:
        return (step + 1) / total

    start, teacher = model(), model(seed=1)
    with torch.no_grad():
        given = {"teacher_logits": logits(teacher, DATA)}
    expected, values = by_hand(start, lambda step: qu.get("taid", mix=mix(step, 3)), DATA, 3, lambda *_: given)
    seen = []

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(kwargs["logs"].get("mix"))

    trainer = train(
        tmp_path, model=start, method="taid", teacher_model=teacher, callbacks=[Reporter, hf.Schedule(mix=mix)],
        settings={"max_steps": 3},
    )  # fmt: skip
    assert apart(trainer.model, expected) < EXACT
    assert losses(trainer) == pytest.approx(values, abs=1e-6)
    assert logged(trainer, "mix") == seen[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert seen[3:] == [None]  # the summary of the run


def test_a_resumed_run_goes_on_with_the_schedule(tmp_path: Path) -> None:
    def run(steps: int, **more: Any) -> Any:
        trainer = hf.SFTTrainer(
            small_llama.model(),
            trainers.config(tmp_path, max_steps=4, save_strategy="steps", save_steps=2, save_only_model=False),
            method=qu.design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.policy, a=0.5),
            train_dataset=trainers.dataset(), processing_class=trainers.TOKENIZER,
            callbacks=[hf.Schedule(a=lambda step, total: step / total)],
        )  # fmt: skip
        trainer.train(**more)
        return trainer

    whole = run(4)
    resumed = run(4, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert apart(whole.model, resumed.model) == 0
    assert logged(resumed, "a") == [0, 0.25, 0.5, 0.75]
    assert resumed.method.params == {"a": 0.75}


def test_a_value_out_of_range_is_the_methods_own_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing: parameter smoothing: expected a number in .*got 2"):
        train(tmp_path, method="label_smoothing", callbacks=[hf.Schedule(smoothing=lambda step, total: 2)])


def test_a_schedule_names_parameters_and_has_a_loss() -> None:
    with pytest.raises(ValueError, match="focal: Schedule: unknown parameter 'gamma', expected focusing"):
        hf.Schedule(gamma=lambda step, total: 1.0).bind(hf.loss("focal"))
    with pytest.raises(ValueError, match="Schedule: eta: expected a function"):
        hf.Schedule(eta=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a loss to set"):
        hf.Schedule(eta=lambda step, total: 0.5).on_train_begin()
