"""Many small models at once: the same as one by one, by automatic differentiation, and after a stop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import qunify as qu
from qunify._lib.digests import digest
from qunify.token import read
from qunify.training import Data, Job, Linear, Network, Stack, Tabular, TwoLayer, sweep
from qunify.training import _sweeps as sweeps_module
from qunify.training._stacks import _Order
from qunify.training._sweeps import _train
from tests.battery import settings

V, N, D = 4, 30, 3
FIRST = torch.zeros(2, 3, dtype=torch.long)
METHODS = ("sft", "dft", "label_smoothing", "target_sft", "sft_kl", "gem", "brier")


def data(seed: int = 0, *, states: bool = False) -> Data:
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randint(5, (N,), generator=g) if states else torch.randn(N, D, generator=g, dtype=torch.float64)
    logits = {
        name: torch.randn(N, V, generator=g, dtype=torch.float64)
        for name in ("teacher_logits", "reference_logits", "old_logits", "prior_logits")
    }
    rest = {
        "token_weight": torch.rand(N, generator=g, dtype=torch.float64) + 0.5,
        "token_mask": torch.ones(N, dtype=torch.float64),
        "negative_mask": torch.zeros(N, V, dtype=torch.float64),
        "teacher_base_logits": torch.randn(N, V, generator=g, dtype=torch.float64),
        "token_values": torch.arange(V, dtype=torch.float64).expand(N, V),
    }
    return Data(inputs, torch.randint(V, (N,), generator=g), logits | rest)


NETWORKS: dict[str, Network] = {
    "tabular": Tabular(5, V),
    "linear": Linear(D, V),
    "two_layer": TwoLayer(D, 6, V),
    "relu": TwoLayer(D, 6, V, activation="relu"),
}


def by_hand(
    network: Network, job: Job, steps: int, batch: int | None, optimiser: str, old_every: int | None = None
) -> Tensor:
    """One model trained by torch alone, through the method's published loss."""
    g = torch.Generator().manual_seed(job.seed)
    parameters = {k: v[None].clone().requires_grad_() for k, v in network.start(job.seed).items()}
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimise = kinds[optimiser](list(parameters.values()), lr=job.lr)
    epoch: Tensor = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        at = torch.arange(N)
        if job.order is not None:
            at = job.order[step]
        elif batch is not None:
            if len(epoch) < batch:
                epoch = torch.randperm(N, generator=g)
            at, epoch = epoch[:batch], epoch[batch:]
        z = network.logits(parameters, network.represent(parameters, job.data.inputs[at][None]))[0]
        context = {k: v[at] for k, v in job.data.context.items() if k in job.method.needs}
        if old_every is not None:
            if step % old_every == 0:
                old = {k: v.detach().clone() for k, v in parameters.items()}
            context["old_logits"] = network.logits(old, network.represent(old, job.data.inputs[at][None]))[0]
        t, _ = read("test", job.method.needs, z, job.data.labels[at], -100, context)
        optimise.zero_grad()
        job.method.loss(t).mean().backward()
        optimise.step()
    everything = network.logits(parameters, network.represent(parameters, job.data.inputs[None]))[0]
    return everything.softmax(-1).detach()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("batch", "optimiser"), [(None, "sgd"), (8, "adam"), (10, "sgd")])  # 30 is 3 batches of 10
def test_a_stack_trains_as_automatic_differentiation_does(kind: str, batch: int | None, optimiser: Any) -> None:
    mine = [data(seed, states=kind == "tabular") for seed in range(2)]
    jobs = [Job(qu.get(m), d, seed) for m in METHODS for seed, d in enumerate(mine)]
    stack = Stack(NETWORKS[kind], jobs, batch=batch, optimiser=optimiser).run(25)
    for i, job in enumerate(jobs):
        expected = by_hand(NETWORKS[kind], job, 25, batch, optimiser)
        torch.testing.assert_close(stack.probs(job.data.inputs)[i], expected, rtol=0, atol=1e-10)
    assert (stack.diverged == -1).all()


@pytest.mark.parametrize(("examples", "batch"), [(12, 4), (12, 5), (7, 7), (3, 1)])
def test_an_epoch_takes_every_example_once_but_for_a_rest_too_small(examples: int, batch: int) -> None:
    order = _Order([3, 4, 3], examples, batch)
    for _ in range(3):
        epoch = torch.cat([order.next() for _ in range(examples // batch)], 1)
        assert epoch.shape == (3, examples // batch * batch)
        assert all(len(set(row.tolist())) == len(row) for row in epoch)
        assert torch.equal(epoch[0], epoch[2])


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_older_policy_is_renewed_every_so_many_steps(kind: str) -> None:
    """The data's `old_logits` are not looked at; a method without an older policy trains as it would alone."""
    d = data(states=kind == "tabular")
    jobs = [Job(qu.get(m), d, lr=2.0) for m in ("psft", "sft")]
    renewed = Stack(NETWORKS[kind], jobs, batch=8, old_every=3).run(10)
    for i, job in enumerate(jobs):
        expected = by_hand(NETWORKS[kind], job, 10, 8, "sgd", old_every=3 if i == 0 else None)
        torch.testing.assert_close(renewed.probs(d.inputs)[i], expected, rtol=0, atol=1e-10)
    other = Stack(NETWORKS[kind], jobs, batch=8, old_every=4).run(10)
    fixed = Stack(NETWORKS[kind], jobs, batch=8).run(10)
    for stack in (other, fixed):
        assert not torch.equal(stack.probs(d.inputs)[0], renewed.probs(d.inputs)[0])
        assert torch.equal(stack.probs(d.inputs)[1], renewed.probs(d.inputs)[1])


def test_without_a_renewed_policy_the_data_must_hold_one() -> None:
    bare = Data(data().inputs, data().labels)
    with pytest.raises(ValueError, match="psft: missing context, expected the keyword argument old_logits"):
        Stack(Linear(D, V), [Job(qu.get("psft"), bare)])
    assert Stack(Linear(D, V), [Job(qu.get("psft"), bare)], old_every=2).run(5).step == 5


def test_an_order_of_ones_own_says_what_each_step_sees() -> None:
    orders = torch.randint(N, (2, 12, 4), generator=torch.Generator().manual_seed(0))
    jobs = [Job(qu.get("dft"), data(i), order=order) for i, order in enumerate(orders)]
    stack = Stack(TwoLayer(D, 6, V), jobs, optimiser="adam").run(5).run(7)
    for i, job in enumerate(jobs):
        expected = by_hand(TwoLayer(D, 6, V), job, 12, None, "adam")
        torch.testing.assert_close(stack.probs(job.data.inputs)[i], expected, rtol=0, atol=1e-10)
    with pytest.raises(
        ValueError, match="Stack: steps: expected at most 0, which is what the jobs' order has left, got 1"
    ):
        stack.run(1)


def test_orders_of_two_lengths_are_swept_apart() -> None:
    orders = [torch.zeros(3, b, dtype=torch.long) for b in (1, 2, 1)]
    several = [Job(qu.get("sft"), data(states=True), order=order) for order in orders]
    table = sweep(Tabular(5, V), several, [3], confidence)
    alone = [sweep(Tabular(5, V), [job], [3], confidence)["confidence"].item() for job in several]
    assert table["confidence"].tolist() == pytest.approx(alone, abs=1e-13)


def test_another_order_is_not_taken_from_the_folder(tmp_path: Path) -> None:
    for i in range(2):
        job = Job(qu.get("sft"), data(states=True), order=torch.full((3, 1), i))
        sweep(Tabular(5, V), [job], [3], confidence, folder=tmp_path, key="one")
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_trust_is_that_of_the_method_in_every_example() -> None:
    """In the order of the jobs, however they are grouped, with the older policy of a stack that renews it."""
    several = [Job(qu.get(m), data(s), s) for s, m in enumerate(("dft", "psft", "iw_sft", "dft", "kd"))]
    stack = Stack(Linear(D, V), several, old_every=3).run(4)
    old = Stack(Linear(D, V), several, old_every=3).run(3)  # the present policy when it was last renewed
    for i, job in enumerate(several):
        logits = stack.logits(job.data.inputs)[i]
        context: dict[str, Any] = {**job.data.context, "old_logits": old.logits(job.data.inputs)[i]}
        expected = job.method(logits, job.data.labels, **context).trust
        torch.testing.assert_close(stack.trust()[i], expected, rtol=0, atol=1e-12)
    stack.diverged[1] = 2
    assert stack.trust()[1].isnan().all()
    assert stack.trust()[[0, 2, 3, 4]].isfinite().all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_models_are_asked_about_shared_inputs_or_each_about_its_own(kind: str) -> None:
    own = [data(s, states=kind == "tabular") for s in range(3)]
    stack = Stack(NETWORKS[kind], [Job(qu.get("sft"), d, s) for s, d in enumerate(own)]).run(3)
    found = stack.logits(torch.stack([d.inputs for d in own]))
    assert found.shape == (3, N, V)
    for i, d in enumerate(own):
        torch.testing.assert_close(found[i], stack.logits(d.inputs)[i], rtol=0, atol=1e-13)
    assert torch.equal(stack.probs(own[0].inputs), stack.logits(own[0].inputs).softmax(-1))
    with pytest.raises(ValueError, match="Stack: inputs: expected those of 3 models, got"):
        stack.logits(torch.stack([d.inputs for d in own[:2]]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_together_and_one_by_one_are_the_same(kind: str) -> None:
    jobs = [Job(qu.get(m), data(s, states=kind == "tabular"), s) for s in range(3) for m in METHODS]
    together = Stack(NETWORKS[kind], jobs, batch=10, optimiser="adam").run(40)
    x = jobs[0].data.inputs
    for i, job in enumerate(jobs):
        alone = Stack(NETWORKS[kind], [job], batch=10, optimiser="adam").run(40)
        torch.testing.assert_close(together.probs(x)[i], alone.probs(x)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", qu.names())
def test_every_method_trains(name: str) -> None:
    d = data(states=True)
    jobs = [Job(qu.get(name, **s), d) for s in settings(name)]
    stack = Stack(Tabular(5, V), jobs).run(3)
    assert (stack.diverged == -1).all()
    moved = (stack.probs(torch.arange(5)) - 1 / V).abs().amax((1, 2))
    assert name in ("logit_norm",) or (moved > 0).any()


def test_counts_stand_for_repeated_examples() -> None:
    d = data(states=True)
    pairs, counts = torch.stack([d.inputs, d.labels]).unique(dim=1, return_counts=True)
    short = Data(pairs[0], pairs[1], counts=counts)
    long, brief = (Stack(Tabular(5, V), [Job(qu.get("focal"), x)]).run(20).probs(torch.arange(5)) for x in (d, short))
    torch.testing.assert_close(long, brief, rtol=0, atol=1e-14)


def test_a_start_is_taken_up() -> None:
    start = {"logits": torch.randn(5, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    stack = Stack(Tabular(5, V), [Job(qu.get("sft"), data(states=True), start=start)])
    torch.testing.assert_close(stack.probs(torch.arange(5))[0], start["logits"].softmax(-1))


def test_a_model_that_diverged_stays_where_it_is_under_momentum() -> None:
    d = data()
    stack = Stack(Linear(D, V), [Job(qu.get("sft"), d), Job(qu.get("dft"), d)], optimiser="adam").run(3)
    stack.diverged[0] = 3
    before = stack.parameters["weight"].clone()
    stack.run(3)
    assert torch.equal(stack.parameters["weight"][0], before[0])
    assert not torch.equal(stack.parameters["weight"][1], before[1])


def test_the_rate_decays_to_nothing() -> None:
    job = Job(qu.get("sft"), data(states=True))
    stack = Stack(Tabular(5, V), [job], decay=10).run(10)
    before = stack.probs(torch.arange(5))
    torch.testing.assert_close(stack.run(20).probs(torch.arange(5)), before, atol=1e-4, rtol=0)
    assert not torch.equal(before, Stack(Tabular(5, V), [job]).run(10).probs(torch.arange(5)))


def test_a_model_that_diverges_is_named_and_the_others_go_on() -> None:
    explosive = qu.design("explosive", trust=lambda t: t.p_label * 1e308 * 10, residual=lambda t: t.policy)
    d = data()
    jobs = [Job(qu.get("sft"), d), Job(explosive, d), Job(qu.get("dft"), d)]
    stack = Stack(Linear(D, V), jobs).run(5)
    assert stack.diverged.tolist() == [-1, 1, -1]
    p = stack.probs(d.inputs)
    assert p[1].isnan().all()
    torch.testing.assert_close(p[[0, 2]], Stack(Linear(D, V), [jobs[0], jobs[2]]).run(5).probs(d.inputs))


# ---- sweeps -----------------------------------------------------------------------------------------------------
def confidence(stack: Stack) -> dict[str, Tensor]:
    return {"confidence": stack.probs(torch.arange(5)).amax(-1).mean(-1)}


def jobs() -> list[Job]:
    return [
        Job(qu.get(m), data(s, states=True), s, lr, {"world": s})
        for s in range(2)
        for lr in (0.1, 0.5)
        for m in ("sft", "dft", "kd")
    ]


def test_a_sweep_is_a_tidy_table(tmp_path: Path) -> None:
    table = sweep(Tabular(5, V), jobs(), [0, 5, 10], confidence, size=4, folder=tmp_path, key="1")
    assert list(table.columns) == ["world", "method", "seed", "lr", "step", "confidence", "diverged"]
    assert len(table) == 12 * 3
    assert table["step"].tolist() == [0, 5, 10] * 12
    assert table["method"].tolist()[:9:3] == ["sft", "dft", "kd"]
    assert (table.loc[table["step"] == 0, "confidence"] == 1 / V).all()
    one = Stack(Tabular(5, V), [jobs()[4]]).run(10)
    row = table[(table["method"] == "dft") & (table["lr"] == 0.5) & (table["seed"] == 0) & (table["step"] == 10)]
    assert row["confidence"].item() == pytest.approx(float(confidence(one)["confidence"]), abs=1e-13)


def test_a_stopped_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(Tabular(5, V), jobs(), [5], confidence, size=2)
    train = _train
    done: list[int] = []

    def interrupted(i: int, *rest: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(i)
        return train(i, *rest)

    monkeypatch.setattr(sweeps_module, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(Tabular(5, V), jobs(), [5], confidence, size=2, folder=tmp_path, key="1")
    assert len(list(tmp_path.glob("*.json"))) == 3
    done.clear()

    def counted(i: int, *rest: Any) -> Any:
        done.append(i)
        return train(i, *rest)

    monkeypatch.setattr(sweeps_module, "_train", counted)
    again = sweep(Tabular(5, V), jobs(), [5], confidence, size=2, folder=tmp_path, key="1")
    assert len(done) == 3, "six parts, three of them kept"
    pd.testing.assert_frame_equal(again, whole, rtol=0, atol=0)
    assert not list(tmp_path.glob("*.partial"))


def test_the_key_and_the_values_tell_parts_apart(tmp_path: Path) -> None:
    def half(power: float) -> Any:
        return qu.design("half", trust=lambda t, a: t.exp(a * t.log_p_label), residual=lambda t: t.policy, a=power)

    def value(power: float, measure: Any, key: str) -> float:
        job = Job(half(power), data(states=True))
        table = sweep(Tabular(5, V), [job], [5], measure, folder=tmp_path, key=key)
        return float(table["confidence"].item())

    def doubled(stack: Stack) -> Any:
        return {"confidence": 2 * confidence(stack)["confidence"]}

    first = value(0.0, confidence, "1")
    assert value(2.0, confidence, "1") != first, "another parameter"
    assert value(0.0, doubled, "1") == first, "functions are not looked at"
    assert value(0.0, doubled, "2") == pytest.approx(2 * first), "but the key that stands for them"
    assert len(list(tmp_path.glob("*.json"))) == 3


def rows_removed(text: str) -> str:
    """The same table with its last row gone, as a user's editor might leave it."""
    head, _, body = text.rpartition("\n")
    return f"{head}\n{json.dumps({name: values[:-1] for name, values in json.loads(body).items()})}"


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:20], lambda text: "null", lambda text: "{}", lambda text: "[]", lambda text: "", rows_removed],
)
def test_a_damaged_part_is_made_again(tmp_path: Path, damage: Callable[[str], str]) -> None:
    first = sweep(Tabular(5, V), jobs()[:1], [0, 5], confidence, folder=tmp_path, key="1")
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage(path.read_text()))
    again = sweep(Tabular(5, V), jobs()[:1], [0, 5], confidence, folder=tmp_path, key="1")
    pd.testing.assert_frame_equal(again, first)


#: Two calls in turn that a sloppy name would take for one another: steps and jobs.
PAIRS: dict[str, tuple[tuple[list[int], Job], tuple[list[int], Job]]] = {
    "steps": (([1, 20], jobs()[0]), ([120], jobs()[0])),
    "a digit moves from the seed to the rate": (
        ([3], Job(qu.get("sft"), data(states=True), 1, 10.1)),
        ([3], Job(qu.get("sft"), data(states=True), 11, 0.1)),
    ),
    "a type": (
        ([3], Job(qu.get("sft"), data(states=True), 0, 0.1, start={"logits": torch.zeros(5, V)})),
        ([3], Job(qu.get("sft"), data(states=True), 0, 0.1, start={"logits": torch.zeros(5, V, dtype=torch.int64)})),
    ),
}


@pytest.mark.parametrize("calls", PAIRS.values(), ids=PAIRS)
def test_calls_that_differ_have_parts_of_their_own(
    tmp_path: Path, calls: tuple[tuple[list[int], Job], tuple[list[int], Job]]
) -> None:
    for n, (steps, job) in enumerate(calls, 1):
        table = sweep(Tabular(5, V), [job], steps, confidence, folder=tmp_path, key="1")
        assert table["step"].tolist() == steps
        pd.testing.assert_frame_equal(table, sweep(Tabular(5, V), [job], steps, confidence))
        assert len(list(tmp_path.glob("*.json"))) == n


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.lists(st.integers(0, 9), max_size=4).map(torch.tensor),
        st.lists(st.floats(0, 9), max_size=4).map(np.array),
    ),
    max_leaves=6,
)


@given(a=VALUES, b=VALUES)
def test_two_values_have_one_name_only_if_they_are_the_same(a: Any, b: Any) -> None:
    """`repr` of values this small shows everything, the type included."""
    assert (digest(a) == digest(b)) == (repr(a) == repr(b))


def test_long_arrays_are_told_apart_in_their_middle() -> None:
    one, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1
    assert digest({"x": one}) != digest({"x": other})
    assert digest(one) == digest(np.zeros(5000))


@pytest.mark.parametrize("kind", ["under a file", "read-only", "full"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(sweeps_module, "_train", lambda *a: pytest.fail("it trained"))
    folder = tmp_path / "sweep"
    if kind == "under a file":
        folder.write_text("")
        folder = folder / "sub"
    elif kind == "full":  # an empty file can still be made there
        full, whole = raising(OSError(28, "No space left on device")), Path.write_bytes
        monkeypatch.setattr(Path, "write_bytes", lambda path, content: (full if content else whole)(path, content))
    else:  # as root may write anywhere, the refusal comes from where files are written
        monkeypatch.setattr(Path, "write_bytes", raising(OSError(30, "Read-only file system")))
    with pytest.raises(ValueError, match="sweep: folder: expected a folder that can be written to, got"):
        sweep(Tabular(5, V), jobs()[:1], [5], confidence, folder=folder, key="1")


def raising(error: Exception) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise error

    return refuse


def test_what_a_stopped_process_left_half_written_goes_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    left, fresh = tmp_path / "a.json.1.partial", tmp_path / "b.json.2.partial"
    for path in (left, fresh):
        path.write_text("half")
    os.utime(left, (0, 0))
    sweep(Tabular(5, V), jobs()[:1], [1], confidence, folder=tmp_path, key="1")
    assert not left.exists()
    assert fresh.exists()


def test_an_object_that_cannot_be_told_from_another_is_refused(tmp_path: Path) -> None:
    class Teacher:
        pass

    taught = qu.design("d", trust=lambda t, of: t.p_label, residual=lambda t: t.policy, of=Teacher())
    with pytest.raises(ValueError, match=r"sweep: folder: expected .* got Teacher, of which two cannot be told apart"):
        sweep(Tabular(5, V), [Job(taught, data(states=True))], [1], confidence, folder=tmp_path, key="1")


def test_other_jobs_are_not_taken_from_the_folder(tmp_path: Path) -> None:
    first = sweep(Tabular(5, V), jobs()[:1], [5], confidence, folder=tmp_path, key="1")
    other = Job(qu.get("sft"), data(7, states=True), 0, 0.1, {"world": 0})
    second = sweep(Tabular(5, V), [other], [5], confidence, folder=tmp_path, key="1")
    assert first["confidence"].item() != second["confidence"].item()
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.slow
def test_two_processes_give_the_same_table() -> None:
    one = sweep(Tabular(5, V), jobs(), [3], confidence, size=3)
    pd.testing.assert_frame_equal(sweep(Tabular(5, V), jobs(), [3], confidence, size=3, workers=2), one)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table() -> None:
    from distributed import Client, LocalCluster

    one = sweep(Tabular(5, V), jobs(), [3], confidence, size=3)
    with (  # within this process: another test has one beside it, and yet another two of joblib's own
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        pd.testing.assert_frame_equal(sweep(Tabular(5, V), jobs(), [3], confidence, size=3), one)
        assert sum(worker.state.executed_count for worker in cluster.workers.values()) > 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Stack(Tabular(5, V), []), "Stack: jobs: expected a size of data common to all, got no job"),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("kd"), Data(torch.zeros(2, D), torch.zeros(2, dtype=torch.long)))]),
            "kd: missing context, expected the keyword argument teacher_logits",
        ),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), Data(torch.zeros(2, D), torch.tensor([0, 9])))]),
            "sft: labels: expected",
        ),
        (lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data())], batch=99), "Stack: batch: expected an integer in"),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data(), lr=0.1), Job(qu.get("sft"), data(), lr=0.2)]),
            "Stack: jobs: expected a learning rate common to all, got 0.1, 0.2",
        ),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data())], optimiser="lion"),  # type: ignore[arg-type]
            "Stack: optimiser: expected sgd or adam, got 'lion'",
        ),
        (lambda: sweep(Tabular(5, V), jobs(), [5, 5], confidence), "sweep: steps: expected increasing integers"),
        (lambda: sweep(Tabular(5, V), [], [5], confidence), "sweep: jobs: expected at least one, got none"),
        (lambda: sweep(Tabular(5, V), jobs(), [5], confidence, size=0), "sweep: size: expected an integer of at least"),
        (
            lambda: sweep(Tabular(5, V), [Job(qu.get("sft"), data(states=True), tags={"lr": 3})], [5], confidence),
            "sweep: tags: expected names other than the table's own, got lr",
        ),
        (
            lambda: sweep(Tabular(5, V), jobs()[:2], [5], lambda s: {"x": torch.tensor(1.0)}),
            r"sweep: measure: expected a tensor \(1,\) as 'x', one number per model, got \(\)|expected a tensor \(2,\)",
        ),
        (lambda: sweep(Tabular(5, V), jobs()[:1], [5], lambda s: {"x": 1.0}), "sweep: measure: .* got float"),  # type: ignore[dict-item]
        (
            lambda: sweep(Tabular(5, V), jobs(), [5], confidence, folder=__file__, key="1"),
            "sweep: folder: expected a folder",
        ),
        (
            lambda: sweep(Tabular(5, V), jobs(), [5], confidence, folder="runs"),
            "sweep: key: expected a name for the code",
        ),
        (lambda: Job(3, data()), "Job: method: expected an id of the catalogue, a QMap"),  # type: ignore[arg-type]
        (lambda: Job(qu.get("sft"), data(), lr=float("nan")), "Job: lr: expected a positive number"),
        (lambda: Job(qu.get("sft"), 0, data()), "Job: data: expected a Data, got int"),  # type: ignore[arg-type]
        (lambda: Data(torch.zeros(3, D), torch.zeros(4).long()), "Data: inputs: expected one for each of at least one"),
        (lambda: Data([0], torch.zeros(1).long()), "Data: inputs: expected a tensor, got list"),  # type: ignore[arg-type]
        (
            lambda: Data(torch.zeros(2).long(), torch.zeros(2).long(), counts=torch.tensor([1, -1])),
            "Data: counts: expected numbers of 0 or more, not all 0",
        ),
        (
            lambda: Data(torch.zeros(2).long(), torch.zeros(2).long(), counts=torch.ones(1)),
            r"Data: counts: expected shape \(2,\), got \(1,\)",
        ),
        (lambda: Stack(Tabular(2, V), [Job(qu.get("sft"), data(states=True))]), "Tabular: inputs: expected states"),
        (lambda: Stack(Linear(D + 1, V), [Job(qu.get("sft"), data())]), "Linear: inputs: expected features"),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data(), start={"weight": torch.zeros(D, V)})]),
            "Job: start: expected finite parameters of shapes",
        ),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data())], decay=0),
            "Stack: decay: expected a number of steps",
        ),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("psft"), data())], old_every=0),
            "Stack: old_every: expected a number of steps, at least 1, got 0",
        ),
        (
            lambda: Job(qu.get("sft"), data(), order=torch.full((2, 3), N)),
            r"Job: order: expected integers \(S, B\) in \[0, 30\), got \(2, 3\) of torch.int64",
        ),
        (lambda: Job(qu.get("sft"), data(), order=torch.zeros(2, 3)), "Job: order: expected .* of torch.float32"),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data(), order=FIRST), Job(qu.get("sft"), data())]),
            "Stack: jobs: expected an order of one shape for all or for none, and no batch beside it",
        ),
        (
            lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data(), order=FIRST)], batch=2),
            "Stack: jobs: expected an order of one shape for all or for none, and no batch beside it",
        ),
        (lambda: TwoLayer(D, 6, V, activation="gelu"), "TwoLayer: activation: expected tanh or relu, got 'gelu'"),  # type: ignore[arg-type]
        (lambda: Stack(Linear(D, V), [Job(qu.get("sft"), data())]).run(-1), "Stack: steps: expected an integer of 0"),
    ],
)
def test_bad_input_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
