"""What of a model the trainer takes for its head, and the models that it refuses."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from qunify import hf
from qunify.hf._frozen_models import check
from qunify.training import TopK
from tests.small_llama import model

pytestmark = pytest.mark.slow


class Wrapped(nn.Module):
    """A head's output bent, as some families do it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.weight = inner, inner.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 10 * torch.tanh(self.inner(hidden))


def test_a_plain_head_passes_and_modes_are_restored() -> None:
    m = model()
    m.train()
    m.model.layers[0].eval()
    check(m, "sft", "model")
    assert m.training
    assert not m.model.layers[0].training


def test_what_lies_between_head_and_logits_is_refused() -> None:
    m = model()
    m.lm_head = Wrapped(m.lm_head)
    with pytest.raises(ValueError, match="kd: teacher_model: expected logits that are a head of the last hidden"):
        check(m, "kd", "teacher_model")


def test_an_adapter_on_the_head_is_refused() -> None:
    m = get_peft_model(model(), LoraConfig(target_modules=["lm_head"], init_lora_weights=False))
    with pytest.raises(ValueError, match="expected logits that are a head"):
        check(m, "kd", "teacher_model")


def test_a_schedule_sets_one_method() -> None:
    class Holder:
        def __init__(self) -> None:
            import qunify as qu

            self.method = qu.get("focal")

    one, schedule = Holder(), hf.Schedule(focusing=lambda step, total: float(step))
    schedule.bind(one)
    schedule.bind(one)
    with pytest.raises(ValueError, match="expected one for each trainer"):
        schedule.bind(Holder())


def test_an_unknown_tail_is_refused() -> None:
    with pytest.raises(ValueError, match="TopK: tail: expected 'bucket' or 'renormalise', got 'renormalize'"):
        TopK(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.long), tail="renormalize")  # type: ignore[arg-type]
