"""Penalties: cross-entropy plus a term of another kind."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


class ConfidencePenalty(QMap):
    """Confidence penalty: cross-entropy with a bonus for entropy.

    Loss    −log u − λ H(p)
    Pulls   1 → label, and the vector λ p ∘ (log p + H)
    Source  Pereyra et al. 2017, arXiv:1701.06548
    """

    name = "confidence_penalty"
    formula = r"-\log u-\lambda H(p)"
    simplex = "sometimes"
    weight: float = param(0.1, letter="λ", telling=0.237, doc="λ; negative values reward confidence")

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label - self.weight * t.entropy(t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), self.weight * t.softmax_vjp(t.policy.log)


class MbLS(QMap):
    """Margin-based label smoothing: logits may not trail the largest by more than a margin.

    Loss    −log u + λ Σ_k relu(max z − z_k − m)
    Pulls   1 → label, and the vector λ(n argmax − 1[over the margin]), n the number over the margin
    Source  Liu et al. 2022, arXiv:2111.15430
    Release the code averages the penalty over V; the paper, as here, sums it
    """

    name = "mbls"
    formula = r"-\log u+\lambda\sum_k\mathrm{relu}(\max_j z_j-z_k-m)"
    simplex = "sometimes"
    examples = ({"margin": 1},)
    weight: float = param(0.1, low=0, letter="λ", telling=0.237, doc="λ, strength of the penalty")
    margin: float = param(10.0, low=0, letter="m", telling=4.37, doc="m, allowed distance to the largest logit")

    def loss(self, t: Token) -> Scalar:
        largest = -t.cross_entropy(t.stop(t.argmax(t.policy)), t.policy)
        over = largest - t.policy.log - self.margin
        return -t.log_p_label + self.weight * t.sum(t.where(over > 0, over, 0))

    def pulls(self, t: Token) -> Pulls:
        best = t.argmax(t.policy)
        over = t.where(t.expect(best, t.policy.log) - t.policy.log > self.margin, t.support, 0)
        return (1, t.label), self.weight * (t.sum(over) * best.probs - over)


class Unlikelihood(QMap):
    """Unlikelihood: cross-entropy, and a push away from the tokens in negative_mask.

    Loss    −log u − α Σ_{c ∈ C} log(1 − p_c)
    Pulls   1 → label, and the vector α p_k (1[k ∈ C] − Σ_{c ∈ C, c ≠ k} p_c/(1 − p_c))
    Source  Welleck et al. 2020, arXiv:1908.04319
    """

    name = "unlikelihood"
    formula = r"-\log u-\alpha\sum_{c\in C}\log(1-p_c)"
    needs = ("negative_mask",)
    simplex = "sometimes"
    weight: float = param(1.0, low=0, letter="α", telling=0.537, doc="α, strength of the push; 0 is sft")

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label - self.weight * t.sum(t.negative * t.log1m(t.policy))

    def pulls(self, t: Token) -> Pulls:
        odds = t.negative * t.exp(t.policy.log - t.log1m(t.policy))
        return (1, t.label), self.weight * t.policy.probs * (t.negative - t.sum_others(odds))


class ELR(QMap):
    """ELR: cross-entropy, and a bonus for agreeing with the running average of past predictions.

    Loss    −log u + λ log(1 − ⟨p, teacher⟩); teacher_logits hold the running average
    Pulls   1 → label, −λ → ∝ p (1 − teacher)
    Source  Liu et al. 2020, arXiv:2007.00151
    Release p is clamped to [1e-4, 1 − 1e-4] inside the logarithm, which bounds the loss below
    """

    name = "elr"
    formula = r"-\log u+\lambda\log\bigl(1-\langle p,\pi_{\mathrm{tea}}\rangle\bigr)"
    needs = ("teacher_logits",)
    simplex = "sometimes"
    weight: float = param(3.0, low=0, letter="λ", telling=1.37, doc="λ, strength of the bonus; 0 is sft")

    def loss(self, t: Token) -> Scalar:
        apart = t.sum(t.exp(t.policy.log + t.log1m(t.teacher)))  # 1 − ⟨p, teacher⟩
        return -t.log_p_label + self.weight * t.log(apart)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-self.weight, t.softmax(t.policy.log + t.log1m(t.teacher)))


class ZLoss(QMap):
    """z-loss: cross-entropy, and a pull of the log-normaliser to zero; not shift-invariant, so it has no target.

    Loss    −log u + λ logsumexp(z)²
    Pulls   1 → label, and the vector 2λ logsumexp(z) p, which does not sum to zero
    Source  Chowdhery et al. 2022, arXiv:2204.02311
    """

    name = "z_loss"
    formula = r"-\log u+\lambda\,\mathrm{logsumexp}(z)^2"
    shift_invariant = False
    simplex = "never"
    weight: float = param(
        1e-4,
        above=0,
        letter="λ",
        telling=0.0237,
        elsewhere="`lse_square_scale` in Liger, `z_loss_multiplier` in OLMo-core",
        doc="λ, strength of the penalty",
    )

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label + self.weight * t.log_sum_exp**2

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), 2 * self.weight * t.log_sum_exp * t.policy.probs


class Squentropy(QMap):
    """Squentropy: cross-entropy plus the mean square of the other logits; not shift-invariant, so it has no target.

    Loss    −log u + Σ_{k ≠ y} z_k² / (V − 1)
    Pulls   1 → label, and the vector 2z_k/(V − 1) at k ≠ y, which does not sum to zero
    Source  Hui et al. 2023, arXiv:2302.03952
    """

    name = "squentropy"
    formula = r"-\log u+\frac{1}{V-1}\sum_{k\ne y}z_k^2"
    shift_invariant = False
    simplex = "never"

    def loss(self, t: Token) -> Scalar:
        z = t.logits
        return -t.log_p_label + (t.sum(z**2) - t.at_label(z) ** 2) / t.maximum(t.vocab - 1, 1)

    def pulls(self, t: Token) -> Pulls:
        spread = 2 * (1 - t.label.probs) * t.logits / t.maximum(t.vocab - 1, 1)
        return (1, t.label), spread


class ContrastiveToken(QMap):
    """Contrastive token loss: cross-entropy, and the label against the tokens in negative_mask alone.

    Loss    −log u − α log(u/(u + Σ_{c ∈ N} p_c))
    Pulls   1 + α → label, −α → p given N or the label
    Source  Jiang et al. 2022, arXiv:2205.02517
    Release N are the tokens just before; the second part is that of a sequence's first quarter only
    """

    name = "contrastive_token"
    formula = r"-\log u-\alpha\log\frac{u}{u+\sum_{c\in N}p_c}"
    needs = ("negative_mask",)
    weight: float = param(1.0, low=0, letter="α", telling=0.537, doc="α, weight of the contrast; 0 is sft")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.weight > 0 else "always"

    def loss(self, t: Token) -> Scalar:
        rivals = t.negative * (1 - t.label.probs)
        odds = t.sum(rivals * t.exp(t.policy.log - t.log_p_label))  # of the rivals against the label
        return -t.log_p_label + self.weight * t.log(1 + odds)

    def pulls(self, t: Token) -> Pulls:
        named = t.negative * (1 - t.label.probs) + t.label.probs
        return (1 + self.weight, t.label), (-self.weight, t.conditioned(t.policy, named))
