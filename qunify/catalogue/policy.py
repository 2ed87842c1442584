"""Policy optimisation: losses of reinforcement learning, used on demonstrations as if the policy had written them."""

from __future__ import annotations

from qunify.maps import Gate, param
from qunify.token import Scalar, Token


class CISPO(Gate):
    """CISPO: cross-entropy weighted by the detached likelihood ratio to an old policy, capped from above.

    Loss    −sg(min(r, c)) log u, r = u/old_y
    Pulls   min(r, c) → label
    Source  MiniMax 2025, arXiv:2506.13585, with advantage 1
    Release c is three things: TRL's `epsilon_high` itself; 1 plus `clip_ratio_high` in verl, which also floors the
            ratio; 4 by default in tinker-cookbook
    """

    name = "cispo"
    formula = r"-\mathrm{sg}\bigl(\min(r,c)\bigr)\log u,\quad r=u/\pi_{\mathrm{old}}(y)"
    needs = ("old_logits",)
    examples = ({"cap": 0.5},)
    cap: float = param(4.0, above=0, letter="c", telling=1.317, elsewhere="`epsilon_high` in TRL", doc="largest weight")

    @property
    def simplex(self) -> str:
        return "always" if self.cap <= 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        return -t.stop(t.minimum(ratio, self.cap)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        return t.where(ratio > self.cap, self.cap, ratio)


class DRO(Gate):
    """DRO: cross-entropy with a squared penalty on the log-ratio to an old policy, which stops a label that has gained.

    Loss    −log u + (β/2) log² r, r = u/old_y
    Pulls   1 − β log r → label
    Source  Richemond et al. 2024, arXiv:2405.19107, as a loss of tokens with advantage 1, the form that verl has
    Release verl has no default for β
    """

    name = "dro"
    formula = r"-\log u+\frac{\beta}{2}\log^2\frac{u}{\pi_{\mathrm{old}}(y)}"
    needs = ("old_logits",)
    strength: float = param(
        1.0,
        low=0,
        letter="β",
        telling=0.437,
        doc="β, how hard the log-ratio is held at 0; 0 is sft, the default is ours",
    )

    @property
    def simplex(self) -> str:
        return "sometimes" if self.strength else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label + self.strength / 2 * (t.log_p_label - t.at_label(t.old.log)) ** 2

    def weight(self, t: Token) -> Scalar:
        return 1 + self.strength * (t.at_label(t.old.log) - t.log_p_label)


class SDAR(Gate):
    """SDAR: cross-entropy on the tokens that the teacher finds likelier than the policy does, by a soft gate.

    Loss    −sg(σ(β log(teacher_y/u))) log u
    Pulls   teacher_y^β / (teacher_y^β + u^β) → label
    Source  arXiv:2605.15155, 2026, in the form that ms-swift has
    """

    name = "sdar"
    formula = r"-\mathrm{sg}\!\left(\sigma\!\left(\beta\log\frac{\pi_{\mathrm{tea}}(y)}{u}\right)\right)\log u"
    needs = ("teacher_logits",)
    simplex = "always"
    examples = ({"sharpness": 1},)
    sharpness: float = param(5.0, low=0, letter="β", telling=1.713, doc="β, how sharp the gate is; 0 is half of sft")

    def loss(self, t: Token) -> Scalar:
        gap = self.sharpness * (t.at_label(t.teacher.log) - t.log_p_label)
        return -t.stop(t.exp(-t.log_add(-gap, 1))) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return 1 / (1 + t.exp(self.sharpness * (t.log_p_label - t.at_label(t.teacher.log))))


class GFT(Gate):
    """GFT: cross-entropy weighted by a group's advantage, with a probability's factor on tokens that are unlikely.

    Loss    −sg(1 if u > τ, else u) A log u; token_weight holds the advantage A
    Pulls   A·(1 if u > τ, else u) → label
    Source  Gan et al. 2026, arXiv:2604.14258
    Release the function's own default is τ = 0.5, that of its training script 0.1
    """

    name = "gft"
    formula = r"-\mathrm{sg}\bigl(u\,\mathbf{1}[u\le\tau]+\mathbf{1}[u>\tau]\bigr)\,A\,\log u"
    needs = ("token_weight",)
    weighed_by = "token_weight"
    simplex = "sometimes"
    threshold: float = param(
        0.1,
        low=0,
        high=1,
        letter="τ",
        telling=0.2371,
        elsewhere="`tao` in the release",
        doc="τ, probability up to which a token counts by its probability",
    )

    def loss(self, t: Token) -> Scalar:
        trusted = t.stop(t.p_label) > self.threshold
        return -t.where(trusted, 1, t.stop(t.p_label)) * t.weight * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.weight * t.where(t.p_label > self.threshold, 1, t.p_label)


class SAPO(Gate):
    """SAPO: the likelihood ratio to an old policy through a sigmoid, so that it weighs most where it is near 1.

    Loss    −(4/τ) σ(τ(r − 1)), r = u/old_y
    Pulls   4r σ(τ(r − 1)) σ(−τ(r − 1)) → label
    Source  Gao et al. 2025, arXiv:2511.20347, with advantage 1
    Release TRL and verl take τ = 1.05 where the advantage is negative
    """

    name = "sapo"
    formula = r"-\frac{4}{\tau}\,\sigma\bigl(\tau(r-1)\bigr),\quad r=u/\pi_{\mathrm{old}}(y)"
    needs = ("old_logits",)
    simplex = "sometimes"
    temperature: float = param(
        1.0,
        above=0,
        letter="τ",
        telling=2.713,
        elsewhere="`sapo_temperature_pos` in TRL; an inverse temperature",
        doc="τ, how fast the weight falls off on both sides of r = 1",
    )

    def loss(self, t: Token) -> Scalar:
        excess = self.temperature * (t.exp(t.log_p_label - t.at_label(t.old.log)) - 1)
        return -4 / self.temperature * t.exp(-t.log_add(-excess, 1))

    def weight(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        excess = self.temperature * (ratio - 1)
        return 4 * ratio * t.exp(-t.log_add(excess, 1) - t.log_add(-excess, 1))


class DPPOTV(Gate):
    """DPPO, total variation: the capped ratio to an old policy, on labels that have not gained more than a radius.

    Loss    −sg(min(r, c) 1[u − old_y ≤ ε]) log u, r = u/old_y
    Pulls   min(r, c) 1[u − old_y ≤ ε] → label
    Source  arXiv:2602.04879, 2026, with advantage 1
    Release c is 20 in verl's code and 3 in its configuration; prime-rl leaves r undetached and adds 10⁻³ log² r
    """

    name = "dppo_tv"
    formula = (
        r"-\mathrm{sg}\bigl(\min(r,c)\,\mathbf{1}[u-\pi_{\mathrm{old}}(y)\le\epsilon]\bigr)\log u,"
        r"\quad r=u/\pi_{\mathrm{old}}(y)"
    )
    needs = ("old_logits",)
    radius: float = param(
        0.2, low=0, letter="ε", telling=0.0737, doc="ε, gain in probability from which a token is left alone"
    )
    cap: float = param(20.0, above=0, letter="c", telling=1.317, doc="largest weight")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.radius and self.cap > 1 else "always"

    def loss(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        near = t.p_label - t.prob(t.old) <= self.radius
        return -t.stop(t.where(near, t.minimum(ratio, self.cap), 0)) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        capped = t.where(ratio < self.cap, ratio, self.cap)
        return t.where(t.p_label - t.prob(t.old) <= self.radius, capped, 0)


class DPPOKL(Gate):
    """DPPO, KL: the capped ratio to an old policy, on labels that have not gained beyond a divergence.

    Loss    −sg(min(r, c) m) log u, m = 1 where u ≤ old_y or KL₂(old_y‖u) ≤ ε, else 0; r = u/old_y
    Pulls   min(r, c) m → label
    Source  arXiv:2602.04879, 2026, with advantage 1; KL₂ is between label and rest
    Release c is 20 in verl's code and 3 in its configuration
    """

    name = "dppo_kl"
    formula = (
        r"-\mathrm{sg}\bigl(\min(r,c)\,\mathbf{1}[u\le\pi_{\mathrm{old}}(y)\text{ or }"
        r"\mathrm{KL}_2(\pi_{\mathrm{old}}(y)\|u)\le\epsilon]\bigr)\log u,\quad r=u/\pi_{\mathrm{old}}(y)"
    )
    needs = ("old_logits",)
    radius: float = param(
        0.2, above=0, letter="ε", telling=0.0737, doc="ε, divergence from which a token that has gained is left alone"
    )
    cap: float = param(20.0, above=0, letter="c", telling=1.317, doc="largest weight")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.cap > 1 else "always"

    def loss(self, t: Token) -> Scalar:
        old, ratio = t.prob(t.old), t.exp(t.log_p_label - t.at_label(t.old.log))
        rest = 1 - old
        divergence = old * (t.log(old) - t.log_p_label) + rest * (t.log(rest) - t.log_p_rest)
        far = (ratio > 1) & (divergence > self.radius)
        return -t.stop(t.where(far, 0, t.minimum(ratio, self.cap))) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        log_old = t.at_label(t.old.log)
        ratio, old = t.exp(t.log_p_label - log_old), t.exp(log_old)
        divergence = old * (log_old - t.log_p_label) + (1 - old) * (t.log(1 - old) - t.log_p_rest)
        return t.where((ratio > 1) & (divergence > self.radius), 0, t.where(ratio < self.cap, ratio, self.cap))


class SPPO(Gate):
    """SPPO: cross-entropy on the tokens whose likelihood ratio to an old policy is within a band around 1.

    Loss    −1[1/(1+ε) ≤ r ≤ 1+ε] log r, r = u/old_y
    Pulls   1[1/(1+ε) ≤ r ≤ 1+ε] → label
    Source  Trinity-RFT's `sppo`, after Zhu et al. 2021, arXiv:2108.05828, with advantage 1
    """

    name = "sppo"
    formula = r"-\mathbf{1}\Bigl[\tfrac{1}{1+\epsilon}\le r\le 1+\epsilon\Bigr]\log r,\quad r=u/\pi_{\mathrm{old}}(y)"
    needs = ("old_logits",)
    simplex = "always"
    band: float = param(0.3, low=0, letter="ε", telling=0.1713, doc="ε, how far r may be from 1, up or down")

    def loss(self, t: Token) -> Scalar:
        log_ratio = t.log_p_label - t.at_label(t.old.log)
        ratio = t.exp(log_ratio)
        return -t.where(ratio > 1 + self.band, 0, t.where(ratio * (1 + self.band) < 1, 0, log_ratio))

    def weight(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        return t.where((ratio <= 1 + self.band) & (ratio * (1 + self.band) >= 1), 1, 0)


class VESPO(Gate):
    """VESPO: cross-entropy weighted by a gamma density of the likelihood ratio to an old policy, 1 at ratio 1.

    Loss    −sg(r^k e^(λ(1 − r))) log u, r = u/old_y
    Pulls   r^k e^(λ(1 − r)) → label
    Source  arXiv:2602.10693, 2026, for one token; published for the ratio of a whole sequence
    Release where the advantage is negative k = 3 and λ = 2
    """

    name = "vespo"
    formula = r"-\mathrm{sg}\bigl(r^{k}e^{\lambda(1-r)}\bigr)\log u,\quad r=u/\pi_{\mathrm{old}}(y)"
    needs = ("old_logits",)
    power: float = param(
        2.0, low=0, letter="k", telling=1.317, elsewhere="`vespo_k_pos` in TRL", doc="power of the ratio"
    )
    decay: float = param(
        3.0, low=0, letter="λ", telling=0.713, elsewhere="`vespo_lambda_pos` in TRL", doc="how fast large ratios fade"
    )

    @property
    def simplex(self) -> str:
        return "always" if self.power == self.decay else "sometimes"  # the peak, at r = k/λ, is 1 only there

    def loss(self, t: Token) -> Scalar:
        ratio = t.exp(t.log_p_label - t.at_label(t.old.log))
        return -t.stop(t.power(ratio, self.power) * t.exp(self.decay * (1 - ratio))) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        log_ratio = t.log_p_label - t.at_label(t.old.log)
        return t.exp(self.power * log_ratio + self.decay * (1 - t.exp(log_ratio)))


class OPD(Gate):
    """On-policy distillation: an estimate of the reverse KL to the teacher from the label alone.

    Loss    k1: −sg(log(teacher_y/u)) log u; k2: ½ log²(teacher_y/u); k3: teacher_y/u − 1 − log(teacher_y/u);
            abs: |log(teacher_y/u)|
    Pulls   k1, k2: log(teacher_y/u) → label; k3: teacher_y/u − 1 → label; abs: sign(teacher_y − u) → label
    Source  Thinking Machines Lab 2025, "On-Policy Distillation"; the estimators as in verl
    Release meant for tokens that the policy draws, where its mean is the reverse KL's (k1, k2), the forward KL's (k3)
            or twice the total variation's (abs); on demonstrations none holds. verl's default is k3, clamped to ±10
            and used as a reward
    """

    name = "opd"
    formula = (
        r"-\mathrm{sg}(d)\log u,\quad\tfrac12 d^2,\quad e^{d}-1-d\quad\text{or}\quad|d|,"
        r"\qquad d=\log\frac{\pi_{\mathrm{tea}}(y)}{u}"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"
    estimator: str = param(
        "k1",
        choices=("k1", "k2", "k3", "abs"),
        telling="k3",
        elsewhere="`distillation_loss.loss_mode` in verl",
        doc="which estimate of the divergence",
    )

    def loss(self, t: Token) -> Scalar:
        gap = t.at_label(t.teacher.log) - t.log_p_label
        if self.estimator == "k1":
            return -t.stop(gap) * t.log_p_label
        if self.estimator == "k2":
            return gap**2 / 2
        if self.estimator == "k3":
            return t.exp(gap) - 1 - gap
        return t.stop(t.sign(t.prob(t.teacher) - t.prob(t.policy))) * gap

    def weight(self, t: Token) -> Scalar:
        gap = t.at_label(t.teacher.log) - t.log_p_label
        if self.estimator in ("k1", "k2"):
            return gap
        return t.exp(gap) - 1 if self.estimator == "k3" else t.sign(t.prob(t.teacher) - t.prob(t.policy))


class IWOPD(Gate):
    """IW-OPD: on-policy distillation in which early tokens of an answer count more, by a weight that is given.

    Loss    −w sg(log(teacher_y/u)) log u; token_weight holds w = 1 + γ(1 − share of the answer before the token)
    Pulls   w log(teacher_y/u) → label
    Source  arXiv:2606.22600, 2026; γ = 0.5 in TRL
    """

    name = "iw_opd"
    formula = r"-w\,\mathrm{sg}\!\left(\log\frac{\pi_{\mathrm{tea}}(y)}{u}\right)\log u"
    needs = ("teacher_logits", "token_weight")
    weighed_by = "token_weight"
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return -t.weight * t.stop(t.at_label(t.teacher.log) - t.log_p_label) * t.log_p_label

    def weight(self, t: Token) -> Scalar:
        return t.weight * (t.at_label(t.teacher.log) - t.log_p_label)


class CurioRelease(Gate):
    """CurioSFT as released: cross-entropy, and a squared penalty on the label's log-ratio to the teacher.

    Loss    −log u + (α/2) log²(u/teacher_y); the teacher is the model itself, averaged over steps
    Pulls   1 + α log(teacher_y/u) → label
    Source  arXiv:2602.02244, 2026, as its code has it
    Release the paper distils the whole vocabulary, from the model's own tempered prediction
    """

    name = "curio_release"
    formula = r"-\log u+\frac{\alpha}{2}\log^2\frac{u}{\pi_{\mathrm{tea}}(y)}"
    needs = ("teacher_logits",)
    strength: float = param(1.0, low=0, letter="α", telling=0.437, doc="α, weight of the penalty; 0 is sft")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.strength else "always"

    def loss(self, t: Token) -> Scalar:
        return -t.log_p_label + self.strength / 2 * (t.log_p_label - t.at_label(t.teacher.log)) ** 2

    def weight(self, t: Token) -> Scalar:
        return 1 + self.strength * (t.at_label(t.teacher.log) - t.log_p_label)


class ASFTK3(Gate):
    """ASFT by an estimate: DFT with the k3 estimate of the KL to the reference, from the label alone.

    Loss    −sg(u) log u + λ(ref_y/u − 1 − log(ref_y/u))
    Pulls   u + λ(ref_y/u − 1) → label
    Source  pull request 3302 of NeMo-RL, 2026, open; after ASFT, arXiv:2509.23753
    Release it is called ASFT there and is not: on rare labels its weight grows like 1/u, where that of ASFT vanishes.
            The pull request says that λ does not carry over
    """

    name = "asft_k3"
    formula = r"-\mathrm{sg}(u)\log u+\lambda\bigl(e^{d}-1-d\bigr),\quad d=\log\frac{\pi_{\mathrm{ref}}(y)}{u}"
    needs = ("reference_logits",)
    kl_weight: float = param(0.1, low=0, letter="λ", telling=0.377, doc="λ, weight of the estimate; 0 is dft")

    @property
    def simplex(self) -> str:
        return "sometimes" if self.kl_weight else "always"

    def loss(self, t: Token) -> Scalar:
        gap = t.at_label(t.reference.log) - t.log_p_label
        return -t.stop(t.p_label) * t.log_p_label + self.kl_weight * (t.exp(gap) - 1 - gap)

    def weight(self, t: Token) -> Scalar:
        return t.p_label + self.kl_weight * (t.exp(t.at_label(t.reference.log) - t.log_p_label) - 1)
