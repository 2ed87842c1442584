"""The tokens that studies look at: five telling ones on a small vocabulary, and many realistic ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qunify.samples import Batch, every_context

#: What the blackboard token continues.
PROMPT = "The capital of Australia is …"
WORDS = ("Canberra", "Sydney", "Melbourne", "in", "the", "Paris")


@dataclass(frozen=True)
class Telling:
    """One of the telling tokens: the label that was observed, and the probabilities of `WORDS` by the model."""

    title: str
    label: str
    policy: tuple[float, ...]
    weight: float  # token_weight, how much the trajectory counts
    critical: bool  # token_mask, whether the token carries the answer


#: A larger model that knows the answer; the model before fine-tuning, which knows less.
TEACHER = (0.86, 0.05, 0.03, 0.03, 0.02, 0.01)
REFERENCE = (0.30, 0.30, 0.16, 0.10, 0.10, 0.04)

TELLING = (
    Telling("confident and right", "Canberra", (0.80, 0.09, 0.04, 0.04, 0.02, 0.01), 1.2, True),
    Telling("confident and wrong", "Canberra", (0.06, 0.80, 0.06, 0.04, 0.03, 0.01), 1.2, True),
    Telling("ambiguous", "Canberra", (0.34, 0.30, 0.18, 0.09, 0.06, 0.03), 1.2, True),
    Telling("rare wording", "in", (0.62, 0.20, 0.08, 0.04, 0.04, 0.02), 1.2, False),
    Telling("the teacher disagrees", "Sydney", (0.40, 0.40, 0.09, 0.05, 0.04, 0.02), 0.4, True),
)


def telling() -> Batch:
    """The five telling tokens, with every context that the paper's methods ask for."""
    n = len(TELLING)
    # The old policy is the model a few steps ago: an average, in logits, of what it believes now and believed first.
    policy = torch.tensor([t.policy for t in TELLING], dtype=torch.float64).log()
    reference = torch.tensor(REFERENCE, dtype=torch.float64).log().expand(n, -1)
    return Batch(
        logits=policy,
        labels=torch.tensor([WORDS.index(t.label) for t in TELLING]),
        context={
            "reference_logits": reference,
            "teacher_logits": torch.tensor(TEACHER, dtype=torch.float64).log().expand(n, -1),
            "old_logits": 0.8 * policy + 0.2 * reference,
            "token_weight": torch.tensor([t.weight for t in TELLING], dtype=torch.float64),
            "token_mask": torch.tensor([float(t.critical) for t in TELLING], dtype=torch.float64),
        },
    )


def realistic(n: int, vocab: int, seed: int) -> Batch:
    """Next-token predictions with Zipf-like tails, from certain to undecided.

    A token's truth is ∝ rank^(−a), in an order of its own, a between 1 and 4. The label is drawn from the truth. The
    model, its reference, its old self and its teacher each see the truth through noise of their own. A tenth of the
    other tokens are marked negative.
    """
    g = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(n, vocab, generator=g, dtype=torch.float64)

    rank = torch.rand(n, vocab, generator=g, dtype=torch.float64).argsort(-1) + 1
    exponent = 1 + 3 * torch.rand(n, 1, generator=g, dtype=torch.float64)
    truth = -exponent * rank.log()
    labels = torch.multinomial(truth.softmax(-1), 1, generator=g)[:, 0]
    reference = truth + noise(1.5)
    policy = reference + noise(0.7)
    negative = (torch.rand(n, vocab, generator=g, dtype=torch.float64) < 0.1).scatter(-1, labels[:, None], False)
    models = {
        "reference_logits": reference,
        "teacher_logits": truth + noise(0.5),
        "old_logits": policy + noise(0.2),
        "prior_logits": -torch.arange(1, vocab + 1, dtype=torch.float64).log().expand(n, -1),
    }
    models["teacher_base_logits"] = 0.5 * (models["teacher_logits"] + reference)
    weight = torch.exp(0.5 * torch.randn(n, generator=g, dtype=torch.float64))
    mask = (torch.rand(n, generator=g, dtype=torch.float64) < 0.6).double()
    values = torch.where(torch.arange(vocab) < 10, torch.arange(vocab), torch.nan).double().expand(n, -1)
    context = every_context(models.__getitem__, weight=weight, mask=mask, negative=negative.double(), values=values)
    return Batch(policy, labels, context)
