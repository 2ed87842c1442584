"""What a first step does and what a rehearsal measures, against steps taken by hand; stopped runs; processes."""

from __future__ import annotations

import copy
import datetime
import html
import json
import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

import qunify as qu
from qunify import audit, hf
from qunify.audit import _audit, _pass, _rehearsal
from qunify.audit._encoding import Encoded, encode
from qunify.audit._influence import Sample, first_steps
from qunify.audit._models import Models
from qunify.audit._sentences import sentences
from qunify.audit._trainable import training
from tests import small_llama

pytestmark = pytest.mark.slow  # TRL takes seconds to load

QUESTIONS = [{"question": "the cat sees", "answer": said} for said in small_llama.sentences()]
NAMES = ("sft", "dft", "gem")
TOKENIZER = small_llama.tokenizer()


def encoded() -> list[Encoded]:
    return [encode({"prompt": row["question"], "completion": row["answer"]}, TOKENIZER) for row in QUESTIONS]


def log_u(model: Any, e: Encoded) -> torch.Tensor:
    """Of every token that is trained on."""
    z = model(input_ids=torch.tensor([e.ids])).logits[0, :-1].log_softmax(-1)
    return z[range(len(e.ids) - 1), e.ids[1:]][torch.tensor(e.counted[1:])]


def loss(model: Any, method: str, some: list[Encoded]) -> torch.Tensor:
    """The mean over all tokens, by the loss module on whole logits."""
    z = [model(input_ids=torch.tensor([e.ids])).logits[0, :-1] for e in some]
    y = [torch.tensor(e.ids[1:]).masked_fill(~torch.tensor(e.counted[1:]), -100) for e in some]
    return qu.loss(method)(torch.cat(z), torch.cat(y))


# ---- done ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", ["all", "adapter", 1])
@pytest.mark.parametrize("optimizer", ["descent", "adam"])
def test_influence_is_what_a_small_step_does(trainable: Any, optimizer: str) -> None:
    model, some = small_llama.model().double().eval(), encoded()
    kinds = [["a" if i % 2 else "b" for i in range(len(e.places))] for e in some]
    found = first_steps(Models({"model": model}), Sample(some, kinds), [qu.get(n) for n in NAMES], trainable, 60, 0)
    assert found["groups"].tolist() == ["a", "b"]
    for j, name in enumerate(NAMES):
        # half of what a step does less half of what its opposite does: a single step, small enough, drowns in rounding
        change = (after(model, trainable, optimizer, name, False) - after(model, trainable, optimizer, name, True)) / 2
        for i, group in enumerate(found["groups"]):
            expected = change[np.array([kind == group for one in kinds for kind in one])].mean() / RATE[optimizer]
            assert found[optimizer][i, j] == pytest.approx(expected, rel=5e-3), (name, group)


RATE = {"descent": 1e-3, "adam": 2e-5}


def after(model: Any, trainable: Any, optimizer: str, method: str, maximize: bool) -> np.ndarray:
    """log u of all trained tokens after a step."""
    kind = torch.optim.SGD if optimizer == "descent" else torch.optim.Adam
    with training(model, trainable, 0) as (called, parameters):
        step = kind(parameters, lr=RATE[optimizer], maximize=maximize)
        loss(called, method, encoded()).backward()
        step.step()
        step.zero_grad()
        with torch.no_grad():
            return torch.cat([log_u(called, e) for e in encoded()]).numpy()


@pytest.mark.parametrize("trainable", ["all", "adapter", 2])
def test_the_model_is_as_it_was(trainable: Any) -> None:
    model = small_llama.model().eval()
    frozen = next(iter(model.parameters())).requires_grad_(False)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for _ in range(2):
        audit.run(model, QUESTIONS, TOKENIZER, ["sft"], influence=True, rehearse=1, trainable=trainable)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert not frozen.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_a_group_that_the_sample_lacks_has_no_influence() -> None:
    found = audit.run(small_llama.model(), QUESTIONS, TOKENIZER, ["sft"], influence=True, groups={"the cat": "cat"})
    assert found.groups["influence"].notna().all()
    table = pd.DataFrame({"group": ["a", "c"], "method": "sft"})
    joined = audit._tables.with_influence(
        table, ["sft"], {"groups": np.array(["a"]), "descent": np.array([[2.0]]), "adam": np.array([[3.0]])}
    )
    np.testing.assert_array_equal(joined[["influence", "influence_adam"]], [[2, 3], [np.nan, np.nan]])


# ---- rehearsed ----------------------------------------------------------------------------------------------------


def test_a_rehearsal_is_training_from_the_same_start() -> None:
    found = audit.run(
        small_llama.model(), QUESTIONS, TOKENIZER, NAMES, rehearse=3, rate=1e-3, trainable="all", batch_tokens=40
    )
    out = found.tokens["after_sft"].notna()
    held = sorted(set(found.tokens["example"][out]))
    assert len(held) == 2
    some = encoded()
    for name in NAMES:
        model = small_llama.model().eval()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(3):  # six demonstrations fit into one step: their order does not matter
            loss(model, name, [e for i, e in enumerate(some) if i not in held]).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            after = torch.cat([log_u(model, some[i]) for i in held])
        np.testing.assert_allclose(np.log(found.tokens[f"after_{name}"][out]), after, rtol=1e-3, atol=1e-3)
        row = found.methods.set_index("method").loc[name]
        before = np.log(found.tokens["u"][out].to_numpy())
        assert row["nll_after"] == pytest.approx(-after.mean().item(), rel=1e-3)
        assert row["rehearsed"] == pytest.approx((after.numpy() - before).mean(), rel=1e-2, abs=1e-4)
        assert row["rehearsed_low"] <= row["rehearsed"] <= row["rehearsed_high"]
        groups = found.groups[found.groups["method"] == name]
        assert (groups["rehearsed"] * groups["held_out"]).sum() == pytest.approx(row["rehearsed"] * len(after))


def test_every_demonstration_is_seen_before_any_is_seen_again() -> None:
    seen = [i for step in _rehearsal._orders(12, 3, seed=0) for i in step]
    assert len(seen) == 24
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))


def test_a_rehearsal_with_a_reference_and_a_teacher() -> None:
    other = small_llama.model(seed=1)
    found = audit.run(
        small_llama.model(), QUESTIONS, TOKENIZER, ["asft", "target_sft"], reference=other, teacher=other,
        influence=True, rehearse=2,
    )  # fmt: skip
    assert np.isfinite(found.groups[["influence", "influence_adam", "rehearsed"]]).all(axis=None)


def test_a_reference_that_would_move_along_is_refused(folder: Path) -> None:
    model = small_llama.model()
    with pytest.raises(ValueError, match="reference: expected another model than the one that the rehearsal trains"):
        audit.run(model, QUESTIONS, TOKENIZER, ["sft_kl"], reference=model, rehearse=1)
    same = audit.run(model, QUESTIONS, TOKENIZER, ["sft_kl"], reference=model)  # before training it is the start
    assert same.tokens["push_sft_kl"].notna().all()
    twice = audit.run(folder / "model", QUESTIONS, methods=["sft_kl"], reference=folder / "model", rehearse=1)
    assert twice.groups["rehearsed"].notna().all()


# ---- sentences ----------------------------------------------------------------------------------------------------


def test_disagreements_come_first() -> None:
    base = {"tokens": 10, "share": 0.5, "trust": 0.1, "push": 0.5, "rehearsed_low": 0.1, "rehearsed_high": 0.3}
    groups = pd.DataFrame(
        [
            {"group": "end", "method": "dft", "u": 0.002, "patience": 40, "influence": 6.5, "rehearsed": 0.2},
            {"group": "marks", "method": "dft", "u": 0.002, "patience": 4, "influence": -0.65, "rehearsed": -0.4},
        ]
    ).assign(**base)
    groups["influence_adam"] = groups["influence"]
    groups.loc[1, ["rehearsed_low", "rehearsed_high"]] = [-0.5, -0.3]
    tokens = pd.DataFrame({"u": [0.1, 0.2]})
    methods = pd.DataFrame({"method": ["dft"], "trust": [0.1], "in_simplex": [1.0], "nll_before": [1.49]})
    methods = methods.assign(nll_after=2.18, **{"push_below_0.001": 0.1, "push_below_0.05": 0.1})
    about: dict[str, Any] = {"demonstrations": 4, "tokens": 20, "chat_template": True, "cut_off": 0, "left_out": 0}
    about["influence"] = {"demonstrations": 4, "trainable": "an adapter (LoRA)"}
    about["rehearsal"] = {"steps": 10, "rate": 1e-3, "trainable": "an adapter (LoRA)", "held_out": 4}
    lowered, carried, fell, *_ = found = sentences(tokens, methods, groups, about)
    assert "dft lowers the probability of marks (mean log u −0.65 per unit step of gradient descent), though" in lowered
    assert "end would take 40 times as long as sft under dft" in carried
    assert "raises end more than any other kind (mean log u +6.5 per unit step)" in carried
    assert "the probability of marks (mean log u −0.4 [−0.5, −0.3] nats)." in fell
    assert any("after 10 steps of Adam at rate 0.001" in s and "from 1.49 to 2.18 (dft) nats" in s for s in found)
    three = pd.concat([methods.assign(method=name, nll_after=x) for name, x in (("sft", 1), ("dft", 3), ("eaft", 2))])
    assert any("to 1 (sft), 3 (dft), 2 (eaft) nats" in s for s in sentences(tokens, three, groups, about))
    as_slow = sentences(tokens, methods, groups.assign(patience=40), about)
    assert not any("raises end more than any other kind" in s for s in as_slow)  # all are slow: some kind must be first
    pushed_away = sentences(tokens, methods, groups.assign(trust=-0.1), about)
    assert not any("though it pulls toward" in s or "training by dft lowered" in s for s in pushed_away)
    groups["influence_adam"] *= -1
    assert any(
        "Done and rehearsed disagree for dft: Adam's first step moves marks, end" in s
        for s in sentences(tokens, methods, groups, about)
    )


# ---- stopped runs, processes --------------------------------------------------------------------------------------


class Stopped(Exception):
    """In place of Ctrl-C."""


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"batch_tokens": 40, "rehearse": 1, "methods": ["sft", "dft"]}
    expected = audit.run(small_llama.model(), QUESTIONS, TOKENIZER, **how)
    calls: list[str] = []
    real, trained = _pass._asked, _rehearsal._rehearsed

    def asked(*args: Any) -> Any:
        calls.append("asked")
        if len(calls) == 3:
            raise Stopped
        return real(*args)

    def rehearsed(*args: Any) -> Any:
        calls.append(args[1].name)
        return trained(*args)

    monkeypatch.setattr(_pass, "_asked", asked)
    monkeypatch.setattr(_rehearsal, "_rehearsed", rehearsed)
    with pytest.raises(Stopped):
        audit.run(small_llama.model(), QUESTIONS, TOKENIZER, **how, keep=tmp_path)
    kept = [*tmp_path.glob("*/*.npz")]
    assert len(kept) == 2
    kept[0].write_bytes(b"cut short")
    batches, again = 2, calls.copy()
    found = audit.run(small_llama.model(), QUESTIONS, TOKENIZER, **how, keep=tmp_path)
    assert calls[len(again) :].count("asked") == expected_batches() - (batches - 1)
    assert calls[-2:] == ["sft", "dft"]
    pd.testing.assert_frame_equal(found.tokens, expected.tokens)
    pd.testing.assert_frame_equal(found.groups, expected.groups)
    assert not [*tmp_path.glob("*/*")], "what was kept is not needed any more"


def expected_batches() -> int:
    return len(audit._forward.batches(range(len(QUESTIONS)), encoded(), 40))


@pytest.mark.parametrize("change", ["model", "method", "data", "own"])
def test_parts_of_another_run_are_not_used(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    method: Any = mine if change == "own" else qu.get("gce", q=0.5)
    monkeypatch.setattr(audit._kept.Kept, "clear", lambda self: None)
    audit.run(small_llama.model(), QUESTIONS, TOKENIZER, [method], keep=tmp_path)
    monkeypatch.undo()
    made: list[int] = []
    real = _pass._asked

    def asked(*args: Any) -> Any:
        made.append(1)
        return real(*args)

    monkeypatch.setattr(_pass, "_asked", asked)
    model, rows = small_llama.model(), QUESTIONS
    if change == "model":
        model.lm_head.weight.data[0, 0] += 1e-6
    elif change == "method":
        method = qu.get("gce", q=0.6)
    elif change == "data":
        rows = QUESTIONS[:-1]
    audit.run(model, rows, TOKENIZER, [method], keep=tmp_path)
    assert made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("audited")
    small_llama.model(tie_word_embeddings=True).save_pretrained(at / "model")
    TOKENIZER.save_pretrained(at / "model")
    (at / "rows.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return at


def test_two_at_a_time_give_what_one_gives(folder: Path, tmp_path: Path) -> None:
    one = audit.run(folder / "model", QUESTIONS, methods=NAMES, batch_tokens=40)
    with joblib.parallel_config("threading"):
        two = audit.run(folder / "model", QUESTIONS, methods=NAMES, batch_tokens=40, jobs=2, keep=tmp_path)
    again = hf.from_folder(folder / "model")
    assert again.lm_head.weight is again.model.embed_tokens.weight, "two models were loaded at once"
    pd.testing.assert_frame_equal(one.tokens, two.tokens, rtol=1e-5)
    pd.testing.assert_frame_equal(one.methods, two.methods, rtol=1e-4)


def test_a_local_dask_cluster_gives_the_same(folder: Path) -> None:
    from distributed import Client, LocalCluster

    one = audit.run(folder / "model", QUESTIONS, methods=NAMES, batch_tokens=40)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        two = audit.run(folder / "model", QUESTIONS, methods=NAMES, batch_tokens=40, jobs=2)
    pd.testing.assert_frame_equal(one.tokens, two.tokens, rtol=1e-5)


# ---- bad input, the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"trainable": "head"}, "trainable: expected 'adapter', 'all' or a number of blocks of at least 1, got 'head'"),
        ({"trainable": 0}, "trainable: expected .* got 0"),
        ({"trainable": 3, "influence": True}, "trainable: expected a model of at least 3 blocks, got 2"),
        ({"rehearse": -1}, "rehearse: expected a number of at least 0, got -1"),
        ({"rehearse": 1, "limit": 1}, "rehearse: expected at least two demonstrations"),
        ({"rate": 0.0}, r"rate: expected a positive learning rate, got 0\.0"),
        ({"batch_tokens": 0}, "batch_tokens: expected a number of at least 1, got 0"),
    ],
)
def test_one_sentence_for_what_does_not_fit(how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        audit.run(small_llama.model(), QUESTIONS, TOKENIZER, ["sft"], **how)


def test_too_many_blocks_are_refused_before_any_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_audit, "asked_of_batches", lambda *_: pytest.fail("a pass was begun"))
    with pytest.raises(ValueError, match="trainable: expected a model of at least 3 blocks, got 2"):
        audit.run(small_llama.model(), QUESTIONS, TOKENIZER, ["sft"], trainable=3, rehearse=1)


def test_a_rate_at_which_training_does_not_stay_finite() -> None:
    with pytest.raises(ValueError, match=r"rate: expected one at which training by dft stays finite, got 1e\+30, at"):
        audit.run(small_llama.model(), QUESTIONS, TOKENIZER, ["dft"], rehearse=2, rate=1e30, trainable="all")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "q=0.5"], "--set q=0.5: expected --methods that names the method it is for"),
        (["--write-weights", "dtf=w.jsonl"], "unknown method 'dtf', did you mean dft"),
        (["--write-weights", "kd=w.jsonl"], "--write-weights kd=w.jsonl: kd needs a teacher, got none"),
        (["--methods", "z_loss", "--write-weights", "w.jsonl"], "z_loss has no target, and so no trust"),
        (["--write-weights", "dft=rows.jsonl"], "expected another file than the demonstrations themselves"),
    ],
)
def test_what_can_be_known_before_the_model_is_loaded(
    words: list[str], sentence: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from qunify.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit, "run", lambda *_, **__: pytest.fail("it was begun"))
    (tmp_path / "rows.jsonl").write_bytes((folder / "rows.jsonl").read_bytes())
    assert main(["audit", "--model", str(folder / "model"), "--data", "rows.jsonl", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_weights_of_rows_with_dates(tmp_path: Path) -> None:
    rows = [{**row, "when": datetime.date(2026, 1, 2)} for row in QUESTIONS]
    found = audit.run(small_llama.model(), rows, TOKENIZER, ["dft"])
    lines = found.write_weights(tmp_path / "w.jsonl", "dft").read_text().splitlines()
    assert [json.loads(line)["when"] for line in lines] == ["2026-01-02"] * len(QUESTIONS)


def test_ctrl_c_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from qunify.cli import main

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_pass, "_asked", stop)
    words = ["audit", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl")]
    assert main([*words, "--out", str(tmp_path / "page.html"), "--json"]) == 130
    assert capsys.readouterr().err.endswith("qunify: stopped: the same command goes on where it was\n")


def test_the_command_rehearses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qunify.cli import main

    out = tmp_path / "page.html"
    words = ["audit", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl"), "--out", str(out)]
    assert main([*words, "--methods", "sft,dft", "--influence", "--rehearse", "2", "--trainable", "1"]) == 0
    printed = capsys.readouterr().out
    assert "after 2 steps of Adam at rate 0.0002 through the last block" in printed
    assert {"influence", "influence_adam", "rehearsed"} <= {*audit.load(tmp_path / "page").groups}
    page = out.read_text(encoding="utf-8")
    assert "Asked, done, rehearsed" in page
    assert "would do to this model" in page
    assert '<span id="code">method=&#34;dft&#34;</span>' in page
    assert not [*(tmp_path / "page").glob("**/*.npz")]
    weights = tmp_path / "weights.jsonl"
    assert main([*words, "--methods", "sft,dft", "--write-weights", str(weights)]) == 0
    assert len(weights.read_text().splitlines()) == len(QUESTIONS)
    assert main([*words, "--methods", "dft,gem", "--write-weights", str(weights)]) == 2
    assert "expected METHOD=FILE" in capsys.readouterr().err
    assert main([*words, "--methods", "dft,gem", "--write-weights", f"sft={weights}"]) == 2
    assert "expected one of the methods audited (dft, gem), got 'sft'" in capsys.readouterr().err
    assert main([*words, "--trainable", "x"]) == 2
    assert "trainable: expected 'adapter', 'all' or a number of blocks" in capsys.readouterr().err


def test_the_code_on_the_page_trains(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, but for the two paths and the number of steps."""
    page = audit.run(folder / "model", QUESTIONS, methods=["dft"]).page(tmp_path / "audit.html")
    (printed,) = re.findall("<pre.*?<code>(.*?)</code>", page.read_text(encoding="utf-8"), re.DOTALL)
    code = html.unescape(re.sub("<.*?>", "", printed))
    for name, file in (("path/to/model", folder / "model"), ("demonstrations.jsonl", folder / "rows.jsonl")):
        assert name in code
        code = code.replace(name, str(file))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace('SFTConfig("trained"', 'SFTConfig("trained", max_steps=1, disable_tqdm=True'), names)
    assert names["trainer"].state.global_step == 1


# ---- weights ------------------------------------------------------------------------------------------------------


def test_weights_of_examples_and_of_tokens(tmp_path: Path) -> None:
    found = audit.run(small_llama.model(), QUESTIONS, TOKENIZER, ["sft", "dft", "brier"], max_length=12)
    lines = found.write_weights(tmp_path / "e.jsonl", "dft").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [{k: v for k, v in row.items() if k != "weight"} for row in rows] == QUESTIONS
    assert [row["weight"] for row in rows] == pytest.approx(found.examples["trust_dft"].tolist())
    lines = found.write_weights(tmp_path / "t.jsonl", "dft", per="token").read_text().splitlines()
    for row, e, (_, tokens) in zip(map(json.loads, lines), encoded(), found.tokens.groupby("example"), strict=True):
        assert row["input_ids"] == e.ids[:12]
        trained = [t for t, label in enumerate(row["labels"]) if label != -100]
        assert trained == tokens["position"].tolist()
        assert [row["weight"][t] for t in trained] == pytest.approx(tokens["trust_dft"].tolist())
        assert not any(row["weight"][t] for t in range(len(e.ids[:12])) if t not in trained)
    with pytest.raises(ValueError, match=r"expected a method of this audit that has a trust \(sft, dft.*got 'gem'"):
        found.write_weights(tmp_path / "e.jsonl", "gem")
    with pytest.raises(ValueError, match="expected an audit that has just run"):
        audit.load(found.save(tmp_path / "audit")).write_weights(tmp_path / "e.jsonl", "dft")


def test_a_trainer_reads_the_weights(tmp_path: Path) -> None:
    from datasets import Dataset, load_dataset
    from trl import SFTConfig

    from qunify.hf import SFTTrainer

    found = audit.run(small_llama.model(), QUESTIONS, TOKENIZER, ["dft"])
    for per in ("example", "token"):
        file = found.write_weights(tmp_path / f"{per}.jsonl", "dft", per=per)
        data = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
        if per == "example":
            data = data.rename_columns({"question": "prompt", "answer": "completion"})
        config = SFTConfig(
            str(tmp_path / per), max_steps=1, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True
        )
        trainer = SFTTrainer(
            small_llama.model(), config, method="iw_sft", train_dataset=data, processing_class=TOKENIZER
        )
        assert isinstance(trainer.train_dataset, Dataset)
        assert "token_weight" in trainer.train_dataset.column_names
        trainer.train()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dft", 'method="dft"'),
        ("gce(q=0.5)", 'method="gce", method_params=dict(q=0.5)'),
        ("target_sft", 'method="target_sft", teacher_model="path/to/teacher"'),
        ("ntl_was", 'method="ntl_was"'),  # the trainer reads numbers off the tokenizer
        (
            "delta_kd",
            'method="delta_kd", reference_model="path/to/reference", teacher_model="path/to/teacher", '
            'teacher_base_model="path/to/teacher_base"',
        ),
        ("mine", "method=mine"),
    ],
)
def test_the_page_says_how_to_train(name: str, code: str) -> None:
    assert audit._page._code(name) == code
