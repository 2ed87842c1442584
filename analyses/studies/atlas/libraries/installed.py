"""Libraries that the project's own environment has: what they ship, asked where it is used."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from analyses.studies.atlas.libraries.through_jax import of_rows
from analyses.studies.atlas.libraries.vision import per_pixel
from analyses.studies.atlas.shipped import LOSS, TEACHER, Shipped, ships


@ships("torch")
def of_torch() -> Iterator[Shipped]:
    yield Shipped(F.cross_entropy, lambda z, y: F.cross_entropy(z, y, reduction="none"), "sft")
    for s in (0.1, 0.3):
        yield Shipped(
            F.cross_entropy, lambda z, y, s=s: F.cross_entropy(z, y, label_smoothing=s),
            "label_smoothing", {"smoothing": s}, f"label_smoothing={s}",
        )  # fmt: skip
    yield Shipped(
        F.kl_div,
        lambda z, y, teacher_logits: F.kl_div(z.log_softmax(-1), teacher_logits.softmax(-1), reduction="batchmean"),
        "kd", {"temperature": 1.0}, "reduction=batchmean", TEACHER,
    )  # fmt: skip
    for code, claim in ((F.mse_loss, "brier"), (F.l1_loss, "mae")):

        def of_probabilities(z: Tensor, y: Tensor, code: Any = code) -> Tensor:
            return code(z.softmax(-1), F.one_hot(y, z.shape[-1]).to(z.dtype))

        yield Shipped(code, of_probabilities, claim, {}, "of probabilities")
    yield Shipped(F.multi_margin_loss, lambda z, y: F.multi_margin_loss(z, y, reduction="none"),
                  says="hinge loss of the classes")  # fmt: skip


@ships("transformers")
def of_transformers() -> Iterator[Shipped]:
    from transformers.loss.loss_utils import ForCausalLMLoss
    from transformers.trainer_pt_utils import LabelSmoother

    def causal(z: Tensor, y: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return ForCausalLMLoss(z[None], None, z.shape[-1], num_items_in_batch, shift_labels=y[None])

    yield Shipped(ForCausalLMLoss, causal, "sft")
    yield Shipped(
        LabelSmoother, lambda z, y: LabelSmoother(epsilon=0.1)({"logits": z}, y),
        "label_smoothing", {"smoothing": 0.1}, "epsilon=0.1",
    )  # fmt: skip


@ships("trl")
def of_trl() -> Iterator[Shipped]:
    from trl import GRPOTrainer, SFTTrainer
    from trl.experimental.gkd.gkd_trainer import GKDTrainer
    from trl.experimental.sdft import loss_utils

    for kind, name in (("nll", "sft"), ("dft", "dft")):

        def loss(z: Tensor, y: Tensor, num_items_in_batch: Any = None, kind: str = kind) -> Tensor:
            return _sft_trainer_loss(SFTTrainer, z, y, num_items_in_batch, kind)

        yield Shipped(SFTTrainer.compute_loss, loss, name, {}, f"loss_type={kind}")

    def distilled(**setting: float) -> LOSS:
        return lambda z, y, teacher_logits: GKDTrainer.generalized_jsd_loss(z, teacher_logits, y, **setting)

    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
        yield Shipped(
            GKDTrainer.generalized_jsd_loss, distilled(beta=beta), "jsd", {"beta": beta}, f"beta={beta:g}", TEACHER,
            sequences=True,
        )  # fmt: skip
    yield Shipped(
        GKDTrainer.generalized_jsd_loss, distilled(beta=0.0, temperature=2.0), "kd", {"temperature": 2.0},
        "beta=0, temperature=2", TEACHER, sequences=True,
    )  # fmt: skip
    yield Shipped(
        GRPOTrainer._compute_loss,
        lambda z, y, old_logits: _grpo_trainer_loss(GRPOTrainer, z, y, old_logits),
        "psft", {"clip": 0.2}, "loss_type=grpo, every advantage 1", ("old_logits",),
    )  # fmt: skip

    full, top, sampled = (
        loss_utils.compute_full_logit_self_distillation_loss,
        loss_utils.compute_topk_self_distillation_loss,
        loss_utils.compute_sampled_token_self_distillation_loss,
    )
    yield Shipped(
        full, lambda z, y, teacher_logits: full(z, teacher_logits, distillation_alpha=0.5),
        "jsd", {"beta": 0.5}, "distillation_alpha=0.5", TEACHER,
    )  # fmt: skip
    yield Shipped(
        top,
        lambda z, y, teacher_logits: top(
            z, teacher_logits, distillation_topk=3, distillation_alpha=0.0, distillation_add_tail=True
        ),
        "student_topk_jsd", {"mix": 0.0, "k": 3, "tail": "bucket"},
        "distillation_topk=3, distillation_alpha=0, distillation_add_tail=True", TEACHER,
    )  # fmt: skip
    yield Shipped(
        sampled, lambda z, y, teacher_logits: sampled(z, teacher_logits, y, distillation_alpha=1.0),
        "opd", {"estimator": "k1"}, "distillation_alpha=1", TEACHER, says="reverse KL of the token that is sampled",
    )  # fmt: skip


def _sft_trainer_loss(trainer: Any, z: Tensor, y: Tensor, items: Any, kind: str) -> Tensor:
    """The trainer's own `compute_loss` on a model that hands out these logits; what it logs goes nowhere."""
    stage, kept = mock.MagicMock(), y != -100
    stage.args.loss_type, stage.args.average_tokens_across_devices = kind, False
    stage.compute_loss_func = stage.label_smoother = None
    stage.aux_loss_enabled = False
    stage.accelerator.gather_for_metrics = lambda x: x
    log_probs = torch.where(kept, z.log_softmax(-1).gather(-1, y.clamp(min=0)[:, None])[:, 0], 0.0)
    none = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs[None], label_mask=kept[None], entropy=none, is_top1=none)
    inputs = {"labels": y[None], "attention_mask": kept[None]}
    return trainer.compute_loss(stage, lambda **_: outputs, inputs, num_items_in_batch=items)


def _grpo_trainer_loss(trainer: Any, z: Tensor, y: Tensor, old_logits: Tensor) -> Tensor:
    """The trainer's own loss on completions of one token, each with advantage 1."""
    token, one = y[:, None], torch.ones(len(y), 1, dtype=z.dtype)
    log_probs, old = (x.log_softmax(-1).gather(-1, token) for x in (z, old_logits))
    stage = mock.MagicMock()
    stage.args = SimpleNamespace(delta=None)
    stage.loss_type, stage.epsilon_low, stage.epsilon_high, stage.beta = "grpo", 0.2, 0.2, 0.0
    stage.importance_sampling_level, stage.top_entropy_quantile = "token", 1.0
    stage.off_policy_mask_threshold, stage.use_vllm, stage._entropy_bonus_enabled = None, False, False
    stage.model.training, stage.aux_loss_enabled = False, False
    stage.accelerator.gather = stage.accelerator.gather_for_metrics = lambda x: x
    stage._get_per_token_logps_and_entropies = lambda *_, **__: (log_probs, torch.zeros_like(one), None)
    batch = {"prompt_ids": token, "prompt_mask": one, "completion_ids": token, "completion_mask": one}
    return trainer._compute_loss(stage, None, batch | {"advantages": one[:, 0], "old_per_token_logps": old})


@ships("entmax")
def of_entmax() -> Iterator[Shipped]:
    import entmax

    yield Shipped(entmax.sparsemax_loss, lambda z, y: entmax.sparsemax_loss(z, y, k=None), "sparsemax")
    yield Shipped(entmax.entmax15_loss, lambda z, y: entmax.entmax15_loss(z, y, k=None), "entmax15")
    yield Shipped(
        entmax.entmax_bisect_loss, lambda z, y: entmax.entmax_bisect_loss(z, y, alpha=1.5, n_iter=60),
        "entmax15", {}, "alpha=1.5",
    )  # fmt: skip


@ships("kornia")
def of_kornia() -> Iterator[Shipped]:
    from kornia.losses import dice_loss, focal_loss, lovasz_softmax_loss, tversky_loss

    for alpha in (None, 0.25):
        yield Shipped(
            focal_loss, lambda z, y, a=alpha: focal_loss(z, y, alpha=a, gamma=2.0).sum(-1),
            "focal", {"focusing": 2.0}, f"alpha={alpha}, gamma=2",
        )  # fmt: skip

    for average in ("micro", "macro"):
        yield Shipped(
            dice_loss,
            per_pixel(functools.partial(dice_loss, average=average)),
            setting=f"one pixel, average={average}",
            says="Dice loss",
        )
    yield Shipped(
        tversky_loss,
        per_pixel(functools.partial(tversky_loss, alpha=0.3, beta=0.7)),
        setting="one pixel, alpha=0.3, beta=0.7",
        says="Tversky loss",
    )
    yield Shipped(lovasz_softmax_loss, per_pixel(lovasz_softmax_loss), setting="one pixel", says="Lovász softmax")


@ships("pytorch-optimizer")
def of_pytorch_optimizer() -> Iterator[Shipped]:
    from pytorch_optimizer.loss.bi_tempered import bi_tempered_logistic_loss
    from pytorch_optimizer.loss.focal import FocalCosineLoss
    from pytorch_optimizer.loss.ldam import LDAMLoss

    for steps in (5, 200):

        def tempered(z: Tensor, y: Tensor, steps: int = steps) -> Tensor:
            one_hot = F.one_hot(y, z.shape[-1]).to(z.dtype)
            return bi_tempered_logistic_loss(z, one_hot, 0.8, 1.4, num_iters=steps, reduction="none")

        yield Shipped(
            bi_tempered_logistic_loss, tempered,
            "bi_tempered", {"t1": 0.8, "t2": 1.4}, f"t1=0.8, t2=1.4, num_iters={steps}",
        )  # fmt: skip

    def smooth(z: Tensor, y: Tensor) -> Tensor:
        one_hot = F.one_hot(y, z.shape[-1]).to(z.dtype)
        return bi_tempered_logistic_loss(z, one_hot, 1.0, 1.0, label_smooth=0.1, reduction="none")

    yield Shipped(
        bi_tempered_logistic_loss, smooth,
        "label_smoothing", {"smoothing": 0.1}, "t1=t2=1, label_smooth=0.1",
    )  # fmt: skip

    def ldam(z: Tensor, y: Tensor) -> Tensor:
        return LDAMLoss([10] * z.shape[-1], max_m=0.5, s=1.0)(z, y)

    yield Shipped(LDAMLoss, ldam, "margin_softmax", {"margin": 0.5}, "equal classes, max_m=0.5, s=1")
    yield Shipped(FocalCosineLoss, lambda z, y: FocalCosineLoss(reduction="none")(z, y), "focal",
               {"focusing": 2.0}, "gamma=2")  # fmt: skip


@ships("optax")
def of_optax() -> Iterator[Shipped]:
    import jax
    from optax import losses

    def one_hot(z: Any, y: Any) -> Any:
        return jax.nn.one_hot(y, z.size, dtype=z.dtype)

    def smoothed(z: Any, y: Any) -> Any:
        return losses.softmax_cross_entropy(z, losses.smooth_labels(one_hot(z, y), 0.1))

    def poly(z: Any, y: Any) -> Any:
        return losses.poly_loss_cross_entropy(z, one_hot(z, y), epsilon=2.0)

    def focal(z: Any, y: Any) -> Any:
        return losses.sigmoid_focal_loss(z, one_hot(z, y), gamma=2.0).sum()

    def sparsemax(z: Any, y: Any) -> Any:
        return losses.multiclass_sparsemax_loss(z[None], y[None]).sum()

    yield Shipped(losses.smooth_labels, of_rows(smoothed), "label_smoothing", {"smoothing": 0.1}, "alpha=0.1")
    yield Shipped(losses.poly_loss_cross_entropy, of_rows(poly), "poly1", {"epsilon": 2.0}, "epsilon=2")
    yield Shipped(losses.sigmoid_focal_loss, of_rows(focal), "focal", {"focusing": 2.0}, "gamma=2")
    yield Shipped(losses.multiclass_sparsemax_loss, of_rows(sparsemax), "sparsemax")
    yield Shipped(losses.multiclass_hinge_loss, of_rows(losses.multiclass_hinge_loss), says="hinge loss of the classes")
