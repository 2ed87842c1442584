"""A verdict depends on the loss and on nothing else: not on its name, its scale, nor what was asked before."""

from __future__ import annotations

import dataclasses

from torch import Tensor

import qunify as qu
from qunify.token import Scalar, Token


@dataclasses.dataclass  # has no hash
class Generalised:
    """gce, whose parameter may be set."""

    q: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (1 - logits.softmax(-1).gather(-1, labels[:, None])[:, 0] ** self.q) / self.q


class OwnPower(qu.Gate):
    power = 0.5

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label**self.power) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.p_label**self.power


def test_a_loss_that_changes_is_judged_anew() -> None:
    loss, exponent = Generalised(0.5), 0.5
    designed = qu.design("half", trust=lambda t: t.p_label**exponent, residual=lambda t: t.policy)
    of_its_class = OwnPower()
    half = qu.get("gce", q=0.5)
    for m in (loss, designed, of_its_class):
        assert qu.compare(m, half).level == "identical"
        assert not qu.is_proper(m).unbiased
        assert qu.optimum(m, [0.5, 0.3, 0.2]).probs[0] < 0.7
    loss.q = exponent = OwnPower.power = 1.0
    for m in (loss, designed, of_its_class):
        assert qu.compare(m, half).level == "directional"
        assert qu.compare(m, "dft").level == "identical"
        assert qu.optimum(m, [0.5, 0.3, 0.2]).probs[0] == 1
    OwnPower.power = 0.0
    assert qu.is_proper(of_its_class).strict
