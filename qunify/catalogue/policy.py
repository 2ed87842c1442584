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
