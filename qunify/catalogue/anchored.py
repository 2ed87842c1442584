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
    Release LLaMA-Factory 0.9.5 ignores the number of items in the batch, so accumulation changes its objective;
            NeMo-RL's pull request estimates a reverse KL from the label alone, as asft_k3 does; the official code drops
            the KL where the reference's length differs, and its README has λ = 0.03 where the paper has 0.05 and 0.1
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


class EKSFT(QMap):
    """EK-SFT: imitate where the model is sure and near the reference; elsewhere keep its entropy and stay near.

    Loss    c: −log u; 1 − c: −λ_H H(p) + λ_K KL(p‖ref); c = 0 at the tokens of highest entropy or KL, by token_mask
    Pulls   c → label, and (1 − c) times the vector p ∘ (d − ⟨p, d⟩), d = λ_H log p + λ_K log(p/ref); released: λ_K
            (2p − log ref) for the second
    Source  2026, arXiv:2605.29303 (entropy-KL selective fine-tuning)
    Release the KL is Σ p (p − log ref), with probabilities where their logarithms belong (divergence = "released"); the
            entropy is divided by log V; a fifth of the batch's tokens is chosen by each score
    """

    name = "eksft"
    formula = r"-c\log u+(1-c)\bigl(\lambda_K\,\mathrm{KL}(p\|\pi_{\mathrm{ref}})-\lambda_H H(p)\bigr)"
    needs = ("reference_logits", "token_mask")
    simplex = "sometimes"
    examples = ({"entropy_weight": 0.0, "kl_weight": 1.0}, {"divergence": "released", "kl_weight": 1.0})
    entropy_weight: float = param(
        0.05,
        low=0,
        letter="λ_H",
        telling=0.237,
        elsewhere="`eksft_lambda_entropy` in the release, 0.05 in its script",
        doc="λ_H, bonus for entropy",
    )
    kl_weight: float = param(
        0.05,
        low=0,
        letter="λ_K",
        telling=0.377,
        elsewhere="`eksft_lambda_kl` in the release, 0.05 in its script",
        doc="λ_K, strength of the anchor",
    )
    divergence: str = param(
        "kl", choices=("kl", "released"), telling="released", doc="KL(p‖ref), or what the release has in its place"
    )

    def loss(self, t: Token) -> Scalar:
        if self.divergence == "kl":
            anchor = t.kl(t.policy, t.reference)
        else:
            anchor = t.expect(t.policy, t.policy.probs - t.reference.log)
        apart = self.kl_weight * anchor - self.entropy_weight * t.entropy(t.policy)
        return -t.keep * t.log_p_label + (1 - t.keep) * apart

    def pulls(self, t: Token) -> Pulls:
        own = 2 * t.policy.probs if self.divergence == "released" else t.policy.log
        d = self.entropy_weight * t.policy.log + self.kl_weight * (own - t.reference.log)
        return (t.keep, t.label), (1 - t.keep) * t.softmax_vjp(d)
