"""The losses that installed libraries ship, each behind an adapter that only rearranges its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS = Callable[..., Tensor]


@dataclass(frozen=True)
class Peer:
    """One loss: whose code it is, what its name or documentation says it is, and how it is called."""

    library: str
    code: Any  # the library's own function or class, which names itself
    loss: LOSS  # (logits, labels, **contexts)
    claim: str = ""  # id of the method that its name means; empty where the catalogue has none
    params: Mapping[str, Any] = field(default_factory=dict)  # the claimed parameters
    setting: str = ""  # as passed to the library
    contexts: tuple[str, ...] = ()

    @property
    def function(self) -> str:
        """Where the code is, in its own words."""
        code = inspect.unwrap(self.code)
        return f"{code.__module__}.{code.__qualname__}"


TEACHER = ("teacher_logits",)


def peers() -> Iterator[Peer]:
    """Every loss, library by library. ImportError names what is missing."""
    for library in (_torch, _transformers, _trl, _entmax, _kornia, _pytorch_optimizer, _optax, _bugs):
        try:
            yield from library()
        except ImportError as missing:
            raise ImportError(f"{missing}: install the extra `peers` (pip install '.[peers]')") from missing


def _torch() -> Iterator[Peer]:
    yield Peer("torch", F.cross_entropy, lambda z, y: F.cross_entropy(z, y, reduction="none"), "sft")
    for s in (0.1, 0.3):
        yield Peer(
            "torch", F.cross_entropy, lambda z, y, s=s: F.cross_entropy(z, y, label_smoothing=s),
            "label_smoothing", {"smoothing": s}, f"label_smoothing={s}",
        )  # fmt: skip
    yield Peer(
        "torch", F.kl_div,
        lambda z, y, teacher_logits: F.kl_div(z.log_softmax(-1), teacher_logits.softmax(-1), reduction="batchmean"),
        "kd", {"temperature": 1.0}, "reduction=batchmean", TEACHER,
    )  # fmt: skip
    for code, claim in ((F.mse_loss, "brier"), (F.l1_loss, "mae")):

        def of_probabilities(z: Tensor, y: Tensor, code: Any = code) -> Tensor:
            return code(z.softmax(-1), F.one_hot(y, z.shape[-1]).to(z.dtype))

        yield Peer("torch", code, of_probabilities, claim, {}, "of probabilities")
    yield Peer("torch", F.multi_margin_loss, lambda z, y: F.multi_margin_loss(z, y, reduction="none"))


def _transformers() -> Iterator[Peer]:
    from transformers.loss.loss_utils import ForCausalLMLoss
    from transformers.trainer_pt_utils import LabelSmoother

    def causal(z: Tensor, y: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return ForCausalLMLoss(z[None], None, z.shape[-1], num_items_in_batch, shift_labels=y[None])

    yield Peer("transformers", ForCausalLMLoss, causal, "sft")
    yield Peer(
        "transformers", LabelSmoother, lambda z, y: LabelSmoother(epsilon=0.1)({"logits": z}, y),
        "label_smoothing", {"smoothing": 0.1}, "epsilon=0.1",
    )  # fmt: skip


def _trl() -> Iterator[Peer]:
    from trl import GRPOTrainer, SFTTrainer
    from trl.experimental.gkd.gkd_trainer import GKDTrainer
    from trl.experimental.sdft import loss_utils

    for kind, name in (("nll", "sft"), ("dft", "dft")):

        def loss(z: Tensor, y: Tensor, num_items_in_batch: Any = None, kind: str = kind) -> Tensor:
            return _sft_trainer_loss(SFTTrainer, z, y, num_items_in_batch, kind)

        yield Peer("trl", SFTTrainer.compute_loss, loss, name, {}, f"loss_type={kind}")
    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):

        def jsd(z: Tensor, y: Tensor, teacher_logits: Tensor, beta: float = beta) -> Tensor:
            return GKDTrainer.generalized_jsd_loss(z[None], teacher_logits[None], beta=beta, reduction="sum")

        yield Peer("trl", GKDTrainer.generalized_jsd_loss, jsd, "jsd", {"beta": beta}, f"beta={beta}", TEACHER)

    def softened(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        return GKDTrainer.generalized_jsd_loss(
            z[None], teacher_logits[None], beta=0.0, temperature=2.0, reduction="sum"
        )

    yield Peer(
        "trl", GKDTrainer.generalized_jsd_loss, softened, "kd", {"temperature": 2.0}, "beta=0, temperature=2", TEACHER
    )
    yield Peer(
        "trl", GRPOTrainer._compute_loss,
        lambda z, y, old_logits: _grpo_trainer_loss(GRPOTrainer, z, y, old_logits),
        "psft", {"clip": 0.2}, "loss_type=grpo, every advantage 1", ("old_logits",),
    )  # fmt: skip

    full, top, sampled = (
        loss_utils.compute_full_logit_self_distillation_loss,
        loss_utils.compute_topk_self_distillation_loss,
        loss_utils.compute_sampled_token_self_distillation_loss,
    )
    yield Peer(
        "trl", full, lambda z, y, teacher_logits: full(z, teacher_logits, distillation_alpha=0.5),
        "jsd", {"beta": 0.5}, "distillation_alpha=0.5", TEACHER,
    )  # fmt: skip
    yield Peer(
        "trl", top,
        lambda z, y, teacher_logits: top(
            z, teacher_logits, distillation_topk=3, distillation_alpha=0.0, distillation_add_tail=True
        ),
        "topk_kd", {"k": 3, "tail": "bucket"}, "distillation_topk=3, distillation_add_tail=True", TEACHER,
    )  # fmt: skip
    yield Peer(
        "trl", sampled, lambda z, y, teacher_logits: sampled(z, teacher_logits, y, distillation_alpha=1.0),
        "reverse_kl", {}, "distillation_alpha=1.0", TEACHER,
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


def _entmax() -> Iterator[Peer]:
    import entmax

    yield Peer("entmax", entmax.sparsemax_loss, lambda z, y: entmax.sparsemax_loss(z, y, k=None), "sparsemax")
    yield Peer("entmax", entmax.entmax15_loss, lambda z, y: entmax.entmax15_loss(z, y, k=None), "entmax15")
    yield Peer(
        "entmax", entmax.entmax_bisect_loss, lambda z, y: entmax.entmax_bisect_loss(z, y, alpha=1.5, n_iter=60),
        "entmax15", {}, "alpha=1.5",
    )  # fmt: skip


def _kornia() -> Iterator[Peer]:
    from kornia.losses import dice_loss, focal_loss, lovasz_softmax_loss, tversky_loss

    def per_image(code: Any, **setting: Any) -> LOSS:
        """Every token as an image of one pixel."""
        return lambda z, y: code(z[:, :, None, None], y[:, None, None], **setting)

    for alpha in (None, 0.25):
        yield Peer(
            "kornia", focal_loss, lambda z, y, a=alpha: focal_loss(z, y, alpha=a, gamma=2.0).sum(-1),
            "focal", {"focusing": 2.0}, f"alpha={alpha}, gamma=2",
        )  # fmt: skip

    for average in ("micro", "macro"):
        yield Peer("kornia", dice_loss, per_image(dice_loss, average=average), setting=f"one pixel, average={average}")
    yield Peer(
        "kornia", tversky_loss, per_image(tversky_loss, alpha=0.3, beta=0.7), setting="one pixel, alpha=0.3, beta=0.7"
    )
    yield Peer("kornia", lovasz_softmax_loss, per_image(lovasz_softmax_loss), setting="one pixel")


def _pytorch_optimizer() -> Iterator[Peer]:
    from pytorch_optimizer.loss.bi_tempered import bi_tempered_logistic_loss
    from pytorch_optimizer.loss.focal import FocalCosineLoss
    from pytorch_optimizer.loss.ldam import LDAMLoss

    for steps in (5, 200):

        def tempered(z: Tensor, y: Tensor, steps: int = steps) -> Tensor:
            one_hot = F.one_hot(y, z.shape[-1]).to(z.dtype)
            return bi_tempered_logistic_loss(z, one_hot, 0.8, 1.4, num_iters=steps, reduction="none")

        yield Peer(
            "pytorch-optimizer", bi_tempered_logistic_loss, tempered,
            "bi_tempered", {"t1": 0.8, "t2": 1.4}, f"t1=0.8, t2=1.4, num_iters={steps}",
        )  # fmt: skip

    def smooth(z: Tensor, y: Tensor) -> Tensor:
        one_hot = F.one_hot(y, z.shape[-1]).to(z.dtype)
        return bi_tempered_logistic_loss(z, one_hot, 1.0, 1.0, label_smooth=0.1, reduction="none")

    yield Peer(
        "pytorch-optimizer", bi_tempered_logistic_loss, smooth,
        "label_smoothing", {"smoothing": 0.1}, "t1=t2=1, label_smooth=0.1",
    )  # fmt: skip

    def ldam(z: Tensor, y: Tensor) -> Tensor:
        return LDAMLoss([10] * z.shape[-1], max_m=0.5, s=1.0)(z, y)

    yield Peer("pytorch-optimizer", LDAMLoss, ldam, "margin_softmax", {"margin": 0.5}, "equal classes, max_m=0.5, s=1")
    yield Peer("pytorch-optimizer", FocalCosineLoss, lambda z, y: FocalCosineLoss(reduction="none")(z, y), "focal",
               {"focusing": 2.0}, "gamma=2")  # fmt: skip


def _optax() -> Iterator[Peer]:
    import jax
    import numpy as np
    from optax import losses

    class ThroughJAX(torch.autograd.Function):
        """Losses and their slopes as JAX computes them, in float64."""

        @staticmethod
        def forward(ctx: Any, z: Tensor, y: Tensor, rows: LOSS) -> Tensor:
            n, more = len(z), -len(z) % 1024  # compiled once per shape, and probes have many
            with jax.enable_x64(True):
                values, slopes = rows(F.pad(z.detach(), (0, 0, 0, more)).numpy(), F.pad(y, (0, more)).numpy())
            ctx.save_for_backward(torch.tensor(np.asarray(slopes)[:n]))
            return torch.tensor(np.asarray(values)[:n])

        @staticmethod
        def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None]:
            return given[:, None] * ctx.saved_tensors[0], None, None

    def of_tensors(row: Callable[[Any, Any], Any]) -> LOSS:
        rows = jax.jit(jax.vmap(jax.value_and_grad(row)))
        return lambda z, y: ThroughJAX.apply(z, y, rows)

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

    yield Peer("optax", losses.smooth_labels, of_tensors(smoothed), "label_smoothing", {"smoothing": 0.1}, "alpha=0.1")
    yield Peer("optax", losses.poly_loss_cross_entropy, of_tensors(poly), "poly1", {"epsilon": 2.0}, "epsilon=2")
    yield Peer("optax", losses.sigmoid_focal_loss, of_tensors(focal), "focal", {"focusing": 2.0}, "gamma=2")
    yield Peer("optax", losses.multiclass_sparsemax_loss, of_tensors(sparsemax), "sparsemax")
    yield Peer("optax", losses.multiclass_hinge_loss, of_tensors(losses.multiclass_hinge_loss))


def _bugs() -> Iterator[Peer]:
    yield Peer("known bug", dft_without_stop_gradient, dft_without_stop_gradient, "dft")
    yield Peer("known bug", items_ignored, items_ignored, "sft")
    yield Peer("known bug", smoothing_over_the_others, smoothing_over_the_others, "label_smoothing", {"smoothing": 0.1})


def _log_u(z: Tensor, y: Tensor) -> Tensor:
    return z.log_softmax(-1).gather(-1, y[:, None])[:, 0]


def dft_without_stop_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """DFT whose weight is differentiated too."""
    log_u = _log_u(logits, labels)
    return -log_u.exp() * log_u


def items_ignored(logits: Tensor, labels: Tensor, num_items_in_batch: int | None = None) -> Tensor:
    """Cross-entropy that takes the number of items and averages over the micro-batch all the same."""
    return -_log_u(logits, labels).mean()


def smoothing_over_the_others(logits: Tensor, labels: Tensor) -> Tensor:
    """Label smoothing whose share goes to the other V − 1 tokens."""
    others = 1 - F.one_hot(labels, logits.shape[-1])
    target = 0.9 * F.one_hot(labels, logits.shape[-1]) + 0.1 * others / (logits.shape[-1] - 1)
    return -(target * logits.log_softmax(-1)).sum(-1)
