"""Anchored: the label, and a reference model the policy should stay near."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


class SFTKL(QMap):
    """SFT+KL: cross-entropy with a forward-KL anchor to the reference.

    Loss    −log u + λ KL(ref‖p)
    Pulls   1 → label, λ → reference
    Source  the KL-anchored baseline in Xie et al. 2026, arXiv:2606.11189
    """

    name = "sft_kl"
    formula = r"-\log u+\lambda\,\mathrm{KL}(\pi_{\mathrm{ref}}\|p)"
    needs = ("reference_logits",)
    simplex = "sometimes"
    kl_weight: float = param(0.1, low=0, letter="λ", telling=0.377, doc="λ, strength of the anchor")

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label + self.kl_weight * t.kl(t.reference, t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (1, t.label), (self.kl_weight, t.reference)


class ASFT(QMap):
    """ASFT: DFT with a forward-KL anchor to the reference.

    Loss    −sg(u) log u + λ KL(ref‖p)
    Pulls   u → label, λ → reference
    Source  Zhu et al. 2025, arXiv:2509.23753
    Release LLaMA-Factory 0.9.5 ignores the number of items in the batch, so accumulation changes its objective; one
            framework takes a reverse KL on the target token alone; the official code drops the KL where the
            reference's length differs
    """

    name = "asft"
    formula = r"-\mathrm{sg}(u)\log u+\lambda\,\mathrm{KL}(\pi_{\mathrm{ref}}\|p)"
    needs = ("reference_logits",)
    simplex = "sometimes"
    kl_weight: float = param(
        0.1,
        low=0,
        letter="λ",
        telling=0.377,
        elsewhere="`kl_weight` in NeMo-RL, there of a reverse KL at the label",
        doc="λ, strength of the anchor",
    )

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label) * t.log_p_label + self.kl_weight * t.kl(t.reference, t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (t.p_label, t.label), (self.kl_weight, t.reference)
