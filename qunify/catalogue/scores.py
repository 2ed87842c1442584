"""Scores: scoring rules other than the logarithm, and normalised ones."""

from __future__ import annotations

from qunify.maps import Pulls, QMap
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
