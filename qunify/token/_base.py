"""The language a method is written in: one token position, its distributions, and a few operations.

A method never sees a backend. Its `loss` and `pulls` run on any `Token`: `TensorToken` (a batch of positions, for
training and analysis), `SymbolicToken` (one generic position, for proofs), `DecimalToken` (one position, to fifty
digits) or `ScriptToken` (one position of a page in a browser). Backends supply the abstract operations; everything else
is derived from them here, once.

Shapes, for tensors: a *scalar* is one number per token, (N, 1); a *vector* is one number per token and
vocabulary entry, (N, V). They broadcast against each other.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from qunify._lib.lazy import lazy
from qunify.token._pools import Pool

Scalar: TypeAlias = Any
Vector: TypeAlias = Any


class Symbolic:
    """Base of numbers that are no floats, such as traced expressions and numbers of fifty digits.

    As parameters of a method they are neither checked against a range nor rounded; nor are SymPy's expressions.
    """


def is_symbolic(x: object) -> bool:
    """Whether x is a `Symbolic` number or an expression of SymPy."""
    sympy = sys.modules.get("sympy")  # while it is not loaded, x cannot be one of its expressions
    return isinstance(x, (Symbolic, getattr(sympy, "Basic", Symbolic)))


#: Context keyword arguments, and the Token attribute each one feeds.
CONTEXTS = {
    "reference_logits": "reference",
    "teacher_logits": "teacher",
    "old_logits": "old",
    "prior_logits": "prior",
    "teacher_base_logits": "teacher_base",
    "token_weight": "weight",
    "token_mask": "keep",
    "negative_mask": "negative",
    "token_values": "values",
}

#: Contexts that are one number per token, (…); the others have one for every entry of the vocabulary, (…, V).
PER_TOKEN = ("token_weight", "token_mask")

#: Contexts of which one, (V,), may be given for all tokens: the logits of another model, and the values of numbers.
SHARED = (*(name for name in CONTEXTS if name.endswith("_logits")), "token_values")


class Distribution:
    """A distribution over the vocabulary: `probs`, `log`, `logits` and `log_normaliser`, each computed when first
    asked for.

    A softmax is given by its logits z and its log-normaliser, log p = z − log Σ exp z. Divergences are written in these
    two, which saves a pass over the vocabulary for logarithms: KL(a‖b) = ⟨a, z_a − z_b⟩ − (lse_a − lse_b).
    """

    def __init__(
        self,
        probs: Callable[[], Vector],
        log: Callable[[], Vector] | None = None,
        logits: Callable[[], Vector] | None = None,
        log_normaliser: Callable[[Vector], Scalar] = lambda _: 0,
    ) -> None:
        self._probs, self._log, self._logits, self._log_normaliser = probs, log, logits, log_normaliser

    @lazy
    def probs(self) -> Vector:
        return self._probs()

    @lazy
    def log(self) -> Vector:
        """Natural logarithm; finite everywhere (a very negative number where the probability is zero)."""
        return self.logits - self.log_normaliser if self._log is None else self._log()

    @lazy
    def logits(self) -> Vector:
        """Logits whose softmax is the distribution: those it was made from, if any, else its logarithm."""
        return self.log if self._logits is None else self._logits()

    @lazy
    def log_normaliser(self) -> Scalar:
        """log Σ exp of `logits`, one number per token: logits − log."""
        return self._log_normaliser(self.probs)


class Token(ABC):
    """What `QMap.loss` and `QMap.pulls` see. Logarithms are natural, entropies in nats."""

    # ---- what a method sees ---------------------------------------------------------------------------
    @property
    @abstractmethod
    def label(self) -> Distribution:
        """δ, the one-hot of the observed token."""

    @property
    @abstractmethod
    def policy(self) -> Distribution:
        """p, the softmax of the model's logits."""

    @property
    @abstractmethod
    def uniform(self) -> Distribution:
        """1/V over the tokens the model does not rule out."""

    @property
    @abstractmethod
    def vocab(self) -> Scalar:
        """How many tokens the model does not rule out."""

    @property
    @abstractmethod
    def logits(self) -> Vector:
        """z itself, for losses that are not shift-invariant; 0 where a token is ruled out."""

    @property
    @abstractmethod
    def log_sum_exp(self) -> Scalar:
        """log Σ exp z_k."""

    @property
    @abstractmethod
    def p_label(self) -> Scalar:
        """u = p_y."""

    @property
    @abstractmethod
    def log_p_label(self) -> Scalar:
        """log u."""

    @property
    @abstractmethod
    def p_rest(self) -> Scalar:
        """1 − u, exact also where u is nearly 1."""

    @property
    @abstractmethod
    def log_p_rest(self) -> Scalar:
        """log(1 − u)."""

    # ---- contexts -------------------------------------------------------------------------------------
    @abstractmethod
    def context(self, name: str) -> Any:
        """The distribution, scalar or vector given under this context name; ValueError if it is missing."""

    @property
    def reference(self) -> Distribution:
        return self.context("reference_logits")

    @property
    def teacher(self) -> Distribution:
        return self.context("teacher_logits")

    @property
    def old(self) -> Distribution:
        return self.context("old_logits")

    @property
    def prior(self) -> Distribution:
        return self.context("prior_logits")

    @property
    def teacher_base(self) -> Distribution:
        """What the teacher was before its own fine-tuning."""
        return self.context("teacher_base_logits")

    @property
    def weight(self) -> Scalar:
        return self.context("token_weight")

    @property
    def keep(self) -> Scalar:
        return self.context("token_mask")

    @property
    def negative(self) -> Vector:
        return self.context("negative_mask")

    @property
    def values(self) -> Vector:
        """What each token of the vocabulary is as a number; 0 where it is none, which `is_number` tells."""
        return self.context("token_values")

    @property
    @abstractmethod
    def is_number(self) -> Vector:
        """1 on tokens that are numbers, those whose `token_values` are not NaN; 0 elsewhere."""

    @property
    @abstractmethod
    def teacher_logits(self) -> Vector:
        """The teacher's logits themselves, for losses that are not shift-invariant; 0 where a token is ruled out."""

    # ---- the token's surroundings ---------------------------------------------------------------------
    @abstractmethod
    def pooled(self, pool: Pool) -> Scalar:
        """A statistic of the token's sequence or batch, a constant to differentiation. A method names those it asks for
        in its `pools`."""

    # ---- what a backend supplies ----------------------------------------------------------------------
    @abstractmethod
    def stop(self, x: Any) -> Any:
        """Stop-gradient of a scalar, a vector or a distribution."""

    @abstractmethod
    def log(self, x: Any) -> Any:
        """Natural logarithm, finite at 0 so that 0 · log 0 = 0."""

    @abstractmethod
    def exp(self, x: Any) -> Any: ...

    @abstractmethod
    def where(self, condition: Any, a: Any, b: Any) -> Any: ...

    @abstractmethod
    def sign(self, x: Any) -> Any: ...

    @abstractmethod
    def sum(self, v: Vector) -> Scalar:
        """Sum over the tokens the model does not rule out."""

    @abstractmethod
    def sum_others(self, v: Vector) -> Vector:
        """Σ_{j ≠ k} v_j at every k, without cancellation where one entry outweighs the rest."""

    @abstractmethod
    def at_label(self, v: Vector) -> Scalar: ...

    @abstractmethod
    def softmax(self, logits: Vector) -> Distribution: ...

    @abstractmethod
    def conditioned(self, d: Distribution, mask: Vector) -> Distribution:
        """d given that the token is one of those where the mask is 1."""

    @abstractmethod
    def argmax(self, d: Distribution) -> Distribution:
        """The one-hot of d's mode; ties share the mass evenly."""

    @abstractmethod
    def in_top_k(self, d: Distribution, k: int) -> Vector:
        """1 on d's k most likely tokens (on all of them where V < k), 0 elsewhere."""

    @abstractmethod
    def ranks(self, d: Distribution) -> Vector:
        """1 at d's likeliest token, 2 at its second, and so on; tokens that tie share the mean of their places."""

    def mean_rank(self, d: Distribution) -> Scalar:
        """Σ_k d_k rank_k."""
        return self.expect(d, self.ranks(d))

    def label_rank(self, d: Distribution) -> Scalar:
        return self.at_label(self.ranks(d))

    @abstractmethod
    def in_order_of(self, d: Distribution, by: Distribution) -> Vector:
        """d's probabilities by size, the largest at `by`'s likeliest token, the next at its second, and so on."""

    @abstractmethod
    def top_p(self, d: Distribution, mass: float) -> Vector:
        """1 on d's most likely tokens up to the one at which their mass reaches `mass`, and on its ties."""

    @abstractmethod
    def q_log(self, log_x: Any, q: Any) -> Any:
        """(x^q − 1)/q from log x, and log x itself at q = 0."""

    @abstractmethod
    def log_add(self, log_x: Any, c: Any) -> Any:
        """log(x + c) from log x, for c ≥ 0."""

    @abstractmethod
    def log1m(self, d: Distribution) -> Vector:
        """log(1 − d_k), accurate also where d_k is nearly 1."""

    @abstractmethod
    def entmax(self, alpha: float) -> Distribution:
        """α-entmax of the logits, for α = 2 (sparsemax) or 1.5."""

    @abstractmethod
    def tempered_softmax(self, t: float) -> Distribution:
        """The tempered softmax exp_t(z − λ(z)), exp_t(x) = [1 + (1−t)x]₊^{1/(1−t)}; softmax at t = 1."""

    # ---- derived, once, for every backend -------------------------------------------------------------
    @property
    def support(self) -> Vector:
        """1 on the tokens the model does not rule out, 0 elsewhere."""
        return self.uniform.probs * self.vocab

    def prob(self, d: Distribution) -> Scalar:
        """The mass d puts on the label."""
        return self.at_label(d.probs)

    def expect(self, d: Distribution, v: Vector) -> Scalar:
        return self.sum(d.probs * v)

    def entropy(self, d: Distribution) -> Scalar:
        return -self.expect(d, d.log)

    def cross_entropy(self, a: Distribution, b: Distribution) -> Scalar:
        return b.log_normaliser - self.expect(a, b.logits)

    def kl(self, a: Distribution, b: Distribution) -> Scalar:
        return self.expect(a, a.logits - b.logits) - (a.log_normaliser - b.log_normaliser)

    def power(self, x: Any, a: Any) -> Any:
        """x^a for x ≥ 0, with a finite derivative at 0."""
        return self.exp(a * self.log(x))

    def maximum(self, a: Any, b: Any) -> Any:
        return self.where(a > b, a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return self.where(a < b, a, b)

    def mixture(self, a: Distribution, b: Distribution, w: Scalar) -> Distribution:
        """(1 − w) a + w b."""
        return self.distribution((1 - w) * a.probs + w * b.probs)

    def geometric(self, a: Distribution, b: Distribution, w: Scalar) -> Distribution:
        """∝ a^(1−w) b^w."""
        return self.softmax((1 - w) * a.logits + w * b.logits)

    def tempered(self, d: Distribution, temperature: Scalar) -> Distribution:
        """∝ d^(1/temperature)."""
        return self.softmax(d.logits / temperature)

    def distribution(self, probs: Vector) -> Distribution:
        """A distribution from probabilities that already sum to one."""
        return Distribution(lambda: probs, lambda: self.log(probs))

    def normalised(self, v: Vector) -> Distribution:
        """∝ v, for a nonnegative vector."""
        return self.distribution(v / self.sum(v))

    def at_rank(self, d: Distribution, rank: int) -> Distribution:
        """The one-hot of d's likeliest token (rank 1), of its second, and so on; nothing where V < rank. Of equally
        likely ones the first in the vocabulary comes first."""
        before = self.in_top_k(d, rank - 1) if rank > 1 else 0
        return self.distribution(self.in_top_k(d, rank) - before)

    def top_k(self, d: Distribution, k: int) -> Distribution:
        """d given that the token is one of its k most likely ones."""
        return self.conditioned(d, self.in_top_k(d, k))

    def top_k_entropy(self, d: Distribution, k: int) -> Scalar:
        """The entropy of d given that the token is one of its k most likely ones."""
        top = self.top_k(d, k)
        return self.cross_entropy(top, top)

    def without_label(self, d: Distribution) -> Distribution:
        """d given that the token is not the label."""
        return self.conditioned(d, 1 - self.label.probs)

    def softmax_vjp(self, c: Vector) -> Vector:
        """dL/dz from c = dL/dp: p ∘ (c − ⟨p, c⟩)."""
        return self.policy.probs * (c - self.expect(self.policy, c))
