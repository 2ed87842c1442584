"""Ranks: of the teacher only its order is taught, or only the sizes of its probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from qunify.maps import Pulls, QMap, param
from qunify.token import Scalar, Token


def _pairs(k: int) -> Iterator[tuple[int, int]]:
    """The places in an order of k of which the first comes before the second."""
    return itertools.combinations(range(k), 2)


class Top1CE(QMap):
    """Top-1 cross-entropy: the teacher's likeliest token is the label, as far as the teacher is sure of it.

    Loss    −teacher_m log p_m, m the teacher's argmax
    Pulls   teacher_m → the one-hot of m
    Source  Zhang et al. 2026, KDFlow
    """

    name = "top1_ce"
    formula = r"-\pi_{\mathrm{tea},m}\log p_m,\quad\pi_{\mathrm{tea},m}=\max_k\pi_{\mathrm{tea},k}"
    needs = ("teacher_logits",)
    simplex = "always"

    def loss(self, t: Token) -> Scalar:
        best = t.argmax(t.teacher)
        return t.expect(best, t.teacher.probs) * t.cross_entropy(best, t.policy)

    def pulls(self, t: Token) -> Pulls:
        best = t.argmax(t.teacher)
        return ((t.expect(t.teacher, best.probs), best),)


class LogisticRanking(QMap):
    """Logistic ranking: of every two of the teacher's likeliest tokens, the likelier one should win.

    Loss    2/(k(k − 1)) Σ log(1 + exp(z_j − z_i)) over the pairs of K in which the teacher prefers i to j
    Pulls   w_i → e_i for i of K, w_i = 2/(k(k − 1)) (Σ σ(z_j − z_i) over j after i, less Σ σ(z_i − z_j) over j before)
    Source  Arcee 2025, DistillKit, logistic_ranking; pairwise logistic loss of Burges et al. 2005 (RankNet)
    Release K are all tokens that are stored of the teacher, the mean is over the pairs of the whole batch, and tokens
            below 1e-9 do not count
    """

    name = "logistic_ranking"
    formula = (
        r"\frac{2}{k(k-1)}\sum_{i,j\in K:\,\pi_{\mathrm{tea},i}>\pi_{\mathrm{tea},j}}"
        r"\log\bigl(1+e^{z_j-z_i}\bigr)"
    )
    needs = ("teacher_logits",)
    examples = ({"k": 2},)
    k: int = param(
        4,
        low=2,
        high=20,
        letter="k",
        telling=3,
        doc="size of K: so many of the teacher's likeliest tokens are ranked; proofs go up to 4",
    )

    @property
    def simplex(self) -> str:
        return "never" if self.k == 2 else "sometimes"

    def teacher_tokens(self, vocab: int) -> int:
        return min(self.k, vocab)

    def loss(self, t: Token) -> Scalar:
        ranked = [t.at_rank(t.teacher, rank) for rank in range(1, self.k + 1)]
        p = [t.expect(t.policy, e.probs) for e in ranked]
        lost = [t.sum(ranked[j].probs) * (t.log(p[i] + p[j]) - t.log(p[i])) for i, j in _pairs(len(ranked))]
        return 2 / (self.k * (self.k - 1)) * sum(lost)

    def pulls(self, t: Token) -> Pulls:
        ranked = [t.at_rank(t.teacher, rank) for rank in range(1, self.k + 1)]
        p = [t.expect(t.policy, e.probs) for e in ranked]
        weights: list[Scalar] = [0] * len(ranked)
        for i, j in _pairs(len(ranked)):
            second = t.exp(t.log(p[j]) - t.log(p[i] + p[j])) * t.sum(ranked[j].probs)
            wrong = 2 / (self.k * (self.k - 1)) * second
            weights[i], weights[j] = weights[i] + wrong, weights[j] - wrong
        # Given that it is the token of rank r, p is that token's one-hot, also where symbols do not know it for one.
        return tuple((w, t.conditioned(t.policy, e.probs)) for w, e in zip(weights, ranked, strict=True))


class HingeRanking(QMap):
    """Hinge ranking: of every two of the teacher's likeliest tokens, the likelier one should lead by a margin.

    Loss    2/(k(k − 1)) Σ relu(m − p_i + p_j) over the pairs of K in which the teacher prefers i to j
    Pulls   the vector p ∘ (c − ⟨p, c⟩), c = 2/(k(k − 1)) Σ (e_j − e_i) over the pairs within the margin
    Source  Arcee 2025, DistillKit, hinge
    Release K are all tokens that are stored of the teacher, the mean is over the pairs of the whole batch, and tokens
            below 1e-8 do not count
    """

    name = "hinge_ranking"
    formula = (
        r"\frac{2}{k(k-1)}\sum_{i,j\in K:\,\pi_{\mathrm{tea},i}>\pi_{\mathrm{tea},j}}"
        r"\mathrm{relu}(m-p_i+p_j)"
    )
    needs = ("teacher_logits",)
    examples = ({"k": 2}, {"margin": 0})
    margin: float = param(
        0.1, low=0, letter="m", telling=0.237, elsewhere="`margin` in DistillKit", doc="m, in probability"
    )
    k: int = param(
        4,
        low=2,
        high=20,
        letter="k",
        telling=3,
        doc="size of K: so many of the teacher's likeliest tokens are ranked; proofs go up to 4",
    )

    @property
    def simplex(self) -> str:
        return "always" if self.k >= 4 else "sometimes"  # c lies between −2/k and 2/k

    def teacher_tokens(self, vocab: int) -> int:
        return min(self.k, vocab)

    def loss(self, t: Token) -> Scalar:
        ranked = [t.at_rank(t.teacher, rank) for rank in range(1, self.k + 1)]
        p = [t.expect(t.policy, e.probs) for e in ranked]
        behind = [(self.margin - p[i] + p[j], t.sum(ranked[j].probs)) for i, j in _pairs(len(ranked))]
        return 1 / (self.k * (self.k - 1)) * sum(there * (x + abs(x)) for x, there in behind)

    def pulls(self, t: Token) -> Pulls:
        ranked = [t.at_rank(t.teacher, rank) for rank in range(1, self.k + 1)]
        p = [t.expect(t.policy, e.probs) for e in ranked]
        there = [t.sum(e.probs) for e in ranked]
        slopes: list[Scalar] = [0] * len(ranked)
        for i, j in _pairs(len(ranked)):
            within = (1 + t.sign(self.margin - p[i] + p[j])) * there[j]
            slopes[i], slopes[j] = slopes[i] - within, slopes[j] + within
        c = sum(slope * e.probs for slope, e in zip(slopes, ranked, strict=True))
        return (t.softmax_vjp(1 / (self.k * (self.k - 1)) * c),)


class ULD(QMap):
    """ULD: match the teacher's probabilities in order of size, whichever tokens have them; for two vocabularies.

    Loss    Σ_r |p_(r) − teacher_(r)|, each sorted in descending order
    Pulls   the vector p ∘ (s − ⟨p, s⟩), s_k = sign(p_k − teacher_(r)), r the rank of k in p
    Source  Boizard et al. 2024, arXiv:2402.12030 (universal logit distillation)
    Release TRL's GOLD compares tokens that both vocabularies have directly, and sorts the others alone
    """

    name = "uld"
    formula = r"\sum_r|p_{(r)}-\pi_{\mathrm{tea},(r)}|,\quad p_{(1)}\ge p_{(2)}\ge\dots"
    needs = ("teacher_logits",)
    simplex = "sometimes"

    def loss(self, t: Token) -> Scalar:
        return t.sum(abs(t.policy.probs - t.in_order_of(t.teacher, t.policy)))

    def pulls(self, t: Token) -> Pulls:
        return (t.softmax_vjp(t.sign(t.policy.probs - t.in_order_of(t.teacher, t.policy))),)
