"""Designed: the target is chosen first, and the loss is cross-entropy to it. Users add theirs with `design`."""

from __future__ import annotations

from qunify.qmap import Pulls, QMap, param
from qunify.token import Scalar, Token


class TargetSFT(QMap):
    """Target-SFT: trust the label as far as the model does; leave the rest to model and teacher.

    Loss    −sg(u) log u − (1 − sg(u)) Σ sg(G_k) log p_k, G ∝ p^(1−η) teacher^η
    Pulls   u → label, 1 − u → G
    Source  Xie et al. 2026, arXiv:2606.11189
    """

    name = "target_sft"
    formula = (
        r"-\mathrm{sg}(u)\log u-(1-\mathrm{sg}(u))\sum_k\mathrm{sg}(G_k)\log p_k,"
        r"\quad G\propto p^{1-\eta}\,\pi_{\mathrm{tea}}^{\eta}"
    )
    needs = ("teacher_logits",)
    simplex = "always"
    eta: float = param(0.5, low=0, high=1, doc="η, the teacher's share of the residual; 0 is dft")

    def loss(self, t: Token) -> Scalar:
        u = t.stop(t.p_label)
        guided = t.stop(t.geometric(t.policy, t.teacher, self.eta))
        return -u * t.log_p_label + (1 - u) * t.cross_entropy(guided, t.policy)

    def pulls(self, t: Token) -> Pulls:
        guided = t.geometric(t.policy, t.teacher, self.eta)
        return (t.p_label, t.label), (t.p_rest, guided)
