"""Designed: the target is chosen first, and the loss is cross-entropy to it. Users add theirs with `design`."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


class TargetSFT(QMap):
    """Target-SFT: trust the label as far as the model does; leave the rest to model and teacher.

    Loss    −sg(u) log u − (1 − sg(u)) Σ sg(G_k) log p_k, G ∝ p^(1−η) teacher^η
    Pulls   u → label, 1 − u → G
    Source  Xie et al. 2026, arXiv:2606.11189
    Release its project page prints the cross-entropy with its two arguments exchanged, which read literally is another
            loss
    """

    name = "target_sft"
    formula = (
        r"-\mathrm{sg}(u)\log u-(1-\mathrm{sg}(u))\sum_k\mathrm{sg}(G_k)\log p_k,"
        r"\quad G\propto p^{1-\eta}\,\pi_{\mathrm{tea}}^{\eta}"
    )
    needs = ("teacher_logits",)
    simplex = "always"
    eta: float = param(
        0.5, low=0, high=1, letter="η", telling=0.273, doc="η, the teacher's share of the residual; 0 is dft"
    )

    def loss(self, t: Token) -> Scalar:
        u = t.stop(t.p_label)
        guided = t.stop(t.geometric(t.policy, t.teacher, self.eta))
        return -u * t.log_p_label + (1 - u) * t.cross_entropy(guided, t.policy)

    def pulls(self, t: Token) -> Pulls:
        guided = t.geometric(t.policy, t.teacher, self.eta)
        return (t.p_label, t.label), (t.p_rest, guided)


class Posterior(QMap):
    """Posterior: trust the label by the probability that it was meant and is no slip; leave the rest to the teacher.

    Loss    −γ log u − (1 − γ) Σ teacher_k log p_k, γ = (1 − ε) teacher_y/((1 − ε) teacher_y + ε/V)
    Pulls   γ → label, 1 − γ → teacher
    Source  this project 2026, docs/ten_settings.md
    """

    # Of labels that are the teacher's but for a share ε of slips, which may be any token, E_y Q is the teacher: where
    # the teacher is right, such labels teach the distribution without slips.
    name = "posterior"
    formula = (
        r"-\gamma\log u-(1-\gamma)\sum_k\pi_{\mathrm{tea},k}\log p_k,"
        r"\quad\gamma=\frac{(1-\varepsilon)\,\pi_{\mathrm{tea},y}}{(1-\varepsilon)\,\pi_{\mathrm{tea},y}+\varepsilon/V}"
    )
    needs = ("teacher_logits",)
    simplex = "always"
    noise: float = param(0.1, above=0, high=1, letter="ε", telling=0.237, doc="ε, the share of slips; 1 is kd")
    tokens: int = param(0, low=0, doc="how many tokens slips are drawn from, evenly; 0: all V")

    def loss(self, t: Token) -> Scalar:
        odds = (1 - self.noise) * (self.tokens or t.vocab) / self.noise * t.prob(t.teacher)
        return (-odds * t.log_p_label + t.cross_entropy(t.teacher, t.policy)) / (1 + odds)

    def pulls(self, t: Token) -> Pulls:
        meant = (1 - self.noise) * t.prob(t.teacher)
        trust = meant / (meant + self.noise / (self.tokens or t.vocab))
        return (trust, t.label), (1 - trust, t.teacher)
