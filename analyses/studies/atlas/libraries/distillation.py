"""Distillation: which temperature, in which direction, divided by what."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from analyses.studies.atlas.libraries.through_jax import of_batches
from analyses.studies.atlas.shipped import LOSS, TEACHER, Shipped, ships

K = 3  # of a top-k: no vocabulary on which a loss is tried is smaller


def kd(temperature: float) -> tuple[str, dict[str, Any]]:
    return "kd", {"temperature": temperature}


@ships("nvidia-modelopt", "0.47.0", bare=("modelopt", "modelopt.torch", "modelopt.torch.distill"))
def modelopt() -> Iterator[Shipped]:
    from modelopt.torch.distill.losses import LogitsDistillationLoss, MFTLoss

    for reduction in ("mean", "batchmean"):
        code = LogitsDistillationLoss(2.0, reduction)
        yield Shipped(
            LogitsDistillationLoss, lambda z, y, teacher_logits, code=code: code(z, teacher_logits),
            *kd(2.0), f"temperature=2, reduction={reduction}", TEACHER,
        )  # fmt: skip
    yield Shipped(
        MFTLoss, lambda z, y, teacher_logits: MFTLoss()(z, teacher_logits, y), setting="threshold=0.2",
        contexts=TEACHER, says="minifinetuning: the teacher, corrected towards the label",
    )  # fmt: skip


@ships(
    "torchdistill",
    "1.1.5",
    bare=("torchdistill", "torchdistill.losses"),
    stubs=("torchdistill.common", "torchdistill.models", "torchdistill.losses.registry", "torchdistill.losses.util"),
)
def torchdistill() -> Iterator[Shipped]:
    from torchdistill.losses.mid_level import KDLoss, LogitStdKDLoss

    def loss(code: Any) -> LOSS:
        def of(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
            return code({"m": {"output": z}}, {"m": {"output": teacher_logits}}, targets=y)

        return of

    def made(code: Any, **setting: Any) -> Any:
        return code("m", "output", "m", "output", **setting)

    yield Shipped(KDLoss, loss(made(KDLoss, temperature=2.0, alpha=0.0)), *kd(2.0), "temperature=2, alpha=0", TEACHER)
    yield Shipped(
        KDLoss, loss(made(KDLoss, temperature=1.0, alpha=0.5)), "kd_hybrid", {"mix": 0.5}, "temperature=1, alpha=0.5",
        TEACHER,
    )  # fmt: skip
    yield Shipped(
        KDLoss, loss(made(KDLoss, temperature=2.0, alpha=0.5)), setting="temperature=2, alpha=0.5", contexts=TEACHER,
        says="half cross-entropy, half distillation at T = 2 times T²",
    )  # fmt: skip
    yield Shipped(
        LogitStdKDLoss, loss(made(LogitStdKDLoss, temperature=2.0, alpha=0.0)), "logit_std_kd", {"temperature": 2.0},
        "temperature=2, alpha=0", TEACHER,
    )  # fmt: skip


@ships("textbrewer", "0.2.1.post1", bare=("textbrewer",))
def textbrewer() -> Iterator[Shipped]:
    from textbrewer.losses import kd_ce_loss, kd_mse_loss

    yield Shipped(
        kd_ce_loss, lambda z, y, teacher_logits: kd_ce_loss(z, teacher_logits, 2.0), *kd(2.0), "temperature=2", TEACHER
    )
    yield Shipped(
        kd_mse_loss, lambda z, y, teacher_logits: kd_mse_loss(z, teacher_logits, 2.0), "logit_mse", {},
        "temperature=2", TEACHER,
    )  # fmt: skip


@ships(
    "kd-lib",
    "0.0.32",
    bare=(
        "KD_Lib",
        "KD_Lib.KD",
        "KD_Lib.KD.common",
        "KD_Lib.KD.vision",
        "KD_Lib.KD.vision.vanilla",
        "KD_Lib.KD.vision.teacher_free",
        "KD_Lib.KD.vision.KA",
    ),
    stubs=("torch.utils.tensorboard",),
)
def kd_lib() -> Iterator[Shipped]:
    from KD_Lib.KD.vision.KA.LSR import LabelSmoothReg
    from KD_Lib.KD.vision.teacher_free.virtual_teacher import VirtualTeacher
    from KD_Lib.KD.vision.vanilla.vanilla_kd import VanillaKD

    def loss(code: Any, **setting: Any) -> LOSS:
        it = SimpleNamespace(device="cpu", **setting)
        return lambda z, y, teacher_logits: code.calculate_kd_loss(it, z, teacher_logits, y)

    vanilla = loss(VanillaKD, temp=2.0, distil_weight=1.0, loss_fn=torch.nn.MSELoss())
    yield Shipped(VanillaKD, vanilla, *kd(2.0), "temp=2, distil_weight=1", TEACHER)
    reg = loss(LabelSmoothReg, temp=20.0, distil_weight=1.0, correct_prob=0.9,
               loss_fn=torch.nn.KLDivLoss(reduction="batchmean"))  # fmt: skip
    yield Shipped(
        LabelSmoothReg, reg, setting="temp=20, ka_weight=1", contexts=TEACHER,
        says="the teacher where it is right, label smoothing of 0.1 where it is wrong",
    )  # fmt: skip
    it = SimpleNamespace(device="cpu", temp=10.0, distil_weight=1.0, correct_prob=0.9, loss_fn=torch.nn.KLDivLoss())
    yield Shipped(
        VirtualTeacher, lambda z, y: VirtualTeacher.calculate_kd_loss(it, z, y), "label_smoothing", {"smoothing": 0.1},
        "correct_prob=0.9, temp=10, distil_weight=1",
    )  # fmt: skip


@ships(
    "neural-compressor",
    "2.6",
    stubs=("neural_compressor.adaptor", "neural_compressor.utils"),
    bare=("neural_compressor", "neural_compressor.compression", "neural_compressor.compression.distillation"),
)
def neural_compressor() -> Iterator[Shipped]:
    from neural_compressor.compression.distillation import criterions

    criterions.torch = torch  # which it loads late
    Code = criterions.PyTorchKnowledgeDistillationLoss
    for kind in ("CE", "KL"):
        code = Code(temperature=2.0, loss_types=["CE", kind], loss_weights=[0.0, 1.0])

        def loss(z: Tensor, y: Tensor, teacher_logits: Tensor, code: Any = code) -> Tensor:
            return code.loss_cal_sloss(z, teacher_logits, None)

        setting = f"temperature=2, loss_types=CE {kind}, loss_weights=0 1"
        yield Shipped(Code, loss, *kd(2.0), setting, TEACHER)


@ships("torchtune", "0.6.1", bare=("torchtune", "torchtune.modules", "torchtune.modules.loss"))
def torchtune() -> Iterator[Shipped]:
    from torchtune.modules.loss.ce_chunked_output_loss import CEWithChunkedOutputLoss
    from torchtune.modules.loss.kd_losses import ForwardKLLoss, ReverseKLLoss, SymmetricKLLoss

    def distilled(code: Any) -> LOSS:
        return lambda z, y, teacher_logits: code(z, teacher_logits, y)

    yield Shipped(CEWithChunkedOutputLoss, lambda z, y: CEWithChunkedOutputLoss(1)([z], y), "sft", sequences=True)
    yield Shipped(ForwardKLLoss, distilled(ForwardKLLoss()), *kd(1.0), contexts=TEACHER)
    yield Shipped(ReverseKLLoss, distilled(ReverseKLLoss()), "reverse_kl", contexts=TEACHER)
    yield Shipped(
        SymmetricKLLoss, distilled(SymmetricKLLoss()), "mixed_kl", {"mix": 0.5}, "sym_kd_ratio=0.5", TEACHER,
    )  # fmt: skip


@ships("liger-kernel", "0.8.5", bare=("liger_kernel", "liger_kernel.chunked_loss"))
def liger_kernel() -> Iterator[Shipped]:
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss as Code

    for beta, temperature in ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 2.0)):
        code = Code(0.0, 1.0, beta=beta, temperature=temperature, compiled=False)

        def loss(z: Tensor, y: Tensor, teacher_logits: Tensor, code: Any = code) -> Tensor:
            head = torch.eye(z.shape[-1], dtype=z.dtype)
            return code(z, head, teacher_logits, head, y)

        name, params = ("jsd", {"beta": beta}) if temperature == 1 else kd(temperature)
        setting = f"beta={beta:g}, temperature={temperature:g}, weight_hard_loss=0, an identity for a head"
        yield Shipped(Code, loss, name, params, setting, TEACHER)


@ships(
    "sentence-transformers",
    "6.2.0",
    stubs=(
        "sentence_transformers.base",
        "sentence_transformers.sentence_transformer.model",
        "sentence_transformers.util",
    ),
    bare=(
        "sentence_transformers",
        "sentence_transformers.sentence_transformer",
        "sentence_transformers.sentence_transformer.losses",
    ),
)
def sentence_transformers() -> Iterator[Shipped]:
    from sentence_transformers.sentence_transformer.losses.distill_kl_div import DistillKLDivLoss as Code

    def first(query: Tensor, other: Tensor) -> Tensor:
        return other[:, 0]

    code = Code(None, first, 2.0)
    code._checked_teacher_scale = True  # it only warns

    def loss(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        return code.compute_loss_from_embeddings([z, *z[..., None].unbind(1)], teacher_logits)

    yield Shipped(Code, loss, *kd(2.0), "temperature=2, of scores", TEACHER)


@ships(
    "nemo-automodel", "0.7.0", bare=("nemo_automodel", "nemo_automodel.components", "nemo_automodel.components.loss")
)
def nemo_automodel() -> Iterator[Shipped]:
    from nemo_automodel.components.loss.kd_loss import KDLoss
    from nemo_automodel.components.loss.masked_ce import MaskedCrossEntropy

    def distilled(z: Tensor, y: Tensor, teacher_logits: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return KDLoss(temperature=2.0)(z, teacher_logits, y, num_items_in_batch)

    def entropy(z: Tensor, y: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return MaskedCrossEntropy()(z, y, num_label_tokens=num_items_in_batch)

    yield Shipped(KDLoss, distilled, *kd(2.0), "temperature=2", TEACHER)
    yield Shipped(MaskedCrossEntropy, entropy, "sft")


@ships("distil-trainer", "0.1.27", bare=("distil_trainer", "distil_trainer.distillation"))
def distil_trainer() -> Iterator[Shipped]:
    from distil_trainer.distillation.losses import DistillationLosses

    code = DistillationLosses.kl_divergence_loss
    yield Shipped(
        code, lambda z, y, teacher_logits: code(z, teacher_logits, temperature=2.0), *kd(2.0), "temperature=2", TEACHER
    )


@ships("google-tunix", "0.1.7", stubs=("flax",), bare=("tunix", "tunix.distillation", "tunix.distillation.strategies"))
def google_tunix() -> Iterator[Shipped]:
    import jax
    from tunix.distillation.strategies.logit import LogitStrategy as Code

    for setting, more in (("", {}), (f", distill_top_k={K}", {"distill_top_k": K})):
        strategy = Code(None, None, None, temperature=2.0, alpha=1.0, **more)

        def batch(z: Any, y: Any, teacher: Any, strategy: Any = strategy) -> Any:
            return strategy.compute_loss(z, teacher, jax.nn.one_hot(y, z.shape[-1]))[0]

        name, params = ("topk_kd", {"k": K}) if more else kd(2.0)
        yield Shipped(Code, of_batches(batch), name, params, f"temperature=2, alpha=1{setting}", TEACHER)


@ships(
    "avalanche-lib",
    "0.6.0",
    bare=("avalanche", "avalanche.training"),
    stubs=("avalanche.models", "avalanche.training.templates", "avalanche.training.utils"),
)
def avalanche() -> Iterator[Shipped]:
    from avalanche.training.regularization import LearningWithoutForgetting as Code

    def loss(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        return Code(temperature=2)._distillation_loss(z, teacher_logits, range(z.shape[-1]))

    yield Shipped(Code._distillation_loss, loss, *kd(2.0), "temperature=2, every class an old one", TEACHER)
