"""Synthetic populations: the truth they state is the one their samples follow."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from qunify.synthetic import Blobs, HiddenMarkov, Population, ambiguous, relabelled


def fits(counts: Tensor, expected: Tensor) -> bool:
    """Pearson's χ² does not reject at one in ten thousand; tokens expected never must not occur."""
    possible = expected > 0
    if bool((counts[~possible] > 0).any()):
        return False
    if int(possible.sum()) == 1:
        return True
    total = counts.sum() * expected[possible] / expected[possible].sum()
    return bool(chisquare(counts[possible].numpy(), total.numpy()).pvalue > 1e-4)


def counts(labels: Tensor, vocab: int) -> Tensor:
    return torch.bincount(labels, minlength=vocab).double()


def test_ambiguous_contexts_have_zipf_weights_on_the_valid_tokens() -> None:
    p = ambiguous(7, 12, 3, exponent=1.0, seed=4)
    assert (p.valid.sum(-1) == 3).all()
    assert ((p.truth > 0) == p.valid).all()
    ranked = p.truth.sort(-1, descending=True).values[:, :3]
    torch.testing.assert_close(ranked, torch.tensor([[6, 3, 2]], dtype=torch.float64).expand(7, 3) / 11)
    assert len({tuple(row.tolist()) for row in p.valid}) > 1, "every context has tokens of its own"


@pytest.mark.parametrize("kind", ["uniform", "class", "annotator"])
def test_labels_follow_the_observed_distribution(kind: Any) -> None:
    p = relabelled(ambiguous(3, 6, 2, seed=1), 0.3, kind, seed=2)
    torch.testing.assert_close(p.observed.sum(-1), torch.ones(3, dtype=torch.float64))
    seen = p.sample(20_000, seed=3)
    for s in range(3):
        mine = seen.contexts == s
        assert int(mine.sum()) == 20_000
        assert fits(counts(seen.labels[mine], 6), p.observed[s])
        assert fits(counts(seen.labels[mine & seen.clean], 6), p.truth[s])
        assert fits(counts(seen.labels[mine & ~seen.clean], 6), p.noise[s])
        assert not fits(counts(seen.labels[mine], 6), p.truth[s])
    assert abs(float(seen.clean.double().mean()) - 0.7) < 0.01


def test_the_three_noises_differ_as_described() -> None:
    clean = ambiguous(5, 8, 2, seed=0)
    uniform, partner, annotator = (
        relabelled(clean, 0.5, kind, seed=1).noise for kind in ("uniform", "class", "annotator")
    )
    assert (uniform == 1 / 8).all()
    assert (partner.sort(-1).values == clean.truth.sort(-1).values).all()
    assert not torch.equal(partner, clean.truth)
    one_hot = relabelled(Population(torch.eye(8).double(), torch.eye(8).bool(), torch.eye(8).double()), 0.5, "class")
    assert (one_hot.noise.diagonal() == 0).all(), "no class is its own partner"
    assert (annotator.max(-1).values == 1).all()
    assert not (clean.valid & (annotator > 0)).any()


def test_samples_are_seeded_and_shuffled() -> None:
    p = ambiguous(4, 5, 2)
    a, b, c = p.sample(50, 0), p.sample(50, 0), p.sample(50, 1)
    assert torch.equal(a.labels, b.labels)
    assert not torch.equal(a.labels, c.labels)
    assert not torch.equal(a.contexts, a.contexts.sort().values)


@pytest.mark.parametrize("rightness", [0.0, 0.25, 1.0])
def test_a_prior_is_right_where_it_should_be(rightness: float) -> None:
    p = ambiguous(40, 10, 2, seed=3).believing(0.8, rightness, seed=5)
    assert p.prior is not None
    right = (p.prior - (0.8 * p.truth + 0.02)).abs().amax(-1) < 1e-12
    assert int(right.sum()) == round(40 * rightness)
    torch.testing.assert_close(p.prior.sum(-1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(p.prior.sort(-1).values, (0.8 * p.truth + 0.02).sort(-1).values)


def test_blobs_know_their_posterior() -> None:
    blobs = Blobs.random(3, 2, separation=1.5, seed=0)
    x, p = blobs.sample(500, seed=1)
    density = torch.exp(-(x[:, None] - blobs.centres).square().sum(-1) / 2)
    torch.testing.assert_close(p.truth, density / density.sum(-1, keepdim=True))
    assert (p.valid.sum(-1) == 1).all()


def test_next_token_agrees_with_enumeration() -> None:
    chain = HiddenMarkov.random(3, 4, seed=2)
    tokens = chain.sample(6, 4, seed=1)
    predicted = chain.next_token(tokens)

    def joint(sequence: tuple[int, ...]) -> float:
        total = 0.0
        for path in itertools.product(range(3), repeat=len(sequence)):
            p = float(chain.initial[path[0]])
            for i, (state, token) in enumerate(zip(path, sequence, strict=True)):
                p *= float(chain.emission[state, token])
                if i:
                    p *= float(chain.transition[path[i - 1], state])
            total += p
        return total

    for row, prediction in zip(tokens.tolist(), predicted, strict=True):
        for i in range(4):
            before = joint(tuple(row[:i])) if i else 1.0
            expected = torch.tensor([joint((*row[:i], k)) / before for k in range(4)], dtype=torch.float64)
            torch.testing.assert_close(prediction[i], expected, rtol=1e-12, atol=1e-14)


def test_sequences_follow_the_chain() -> None:
    chain = HiddenMarkov.random(3, 4, seed=0)
    tokens = chain.sample(30_000, 2, seed=0)
    first = chain.next_token(tokens[:1])[0, 0]
    assert fits(counts(tokens[:, 0], 4), first)
    for k in range(4):
        second = chain.next_token(torch.tensor([[k, 0]]))[0, 1]
        assert fits(counts(tokens[tokens[:, 0] == k, 1], 4), second)


def test_corrupted_sequences_are_wrong_from_end_to_end() -> None:
    chain = HiddenMarkov.random(4, 20, exponent=2.5, seed=0)
    tokens = chain.sample(400, 20, seed=1)
    noisy, clean = chain.corrupted(tokens, 0.25, seed=2)
    assert torch.equal(noisy[clean], tokens[clean])
    assert abs(float(clean.double().mean()) - 0.75) < 0.08

    with_the_same_seed, kept = chain.corrupted(chain.sample(2000, 12, seed=0), 0.5, seed=0)
    original = chain.sample(2000, 12, seed=0)
    agreeing = float((with_the_same_seed[~kept] == original[~kept]).double().mean())
    assert agreeing < 0.3, "what replaces a sequence is independent of it"

    def log_likelihood(rows: Tensor) -> float:
        return float(chain.next_token(rows).gather(-1, rows[..., None]).log().mean())

    assert log_likelihood(noisy[~clean]) < log_likelihood(noisy[clean]) - 0.3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: Population(torch.tensor([[0.5, 0.6]]), torch.ones(1, 2).bool(), torch.tensor([[0.5, 0.5]])),
            "Population: truth: expected probabilities that sum to 1 in every row, got sums from 1.1 to 1.1",
        ),
        (
            lambda: Population(torch.tensor([[1.5, -0.5]]), torch.ones(1, 2).bool(), torch.tensor([[0.5, 0.5]])),
            "Population: truth: expected probabilities that sum to 1 in every row",
        ),
        (
            lambda: Population(torch.eye(2), torch.ones(2, 2).bool(), torch.eye(3)),
            "Population: noise: expected shape (S, V), that of truth (2, 2), got (3, 3)",
        ),
        (
            lambda: Population(torch.eye(2), torch.ones(2, 2), torch.eye(2)),
            "Population: valid: expected booleans of shape (2, 2)",
        ),
        (lambda: ambiguous(3, 4, 5), "ambiguous: valid: expected an integer of at least 1 and at most 4, got 5"),
        (lambda: ambiguous(0, 4, 2), "ambiguous: contexts: expected an integer of at least 1, got 0"),
        (lambda: relabelled(ambiguous(1, 4, 2), 1.5), "relabelled: rate: expected a number in [0, 1], got 1.5"),
        (
            lambda: relabelled(ambiguous(1, 4, 2), 0.5, "odd"),  # type: ignore[arg-type]
            "relabelled: kind: expected uniform, class or annotator, got 'odd'",
        ),
        (
            lambda: relabelled(ambiguous(1, 4, 4), 0.5, "annotator"),
            "relabelled: kind 'annotator': expected an invalid token in every context, got none in one",
        ),
        (
            lambda: ambiguous(1, 4, 2).believing(1.0, 0.5, 0),
            "Population.believing: strength: expected a number in [0, 1), got 1.0",
        ),
        (lambda: ambiguous(1, 4, 2).sample(0, 0), "Population.sample: per_context: expected an integer of at least 1"),
        (
            lambda: HiddenMarkov(torch.ones(2), torch.eye(2), torch.eye(2)),
            "HiddenMarkov: initial: expected probabilities that sum to 1 in every row",
        ),
        (
            lambda: HiddenMarkov(torch.tensor([1.0, 0.0]), torch.eye(3), torch.eye(3)),
            "HiddenMarkov: expected shapes (H,), (H, H) and (H, V)",
        ),
        (
            lambda: HiddenMarkov.random(2, 3).next_token(torch.tensor([[0, 3]])),
            "HiddenMarkov.next_token: tokens: expected integers in [0, 3), got 0 to 3",
        ),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()
