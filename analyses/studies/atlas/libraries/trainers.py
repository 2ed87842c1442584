"""Trainers of language models: what they minimise, option by option."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from analyses.studies.atlas.libraries.distillation import K, kd
from analyses.studies.atlas.libraries.translation import SMOOTHED
from analyses.studies.atlas.shipped import LOSS, TEACHER, Shipped, ships

CONDITIONAL = "distillation among the teacher's top k"


def shifted(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels of sequences as a loss takes them that compares a position with the next one's label."""
    return F.pad(z, (0, 0, 0, 1)), F.pad(y, (1, 0), value=-100)


def top(teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probabilities and ids of the teacher's K likeliest tokens."""
    found = teacher_logits.log_softmax(-1).topk(K, -1)
    return found.values, found.indices


@ships(
    "llamafactory",
    "0.9.5",
    bare=("llamafactory", "llamafactory.train"),
    stubs=(
        "llamafactory.extras",
        "llamafactory.hparams",
        "llamafactory.model",
        "ray",
        "apollo_torch",
        "badam",
        "galore_torch",
    ),
)
def llamafactory() -> Iterator[Shipped]:
    from llamafactory.train import trainer_utils as code

    def of_rows(call: Any, beside: int = 0) -> LOSS:
        """With so many more tokens in the vocabulary, which are never predicted."""

        def loss(z: Tensor, y: Tensor, num_items_in_batch: Any = None) -> Tensor:
            z, y = shifted(F.pad(z, (0, beside), value=-1e4), y)
            return call({"logits": z}, y, num_items_in_batch)

        return loss

    def anchored(z: Tensor, y: Tensor, reference_logits: Tensor, num_items_in_batch: Any = None) -> Tensor:
        reference = F.pad(reference_logits, (0, 0, 0, 1))
        z, y = shifted(z, y)
        return code.asft_loss_func({"logits": z}, y, reference)

    yield Shipped(code.dft_loss_func, of_rows(code.dft_loss_func), "dft", sequences=True)
    yield Shipped(
        code.asft_loss_func, anchored, "asft", {"kl_weight": 0.1}, "asft_alpha=0.1", ("reference_logits",), True
    )
    yield Shipped(
        code.eaft_loss_func, of_rows(code.eaft_loss_func, 20), "eaft", {"top_k": 20}, "beside 20 tokens that are never "
        "predicted", sequences=True,
    )  # fmt: skip


@ships(
    "axolotl",
    "0.21.0",
    python="3.12",
    bare=(
        "axolotl",
        "axolotl.monkeypatch",
        "axolotl.monkeypatch.loss",
        "axolotl.integrations",
        "axolotl.integrations.kd",
        "axolotl.integrations.kd.topk_logprob",
    ),
)
def axolotl() -> Iterator[Shipped]:
    from axolotl.integrations.kd.topk_logprob import forward_kl
    from axolotl.monkeypatch.loss.dft import dft_loss
    from axolotl.monkeypatch.loss.eaft import eaft_loss

    def of_rows(code: Any, **setting: Any) -> LOSS:
        def loss(z: Tensor, y: Tensor, num_items_in_batch: Any = None) -> Tensor:
            z, y = shifted(z, y)
            return code(SimpleNamespace(logits=z), y, num_items_in_batch, **setting)

        return loss

    def distilled(z: Tensor, y: Tensor, teacher_logits: Tensor, num_items_in_batch: int = -1) -> Tensor:
        values, ids = top(teacher_logits)
        mask = (y != -100)[..., None].expand(ids.shape)
        return forward_kl.loss(z, ids, values, mask, num_items_in_batch)

    def chunked(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
        values, ids = top(teacher_logits)
        mask = (y != -100)[..., None].expand(ids.shape)
        return forward_kl.ChunkedTopKKDLoss(1)(z, ids, values, mask)

    yield Shipped(dft_loss, of_rows(dft_loss), "dft", sequences=True)
    yield Shipped(eaft_loss, of_rows(eaft_loss), "eaft", {"top_k": 20}, "k=20", sequences=True)
    drop = ("topk_kd", {"k": K, "tail": "drop"})
    yield Shipped(forward_kl.loss, distilled, *drop, f"{K} tokens a position", TEACHER, True)
    yield Shipped(forward_kl.ChunkedTopKKDLoss, chunked, *drop, f"{K} tokens a position", TEACHER, True)


@ships(
    "ms-swift",
    "4.6.0",
    bare=("swift", "swift.rlhf_trainers", "swift.trainers"),
    stubs=("modelscope", "swift.model", "swift.sequence_parallel", "swift.utils"),
)
def ms_swift() -> Iterator[Shipped]:
    from swift.rlhf_trainers import gkd_loss as code
    from swift.trainers.utils import per_token_loss_func

    def per_token(z: Tensor, y: Tensor, **setting: Any) -> Tensor:
        z, y = shifted(z, y)
        found = per_token_loss_func(SimpleNamespace(logits=z), y, **setting)
        return found.reshape(z.shape[:2])[:, :-1]

    yield Shipped(per_token_loss_func, per_token, "sft", sequences=True)
    yield Shipped(
        per_token_loss_func, lambda z, y: per_token(z, y, enable_dft_loss=True), "dft", {}, "enable_dft_loss=True",
        sequences=True,
    )  # fmt: skip

    def distilled(beta: float, temperature: float = 1.0, few: bool = False) -> LOSS:
        def loss(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
            values, ids = top(teacher_logits)
            recorded = {"topk_logprobs": values, "topk_indices": ids} if few else {"full_logits": teacher_logits}
            return code.gkd_loss(z, code.TeacherOutput(**recorded), y, beta, temperature)[0]

        return loss

    for beta in (0.0, 0.5, 1.0):
        yield Shipped(code.gkd_loss, distilled(beta), "jsd", {"beta": beta}, f"beta={beta:g}", TEACHER)
    yield Shipped(code.gkd_loss, distilled(0.0, 2.0), *kd(2.0), "beta=0, temperature=2", TEACHER)
    yield Shipped(
        code.gkd_loss, distilled(0.0, 1.0, True), "topk_kd", {"k": K}, f"beta=0, {K} tokens a position", TEACHER
    )


@ships(
    "verl",
    "0.9.1",
    bare=("verl", "verl.utils", "verl.trainer", "verl.trainer.distillation", "verl.trainer.distillation.fsdp"),
    stubs=("verl.workers",),
)
def verl() -> Iterator[Shipped]:
    from verl.trainer.distillation.fsdp.losses import compute_forward_kl_topk as code

    def loss(clamp: float | None) -> LOSS:
        config = SimpleNamespace(distillation_loss=SimpleNamespace(log_prob_min_clamp=clamp))

        def of(z: Tensor, y: Tensor, teacher_logits: Tensor) -> Tensor:
            nested = (torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, len(z)])) for x in top(teacher_logits))
            return code(z[None], *nested, config, "thd")["distillation_losses"][0]

        return of

    for clamp in (None, -10.0):
        setting = f"{K} tokens a position, log_prob_min_clamp={clamp}"
        yield Shipped(code, loss(clamp), "topk_kd", {"k": K, "tail": "drop"}, setting, TEACHER)


@ships(
    "megatron-core",
    "0.19.0",
    python="3.12",
    bare=(
        "megatron",
        "megatron.core",
        "megatron.core.tensor_parallel",
        "megatron.training",
        "megatron.training.distillation",
    ),
    stubs=(
        "megatron.core.inference",
        "megatron.core.dist_checkpointing",
        "megatron.core.models",
        "megatron.core.pipeline_parallel",
        "megatron.core.transformer",
        "megatron.core.parallel_state",
        "megatron.core.config",
        "megatron.training.global_vars",
        "megatron.training.utils",
    ),
)
def megatron_core() -> Iterator[Shipped]:
    import tempfile

    from megatron.core.tensor_parallel.cross_entropy import vocab_parallel_cross_entropy as code

    store = f"file://{tempfile.mkdtemp()}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)

    def entropy(smoothing: float) -> LOSS:
        group = torch.distributed.group.WORLD
        return lambda z, y: code(z[:, None].clone(), y[:, None], smoothing, group)[:, 0]

    yield Shipped(code, entropy(0.0), "sft", {}, "one rank")
    yield Shipped(code, entropy(0.1), *SMOOTHED, "label_smoothing=0.1, one rank")

    from megatron.training.distillation.cached_logits_loss import topk_kl_div

    for ghost in (False, True):

        def distilled(z: Tensor, y: Tensor, teacher_logits: Tensor, ghost: bool = ghost) -> Tensor:
            values, ids = top(teacher_logits)
            return topk_kl_div(z[:, None], values[:, None], ids[:, None], 1, 0, None, add_ghost_token=ghost)[0]

        claim = {"k": K, "tail": "bucket" if ghost else "drop"}
        setting = f"{K} tokens a position, add_ghost_token={ghost}"
        yield Shipped(topk_kl_div, distilled, "topk_kd", claim, setting, TEACHER)


@ships(
    "torchtitan",
    "0.3.0",
    bare=("torchtitan", "torchtitan.components", "torchtitan.distributed"),
    stubs=("spmd_types", "torchtitan.config", "torchtitan.tools"),
)
def torchtitan() -> Iterator[Shipped]:
    from torchtitan.components import loss as module

    def entropy(z: Tensor, y: Tensor) -> Tensor:
        return module.cross_entropy_loss(z, y)

    yield Shipped(module.cross_entropy_loss, entropy, "sft", sequences=True)


@ships(
    "litgpt",
    "0.5.13",
    bare=("litgpt",),
    stubs=("lightning", "lightning_utilities", "jsonargparse", "litgpt.config", "litgpt.tokenizer"),
)
def litgpt() -> Iterator[Shipped]:
    from litgpt.utils import chunked_cross_entropy as code

    for size in (128, 0):
        yield Shipped(code, lambda z, y, size=size: code(z, y, size), "sft", {}, f"chunk_size={size}", sequences=True)


@ships("ai2-olmo-core", "3.0.0", bare=("olmo_core", "olmo_core.nn", "olmo_core.nn.functional"))
def olmo_core() -> Iterator[Shipped]:
    from olmo_core.nn.functional.cross_entropy_loss import cross_entropy_loss as code

    def penalised(z: Tensor, y: Tensor) -> Tensor:
        entropy, penalty = code(z, y, compute_z_loss=True)
        return entropy + penalty

    yield Shipped(code, lambda z, y: code(z, y)[0], "sft")
    yield Shipped(code, penalised, "z_loss", {"weight": 1e-4}, "compute_z_loss=True")


@ships("openrlhf", "0.11.2", bare=("openrlhf", "openrlhf.models"), stubs=("deepspeed", "transformers.integrations"))
def openrlhf() -> Iterator[Shipped]:
    from openrlhf.models.loss import PolicyLoss, SFTLoss

    def chosen(z: Tensor, y: Tensor) -> Tensor:
        return z.log_softmax(-1).gather(-1, y.clamp(min=0)[..., None])[..., 0]

    for token in (True, False):

        def loss(z: Tensor, y: Tensor, token: bool = token) -> Tensor:
            return SFTLoss(token)(chosen(z, y), y >= 0)

        yield Shipped(SFTLoss, loss, "sft", {}, f"token_level_loss={token}", sequences=True)

    def policy(z: Tensor, y: Tensor, old_logits: Tensor) -> Tensor:
        now, old = chosen(z, y), chosen(old_logits, y)
        return PolicyLoss()(now, old, torch.ones_like(now), y >= 0)[0]

    yield Shipped(PolicyLoss, policy, "psft", {"clip": 0.2}, "every advantage 1", ("old_logits",), sequences=True)
