"""Which method is which other one: identities and limits as data, each checked on numbers and open to proof.

Expressions are SymPy strings in the identity's free parameters and in quantities of the token: `u` (label
probability), `V` (vocabulary size), `tea_y` (teacher's probability of the label), `sum_p2` (Σ p_k²).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Expression = str | float
Bindings = Mapping[str, Expression]


@dataclass(frozen=True)
class Term:
    """factor · method(params)."""

    name: str
    params: Bindings = field(default_factory=dict)
    factor: Expression = 1


@dataclass(frozen=True)
class Identity:
    """gradient(left) = Σ gradient(right), at every token.

    `free` lists values at which it is checked; `given` sets one context to another distribution of the token
    (`label`, `uniform`, or another context's name).
    """

    left: Term
    right: tuple[Term, ...]
    free: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alias(Identity):
    """A name under which a method goes elsewhere: an identity whose left side, `name(params)`, is no entry.

    `loss` is what was published under that name, a SymPy expression in `u`, in `w` (the token's weight) and in the
    alias's own parameters, with sg(…) for what is detached. `defaults` are those of the publication.
    """

    title: str = ""
    loss: str = ""
    source: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.left.name


@dataclass(frozen=True)
class Channel:
    """The expected gradient of `method` when its label y is redrawn equals that of `equals` on y itself.

    `stay` is the probability of keeping y, `move` that of each other token k (`tea_k`: the teacher's); what is
    missing to one is dropped.
    """

    stay: Expression
    move: Expression
    method: Term
    equals: Term
    free: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def _same(
    left: str,
    right: str,
    left_params: Bindings | None = None,
    right_params: Bindings | None = None,
    factor: Expression = 1,
    **free: tuple[float, ...],
) -> Identity:
    return Identity(Term(left, left_params or {}), (Term(right, right_params or {}, factor),), free)


_Q = (0.3, 0.7, 1.6)
_SHARE = (0.2, 0.5, 0.9)


def _alias(name: str, loss: str, entry: Term, title: str, source: str, **defaults: float) -> Alias:
    return Alias(Term(name, {k: k for k in defaults}), (entry,), {}, {}, title, loss, source, defaults)


#: Names of other papers and trainers for what the catalogue has under one of its own.
ALIASES: tuple[Alias, ...] = (
    _alias(
        "trsft", "-sg(u/Max(u, alpha))*log(u)", Term("phuber_ce", {"tau": "1/alpha"}),
        "Trust-region SFT", "TRAPO, arXiv:2512.17636, 2025; `clip_low` in its code", alpha=0.1,
    ),
    _alias(
        "alpha_loss", "alpha/(alpha-1)*(1-u**(1-1/alpha))", Term("gce", {"q": "1-1/alpha"}),
        "α-loss", "Sypherd et al. 2019, arXiv:1906.02314", alpha=2.0,
    ),
    _alias("sft_is", "-sg(u)*log(u)", Term("dft"), "Importance-sampled SFT", "Trinity-RFT, 2025"),
    _alias(
        "sft_phi", "-sg(u*(1-u))*log(u)", Term("chord_phi"),
        "CHORD-φ", "Trinity-RFT, 2025; its `cutoff_prob`, 1 by default, drops tokens above it",
    ),
    _alias("grad_ascent", "log(u)", Term("wga", {"power": 0}), "Gradient ascent", "open-unlearning, 2025"),
    _alias(
        "wit", "-w*log(u)", Term("iw_sft"),
        "Weighted instruction tuning", "arXiv:2507.07817, 2025: one weight on prompts, another on answers",
    ),
)  # fmt: skip

IDENTITIES: tuple[Identity, ...] = (
    # AGCE is the hub of the gates: w = u (a + u)^(q−1).
    _same("agce", "gce", {"a": 0, "q": "q"}, {"q": "q"}, q=_Q),
    _same("gce", "beyond_log", {"q": "q"}, {"alpha": "q"}, q=_Q),
    _same("agce", "mae", {"a": "a", "q": 1}, a=(0.0, 1.0, 3.0)),
    _same("mae", "dft"),
    _same("agce", "sft", {"a": 0, "q": 0}),
    _same("luffy", "agce", {"gamma": "g"}, {"a": "g", "q": -1}, "g", g=(0.05, 0.1, 1.0)),
    _same("tailr", "agce", {"gamma": "g"}, {"a": "g/(1-g)", "q": 0}, "1/(1-g)", g=_SHARE),
    _same("forward_correction", "agce", {"noise": "e"}, {"a": "e/((1-e)*V)", "q": 0}, e=_SHARE),
    _same("tailr", "dft", {"gamma": 1}),
    _same("tailr", "sft", {"gamma": 0}),
    _same("mixce", "dft", {"eta": 0}),
    _same("mixce", "sft", {"eta": 1}),
    _same("mixce", "symmetric_ce", {"eta": "h"}, {"ce_weight": "h", "rce_weight": "(1-h)/4", "log_zero": -4}, h=_SHARE),
    _same("taylor_ce", "mae", {"order": 1}),
    _same("chord_phi", "aue", {}, {"a": 1, "q": 2}),
    _same("talr", "gce", {"temperature": "T", "floor": 0}, {"q": "1/T"}, T=(0.5, 1.0, 4.0)),
    _same("deft", "gce", {}, {"q": "sum_p2"}),
    _same("cayley", "gce", {}, {"q": "u/(2-u)"}),
    _same("phuber_ce", "mae", {"tau": 1}),
    _same("idft", "dft", {"low": 1, "high": 1}),
    Identity(Term("poly1", {"epsilon": "e"}), (Term("sft"), Term("mae", factor="e")), {"e": (-1.0, 0.5, 2.0)}),
    Identity(
        Term("symmetric_ce", {"ce_weight": "a", "rce_weight": "b", "log_zero": -4}),
        (Term("sft", factor="a"), Term("mae", factor="4*b")),
        {"a": (0.1, 1.0), "b": (0.5, 1.0)},
    ),
    _same("anti_focal", "focal", {"slope": -1, "focusing": "g"}, {"focusing": "g"}, g=(0.5, 1.0, 2.0)),
    _same("asft_k3", "dft", {"kl_weight": 0}),
    # Policy optimisation on demonstrations.
    _same("gft", "iw_sft", {"threshold": 0}),
    _same("gft", "iw_sft", {"threshold": 1}, None, "u"),
    _same("sdar", "sft", {"sharpness": 0}, None, "1/2"),
    Identity(
        Term("curio_release", {"strength": "s"}),
        (Term("dro", {"strength": "s"}),),
        {"s": (0.3, 1.0)},
        {"old_logits": "teacher_logits"},
    ),
    # Unlearning is learning with the sign turned, while the label lasts.
    _same("wga", "beyond_log", {"power": "b"}, {"alpha": "b"}, -1, b=(0.5, 1.0, 2.0)),
    _same("wga", "dft", {"power": 1}, None, -1),
    _same("wga", "sft", {"power": 0}, None, -1),
    _same("satimp", "wga", {"power": "b", "rest_power": 0}, {"power": "b"}, b=(0.5, 1.0, 5.0)),
    Identity(Term("undial", {"strength": 0}), (Term("kd"),), {}, {"teacher_logits": "reference_logits"}),
    # Warped predictions and entropy bonuses.
    _same("gem", "temperature_ce", {"beta": "b"}, {"temperature": "b"}, "b", b=(0.5, 0.7, 2.0)),
    _same("self_tempered", "gem", {"weight": -1, "temperature": "b"}, {"beta": "b"}, b=(0.5, 0.7, 2.0)),
    _same("bootstrap_soft", "confidence_penalty", {"beta": "b"}, {"weight": "-(1-b)/b"}, "b", b=_SHARE),
    # Mixtures and distillation.
    _same("posterior", "kd", {"noise": 1}),
    _same("target_sft", "dft", {"eta": 0}),
    _same("kd_hybrid", "kd", {"mix": 1}),
    _same("taid", "kd", {"mix": 1}),
    _same("dkd", "kd", {"alpha": 1, "beta": "1-tea_y"}),
    _same("jsd", "kd", {"beta": 0}),
    _same("jsd", "reverse_kl", {"beta": 1}),
    _same("skew_kl", "kd", {"skew": 0}),
    _same("skew_reverse_kl", "reverse_kl", {"skew": 0}),
    _same("topk_kd", "kd", {"k": "V"}),
    _same("ttm", "kd", {"temperature": 1}),
    Identity(
        Term("delta_kd", {"strength": 1}),
        (Term("kd"),),
        {},
        {"teacher_base_logits": "reference_logits"},
    ),
    _same("csd", "reverse_kl", factor=2),
    _same("tad", "topk_kd", {"k": 10, "tail_weight": 0}, {"k": 10}),
    _same("student_topk_jsd", "kd", {"k": "V", "mix": 0}),
    _same("student_topk_jsd", "jsd", {"k": "V", "mix": "a"}, {"beta": "a"}, a=_SHARE),
    Identity(Term("bdkd", {"large": "a", "small": "a"}), (Term("mixed_kl", {"mix": 0.5}, "2*a"),), {"a": (1.0, 3.0)}),
    Identity(Term("mixed_kl", {"mix": "l"}), (Term("kd", factor="l"), Term("reverse_kl", factor="1-l")), {"l": _SHARE}),
    _same("asft", "dft", {"kl_weight": 0}),
    Identity(
        Term("kd_hybrid", {"mix": "l"}),
        (Term("sft_kl", {"kl_weight": "l/(1-l)"}, "1-l"),),
        {"l": _SHARE},
        {"reference_logits": "teacher_logits"},
    ),
    Identity(
        Term("label_smoothing", {"smoothing": "l"}),
        (Term("unigram_smoothing", {"smoothing": "l"}),),
        {"l": _SHARE},
        {"prior_logits": "uniform"},
    ),
    Identity(
        Term("unigram_smoothing", {"smoothing": "l"}),
        (Term("kd_hybrid", {"mix": "l"}),),
        {"l": _SHARE},
        {"teacher_logits": "prior_logits"},
    ),
    Identity(
        Term("label_smoothing", {"smoothing": "l"}),
        (Term("kd_hybrid", {"mix": "l"}),),
        {"l": _SHARE},
        {"teacher_logits": "uniform"},
    ),
    _same("tsallis_score", "brier", {"power": 1}, None, "1/2"),
    Identity(
        Term("apl", {"nce_weight": "a", "rce_weight": "b", "log_zero": -4}),
        (Term("nce", factor="a"), Term("mae", factor="4*b")),
        {"a": (0.5, 1.0), "b": (0.5, 1.0)},
    ),
    # One-hot teachers.
    Identity(
        Term("abkd", {"alpha": 1, "beta": "b"}),
        (Term("tsallis_score", {"power": "b"}),),
        {"b": (0.5, 1.0, 2.0)},
        {"teacher_logits": "label"},
    ),
    Identity(
        Term("abkd", {"alpha": "1-q", "beta": "q"}),
        (Term("gce", {"q": "q"}, "1/(1-q)"),),
        {"q": (0.2, 0.5, 0.8)},
        {"teacher_logits": "label"},
    ),
    Identity(Term("abkd", {"alpha": 1, "beta": 1}), (Term("brier", factor="1/2"),), {}, {"teacher_logits": "label"}),
    Identity(
        Term("abkd", {"alpha": 1, "beta": "1-t"}),
        (Term("bi_tempered", {"t1": "t", "t2": 1}),),
        {"t": (0.2, 0.5, 0.8)},
        {"teacher_logits": "label"},
    ),
    # Plain cross-entropy, where a method's extra part is switched off.
    *(
        _same(name, "sft", params)
        for name, params in (
            ("gce", {"q": 0}),
            ("beyond_log", {"alpha": 0}),
            ("focal", {"focusing": 0}),
            ("poly1", {"epsilon": 0}),
            ("anti_focal", {"slope": 0}),
            ("anti_focal", {"focusing": 0}),
            ("dro", {"strength": 0}),
            ("curio_release", {"strength": 0}),
            ("vespo", {"power": 0, "decay": 0}),
            ("power_law_decay", {"power": 0}),
            ("likelihood_gap", {"strength": 0}),
            ("profit", {"threshold": 0}),
            ("threshold", {}),
            ("forward_correction", {"noise": 0}),
            ("mile", {"gamma": 0}),
            ("label_smoothing", {"smoothing": 0}),
            ("bootstrap_hard", {"beta": 1}),
            ("bootstrap_soft", {"beta": 1}),
            ("sft_kl", {"kl_weight": 0}),
            ("kd_hybrid", {"mix": 0}),
            ("gem", {"beta": 1}),
            ("temperature_ce", {"temperature": 1}),
            ("margin_softmax", {"margin": 0}),
            ("logit_adjustment", {"tau": 0}),
            ("bi_tempered", {"t1": 1, "t2": 1}),
            ("confidence_penalty", {"weight": 0}),
            ("mbls", {"weight": 0}),
            ("unlikelihood", {"weight": 0}),
            ("elr", {"weight": 0}),
            ("contrastive_token", {"weight": 0}),
            ("ntl_was", {"weight": 0}),
            ("ntl_mse", {"weight": 0}),
            ("self_tempered", {"weight": 0}),
            ("unigram_smoothing", {"smoothing": 0}),
            ("ldam", {"margin": 0}),
        )
    ),
)

CHANNELS: tuple[Channel, ...] = (
    # Labels redrawn at rate e uniformly from all V tokens, flipped to another token, or sampled from the teacher.
    Channel("1-e+e/V", "e/V", Term("sft"), Term("label_smoothing", {"smoothing": "e"}), {"e": _SHARE}),
    Channel("1-e", "e/(V-1)", Term("sft"), Term("label_smoothing", {"smoothing": "e*V/(V-1)"}), {"e": (0.1, 0.3, 0.5)}),
    Channel("tea_y", "tea_k", Term("sft"), Term("kd")),
    # A random mask keeps the token at rate c.
    Channel("c", 0, Term("sft"), Term("sft", factor="c"), {"c": _SHARE}),
)
