"""Distillation: the target comes from a teacher; most ignore the label."""

from __future__ import annotations

from typing import Any

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
    Release the token that crosses μ counts as tail there, unless it is the first one; KDFlow's threshold is the mass of
            the tail, 1 − μ, the same at one half
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


def decoupled_loss(t: Token, alpha: Scalar, beta: Scalar) -> Scalar:
    """α KL([tea_y, 1−tea_y]‖[u, 1−u]) + β KL(tea given k≠y‖p given k≠y), α and β numbers or constants of the token."""
    tea = t.prob(t.teacher)
    rest = 1 - tea
    binary = tea * (t.at_label(t.teacher.log) - t.log_p_label) + rest * (t.log(rest) - t.log_p_rest)
    return alpha * binary + beta * t.kl(t.without_label(t.teacher), t.without_label(t.policy))


def decoupled_pulls(t: Token, alpha: Scalar, beta: Scalar) -> Pulls:
    """Its logit gradient."""
    excess = alpha * (t.p_label - t.prob(t.teacher))
    return (
        (-excess, t.label),
        (excess - beta, t.without_label(t.policy)),
        (beta, t.without_label(t.teacher)),
    )


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
        return decoupled_loss(t, self.alpha, self.beta)

    def pulls(self, t: Token) -> Pulls:
        return decoupled_pulls(t, self.alpha, self.beta)


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
    Release TRL 1.16 distils 100 tokens, with a tail bucket or with both sides renormalised over them; verl 0.9.1 drops
            the tail, and its log-probabilities end at −10; ms-swift 4.6 and tunix 0.1.7 renormalise both sides
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


class BDKD(QMap):
    """BD-KD: forward and reverse KL together; whichever the entropies call for weighs more.

    Loss    w_f KL(teacher‖p) + w_r KL(p‖teacher); w_f = a where the teacher has more entropy than the policy, else b;
            w_r = a where it has less, else b
    Pulls   w_f → teacher, and w_r times the vector of the reverse KL
    Source  Amara et al. 2022, arXiv:2212.12965; as in the code of AdaKD (arXiv:2510.11615)
    """

    name = "bdkd"
    formula = (
        r"w_f\,\mathrm{KL}(\pi_{\mathrm{tea}}\|p)+w_r\,\mathrm{KL}(p\|\pi_{\mathrm{tea}}),"
        r"\quad w_f=a\text{ if }H(\pi_{\mathrm{tea}})>H(p)\text{ else }b"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"
    large: float = param(3.0, low=0, letter="a", telling=2.37, doc="a, weight of the KL that the entropies call for")
    small: float = param(1.0, low=0, letter="b", telling=0.637, doc="b, weight of the other KL, and of both at a tie")

    def loss(self, t: Token) -> Scalar:
        teacher, policy = t.entropy(t.teacher), t.entropy(t.policy)
        forward = t.where(teacher > policy, self.large, self.small)
        reverse = t.where(policy > teacher, self.large, self.small)
        return forward * t.kl(t.teacher, t.policy) + reverse * t.kl(t.policy, t.teacher)

    def pulls(self, t: Token) -> Pulls:
        surplus = t.entropy(t.policy) - t.entropy(t.teacher)
        toward = t.where(surplus < 0, self.large, self.small)
        return (toward, t.teacher), t.where(surplus > 0, self.large, self.small) * _toward_teacher_reverse(t)


class EOPD(QMap):
    """EOPD: reverse KL to the teacher, and forward KL beside it where the teacher is unsure.

    Loss    KL(p‖teacher) + 1[H(teacher) > τ] KL(teacher‖p)
    Pulls   1[H(teacher) > τ] → teacher, and the vector of the reverse KL
    Source  Jin et al. 2026, arXiv:2603.07079 (entropy-aware on-policy distillation)
    Release the reverse KL is that of sampled tokens, by policy gradient; the forward one counts 16 teacher tokens only
    """

    name = "eopd"
    formula = (
        r"\mathrm{KL}(p\|\pi_{\mathrm{tea}})"
        r"+\mathbf{1}[H(\pi_{\mathrm{tea}})>\tau]\,\mathrm{KL}(\pi_{\mathrm{tea}}\|p)"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"
    threshold: float = param(
        0.8,
        low=0,
        letter="τ",
        telling=0.5383,
        elsewhere="`soft_kd_entropy_threshold` in the release",
        doc="τ, in nats: the teacher is unsure above it",
    )

    def loss(self, t: Token) -> Scalar:
        unsure = t.where(t.entropy(t.teacher) > self.threshold, 1, 0)
        return t.kl(t.policy, t.teacher) + unsure * t.kl(t.teacher, t.policy)

    def pulls(self, t: Token) -> Pulls:
        certainty = t.expect(t.teacher, t.teacher.log)
        return (t.where(-certainty > self.threshold, 1, 0), t.teacher), _toward_teacher_reverse(t)


class CSD(QMap):
    """CSD: match differences of log-probabilities, over all pairs of tokens; the softmax does not come in between.

    Loss    ½ Σ_j Σ_k sg(v_j w_k) (d_j − d_k)², d = log p − log teacher; v and w the policy, the teacher or uniform
    Pulls   the vector w ∘ (d − ⟨v, d⟩) + v ∘ (d − ⟨w, d⟩)
    Source  Kim et al. 2025, arXiv:2509.25837 (concrete score distillation)
    Release its gradients are half of these, so that policy and policy, its default, is exactly reverse_kl
    """

    name = "csd"
    formula = (
        r"\tfrac12\sum_{j,k}\mathrm{sg}(v_jw_k)\,(d_j-d_k)^2,\quad d=\log p-\log\pi_{\mathrm{tea}},"
        r"\;v,w\in\{p,\pi_{\mathrm{tea}},\tfrac1V\}"
    )
    needs = ("teacher_logits",)
    simplex = "sometimes"
    examples = (
        {"first": "teacher", "second": "teacher"},
        {"first": "uniform", "second": "uniform"},
        {"first": "teacher", "second": "uniform"},
    )
    first: str = param(
        "policy", choices=("policy", "teacher", "uniform"), telling="teacher", doc="v, weights of one token of a pair"
    )
    second: str = param(
        "policy", choices=("policy", "teacher", "uniform"), telling="uniform", doc="w, weights of the other"
    )

    def teacher_tokens(self, vocab: int) -> int:
        return vocab  # log-probabilities count as they are, also those in the tail

    def _weights(self, t: Token) -> tuple[Distribution, Distribution]:
        first = t.policy if self.first == "policy" else t.teacher if self.first == "teacher" else t.uniform
        second = t.policy if self.second == "policy" else t.teacher if self.second == "teacher" else t.uniform
        return first, second

    def loss(self, t: Token) -> Scalar:
        v, w = (t.stop(d) for d in self._weights(t))
        gap = t.policy.log - t.teacher.log
        apart = gap - t.expect(v, gap)  # of which v's mean is zero, so that the sum over pairs is two sums
        return (t.expect(v, apart**2) + t.expect(w, apart**2)) / 2

    def pulls(self, t: Token) -> Pulls:
        v, w = self._weights(t)
        gap = t.policy.log - t.teacher.log
        return (w.probs * (gap - t.expect(v, gap)) + v.probs * (gap - t.expect(w, gap)),)


class TAD(QMap):
    """TAD: the teacher's likeliest tokens and its tail as a whole, and the shape of the tail with a weight of its own.

    Loss    KL over K and one tail bucket + β KL(tail of the teacher‖tail of p), K the teacher's k likeliest tokens
    Pulls   1 → teacher on K and p, rescaled, outside; β → teacher given the tail, −β → p given the tail
    Source  Dasgupta et al. 2026, arXiv:2602.20816 (tail-aware distillation); there β is that of this token's tail mass
            over the mean one of its sequence, here it is the same at every token
    """

    name = "tad"
    formula = (
        r"\sum_{k\in K}\pi_{\mathrm{tea},k}\log\frac{\pi_{\mathrm{tea},k}}{p_k}+T\log\frac{T}{P}"
        r"+\beta\,\mathrm{KL}(\tilde\pi_{\mathrm{tea}}\|\tilde p),"
        r"\quad T=1-\sum_{k\in K}\pi_{\mathrm{tea},k},\;P=1-\sum_{k\in K}p_k"
    )
    needs = ("teacher_logits",)
    examples = ({"k": 3}, {"k": 3, "tail_weight": 0.5}, {"k": 1})
    k: int = param(10, low=1, letter="k", telling=12, doc="tokens that count one by one (all where V ≤ k)")
    tail_weight: float = param(
        2.0, low=0, letter="β", telling=1.37, doc="β, weight of the shape of the tail; 0 is topk_kd with a bucket"
    )

    @property
    def simplex(self) -> str:
        return "always" if self.tail_weight == 0 else "sometimes"

    def teacher_tokens(self, vocab: int) -> int:
        return vocab  # the tail is taught token by token

    def _tail_weight(self, t: Token) -> Scalar:
        return t.where(t.vocab > self.k, self.tail_weight, 0)

    def loss(self, t: Token) -> Scalar:
        kept = t.in_top_k(t.teacher, self.k)
        teacher_tail, policy_tail = t.sum((1 - kept) * t.teacher.probs), t.sum((1 - kept) * t.policy.probs)
        head = t.sum(kept * t.teacher.probs * (t.teacher.log - t.policy.log))
        bucket = t.log(teacher_tail) - t.log(policy_tail)
        shape = t.expect(t.conditioned(t.teacher, 1 - kept), t.teacher.log - t.policy.log) - bucket
        return head + teacher_tail * bucket + self._tail_weight(t) * shape

    def pulls(self, t: Token) -> Pulls:
        kept, weight = t.in_top_k(t.teacher, self.k), self._tail_weight(t)
        tail = t.sum((1 - kept) * t.teacher.probs)
        teacher_tail, policy_tail = (t.conditioned(d, 1 - kept) for d in (t.teacher, t.policy))
        return (
            (1, t.distribution(kept * t.teacher.probs + tail * policy_tail.probs)),
            (weight, teacher_tail),
            (-weight, policy_tail),
        )


class StudentTopKJSD(QMap):
    """Student top-k JSD: the generalised JSD over the tokens that the student itself finds likeliest.

    Loss    the loss of jsd between p and the teacher over K, the k likeliest tokens of p; renormalise: both given K;
            bucket: all other tokens as one
    Pulls   with m = α teacher + (1 − α)p of these, the vector (1 − α) p ∘ (log(p/m) − KL(p‖m)); at α = 0, p − teacher
    Source  Shenfeld et al. 2026, arXiv:2601.19897 (SDFT), and Hübotter et al. 2026, arXiv:2601.20802 (SDPO), as in TRL
    Release TRL's SDFT takes α = ½, its SDPO α = 1; the probability of a bucket's rest is kept below 1 − 1e-7
    """

    name = "student_topk_jsd"
    formula = (
        r"\alpha\,\mathrm{KL}(\hat\pi_{\mathrm{tea}}\|m)+(1-\alpha)\,\mathrm{KL}(\hat p\|m),"
        r"\quad m=\alpha\hat\pi_{\mathrm{tea}}+(1-\alpha)\hat p,\;K=\mathrm{top}_k(p)"
    )
    needs = ("teacher_logits",)
    examples = (
        {"k": 3},
        {"k": 3, "tail": "bucket"},
        {"k": 3, "tail": "bucket", "mix": 0},
        {"k": 3, "mix": 1},
    )
    mix: float = param(
        0.5,
        low=0,
        high=1,
        letter="α",
        telling=0.273,
        elsewhere="`distillation_alpha` in TRL",
        doc="α, weight of the teacher in the mixture; 0 is forward KL, 1 reverse KL",
    )
    k: int = param(
        100,
        low=1,
        letter="k",
        telling=12,
        elsewhere="`distillation_topk` in TRL",
        doc="tokens of the student that count (all where V ≤ k)",
    )
    tail: str = param(
        "renormalise",
        choices=("renormalise", "bucket"),
        telling="bucket",
        elsewhere="`distillation_add_tail` in TRL is the bucket",
        doc="what becomes of the other tokens",
    )

    @property
    def simplex(self) -> str:
        if self.tail == "renormalise":
            return "always" if self.k == 1 else "sometimes"  # of one token's conditional there is nothing to learn
        return "sometimes" if self.mix == 1 else "always"

    def _part(self, t: Token, log_p: Any, log_teacher: Any) -> Any:
        """What each token, or the bucket, adds to the loss."""
        p, teacher = t.exp(log_p), t.exp(log_teacher)
        if self.mix in (0, 1):
            return p * (log_p - log_teacher) if self.mix else teacher * (log_teacher - log_p)
        log_m = t.log((1 - self.mix) * p + self.mix * teacher)
        return self.mix * teacher * (log_teacher - log_m) + (1 - self.mix) * p * (log_p - log_m)

    def loss(self, t: Token) -> Scalar:
        kept = t.in_top_k(t.policy, self.k)
        if self.tail == "renormalise":
            given = (d.log - t.log(t.sum(kept * d.probs)) for d in (t.policy, t.teacher))
            return t.sum(kept * self._part(t, *given))
        rest = (t.log(t.sum((1 - kept) * d.probs)) for d in (t.policy, t.teacher))
        return t.sum(kept * self._part(t, t.policy.log, t.teacher.log)) + self._part(t, *rest)

    def pulls(self, t: Token) -> Pulls:
        kept = t.in_top_k(t.policy, self.k)
        inside, rest = ([t.sum(mask * d.probs) for d in (t.policy, t.teacher)] for mask in (kept, 1 - kept))
        if self.tail == "renormalise":
            p, teacher = t.conditioned(t.policy, kept), t.conditioned(t.teacher, kept)
            c = self._log_share(t, t.policy.log + t.log(inside[1]), t.teacher.log + t.log(inside[0]))
        else:  # the teacher's rest, spread as the policy spreads its own
            p = t.policy
            teacher = t.distribution(kept * t.teacher.probs + rest[1] * t.conditioned(t.policy, 1 - kept).probs)
            c = kept * self._log_share(t, t.policy.log, t.teacher.log)
            c = c + (1 - kept) * self._log_share(t, *map(t.log, rest))
        if self.mix == 0:
            return (p.probs - teacher.probs,)
        weighted = p.probs if self.mix == 1 else (1 - self.mix) * p.probs
        return (weighted * (c - t.expect(p, c)),)

    def _log_share(self, t: Token, log_p: Any, log_teacher: Any) -> Any:
        """log(p/m), for p and the teacher multiplied by any one number."""
        if self.mix == 1:
            return log_p - log_teacher
        return log_p - t.log((1 - self.mix) * t.exp(log_p) + self.mix * t.exp(log_teacher))


class DeltaKD(QMap):
    """Delta-KD: what fine-tuning did to the teacher is done to the student's own start.

    Loss    KL(q‖p), q ∝ reference (teacher/base)^α; the reference is the student before training, the base the teacher
            before its own
    Pulls   1 → q
    Source  Cao et al. 2025, arXiv:2509.14526, after summaries of it: the exponent is not verified there
    """

    name = "delta_kd"
    formula = (
        r"\mathrm{KL}(q\|p),\quad q\propto\pi_{\mathrm{ref}}"
        r"\Bigl(\frac{\pi_{\mathrm{tea}}}{\pi_{\mathrm{base}}}\Bigr)^{\alpha}"
    )
    needs = ("reference_logits", "teacher_logits", "teacher_base_logits")
    simplex = "always"
    examples = ({"strength": 0.5},)
    strength: float = param(
        1.0, low=0, letter="α", telling=0.737, doc="α, how much of the teacher's change is taken over"
    )

    def teacher_tokens(self, vocab: int) -> int:
        return vocab  # ratios to the base count, also those in the tail

    def _target(self, t: Token) -> Distribution:
        return t.softmax(t.reference.logits + self.strength * (t.teacher.logits - t.teacher_base.logits))

    def loss(self, t: Token) -> Scalar:
        return t.kl(self._target(t), t.policy)

    def pulls(self, t: Token) -> Pulls:
        return ((1, self._target(t)),)


class LogitMSE(QMap):
    """Logit matching: squared distance of the logits themselves; not shift-invariant, so it has no target.

    Loss    ½ Σ (z_k − teacher_z_k)²
    Pulls   none; the gradient z − teacher_z does not sum to zero
    Source  Ba & Caruana 2014, arXiv:1312.6184
    Release many average over V in place of the sum
    """

    name = "logit_mse"
    formula = r"\tfrac12\lVert z-z^{\mathrm{tea}}\rVert^2"
    needs = ("teacher_logits",)
    shift_invariant = False
    simplex = "never"

    def teacher_tokens(self, vocab: int) -> int:
        return vocab + 1  # log-probabilities, even of all tokens, are not the logits that it compares

    def loss(self, t: Token) -> Scalar:
        return t.sum((t.logits - t.teacher_logits) ** 2) / 2

    def pulls(self, t: Token) -> Pulls:
        return (t.logits - t.teacher_logits,)
