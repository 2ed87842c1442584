"""Smoothing: part of the target goes to a fixed distribution or to the model's own belief."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


class LabelSmoothing(QMap):
    """Label smoothing: a fixed share of the target is spread evenly over the vocabulary.

    Loss    −(1 − λ) log u − (λ/V) Σ log p_k
    Pulls   1 − λ → label, λ → uniform
    Source  Szegedy et al. 2016, arXiv:1512.00567
    Release most libraries spread λ over all V tokens, as here; some spread it over the other V − 1
    """

    name = "label_smoothing"
    formula = r"-(1-\lambda)\log u-\frac{\lambda}{V}\sum_k\log p_k"
    simplex = "always"
    smoothing: float = param(
        0.1,
        low=0,
        high=1,
        letter="λ",
        telling=0.237,
        elsewhere="ε in the paper; `label_smoothing` in PyTorch, `label_smoothing_factor` in transformers, "
        "`smoothing` in timm, `alpha` in optax",
        doc="λ, the share that is spread",
    )

    def loss(self, t: Token) -> Scalar:
        return -(1 - self.smoothing) * t.log_p_label - self.smoothing / t.vocab * t.sum(t.policy.log)

    def pulls(self, t: Token) -> Pulls:
        return (1 - self.smoothing, t.label), (self.smoothing, t.uniform)


class BootstrapHard(QMap):
    """Hard bootstrapping: part of the target goes to the token the model prefers.

    Loss    −β log u − (1 − β) max_k log p_k
    Pulls   β → label, 1 − β → argmax
    Source  Reed et al. 2014, arXiv:1412.6596
    """

    name = "bootstrap_hard"
    formula = r"-\beta\log u-(1-\beta)\max_k\log p_k"
    simplex = "always"
    beta: float = param(0.8, low=0, high=1, letter="β", telling=0.637, doc="trust in the label")

    def loss(self, t: Token) -> Scalar:
        best = t.stop(t.argmax(t.policy))
        return -self.beta * t.log_p_label + (1 - self.beta) * t.cross_entropy(best, t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (self.beta, t.label), (1 - self.beta, t.argmax(t.policy))


class BootstrapSoft(QMap):
    """Soft bootstrapping: part of the target goes to the model itself, undetached, which lowers its entropy.

    Loss    −β log u − (1 − β) Σ p_k log p_k
    Pulls   β → label, and the vector −(1 − β) p ∘ (log p + H)
    Source  Reed et al. 2014, arXiv:1412.6596
    """

    name = "bootstrap_soft"
    formula = r"-\beta\log u-(1-\beta)\sum_k p_k\log p_k"
    simplex = "sometimes"
    beta: float = param(0.95, low=0, high=1, letter="β", telling=0.737, doc="trust in the label")

    def loss(self, t: Token) -> Scalar:
        return -self.beta * t.log_p_label + (1 - self.beta) * t.entropy(t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (self.beta, t.label), -(1 - self.beta) * t.softmax_vjp(t.policy.log)


class UnigramSmoothing(QMap):
    """Unigram smoothing: a fixed share of the target is spread as tokens are frequent.

    Loss    −(1 − λ) log u − λ Σ prior_k log p_k
    Pulls   1 − λ → label, λ → prior
    Source  Szegedy et al. 2016, arXiv:1512.00567, for any prior; with frequencies Pereyra et al. 2017, arXiv:1701.06548
    """

    name = "unigram_smoothing"
    formula = r"-(1-\lambda)\log u-\lambda\sum_k\pi_{\mathrm{prior},k}\log p_k"
    needs = ("prior_logits",)
    simplex = "always"
    smoothing: float = param(0.1, low=0, high=1, letter="λ", telling=0.237, doc="λ, the share that is spread; 0 is sft")

    def loss(self, t: Token) -> Scalar:
        return -(1 - self.smoothing) * t.log_p_label - self.smoothing * t.expect(t.prior, t.policy.log)

    def pulls(self, t: Token) -> Pulls:
        return (1 - self.smoothing, t.label), (self.smoothing, t.prior)


class SelfTempered(QMap):
    """Self-tempered smoothing: cross-entropy, and a pull toward the model's own belief at another temperature.

    Loss    −log u + α KL(sg(q)‖p), q = softmax(z/τ)
    Pulls   1 → label, α → q
    Source  Wang et al. 2026, arXiv:2602.02244 (CurioSFT), without the choice of τ by entropy and the running average
    Release of the teacher's distribution only the label's log-probability counts, by its squared difference from log u
    """

    name = "self_tempered"
    formula = r"-\log u+\alpha\,\mathrm{KL}\bigl(\mathrm{sg}(q)\|p\bigr),\quad q=\mathrm{softmax}(z/\tau)"
    examples = ({"weight": -1}, {"weight": 0}, {"temperature": 0.5})
    weight: float = param(1.0, letter="α", telling=0.637, doc="α; 0 is sft, −1 is gem, which pushes where this pulls")
    temperature: float = param(1.3, above=0, letter="τ", telling=1.137, doc="τ; 1.1 to 1.5 in the paper, by entropy")

    @property
    def simplex(self) -> str:
        return "always" if self.weight == 0 or self.temperature == 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label + self.weight * t.kl(t.stop(t.tempered(t.policy, self.temperature)), t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (self.weight, t.tempered(t.policy, self.temperature))
