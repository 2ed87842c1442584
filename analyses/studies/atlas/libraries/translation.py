"""Translation and speech: label smoothing, in every convention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from analyses.studies.atlas.shipped import LOSS, Shipped, ships

SMOOTHED: tuple[str, dict[str, Any]] = ("label_smoothing", {"smoothing": 0.1})
NOWHERE = -1  # a padding index that no token has


@ships(
    "fairseq",
    "0.12.2",
    python="3.8",
    stubs=("omegaconf",),
    bare=("fairseq", "fairseq.criterions", "fairseq.dataclass", "fairseq.logging"),
)
def fairseq() -> Iterator[Shipped]:
    from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss as code

    def padded(pad: int) -> LOSS:
        return lambda z, y: code(z.log_softmax(-1), y, 0.1, ignore_index=pad, reduce=True)[0]

    yield Shipped(code, padded(NOWHERE), *SMOOTHED, "epsilon=0.1", padding=1, padded=padded(1))


@ships("fairseq2", "0.8.1", bare=("fairseq2", "fairseq2.nn", "fairseq2.nn.functional"))
def fairseq2() -> Iterator[Shipped]:
    from fairseq2.nn.functional.cross_entropy import cross_entropy as code

    def padded(pad: int, smoothing: float) -> LOSS:
        return lambda z, y: code(z, y, pad, label_smoothing=smoothing)

    yield Shipped(code, padded(NOWHERE, 0.0), "sft", padding=1, padded=padded(1, 0.0))
    yield Shipped(code, padded(NOWHERE, 0.1), *SMOOTHED, "label_smoothing=0.1", padding=1, padded=padded(1, 0.1))


@ships("espnet", "202511", bare=("espnet", "espnet.nets", "espnet.nets.pytorch_backend"))
def espnet() -> Iterator[Shipped]:
    from espnet.nets.pytorch_backend.transformer.label_smoothing_loss import LabelSmoothingLoss as Code

    yield from _of_espnet(Code)


@ships("funasr", "1.4.16", bare=("funasr", "funasr.losses"), stubs=("funasr.models.transformer",))
def funasr() -> Iterator[Shipped]:
    from funasr.losses.label_smoothing_loss import LabelSmoothingLoss as Code

    yield from _of_espnet(Code)


def _of_espnet(code: Any) -> Iterator[Shipped]:
    for normalize in (False, True):

        def loss(z: Tensor, y: Tensor, normalize: bool = normalize) -> Tensor:
            return code(z.shape[-1], -1, 0.1, normalize_length=normalize)(z, y)

        setting = f"smoothing=0.1, normalize_length={normalize}"
        yield Shipped(code, loss, *SMOOTHED, setting, sequences=True, padding=-1)


@ships(
    "speechbrain",
    "1.1.2",
    stubs=("speechbrain.dataio", "speechbrain.decoders", "speechbrain.utils"),
    bare=("speechbrain", "speechbrain.nnet"),
)
def speechbrain() -> Iterator[Shipped]:
    from speechbrain.nnet.losses import classification_error, kldiv_loss, nll_loss

    assert classification_error  # of the same file, and no loss
    yield Shipped(
        nll_loss, lambda z, y: nll_loss(z.log_softmax(-1), y, label_smoothing=0.1), *SMOOTHED, "label_smoothing=0.1"
    )

    def padded(pad: int) -> LOSS:
        return lambda z, y: kldiv_loss(z.log_softmax(-1), y, label_smoothing=0.1, pad_idx=pad)

    yield Shipped(kldiv_loss, padded(NOWHERE), *SMOOTHED, "label_smoothing=0.1", padding=0, padded=padded(0))


@ships("sockeye", "3.1.34", bare=("sockeye",), stubs=("sockeye.data_io", "sockeye.utils", "sockeye.config"))
def sockeye() -> Iterator[Shipped]:
    from sockeye.loss import CrossEntropyLoss as Code

    for kind in ("mxnet", "fairseq", "torch"):

        def padded(pad: int, kind: str = kind) -> LOSS:
            code = Code(label_smoothing=0.1, label_smoothing_impl=kind, ignore_label=pad)
            return lambda z, y: code.forward(z, y)[0]

        setting = f"label_smoothing=0.1, label_smoothing_impl={kind}"
        yield Shipped(Code, padded(NOWHERE), *SMOOTHED, setting, padding=0, padded=padded(0))


@ships("joeynmt", "2.3.0", bare=("joeynmt",), stubs=("joeynmt.helpers",))
def joeynmt() -> Iterator[Shipped]:
    from joeynmt.loss import XentLoss as Code

    def beside_padding(z: Tensor, y: Tensor) -> Tensor:
        """One more column, for padding, that no token ever predicts."""
        return Code(z.shape[-1], 0.1)(F.pad(z, (0, 1), value=-1e4).log_softmax(-1), trg=y)

    yield Shipped(
        Code, beside_padding, *SMOOTHED, "smoothing=0.1, beside a padding column",
        padding=0, padded=lambda z, y: Code(0, 0.1)(z.log_softmax(-1), trg=y),
    )  # fmt: skip


@ships(
    "eole",
    "0.6.4",
    stubs=("ctranslate2", "eole.modules", "eole.models", "eole.utils.logging", "eole.constants", "eole.utils.misc"),
    bare=("eole", "eole.utils"),
)
def eole() -> Iterator[Shipped]:
    from types import SimpleNamespace as Given

    from eole.utils.loss import LossCompute as Code

    def padded(pad: int) -> LOSS:
        specials = {"pad_token": "p", "unk_token": "u", "eos_token": "e"}
        training = Given(label_smoothing=0.1, lm_prior_lambda=0.0, lm_prior_tau=0.0, lm_prior_model=None)
        config = Given(model=Given(decoder=None, generator_function="softmax"), training=training)
        model = Given(tgt_shift=1, generator=None)
        made = Code.from_config(config, model, {"specials": specials, "tgt": {"p": pad}})
        return lambda z, y: made.criterion(z, y)

    yield Shipped(Code.from_config, padded(NOWHERE), *SMOOTHED, "label_smoothing=0.1", padding=1, padded=padded(1))


@ships("allennlp", "2.10.1", bare=("allennlp", "allennlp.nn"), stubs=("allennlp.common",))
def allennlp() -> Iterator[Shipped]:
    import torch
    from allennlp.nn.util import sequence_cross_entropy_with_logits as code

    def loss(**setting: Any) -> LOSS:
        return lambda z, y: code(z, y.clamp(min=0), y >= 0, **setting)

    assert torch
    for average in ("batch", "token"):
        setting = f"average={average}, label_smoothing=0.1"
        yield Shipped(code, loss(average=average, label_smoothing=0.1), *SMOOTHED, setting, sequences=True)
    yield Shipped(code, loss(gamma=2.0), "focal", {"focusing": 2.0}, "gamma=2", sequences=True)


@ships(
    "nemo-toolkit",
    "3.0.0",
    bare=("nemo", "nemo.collections", "nemo.collections.common", "nemo.collections.common.losses"),
    stubs=("nemo.core", "nemo.utils"),
)
def nemo_toolkit() -> Iterator[Shipped]:
    from nemo.collections.common.losses.smoothed_cross_entropy import SmoothedCrossEntropyLoss as Code

    def padded(pad: int) -> LOSS:
        code = Code(pad_id=pad, label_smoothing=0.1)
        return lambda z, y: code.forward(log_probs=z.log_softmax(-1), labels=y)

    yield Shipped(Code, padded(NOWHERE), *SMOOTHED, "label_smoothing=0.1", sequences=True, padding=0, padded=padded(0))
