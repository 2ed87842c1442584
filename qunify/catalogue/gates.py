"""Gates: one pull, toward the label, with a weight. What is not trusted stays where the model has it."""

from __future__ import annotations

from qunify.maps import Gate, check_order, param
from qunify.token import Scalar, Token


class SFT(Gate):
    """SFT: plain cross-entropy; the label gets all of the target.

    Loss    −log u
    Pulls   1 → label
    Source  maximum likelihood; for instruction tuning Ouyang et al. 2022, arXiv:2203.02155
    """

    name = "sft"
    formula = r"-\log u"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return 1


class DFT(Gate):
    """DFT: cross-entropy weighted by the model's own probability of the label, detached.

    Loss    −sg(u) log u
    Pulls   u → label
    Source  Wu et al. 2025, arXiv:2508.05629
    Release TRL 1.16, LLaMA-Factory 0.9.5 and ms-swift 4.6 agree when the number of items is passed, and divide by
            different token counts when it is not; the authors' trainer goes backward before it divides by the number of
            micro-batches (issue 27 of yongliang-wu/DFT), and TRL's first one failed in evaluation (issue 4096)
    """

    name = "dft"
    formula = r"-\mathrm{sg}(u)\log u"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.p_label


class BeyondLog(Gate):
    """Beyond-log: a power of the probability in place of its logarithm.

    Loss    (1 − u^α)/α
    Pulls   u^α → label
    Source  Li et al. 2025, arXiv:2510.00526
    Release the released code has no default power and special-cases the logarithm
    """

    name = "beyond_log"
    formula = r"\frac{1-u^{\alpha}}{\alpha}"
    examples = ({"alpha": 0}, {"alpha": 1}, {"alpha": 3}, {"alpha": -0.5})
    alpha: float = param(
        0.5,
        letter="α",
        telling=0.613,
        elsewhere="the $q$ of `gce`",
        doc="power; 0 is the logarithm (sft), 1 the probability itself (dft)",
    )

    @property
    def simplex(self) -> str:
        return "always" if self.alpha >= 0 else "never"

    def loss(self, t: Token) -> Scalar:
        return -t.q_log(t.log_p_label, self.alpha)

    def weight(self, t: Token) -> Scalar:
        return t.exp(self.alpha * t.log_p_label)


class ProFiT(Gate):
    """ProFiT: learn only the tokens the model already finds likely enough.

    Loss    −1[sg(u) > τ] log u
    Pulls   1[u > τ] → label
    Source  Liu et al. 2026, arXiv:2601.09195
    Release the released code keeps u ≥ τ, and its own default τ is 0
    """

    name = "profit"
    formula = r"-\mathbf{1}[\mathrm{sg}(u)>\tau]\log u"
    simplex = "always"
    threshold: float = param(
        0.1, low=0, high=1, letter="τ", telling=0.2371, doc="probability a label must exceed to be learned"
    )

    def loss(self, t: Token) -> Scalar:
        return -t.where(t.stop(t.p_label) > self.threshold, 1, 0) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.where(t.p_label > self.threshold, 1, 0)


class EAFT(Gate):
    """EAFT: cross-entropy weighted by the model's uncertainty, the entropy of its top k tokens.

    Loss    −sg(H(top-k of p, renormalised) / log k) log u
    Pulls   H/log k → label
    Source  Diao et al. 2026, arXiv:2601.02151
    Release LLaMA-Factory 0.9.5 divides by 3.0 (about ln 20) whatever k is, and raises the weight to a power; Axolotl
            raises it to a power and divides by nothing
    """

    name = "eaft"
    formula = r"-\mathrm{sg}\!\left(\frac{H(\mathrm{top}_k\,p)}{\log k}\right)\log u"
    simplex = "always"
    examples = ({"top_k": 3},)
    top_k: int = param(
        20,
        low=2,
        letter="k",
        telling=7,
        elsewhere="`eaft_k` in Axolotl",
        doc="tokens the entropy is taken over (all of them where V < k)",
    )

    def loss(self, t: Token) -> Scalar:
        k = t.maximum(t.minimum(t.vocab, self.top_k), 2)
        return -t.stop(t.entropy(t.top_k(t.policy, self.top_k)) / t.log(k)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        effective = t.where(t.vocab < self.top_k, t.maximum(t.vocab, 2), self.top_k)
        return t.top_k_entropy(t.policy, self.top_k) / t.log(effective)


class IWSFT(Gate):
    """iw-SFT: each token weighted by its trajectory's importance ratio q/π_ref, given as token_weight.

    Loss    −w log u
    Pulls   w → label
    Source  Qin & Springenberg 2025, arXiv:2507.12856
    """

    name = "iw_sft"
    formula = r"-w\log u"
    needs = ("token_weight",)
    weighed_by = "token_weight"
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -t.weight * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.weight


class CFT(Gate):
    """CFT: cross-entropy on the tokens marked critical, nothing on the others.

    Loss    −c log u, c ∈ {0, 1}
    Pulls   c → label
    Source  Ruan et al. 2025, arXiv:2510.10974
    """

    name = "cft"
    formula = r"-c\log u"
    needs = ("token_mask",)
    weighed_by = "token_mask"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return -t.keep * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.keep


class PSFT(Gate):
    """PSFT: the likelihood ratio to an old policy, clipped as in PPO so that a step stays near it.

    Loss    −min(r, clip(r, 1−ε, 1+ε)), r = u/old_y
    Pulls   r·1[r < 1+ε] → label
    Source  Zhu et al. 2025, arXiv:2508.17784
    Release the released script clips at 1.28 above and 0.8 below
    """

    name = "psft"
    formula = r"-\min\bigl(r,\mathrm{clip}(r,1-\epsilon,1+\epsilon)\bigr),\quad r=u/\pi_{\mathrm{old}}(y)"
    needs = ("old_logits",)
    simplex = "sometimes"
    clip: float = param(
        0.2,
        low=0,
        letter="ε",
        telling=0.317,
        elsewhere="PPO's clip range; the release has two, above and below",
        doc="how far the ratio may rise before the token is left alone",
    )

    def loss(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        clipped = t.minimum(t.maximum(ratio, 1 - self.clip), 1 + self.clip)
        return -t.minimum(ratio, clipped)

    def weight(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        return t.where(ratio < 1 + self.clip, ratio, 0)


class GCE(Gate):
    """Generalised cross-entropy: between cross-entropy (q = 0) and mean absolute error (q = 1).

    Loss    (1 − u^q)/q
    Pulls   u^q → label
    Source  Zhang & Sabuncu 2018, arXiv:1805.07836
    """

    name = "gce"
    formula = r"\frac{1-u^{q}}{q}"
    examples = ({"q": 0}, {"q": 1}, {"q": 2}, {"q": -0.5})
    q: float = param(
        0.7,
        letter="q",
        telling=1.234,
        elsewhere="`q` in Keras, there 0.5 by default",
        doc="power; 0 is cross-entropy, 1 mean absolute error",
    )

    @property
    def simplex(self) -> str:
        return "always" if self.q >= 0 else "never"

    def loss(self, t: Token) -> Scalar:
        return -t.q_log(t.log_p_label, self.q)

    def weight(self, t: Token) -> Scalar:
        return t.exp(self.q * t.log_p_label)


class MAE(Gate):
    """MAE: half the L1 distance between the model and the label.

    Loss    1 − u
    Pulls   u → label
    Source  Ghosh et al. 2017, arXiv:1712.09482
    """

    name = "mae"
    formula = r"1-u"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return t.p_rest

    def weight(self, t: Token) -> Scalar:
        return t.p_label


class Focal(Gate):
    """Focal loss: cross-entropy turned down where the model is already right.

    Loss    −(1 − u)^γ log u
    Pulls   (1 − u)^γ − γ u (1 − u)^(γ−1) log u → label
    Source  Lin et al. 2017, arXiv:1708.02002
    Release a widely copied implementation detaches (1 − u)^γ, which makes its weight (1 − u)^γ alone
    """

    name = "focal"
    formula = r"-(1-u)^{\gamma}\log u"
    simplex = "sometimes"
    examples = ({"focusing": 0.5}, {"focusing": 1})
    focusing: float = param(
        2.0,
        low=0,
        letter="γ",
        telling=1.37,
        elsewhere="focusing parameter; `gamma` in Keras",
        doc="γ, how hard it is turned down; 0 is cross-entropy",
    )

    def loss(self, t: Token) -> Scalar:
        return -t.exp(self.focusing * t.log_p_rest) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        slope = self.focusing * t.p_label * t.exp((self.focusing - 1) * t.log_p_rest) * t.log_p_label
        return t.exp(self.focusing * t.log_p_rest) - slope


class Poly1(Gate):
    """Poly-1: cross-entropy with the first term of its expansion in 1 − u given more weight.

    Loss    −log u + ε(1 − u)
    Pulls   1 + εu → label
    Source  Leng et al. 2022, arXiv:2204.12511
    """

    name = "poly1"
    formula = r"-\log u+\epsilon(1-u)"
    examples = ({"epsilon": 0}, {"epsilon": -1}, {"epsilon": -2})
    epsilon: float = param(
        1.0,
        letter="ε",
        telling=-0.413,
        elsewhere="`epsilon` in optax",
        doc="extra weight of the linear term; 0 is cross-entropy",
    )

    @property
    def simplex(self) -> str:
        if self.epsilon > 0:
            return "never"
        return "always" if self.epsilon >= -1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label + self.epsilon * t.p_rest

    def weight(self, t: Token) -> Scalar:
        return 1 + self.epsilon * t.p_label


class TaylorCE(Gate):
    """Taylor cross-entropy: the expansion of −log u in 1 − u, cut off after a few terms.

    Loss    Σ_{j ≤ t} (1 − u)^j / j
    Pulls   1 − (1 − u)^t → label
    Source  Feng et al. 2020, IJCAI, pp. 2206–2212
    """

    name = "taylor_ce"
    formula = r"\sum_{j=1}^{t}\frac{(1-u)^j}{j}"
    simplex = "always"
    examples = ({"order": 6},)
    order: int = param(2, low=1, letter="t", telling=5, doc="terms kept; 1 is mean absolute error")

    def loss(self, t: Token) -> Scalar:
        return sum(t.p_rest**j / j for j in range(1, self.order + 1))

    def weight(self, t: Token) -> Scalar:
        return t.p_label * sum(t.p_rest**j for j in range(self.order))


class SymmetricCE(Gate):
    """Symmetric cross-entropy: cross-entropy plus its reverse, in which log 0 is a number A.

    Loss    −α log u − βA(1 − u)
    Pulls   α − βAu → label
    Source  Wang et al. 2019, arXiv:1908.06112
    Release released implementations clip the one-hot at 1e-4, so A = ln 1e-4 = −9.21
    """

    name = "symmetric_ce"
    formula = r"-\alpha\log u-\beta A(1-u)"
    simplex = "sometimes"
    ce_weight: float = param(0.1, low=0, letter="α", telling=0.6137, doc="α, weight of cross-entropy")
    rce_weight: float = param(1.0, low=0, letter="β", telling=0.33, doc="β, weight of reverse cross-entropy")
    log_zero: float = param(
        -4.0,
        high=0,
        letter="A",
        elsewhere="in code, the logarithm of the value at which the one-hot is clipped",
        doc="A, the number that stands for log 0",
    )

    def loss(self, t: Token) -> Scalar:
        return -self.ce_weight * t.log_p_label - self.rce_weight * self.log_zero * t.p_rest

    def weight(self, t: Token) -> Scalar:
        return self.ce_weight - self.rce_weight * self.log_zero * t.p_label


class TaiLr(Gate):
    """TaiLr: a proxy for total variation that trusts a token as far as the model's odds allow.

    Loss    −sg(u / (γ + (1 − γ)u)) log u
    Pulls   u / (γ + (1 − γ)u) → label
    Source  Ji et al. 2023, arXiv:2302.13344
    Release the released code's default is γ = 1, which is DFT
    """

    name = "tailr"
    formula = r"-\mathrm{sg}\!\left(\frac{u}{\gamma+(1-\gamma)u}\right)\log u"
    simplex = "always"
    gamma: float = param(
        0.1,
        low=0,
        high=1,
        letter="γ",
        telling=0.437,
        elsewhere="`density_ratio_threshold` in the release, there 1 by default",
        doc="0 is sft, 1 is dft",
    )

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label / (self.gamma + (1 - self.gamma) * t.p_label)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return 1 / (1 - self.gamma + self.gamma / t.p_label)


class MixCE(Gate):
    """MixCE: forward cross-entropy mixed with an estimate of the reverse one.

    Loss    −sg(η + (1 − η)u) log u
    Pulls   η + (1 − η)u → label
    Source  Zhang et al. 2023, arXiv:2305.16958
    Release its released settings use η = 0.1, 0.3 or 0.7, by data set
    """

    name = "mixce"
    formula = r"-\mathrm{sg}\bigl(\eta+(1-\eta)u\bigr)\log u"
    simplex = "always"
    eta: float = param(
        0.5, low=0, high=1, letter="η", telling=0.123, doc="share of forward cross-entropy; 0 is dft, 1 is sft"
    )

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_label + self.eta * t.p_rest) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return self.eta + (1 - self.eta) * t.p_label


class ChordPhi(Gate):
    """CHORD-φ: learn most from tokens the model is undecided about.

    Loss    −sg(u(1 − u)) log u
    Pulls   u(1 − u) → label
    Source  Zhang et al. 2025, arXiv:2508.11408
    Release it is the supervised half of CHORD, which adds an on-policy reinforcement-learning loss
    """

    name = "chord_phi"
    formula = r"-\mathrm{sg}\bigl(u(1-u)\bigr)\log u"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.p_rest * (1 - t.p_rest)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.p_label * t.p_rest


class LUFFY(Gate):
    """LUFFY: the off-policy token's probability, shaped to saturate.

    Loss    −u / (u + γ)
    Pulls   γu / (u + γ)² → label
    Source  Yan et al. 2025, arXiv:2504.14945
    Release it multiplies the shaped probability by a group advantage, on off-policy tokens only
    """

    name = "luffy"
    formula = r"-\frac{u}{u+\gamma}"
    simplex = "always"
    gamma: float = param(0.1, above=0, letter="γ", telling=0.333, doc="probability at which the shaping saturates")

    def loss(self, t: Token) -> Scalar:
        return -t.p_label / (t.p_label + self.gamma)

    def weight(self, t: Token) -> Scalar:
        return self.gamma * t.p_label / (t.p_label + self.gamma) ** 2


class DEFT(Gate):
    """DEFT: generalised cross-entropy whose power is the model's own concentration Σp².

    Loss    (1 − u^a)/a, a = sg(Σ p_k²)
    Pulls   u^a → label
    Source  Wang et al. 2026, arXiv:2602.11424
    Release the released code divides by a + 1e-6
    """

    name = "deft"
    formula = r"\frac{1-u^{a}}{a},\quad a=\mathrm{sg}\bigl(\textstyle\sum_k p_k^2\bigr)"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return -t.q_log(t.log_p_label, t.stop(t.sum(t.policy.probs**2)))

    def weight(self, t: Token) -> Scalar:
        return t.exp(t.expect(t.policy, t.policy.probs) * t.log_p_label)


class Cayley(Gate):
    """Cayley: generalised cross-entropy whose power grows with the label's probability.

    Loss    (1 − u^a)/a, a = sg(u/(2 − u))
    Pulls   u^a → label
    Source  Wang et al. 2026, arXiv:2602.11424
    Release the code adds a floor from the batch, a ← f + (1 − f)a with f = mean(u)/2, and clips a to [0.001, 1]
    """

    name = "cayley"
    formula = r"\frac{1-u^{a}}{a},\quad a=\mathrm{sg}\!\left(\frac{u}{2-u}\right)"
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return -t.q_log(t.log_p_label, t.stop(t.p_label / (2 - t.p_label)))

    def weight(self, t: Token) -> Scalar:
        return t.exp(t.p_label / (1 + t.p_rest) * t.log_p_label)


class TALR(Gate):
    """TALR: weight by a tempered probability, with a floor so that no token is dropped.

    Loss    −sg(max(u^(1/τ), floor)) log u
    Pulls   max(u^(1/τ), floor) → label
    Source  Lin et al. 2025, arXiv:2509.20758
    Release in the paper τ is the median loss of the batch's sequences; here it is a number
    """

    name = "talr"
    formula = r"-\mathrm{sg}\bigl(\max(u^{1/\tau},f)\bigr)\log u"
    simplex = "always"
    examples = ({"temperature": 3, "floor": 0.2},)
    temperature: float = param(
        1.0,
        above=0,
        letter="τ",
        telling=1.7,
        elsewhere="in the paper, computed from the batch",
        doc="τ; large values weight all tokens alike",
    )
    floor: float = param(0.01, low=0, high=1, letter="floor", telling=0.137, doc="smallest weight")

    def loss(self, t: Token) -> Scalar:
        return -t.stop(t.maximum(t.power(t.p_label, 1 / self.temperature), self.floor)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.maximum(t.exp(t.log_p_label / self.temperature), self.floor)


class AGCE(Gate):
    """AGCE: asymmetric generalised cross-entropy; the hub from which most gates follow.

    Loss    ((a + 1)^q − (a + u)^q)/q
    Pulls   u (a + u)^(q−1) → label
    Source  Zhou et al. 2021, arXiv:2106.03110
    Release (1, 2) are the class defaults; the experiments use values per data set, such as (0.6, 0.6)
    """

    name = "agce"
    formula = r"\frac{(a+1)^q-(a+u)^q}{q}"
    simplex = "sometimes"
    examples = ({"a": 0, "q": 0}, {"a": 0, "q": 0.5}, {"a": 0.1, "q": -1}, {"a": 2, "q": 0})
    a: float = param(1.0, low=0, letter="a", telling=0.513, doc="shift of the probability")
    q: float = param(2.0, letter="q", telling=1.713, doc="power; any real number")

    def loss(self, t: Token) -> Scalar:
        certain = t.q_log(t.log(1 + self.a), self.q)
        return certain - t.q_log(t.log_add(t.log_p_label, self.a), self.q)

    def weight(self, t: Token) -> Scalar:
        return t.exp(t.log_p_label + (self.q - 1) * t.log_add(t.log_p_label, self.a))


class AUE(Gate):
    """AUE: asymmetric unhinged loss.

    Loss    ((a − u)^q − (a − 1)^q)/q
    Pulls   u (a − u)^(q−1) → label
    Source  Zhou et al. 2021, arXiv:2106.03110
    Release class defaults here; the experiments use values per data set, such as (5.5, 3)
    """

    name = "aue"
    formula = r"\frac{(a-u)^q-(a-1)^q}{q}"
    simplex = "sometimes"
    examples = ({"a": 1, "q": 2}, {"a": 3, "q": 0.5})
    a: float = param(1.5, low=1, letter="a", telling=2.313, doc="shift")
    q: float = param(0.9, above=0, letter="q", telling=1.713, doc="power")

    def loss(self, t: Token) -> Scalar:
        return t.power(self.a - 1 + t.p_rest, self.q) / self.q - (self.a - 1) ** self.q / self.q

    def weight(self, t: Token) -> Scalar:
        return t.p_label * t.exp((self.q - 1) * t.log_add(t.log_p_rest, self.a - 1))


class AEL(Gate):
    """AEL: asymmetric exponential loss.

    Loss    exp(−u/a)
    Pulls   (u/a) exp(−u/a) → label
    Source  Zhou et al. 2021, arXiv:2106.03110
    Release the class default is a = 3; 2.5 is its CIFAR setting
    """

    name = "ael"
    formula = r"e^{-u/a}"
    simplex = "always"
    a: float = param(2.5, above=0, letter="a", telling=1.337, doc="scale of the exponential")

    def loss(self, t: Token) -> Scalar:
        return t.exp(-t.p_label / self.a)

    def weight(self, t: Token) -> Scalar:
        return t.p_label / self.a * t.exp(-t.p_label / self.a)


class PHuberCE(Gate):
    """PHuber cross-entropy: cross-entropy made linear where its gradient would exceed a bound.

    Loss    −log u if u > 1/τ, else −τu + log τ + 1
    Pulls   min(1, τu) → label
    Source  Menon et al. 2020, ICLR, "Can gradient clipping mitigate label noise?"
    """

    name = "phuber_ce"
    formula = r"\begin{cases}-\log u&u>1/\tau\\-\tau u+\log\tau+1&\text{else}\end{cases}"
    simplex = "always"
    examples = ({"tau": 2},)
    tau: float = param(
        10.0,
        low=1,
        letter="τ",
        telling=3.713,
        elsewhere="the bound of a gradient clip",
        doc="bound on the gradient; 1 is mean absolute error",
    )

    def loss(self, t: Token) -> Scalar:
        return t.where(t.p_label * self.tau > 1, -t.log_p_label, 1 + t.log(self.tau) - self.tau * t.p_label)

    def weight(self, t: Token) -> Scalar:
        return t.minimum(self.tau * t.p_label, 1)


class ForwardCorrection(Gate):
    """Forward correction: cross-entropy of the model seen through a uniform noise channel.

    Loss    −log((1 − ε)u + ε/V)
    Pulls   (1 − ε)u / ((1 − ε)u + ε/V) → label
    Source  Patrini et al. 2017, arXiv:1609.03683
    """

    name = "forward_correction"
    formula = r"-\log\bigl((1-\epsilon)u+\epsilon/V\bigr)"
    simplex = "always"
    noise: float = param(
        0.2,
        low=0,
        high=1,
        letter="ε",
        telling=0.317,
        elsewhere="redrawn from all tokens; the rate of flips to *other* labels is ε(V − 1)/V",
        doc="ε, share of labels redrawn uniformly from all V tokens",
    )

    def loss(self, t: Token) -> Scalar:
        return -t.log_add(t.log_p_label + t.log(1 - self.noise), self.noise / t.vocab)

    def weight(self, t: Token) -> Scalar:
        signal = (1 - self.noise) * t.p_label
        return signal / (signal + self.noise / t.vocab)


class JSNoisy(Gate):
    """JS for noisy labels: the scaled Jensen–Shannon divergence to the label, which is a pure gate.

    Loss    JS_π(δ, p) / (−(1 − π) log(1 − π))
    Pulls   u (1 + log(u / (π + (1 − π)u)) / log(1 − π)) → label
    Source  Englesson & Azizpour 2021, arXiv:2105.04522
    Release logarithms are clamped at 1e-7
    """

    name = "js_noisy"
    formula = (
        r"\frac{\pi\,\mathrm{KL}(\delta\|m)+(1-\pi)\,\mathrm{KL}(p\|m)}{-(1-\pi)\log(1-\pi)},\quad m=\pi\delta+(1-\pi)p"
    )
    simplex = "always"
    examples = ({"prior": 0.1}, {"prior": 0.9})
    prior: float = param(0.5, above=0, below=1, letter="π", telling=0.277, doc="π, weight of the label in the mixture")

    def loss(self, t: Token) -> Scalar:
        m = t.mixture(t.policy, t.label, self.prior)
        divergence = self.prior * t.kl(t.label, m) + (1 - self.prior) * t.kl(t.policy, m)
        return divergence / (-(1 - self.prior) * t.log(1 - self.prior))

    def weight(self, t: Token) -> Scalar:
        log_ratio = t.log_p_label - t.log_add(t.log_p_label + t.log(1 - self.prior), self.prior)
        return t.p_label * (1 + log_ratio / t.log(1 - self.prior))


class DFTUndetached(Gate):
    """DFT without its stop-gradient: a known bug, kept to recognise it; it unlearns tokens below 1/e.

    Loss    −u log u
    Pulls   u (1 + log u) → label
    Source  DFT (Wu et al. 2025, arXiv:2508.05629) with the stop-gradient left out
    Release palingenesis documents this gradient for DFT, while its code detaches
    """

    name = "dft_undetached"
    formula = r"-u\log u"
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -t.p_label * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.p_label + t.p_label * t.log_p_label


class Threshold(Gate):
    """Threshold: a base loss on the tokens whose probability lies in a band, nothing elsewhere.

    Loss    1[low ≤ u ≤ high] · (−log u or 1 − u)
    Pulls   1[low ≤ u ≤ high] · (1 or u) → label
    Source  Li et al. 2025, arXiv:2510.00526 (its OnlyTop and OnlyBottom ablations)
    Release the released ablations include the bound and divide by the kept tokens only
    """

    name = "threshold"
    formula = r"\mathbf{1}[\ell\le u\le h]\cdot\begin{cases}-\log u\\1-u\end{cases}"
    simplex = "always"
    examples = ({"low": 0.1, "high": 0.8}, {"low": 0.2, "base": "p"})
    low: float = param(0.0, low=0, high=1, letter="low", telling=0.2371, doc="smallest probability learned")
    high: float = param(1.0, low=0, high=1, letter="high", telling=0.7137, doc="largest probability learned")
    base: str = param("log", choices=("log", "p"), telling="p", doc="−log u or 1 − u inside the band")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self, "low", "high")

    def loss(self, t: Token) -> Scalar:
        inside = (t.p_label >= self.low) & (t.p_label <= self.high)
        return t.where(inside, -t.log_p_label if self.base == "log" else t.p_rest, 0)

    def weight(self, t: Token) -> Scalar:
        inside = (t.p_label >= self.low) & (t.p_label <= self.high)
        return t.where(inside, 1 if self.base == "log" else t.p_label, 0)


class GOLD(Gate):
    """GOLD: cross-entropy weighted by an old policy's probability, with a floor, times a return.

    Loss    −max(old_y, floor) R log u; token_weight holds the return R
    Pulls   max(old_y, floor) R → label
    Source  Pang & He 2021, arXiv:2009.07839
    Release R is a discounted sum of six clipped rewards from a likelihood model; R = 1 is its GOLD-δ
    """

    name = "gold"
    formula = r"-\max\bigl(\pi_{\mathrm{old}}(y),f\bigr)\,R\,\log u"
    needs = ("old_logits", "token_weight")
    weighed_by = "token_weight"
    simplex = "sometimes"
    floor: float = param(0.2, low=0, high=1, letter="floor", telling=0.377, doc="smallest importance weight")

    def loss(self, t: Token) -> Scalar:
        return -t.maximum(t.prob(t.old), self.floor) * t.weight * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        old = t.exp(t.at_label(t.old.log))
        return t.weight * t.where(old < self.floor, self.floor, old)


class MiLe(Gate):
    """MiLe: more weight on tokens the model is uncertain about; never less than cross-entropy.

    Loss    −sg((1 + H(p))^γ) log u
    Pulls   (1 + H)^γ → label
    Source  Su et al. 2024, arXiv:2310.19531
    Release the weights are divided by their mean over the batch
    """

    name = "mile"
    formula = r"-\mathrm{sg}\bigl((1+H(p))^{\gamma}\bigr)\log u"
    examples = ({"gamma": 0.5},)
    gamma: float = param(1.0, low=0, letter="γ", telling=1.713, doc="0 is cross-entropy")

    @property
    def simplex(self) -> str:
        return "never" if self.gamma else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.stop((1 + t.entropy(t.policy)) ** self.gamma) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.power(1 + t.cross_entropy(t.policy, t.policy), self.gamma)


class InfoSFT(Gate):
    """InfoSFT: most weight on tokens of middling probability, none on those the model already knows.

    Loss    −sg(u relu(1 − logit(u)/logit(P))) log u
    Pulls   u relu(1 − logit(u)/logit(P)) → label
    Source  Sabbaghi et al. 2026, arXiv:2605.14967
    """

    name = "infosft"
    formula = (
        r"-\mathrm{sg}\!\left(u\,\mathrm{relu}\!\left(1-\frac{\mathrm{logit}(u)}{\mathrm{logit}(P)}\right)\right)\log u"
    )
    simplex = "always"
    certain: float = param(
        0.93, above=0.5, below=1, letter="P", telling=0.8137, doc="P, probability from which a token is left alone"
    )

    def loss(self, t: Token) -> Scalar:
        logit = t.log(self.certain) - t.log(1 - self.certain)
        gate = 1 - (t.log_p_label - t.log_p_rest) / logit
        return -t.stop(t.p_label * t.maximum(gate, 0)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        logit = t.log(self.certain / (1 - self.certain))
        return t.where(t.p_label < self.certain, t.p_label * (logit + t.log_p_rest - t.log_p_label) / logit, 0)


class IDFT(Gate):
    """IDFT: a power of the probability, set by how surprising the token is against the model's entropy.

    Loss    −sg(u^G) log u, G = clip(exp(−(log u + H(p))/β), low, high)
    Pulls   u^G → label
    Source  Zhang et al. 2026, arXiv:2602.12222
    Release differentiates u^G through u, which gives u^G (1 + G log u) and unlearns rare tokens; for the first fifth
            of training G is 1
    """

    name = "idft"
    formula = r"-\mathrm{sg}(u^{G})\log u,\quad G=\mathrm{clip}\bigl(e^{-(\log u+H(p))/\beta},g_{\min},g_{\max}\bigr)"
    simplex = "always"
    examples = ({"beta": 0.3},)
    beta: float = param(1.0, above=0, letter="β", telling=0.713, doc="β, how sharply surprise raises the power")
    low: float = param(0.1, low=0, letter="low", telling=0.237, doc="smallest power")
    high: float = param(2.0, low=0, letter="high", telling=1.713, doc="largest power")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self, "low", "high")

    def loss(self, t: Token) -> Scalar:
        power = t.exp(-(t.log_p_label + t.entropy(t.policy)) / self.beta)
        clipped = t.minimum(t.maximum(power, self.low), self.high)
        return -t.stop(t.exp(clipped * t.log_p_label)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        surprise = t.cross_entropy(t.policy, t.policy) + t.log_p_label
        power = t.where(surprise > 0, t.exp(-surprise / self.beta), 1 / t.exp(surprise / self.beta))
        return t.exp(t.log_p_label * t.minimum(t.maximum(power, self.low), self.high))


class MinorSFT(Gate):
    """Minor SFT: a logistic loss on the likelihood ratio to the reference, which lets go once the label has gained.

    Loss    −log σ(β(log u − log ref_y))
    Pulls   β σ(β(log ref_y − log u)) → label
    Source  Xie et al. 2024, arXiv:2408.10642, in the form for one token
    Release the paper weights whole responses, by (2/length) σ(−β log ratio), detached
    """

    name = "minor_sft"
    formula = r"-\log\sigma\bigl(\beta(\log u-\log\pi_{\mathrm{ref}}(y))\bigr)"
    needs = ("reference_logits",)
    simplex = "always"
    examples = ({"beta": 0.1},)
    beta: float = param(
        1.0,
        above=0,
        letter="β",
        telling=0.437,
        elsewhere="`beta` in torchrl's `SFTLoss`, there 0.1 by default",
        doc="β, sharpness; the source leaves it open",
    )

    def loss(self, t: Token) -> Scalar:
        return t.log_add(-self.beta * (t.log_p_label - t.at_label(t.reference.log)), 1)

    def weight(self, t: Token) -> Scalar:
        margin = self.beta * (t.log_p_label - t.at_label(t.reference.log))
        return self.beta * t.exp(-t.log_add(margin, 1))


class AntiFocal(Gate):
    """Anti-focal loss: cross-entropy turned up where the model is already right.

    Loss    −(1 + αu)^γ log u
    Pulls   (1 + αu)^γ + γαu (1 + αu)^(γ−1) log u → label
    Source  Raunak et al. 2020, arXiv:2010.04924
    Release the released code detaches (1 + u)^γ, which makes its weight (1 + u)^γ alone; its α is 1 and its γ whole
    """

    name = "anti_focal"
    formula = r"-(1+\alpha u)^{\gamma}\log u"
    examples = ({"slope": 3, "focusing": 0.5}, {"slope": -0.5, "focusing": 2}, {"slope": -1, "focusing": 2})
    slope: float = param(1.0, low=-1, letter="α", telling=0.613, doc="α, how fast the factor grows; −1 is focal")
    focusing: float = param(1.0, low=0, letter="γ", telling=1.37, doc="γ, power of the factor; 0 is cross-entropy")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.slope and self.focusing else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.power(1 + self.slope - self.slope * t.p_rest, self.focusing) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        factor = 1 + self.slope - self.slope * t.p_rest
        rise = self.focusing * self.slope * t.p_label * t.power(factor, self.focusing - 1)
        return t.power(factor, self.focusing) + rise * t.log_p_label


class PowerLawDecay(Gate):
    """Power-law decay: cross-entropy weighted by how rare the label is in a corpus.

    Loss    −(prior_y + ε)^(−α) log u; the prior is the tokens' frequency
    Pulls   (prior_y + ε)^(−α) → label
    Source  Shao et al. 2025, arXiv:2505.16900; the frequency is a share here, where the paper allows counts
    Release the released code counts, has α = 1 and ε = 10⁻⁷, and divides by the sum of the weights
    """

    name = "power_law_decay"
    formula = r"-\bigl(\pi_{\mathrm{prior}}(y)+\epsilon\bigr)^{-\alpha}\log u"
    needs = ("prior_logits",)
    power: float = param(1.0, low=0, letter="α", telling=0.613, doc="α, how much rare labels gain; 0 is sft")
    floor: float = param(1e-7, low=0, letter="ε", telling=0.0137, doc="ε, added to every frequency")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.power else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.power(t.prob(t.prior) + self.floor, -self.power) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.exp(-self.power * t.log_add(t.at_label(t.prior.log), self.floor))


class Dice(Gate):
    """Dice: the self-adjusting Dice coefficient of label and prediction, which pushes the label down beyond one half.

    Loss    1 − (2(1 − u)u + γ)/((1 − u)u + 1 + γ)
    Pulls   (2 + γ) u(1 − 2u)/((1 − u)u + 1 + γ)² → label
    Source  Li et al. 2019, arXiv:1911.02855, the label's term
    Release the released code adds the terms of the other tokens, sums the denominator over the batch, and by default
            leaves (1 − u) out
    """

    name = "dice"
    formula = r"1-\frac{2(1-u)u+\gamma}{(1-u)u+1+\gamma}"
    simplex = "always"
    smoothing: float = param(1.0, low=0, letter="γ", telling=0.613, doc="γ, added above and below")

    def loss(self, t: Token) -> Scalar:
        overlap = t.p_rest * t.p_label
        return 1 - (2 * overlap + self.smoothing) / (overlap + 1 + self.smoothing)

    def weight(self, t: Token) -> Scalar:
        whole = 1 + self.smoothing + t.p_label - t.p_label**2
        return (2 + self.smoothing) * t.p_label * (t.p_rest - t.p_label) / whole**2


class LikelihoodGap(Gate):
    """Likelihood gap: more weight on labels that the reference finds likelier than the policy does.

    Loss    −sg(max(floor, 1 + α(ref_y − u))) log u
    Pulls   max(floor, 1 + α(ref_y − u)) → label
    Source  github.com/doub7e/token-SFT 2026, unpublished; `sft-lr` there
    """

    name = "likelihood_gap"
    formula = r"-\mathrm{sg}\Bigl(\max\bigl(f,1+\alpha(\pi_{\mathrm{ref}}(y)-u)\bigr)\Bigr)\log u"
    needs = ("reference_logits",)
    strength: float = param(1.0, low=0, letter="α", telling=1.713, doc="α, how much the gap counts")
    floor: float = param(0.1, low=0, letter="floor", telling=0.237, doc="smallest weight")

    @property
    def simplex(self) -> str:
        if self.floor > 1:
            return "never"
        return "sometimes" if self.strength else "always"

    def loss(self, t: Token) -> Scalar:
        gap = t.prob(t.reference) - t.p_label
        return -t.stop(t.maximum(1 + self.strength * gap, self.floor)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        wanted = 1 + self.strength * (t.exp(t.at_label(t.reference.log)) - t.p_label)
        return t.where(wanted < self.floor, self.floor, wanted)


class RankTuner(Gate):
    """RankTuner: more weight on labels that rank lower than the model's own uncertainty lets expect.

    Loss    −sg(b 2^(f(E) − f(R))) log u, f(x) = 1/log₂(x + 1); R the label's rank, E = Σ p_k rank_k, b = u or 1
    Pulls   b 2^(f(E) − f(R)) → label
    Source  Yu et al. 2026, arXiv:2602.01745, its formula as two summaries have it; b = u for mathematics, else 1
    Release in practice (u s)^(−K) in place of the power of two, with K = log₂(ξ + 1)^(−2), ξ the larger of R and s, and
            s a bound of E by the entropy
    """

    name = "ranktuner"
    formula = (
        r"-\mathrm{sg}\bigl(b\,2^{f(E)-f(R)}\bigr)\log u,\quad f(x)=\frac{1}{\log_2(x+1)},"
        r"\quad E=\sum_k p_k\,\mathrm{rank}_k"
    )
    base: str = param("p", choices=("p", "1"), letter="b", telling="1", doc="what is scaled: u or 1")

    @property
    def simplex(self) -> str:
        return "always" if self.base == "p" else "sometimes"

    def loss(self, t: Token) -> Scalar:
        rank = t.ranks(t.policy)
        expected, own = (t.log(2) / t.log(x + 1) for x in (t.expect(t.policy, rank), t.at_label(rank)))
        scale = t.exp(t.log(2) * (expected - own))
        return -t.stop(t.p_label * scale if self.base == "p" else scale) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        expected, own = t.mean_rank(t.policy), t.label_rank(t.policy)
        log_scale = t.log(2) ** 2 * (1 / t.log(1 + expected) - 1 / t.log(1 + own))
        return t.exp(log_scale + t.log_p_label) if self.base == "p" else t.exp(log_scale)
