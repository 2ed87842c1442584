"""Other people's implementations, and high-precision arithmetic, against the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import qunify as qu
from tests.battery import batch

B = batch(24)
LOGITS, LABELS, TEACHER = B.logits[:120], B.labels[:120], B.context["teacher_logits"][:120]


def agrees(
    name: str, theirs: Callable[[Tensor], Tensor], *, value: bool = True, tolerance: float = 1e-12, **params: Any
) -> None:
    """Their per-token losses (or their sum) have our values and our gradients."""
    q = qu.get(name, **params)(LOGITS, LABELS, **{k: v[:120] for k, v in B.context.items()})
    z = LOGITS.clone().requires_grad_()
    losses = theirs(z)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    torch.testing.assert_close(gradient, q.gradient, rtol=0, atol=tolerance)
    if value:
        ours = q.loss if losses.dim() else q.loss.sum()
        torch.testing.assert_close(losses, ours, rtol=tolerance, atol=tolerance)


# ---- torch --------------------------------------------------------------------------------------------------


def test_torch_cross_entropy() -> None:
    agrees("sft", lambda z: F.cross_entropy(z, LABELS, reduction="none"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7, 1.0])
def test_torch_label_smoothing(smoothing: float) -> None:
    agrees(
        "label_smoothing",
        lambda z: F.cross_entropy(z, LABELS, reduction="none", label_smoothing=smoothing),
        smoothing=smoothing,
    )


def test_torch_kl_divergences() -> None:
    teacher = torch.log_softmax(TEACHER, -1)
    agrees("kd", lambda z: F.kl_div(z.log_softmax(-1), teacher, reduction="none", log_target=True).sum(-1))
    agrees("reverse_kl", lambda z: F.kl_div(teacher, z.log_softmax(-1), reduction="none", log_target=True).sum(-1))


def test_torch_soft_targets() -> None:
    teacher = torch.softmax(TEACHER, -1)
    target = 0.5 * F.one_hot(LABELS, 24) + 0.5 * teacher
    agrees("kd_hybrid", lambda z: F.cross_entropy(z, target, reduction="none"), value=False)


def test_torch_margin() -> None:
    shift = 1.5 * F.one_hot(LABELS, 24)
    agrees("margin_softmax", lambda z: F.cross_entropy(z - shift, LABELS, reduction="none"))


def test_torch_unlikelihood() -> None:
    mask = B.context["negative_mask"][:120]
    agrees(
        "unlikelihood",
        lambda z: F.cross_entropy(z, LABELS, reduction="none") - (mask * torch.log1p(-z.softmax(-1))).sum(-1),
        tolerance=1e-10,
    )


# ---- transformers, trl --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_transformers_label_smoother() -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    smoother = LabelSmoother(epsilon=0.1)
    # It sums the smoothed part in float32.
    agrees("label_smoothing", lambda z: smoother({"logits": z}, LABELS) * len(LABELS), tolerance=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_trl_generalised_jsd(beta: float) -> None:
    from trl.experimental.gold.gold_trainer import GOLDTrainer

    def theirs(z: Tensor) -> Tensor:
        return GOLDTrainer.generalized_jsd_loss(z[None], TEACHER[None], beta=beta, reduction="sum")

    agrees("jsd", theirs, tolerance=1e-11, beta=beta)


@pytest.mark.slow
def test_trl_dft(tmp_path: Any) -> None:
    """SFTTrainer(loss_type="dft") on a small model: its loss and its gradient at the head are ours."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {w: i for i, w in enumerate(["<pad>", "</s>", *"abcdefgh"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=10, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path), loss_type="dft", bf16=False, use_cpu=True, gradient_checkpointing=False,
            report_to=[], per_device_train_batch_size=2,
        ),
        train_dataset=Dataset.from_dict({"text": ["a b c d", "e f g"]}),
        processing_class=tokenizer,
    )  # fmt: skip
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(model, dict(inputs))
    (their_gradient,) = torch.autograd.grad(theirs, model.lm_head.weight)

    labels = inputs.pop("labels")[:, 1:]
    hidden = model.model(**{k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask")}).last_hidden_state
    q = qu.get("dft")(model.lm_head(hidden)[:, :-1].detach(), labels)
    kept = int(q.mask.sum())
    assert theirs.item() == pytest.approx(float(q.loss.sum()) / kept, rel=1e-5)
    ours = torch.einsum("bnv,bnd->vd", q.gradient, hidden[:, :-1].detach()) / kept
    torch.testing.assert_close(their_gradient, ours, rtol=1e-4, atol=1e-6)


# ---- other libraries ----------------------------------------------------------------------------------------


def test_entmax_library() -> None:
    import entmax

    agrees("sparsemax", lambda z: entmax.sparsemax_loss(z, LABELS, k=None))
    agrees("entmax15", lambda z: entmax.entmax15_loss(z, LABELS, k=None), tolerance=1e-11)


@pytest.mark.slow
def test_optax() -> None:
    import jax
    import jax.numpy as jnp
    import optax

    with jax.enable_x64(True):
        z, labels = jnp.asarray(LOGITS.numpy()), jnp.asarray(LABELS.numpy())
        one_hot = jax.nn.one_hot(labels, 24, dtype=z.dtype)
        cases: dict[tuple[str, str, float], Callable[[Any], Any]] = {
            ("poly1", "epsilon", 2.0): lambda x: optax.losses.poly_loss_cross_entropy(x, one_hot, epsilon=2.0),
            ("label_smoothing", "smoothing", 0.2): lambda x: optax.losses.softmax_cross_entropy(
                x, optax.losses.smooth_labels(one_hot, 0.2)
            ),
        }
        for (name, key, setting), loss in cases.items():
            q = qu.get(name, **{key: setting})(LOGITS, LABELS)
            gradient = jax.grad(lambda x, f=loss: f(x).sum())(z)
            assert float(jnp.abs(gradient - jnp.asarray(q.gradient.numpy())).max()) < 1e-12
            assert float(jnp.abs(loss(z) - jnp.asarray(q.loss.numpy())).max()) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("focusing", [0.5, 2.0])
def test_kornia_focal(focusing: float) -> None:
    from kornia.losses import focal_loss

    def theirs(z: Tensor) -> Tensor:
        return focal_loss(z, LABELS, alpha=None, gamma=focusing).sum(-1)

    agrees("focal", theirs, tolerance=1e-9, focusing=focusing)


@pytest.mark.slow
@pytest.mark.parametrize(("t1", "t2"), [(0.8, 1.4), (0.2, 2.0), (0.5, 1.0)])
def test_pytorch_optimizer_bi_tempered(t1: float, t2: float) -> None:
    from pytorch_optimizer.loss.bi_tempered import bi_tempered_logistic_loss

    one_hot = F.one_hot(LABELS, 24).double()
    agrees(
        "bi_tempered",
        lambda z: bi_tempered_logistic_loss(z, one_hot, t1, t2, num_iters=400, reduction="none"),
        tolerance=1e-7,  # its labels are shifted by 1e-10 before the logarithm
        t1=t1,
        t2=t2,
    )


# ---- fifty digits -------------------------------------------------------------------------------------------

MP: dict[str, Callable[[Any, Any, Any], Any]] = {  # name → loss from p, y, teacher in arbitrary precision
    "sft": lambda p, y, t: -mp.log(p[y]),
    "dft": lambda p, y, t: -p[y] * mp.log(p[y]),
    "gce": lambda p, y, t: (1 - p[y] ** mp.mpf("0.7")) / mp.mpf("0.7"),
    "mae": lambda p, y, t: 1 - p[y],
    "focal": lambda p, y, t: -((1 - p[y]) ** 2) * mp.log(p[y]),
    "poly1": lambda p, y, t: -mp.log(p[y]) + 1 - p[y],
    "tailr": lambda p, y, t: -p[y] / (mp.mpf("0.1") + mp.mpf("0.9") * p[y]) * mp.log(p[y]),
    "luffy": lambda p, y, t: -p[y] / (p[y] + mp.mpf("0.1")),
    "agce": lambda p, y, t: (4 - (1 + p[y]) ** 2) / 2,
    "forward_correction": lambda p, y, t: -mp.log(mp.mpf("0.8") * p[y] + mp.mpf("0.2") / len(p)),
    "brier": lambda p, y, t: sum((p[k] - (k == y)) ** 2 for k in range(len(p))),
    "spherical": lambda p, y, t: -p[y] / mp.sqrt(sum(x**2 for x in p)),
    "nce": lambda p, y, t: mp.log(p[y]) / sum(mp.log(x) for x in p),
    "kd": lambda p, y, t: sum(b * mp.log(b / a) for a, b in zip(p, t, strict=True)),
    "reverse_kl": lambda p, y, t: sum(a * mp.log(a / b) for a, b in zip(p, t, strict=True)),
    "tvd": lambda p, y, t: sum(abs(a - b) for a, b in zip(p, t, strict=True)) / 2,
    "confidence_penalty": lambda p, y, t: -mp.log(p[y]) + mp.mpf("0.1") * sum(a * mp.log(a) for a in p),
}


@pytest.mark.parametrize("name", MP)
def test_fifty_digits_on_the_extremes(name: str) -> None:
    """Values on logits ×8, the uniform row and the one-hot rows, to float64 accuracy."""
    b = batch(5)
    rows = slice(120, None)
    q = qu.get(name)(b.logits, b.labels, **b.context)
    with mp.workdps(50):
        for row in range(len(b.logits))[rows]:
            p = softmax(b.logits[row])
            exact = MP[name](p, int(b.labels[row]), softmax(b.context["teacher_logits"][row]))
            assert math.isclose(float(q.loss[row]), float(exact), rel_tol=1e-12, abs_tol=2e-15)


def softmax(logits: Tensor) -> list[Any]:
    weights = [mp.e ** mp.mpf(float(z)) for z in logits]
    return [w / sum(weights) for w in weights]
