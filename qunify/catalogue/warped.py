"""Warped: the prediction passes through something other than the plain softmax before it meets the label."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Distribution, Scalar, Token


class GEM(QMap):
    """GEM: cross-entropy with a push away from the model's own sharpened belief, which keeps entropy.

    Loss    −log u + Σ sg(q_k) log p_k, q = softmax(z/β)
    Pulls   1 → label, −1 → q
    Source  Li et al. 2025, arXiv:2408.16673
    Release by default both the label and the pushed part are weighted by σ(0.01(z_k − z_y)), about ½; the paper's
            loss is its option h = "linear"
    """

    name = "gem"
    formula = r"-\log u+\sum_k\mathrm{sg}(q_k)\log p_k,\quad q=\mathrm{softmax}(z/\beta)"
    simplex = "sometimes"
    examples = ({"beta": 1}, {"beta": 2})
    beta: float = param(0.7, above=0, letter="β", telling=0.537, doc="temperature of the pushed distribution; 1 is sft")

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label - t.cross_entropy(t.stop(t.tempered(t.policy, self.beta)), t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-1, t.tempered(t.policy, self.beta))


class TemperatureCE(QMap):
    """Temperature cross-entropy: train the softened prediction, deploy the plain one.

    Loss    −log softmax(z/T)_y
    Pulls   1/T → label, −1/T → softmax(z/T)
    Source  Agarwala et al. 2020, arXiv:2010.07344
    """

    name = "temperature_ce"
    formula = r"-\log\,\mathrm{softmax}(z/T)_y"
    link = "softmax(z/T)"
    simplex = "sometimes"
    examples = ({"temperature": 1}, {"temperature": 0.5})
    temperature: float = param(
        2.0, above=0, letter="T", telling=1.37, elsewhere="the paper's β is the inverse, $1/T$", doc="T; 1 is sft"
    )

    def prediction(self, t: Token) -> Distribution:
        return t.tempered(t.policy, self.temperature)

    def loss(self, t: Token) -> Scalar:
        return -t.at_label(t.tempered(t.policy, self.temperature).log)

    def pulls(self, t: Token) -> Pulls:
        w = 1 / self.temperature
        return (w, t.label), (-w, t.tempered(t.policy, self.temperature))


class MarginSoftmax(QMap):
    """Margin softmax: the label must win by a margin before the loss lets go.

    Loss    −log softmax(z − mδ)_y
    Pulls   1 → label, −1 → softmax(z − mδ)
    Source  Wang et al. 2018, arXiv:1801.05599
    Release the paper sets the margin on a scaled cosine; here it is on the logit
    """

    name = "margin_softmax"
    formula = r"-\log\,\mathrm{softmax}(z-m\delta)_y"
    examples = ({"margin": 0}, {"margin": -1})
    margin: float = param(
        1.5, letter="m", telling=0.737, doc="m, in logits; 0 is sft, negative values give the label a start"
    )

    def _shifted(self, t: Token) -> Distribution:
        return t.softmax(t.policy.log - self.margin * t.label.probs)

    @property
    def simplex(self) -> str:
        return "never" if self.margin > 0 else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.at_label(self._shifted(t).log)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-1, self._shifted(t))


class LogitAdjustment(QMap):
    """Logit adjustment: frequent tokens get a head start in training, so that rare ones are learned.

    Loss    −log softmax(z + τ log prior)_y
    Pulls   1 → label, −1 → ∝ p prior^τ
    Source  Menon et al. 2021, arXiv:2007.07314; τ = 1 is balanced softmax (Ren et al. 2020, arXiv:2007.10740)
    """

    name = "logit_adjustment"
    formula = r"-\log\,\mathrm{softmax}(z+\tau\log\pi_{\mathrm{prior}})_y"
    needs = ("prior_logits",)
    simplex = "sometimes"
    examples = ({"tau": 0}, {"tau": 0.5}, {"tau": -1})
    tau: float = param(1.0, letter="τ", telling=0.637, doc="τ, strength of the adjustment; 0 is sft")

    def loss(self, t: Token) -> Scalar:
        return -t.at_label(t.softmax(t.policy.log + self.tau * t.prior.log).log)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-1, t.softmax(t.policy.log + self.tau * t.prior.log))


class Sparsemax(QMap):
    """Sparsemax: the Fenchel–Young loss whose prediction is the Euclidean projection onto the simplex.

    Loss    ⟨q − δ, z⟩ + (1 − ‖q‖²)/2, q = sparsemax(z)
    Pulls   1 → label, −1 → q
    Source  Martins & Astudillo 2016, arXiv:1602.02068
    """

    name = "sparsemax"
    formula = r"\langle q-\delta,z\rangle+\tfrac12(1-\lVert q\rVert^2),\quad q=\mathrm{sparsemax}(z)"
    link = "sparsemax(z)"
    simplex = "sometimes"

    def prediction(self, t: Token) -> Distribution:
        return t.entmax(2)

    def loss(self, t: Token) -> Scalar:
        q = t.stop(t.entmax(2)).probs
        return t.sum((q - t.label.probs) * t.policy.log) + (1 - t.sum(q**2)) / 2

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-1, t.entmax(2))


class Entmax15(QMap):
    """Entmax-1.5: the Fenchel–Young loss halfway between softmax and sparsemax.

    Loss    ⟨q − δ, z⟩ + (4/3)(1 − Σ q_k^1.5), q = entmax₁.₅(z)
    Pulls   1 → label, −1 → q
    Source  Peters et al. 2019, arXiv:1905.05702
    """

    name = "entmax15"
    formula = (
        r"\langle q-\delta,z\rangle+\tfrac43\bigl(1-\textstyle\sum_k q_k^{3/2}\bigr),\quad q=\mathrm{entmax}_{1.5}(z)"
    )
    link = "entmax15(z)"
    simplex = "sometimes"

    def prediction(self, t: Token) -> Distribution:
        return t.entmax(1.5)

    def loss(self, t: Token) -> Scalar:
        q = t.stop(t.entmax(1.5)).probs
        return t.sum((q - t.label.probs) * t.policy.log) + (1 - t.sum(q**1.5)) * 4 / 3

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-1, t.entmax(1.5))


class BiTempered(QMap):
    """Bi-tempered loss: a bounded logarithm outside, a tempered softmax inside.

    Loss    −log_t1 q_y − (1 − Σ q_k^(2−t1))/(2 − t1), q the t2-softmax of z
    Pulls   q_y^(t2−t1) → label, −S → ∝ q^(1+t2−t1), S − q_y^(t2−t1) → ∝ q^t2; S = Σ q_k^(1+t2−t1)
    Source  Amid et al. 2019, arXiv:1906.03361
    Release the normaliser is found by five fixed-point steps, so probabilities need not sum to one
    """

    name = "bi_tempered"
    formula = r"-\log_{t_1}q_y-\frac{1-\sum_k q_k^{2-t_1}}{2-t_1},\quad q=\exp_{t_2}(z-\lambda(z))"
    link = "exp_t2(z − λ(z))"
    simplex = "sometimes"
    examples = ({"t1": 0.5, "t2": 1}, {"t1": 0.2, "t2": 2}, {"t1": 1, "t2": 1.5})
    t1: float = param(
        0.8, low=0, high=1, letter="t1", telling=0.613, doc="temperature of the logarithm; 1 is the usual one"
    )
    t2: float = param(1.4, low=1, letter="t2", telling=1.737, doc="temperature of the exponential; 1 is softmax")

    def prediction(self, t: Token) -> Distribution:
        return t.tempered_softmax(self.t2)

    def loss(self, t: Token) -> Scalar:
        q = t.tempered_softmax(self.t2)
        power_sum = t.sum(t.power(q.probs, 2 - self.t1))
        return -t.q_log(t.at_label(q.log), 1 - self.t1) - (1 - power_sum) / (2 - self.t1)

    def pulls(self, t: Token) -> Pulls:
        q = t.tempered_softmax(self.t2)
        on_label = t.exp((self.t2 - self.t1) * t.at_label(q.log))
        matched, escort = t.exp((1 + self.t2 - self.t1) * q.log), t.exp(self.t2 * q.log)
        total = t.sum(matched)
        return (on_label, t.label), (-total, t.normalised(matched)), (total - on_label, t.normalised(escort))


class LogitNorm(QMap):
    """LogitNorm: cross-entropy of logits scaled to a fixed length; not shift-invariant, so it has no target.

    Loss    −log softmax(z/(τ‖z‖))_y
    Pulls   none; the gradient (1/τ‖z‖)(I − ẑẑᵀ)(q − δ), q = softmax(z/(τ‖z‖)), does not sum to zero
    Source  Wei et al. 2022, arXiv:2205.09310
    Release the code's default temperature is 1; 0.04 is its CIFAR-10 setting
    """

    name = "logit_norm"
    formula = r"-\log\,\mathrm{softmax}\bigl(z/(\tau\lVert z\rVert)\bigr)_y"
    shift_invariant = False
    simplex = "never"
    temperature: float = param(0.04, above=0, letter="τ", telling=0.37, doc="τ, temperature of the unit-length logits")

    def loss(self, t: Token) -> Scalar:
        length = t.power(t.sum(t.logits**2), 0.5) + 1e-7
        return -t.at_label(t.tempered(t.policy, self.temperature * length).log)

    def pulls(self, t: Token) -> Pulls:
        norm = t.exp(0.5 * t.log(t.sum(t.logits**2)))
        scale = self.temperature * (norm + 1e-7)
        raw = t.softmax(t.policy.log / scale).probs - t.label.probs
        radial = t.sum(raw * t.logits) / (scale * (norm + 1e-7) * norm)
        return (raw / scale - t.logits * radial,)


class LDAM(QMap):
    """LDAM: the label must win by a margin, the larger the rarer the token is.

    Loss    −log softmax(z − Δδ)_y, Δ = C prior_y^(−1/4)
    Pulls   1 → label, −1 → softmax(z − Δδ)
    Source  Cao et al. 2019, arXiv:1906.07413 (label-distribution-aware margin)
    Release margins are scaled so that the largest is C, and all logits, cosines there, are multiplied by 30
    """

    name = "ldam"
    formula = r"-\log\,\mathrm{softmax}\bigl(z-C\pi_{\mathrm{prior},y}^{-1/4}\delta\bigr)_y"
    needs = ("prior_logits",)
    examples = ({"margin": 0},)
    margin: float = param(
        0.5, low=0, letter="C", telling=0.737, elsewhere="`max_m` in the release", doc="C, in logits; 0 is sft"
    )

    def _shifted(self, t: Token) -> Distribution:
        rarity = t.exp(-t.at_label(t.prior.log) / 4)
        return t.softmax(t.policy.log - self.margin * rarity * t.label.probs)

    @property
    def simplex(self) -> str:
        return "never" if self.margin > 0 else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.at_label(self._shifted(t).log)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (-1, self._shifted(t))
