"""Scores: scoring rules other than the logarithm, and normalised ones."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


class Brier(QMap):
    """Brier score: squared distance to the label; proper and bounded.

    Loss    Σ (p_k − δ_k)²
    Pulls   2u → label, and the vector 2p ∘ (p − ‖p‖²)
    Source  Brier 1950, Monthly Weather Review 78(1)
    """

    name = "brier"
    formula = r"\lVert p-\delta\rVert^2"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return t.sum((t.policy.probs - t.label.probs) ** 2)

    def pulls(self, t: Token) -> Pulls:
        return (2 * t.p_label, t.label), 2 * t.softmax_vjp(t.policy.probs)


class Spherical(QMap):
    """Spherical score: the label's share of the model's length; proper and bounded.

    Loss    −u/‖p‖
    Pulls   w → label, −w → ∝ p², w = u/‖p‖
    Source  Good 1971; review: Gneiting & Raftery 2007, JASA 102(477)
    """

    name = "spherical"
    formula = r"-u/\lVert p\rVert"
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -t.p_label / t.power(t.sum(t.policy.probs**2), 0.5)

    def pulls(self, t: Token) -> Pulls:
        w = t.exp(t.log_p_label - t.log(t.expect(t.policy, t.policy.probs)) / 2)
        return (w, t.label), (-w, t.tempered(t.policy, 0.5))


class NCE(QMap):
    """Normalised cross-entropy: the label's surprise as a share of all tokens' surprise.

    Loss    log u / Σ_k log p_k
    Pulls   1/B → label, −AV/B² → uniform; A = −log u, B = −Σ log p_k
    Source  Ma et al. 2020, arXiv:2006.13554
    """

    name = "nce"
    formula = r"\frac{\log u}{\sum_k\log p_k}"
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return t.log_p_label / t.where(t.vocab > 1, t.sum(t.policy.log), 1)

    def pulls(self, t: Token) -> Pulls:
        surprise = t.where(t.vocab > 1, t.vocab * t.cross_entropy(t.uniform, t.policy), 1)
        return (1 / surprise, t.label), (t.log_p_label * t.vocab / surprise**2, t.uniform)


class TsallisScore(QMap):
    """Tsallis score: a power in place of the logarithm, with the term that keeps it proper; the density-power score.

    Loss    Σ p_k^(1+β)/(1 + β) − (u^β − 1)/β
    Pulls   u^β → label, and the vector p ∘ (p^β − Σ p^(1+β))
    Source  Basu et al. 1998, Biometrika 85(3); review: Gneiting & Raftery 2007, JASA 102(477)
    """

    name = "tsallis_score"
    formula = r"\frac{1}{1+\beta}\sum_k p_k^{1+\beta}-\frac{u^\beta-1}{\beta}"
    examples = ({"power": 0.5}, {"power": 2})
    power: float = param(1.0, above=0, letter="β", telling=1.237, doc="β; 1 is half of brier, and toward 0 it is sft")

    @property
    def simplex(self) -> str:
        # Lowest where label and one other token have probability x each, the rest little: 1 − 2 x^β (1 − x) of it.
        b = self.power
        return "always" if 2 * b**b <= (1 + b) ** (1 + b) else "sometimes"

    def loss(self, t: Token) -> Scalar:
        own = t.sum(t.exp((1 + self.power) * t.policy.log)) / (1 + self.power)
        return own - t.q_log(t.log_p_label, self.power)

    def pulls(self, t: Token) -> Pulls:
        return (t.exp(self.power * t.log_p_label), t.label), t.softmax_vjp(t.exp(self.power * t.policy.log))


class APL(QMap):
    """APL: normalised cross-entropy, which learns, and reverse cross-entropy, which does not trust every label.

    Loss    α log u/Σ_k log p_k − βA(1 − u), A = log_zero
    Pulls   α/B − βAu → label, −αLV/B² → uniform; L = −log u, B = −Σ log p_k
    Source  Ma et al. 2020, arXiv:2006.13554 (active and passive loss)
    Release log 0 is log 1e-4, about −9.2
    """

    name = "apl"
    formula = r"\alpha\frac{\log u}{\sum_k\log p_k}-\beta A(1-u),\quad A=\log 0"
    simplex = "sometimes"
    nce_weight: float = param(1.0, low=0, letter="α", telling=0.637, doc="α, weight of the normalised cross-entropy")
    rce_weight: float = param(1.0, low=0, letter="β", telling=0.237, doc="β, weight of the reverse one; 0 is nce")
    log_zero: float = param(-4.0, high=0, letter="A", telling=-3.73, doc="A, value taken for log 0")

    def loss(self, t: Token) -> Scalar:
        normalised = t.log_p_label / t.where(t.vocab > 1, t.sum(t.policy.log), 1)
        return self.nce_weight * normalised - self.rce_weight * self.log_zero * t.p_rest

    def pulls(self, t: Token) -> Pulls:
        surprise = t.where(t.vocab > 1, t.vocab * t.cross_entropy(t.uniform, t.policy), 1)
        own = self.nce_weight / surprise - self.rce_weight * self.log_zero * t.p_label
        return (own, t.label), (self.nce_weight * t.log_p_label * t.vocab / surprise**2, t.uniform)
