"""The tokens that every method is tried on are as different as they are said to be, and no setting is left out."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.token import CONTEXTS
from tests import battery, test_properties
from tests.battery import Batch, batch

VOCABS = (2, 5, 7, 24)
UNIFORM, ONE_HOT = slice(180, 184), slice(184, 188)


@pytest.mark.parametrize("vocab", VOCABS)
def test_no_two_ordinary_tokens_are_alike(vocab: int) -> None:
    b = batch(vocab)
    assert len(b.logits[:180].unique(dim=0)) == 180
    spread = b.logits.reshape(-1, vocab).std(-1)
    for scale, at in ((1, slice(0, 60)), (3, slice(60, 120)), (8, slice(120, 180))):
        assert 0.5 * scale < float(spread[at].mean()) < 1.2 * scale
    assert float(spread[UNIFORM].max()) == 0
    assert float(torch.softmax(b.logits[ONE_HOT], -1).amax(-1).min()) > 1 - 1e-11
    assert set(b.labels.tolist()) == set(range(vocab))
    peak = b.logits.argmax(-1) == b.labels
    assert bool(peak[ONE_HOT].any())
    assert bool(peak[ONE_HOT].all()) == (vocab == 2), "the label is on the peak and off it"
    assert not bool(peak[40:60].any()), "the label is the runner-up"


@pytest.mark.parametrize("vocab", VOCABS)
def test_every_context_is_there_and_none_is_another(vocab: int) -> None:
    b = batch(vocab)
    assert set(b.context) == set(CONTEXTS)
    distributions = {"policy": b.logits} | {k: v for k, v in b.context.items() if k.endswith("_logits")}
    p = {name: torch.softmax(z, -1) for name, z in distributions.items()}
    for one in p:
        for other in p:
            apart = (p[one] - p[other]).abs().amax(-1) > 1e-3
            assert one == other or float(apart[:180].double().mean()) > 0.5, f"{one} is {other}"
    sure = torch.softmax(b.context["teacher_logits"], -1).amax(-1) > 1 - 1e-11
    same = (b.context["teacher_logits"] == b.logits).all(-1)
    assert min(int(sure.sum()), int(same.sum())) > 10, "some are one-hot, some are the policy itself"


@pytest.mark.parametrize("vocab", VOCABS)
def test_weights_and_masks_take_all_their_kinds_of_values(vocab: int) -> None:
    b = batch(vocab)
    weight, kept, negative = (b.context[name] for name in ("token_weight", "token_mask", "negative_mask"))
    for some in (weight < 0, weight == 0, (weight > 0) & (weight < 1), weight > 1, kept, ~kept):
        assert 10 < int(some.sum()) < len(b.labels) - 10
    assert 0.1 < float(negative.double().mean()) < 0.4
    assert not bool(negative.gather(1, b.labels[:, None]).any()), "the label is never a negative"
    assert len({tuple(row) for row in negative.tolist()}) > 1


def test_another_seed_gives_other_tokens() -> None:
    one, other = batch(5), batch(5, seed=1)
    assert not bool((one.logits[:180] == other.logits[:180]).all(-1).any())
    assert not torch.equal(one.labels, other.labels)


def test_properties_are_asked_of_batches_that_differ() -> None:
    seen: list[Batch] = []

    @given(test_properties.batches())
    @settings(max_examples=30, database=None)
    def draw(b: Batch) -> None:
        seen.append(b)

    draw()
    assert len({tuple(b.logits.flatten().tolist()) for b in seen}) > 20
    assert {b.logits.shape[-1] for b in seen} >= {2, 12}
    rows = [row for b in seen for row in b.logits if b.logits.shape[-1] > 2]
    assert len({tuple(row.tolist()) for row in rows}) > 40


@pytest.mark.parametrize("name", ENTRIES)
def test_settings_hold_the_default_every_bound_and_every_example(name: str) -> None:
    tried = [qu.get(name, **params) for params in battery.settings(name)]
    assert tried[0] == qu.get(name)
    for example in ENTRIES[name].examples:
        assert qu.get(name, **example) in tried
    for f in dataclasses.fields(ENTRIES[name]):  # type: ignore[arg-type]
        values = {getattr(m, f.name) for m in tried}
        bounds = {b for b in (f.metadata["low"], f.metadata["high"]) if b is not None}
        if f.name not in {"low", "high"}:  # the ends of a band, of which one bounds the other
            assert values >= {f.default, *f.metadata["choices"], *bounds}, f.name


def test_every_setting_is_every_entrys() -> None:
    cases = battery.every_setting()
    assert [c.values[0].name for c in cases] == [name for name in ENTRIES for _ in battery.settings(name)]
    assert len({c.id for c in cases}) == len(cases)
