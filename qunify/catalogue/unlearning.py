"""Unlearning: the label is what to forget; most of these push it down."""

from __future__ import annotations

import math

from qunify.maps import Gate, Pulls, QMap, param
from qunify.token import Scalar, Token


class WGA(Gate):
    """WGA: gradient ascent on the label, weighted by a power of its probability, so that it ends as the label fades.

    Loss    sg(u^β) log u
    Pulls   −u^β → label
    Source  Wang et al. 2025, arXiv:2502.19301
    """

    name = "wga"
    formula = r"\mathrm{sg}(u^{\beta})\log u"
    examples = ({"power": 0.5}, {"power": 2})
    power: float = param(1.0, low=0, letter="β", telling=1.713, doc="β, power of the probability; 0 is gradient ascent")

    @property
    def simplex(self) -> str:
        return "always" if self.power >= 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return t.stop(t.power(t.p_label, self.power)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return -t.exp(self.power * t.log_p_label)


class SatImp(Gate):
    """SatImp: gradient ascent on the labels that are known but not certain.

    Loss    sg(u^α (1 − u)^β) log u
    Pulls   −u^α (1 − u)^β → label
    Source  Yang et al. 2025, arXiv:2505.11953; the powers are those of open-unlearning
    """

    name = "satimp"
    formula = r"\mathrm{sg}\bigl(u^{\alpha}(1-u)^{\beta}\bigr)\log u"
    power: float = param(5.0, low=0, letter="α", telling=1.713, elsewhere="`beta1`", doc="power of the probability")
    rest_power: float = param(
        1.0, low=0, letter="β", telling=0.613, elsewhere="`beta2`", doc="power of the rest; 0 is wga"
    )

    @property
    def simplex(self) -> str:
        return "always" if self.power >= 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return t.stop(t.power(t.p_label, self.power) * t.power(t.p_rest, self.rest_power)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return -t.exp(self.power * t.log_p_label + self.rest_power * t.log_p_rest)


class NPO(Gate):
    """NPO: gradient ascent that lets go of a label once it is less likely than under the reference.

    Loss    −(2/β) log σ(−β log(u/ref_y))
    Pulls   −2u^β / (u^β + ref_y^β) → label
    Source  Zhang et al. 2024, arXiv:2404.05868, for one token; published for whole answers
    """

    name = "npo"
    formula = r"-\frac{2}{\beta}\log\sigma\!\left(-\beta\log\frac{u}{\pi_{\mathrm{ref}}(y)}\right)"
    needs = ("reference_logits",)
    simplex = "sometimes"
    examples = ({"sharpness": 2},)
    sharpness: float = param(
        0.1, above=0, letter="β", telling=1.713, doc="β, how sharply it lets go; toward 0 it is gradient ascent"
    )

    def loss(self, t: Token) -> Scalar:
        return 2 / self.sharpness * t.log_add(self.sharpness * (t.log_p_label - t.at_label(t.reference.log)), 1)

    def weight(self, t: Token) -> Scalar:
        return -2 / (1 + t.exp(self.sharpness * (t.at_label(t.reference.log) - t.log_p_label)))


class SimNPO(Gate):
    """SimNPO: NPO without a reference: gradient ascent that lets go as the label fades.

    Loss    −(2/β) log σ(−β log u − δ)
    Pulls   −2 e^δ u^β / (1 + e^δ u^β) → label
    Source  Fan et al. 2024, arXiv:2410.07163, for one token; published for an answer's mean log-probability
    Release open-unlearning multiplies δ by β, and its class has β = 1
    """

    name = "simnpo"
    formula = r"-\frac{2}{\beta}\log\sigma(-\beta\log u-\delta)"
    examples = ({"sharpness": 1}, {"sharpness": 0.5, "margin": 0.3}, {"sharpness": 2, "margin": 1.5})
    sharpness: float = param(4.5, above=0, letter="β", telling=1.713, doc="β, how sharply it lets go")
    margin: float = param(
        0.0, low=0, letter="δ", telling=0.613, elsewhere="γ in the paper", doc="δ, how much longer it pushes"
    )

    @property
    def simplex(self) -> str:
        """The label's entry, u − |w|(1 − u), is never negative where e^δ (2u^(β−1) − 3u^β) stays below 1: its peak is
        at u = 2(β − 1)/(3β), for β < 1 it is unbounded."""
        b = self.sharpness
        if b < 1:
            return "sometimes"
        peak = (b - 1) * math.log(2 * (b - 1) / (3 * b)) if b > 1 else 0.0
        return "always" if self.margin + peak + math.log(2 / b) <= 0 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return 2 / self.sharpness * t.log_add(self.sharpness * t.log_p_label + self.margin, 1)

    def weight(self, t: Token) -> Scalar:
        return -2 / (1 + t.exp(-self.sharpness * t.log_p_label - self.margin))


class CEU(Gate):
    """CE-U: cross-entropy to the model's own prediction without the label; its gradient is that of −log(1 − u).

    Loss    −Σ sg(p_k/(1 − u)) log p_k over k ≠ y
    Pulls   −u/(1 − u) → label, which comes to 1 → p without the label
    Source  Yang 2025, arXiv:2503.01224
    Release open-unlearning can leave out the first token of an answer
    """

    name = "ce_u"
    formula = r"-\sum_{k\ne y}\mathrm{sg}\!\left(\frac{p_k}{1-u}\right)\log p_k"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return t.cross_entropy(t.stop(t.without_label(t.policy)), t.policy)

    def weight(self, t: Token) -> Scalar:
        return -t.exp(t.log_p_label - t.log_p_rest)


class UNDIAL(QMap):
    """UNDIAL: cross-entropy to the reference with the label's logit lowered.

    Loss    −Σ q_k log p_k, q = softmax(log ref − βδ)
    Pulls   1 → softmax(log ref − βδ)
    Source  Dong et al. 2024, arXiv:2402.10052
    Release open-unlearning's class has β = 1, its experiments 10
    """

    name = "undial"
    formula = r"-\sum_k q_k\log p_k,\quad q=\mathrm{softmax}(\log\pi_{\mathrm{ref}}-\beta\delta)"
    needs = ("reference_logits",)
    simplex = "always"
    strength: float = param(10.0, low=0, letter="β", telling=1.713, doc="β, by how much the label's logit is lowered")

    def loss(self, t: Token) -> Scalar:
        lowered = t.softmax(t.reference.logits - self.strength * t.label.probs)
        return t.cross_entropy(lowered, t.policy)

    def pulls(self, t: Token) -> Pulls:
        return ((1, t.softmax(t.reference.log - self.strength * t.label.probs)),)


class IHL(QMap):
    """Inverted hinge loss: push the label down and the likeliest of the other tokens up.

    Loss    1 + u − max_{k≠y} p_k
    Pulls   −u → label, p_m → m, the likeliest other token
    Source  Cha et al. 2025, arXiv:2408.06621 (LoKU)
    """

    name = "ihl"
    formula = r"1+u-\max_{k\ne y}p_k"
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return 1 + t.p_label - t.expect(t.argmax(t.without_label(t.policy)), t.policy.probs)

    def pulls(self, t: Token) -> Pulls:
        best = t.argmax(t.without_label(t.policy)).probs
        return (-t.p_label, t.label), (t.sum(best * t.policy.probs), t.conditioned(t.policy, best))
