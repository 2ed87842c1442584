"""The worlds of `prior_conflict`: few noisy labels, a prior that is right at some contexts, and what could be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qunify import synthetic
from qunify.training import Data

CONTEXTS, VOCAB, VALID = 40, 10, 2
LABELS = 5  # per context
RATE = 0.3  # share of noisy labels
STRENGTH = 0.9
TEACHER_RIGHT = 0.8
ODDS = tuple(i / 10 for i in range(1, 10))  # weights of "kept" against "learned" along which the best is traced

Noise = Literal["uniform", "annotator"]


@dataclass(frozen=True, eq=False)
class World:
    """One draw of truths, prior, teacher and labels.

    Attributes
    ----------
    right, wrong : Tensor of bool, (S,)
        Where the prior believes the truth, and where it believes no right continuation. Where it believes one by
        chance, a context is neither.
    teacher : Tensor, (S, V)
    empirical : Tensor, (S, V)
        Frequencies of the labels.
    """

    population: synthetic.Population
    teacher: Tensor
    right: Tensor
    wrong: Tensor
    empirical: Tensor
    data: Data
    noise: Noise

    @property
    def prior(self) -> Tensor:
        assert self.population.prior is not None
        return self.population.prior

    def mass(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of a right continuation, (…,), where the prior was right and where it was wrong; probs (…, S, V).

        Means over contexts."""
        valid = torch.where(self.population.valid, probs, 0.0).sum(-1)
        return valid[..., self.right].mean(-1), valid[..., self.wrong].mean(-1)

    def divergence(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """KL(truth ‖ probs) in nats, likewise."""
        q = self.population.truth
        kl = (torch.xlogy(q, q) - torch.xlogy(q, probs)).sum(-1)
        return kl[..., self.right].mean(-1), kl[..., self.wrong].mean(-1)


def world(noise: Noise, rightness: float, seed: int) -> World:
    """Truths, noise, prior, teacher and labels of one seed."""
    clean = synthetic.ambiguous(CONTEXTS, VOCAB, VALID, seed=seed)
    noisy = synthetic.relabelled(clean, RATE, noise, seed=seed)
    population = noisy.believing(STRENGTH, rightness, seed=1000 + seed)
    teacher = noisy.believing(STRENGTH, TEACHER_RIGHT, seed=2000 + seed).prior
    prior = population.prior
    assert prior is not None
    assert teacher is not None
    sample = population.sample(LABELS, seed)
    counts = torch.zeros(CONTEXTS, VOCAB, dtype=torch.float64)
    counts.index_put_((sample.contexts, sample.labels), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    mass = torch.where(population.valid, prior, 0.0).sum(-1)
    return World(
        population=population,
        teacher=teacher,
        right=(prior - STRENGTH * population.truth - (1 - STRENGTH) / VOCAB).abs().amax(-1) < 1e-12,
        wrong=mass < VALID * (1 - STRENGTH) / VOCAB + 1e-12,
        empirical=counts / LABELS,
        data=_data(counts, prior, teacher),
        noise=noise,
    )


def _data(counts: Tensor, prior: Tensor, teacher: Tensor) -> Data:
    """Every label once, with how often it was seen; filled up with labels never seen, so that all worlds are alike."""
    kinds = CONTEXTS * LABELS
    x, y = counts.nonzero().T
    seen = counts[x, y]
    # What iw_sft weighs by: prior(y | x) over the frequency of y without x, of mean 1 over the labels.
    ratio = prior[x, y] / (counts.sum(0) / counts.sum())[y]
    ratio = ratio / ((ratio * seen).sum() / seen.sum())
    room = kinds * 7 // 10 - len(x)
    if room < 0:
        raise ValueError(f"prior_conflict: expected at most {kinds * 7 // 10} kinds of label, got {len(x)}")
    x, y = (torch.cat([t, t[:1].expand(room)]) for t in (x, y))
    seen, ratio = torch.cat([seen, seen.new_zeros(room)]), torch.cat([ratio, ratio.new_ones(room)])
    log_prior, log_teacher = prior.log()[x], teacher.log()[x]
    context = {
        "reference_logits": log_prior,
        "old_logits": log_prior,
        "prior_logits": log_prior,
        "teacher_logits": log_teacher,
        "token_weight": ratio,
    }
    return Data(x, y, context, counts=seen)


def best(w: World, *, teacher: bool) -> Tensor:
    """The most that can be had from these labels and this prior (and teacher), for each of ODDS; (odds, S, V).

    Whoever knows how the world is made weighs the hypotheses: the belief is right, or moved round by 1 to V − 1
    places from the truth. All mass on the token most probably right is then best in expectation for the weighted sum
    of "kept" and "learned" (Neyman and Pearson), and no method that sees the same lies beyond these points.
    """
    belief = (w.prior - (1 - STRENGTH) / VOCAB) / STRENGTH
    back = (torch.arange(VOCAB) - torch.arange(VOCAB)[:, None]) % VOCAB  # (h, V)
    truths = belief[:, back]  # (S, h, V): the truth, had the belief been moved by h places
    likelihood = _likelihood(w, truths)
    if teacher:
        agrees = (w.teacher[:, None] - STRENGTH * truths - (1 - STRENGTH) / VOCAB).abs().amax(-1) < 1e-9
        likelihood = likelihood * torch.where(agrees, TEACHER_RIGHT, (1 - TEACHER_RIGHT) / (VOCAB - 1))
    odds = torch.tensor(ODDS, dtype=torch.float64)[:, None, None]
    prior = torch.cat([odds, (1 - odds).expand(-1, -1, VOCAB - 1) / (VOCAB - 1)], -1)  # (odds, 1, h)
    is_right = ((prior * likelihood)[..., None] * (truths > 0)).sum(-2)
    return torch.nn.functional.one_hot(is_right.argmax(-1), VOCAB).double()


def _likelihood(w: World, truths: Tensor) -> Tensor:
    """Of the labels of each context under each of truths (S, h, V), (S, h)."""
    counts = w.empirical[:, None] * LABELS
    if w.noise == "uniform":
        return torch.xlogy(counts, (1 - RATE) * truths + RATE / VOCAB).sum(-1).exp()
    total = torch.zeros(truths.shape[:2], dtype=torch.float64)
    for token in torch.eye(VOCAB, dtype=torch.float64):  # which of the wrong tokens the annotator believes
        chance = torch.xlogy(counts, (1 - RATE) * truths + RATE * token).sum(-1).exp()
        total += torch.where((truths * token).sum(-1) > 0, 0.0, chance) / (VOCAB - VALID)
    return total
