"""Vision and general classification: smoothing, focal losses, robust losses, penalties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from analyses.studies.atlas.libraries.translation import SMOOTHED
from analyses.studies.atlas.shipped import LOSS, Shipped, ships

FOCAL: tuple[str, dict[str, Any]] = ("focal", {"focusing": 2.0})
SIGMOIDS = "focal loss of a sigmoid for each class"


def one_hot(y: Tensor, z: Tensor) -> Tensor:
    return F.one_hot(y, z.shape[-1]).to(z.dtype)


def per_pixel(code: Callable[..., Any]) -> LOSS:
    """Every token as an image of one pixel."""
    return lambda z, y: code(z[:, :, None, None], y[:, None, None])


@ships("timm", "1.0.31", bare=("timm", "timm.loss"))
def timm() -> Iterator[Shipped]:
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    yield Shipped(LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropy(0.1), *SMOOTHED, "smoothing=0.1")
    yield Shipped(
        SoftTargetCrossEntropy, lambda z, y: SoftTargetCrossEntropy()(z, one_hot(y, z)), "sft", {}, "one-hot targets"
    )


@ships(
    "fastai",
    "2.8.12",
    bare=("fastai",),
    also=("fastcore==2.2.41", "fasttransform==0.0.5", "plum-dispatch==2.10.1", "beartype==0.23.1"),
    stubs=("fastprogress",),
)
def fastai() -> Iterator[Shipped]:
    from fastai.losses import FocalLoss, LabelSmoothingCrossEntropy

    yield Shipped(LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropy(0.1), *SMOOTHED, "eps=0.1")
    yield Shipped(FocalLoss, FocalLoss(), *FOCAL, "gamma=2")


@ships(
    "classy-vision",
    "0.7.0",
    bare=("classy_vision", "classy_vision.losses", "classy_vision.generic"),
    stubs=("classy_vision.generic.distributed_util", "fvcore", "iopath"),
)
def classy_vision() -> Iterator[Shipped]:
    import classy_vision.losses as package
    from classy_vision.losses.classy_loss import ClassyLoss

    package.ClassyLoss = ClassyLoss  # as the package's own __init__ has it
    from classy_vision.losses.label_smoothing_loss import LabelSmoothingCrossEntropyLoss as Code

    yield Shipped(Code, Code(smoothing_param=0.1), *SMOOTHED, "smoothing_param=0.1")


@ships(
    "mmpretrain",
    "1.2.0",
    bare=("mmpretrain", "mmpretrain.models", "mmpretrain.models.losses"),
    stubs=("mmpretrain.registry", "mmengine", "mmcv"),
)
def mmpretrain() -> Iterator[Shipped]:
    from mmpretrain.models.losses.label_smooth_loss import LabelSmoothLoss as Code

    for mode, more in (("original", {}), ("classy_vision", {}), ("multi_label", {"use_sigmoid": True})):

        def loss(z: Tensor, y: Tensor, mode: str = mode, more: dict[str, Any] = more) -> Tensor:
            return Code(0.1, mode=mode, **more)(z, y)

        yield Shipped(Code, loss, *SMOOTHED, f"label_smooth_val=0.1, mode={mode}")


@ships(
    "mosaicml",
    "0.32.1",
    bare=("composer", "composer.loss", "composer.algorithms", "composer.algorithms.label_smoothing"),
    stubs=("composer.core", "composer.loggers", "composer.models", "composer.utils"),
)
def mosaicml() -> Iterator[Shipped]:
    from composer.algorithms.label_smoothing.label_smoothing import smooth_labels
    from composer.loss.loss import binary_cross_entropy_with_logits, soft_cross_entropy

    def smoothed(z: Tensor, y: Tensor) -> Tensor:
        return soft_cross_entropy(z, smooth_labels(z, y, smoothing=0.1))

    yield Shipped(smooth_labels, smoothed, *SMOOTHED, "smoothing=0.1, with soft_cross_entropy")
    yield Shipped(soft_cross_entropy, soft_cross_entropy, "sft")
    yield Shipped(
        binary_cross_entropy_with_logits, binary_cross_entropy_with_logits,
        says="cross-entropy of a sigmoid for each class",
    )  # fmt: skip


@ships(
    "torchium",
    "0.1.5",
    bare=("torchium", "torchium.losses", "torchium.losses.classification"),
    stubs=("torchium.utils",),
)
def torchium() -> Iterator[Shipped]:
    from torchium.losses.classification.cross_entropy import FocalLoss, LabelSmoothingLoss, PolyLoss

    yield Shipped(LabelSmoothingLoss, lambda z, y: LabelSmoothingLoss(0.1)(z, y), *SMOOTHED, "smoothing=0.1")
    yield Shipped(FocalLoss, FocalLoss(), *FOCAL, "gamma=2")
    yield Shipped(PolyLoss, PolyLoss(), "poly1", {"epsilon": 1.0}, "epsilon=1")


@ships("pytorch-toolbelt", "0.8.0", bare=("pytorch_toolbelt", "pytorch_toolbelt.losses", "pytorch_toolbelt.utils"))
def pytorch_toolbelt() -> Iterator[Shipped]:
    from pytorch_toolbelt.losses.bitempered_loss import BiTemperedLogisticLoss
    from pytorch_toolbelt.losses.focal import CrossEntropyFocalLoss
    from pytorch_toolbelt.losses.soft_ce import SoftCrossEntropyLoss

    yield Shipped(SoftCrossEntropyLoss, SoftCrossEntropyLoss(smooth_factor=0.1), *SMOOTHED, "smooth_factor=0.1")
    yield Shipped(CrossEntropyFocalLoss, CrossEntropyFocalLoss(), *FOCAL, "gamma=2")
    yield Shipped(
        BiTemperedLogisticLoss, lambda z, y: BiTemperedLogisticLoss(0.8, 1.4)(z, one_hot(y, z)),
        "bi_tempered", {"t1": 0.8, "t2": 1.4}, "t1=0.8, t2=1.4",
    )  # fmt: skip


@ships(
    "segmentation-models-pytorch", "0.6.0", bare=("segmentation_models_pytorch", "segmentation_models_pytorch.losses")
)
def segmentation_models_pytorch() -> Iterator[Shipped]:
    from segmentation_models_pytorch.losses.dice import DiceLoss
    from segmentation_models_pytorch.losses.focal import FocalLoss
    from segmentation_models_pytorch.losses.jaccard import JaccardLoss
    from segmentation_models_pytorch.losses.soft_ce import SoftCrossEntropyLoss

    yield Shipped(SoftCrossEntropyLoss, SoftCrossEntropyLoss(smooth_factor=0.1), *SMOOTHED, "smooth_factor=0.1")
    yield Shipped(FocalLoss, FocalLoss("multiclass"), *FOCAL, "mode=multiclass, gamma=2")
    for code in (DiceLoss, JaccardLoss):
        yield Shipped(code, per_pixel(code("multiclass")), setting="mode=multiclass, one pixel", says=code.__name__)


@ships(
    "monai",
    "1.6.1",
    bare=("monai", "monai.losses", "monai.networks", "monai.metrics"),
    stubs=("monai.metrics.utils", "monai.apps"),
)
def monai() -> Iterator[Shipped]:
    import monai
    import monai.networks as package

    monai.__version__ = "1.6.1"  # as the package's own __init__ has it, and what follows
    from monai.networks.utils import one_hot as encoded

    package.one_hot = encoded
    from monai.losses.focal_loss import FocalLoss

    def loss(**setting: Any) -> LOSS:
        code = FocalLoss(to_onehot_y=True, **setting)
        return lambda z, y: code(z[:, :, None], y[:, None, None])

    yield Shipped(FocalLoss, loss(), setting="gamma=2", says=SIGMOIDS)
    yield Shipped(FocalLoss, loss(use_softmax=True), *FOCAL, "use_softmax=True, gamma=2")


@ships("torch-uncertainty", "0.13.0", bare=("torch_uncertainty", "torch_uncertainty.losses"))
def torch_uncertainty() -> Iterator[Shipped]:
    from torch_uncertainty.losses.classification import (
        ConfidencePenaltyLoss,
        ConflictualLoss,
        CrossEntropyMaxSupLoss,
        FocalLoss,
    )

    yield Shipped(FocalLoss, FocalLoss(2.0), *FOCAL, "gamma=2")
    yield Shipped(
        ConfidencePenaltyLoss, ConfidencePenaltyLoss(0.1), "confidence_penalty", {"weight": 0.1}, "reg_weight=0.1"
    )
    yield Shipped(
        ConflictualLoss, ConflictualLoss(0.1), setting="reg_weight=0.1",
        says="cross-entropy, and some of that to a class drawn at random",
    )  # fmt: skip
    yield Shipped(
        CrossEntropyMaxSupLoss, CrossEntropyMaxSupLoss(max_sup=0.1), setting="max_sup=0.1",
        says="max suppression: a share of smoothing's penalty on the largest logit alone",
    )  # fmt: skip


@ships("imbalanced-losses", "0.6.0", bare=("imbalanced_losses",))
def imbalanced_losses() -> Iterator[Shipped]:
    from imbalanced_losses.focal_loss import SoftmaxFocalLoss

    yield Shipped(SoftmaxFocalLoss, SoftmaxFocalLoss(), *FOCAL, "gamma=2")
    yield Shipped(
        SoftmaxFocalLoss, SoftmaxFocalLoss(label_smoothing=0.1), setting="gamma=2, label_smoothing=0.1",
        says="a smoothed focal loss",
    )  # fmt: skip


@ships("torchlab-pytorch", "0.1.1", bare=("torchlab", "torchlab.losses"))
def torchlab() -> Iterator[Shipped]:
    from torchlab.losses import losses

    yield Shipped(losses.MulticlassFocalLoss, losses.MulticlassFocalLoss(), *FOCAL, "gamma=2")
    yield Shipped(losses.Poly1CrossEntropyLoss, losses.Poly1CrossEntropyLoss(), "poly1", {"epsilon": 1.0}, "epsilon=1")
    yield Shipped(losses.GeneralizedCrossEntropyLoss, losses.GeneralizedCrossEntropyLoss(), "gce", {"q": 0.7}, "q=0.7")
    yield Shipped(
        losses.SymmetricCrossEntropyLoss, losses.SymmetricCrossEntropyLoss(),
        "symmetric_ce", {"ce_weight": 1.0, "rce_weight": 1.0}, "alpha=1, beta=1",
    )  # fmt: skip
    yield Shipped(losses.ReverseCrossEntropyLoss, losses.ReverseCrossEntropyLoss(), says="reverse cross-entropy")
    yield Shipped(losses.NormalizedCrossEntropyLoss, losses.NormalizedCrossEntropyLoss(), "nce")
    yield Shipped(losses.BrierLoss, losses.BrierLoss(), "brier")


@ships("pylocron", "0.3.0", bare=("holocron", "holocron.nn"))
def pylocron() -> Iterator[Shipped]:
    from holocron.nn.functional import complement_cross_entropy, focal_loss, poly_loss

    yield Shipped(focal_loss, focal_loss, *FOCAL, "gamma=2")
    yield Shipped(poly_loss, poly_loss, "poly1", {"epsilon": 2.0}, "eps=2")
    yield Shipped(complement_cross_entropy, complement_cross_entropy, says="complement cross-entropy")


@ships("catalyst", "22.4", bare=("catalyst", "catalyst.contrib", "catalyst.contrib.losses"))
def catalyst() -> Iterator[Shipped]:
    from catalyst.contrib.losses.ce import NaiveCrossEntropyLoss, SymmetricCrossEntropyLoss
    from catalyst.contrib.losses.focal import FocalLossMultiClass

    yield Shipped(NaiveCrossEntropyLoss, lambda z, y: NaiveCrossEntropyLoss()(z, one_hot(y, z)), "sft", {},
                  "one-hot targets")  # fmt: skip
    yield Shipped(
        SymmetricCrossEntropyLoss, lambda z, y: SymmetricCrossEntropyLoss()(z.softmax(-1), y),
        "symmetric_ce", {"ce_weight": 1.0, "rce_weight": 1.0}, "of probabilities, alpha=1, beta=1",
    )  # fmt: skip
    yield Shipped(FocalLossMultiClass, FocalLossMultiClass(), *FOCAL, "gamma=2")


@ships("keras", "3.15.1", also=("optree==0.20.0", "namex==0.1.0"), stubs=("h5py",))
def keras() -> Iterator[Shipped]:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    from keras.distillation import LogitsDistillation
    from keras.losses import (
        CategoricalCrossentropy,
        CategoricalFocalCrossentropy,
        CategoricalGeneralizedCrossEntropy,
        KLDivergence,
    )

    def of_logits(code: Any) -> LOSS:
        return lambda z, y: code(one_hot(y, z), z)

    def distilled(code: Any) -> LOSS:
        return lambda z, y, teacher_logits: code.compute_loss(teacher_logits, z)

    yield Shipped(
        CategoricalCrossentropy, of_logits(CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)),
        *SMOOTHED, "from_logits=True, label_smoothing=0.1",
    )  # fmt: skip
    yield Shipped(
        CategoricalFocalCrossentropy, of_logits(CategoricalFocalCrossentropy(from_logits=True)),
        *FOCAL, "from_logits=True, gamma=2, alpha=0.25",
    )  # fmt: skip
    gce = CategoricalGeneralizedCrossEntropy(q=0.7)
    yield Shipped(
        CategoricalGeneralizedCrossEntropy, lambda z, y: gce(y, z.softmax(-1)), "gce", {"q": 0.7},
        "of probabilities, q=0.7",
    )  # fmt: skip
    for setting, code in (
        ("temperature=2", LogitsDistillation(2.0)),
        ("temperature=2, loss=KLDivergence()", LogitsDistillation(2.0, KLDivergence())),
    ):
        yield Shipped(LogitsDistillation, distilled(code), "kd", {"temperature": 2.0}, setting, ("teacher_logits",))
