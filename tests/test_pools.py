"""What methods take from a token's sequence or batch: the statistics, and the methods that use them, by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import qunify as qu
from qunify.catalogue import ENTRIES
from qunify.pictures import _one_token
from qunify.token import Pool, Pooling, SymbolicToken, surprise
from qunify.training import Data, Job, Stack, Tabular
from tests.battery import batch

LOOKING = [name for name, cls in ENTRIES.items() if cls.pools]
HOW = ("mean", "std", "quantile", "below", "above")


# ---- statistics -------------------------------------------------------------------------------------------------


def by_hand(pool: Pool, x: list[float], sequence: list[int], shares: list[float], i: int) -> float:
    """The statistic at position i, every value with its share."""
    own, values, weights = x[i], x, shares
    if pool.over == "sequence":
        members = [j for j, s in enumerate(sequence) if s == sequence[i]]
        values, weights = [x[j] for j in members], [shares[j] for j in members]
    elif pool.over == "sequences":
        mean = Pool("mean", pool.of)
        means = {s: by_hand(mean, x, sequence, shares, sequence.index(s)) for s in sequence}
        own, values, weights = means[sequence[i]], list(means.values()), [1.0] * len(means)
    total = sum(weights)
    mean_of = sum(w * v for w, v in zip(weights, values, strict=True)) / total
    if pool.how == "mean":
        return mean_of
    if pool.how == "std":
        return math.sqrt(sum(w * (v - mean_of) ** 2 for w, v in zip(weights, values, strict=True)) / total)
    if pool.how == "quantile":
        return next(
            v for v in sorted(values)
            if sum(w for w, o in zip(weights, values, strict=True) if o <= v) >= pool.share * total - 1e-6
        )  # fmt: skip
    side = (lambda v: v < own) if pool.how == "below" else (lambda v: v > own)
    return sum(w for w, v in zip(weights, values, strict=True) if side(v)) / total


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=12),
    st.sampled_from(HOW),
    st.sampled_from(("sequence", "batch", "sequences")),
    st.sampled_from((0.3, 0.5, 0.9)),
    st.booleans(),
)
def test_a_statistic_is_what_its_words_say(
    rows: list[tuple[int, int, int]], how: Any, over: Any, share: float, weighted: bool
) -> None:
    x, sequence = [float(v) for v, _, _ in rows], [s for _, s, _ in rows]
    shares = [float(w) if weighted else 1.0 for _, _, w in rows]
    pool, of = Pool(how, surprise, over, share), torch.tensor(sequence)
    if over == "sequences":  # means of fractions tie only up to rounding: make them tell
        x = [v + 0.137 * s for v, s in zip(x, sequence, strict=True)]
    pooling = Pooling(of, torch.zeros_like(of), torch.tensor(shares) if weighted else None)
    found = pooling.combine(pool, torch.tensor(x, dtype=torch.float64)[:, None])
    expected = [by_hand(pool, x, sequence, shares, i) for i in range(len(x))]
    near = how in ("mean", "std", "quantile") or over != "sequences"
    if near or len({round(v, 9) for v in expected}) == len(set(sequence)):
        torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("how", HOW)
def test_a_statistic_of_nothing_is_empty(how: Any) -> None:
    none = torch.zeros(0, 1)
    for over in ("sequence", "batch", "sequences"):
        assert Pooling.of_one(none).combine(Pool(how, surprise, over), none).shape == (0, 1)


def test_symbols_know_a_statistic_by_its_name_alone() -> None:
    t = SymbolicToken()
    mean, spread = t.pooled(Pool("mean", surprise)), t.pooled(Pool("std", surprise))
    assert mean == SymbolicToken().pooled(Pool("mean", surprise)) != spread
    assert mean.is_positive
    assert spread.is_positive is None
    assert spread.is_nonnegative
    assert not mean.diff(t.p_y)


# ---- the methods, by hand -----------------------------------------------------------------------------------------

Sequences = list[list[dict[str, Any]]]  #: of each position u, H(p), the contexts' probabilities of the label
B = batch(24)
SOME = slice(60, 120)
LENGTHS = (1, 2, 5, 9, 30, 13)


def sequences() -> tuple[Sequences, Tensor]:
    """Sixty positions in six sequences, as numbers; and the number of each one's sequence."""
    p, of = B.logits[SOME].softmax(-1), torch.arange(6).repeat_interleave(torch.tensor(LENGTHS))
    found: Sequences = [[] for _ in LENGTHS]
    for i in range(60):
        y = int(B.labels[SOME][i])
        position = {"row": i, "u": float(p[i, y]), "entropy": float(-(p[i] * p[i].log()).sum())}
        for name in ("reference", "teacher"):
            position[name] = float(B.context[f"{name}_logits"][SOME][i].softmax(-1)[y])
        found[int(of[i])].append(position)
    return found, of


def _nll(position: dict[str, Any]) -> float:
    return -math.log(position["u"])


def _of_all(s: Sequences, f: Callable[[dict[str, Any]], float]) -> list[float]:
    return [f(x) for one in s for x in one]


def _means(s: Sequences) -> list[float]:
    return [statistics.fmean(map(_nll, one)) for one in s]


def _chosen(values: list[float], value: float, share: float, *, highest: bool) -> float:
    """1 where fewer than `share` of the values lie beyond this one."""
    beyond = sum(v > value if highest else v < value for v in values)
    return float(beyond / len(values) < share)


def _excess(x: dict[str, Any]) -> float:
    return math.log(x["reference"]) - math.log(x["u"])


def _cadft(s: Sequences, i: int, x: dict[str, Any]) -> float:
    means = _means(s)
    z = (means[i] - statistics.fmean(means)) / (statistics.pstdev(means) + 1e-6)
    return float(x["u"] * math.exp(-max(z, 0)))


def _cayley(s: Sequences, i: int, x: dict[str, Any]) -> float:
    f = statistics.fmean(_of_all(s, lambda o: o["u"])) / 2
    return float(x["u"] ** min(max(f + (1 - f) * x["u"] / (2 - x["u"]), 0.001), 1))


#: The weight on the label, of all sequences, the number of this one, and the position.
WEIGHTS: dict[str, Callable[[Sequences, int, dict[str, Any]], float]] = {
    "srft": lambda s, i, x: 0.5 * math.exp(-statistics.fmean(o["entropy"] for o in s[i])),
    "cadft": _cadft,
    "talr_median": lambda s, i, x: max(x["u"] ** (1 / statistics.median_low(_means(s))), 0.01),
    "cayley_floor": _cayley,
    "rho1": lambda s, i, x: _chosen(_of_all(s, _excess), _excess(x), 0.6, highest=True),
    "loss_truncation": lambda s, i, x: _chosen(_means(s), _means(s)[i], 0.6, highest=False),
    "lowest_losses": lambda s, i, x: _chosen(_of_all(s, _nll), _nll(x), 0.7, highest=False),
    "high_entropy": lambda s, i, x: _chosen(_of_all(s, lambda o: o["entropy"]), x["entropy"], 0.2, highest=True),
    "antiop": lambda s, i, x: min(1, 3 * statistics.median_low(_of_all(s, _nll)) / _nll(x)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weight_by_hand_is_the_method_s(name: str) -> None:
    s, of = sequences()
    q = qu.get(name)(B.logits[SOME], B.labels[SOME], sequence_ids=of, **{k: v[SOME] for k, v in B.context.items()})
    by_hand = torch.tensor([WEIGHTS[name](s, i, x) for i, one in enumerate(s) for x in one], dtype=torch.float64)
    away = B.logits[SOME].softmax(-1) - torch.nn.functional.one_hot(B.labels[SOME], 24)
    torch.testing.assert_close(q.gradient, by_hand[:, None] * away, rtol=1e-9, atol=1e-12)
    assert float(by_hand.std()) > 0, "positions are weighted differently"


def test_atkd_by_hand_is_dkd_at_two_settings() -> None:
    context = {"teacher_logits": B.context["teacher_logits"][SOME]}
    q = qu.get("atkd")(B.logits[SOME], B.labels[SOME], **context)
    tea = context["teacher_logits"].softmax(-1).gather(1, B.labels[SOME, None])[:, 0]
    hard = torch.tensor([sum(bool(1 - o < 1 - x) for o in tea) / 60 >= 0.5 for x in tea])
    one, other = (
        qu.get("dkd", alpha=alpha, beta=beta)(B.logits[SOME], B.labels[SOME], **context).gradient
        for alpha, beta in ((0.8, 0.8), (0.0, 0.2))
    )
    torch.testing.assert_close(q.gradient, torch.where(hard[:, None], one, other), rtol=1e-9, atol=1e-12)
    assert 0 < int(hard.sum()) < 60


def test_every_method_that_looks_beyond_its_position_is_written_a_second_time() -> None:
    assert set(LOOKING) == {*WEIGHTS, "atkd"}


# ---- one meaning everywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOOKING)
def test_what_a_method_asks_for_is_what_it_declares(name: str) -> None:
    m = qu.get(name)
    t = qu.token.read(name, m.needs, B.logits, B.labels, -100, B.context)[0]
    list(m.pulls(t))
    m.loss(t)
    assert set(t.statistics) == set(m.pools)


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_the_fused_loss_sees_whole_sequences(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qunify.token._tensors.BLOCK", 50 * 3)  # blocks of three rows
    r = torch.Generator().manual_seed(3)
    hidden = torch.randn(4, 11, 6, generator=r, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 6, generator=r, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(50, (4, 11), generator=r)
    labels[0, 6:] = labels[3] = -100
    contexts = {n: torch.randn(4, 11, 50, generator=r, dtype=torch.float64) for n in qu.get(name).needs}
    for ids in (None, torch.tensor([[0] * 4 + [1] * 7, [2] * 11, [3] * 10 + [4], [5] * 11])):
        fused = qu.linear_loss(hidden, weight, labels, name, chunk_size=chunk, sequence_ids=ids, **contexts)
        whole = qu.loss(name)(hidden @ weight.T, labels, **contexts, **({} if ids is None else {"sequence_ids": ids}))
        torch.testing.assert_close(fused, whole, rtol=1e-12, atol=1e-12)
        for a, b in zip(*(torch.autograd.grad(x, (hidden, weight)) for x in (fused, whole)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert whole != 0


def test_rows_are_sequences_unless_it_is_said_otherwise() -> None:
    logits, labels = B.logits[SOME].view(4, 15, 24), B.labels[SOME].view(4, 15)
    m, rows = qu.get("srft"), torch.arange(4)[:, None].expand(4, 15)
    by_default, said = m(logits, labels).loss, m(logits, labels, sequence_ids=rows).loss
    alone = torch.stack([m(z, y).loss for z, y in zip(logits, labels, strict=True)])
    assert torch.equal(by_default, said)
    torch.testing.assert_close(by_default, alone, rtol=1e-12, atol=1e-12)
    halves = m(logits, labels, sequence_ids=torch.arange(60).view(4, 15) // 5).loss
    assert not torch.allclose(by_default, halves)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (torch.zeros(3, 4), "sequence_ids: expected integers, got float32"),
        (torch.zeros(3, 5, dtype=torch.long), r"expected shape \(3, 4\) to match the labels, got \(3, 5\)"),
        (torch.zeros(3, 4, dtype=torch.long), "expected a sequence in one row, got 0 in two"),
        (torch.tensor([[0], [1], [-1]]).expand(3, 4), "expected a number from 0 wherever a label is kept, got -1"),
    ],
)
def test_wrong_sequences_are_one_sentence(ids: Tensor, sentence: str) -> None:
    labels = torch.zeros(3, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=sentence):
        qu.loss("srft")(torch.randn(3, 4, 7), labels, sequence_ids=ids)
    with pytest.raises(ValueError, match=sentence):
        qu.linear_loss(torch.randn(3, 4, 2), torch.randn(7, 2), labels, "srft", sequence_ids=ids)


def test_a_near_miss_of_its_name_is_told() -> None:
    with pytest.raises(ValueError, match="srft: unknown context 'sequence_id', did you mean sequence_ids"):
        qu.loss("srft")(torch.randn(3, 4, 7), torch.zeros(3, 4, dtype=torch.long), sequence_id=torch.zeros(3, 4))


def test_a_batch_without_labels_is_zero() -> None:
    none = torch.full((2, 3), -100)
    for name in LOOKING:
        contexts = {n: torch.zeros(2, 3, 5) for n in qu.get(name).needs}
        assert float(qu.loss(name)(torch.randn(2, 3, 5), none, **contexts)) == 0
        assert float(qu.linear_loss(torch.randn(2, 3, 2), torch.randn(5, 2), none, name, **contexts)) == 0


@pytest.mark.parametrize("name", LOOKING)
def test_the_drift_is_that_of_a_text_of_such_positions(name: str) -> None:
    r = torch.Generator().manual_seed(5)
    z, truth = torch.randn(4, generator=r, dtype=torch.float64), torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    contexts: dict[str, Any] = {n: torch.randn(4, generator=r, dtype=torch.float64) for n in qu.get(name).needs}
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    text: dict[str, Any] = {n: x.expand(10, 4) for n, x in contexts.items()}
    mean = qu.get(name)(z.expand(10, 4), labels, **text).gradient.mean(0)
    torch.testing.assert_close(qu.drift(name, z.softmax(-1), truth, **contexts), -mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOOKING)
def test_a_page_draws_the_token_that_it_tells(name: str) -> None:
    """The curve of the trust goes through the token of the table, which is a sequence of its own."""
    m, weights = qu.get(name), _one_token.WEIGHTS
    u = torch.tensor([0.1, weights[_one_token.LABEL] / sum(weights), 0.9], dtype=torch.float64)
    _, trust, _ = _one_token.along(m, u, mass=sum(weights))
    assert float(trust[1]) == pytest.approx(_one_token.example(m)["gauges"]["unit"]["trust"], rel=1e-9)


def test_in_a_population_every_sequence_is_a_text_of_such_positions() -> None:
    # Of labels that come at 0.5, 0.3 and 0.2, the lowest 70 % of losses never have the last one.
    optimum = qu.optimum("lowest_losses", [0.5, 0.3, 0.2])
    torch.testing.assert_close(optimum.probs, torch.tensor([0.625, 0.375, 0.0], dtype=torch.float64), atol=1e-6, rtol=0)
    # e^(−H) is one number for all labels, so that nothing is trusted more than anything else.
    torch.testing.assert_close(
        qu.optimum("srft", [0.5, 0.3, 0.2]).probs, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_multiple_of_the_median_that_few_batches_reach_is_no_special_case() -> None:
    """Antiop lowers what is above 40 medians, which in a batch of tokens that are nearly certain is any other one."""
    assert qu.compare(qu.get("antiop", multiple=40), "sft").level == "directional"
    found = qu.subsumes("antiop", "sft")
    assert found is None or found.limit


@pytest.mark.parametrize("name", LOOKING)
def test_models_trained_together_each_have_a_text_of_their_own(name: str) -> None:
    """What occurs often counts as often, in training and in what is trusted; another model's text changes nothing."""
    r = torch.Generator().manual_seed(6)
    often = torch.tensor([4, 3, 2, 1])
    contexts = {n: torch.randn(4, 4, generator=r, dtype=torch.float64) for n in qu.get(name).needs}
    counted = Data(torch.arange(4) % 2, torch.arange(4), contexts, often)
    each: dict[str, Any] = {n: x.repeat_interleave(often, 0) for n, x in contexts.items()}
    spelt = Data(counted.inputs.repeat_interleave(often), counted.labels.repeat_interleave(often), each)
    other = Data(counted.inputs, counted.labels.flip(0), contexts, often)
    m = qu.get(name)
    one, two, alone = (
        Stack(Tabular(2, 4), [Job(m, d, 0, 0.5) for d in data]).run(5)
        for data in ([spelt], [counted, other], [counted])
    )
    states = torch.arange(2)
    for trained in (two, alone):
        torch.testing.assert_close(trained.probs(states)[0], one.probs(states)[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            trained.trust()[0].repeat_interleave(often), one.trust()[0], rtol=1e-9, atol=1e-12, equal_nan=True
        )
    expected = m(one.logits(states)[0][spelt.inputs], spelt.labels, **each).trust
    torch.testing.assert_close(one.trust()[0], expected, rtol=1e-9, atol=1e-12, equal_nan=True)
