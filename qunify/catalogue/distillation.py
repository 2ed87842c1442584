"""Distillation: the target comes from a teacher; most ignore the label."""

from __future__ import annotations

from qunify.maps import Pulls, QMap, param
from qunify.token import Distribution, Scalar, Token, Vector


def _toward_teacher_reverse(t: Token) -> Vector:
    """Gradient of KL(p‖teacher)."""
    return t.softmax_vjp(t.policy.log - t.teacher.log)


class KD(QMap):
    """KD: match the teacher's softened distribution.

    Loss    T² KL(softmax(teacher_z/T)‖softmax(z/T))
    Pulls   1 → teacher at T = 1; else T → softened teacher, −T → softened policy
    Source  Hinton et al. 2015, arXiv:1503.02531
    Release often printed as a cross-entropy, which differs by the teacher's entropy and not in gradient
    """

    name = "kd"
    formula = r"T^2\,\mathrm{KL}\bigl(\mathrm{softmax}(z^{\mathrm{tea}}/T)\,\|\,\mathrm{softmax}(z/T)\bigr)"
    needs = ("teacher_logits",)
    examples = ({"temperature": 2}, {"temperature": 0.5})
    temperature: float = param(1.0, above=0, letter="T", telling=2.37, doc="T, softening of both distributions")

    @property
    def simplex(self) -> str:
        return "always" if self.temperature == 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        T = self.temperature
        return T**2 * t.kl(t.tempered(t.teacher, T), t.tempered(t.policy, T))

    def pulls(self, t: Token) -> Pulls:
        T = self.temperature
        if T == 1:  # the two softened policies cancel, and the weights mean what they say
            return ((1, t.teacher),)
        return (T, t.tempered(t.teacher, T)), (-T, t.tempered(t.policy, T))


class TTM(QMap):
    """TTM: match the teacher's softened distribution without softening the policy.

    Loss    KL(q‖p), q = softmax(teacher_z/T)
    Pulls   1 → q
    Source  Zheng & Yang 2024, arXiv:2402.11148 (transformed teacher matching)
    """

    name = "ttm"
    formula = r"\mathrm{KL}\bigl(\mathrm{softmax}(z^{\mathrm{tea}}/T)\,\|\,p\bigr)"
    needs = ("teacher_logits",)
    simplex = "always"
    examples = ({"temperature": 1}, {"temperature": 0.5})
    temperature: float = param(
        2.0,
        above=0,
        letter="T",
        telling=1.37,
        elsewhere="`teacher_temperature` in ROLL",
        doc="T, softening of the teacher alone; 1 is kd",
    )

    def loss(self, t: Token) -> Scalar:
        return t.kl(t.tempered(t.teacher, self.temperature), t.policy)

    def pulls(self, t: Token) -> Pulls:
        return ((1, t.tempered(t.teacher, self.temperature)),)


class KDHybrid(QMap):
    """Hybrid KD: the label and the teacher share the target.

    Loss    −(1 − λ) log u + λ KL(teacher‖p)
    Pulls   1 − λ → label, λ → teacher
    Source  Hinton et al. 2015, arXiv:1503.02531
    """

    name = "kd_hybrid"
    formula = r"-(1-\lambda)\log u+\lambda\,\mathrm{KL}(\pi_{\mathrm{tea}}\|p)"
    needs = ("teacher_logits",)
    simplex = "always"
    mix: float = param(0.5, low=0, high=1, letter="λ", telling=0.373, doc="λ, the teacher's share; 0 is sft, 1 is kd")

    def loss(self, t: Token) -> Scalar:
        return -(1 - self.mix) * t.log_p_label + self.mix * t.kl(t.teacher, t.policy)

    def pulls(self, t: Token) -> Pulls:
        return (1 - self.mix, t.label), (self.mix, t.teacher)


class ReverseKL(QMap):
    """Reverse KL: concentrate on what the teacher finds likely (mode seeking).

    Loss    KL(p‖teacher)
    Pulls   the vector p ∘ (log(p/teacher) − KL)
    Source  Gu et al. 2024, arXiv:2306.08543 (MiniLLM), at the level of one token
    """

    name = "reverse_kl"
    formula = r"\mathrm{KL}(p\|\pi_{\mathrm{tea}})"
    needs = ("teacher_logits",)
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return t.kl(t.policy, t.teacher)

    def pulls(self, t: Token) -> Pulls:
        return (_toward_teacher_reverse(t),)


class MixedKL(QMap):
    """Mixed KL: forward and reverse KL to the teacher, in fixed shares.

    Loss    λ KL(teacher‖p) + (1 − λ) KL(p‖teacher)
    Pulls   λ → teacher, and (1 − λ) times the vector of the reverse KL
    Source  NVIDIA NeMo-RL 2025, DistillationLossFn
    """

    name = "mixed_kl"
    formula = r"\lambda\,\mathrm{KL}(\pi_{\mathrm{tea}}\|p)+(1-\lambda)\,\mathrm{KL}(p\|\pi_{\mathrm{tea}})"
    needs = ("teacher_logits",)
    mix: float = param(
        0.5,
        low=0,
        high=1,
        letter="λ",
        telling=0.373,
        elsewhere="`mixed_kl_weight` in NeMo-RL",
        doc="λ, share of the forward KL; 1 is kd, 0 is reverse_kl",
    )

    @property
    def simplex(self) -> str:
        return "always" if self.mix == 1 else "sometimes"

    def loss(self, t: Token) -> Scalar:
        return self.mix * t.kl(t.teacher, t.policy) + (1 - self.mix) * t.kl(t.policy, t.teacher)

    def pulls(self, t: Token) -> Pulls:
        return (self.mix, t.teacher), (1 - self.mix) * _toward_teacher_reverse(t)


class JSD(QMap):
    """Generalised JSD: both KLs to a mixture of teacher and policy.

    Loss    β KL(teacher‖m) + (1 − β) KL(p‖m), m = β teacher + (1 − β)p; forward KL at β = 0, reverse at β = 1
    Pulls   the vector (1 − β) p ∘ (log(p/m) − KL(p‖m)); at β = 0, 1 → teacher; at β = 1, that of the reverse KL
    Source  Agarwal et al. 2024, arXiv:2306.13649 (GKD)
    Release the two ends are defined apart and do not continue the interior, which tends to 0 at both
    """

    name = "jsd"
    formula = (
        r"\beta\,\mathrm{KL}(\pi_{\mathrm{tea}}\|m)+(1-\beta)\,\mathrm{KL}(p\|m),"
        r"\quad m=\beta\pi_{\mathrm{tea}}+(1-\beta)p"
    )
    needs = ("teacher_logits",)
    examples = ({"beta": 0.1}, {"beta": 0.9})
    beta: float = param(
        0.5,
        low=0,
        high=1,
        letter="β",
        telling=0.273,
        elsewhere="`beta` in TRL. Its `lmbda` is something else: the share of sequences that the student writes",
        doc="weight of the teacher in the mixture",
    )

    @property
    def simplex(self) -> str:
        return "sometimes" if self.beta == 1 else "always"

    def loss(self, t: Token) -> Scalar:
        if self.beta in (0, 1):
            return t.kl(t.policy, t.teacher) if self.beta else t.kl(t.teacher, t.policy)
        m = t.mixture(t.policy, t.teacher, self.beta)
        return self.beta * t.kl(t.teacher, m) + (1 - self.beta) * t.kl(t.policy, m)

    def pulls(self, t: Token) -> Pulls:
        if self.beta in (0, 1):
            return (_toward_teacher_reverse(t),) if self.beta else ((1, t.teacher),)
        m = t.mixture(t.policy, t.teacher, self.beta)
        return ((1 - self.beta) * t.softmax_vjp(t.policy.log - m.log),)


class SkewKL(QMap):
    """Skew KL: forward KL from the teacher to a mixture of teacher and policy.

    Loss    KL(teacher‖α teacher + (1 − α)p)
    Pulls   Σ r → r/Σ r, where r_k = (1 − α) p_k teacher_k / m_k
    Source  Ko et al. 2024, arXiv:2402.03898 (DistiLLM)
    Release the teacher's entropy is left out, which changes the value and not the gradient
    """

    name = "skew_kl"
    formula = r"\mathrm{KL}\bigl(\pi_{\mathrm{tea}}\|\alpha\pi_{\mathrm{tea}}+(1-\alpha)p\bigr)"
    needs = ("teacher_logits",)
    simplex = "always"
    skew: float = param(
        0.1,
        low=0,
        below=1,
        letter="α",
        telling=0.273,
        elsewhere="`lam` in the release",
        doc="α, the teacher's share of the mixture; 0 is kd",
    )

    def loss(self, t: Token) -> Scalar:
        return t.kl(t.teacher, t.mixture(t.policy, t.teacher, self.skew))

    def pulls(self, t: Token) -> Pulls:
        m = t.mixture(t.policy, t.teacher, self.skew)
        log_share = t.log(1 - self.skew) + t.policy.log + t.teacher.log - m.log
        return ((t.sum(t.exp(log_share)), t.softmax(log_share)),)


class SkewReverseKL(QMap):
    """Skew reverse KL: reverse KL from the policy to a mixture of policy and teacher.

    Loss    KL(p‖(1 − α) teacher + α p)
    Pulls   the vector p ∘ (c − ⟨p, c⟩), c = log(p/m) − α p/m
    Source  Ko et al. 2024, arXiv:2402.03898 (DistiLLM)
    """

    name = "skew_reverse_kl"
    formula = r"\mathrm{KL}\bigl(p\|(1-\alpha)\pi_{\mathrm{tea}}+\alpha p\bigr)"
    needs = ("teacher_logits",)
    simplex = "sometimes"
    skew: float = param(
        0.1,
        low=0,
        below=1,
        letter="α",
        telling=0.273,
        elsewhere="`lam` in the release",
        doc="α, the policy's share of the mixture; 0 is reverse_kl",
    )

    def loss(self, t: Token) -> Scalar:
        return t.kl(t.policy, t.mixture(t.teacher, t.policy, self.skew))

    def pulls(self, t: Token) -> Pulls:
        m = t.mixture(t.teacher, t.policy, self.skew)
        log_ratio = t.policy.log - m.log
        return (t.softmax_vjp(log_ratio - self.skew * t.exp(log_ratio)),)


class TVD(QMap):
    """Total variation: every token's gap to the teacher counts the same.

    Loss    ½ Σ |p_k − teacher_k|
    Pulls   the vector ½ p ∘ (s − ⟨p, s⟩), s = sign(p − teacher)
    Source  Wen et al. 2023, arXiv:2307.15190
    """

    name = "tvd"
    formula = r"\tfrac12\sum_k|p_k-\pi_{\mathrm{tea},k}|"
    needs = ("teacher_logits",)
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        return t.sum(abs(t.policy.probs - t.teacher.probs)) / 2

    def pulls(self, t: Token) -> Pulls:
        gap = t.policy.probs - t.teacher.probs
        return (t.softmax_vjp(t.sign(gap)) / 2,)


class TAID(QMap):
    """TAID: distil from a moving blend of the student's and the teacher's logits.

    Loss    KL(sg(m)‖p), m = softmax((1 − a)z + a teacher_z)
    Pulls   1 → m
    Source  Shing et al. 2025, arXiv:2501.16937
    """

    name = "taid"
    formula = r"\mathrm{KL}\bigl(\mathrm{sg}(m)\|p\bigr),\quad m=\mathrm{softmax}\bigl((1-a)z+a z^{\mathrm{tea}}\bigr)"
    needs = ("teacher_logits",)
    simplex = "always"
    mix: float = param(
        0.4,
        low=0,
        high=1,
        letter="a",
        telling=0.637,
        elsewhere="$t$ in the paper, where it grows during training",
        doc="a, the teacher's share; grows to 1 during training",
    )

    def loss(self, t: Token) -> Scalar:
        return t.kl(t.stop(t.geometric(t.policy, t.teacher, self.mix)), t.policy)

    def pulls(self, t: Token) -> Pulls:
        return ((1, t.geometric(t.policy, t.teacher, self.mix)),)


class AKL(QMap):
    """AKL: forward and reverse KL mixed by where the gap to the teacher lies, in its head or its tail.

    Loss    sg(r) KL(teacher‖p) + (1 − sg(r)) KL(p‖teacher), r = the head's share of the gap |teacher − p|
    Pulls   r → teacher, and (1 − r) times the vector of the reverse KL
    Source  Wu et al. 2024, arXiv:2404.02657
    Release the token that crosses μ counts as tail there, unless it is the first one
    """

    name = "akl"
    formula = (
        r"\mathrm{sg}(r)\,\mathrm{KL}(\pi_{\mathrm{tea}}\|p)+(1-\mathrm{sg}(r))\,\mathrm{KL}(p\|\pi_{\mathrm{tea}})"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"
    examples = ({"threshold": 0.9},)
    threshold: float = param(
        0.5,
        low=0,
        high=1,
        letter="μ",
        telling=0.737,
        doc="μ, mass of the head, crossing token included; ties belong to it too",
    )

    def loss(self, t: Token) -> Scalar:
        gap = abs(t.teacher.probs - t.policy.probs)
        total = t.sum(gap)
        in_head = t.sum(gap * t.top_p(t.teacher, self.threshold))
        r = t.stop(t.where(total > 0, in_head / t.where(total > 0, total, 1), 0.5))
        return r * t.kl(t.teacher, t.policy) + (1 - r) * t.kl(t.policy, t.teacher)

    def pulls(self, t: Token) -> Pulls:
        head = t.top_p(t.teacher, self.threshold)
        gap = abs(t.teacher.probs - t.policy.probs)
        total, tail = t.sum(gap), t.sum((1 - head) * gap)
        r = t.where(total > 0, 1 - tail / t.maximum(total, 1e-300), 0.5)
        return (r, t.teacher), (1 - r) * _toward_teacher_reverse(t)


class ABKD(QMap):
    """ABKD: the α–β divergence to the teacher, which moves between mass covering and mode seeking.

    Loss    −Σ (tea^α p^β − α/(α+β) tea^(α+β) − β/(α+β) p^(α+β)) / (αβ)
    Pulls   S/α → ∝ tea^α p^β, −R/α → ∝ p^(α+β); S, R their sums
    Source  Wang et al. 2025, arXiv:2505.04560
    Release the limits at α = 0 and β = 0 are scaled by 1/β and 1/α in place of 1/β² and 1/α²
    """

    name = "abkd"
    formula = (
        r"-\frac{1}{\alpha\beta}\sum_k\Bigl(\pi_{\mathrm{tea}}^{\alpha}p^{\beta}"
        r"-\tfrac{\alpha}{\alpha+\beta}\pi_{\mathrm{tea}}^{\alpha+\beta}-\tfrac{\beta}{\alpha+\beta}p^{\alpha+\beta}\Bigr)_k"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"
    examples = ({"alpha": 1, "beta": 1}, {"alpha": 0.5, "beta": 0.5})
    alpha: float = param(0.2, above=0, letter="α", telling=0.537, doc="α, power of the teacher")
    beta: float = param(0.7, above=0, letter="β", telling=0.373, doc="β, power of the policy")

    def loss(self, t: Token) -> Scalar:
        a, b = self.alpha, self.beta
        cross = t.sum(t.exp(a * t.teacher.log + b * t.policy.log))
        own = a * t.sum(t.exp((a + b) * t.teacher.log)) + b * t.sum(t.exp((a + b) * t.policy.log))
        return (own / (a + b) - cross) / (a * b)

    def pulls(self, t: Token) -> Pulls:
        a, b = self.alpha, self.beta
        shared, own = a * t.teacher.log + b * t.policy.log, (a + b) * t.policy.log
        return (t.sum(t.exp(shared)) / a, t.softmax(shared)), (-t.sum(t.exp(own)) / a, t.softmax(own))


class DKD(QMap):
    """DKD: the teacher's view of the label, and its view of the rest, weighted apart.

    Loss    α KL([tea_y, 1−tea_y]‖[u, 1−u]) + β KL(tea given k≠y‖p given k≠y)
    Pulls   α(tea_y − u) → label, α(u − tea_y) − β → policy's others, β → teacher's others
    Source  Zhao et al. 2022, arXiv:2203.08679 (at temperature 1)
    Release T = 4, both parts times T², a ramp over 20 epochs, and cross-entropy added
    """

    name = "dkd"
    formula = r"\alpha\,\mathrm{KL}(b^{\mathrm{tea}}\|b)+\beta\,\mathrm{KL}(\hat\pi_{\mathrm{tea}}\|\hat p)"
    needs = ("teacher_logits",)
    simplex = "sometimes"
    examples = ({"alpha": 1, "beta": 1}, {"alpha": 0.3, "beta": 0.2})
    alpha: float = param(
        1.0,
        low=0,
        letter="α",
        telling=0.737,
        elsewhere="weight of the target-class part (TCKD)",
        doc="weight of the label against the rest",
    )
    beta: float = param(
        8.0,
        low=0,
        letter="β",
        telling=2.37,
        elsewhere="weight of the non-target-class part (NCKD)",
        doc="weight among the rest",
    )

    def loss(self, t: Token) -> Scalar:
        tea = t.prob(t.teacher)
        rest = 1 - tea
        binary = tea * (t.at_label(t.teacher.log) - t.log_p_label) + rest * (t.log(rest) - t.log_p_rest)
        return self.alpha * binary + self.beta * t.kl(t.without_label(t.teacher), t.without_label(t.policy))

    def pulls(self, t: Token) -> Pulls:
        excess = self.alpha * (t.p_label - t.prob(t.teacher))
        return (
            (-excess, t.label),
            (excess - self.beta, t.without_label(t.policy)),
            (self.beta, t.without_label(t.teacher)),
        )


class ToDi(QMap):
    """ToDi: forward KL where the policy lacks mass and reverse KL where it has too much, entry by entry.

    Loss    Σ [w tea log(tea/p) + (1 − w) p log(p/tea)], w = sg(tea/(tea + p))
    Pulls   Σ w tea → ∝ w tea, and the vector p ∘ (c − ⟨p, c⟩), c = (1 − w)(1 + log(p/tea))
    Source  Jung et al. 2025, arXiv:2505.16297
    """

    name = "todi"
    formula = (
        r"\sum_k w_k\,\pi_{\mathrm{tea},k}\log\frac{\pi_{\mathrm{tea},k}}{p_k}"
        r"+(1-w_k)\,p_k\log\frac{p_k}{\pi_{\mathrm{tea},k}},"
        r"\quad w=\mathrm{sg}\!\left(\frac{\pi_{\mathrm{tea}}}{\pi_{\mathrm{tea}}+p}\right)"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        gap = t.teacher.log - t.policy.log
        w = t.stop(t.exp(-t.log_add(-gap, 1)))
        return t.sum(w * t.teacher.probs * gap) - t.sum((1 - w) * t.policy.probs * gap)

    def pulls(self, t: Token) -> Pulls:
        gap = t.teacher.log - t.policy.log
        odds = t.exp(gap)
        matched = t.teacher.probs * odds / (1 + odds)
        surplus = (1 - gap) / (1 + odds)
        return (t.sum(matched), t.normalised(matched)), t.softmax_vjp(surplus)


class LogitStdKD(QMap):
    """Logit-standardised KD: match the shape of the teacher's logits, whatever their mean and spread.

    Loss    T² KL(softmax(Z(teacher_z)/T)‖softmax(Z(z)/T)), Z(x) = (x − mean)/(std + 1e-7)
    Pulls   the vector (v − z̃⟨z̃, v⟩/((V − 1) s(s + 1e-7)))/(s + 1e-7), z̃ = z − mean, s its std,
            v = T(softmax(Z(z)/T) − softmax(Z(teacher_z)/T))
    Source  Sun et al. 2024, CVPR, arXiv:2403.01427
    """

    name = "logit_std_kd"
    formula = r"T^2\,\mathrm{KL}\bigl(\mathrm{softmax}(Z(z^{\mathrm{tea}})/T)\,\|\,\mathrm{softmax}(Z(z)/T)\bigr)"
    needs = ("teacher_logits",)
    simplex = "sometimes"
    examples = ({"temperature": 1},)
    temperature: float = param(
        2.0, above=0, letter="T", telling=1.37, doc="T, softening of both standardised distributions"
    )

    def teacher_tokens(self, vocab: int) -> int:
        return vocab  # mean and spread are those of all logits, most of them in the tail

    def _centred(self, t: Token, d: Distribution) -> tuple[Vector, Scalar]:
        """Logits less their mean (0 where ruled out), and their standard deviation."""
        centred = (d.logits - t.expect(t.uniform, d.logits)) * t.support
        return centred, t.maximum(t.power(t.sum(centred**2) / t.maximum(t.vocab - 1, 1), 0.5), 1e-30)

    def _standardised(self, t: Token, d: Distribution, spread: Scalar) -> Distribution:
        return t.tempered(d, self.temperature * (spread + 1e-7))

    def loss(self, t: Token) -> Scalar:
        teacher, policy = (self._standardised(t, d, self._centred(t, d)[1]) for d in (t.teacher, t.policy))
        return self.temperature**2 * t.kl(teacher, policy)

    def pulls(self, t: Token) -> Pulls:
        (centred, spread), (_, teacher_spread) = self._centred(t, t.policy), self._centred(t, t.teacher)
        teacher, policy = self._standardised(t, t.teacher, teacher_spread), self._standardised(t, t.policy, spread)
        v = self.temperature * (policy.probs - teacher.probs)
        radial = t.sum(centred * v) / (t.maximum(t.vocab - 1, 1) * spread * (spread + 1e-7))
        return ((v - centred * radial) / (spread + 1e-7),)


class TopKKD(QMap):
    """Top-k KD: the teacher as it usually arrives, its k most likely tokens; the tail is dropped, spread or kept.

    Loss    drop: −Σ_K tea log p; renormalise: KL(tea_K‖p), tea_K = tea/Σ_K tea; bucket: KL over K and one tail bucket
    Pulls   drop: Σ_K tea → tea_K; renormalise: 1 → tea_K; bucket: 1 → tea on K and p, rescaled, outside
    Source  Anshumann et al. 2025, arXiv:2503.16870, which shows that the truncated forms are biased
    Release TRL 1.16 distils 100 tokens, with a tail bucket or with both sides renormalised over them
    """

    name = "topk_kd"
    formula = (
        r"\sum_{k\in K}\pi_{\mathrm{tea},k}\log\frac{\pi_{\mathrm{tea},k}}{p_k}+T\log\frac{T}{P},"
        r"\quad T=1-\sum_{k\in K}\pi_{\mathrm{tea},k},\;P=1-\sum_{k\in K}p_k"
    )
    needs = ("teacher_logits",)
    simplex = "always"
    examples = ({"k": 3}, {"k": 3, "tail": "drop"}, {"k": 3, "tail": "renormalise"})
    k: int = param(
        100,
        low=1,
        letter="k",
        telling=12,
        elsewhere="`distillation_topk` in TRL",
        doc="tokens kept of the teacher (all of them where V ≤ k)",
    )
    tail: str = param(
        "bucket",
        choices=("bucket", "drop", "renormalise"),
        telling="drop",
        elsewhere="`distillation_add_tail` in TRL chooses between a bucket and renormalising",
        doc="what becomes of the tail",
    )

    def teacher_tokens(self, vocab: int) -> int:
        return min(self.k, vocab)

    def loss(self, t: Token) -> Scalar:
        if self.tail == "renormalise":
            return t.kl(t.top_k(t.teacher, self.k), t.policy)
        kept = t.in_top_k(t.teacher, self.k)
        if self.tail == "drop":
            return -t.sum(kept * t.teacher.probs * t.policy.log)
        teacher_tail, policy_tail = t.sum((1 - kept) * t.teacher.probs), t.sum((1 - kept) * t.policy.probs)
        head = t.sum(kept * t.teacher.probs * (t.teacher.log - t.policy.log))
        return head + teacher_tail * (t.log(teacher_tail) - t.log(policy_tail))

    def pulls(self, t: Token) -> Pulls:
        kept = t.in_top_k(t.teacher, self.k)
        if self.tail != "bucket":
            mass = t.expect(t.teacher, kept) if self.tail == "drop" else 1
            return ((mass, t.top_k(t.teacher, self.k)),)
        tail = t.sum((1 - kept) * t.teacher.probs)
        return ((1, t.distribution(kept * t.teacher.probs + tail * t.conditioned(t.policy, 1 - kept).probs)),)
