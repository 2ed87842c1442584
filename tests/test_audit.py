"""An audit, with a model and tokenizer made in code: every number against the methods themselves."""

from __future__ import annotations

import csv
import functools
import gzip
import json
import math
import pickle
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

import qunify as qu
from qunify import audit
from qunify.audit._demonstrations import examples, rows
from qunify.audit._encoding import encode, pieces
from qunify.audit._groups import of_pieces, own_groups
from qunify.audit._measure import Asking, asked, token_of
from qunify.audit._models import Models
from qunify.audit._pass import _asked, _in_process
from qunify.audit._patience import times
from qunify.hf import digit_values
from qunify.token import Pooling, TensorToken, _tensors
from tests import small_llama

pytestmark = pytest.mark.slow  # TRL takes seconds to load

QUESTIONS = [{"question": "the cat sees", "answer": said} for said in small_llama.sentences()]
WITHOUT = [name for name in qu.names() if not qu.get(name).needs]
#: It takes the highest entropies; demonstrations that begin alike have equal ones, and padding moves their last digits.
TIES = {"high_entropy"}


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llama.model().eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_llama.tokenizer()


@pytest.fixture(scope="module")
def found(model: Any, tokenizer: Any) -> audit.Audit:
    return audit.run(model, QUESTIONS, tokenizer, batch_tokens=40)


@pytest.fixture(scope="module")
def together(model: Any, tokenizer: Any) -> audit.Audit:
    """All demonstrations in one batch, which some methods look at."""
    return audit.run(model, QUESTIONS, tokenizer)


def logits_of(model: Any, tokenizer: Any, row: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, V) and labels (N,) of what the assistant says, one demonstration at a time, without the audit."""
    asked = [{"role": "user", "content": row["question"]}]
    said = [*asked, {"role": "assistant", "content": row["answer"]}]
    start = tokenizer.apply_chat_template(asked, tokenize=True, return_dict=True)["input_ids"]
    ids = torch.tensor([tokenizer.apply_chat_template(said, tokenize=True, return_dict=True)["input_ids"]])
    assert ids[0, : len(start)].tolist() == start
    with torch.no_grad():
        return model(input_ids=ids).logits[0, len(start) - 1 : -1], ids[0, len(start) :]


# ---- every number is the method's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WITHOUT if name not in TIES])
def test_trust_push_and_simplex_are_those_of_the_method(
    name: str, found: audit.Audit, together: audit.Audit, model: Any, tokenizer: Any
) -> None:
    parts = [logits_of(model, tokenizer, row) for row in QUESTIONS]
    of = torch.repeat_interleave(torch.tensor([len(y) for _, y in parts]))
    q = qu.get(name)(torch.cat([z for z, _ in parts]), torch.cat([y for _, y in parts]), sequence_ids=of)
    table = (together if qu.get(name).pools else found).tokens
    assert table["id"].tolist() == torch.cat([y for _, y in parts]).tolist()
    push = table[f"push_{name}"].to_numpy()
    np.testing.assert_allclose(push, q.gradient.abs().sum(-1) / 2, rtol=2e-4, atol=2e-6)
    trust = q.trust.numpy() if q.shift_invariant else np.full(len(table), np.nan)
    np.testing.assert_allclose(table[f"trust_{name}"], trust, rtol=2e-4, atol=2e-6)
    assert table[f"in_simplex_{name}"].tolist() == (q.in_simplex & q.shift_invariant).tolist()


def test_a_large_vocabulary_and_labels_that_are_all_but_excluded() -> None:
    """Sums over many entries in float32 miss 1 by more than such a label has."""
    z = 6 * torch.randn(24, 40_000, generator=torch.Generator().manual_seed(0))
    y = z.argsort(-1)[:, ::2000].diagonal()[:20]
    for name in ("dft", "sft", "eaft", "dft_undetached", "mile"):
        got, q = asked([qu.get(name)], z[:20], y, {}), qu.get(name)(z[:20], y)
        assert got.inside[0].tolist() == q.in_simplex.tolist(), name
        np.testing.assert_allclose(got.push[0], q.gradient.abs().sum(-1) / 2, rtol=2e-4)


@st.composite
def logits_with_ties(draw: st.DrawFn) -> torch.Tensor:
    """(N, V) in float64: some equal, some excluded."""
    n, vocab = draw(st.integers(1, 9)), draw(st.integers(2, 40))
    r = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    z = draw(st.sampled_from([0.5, 3.0, 12.0])) * torch.randn(n, vocab, generator=r, dtype=torch.float64)
    z = z.round(decimals=draw(st.sampled_from([0, 1, 15])))
    excluded = torch.rand(n, vocab, generator=r) < draw(st.sampled_from([0.0, 0.2]))
    return z.masked_fill(excluded & (z < z.amax(-1, keepdim=True)), -torch.inf)


@given(logits_with_ties(), st.data())
@settings(max_examples=25, deadline=None)
def test_all_methods_at_once_are_one_after_another(z: torch.Tensor, data: st.DataObject) -> None:
    n, vocab = z.shape
    labels = torch.tensor([data.draw(st.sampled_from(row.isfinite().nonzero()[:, 0].tolist())) for row in z])
    of = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    context = {"reference_logits": z.roll(1, -1), "teacher_logits": 2 * z.flip(0)}
    context = {name: x.clamp(min=-40) for name, x in context.items()}
    methods = [m for name in qu.names() if set((m := qu.get(name)).needs) <= {*context}]
    asking, pooling = Asking(methods), Pooling(of, torch.zeros_like(of))
    whole = token_of(methods, z, labels, context)
    known = {pool: pooling.combine(pool, pool.of(whole)) for m in asking.looking_ahead for pool in m.pools}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tensors, "BLOCK", data.draw(st.integers(1, 4)) * vocab)
        middle = data.draw(st.integers(1, n))
        for part in filter(len, (range(middle), range(middle, n))):
            here = {name: x[part] for name, x in context.items()}
            asking.add(z[part], labels[part], here, {pool: x[part] for pool, x in known.items()})
    surroundings: dict[str, Any] = {**context, "sequence_ids": of}
    got, each = asking.done(pooling), [m(z, labels, **surroundings) for m in methods]
    g = torch.stack([q.gradient.flatten() for q in each])
    sizes = g.norm(dim=-1).clamp(min=1e-150)
    close = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12, equal_nan=True)
    close(got.push, torch.stack([q.gradient.abs().sum(-1) / 2 for q in each]))
    close(got.trust, torch.stack([q.trust for q in each]))
    close(got.gram / sizes / sizes[:, None], g @ g.T / sizes / sizes[:, None])
    assert got.inside.tolist() == [q.in_simplex.tolist() for q in each]


def test_a_block_of_logits_is_gone_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensors, "BLOCK", 2 * 7)  # two rows each
    seen: list[weakref.ref[TensorToken]] = []
    there: list[int] = []

    class Looking(qu.Gate):
        def loss(self, t: Any) -> Any:
            return -t.log_p_label

        def weight(self, t: Any) -> Any:
            own = t.prob(t.policy)
            seen.append(weakref.ref(t))
            there.append(sum(block() is not None for block in seen))
            return own

    z = torch.randn(10, 7, generator=torch.Generator().manual_seed(0))
    asked([Looking(), qu.get("gem")], z, z.argmin(-1), {})
    assert there == [1] * 5


def test_what_the_model_thinks(found: audit.Audit, model: Any, tokenizer: Any) -> None:
    z, y = (torch.cat(parts) for parts in zip(*[logits_of(model, tokenizer, row) for row in QUESTIONS], strict=True))
    p = z.softmax(-1)
    u = p.gather(-1, y[:, None])
    np.testing.assert_allclose(found.tokens["u"], u[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found.tokens["entropy"], -(p * p.log()).sum(-1), rtol=1e-4)
    assert found.tokens["rank"].tolist() == (1 + (p > u).sum(-1)).tolist()


def test_cosines_are_those_of_all_gradients(together: audit.Audit, model: Any, tokenizer: Any) -> None:
    parts = [logits_of(model, tokenizer, row) for row in QUESTIONS]
    z, y = (torch.cat(some) for some in zip(*parts, strict=True))
    of = torch.repeat_interleave(torch.tensor([len(labels) for _, labels in parts]))
    g = torch.stack([qu.get(name)(z, y, sequence_ids=of).gradient.flatten() for name in WITHOUT]).double()
    expected = torch.nn.functional.cosine_similarity(g[:, None], g[None], dim=-1)
    rests = g.norm(dim=-1) == 0
    expected[rests, :] = expected[:, rests] = torch.nan
    got = together.methods[[f"cosine_{name}" for name in WITHOUT]].to_numpy()
    clear = [i for i, name in enumerate(WITHOUT) if name not in TIES]
    np.testing.assert_allclose(got[np.ix_(clear, clear)], expected[clear][:, clear], atol=1e-4)


def test_methods_with_a_reference_and_a_teacher(model: Any, tokenizer: Any) -> None:
    other = small_llama.model(seed=1).eval()
    both = audit.run(model, QUESTIONS, tokenizer, ["target_sft", "asft"], reference=other, teacher=other)
    for name, context in (("target_sft", "teacher_logits"), ("asft", "reference_logits")):
        pushes = []
        for row in QUESTIONS:
            z, y = logits_of(model, tokenizer, row)
            theirs: Any = logits_of(other, tokenizer, row)[0]
            pushes.append(qu.get(name)(z, y, **{context: theirs}).gradient.abs().sum(-1) / 2)
        np.testing.assert_allclose(both.tokens[f"push_{name}"], torch.cat(pushes), rtol=1e-4, atol=1e-6)
    everything = audit.run(model, QUESTIONS[:1], tokenizer, reference=other, teacher=other).methods["method"]
    wanted = [name for name in qu.names() if set(qu.get(name).needs) <= {"reference_logits", "teacher_logits"}]
    assert everything.tolist() == wanted


@pytest.fixture(scope="module")
def with_digits() -> tuple[Any, Any]:
    """A tokenizer with digits as tokens of their own, and demonstrations that have some."""
    tokenizer = small_llama.tokenizer()
    tokenizer.add_tokens(list("0123456789"))
    return tokenizer, [{"question": "the cat sees", "answer": said} for said in ("7 birds", "2 5 dogs and 9", "a cat")]


def test_what_the_teacher_was_before_and_which_tokens_are_numbers(with_digits: tuple[Any, Any]) -> None:
    tokenizer, rows = with_digits
    student, reference, teacher, base = (small_llama.model(seed, vocab_size=len(tokenizer)).eval() for seed in range(4))
    names = ["delta_kd", "ntl_was", "ntl_mse"]
    models = {"reference": reference, "teacher": teacher, "teacher_base": base}
    result = audit.run(student, rows, tokenizer, names, **models, influence=True, rehearse=1, trainable="all")
    values = digit_values(tokenizer, len(tokenizer))
    of_rows: list[list[torch.Tensor]] = []
    for row in rows:
        z, y = logits_of(student, tokenizer, row)
        given: Any = {f"{what}_logits": logits_of(m, tokenizer, row)[0] for what, m in models.items()}
        of_rows.append([qu.get(m)(z, y, **given, token_values=values).gradient.abs().sum(-1) / 2 for m in names])
    for name, *parts in zip(names, *of_rows, strict=True):
        np.testing.assert_allclose(result.tokens[f"push_{name}"], torch.cat(parts), rtol=1e-4, atol=1e-6)
    digits = result.tokens["text"].str.strip().isin(list("0123456789"))
    assert digits.sum() == 4
    assert ((result.tokens["push_ntl_was"] != 1 - result.tokens["u"]).to_numpy()[digits]).all()
    assert result.groups[["influence", "influence_adam", "rehearsed"]].notna().any(axis=None)
    assert "Methods that compare numbers take 10 tokens of the vocabulary for digits." in " ".join(result.sentences)


def test_a_process_is_told_which_tokens_are_numbers(with_digits: tuple[Any, Any]) -> None:
    tokenizer, rows = with_digits
    models = Models(
        {"model": small_llama.model(vocab_size=len(tokenizer)).eval()}, digit_values(tokenizer, len(tokenizer))
    )
    sent = pickle.loads(pickle.dumps(models))
    batch = [encode(example, tokenizer) for example in examples(rows)]
    _, there = _in_process(0, sent, "cpu", [qu.get("ntl_was")], batch)
    assert all(np.array_equal(there[key], value) for key, value in _asked(models, [qu.get("ntl_was")], batch).items())


def test_methods_that_compare_numbers_need_digits(model: Any, tokenizer: Any, found: audit.Audit) -> None:
    assert {"ntl_was", "ntl_mse"}.isdisjoint(found.methods["method"])
    assert found.about["digits"] == 0
    with pytest.raises(
        ValueError, match="ntl_mse needs token_values: expected a tokenizer with digits as tokens of th"
    ):
        audit.run(model, QUESTIONS, tokenizer, ["sft", "ntl_mse"])


def test_a_loss_function_and_two_settings_of_one_method(model: Any, tokenizer: Any) -> None:
    def mine(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ce = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return ce * (-ce).exp().detach()

    both = audit.run(model, QUESTIONS, tokenizer, ["dft", mine, qu.get("gce", q=0.5), qu.get("gce", q=1.0)])
    for kind in ("push", "trust"):
        np.testing.assert_allclose(both.tokens[f"{kind}_mine"], both.tokens[f"{kind}_dft"], rtol=1e-4)
    np.testing.assert_allclose(both.tokens["push_gce(q=1.0)"], both.tokens["push_dft"], rtol=1e-4)


def test_a_loss_function_that_is_no_gate_has_no_trust_and_no_colour(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    def smoothed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.3)

    result = audit.run(model, QUESTIONS, tokenizer, ["dft", smoothed])
    assert result.tokens["trust_smoothed"].isna().all()
    page = result.page(tmp_path / "audit.html").read_text(encoding="utf-8")
    for levels in re.findall('data-trust="(.*?)"', page):
        dft, own = levels.split()
        assert (dft.isdigit(), {*own}, len(own)) == (True, {"-"}, len(dft))
    with pytest.raises(ValueError, match=r"has a trust \(dft\), got 'smoothed'"):
        result.write_weights(tmp_path / "w.jsonl", "smoothed")


def test_demonstrations_that_are_longer_than_the_model_is_made_for_are_told(tokenizer: Any) -> None:
    model = small_llama.model(max_position_embeddings=16).eval()
    rows = [*QUESTIONS[:1], {"question": "the cat " * 9, "answer": "sees"}]
    told = audit.run(model, rows, tokenizer, ["sft"]).sentences[0]
    assert " 1 are longer than the 16 tokens that the model is made for" in told
    assert "longer than" not in audit.run(model, rows, tokenizer, ["sft"], max_length=16).sentences[0]


def test_more_tokens_than_there_are_positions_are_refused(tokenizer: Any) -> None:
    sizes = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=96, **sizes)).eval()
    rows = [*QUESTIONS[:1], {"question": "the cat " * 9, "answer": "sees"}]
    with pytest.raises(
        ValueError, match=r"max_length: expected at most the 16 positions .*, as 1 demonstration is longer"
    ):
        audit.run(model, rows, tokenizer, ["sft"])
    assert audit.run(model, rows, tokenizer, ["sft"], max_length=16).about["demonstrations"] == 1


@pytest.mark.parametrize("bad", [(1, 0, 1, 0, 1, 0, 1, 0), (0,) * 8], ids=["by chance", "none"])
def test_a_flag_that_tells_nothing(bad: tuple[int, ...], model: Any, tokenizer: Any) -> None:
    rows = [{**row, "bad": flag} for row, flag in zip(QUESTIONS, bad, strict=True)]
    told = " ".join(audit.run(model, rows, tokenizer, ["sft"], flag="bad").sentences)
    assert ("in 50 % of pairs (50 % to 50 %) sft, which comes nearest, trusts" in told) == any(bad)
    assert ("Of the flag nothing is told" in told) == (not any(bad))


def test_weights_that_are_missing_or_cut_short_are_refused(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    from safetensors.torch import load, save

    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"model\.safetensors: expected a whole safetensors file, got one cut short"
        ):
            audit.run(tmp_path, [PAIR], tokenizer)
    weights = load(whole)
    weights.pop("model.layers.0.mlp.up_proj.weight")
    file.write_bytes(save(weights, metadata={"format": "pt"}))
    with pytest.raises(
        ValueError, match=r"expected all weights of LlamaForCausalLM, got none of model\.layers\.0\.mlp"
    ):
        audit.run(tmp_path, [PAIR], tokenizer)


def test_a_group_that_no_token_belongs_to_is_told(model: Any, tokenizer: Any) -> None:
    groups = {"felines": "cat", "figures": "[0-9]"}
    told = audit.run(model, QUESTIONS, tokenizer, ["sft"], groups=groups).sentences[0]
    assert told.endswith("No token belongs to figures: the expression matches none.")


# ---- tables ------------------------------------------------------------------------------------------------------


def test_tables_add_up(found: audit.Audit) -> None:
    tokens, methods, groups, per = found.tokens, found.methods, found.groups, found.examples
    assert len(tokens) == per["tokens"].sum() == found.about["tokens"]
    assert groups[groups["method"] == "sft"]["tokens"].sum() == len(tokens)
    for name in ("sft", "dft", "gem"):
        row = methods.set_index("method").loc[name]
        assert row["push"] == pytest.approx(tokens[f"push_{name}"].mean())
        assert groups[groups["method"] == name]["push"].sum() == pytest.approx(1)
        assert per[f"push_{name}"].sum() == pytest.approx(1)
        below = tokens["u"] < 0.05
        expected = tokens.loc[below, f"push_{name}"].sum() / tokens[f"push_{name}"].sum()
        assert row["push_below_0.001"] + row["push_below_0.05"] == pytest.approx(expected)
        assert row["push_low"] <= row["push"] <= row["push_high"]
    np.testing.assert_allclose(per["nll"], -np.log(tokens["u"]).groupby(tokens["example"]).mean(), rtol=1e-6)


def test_half_of_the_push(found: audit.Audit) -> None:
    push = found.tokens["push_dft"].sort_values(ascending=False).to_numpy()
    count = round(found.methods.set_index("method")["half_of_push"]["dft"] * len(push))
    assert push[:count].sum() >= push.sum() / 2 > push[: count - 1].sum()


def test_intervals_are_of_demonstrations(model: Any, tokenizer: Any) -> None:
    """The same demonstration again and again has no spread, however many tokens it has."""
    same = audit.run(model, QUESTIONS[:1] * 6, tokenizer, ["dft"]).methods.iloc[0]
    assert same["trust_low"] == pytest.approx(same["trust_high"])
    one = audit.run(model, QUESTIONS[:1], tokenizer, ["dft"]).methods.iloc[0]
    assert math.isnan(one["trust_low"])


def test_flagged_demonstrations(model: Any, tokenizer: Any) -> None:
    by = audit.run(model, QUESTIONS, tokenizer, ["dft"]).examples["trust_dft"]
    order = by.argsort().argsort()
    told = [{**row, "bad": bool(rank < 3)} for row, rank in zip(QUESTIONS, order, strict=True)]
    assert audit.run(model, told, tokenizer, ["dft"], flag="bad").methods["auc"][0] == 1
    untold = [{**row, "bad": str(rank >= 5).lower()} for row, rank in zip(QUESTIONS, order, strict=True)]
    turned = audit.run(model, untold, tokenizer, ["dft"], flag="bad")
    assert turned.methods["auc"][0] == 0
    assert turned.examples["flag"].sum() == 3


def test_saved_and_read_again(found: audit.Audit, tmp_path: Path) -> None:
    again = audit.load(found.save(tmp_path / "audit"))
    for name in ("tokens", "methods", "groups", "examples"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(again, name), check_dtype=False, rtol=1e-6)
    assert again.sentences == found.sentences
    (tmp_path / "audit" / "groups.csv").unlink()
    with pytest.raises(ValueError, match=r"expected groups\.csv there"):
        audit.load(tmp_path / "audit")


# ---- patience ----------------------------------------------------------------------------------------------------


def walked(m: qu.QMap, z: torch.Tensor, step: float = 0.05) -> float:
    """How long steps of the logits along −g, by the midpoint rule, take from the start to p_y = 1/2."""
    z, label, before = z.clone()[None], torch.tensor([0]), -math.inf
    for i in range(2000):
        now = float(torch.logit(z.softmax(-1)[0, 0]))
        if now >= 0:
            return (i - now / (now - before)) * step
        z, before = z - step * m(z - step / 2 * m(z, label).gradient, label).gradient, now
    return math.inf


@pytest.mark.parametrize("rest", [1, 4], ids=["one other token", "a uniform rest"])
def test_patience_is_the_time_that_small_steps_take(rest: int) -> None:
    z = torch.tensor([-1.5] + [0.0] * rest, dtype=torch.float64)
    chosen = [qu.get(name) for name in ("sft", "dft", "gce", "label_smoothing", "eaft")]
    np.testing.assert_allclose(times(chosen, z, 0, {}), [walked(m, z) for m in chosen], rtol=1e-3)


def test_patience_of_dft_in_closed_form() -> None:
    """With log-odds x, SFT takes ∫ du/(2u(1−u)²) and DFT ∫ du/(2u²(1−u)²) at V = 2."""
    z = torch.tensor([math.log(0.01 / 0.99), 0.0], dtype=torch.float64)
    u, w = np.polynomial.legendre.leggauss(400)
    u = 0.01 + 0.49 * (u + 1) / 2
    expected = [(w * 0.245 / (2 * u**k * (1 - u) ** 2)).sum() for k in (1, 2)]
    np.testing.assert_allclose(times([qu.get("sft"), qu.get("dft")], z, 0, {}), expected, rtol=1e-6)


def test_who_never_gets_there() -> None:
    z = torch.tensor([-4.0, 0.0, 0.0], dtype=torch.float64)
    never, there = times([qu.get("profit"), qu.get("sft")], z, 0, {})
    assert math.isinf(never)
    assert there > 0
    assert np.isnan(times([qu.get("sft")], -z, 0, {})).all()


# ---- reading -----------------------------------------------------------------------------------------------------

TEXTS = [{"prompt": "the cat", "completion": "sees a bird"}, {"prompt": "a dog", "completion": "likes, it"}]


def written(kind: str, folder: Path) -> Any:
    file = folder / f"rows.{kind}"
    if kind == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in TEXTS) + "\n\n")
    elif kind == "json":
        file.write_text(json.dumps(TEXTS))
    elif kind in ("csv", "tsv"):
        pd.DataFrame(TEXTS).to_csv(file, index=False, sep="," if kind == "csv" else "\t")
    elif kind == "parquet":
        Dataset.from_list(TEXTS).to_parquet(str(file))
    elif kind == "folder":
        Dataset.from_list(TEXTS).save_to_disk(str(file))
    elif kind == "splits":
        DatasetDict(train=Dataset.from_list(TEXTS), test=Dataset.from_list(TEXTS[:1])).save_to_disk(str(file))
    elif kind.endswith(".gz"):
        file.write_bytes(gzip.compress(written(kind.removesuffix(".gz"), folder).read_bytes()))
    return file if file.exists() else Dataset.from_list(TEXTS)


def odd(kind: str, folder: Path) -> Any:
    """What is read although its name says something else, or nothing."""
    if kind == "data frame":
        return pd.DataFrame(TEXTS)
    if kind == "dictionary of splits":
        return DatasetDict(train=Dataset.from_list(TEXTS))
    content = {
        "a list in an object.json": json.dumps({"version": 1, "data": TEXTS}),
        "columns.json": json.dumps({key: [row[key] for row in TEXTS] for key in TEXTS[0]}),
        "an object a line.json": "\n".join(map(json.dumps, TEXTS)),
        "windows.jsonl": "\ufeff" + "\r\n".join(map(json.dumps, TEXTS)),
        "semicolons.csv": "prompt;completion\nthe cat;sees a bird\na dog;likes, it\n",
    }[kind]
    (folder / kind).write_bytes(content.encode())
    return folder / kind


@pytest.mark.parametrize(
    "kind",
    ["data frame", "dictionary of splits", "a list in an object.json", "columns.json", "an object a line.json",
     "windows.jsonl", "semicolons.csv"],
)  # fmt: skip
def test_what_is_not_written_as_one_would_think(kind: str, tmp_path: Path) -> None:
    assert examples(rows(odd(kind, tmp_path))) == TEXTS


def test_quotes_and_line_ends_in_a_table(tmp_path: Path) -> None:
    said = {"prompt": 'say "a, b"', "completion": "one\r\ntwo\n"}
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*said])
        table.writeheader()
        table.writerow(said)
    assert examples(rows(tmp_path / "rows.csv")) == [said]


@pytest.mark.parametrize(
    "kind",
    ["jsonl", "json", "csv", "tsv", "parquet", "folder", "splits", "dataset", "jsonl.gz", "json.gz", "csv.gz"],
)
def test_every_kind_of_file_gives_the_same(kind: str, tmp_path: Path) -> None:
    assert examples(rows(written(kind, tmp_path))) == TEXTS


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "a", "answer": "b"}, {"prompt": "a", "completion": "b"}),
        ({"instruction": "a", "input": "", "output": "b"}, {"prompt": "a", "completion": "b"}),
        ({"instruction": "a", "input": "c", "output": "b"}, {"prompt": "a\n\nc", "completion": "b"}),
        ({"instruction": "a", "context": "c", "response": "b"}, {"prompt": "a\n\nc", "completion": "b"}),
        ({"input": "a", "output": "b"}, {"prompt": "a", "completion": "b"}),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ),
    ],
    ids=["gsm8k", "alpaca", "alpaca with an input", "dolly", "input and output", "sharegpt"],
)
def test_columns_that_public_data_use(row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert examples([row]) == [expected]
    assert "conversations" not in row or "from" in row["conversations"][0], "the caller's row was changed"


CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "bird"}}}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "looks", "parameters": {}}}]
CALLING = [
    {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "a bird", "name": None},
    {"role": "assistant", "content": "sees a bird"},
]


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)], ids=["list", "text"])
def test_parts_of_text_and_calls_of_tools(tools: Any, tokenizer: Any) -> None:
    (example,) = examples([{"messages": CALLING, "tools": tools, "source": "x"}])
    assert example == {
        "messages": [
            {"role": "user", "content": "the cat"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "a bird"},
            {"role": "assistant", "content": "sees a bird"},
        ],
        "tools": TOOLS,
    }
    with_tools = small_llama.tokenizer()
    with_tools.chat_template = "{% if tools %}{{ tools[0].function.name }} {% endif %}" + tokenizer.chat_template
    assert encode(example, with_tools).ids == [*with_tools("look")["input_ids"], *encode(example, tokenizer).ids]
    example["messages"][1]["content"] = "finds"
    assert counted(with_tools, example) == "finds </s> sees a bird </s>"


def test_columns_by_name() -> None:
    assert examples([{"q": "a", "a": "b"}], "q", "a") == [{"prompt": "a", "completion": "b"}]


def counted(tokenizer: Any, example: dict[str, Any], **how: Any) -> str:
    e = encode(example, tokenizer, **how)
    return " ".join(tokenizer.decode([token]) for token, counts in zip(e.ids, e.counted, strict=True) if counts)


CHAT = [
    {"role": "user", "content": "the cat"},
    {"role": "assistant", "content": "sees"},
    {"role": "user", "content": "a dog"},
    {"role": "assistant", "content": "likes a bird"},
]


def test_only_what_the_assistant_says_counts(tokenizer: Any) -> None:
    assert counted(tokenizer, {"messages": CHAT}) == "sees </s> likes a bird </s>"
    assert counted(tokenizer, {"prompt": CHAT[:1], "completion": CHAT[1:2]}).endswith("sees </s>")
    unmarked = small_llama.tokenizer()
    unmarked.chat_template = re.sub(r"{% (end)?generation %}", "", unmarked.chat_template)
    assert re.sub("<assistant> ", "", counted(unmarked, {"messages": CHAT})) == "sees </s> likes a bird </s>"


def test_a_base_model_without_a_template(tokenizer: Any) -> None:
    base = small_llama.tokenizer()
    base.chat_template = None
    assert counted(base, {"prompt": "the cat ", "completion": "sees a bird"}) == "sees a bird </s>"
    with pytest.raises(ValueError, match="expected a tokenizer with a chat template"):
        encode({"messages": CHAT}, base)


def test_a_template_that_does_not_take_a_conversation(model: Any) -> None:
    strict = small_llama.tokenizer()
    strict.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    row = {"messages": [{"role": "system", "content": "be brief"}, *CHAT]}
    with pytest.raises(ValueError, match="row 2: the tokenizer's chat template does not take it: no system"):
        audit.run(model, [{"messages": CHAT}, row], strict, ["sft"])


@pytest.mark.parametrize(
    "given",
    [
        [{"prompt": CHAT[:1], "completion": [{"role": "assistant", "content": s}]} for s in ("sees", "a b")],
        [{"text": "the cat sees a bird"}, {"text": "a dog</s>"}],
    ],
    ids=["conversations", "text"],
)
def test_labels_are_those_of_trl(given: list[dict[str, Any]], tokenizer: Any, model: Any, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(str(tmp_path), bf16=False, use_cpu=True, report_to="none", disable_tqdm=True, max_length=7)
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(given), processing_class=tokenizer)
    assert isinstance(trainer.train_dataset, Dataset)
    for example, row in zip(examples(given), trainer.train_dataset, strict=True):
        e = encode(example, tokenizer, max_length=7)
        assert e.ids == row["input_ids"]
        labels = row.get("labels", row["input_ids"])  # of a text TRL's collator takes all
        assert e.counted[1:] == [label != -100 for label in labels[1:]]


def test_a_text_is_audited_as_it_is(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    found = audit.run(model, [{"text": "the cat sees a bird"}], tokenizer, ["sft", "dft"])
    assert "".join(found.tokens["text"]).strip().startswith("cat sees a bird")
    assert "under no chat template" in found.sentences[0]
    assert "less than 5 %: 100 % of the push of every method." in " ".join(found.sentences)
    assert json.loads(found.write_weights(tmp_path / "w.jsonl", "dft").read_text())["text"] == "the cat sees a bird"


def test_answers_of_weight_zero_count_and_are_told(model: Any, tokenizer: Any) -> None:
    answer = {"role": "assistant", "content": "sees"}
    talk = [CHAT[0], answer | {"weight": 0}, CHAT[0], answer | {"weight": 1}]
    found = audit.run(model, [{"messages": talk}], tokenizer, ["sft"])
    assert (found.tokens["text"].str.strip() == "sees").sum() == 2
    assert "Among what counts: 1 answer of weight 0" in found.sentences[0]


def test_what_is_cut_off_is_counted(model: Any, tokenizer: Any) -> None:
    cut = audit.run(model, QUESTIONS, tokenizer, ["sft"], max_length=8)
    whole = audit.run(model, QUESTIONS, tokenizer, ["sft"])
    assert cut.about["tokens_cut_off"] == len(whole.tokens) - len(cut.tokens) > 0
    assert f"{cut.about['cut_off']:,} were cut off" in cut.sentences[0]


def test_pieces_join_to_the_text(tokenizer: Any) -> None:
    ids = tokenizer("the cat sees a bird")["input_ids"]
    assert "".join(pieces(ids, tokenizer)) == tokenizer.decode(ids)


# ---- groups ------------------------------------------------------------------------------------------------------


def test_kinds_of_token() -> None:
    said = ["They", " have", "n't", " ", "12", "<<", "3", "+", "4", "=7", ">>", ".", "</s>"]
    special = [None] * 12 + ["</s>"]
    assert of_pieces(said, special, {}) == [
        "first pieces of words", "first pieces of words", "later pieces of words", "white space", "digits",
        "punctuation", "digits", "punctuation", "digits", "digits", "punctuation", "punctuation", "special tokens",
    ]  # fmt: skip
    own = of_pieces(said, special, own_groups({"marks": r"<<|>>", "sums": r"<<.*>>"}))
    assert own[4:12] == ["digits", "marks", "sums", "sums", "sums", "sums", "marks", "punctuation"]
    with pytest.raises(ValueError, match="groups: marks: not a regular expression"):
        own_groups({"marks": "<<("})


# ---- bad input ---------------------------------------------------------------------------------------------------

PAIR = {"prompt": "the cat", "completion": "sees"}


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        ("", "rows.jsonl", "expected at least one row, got none"),
        (
            '{"prompt": "a", "completion": "b"}\n{"prompt": ',
            "rows.jsonl",
            r"line 2: not JSON: Expecting value \(column 11\)",
        ),
        ('{"prompt": ' + 5000 * "1" + "}", "rows.jsonl", "line 1: not JSON: Exceeds the limit"),
        ("[1]", "rows.jsonl", "line 1: expected an object, got list"),
        ('{"prompt": "a"}', "rows.json", "expected a list of objects"),
        ("{", "rows.json", "not JSON"),
        ("a", "rows.txt", r"expected a name that ends in \.jsonl"),
        ("a", "rows.parquet", "not a parquet file"),
        ('{"promt": "a", "completion": "b"}', "rows.jsonl", "expected columns prompt and completion; .* got promt"),
        (
            '{"prompt": 1, "completion": "b"}',
            "rows.jsonl",
            "row 1: column 'prompt': expected text or messages, got int",
        ),
        ('{"messages": "hello"}', "rows.jsonl", "row 1: expected messages with `role` and `content`"),
        ("a", "rows.jsonl.gz", "not a gzip file"),
        ("a", "rows.parquet.gz", r"expected a name that ends in \.jsonl"),
        ('{"a": [{"prompt": "a"}], "b": [{"prompt": "b"}]}', "rows.json", "expected a list of objects, an object with"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            "rows.jsonl",
            "row 1: expected parts of text in a message, got 'image'",
        ),
        (
            '{"prompt": "a", "completion": "b", "tools": "look"}',
            "rows.jsonl",
            "row 1: column 'tools': expected a list, or JSON of one, got 'look'",
        ),
    ],
)
def test_a_file_that_is_none(content: str, name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        examples(rows(tmp_path / name))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"prompt": "promt", "completion": "completion"}, "prompt: no column 'promt', did you mean prompt"),
        ({"prompt": "prompt"}, "expected both the prompt's and the completion's column"),
        ({"methods": []}, "methods: expected at least one"),
        ({"methods": ["kd"]}, "kd needs teacher_logits: expected a teacher, got none"),
        ({"methods": ["logit_adjustment"]}, "logit_adjustment needs prior_logits: no audit has that"),
        ({"methods": ["asft", "target_sft"]}, "asft needs reference_logits: expected a reference, got none"),
        (
            {"methods": ["delta_kd"], "reference": "a", "teacher": "a"},
            "delta_kd needs teacher_base_logits: expected a te",
        ),
        ({"methods": ["sft", "sft"]}, "expected different methods, got sft"),
        ({"groups": {"x": "("}}, "groups: x: not a regular expression"),
        ({"flag": "bad"}, "flag: no column 'bad' in row 1"),
        ({"flag": "prompt"}, "flag: row 1: expected true or false, got 'the cat'"),
        ({"limit": -1}, "limit: expected a number of at least 0, got -1"),
        ({"jobs": 0}, "jobs: expected a number of processes, got 0"),
        ({"device": "gpu"}, "device: expected one that torch has here, got gpu: Expected one of cpu"),
        ({"max_length": 1}, "expected at least one token to train on, got none in 2 demonstrations cut off"),
        ({"teacher": small_llama.model(vocab_size=97)}, "96 tokens, got one of 97: answers recorded by"),
        ({"tokenizer": "/nowhere"}, "tokenizer: /nowhere: none found there"),
        ({"reference": "/nowhere"}, "reference: /nowhere: no such folder"),
        ({"reference": 3}, "reference: expected a model or its folder, got int"),
    ],
)
def test_one_sentence_for_what_does_not_fit(how: dict[str, Any], sentence: str, model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=sentence):
        audit.run(**{"model": model, "demonstrations": [PAIR, PAIR], "tokenizer": tokenizer, **how})


def test_an_unknown_method(model: Any, tokenizer: Any) -> None:
    with pytest.raises(KeyError, match="did you mean sft"):
        audit.run(model, [PAIR], tokenizer, ["sfft"])


def test_folders_that_hold_no_model(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    for name, file, sentence in (
        ("empty", "readme", "expected a folder with config.json or adapter_config.json"),
        ("bare", "config.json", "expected weights in safetensors files, got none"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
        with pytest.raises(ValueError, match=sentence):
            audit.run(tmp_path / name, [PAIR], tokenizer)
    (tmp_path / "bare" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="got pickled ones, which could run any code"):
        audit.run(tmp_path / "bare", [PAIR], tokenizer)
    with pytest.raises(ValueError, match="expected one beside a model that is loaded already"):
        audit.run(model, [PAIR])


# ---- a folder and a file, the page, the command line ---------------------------------------------------------------

NASTY = "<script>alert(1)</script> & \u05e9\u05dc\u05d5\u05dd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Any, tokenizer: Any) -> Path:
    at = tmp_path_factory.mktemp("audited")
    model.save_pretrained(at / "model")
    tokenizer.save_pretrained(at / "model")
    (at / "rows.jsonl").write_text("\n".join(map(json.dumps, [*QUESTIONS, {"question": NASTY, "answer": NASTY}])))
    return at


def test_a_folder_gives_what_the_model_gives(folder: Path, together: audit.Audit) -> None:
    again = audit.run(folder / "model", folder / "rows.jsonl", limit=len(QUESTIONS))
    pd.testing.assert_frame_equal(again.methods, together.methods, atol=1e-4)


def test_an_audit_of_no_demonstrations_says_that_all_fits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qunify.cli import main

    out, weights = tmp_path / "page.html", tmp_path / "weights.jsonl"
    words = ["audit", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl"), "--out", str(out)]
    more = ["--limit", "0", "--influence", "--rehearse", "3", "--write-weights", f"dft={weights}"]
    assert main([*words, *more]) == 0
    assert "No demonstration was audited" in capsys.readouterr().out
    assert "No demonstration was audited" in out.read_text()
    assert weights.read_text() == ""
    found = audit.load(out.with_suffix(""))
    assert all(table.empty for table in (found.tokens, found.groups, found.examples))
    assert set(found.methods["method"]) >= {"sft", "dft"}
    assert found.methods.drop(columns="method").isna().all(axis=None)
    assert found.about["tokens"] == found.about["demonstrations"] == 0


def test_an_adapter_is_put_on_its_base(folder: Path, model: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        type(model).from_pretrained(folder / "model"),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    adapted.save_pretrained(str(tmp_path / "adapter"))
    settings = tmp_path / "adapter" / "adapter_config.json"
    told = json.loads(settings.read_text()) | {"base_model_name_or_path": str(folder / "model")}
    settings.write_text(json.dumps(told))
    put = audit.run(tmp_path / "adapter", QUESTIONS, folder / "model", ["dft"])
    same = audit.run(adapted.eval(), QUESTIONS, folder / "model", ["dft"])
    np.testing.assert_allclose(put.tokens["u"], same.tokens["u"], rtol=1e-4)
    bare = audit.run(folder / "model", QUESTIONS, methods=["dft"])
    assert not np.allclose(put.tokens["u"], bare.tokens["u"], rtol=1e-2)


def test_the_command_writes_the_page_and_the_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qunify.cli import main

    out = tmp_path / "page.html"
    words = ["audit", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl"), "--out", str(out)]
    assert main([*words, "--methods", "sft,dft,gem", "--set", "gem.beta=0.5", "--group", f"{NASTY}=cat|dog"]) == 0
    printed = capsys.readouterr().out
    told = audit.load(tmp_path / "page")
    assert printed.startswith(told.sentences[0])
    assert NASTY in set(told.groups["group"])
    page = out.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert ("</s>" in page, "&lt;/s&gt;" in page) == (False, True)
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert main([*words, "--json", "--methods", "sft"]) == 0
    assert json.loads(capsys.readouterr().out)["demonstrations"] == len(QUESTIONS) + 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--methods", "sfft"], "unknown method 'sfft', did you mean sft"),
        (["--group", "x"], "--group x: expected NAME=REGEX"),
        (["--model", "/nowhere"], "model: /nowhere"),
        (["--out", "page.pdf"], "expected a file name that ends in .html"),
        (["--out", "/nowhere/page.html"], "the folder /nowhere does not exist"),
    ],
)
def test_usage_errors(more: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qunify.cli import main

    words = ["audit", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl")]
    assert main([*words, *more]) == 2
    assert sentence in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_named_before_the_model_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qunify.cli import main

    (tmp_path / "page").write_text("a file where the tables' folder would be")
    words = ["--model", str(folder / "model"), "--data", "/nowhere.jsonl", "--out", str(tmp_path / "page.html")]
    assert main(["audit", *words]) == 2
    assert "page.html: cannot be written" in capsys.readouterr().err


def test_sentences_say_what_the_tables_say(found: audit.Audit) -> None:
    first, second, *_, last = found.sentences
    assert first.startswith(f"8 demonstrations with {len(found.tokens):,} tokens")
    below = found.methods.set_index("method")[["push_below_0.001", "push_below_0.05"]].sum(axis=1, min_count=2)
    assert f"{100 * below.max():.0f} % of the push of {below.idxmax()}" in second
    assert f"{100 * below.min():.0f} % of that of {below.idxmin()}" in second
    assert "share the model's parameters" in last
