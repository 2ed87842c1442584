"""Numeric: where tokens are numbers, a near miss costs less than a far one."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


class NTLWAS(QMap):
    """NTL-WAS: cross-entropy, and how far the number that is predicted lies from the label, on average.

    Loss    −log u + λ Σ_k p̂_k |v_k − v_y|, p̂ = p given a number; where the label is none, −log u alone
    Pulls   1 → label, and the vector λ p̂ ∘ (c − ⟨p̂, c⟩), c = |v − v_y|
    Source  Zausinger et al. 2025, arXiv:2411.02083 (number token loss, Wasserstein-1)
    Release ntloss 0.3 multiplies by the mass m of all numbers and adds 1.01 (1 − m) times the largest distance
    """

    name = "ntl_was"
    formula = r"-\log u+\lambda\sum_k\hat p_k\,|v_k-v_y|"
    needs = ("token_values",)
    weight: float = param(0.3, low=0, letter="λ", telling=0.237, doc="λ, weight of the distance; 0 is sft")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.weight > 0 else "always"

    def loss(self, t: Token) -> Scalar:
        distance = abs(t.values - t.at_label(t.values))
        expected = t.expect(t.conditioned(t.policy, t.is_number), distance)
        return -t.log_p_label + self.weight * t.at_label(t.is_number) * expected

    def pulls(self, t: Token) -> Pulls:
        p, distance = t.conditioned(t.policy, t.is_number), abs(t.at_label(t.values) - t.values)
        weight = self.weight * t.at_label(t.is_number)
        return (1, t.label), weight * p.probs * (distance - t.expect(p, distance))


class NTLMSE(QMap):
    """NTL-MSE: cross-entropy, and the squared error of the mean number that is predicted.

    Loss    −log u + λ (⟨p̂, v⟩ − v_y)², p̂ = p given a number; where the label is none, −log u alone
    Pulls   1 → label, and the vector 2λ (⟨p̂, v⟩ − v_y) p̂ ∘ (v − ⟨p̂, v⟩)
    Source  Zausinger et al. 2025, arXiv:2411.02083 (number token loss, mean squared error)
    Release ntloss 0.3 multiplies by the mass m of all numbers and adds 1.01 (1 − m) times the largest error
    """

    name = "ntl_mse"
    formula = r"-\log u+\lambda\bigl(\langle\hat p,v\rangle-v_y\bigr)^2"
    needs = ("token_values",)
    weight: float = param(0.3, low=0, letter="λ", telling=0.237, doc="λ, weight of the error; 0 is sft")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.weight > 0 else "always"

    def loss(self, t: Token) -> Scalar:
        error = t.expect(t.conditioned(t.policy, t.is_number), t.values) - t.at_label(t.values)
        return -t.log_p_label + self.weight * t.at_label(t.is_number) * error**2

    def pulls(self, t: Token) -> Pulls:
        p = t.conditioned(t.policy, t.is_number)
        mean = t.expect(p, t.values)
        weight = 2 * self.weight * t.at_label(t.is_number) * (mean - t.at_label(t.values))
        return (1, t.label), weight * p.probs * (t.values - mean)
