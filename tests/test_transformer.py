"""The small transformer and its fine-tuning, as a user calls them: any method, every context, a wrong input."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import qunify as qu
from qunify.token import CONTEXTS, Token
from qunify.training import (
    FineTuningTask,
    SmallTransformer,
    Stack,
    TransformerSize,
    fine_tune,
    mean_per_sequence,
    pack_documents,
    pretrain,
    shuffled_batches,
    weights_and_mask,
)
from qunify.training._fine_tuning import step
from qunify.training._transformer import before, rotary_angles, rotated
from tests.battery import one_each

VOCAB = 30
SMALL = TransformerSize(VOCAB, width=16, layers=1, heads=2)


def some_tokens(n: int = 3, length: int = 10) -> Tensor:
    return torch.randint(VOCAB, (n, length), generator=torch.Generator().manual_seed(0))


def everywhere(tokens: Tensor) -> Tensor:
    """Every token but the first."""
    return (torch.arange(tokens.shape[1]) > 0).expand(tokens.shape)


def little_task(dtype: torch.dtype = torch.float32) -> FineTuningTask:
    """Eight sequences of which all but the first five tokens are trained on, and a teacher of another width."""
    tokens = torch.randint(1, VOCAB, (8, 12), generator=torch.Generator().manual_seed(1))
    at = torch.arange(12).expand(8, 12) >= 5
    sizes = (SMALL, TransformerSize(VOCAB, width=24, layers=1, heads=2))
    reference, teacher = (SmallTransformer(size, 0, dtype).requires_grad_(False) for size in sizes)
    base = SmallTransformer(SMALL, 5, dtype).requires_grad_(False)
    values = torch.arange(float(VOCAB)).where(torch.arange(VOCAB) < 10, torch.nan)
    return FineTuningTask.of(reference, teacher, tokens, at, teacher_base=base, token_values=values)


def same(a: SmallTransformer, b: SmallTransformer) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# ---- the transformer ----------------------------------------------------------------------------------------------
def test_what_comes_later_changes_no_prediction() -> None:
    model = SmallTransformer(TransformerSize(VOCAB, width=16, layers=2, heads=2), 0, torch.float64)
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % VOCAB
    ours, theirs = (model.logits(model(x)) for x in (tokens, changed))
    torch.testing.assert_close(ours[:, :6], theirs[:, :6], rtol=1e-12, atol=1e-12)
    assert (ours[:, 6:] - theirs[:, 6:]).abs().max() > 1e-3
    first = tokens.clone()
    first[:, 0] = (first[:, 0] + 1) % VOCAB
    assert (model.logits(model(first))[:, -1] - ours[:, -1]).abs().max() > 1e-6


def test_rotary_positions_tell_distances_alone() -> None:
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(6, generator=g, dtype=torch.float64) for _ in range(2))
    angles = rotary_angles(20, 6)
    at = [float(rotated(q, angles[i]) @ rotated(k, angles[i - 3])) for i in (3, 11, 19)]
    assert at == pytest.approx([at[0]] * 3, rel=1e-12)
    assert abs(float(rotated(q, angles[9]) @ rotated(k, angles[4])) - at[0]) > 1e-3


def test_predictions_are_those_of_the_place_before() -> None:
    x = torch.arange(24.0).view(2, 4, 3)
    at = torch.tensor([[False, True, False, True], [False, False, False, True]])
    assert torch.equal(before(x, at), torch.stack([x[0, 0], x[0, 2], x[1, 2]]))


def test_two_models_of_one_seed_are_alike_and_pretraining_learns() -> None:
    a, b, c = (SmallTransformer(SMALL, seed) for seed in (0, 0, 1))
    assert same(a, b)
    assert not torch.equal(a.embedding.weight, c.embedding.weight)
    repeated = torch.arange(8).repeat(4, 3)
    pretrain(a, [repeated] * 60, 1e-2)
    p = a.predictions(repeated, everywhere(repeated)).softmax(-1).gather(-1, repeated[:, 1:].reshape(-1, 1))
    assert p.mean() > 0.7


def test_sampling_with_a_memory_is_sampling_without() -> None:
    end, size = VOCAB - 1, TransformerSize(VOCAB, 16, 2, 2, places=12)
    model = SmallTransformer(size, 0, torch.float64).requires_grad_(False)
    prompts = some_tokens(5, 4)
    found = model.sample(prompts, 12, end)
    tokens = prompts
    for _ in range(8):
        tokens = torch.cat([tokens, model.logits(model(tokens)[:, -1]).argmax(-1, keepdim=True)], 1)
    ended = (tokens[:, 4:] == end).cumsum(1) > 0
    assert torch.equal(found[:, 4:], tokens[:, 4:].masked_fill(ended, end))
    p = model.logits(model(prompts[:1])[:, -1]).softmax(-1)[0]
    drawn = model.sample(prompts[:1].repeat(4000, 1), 5, end, torch.Generator().manual_seed(1))[:, 4]
    frequency = torch.bincount(drawn, minlength=VOCAB) / 4000
    assert (frequency - p).abs().sum() < 0.15


def test_a_cooler_draw_is_nearer_to_the_likeliest() -> None:
    model = SmallTransformer(TransformerSize(6, 8, 1, 2), 0)
    with torch.no_grad():
        model.embedding.weight.mul_(100)  # as initialised, all tokens are alike
    prompts = torch.zeros(400, 1, dtype=torch.long)
    likeliest = model.sample(prompts, 2, 5, None)
    agree = [
        (model.sample(prompts, 2, 5, torch.Generator().manual_seed(0), t) == likeliest).all(1).double().mean().item()
        for t in (2.0, 1.0, 0.3)
    ]
    assert agree == sorted(agree)
    assert agree[-1] > agree[0] + 0.1


def test_windows_read_every_document_before_any_again() -> None:
    documents = [[i] * 3 for i in range(5)]
    found = pack_documents(documents, count=4, length=15, seed=0)
    assert all(sorted(row.tolist()) == sorted([*range(5)] * 3) for row in found)
    assert not torch.equal(found[0], found[1])


# ---- one step and its contexts ------------------------------------------------------------------------------------
def test_a_step_is_the_loss_on_the_marked_tokens_alone() -> None:
    tokens = torch.randint(1, VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    at = torch.arange(12).expand(3, 12) >= torch.tensor([[5], [3], [9]])
    size = TransformerSize(VOCAB, width=16, layers=2, heads=2)
    ours, theirs, start = (SmallTransformer(size, 0, torch.float64) for _ in range(3))
    step(qu.get("sft"), ours, torch.optim.SGD(ours.parameters(), lr=0.1), tokens, at)
    labels = tokens.masked_fill(~at, -100)
    cross_entropy(theirs.logits(theirs(tokens))[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
    for p, q, p0 in zip(ours.parameters(), theirs.parameters(), start.parameters(), strict=True):
        assert q.grad is not None
        torch.testing.assert_close(p, p0 - 0.1 * q.grad, rtol=1e-10, atol=1e-12)
        assert not torch.equal(p, p0)


def test_weights_and_masks_have_the_scales_they_claim() -> None:
    task = little_task()
    assert task.token_weight[task.at].mean().item() == pytest.approx(1)
    assert (task.token_weight == task.token_weight[:, :1]).all()  # one weight per sequence
    assert task.token_mask[task.at].mean().item() == pytest.approx(0.5, abs=0.02)
    assert task.token_mask[~task.at].sum() == 0
    log = task.reference.predictions(task.tokens, task.at).log_softmax(-1).view(8, 7, VOCAB)
    labels = task.tokens[:, 5:]
    frequency = torch.bincount(labels.flatten(), minlength=VOCAB) / labels.numel()
    ratio = (log.gather(-1, labels[..., None])[..., 0] - frequency[labels].log()).mean(1).exp()
    torch.testing.assert_close(task.token_weight[:, 0], ratio / ratio.mean(), rtol=1e-4, atol=1e-5)
    surprise = -(log.exp() * log).sum(-1)
    assert task.token_mask[:, 5:][surprise > surprise.median() + 1e-4].all()


def test_a_token_that_is_ruled_out_has_no_entropy_and_no_weight() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [1.0, 0.0, -torch.inf], [9.0, 0.0, 0.0]], dtype=torch.float64)
    weight, mask = weights_and_mask(logits, torch.tensor([0, 2, 0]))
    assert weight[1] == 0
    assert weight.mean().item() == pytest.approx(1)
    assert mask.tolist() == [1, 0, 0]  # two even choices; two uneven ones, the median; nearly certain


def test_every_context_is_what_its_name_says() -> None:
    task = little_task()
    old = SmallTransformer(SMALL, 3)
    rows = torch.tensor([5, 2])
    tokens, at = task.chosen(rows)
    labels = tokens[at]
    given = task.context(tuple(CONTEXTS), old, rows)
    assert set(given) == set(CONTEXTS)
    models = {"reference": task.reference, "teacher": task.teacher, "teacher_base": task.teacher_base, "old": old}
    for name, model in {f"{key}_logits": model for key, model in models.items()}.items():
        assert model is not None
        assert torch.equal(given[name], model.predictions(tokens, at))
    for name in ("token_weight", "token_mask"):
        assert torch.equal(given[name], getattr(task, name)[rows][task.at[rows]])
    assert task.token_values is not None
    torch.testing.assert_close(given["token_values"], task.token_values.expand(len(labels), -1), equal_nan=True)
    counts = torch.bincount(task.tokens[task.at], minlength=VOCAB) + 1.0
    torch.testing.assert_close(given["prior_logits"].exp(), (counts / counts.sum()).expand(len(labels), -1))
    for i, (row, place) in enumerate(at.nonzero().tolist()):
        held = set(tokens[row, :place].tolist()) - {int(labels[i])}
        assert set(given["negative_mask"][i].nonzero()[:, 0].tolist()) == held


# ---- fine-tuning --------------------------------------------------------------------------------------------------
class Halved(qu.QMap):
    """Halved: half of the label, half of what the model says already.

    Loss    −½ log u
    Pulls   ½ → label
    Source  this test
    """

    name = "halved"
    family = "test"
    formula = r"-\tfrac12\log u"

    def loss(self, t: Token) -> Any:
        return -0.5 * t.log_p_label

    def pulls(self, t: Token) -> Any:
        return ((0.5, t.label),)


def halved(logits: Tensor, labels: Tensor) -> Tensor:
    return 0.5 * cross_entropy(logits, labels, reduction="none")


def by_autograd(loss: Any, needs: Sequence[str], task: FineTuningTask, steps: int, seed: int) -> SmallTransformer:
    """A plain loop in torch: Adam on a published loss, in the order of `shuffled_batches`; an older policy every 2."""
    model = task.reference.snapshot().requires_grad_()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for i, rows in enumerate(shuffled_batches(8, steps, 4, seed)):
        if i % 2 == 0:
            old = model.snapshot()
        tokens, at = task.tokens[rows], task.at[rows]
        logits = model.logits(model(tokens))[:, :-1][at[:, 1:]]
        optimiser.zero_grad()
        loss(logits, tokens[at], **task.context(needs, old, rows)).mean().backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("method", [Halved(), halved, *one_each(qu.names())])
def test_any_method_trains_as_its_loss_does(method: Any) -> None:
    """A class of one's own, a function of one's own, and every entry of the catalogue with all that it needs."""
    task = little_task(torch.float64)
    with torch.no_grad():  # as initialised, all tokens are alike, and what waits for a sure model never trains
        for p in (task.reference.embedding.weight, task.teacher.embedding.weight):  # type: ignore[union-attr]
            p.mul_(20)
    loss: Any
    needs: tuple[str, ...]
    loss, needs = method, ()
    if not callable(method) or isinstance(method, qu.QMap):
        loss, needs = qu.loss(method, reduction="none"), (qu.get(method) if isinstance(method, str) else method).needs
    ours = fine_tune(method, task, steps=4, batch=4, lr=1e-2, seed=7, old_every=2)
    for p, q in zip(ours.parameters(), by_autograd(loss, needs, task, 4, 7).parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)
    assert not same(ours, task.reference)


def test_a_second_run_gives_the_same_model_and_leaves_the_reference_alone() -> None:
    task = little_task()
    untouched = task.reference.snapshot()
    first, second = (fine_tune("dft", task, steps=6, batch=3, lr=1e-2, seed=1) for _ in range(2))
    other = fine_tune("dft", task, steps=6, batch=3, lr=1e-2, seed=2)
    assert same(first, second)
    assert not same(first, other)
    assert same(task.reference, untouched)


def test_measuring_changes_nothing_and_comes_when_it_is_asked_for() -> None:
    task = little_task()
    trust: dict[int, float] = {}

    def measure(at: int, model: SmallTransformer, old: SmallTransformer) -> None:
        trust[at] = float(task.trust("dft", model, old, torch.arange(8)).mean())

    measured = fine_tune("dft", task, steps=5, batch=4, lr=1e-2, every=2, measure=measure)
    assert list(trust) == [0, 2, 4, 5]
    assert trust[5] > trust[0]
    assert same(measured, fine_tune("dft", task, steps=5, batch=4, lr=1e-2))


def test_the_old_policy_is_a_snapshot_from_the_last_refresh() -> None:
    task = little_task()
    weight, old = {}, {}

    def measure(at: int, model: SmallTransformer, before: SmallTransformer) -> None:
        weight[at], old[at] = model.embedding.weight.detach().clone(), before.embedding.weight.clone()

    fine_tune("psft", task, steps=20, batch=2, lr=1e-2, old_every=10, every=10, measure=measure)
    assert torch.equal(old[0], weight[0])
    assert torch.equal(old[10], weight[0])
    assert torch.equal(old[20], weight[10])
    assert not torch.equal(weight[0], weight[10])


def test_the_rate_falls_evenly_to_zero() -> None:
    """Under SFT with one batch again and again, Adam's step is at first the rate: half-way it is half of it."""
    task = little_task()
    fixed, falling = (fine_tune("sft", task, steps=1, batch=8, lr=1e-3, decay=decay) for decay in (False, True))
    assert same(fixed, falling)  # the first step has the full rate
    last = [fine_tune("sft", task, steps=2, batch=8, lr=1e-3, decay=decay) for decay in (False, True)]
    moved = [(model.embedding.weight - fixed.embedding.weight).detach().abs().sum() for model in last]
    assert float(moved[1] / moved[0]) == pytest.approx(0.5, abs=1e-3)


def test_every_sequence_is_seen_before_any_again() -> None:
    order = shuffled_batches(8, steps=6, size=4, seed=3)
    assert sorted(order[:2].flatten().tolist()) == list(range(8))
    assert torch.equal(order, shuffled_batches(8, steps=6, size=4, seed=3))
    assert not torch.equal(order, shuffled_batches(8, steps=6, size=4, seed=4))


def test_a_sequence_without_a_mark_has_no_mean() -> None:
    at = torch.tensor([[False, True, True], [False, False, False], [False, False, True]])
    found = mean_per_sequence(torch.tensor([1.0, 2.0, 4.0]), at)
    assert found[[0, 2]].tolist() == [1.5, 4.0]
    assert found[1].isnan()


@pytest.mark.parametrize("public", [SmallTransformer, fine_tune, Stack], ids=lambda x: x.__name__)
def test_the_examples_in_docstrings_run(public: Any) -> None:
    module = importlib.import_module(public.__module__)
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted > 0
    assert found.failed == 0


MODEL = SmallTransformer(SMALL)
TOKENS = some_tokens()
OTHER = SmallTransformer(TransformerSize(VOCAB + 1, 8, 1, 2))
ALONE = FineTuningTask.of(MODEL, None, TOKENS, everywhere(TOKENS))


def tuned(**changed: Any) -> SmallTransformer:
    options: dict[str, Any] = {"method": "sft", "steps": 1, "batch": 2, "lr": 1e-3}
    return fine_tune(task=ALONE, **options | changed)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: TransformerSize(8, 15, 1, 2), r"TransformerSize: width: expected a multiple of 2 · heads = 4, got 15"),
        (lambda: TransformerSize(8, 16, 0, 2), "TransformerSize: layers: expected an integer of at least 1, got 0"),
        (
            lambda: MODEL(TOKENS + VOCAB),
            r"SmallTransformer: tokens: expected integers \(B, T\) in \[0, 30\), got \(3, 10",
        ),
        (lambda: MODEL(TOKENS[0]), r"SmallTransformer: tokens: expected integers \(B, T\) in .*, got \(10,\)"),
        (lambda: MODEL(TOKENS.float()), "SmallTransformer: tokens: expected integers .* of torch.float32"),
        (
            lambda: SmallTransformer(TransformerSize(VOCAB, 8, 1, 2, places=9))(TOKENS),
            "SmallTransformer: tokens: expected at most 9 places, got 10",
        ),
        (lambda: MODEL.predictions(TOKENS, TOKENS >= 0), "at: expected no mark on the first token, got one"),
        (lambda: MODEL.sample(TOKENS, 12, 0, temperature=0.0), "sample: temperature: expected .* above 0, got 0.0"),
        (lambda: MODEL.sample(TOKENS, 12, 0, temperature=-1.0), "sample: temperature: expected .*, got -1.0"),
        (lambda: MODEL.sample(TOKENS, 12, 0, temperature=float("nan")), "sample: temperature: expected .*, got nan"),
        (lambda: MODEL.sample(TOKENS + VOCAB, 12, 0), "SmallTransformer: tokens: expected integers"),
        (lambda: pretrain(MODEL, [], 1e-2), "pretrain: batches: expected at least one, got none"),
        (lambda: pretrain(MODEL, [TOKENS], 0.0), "pretrain: lr: expected a positive number, got 0.0"),
        (lambda: pack_documents([[], []], 1, 1, 0), "pack_documents: documents: expected at least one token, got none"),
        (
            lambda: FineTuningTask.of(MODEL, OTHER, TOKENS, everywhere(TOKENS)),
            "FineTuningTask: teacher: expected one over 30 tokens, got one over 31",
        ),
        (
            lambda: FineTuningTask.of(MODEL, None, TOKENS, everywhere(TOKENS).float()),
            r"FineTuningTask: at: expected bool of shape \(3, 10\), got \(3, 10\) of torch.float32",
        ),
        (
            lambda: FineTuningTask.of(MODEL, None, TOKENS, TOKENS < 0),
            "FineTuningTask: at: expected at least one token to train on, got none",
        ),
        (lambda: tuned(method="kd"), "FineTuningTask: teacher: expected one for a method that needs it, got None"),
        (lambda: tuned(steps=0), "fine_tune: steps: expected an integer of at least 1, got 0"),
        (lambda: tuned(batch=2.0), "fine_tune: batch: expected an integer of at least 1, got 2.0"),
        (lambda: tuned(old_every=0), "fine_tune: old_every: expected an integer of at least 1, got 0"),
        (lambda: tuned(every=-1), "fine_tune: every: expected an integer of at least 1, got -1"),
        (lambda: tuned(lr=float("nan")), "fine_tune: lr: expected a positive number, got nan"),
        (lambda: tuned(method=3), "method: expected an id of the catalogue, a QMap or a loss function, got 3"),
        (lambda: tuned(lr=1e30, steps=3), "sft: logits: expected"),
    ],
)
def test_a_wrong_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_an_unknown_method_is_refused_with_its_near_match() -> None:
    with pytest.raises(KeyError, match="unknown method 'sftt', did you mean sft"):
        tuned(method="sftt")
