"""Weights that look beyond the position: at the mean, the spread or the ranks of its sequence, or of the batch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from qunify.catalogue.distillation import decoupled_loss, decoupled_pulls
from qunify.maps import Gate, Pulls, QMap, param
from qunify.token import Pool, Scalar, Token, entropy, probability, surprise


def excess(t: Any) -> Any:
    """log ref_y − log u: by how much the loss exceeds the reference's, in nats."""
    return t.at_label(t.reference.log) - t.log_p_label


def doubt(t: Any) -> Any:
    """1 − tea_y: what the teacher leaves to other tokens."""
    return 1 - t.prob(t.teacher)


class SRFT(Gate):
    """SRFT: the supervised part of a single-stage method, weighted less where the model is uncertain of a sequence.

    Loss    −sg(c e^(−h)) log u, h the mean entropy over the sequence
    Pulls   c e^(−h) → label
    Source  Fu et al. 2025, arXiv:2506.19767
    """

    name = "srft"
    formula = r"-\mathrm{sg}\bigl(c\,e^{-\overline{H}}\bigr)\log u"
    examples = ({"scale": 4},)
    scale: float = param(0.5, above=0, letter="c", telling=0.83, doc="c, the weight where the model is certain")
    pools: ClassVar = (Pool("mean", entropy),)

    @property
    def simplex(self) -> str:
        return "always" if self.scale <= 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -self.scale * t.exp(-t.pooled(*self.pools)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return self.scale / t.exp(t.pooled(*self.pools))


class CADFT(Gate):
    """CADFT: DFT, the less the more surprising a demonstration is among those of its batch.

    Loss    −sg(u e^(−β max(s, 0))) log u, s = (l − mean)/(spread + 1e-6), l the sequence's mean −log u
    Pulls   u e^(−β max(s, 0)) → label
    Source  2026, arXiv:2606.11206, as mii-llm/palingenesis has it
    """

    name = "cadft"
    formula = r"-\mathrm{sg}\bigl(u\,e^{-\beta\max(s,0)}\bigr)\log u,\quad s=\frac{\ell-\overline{\ell}}{\sigma_\ell}"
    simplex = "always"
    strength: float = param(1.0, low=0, letter="β", telling=1.7, doc="β; 0 is dft")
    pools: ClassVar = (
        Pool("mean", surprise),
        Pool("mean", surprise, over="sequences"),
        Pool("std", surprise, over="sequences"),
    )

    def _discount(self, t: Token) -> Scalar:
        own, mean, spread = map(t.pooled, self.pools)
        return t.exp(-self.strength * t.maximum((own - mean) / (spread + 1e-6), 0))

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label * self._discount(t)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return self._discount(t) * t.exp(t.log_p_label)


class MedianTALR(Gate):
    """TALR by the median: a tempered probability whose temperature is the median loss of the batch's sequences.

    Loss    −sg(max(u^(1/τ), floor)) log u, τ the lower median of the sequences' mean −log u
    Pulls   max(u^(1/τ), floor) → label
    Source  Lin et al. 2025, arXiv:2509.20758; `talr` has τ as a number
    """

    name = "talr_median"
    formula = r"-\mathrm{sg}\bigl(\max(u^{1/\tau},f)\bigr)\log u,\quad\tau=\mathrm{median}\,\ell"
    simplex = "always"
    floor: float = param(0.01, low=0, high=1, letter="floor", telling=0.137, doc="smallest weight")
    pools: ClassVar = (Pool("quantile", surprise, over="sequences"),)

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.maximum(t.power(t.p_label, 1 / t.pooled(*self.pools)), self.floor)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.maximum(t.exp(t.log_p_label / t.pooled(*self.pools)), self.floor)


class BatchCayley(Gate):
    """Cayley with a floor: the Cayley form of DEFT as it is released, whose power is at least half the batch's mean u.

    Loss    (1 − u^a)/a, a = sg(f + (1 − f) u/(2 − u)), f half the mean of u over the batch, a from 0.001 to 1
    Pulls   u^a → label
    Source  Wang et al. 2026, arXiv:2602.11424, in its released code; `cayley` is the form without a floor
    """

    name = "cayley_floor"
    formula = r"\frac{1-u^{a}}{a},\quad a=\mathrm{sg}\Bigl(f+(1-f)\frac{u}{2-u}\Bigr),\quad f=\tfrac12\overline{u}"
    simplex = "always"
    pools: ClassVar = (Pool("mean", probability, over="batch"),)

    def _power(self, t: Token) -> Scalar:
        floor = t.pooled(*self.pools) / 2
        return t.minimum(t.maximum(floor + (1 - floor) * t.p_label / (2 - t.p_label), 0.001), 1)

    def loss(self, t: Token) -> Scalar:
        return -t.q_log(t.log_p_label, t.stop(self._power(t)))

    def weight(self, t: Token) -> Scalar:
        return t.exp(self._power(t) * t.log_p_label)


class _Selected(Gate):
    """A gate that trains on some tokens, chosen by their rank, and leaves out the others."""

    @abstractmethod
    def _chosen(self, t: Token) -> Scalar:
        """Whether the token is trained on."""

    def loss(self, t: Token) -> Scalar:
        return t.where(self._chosen(t), -t.log_p_label, 0)

    def weight(self, t: Token) -> Scalar:
        return t.where(self._chosen(t), 1, 0)


class Rho1(_Selected):
    """Rho-1: cross-entropy on the tokens of the batch whose loss exceeds that of a reference model most.

    Loss    −1[a < k] log u, a the share of the batch's tokens with a larger log ref_y − log u
    Pulls   1[a < k] → label
    Source  Lin et al. 2024, arXiv:2404.07965
    """

    name = "rho1"
    formula = r"-\mathbf{1}\bigl[\mathrm{above}(\log\pi_{\mathrm{ref}}(y)-\log u)<k\bigr]\log u"
    needs = ("reference_logits",)
    simplex = "always"
    keep: float = param(0.6, low=0, high=1, letter="k", telling=0.37, doc="k, the share of tokens that are trained on")
    pools: ClassVar = (Pool("above", excess, over="batch"),)

    def _chosen(self, t: Token) -> Scalar:
        return t.pooled(*self.pools) < self.keep


class LossTruncation(_Selected):
    """Loss truncation: cross-entropy without the sequences of the batch whose loss is highest.

    Loss    −1[b < 1 − c] log u, b the share of the batch's sequences with a smaller mean of −log u
    Pulls   1[b < 1 − c] → label
    Source  Kang & Hashimoto 2020, arXiv:2004.14589
    Release the threshold is a quantile of the last 10,000 losses, and nothing is left out before there are so many
    """

    name = "loss_truncation"
    formula = r"-\mathbf{1}\bigl[\mathrm{below}(\ell)<1-c\bigr]\log u"
    simplex = "always"
    drop: float = param(0.4, low=0, high=1, letter="c", telling=0.23, doc="c, the share of sequences left out")
    pools: ClassVar = (Pool("below", surprise, over="sequences"),)

    def _chosen(self, t: Token) -> Scalar:
        return t.pooled(*self.pools) < 1 - self.drop


class LowestLosses(_Selected):
    """Lowest losses: cross-entropy on the tokens of the batch that the model finds likeliest.

    Loss    −1[b < k] log u, b the share of the batch's tokens with a smaller −log u
    Pulls   1[b < k] → label
    Source  `topk` of doub7e/token-SFT, unpublished code of 2026
    """

    name = "lowest_losses"
    formula = r"-\mathbf{1}\bigl[\mathrm{below}(-\log u)<k\bigr]\log u"
    simplex = "always"
    keep: float = param(0.7, low=0, high=1, letter="k", telling=0.43, doc="k, the share of tokens that are trained on")
    pools: ClassVar = (Pool("below", surprise, over="batch"),)

    def _chosen(self, t: Token) -> Scalar:
        return t.pooled(*self.pools) < self.keep


class HighEntropy(_Selected):
    """High entropy: cross-entropy on the forks of the batch alone, the tokens of which the model is least certain.

    Loss    −1[a < k] log u, a the share of the batch's tokens with a larger entropy
    Pulls   1[a < k] → label
    Source  Wang et al. 2025, arXiv:2506.01939, there of a policy gradient; `top_entropy_quantile` in TRL
    """

    name = "high_entropy"
    formula = r"-\mathbf{1}\bigl[\mathrm{above}(H(p))<k\bigr]\log u"
    simplex = "always"
    keep: float = param(0.2, low=0, high=1, letter="k", telling=0.37, doc="k, the share of tokens that are trained on")
    pools: ClassVar = (Pool("above", entropy, over="batch"),)

    def _chosen(self, t: Token) -> Scalar:
        return t.pooled(*self.pools) < self.keep


class Antiop(Gate):
    """Antiop: cross-entropy whose weight falls where a token's loss is above a multiple of the batch's median.

    Loss    −sg(min(1, c m/(−log u))) log u, m the lower median of −log u over the batch
    Pulls   min(1, c m/(−log u)) → label
    Source  `antiop` of doub7e/token-SFT, unpublished code of 2026
    """

    name = "antiop"
    formula = r"-\mathrm{sg}\Bigl(\min\bigl(1,\tfrac{c\,m}{-\log u}\bigr)\Bigr)\log u,\quad m=\mathrm{median}(-\log u)"
    simplex = "always"
    multiple: float = param(
        3.0, above=0, letter="c", telling=1.7, doc="c, in medians: the largest loss that counts whole"
    )
    pools: ClassVar = (Pool("quantile", surprise, over="batch"),)

    def loss(self, t: Token) -> Scalar:
        most = self.multiple * t.pooled(*self.pools)
        return -t.stop(t.where(-t.log_p_label > most, -most / t.log_p_label, 1)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        surprise, most = -t.log_p_label, self.multiple * t.pooled(*self.pools)
        return t.where(surprise > most, most / surprise, 1)


class ATKD(QMap):
    """ATKD: where the teacher doubts more than at the batch's median token, all of DKD; elsewhere its rest alone.

    Loss    λ R where less than half of the batch's tokens have a smaller 1 − tea_y, else
            (1 − λ)(KL([tea_y, 1−tea_y]‖[u, 1−u]) + R); R = KL(tea given k≠y‖p given k≠y)
    Pulls   h(tea_y − u) → label, h(u − tea_y) − w → policy's others, w → teacher's others; h = 1 − λ at hard tokens
            and 0 at easy ones, w = 1 − λ or λ
    Source  Zhong et al. 2024, arXiv:2402.11890; released in WHU-ZQH/ATKD
    """

    name = "atkd"
    formula = r"h\,\mathrm{KL}(b^{\mathrm{tea}}\|b)+w\,\mathrm{KL}(\hat\pi_{\mathrm{tea}}\|\hat p)"
    needs = ("teacher_logits",)
    simplex = "sometimes"
    easy: float = param(0.2, low=0, high=1, letter="λ", telling=0.37, doc="λ, the share of the tokens that are easy")
    pools: ClassVar = (Pool("below", doubt, over="batch"),)

    def _weights(self, t: Token) -> tuple[Scalar, Scalar]:
        """Of the label against the rest, and among the rest."""
        hard = t.pooled(*self.pools) >= 0.5
        return t.where(hard, 1 - self.easy, 0), t.where(hard, 1 - self.easy, self.easy)

    def loss(self, t: Token) -> Scalar:
        return decoupled_loss(t, *self._weights(t))

    def pulls(self, t: Token) -> Pulls:
        return decoupled_pulls(t, *self._weights(t))
