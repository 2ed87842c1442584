"""Recorded answers as real servers wrote them, of the small model of tests/served.py, against that model's own logits.

Each line of tests/served/SERVER-VERSION.jsonl has what was asked and the body that came back.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qunify as qu
from qunify import audit, hf
from qunify.hf._server_formats import recorded
from qunify.hf._token_texts import TokenTexts
from tests import served, trainers
from tests.test_recorded import JUNK, spoiled

pytestmark = pytest.mark.slow  # transformers takes seconds to load

FOLDER = Path(__file__).parent / "served"
TOKENIZER = served.tokenizer()
TEXTS = TokenTexts(TOKENIZER)
IDS, START = served.ids()
CLOSE = {"llama.cpp": 0.02}  # nats: it multiplies in half precision


@pytest.fixture(scope="module")
def model() -> Any:
    return served.model()


def lines(server: str) -> dict[str, Any]:
    (path,) = FOLDER.glob(f"{server}-*.jsonl")
    return {line["case"]: line["answer"] for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def log_p(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


@pytest.mark.parametrize(
    ("server", "case", "counts"),
    [
        ("vllm", "prompt", {5, 6}),
        ("vllm", "chat_as_ids", {5}),
        ("vllm", "chat_token_ids", {2, 4, 5}),  # halves of letters have no text of their own
        ("llama.cpp", "chat_hot", {5, 6}),
        ("llama.cpp", "native_hot", {5, 6}),
        ("llama.cpp", "chat_eos", {6}),
        ("mlx_lm", "chat0", {1}),
        ("mistralrs", "chat", {5}),
    ],
)
def test_a_real_answer_is_what_the_model_says(
    server: str, case: str, counts: set[int], model: Any, tmp_path: Path
) -> None:
    body = lines(server)[case]
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(body))
    said = recorded(body, TEXTS)
    generated = [i for i in said.ids if i is not None][START if said.whole else 0 :]
    ids = IDS if case == "prompt" else IDS[:START] + generated
    rows = hf.Answers.read(path, TOKENIZER).rows(ids, [t >= START for t in range(len(ids))], "it")
    found = hf.Answers.read(path, TOKENIZER).top_k(torch.from_numpy(rows[START:]))
    listed = found.values > -torch.inf
    assert set(listed.sum(-1).tolist()) == counts
    assert all(token in row[there] for token, row, there in zip(ids[START:], found.indices, listed, strict=True))
    expected = log_p(model, ids)[START - 1 : -1].gather(-1, found.indices)
    apart = (found.values - expected)[listed].abs().max()
    assert float(apart) < CLOSE.get(server, 1e-4)


def test_what_mlx_lm_lists_where_the_tokens_are_known(model: Any) -> None:
    """Its entry for a token is one of the alternatives; the token's own log-probability may be missing."""
    body = lines("mlx_lm")
    ids = [row["id"] for row in body["chat0"]["choices"][0]["logprobs"]["content"]]
    said = recorded({**body["chat"], "token_ids": ids}, TEXTS)
    assert said.ids == ids
    p = log_p(model, IDS[:START] + ids)[START - 1 :]
    for row, listing in zip(p, said.listed, strict=False):
        assert listing is not None
        assert sorted(listing[0]) == sorted(row.topk(5).indices.tolist())
        torch.testing.assert_close(torch.tensor(listing[1]), row[listing[0]], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("server", "case", "sentence"),
    [
        ("vllm", "chat", r"position 0: expected the text of a token, got '', .*vLLM return_tokens_as_token_ids"),
        ("vllm", "responses", "position 0: expected the text of a token, got ''"),
        ("vllm", "raw_chat_as_ids", r"position 0: expected log-probabilities, got one of 6\.689: raw logits"),
        ("llama.cpp", "native", "expected log-probabilities for 6 tokens, got 4: llama.cpp writes only the last of"),
        ("llama.cpp", "native_post", "position 0: expected log-probabilities, got probabilities after sampling"),
        ("mlx_lm", "chat", "position 0: expected the token that was generated, got the first of its alternatives"),
    ],
)
def test_what_a_real_answer_does_not_tell_is_said(server: str, case: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(lines(server)[case]))
    with pytest.raises(ValueError, match=f"answers: .*line 1.*{sentence}"):
        hf.Answers.read(path, TOKENIZER)


def test_openai_s_responses() -> None:
    """The letters of vLLM's, made whole."""
    body = copy.deepcopy(lines("vllm")["responses"])
    (item,) = body["output"]
    item["content"][0]["logprobs"] = item["content"][0]["logprobs"][3:]
    said = recorded(body, TEXTS)
    assert TOKENIZER.decode([i for i in said.ids if i is not None]) == "sbV"
    chat = recorded(lines("vllm")["chat_as_ids"], TEXTS)
    for one, other in zip(said.listed, chat.listed[3:], strict=True):
        assert one is not None
        assert other is not None
        assert dict(zip(*one, strict=True)).items() <= dict(zip(*other, strict=True)).items()


def test_half_letters_by_their_bytes() -> None:
    """As SGLang 0.5.23 writes them in chat completions, and OpenAI."""
    body = copy.deepcopy(lines("vllm")["chat_token_ids"])
    ids = body["choices"][0].pop("token_ids")
    rows = body["choices"][0]["logprobs"]["content"]
    for row, token in zip(rows, ids, strict=True):
        row["bytes"] = [token] if token < 256 else row["bytes"]
        row["token"] = row["token"] or "\ufffd"
        row["top_logprobs"][0] |= {"bytes": row["bytes"]}
    said = recorded({**body, "prompt_token_ids": None}, TEXTS)
    assert said.ids == ids
    assert said.listed[0] is not None
    assert said.listed[0][0][0] == ids[0]


def test_half_letters_as_other_letters() -> None:
    """SGLang 0.5.23 writes the byte C3 of a completion as the letter of that number, as it writes the letter itself."""
    tokens, own = ["the", "\u00c3", "\u00a9"], [-1.0, -2.0, -3.0]
    top = [{"the": -1.0, "\u00c3": -1.5}, {"\u00c3": -2.0, " cat": -2.5}, {"\u00a9": -3.0}]
    logprobs: dict[str, Any] = {
        "tokens": tokens,
        "token_logprobs": own,
        "top_logprobs": top,
        "text_offset": [-1, -1, -1],
    }
    with pytest.raises(ValueError, match="position 1: expected the text of a token, got 'Ã', which may be half of a"):
        recorded({"choices": [{"logprobs": logprobs}]}, TEXTS)
    logprobs = {key: [None, *values] for key, values in logprobs.items()} | {"text_offset": [-1] * 4}
    logprobs["tokens"][0] = "a"
    the, half, other, cat = TOKENIZER("theé cat")["input_ids"]
    said = recorded({"ids": [97, the, half, other], "choices": [{"logprobs": logprobs}]}, TEXTS)
    assert said.listed == [None, ([the], [-1.0]), ([cat, half], [-2.5, -2.0]), ([other], [-3.0])]


@pytest.mark.parametrize("method", ["kd", "target_sft"])
def test_training_by_a_real_answer(method: str, model: Any, tmp_path: Path) -> None:
    """Two steps by what vLLM wrote; the first loss is that of the model's own likeliest tokens."""
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(lines("vllm")["prompt"]))
    start = served.model()
    with torch.no_grad():
        for p in start.parameters():
            p.mul_(0.9)
    student, teacher = log_p(start, IDS)[START - 1 : -1], log_p(model, IDS)[START - 1 : -1]
    labels = torch.tensor(IDS[START:])
    data = trainers.dataset(prompt=[served.MESSAGES[:1]], completion=[served.MESSAGES[1:]])
    trainer = trainers.train(
        tmp_path, model=copy.deepcopy(start), method=method, teacher_answers=path, train_dataset=data,
        processing_class=TOKENIZER, settings={"max_steps": 2},
    )  # fmt: skip
    assert trainers.apart(trainer.model, start) > 1e-5
    values, indices = teacher.topk(5)
    own = torch.cat([indices, labels[:, None]], -1)
    values = torch.cat([values, teacher.gather(-1, labels[:, None])], -1)
    values[(indices == labels[:, None]).any(-1), -1] = -torch.inf
    expected = qu.linear_loss(student, torch.eye(len(TOKENIZER)), labels, method, teacher=qu.TopK(values, own))
    assert trainers.losses(trainer)[0] == pytest.approx(float(expected), rel=1e-3)


EVERY = [lines(path.name.rsplit("-", 1)[0]) for path in sorted(FOLDER.glob("*.jsonl"))]
BODIES = [body for cases in EVERY for body in cases.values()]


@settings(max_examples=300, deadline=None)
@given(body=st.sampled_from(BODIES), at=st.integers(0, 150), junk=st.sampled_from(JUNK))
def test_whatever_stands_in_it_an_answer_is_read_or_refused_in_a_sentence(body: Any, at: int, junk: Any) -> None:
    sentence = "expected and read"
    try:
        recorded(spoiled(body, at, junk)[0] if at else body, TEXTS)
    except ValueError as error:
        sentence = str(error)
    assert re.match(r"(position \d+: )?expected \S", sentence)


@pytest.mark.parametrize("method", ["kd", "target_sft"])
def test_what_a_chat_template_puts_behind_an_answer_is_left_out(method: str, model: Any, tmp_path: Path) -> None:
    """A teacher that generates has done with the end of turn; to TRL the line's end behind it is a label, too."""
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(lines("llama.cpp")["chat_eos"]))
    data = trainers.dataset(
        prompt=[served.MESSAGES[:1]], completion=[[{"role": "assistant", "content": ""}]]
    )  # the teacher has ended its turn at once
    trainer = trainers.train(
        tmp_path, model=served.model(), method=method, teacher_answers=path, train_dataset=data,
        processing_class=TOKENIZER, settings={"max_steps": 2},
    )  # fmt: skip
    assert [i for i in trainer.train_dataset[0]["labels"] if i != -100] == [TOKENIZER.eos_token_id]
    assert len(trainers.losses(trainer)) == 2
    found = audit.run(model, data, TOKENIZER, [method], teacher=path)
    assert found.tokens["id"].tolist() == [TOKENIZER.eos_token_id]
    answers, ids = hf.Answers.read(path, TOKENIZER), [*IDS[:START], 303, 10]
    counted = [t >= START for t in range(len(ids))]
    assert (answers.rows(ids, counted, "it", rest=True) >= 0).sum() == 1
    for more, rest in ((ids, False), ([*IDS[:START], 303, 97], True), ([*ids, 97], True)):
        with pytest.raises(ValueError, match="expected an answer for every token that is trained on, got none for"):
            answers.rows(more, [t >= START for t in range(len(more))], "it", rest=rest)
