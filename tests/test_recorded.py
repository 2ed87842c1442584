"""A teacher's recorded answers: files as servers write them, each made of the same model's own log-probabilities."""

# ruff: noqa: PD011 - the values are those of a TopK
from __future__ import annotations

import copy
import gzip
import json
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Trainer

import qunify as qu
from qunify import audit, hf
from qunify.audit import _record
from qunify.audit._encoding import encode
from qunify.cli import main
from qunify.hf._server_formats import recorded
from qunify.hf._token_texts import TokenTexts
from tests import small_llama, trainers
from tests.trainers import LAYOUTS, apart, by_hand, examples

pytestmark = pytest.mark.slow  # transformers takes seconds to load

TEXTS = small_llama.sentences()
TOKENIZER = small_llama.tokenizer()
K = 5


@pytest.fixture(scope="module")
def teacher() -> Any:
    return small_llama.model(seed=1).eval()


def ids_of(text: str) -> Any:
    return TOKENIZER(f"<user> the cat </s> <assistant> {text} </s>")["input_ids"]


#: Where what the assistant says begins.
START = len(TOKENIZER("<user> the cat </s> <assistant>")["input_ids"])
DEMONSTRATIONS = [ids_of(text) for text in TEXTS]


def log_p(model: Any, ids: list[int]) -> Tensor:
    """(T, V): at every token but the first, with which log-probabilities it was foretold. The model's vocabulary has
    more entries than the tokenizer, none of which a trained model would list."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    logits[:, len(TOKENIZER) :] = -torch.inf
    found = logits.log_softmax(-1)
    return torch.cat([torch.full_like(found[:1], math.nan), found[:-1]])


def counted(ids: list[int], start: int = START) -> list[bool]:
    return [t >= start for t in range(len(ids))]


# ---- bodies, as each server writes them --------------------------------------------------------------------------


def text(token: int) -> str:
    return str(TOKENIZER.decode([token]))


def vllm_entries(ids: list[int], p: Tensor, label_first: bool = True) -> list[Any]:
    entries: list[Any] = [None]
    for t in range(1, len(ids)):
        top = p[t].topk(K).indices.tolist()
        order = dict.fromkeys([ids[t], *top] if label_first else [*top, ids[t]])
        ranks = {i: int((p[t] > p[t, i]).sum()) + 1 for i in order}
        entries.append({str(i): {"logprob": p[t, i].item(), "rank": ranks[i], "decoded_token": text(i)} for i in order})
    return entries


def vllm_completion(ids: list[int], p: Tensor) -> dict[str, Any]:
    choice = {"index": 0, "text": "x", "logprobs": None, "prompt_logprobs": vllm_entries(ids, p)}
    return {"id": "cmpl-1", "object": "text_completion", "choices": [{**choice, "prompt_token_ids": ids}]}


def vllm_chat(ids: list[int], p: Tensor) -> dict[str, Any]:
    """With the generation prompt after the demonstration, as a chat template adds it, and no token ids."""
    longer = [*ids, 4]
    entries = vllm_entries(longer, torch.cat([p, p[-1:]]))
    return {"choices": [{"index": 0, "message": {"role": "assistant"}, "logprobs": None}], "prompt_logprobs": entries}


def vllm_batch(ids: list[int], p: Tensor) -> dict[str, Any]:
    return {"custom_id": "a", "response": {"status_code": 200, "body": vllm_completion(ids, p)}, "error": None}


def vllm_generate(ids: list[int], p: Tensor) -> dict[str, Any]:
    """What people keep of `LLM.generate`'s outputs; with the token itself last, which ids beside it make harmless."""
    return {"prompt_token_ids": ids, "prompt_logprobs": vllm_entries(ids, p, label_first=False)}


def triples(row: Tensor, tokens: list[int]) -> list[list[Any]]:
    return [[row[i].item(), i, None] for i in tokens]


def sglang(ids: list[int], p: Tensor, start: int = 0) -> dict[str, Any]:
    asked = ids[start:]
    own = [[None, asked[0], None]] + [[p[start + t, i].item(), i, None] for t, i in enumerate(asked) if t]
    top = [None] + [triples(p[start + t], p[start + t].topk(K).indices.tolist()) for t in range(1, len(asked))]
    meta = {"prompt_tokens": len(ids), "input_token_logprobs": own, "input_top_logprobs": top, "completion_tokens": 0}
    return {"text": "", "meta_info": {**meta, "output_token_logprobs": [], "output_top_logprobs": []}}


def sglang_end(ids: list[int], p: Tensor) -> dict[str, Any]:
    """With logprob_start_len one token before what is trained on."""
    return sglang(ids, p, START - 1)


def sglang_zero(ids: list[int], p: Tensor) -> dict[str, Any]:
    """SGLang writes 0 for the last token of a vocabulary: the ids beside it count."""
    body = sglang(ids, p)
    body["meta_info"]["input_token_logprobs"][-2][1] = 0
    return {"ids": ids, **body}


def openai_completion(ids: list[int], p: Tensor, name: Callable[[int], str] = text) -> dict[str, Any]:
    top: list[Any] = [None]
    for t in range(1, len(ids)):
        order = dict.fromkeys([ids[t], *p[t].topk(K).indices.tolist()])
        top.append({name(i): p[t, i].item() for i in order})
    own = [None] + [p[t, i].item() for t, i in enumerate(ids) if t]
    logprobs = {"tokens": [name(i) for i in ids], "token_logprobs": own, "top_logprobs": top, "text_offset": [0]}
    return {"choices": [{"index": 0, "text": "echoed", "logprobs": logprobs}]}


def openai_ids(ids: list[int], p: Tensor) -> dict[str, Any]:
    return openai_completion(ids, p, "token_id:{}".format)


def openai_chat(ids: list[int], p: Tensor, start: int = START) -> dict[str, Any]:
    """What was generated, its first k alternatives, and a token of its own that is not among them."""
    content = []
    for t in range(start, len(ids)):
        entries = [
            {"token": text(i), "bytes": list(text(i).encode()), "logprob": p[t, i].item()}
            for i in p[t].topk(K).indices.tolist()
        ]
        own = {"token": text(ids[t]), "bytes": None, "logprob": p[t, ids[t]].item()}
        content.append({**own, "top_logprobs": entries})
    return {"choices": [{"index": 0, "message": {"role": "assistant"}, "logprobs": {"content": content}}]}


def openai_chat_with_ids(ids: list[int], p: Tensor) -> dict[str, Any]:
    """vLLM's with return_token_ids."""
    body = openai_chat(ids, p)
    return {**body, "prompt_token_ids": ids[:START], "choices": [{**body["choices"][0], "token_ids": ids[START:]}]}


def own(ids: list[int], p: Tensor) -> dict[str, Any]:
    at = list(range(START, len(ids)))
    tokens = [list(dict.fromkeys([*p[t].topk(K).indices.tolist(), ids[t]])) for t in at]
    return {"ids": ids, "positions": at, "tokens": tokens,
            "logprobs": [p[t, i].tolist() for t, i in zip(at, tokens, strict=True)]}  # fmt: skip


FORMATS = [
    vllm_completion, vllm_chat, vllm_batch, vllm_generate, sglang, sglang_end, sglang_zero, openai_completion,
    openai_ids, openai_chat, openai_chat_with_ids, own,
]  # fmt: skip


def file(folder: Path, lines: list[Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


# ---- every format says the same ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", FORMATS, ids=lambda f: f.__name__)
def test_every_format_gives_what_the_teacher_listed(body: Any, teacher: Any, tmp_path: Path) -> None:
    lines = [body(ids, log_p(teacher, ids)) for ids in DEMONSTRATIONS]
    answers = hf.Answers.read(file(tmp_path, list(reversed(lines))), TOKENIZER)
    answers.check_vocabulary(96)
    for i, ids in enumerate(DEMONSTRATIONS):
        rows = answers.rows(ids, counted(ids), f"demonstration {i + 1}")
        assert (rows >= 0).tolist() == counted(ids)
        p = log_p(teacher, ids)[START:]
        found = answers.top_k(torch.from_numpy(rows[START:]))
        listed = found.values > -torch.inf
        torch.testing.assert_close(
            found.values, p.gather(-1, found.indices).masked_fill(~listed, -torch.inf), rtol=0, atol=1e-6
        )
        for t, token in enumerate(ids[START:]):
            tokens = set(found.indices[t][listed[t]].tolist())
            assert tokens == {token, *p[t].topk(K).indices.tolist()}


@pytest.mark.parametrize("kind", ["answers.json", "answers.jsonl.gz", "answers.json.gz"])
def test_a_list_of_answers_and_a_file_that_is_packed(kind: str, teacher: Any, tmp_path: Path) -> None:
    bodies = [vllm_completion(ids, log_p(teacher, ids)) for ids in DEMONSTRATIONS]
    plain = file(tmp_path, bodies)
    content = plain.read_bytes() if "jsonl" in kind else json.dumps(bodies, indent=1).encode()
    (tmp_path / kind).write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    found, expected = hf.Answers.read(tmp_path / kind), hf.Answers.read(plain)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(pickle.loads(pickle.dumps(found)).values, found.values)


def test_a_demonstration_that_is_cut_off_is_found(teacher: Any, tmp_path: Path) -> None:
    ids = DEMONSTRATIONS[3]
    path = file(tmp_path, [vllm_completion(i, log_p(teacher, i)) for i in DEMONSTRATIONS])
    answers = hf.Answers.read(path)
    short = answers.rows(ids[:-3], counted(ids)[:-3], "it")
    assert short.tolist() == answers.rows(ids, counted(ids), "it")[:-3].tolist()


def test_what_was_generated_is_found_where_more_follows(teacher: Any, tmp_path: Path) -> None:
    """A chat template may end a turn with tokens that nobody is trained on."""
    ids = DEMONSTRATIONS[3]
    answers = hf.Answers.read(file(tmp_path, [openai_chat(i, log_p(teacher, i)) for i in DEMONSTRATIONS]), TOKENIZER)
    rows = answers.rows([*ids, 7], [*counted(ids), False], "it")
    assert rows.tolist() == [*answers.rows(ids, counted(ids), "it"), -1]


def test_what_stands_for_minus_infinity(teacher: Any, tmp_path: Path) -> None:
    """vLLM and OpenAI write −9999, Python's json -Infinity, which is no JSON."""
    ids = DEMONSTRATIONS[0]
    body = own(ids, log_p(teacher, ids))
    answers = hf.Answers.read(file(tmp_path, [body]))
    kept = answers.top_k(torch.from_numpy(answers.rows(ids, counted(ids), "it")[START:]))
    for least in (-9999.0, -math.inf):
        more = {**body, "tokens": [[*row, 95] for row in body["tokens"]]}
        more["logprobs"] = [[*row, least] for row in body["logprobs"]]
        again = hf.Answers.read(file(tmp_path, [more]))
        found = again.top_k(torch.from_numpy(again.rows(ids, counted(ids), "it")[START:]))
        assert torch.equal(found.values, kept.values)


def test_answers_travel_by_their_file(teacher: Any, tmp_path: Path) -> None:
    """A copy for another process reads the file again, and refuses it where it has changed."""
    path = file(tmp_path, [own(ids, log_p(teacher, ids)) for ids in DEMONSTRATIONS])
    packed = pickle.dumps(hf.Answers.read(path))
    assert torch.equal(pickle.loads(packed).values, hf.Answers.read(path).values)
    assert len(packed) < 500
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="expected the file as it was when training was set up, got another"):
        pickle.loads(packed)


# ---- which line --------------------------------------------------------------------------------------------------


def test_lines_that_name_only_the_end_of_their_tokens(teacher: Any, tmp_path: Path) -> None:
    """The same answer to two questions: one of the lines must say which."""
    first = ids_of("sees")
    other = [*TOKENIZER("<user> a dog </s> <assistant>")["input_ids"], *first[START:]]
    start = len(other) - len(first) + START
    lines = [openai_chat(first, log_p(teacher, first))]
    p = log_p(teacher, other)
    lines.append(openai_chat([*first[:START], *other[start:]], torch.cat([p[:START], p[start:]])))
    with pytest.raises(
        ValueError, match=r"lines 1 and 2, which answer the same tokens differently .* prompt_token_ids"
    ):
        hf.Answers.read(file(tmp_path, lines), TOKENIZER).rows(first, counted(first), "demonstration 1")
    lines[0]["prompt_token_ids"], lines[1]["prompt_token_ids"] = first[:START], other[:start]
    answers = hf.Answers.read(file(tmp_path, lines), TOKENIZER)
    for ids, begin in ((first, START), (other, start)):
        rows = answers.rows(ids, counted(ids, begin), "it")
        found = answers.top_k(torch.from_numpy(rows[begin:]))
        expected = log_p(teacher, ids)[begin:].gather(-1, found.indices)
        torch.testing.assert_close(found.values, expected.masked_fill(found.values.isinf(), -torch.inf))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda ids: [*ids[:-2], 7, ids[-1]],
            r"line 1, parts from it at position {t}, where the line has '\w+' \(\d+\)",
        ),
        (lambda ids: [7, *ids[1:]], r"parts from it at position 0, where the line has '<user>' \(3\) and the demonst"),
        (lambda ids: [*ids, 7], r"for every token that is trained on, got none for '\w' \(7\) at position {end}"),
    ],
)
def test_other_tokens_are_named(change: Any, sentence: str, teacher: Any, tmp_path: Path) -> None:
    ids = DEMONSTRATIONS[0]
    answers = hf.Answers.read(file(tmp_path, [vllm_completion(ids, log_p(teacher, ids))]), TOKENIZER)
    wanted = change(ids)
    sentence = sentence.replace("{t}", str(len(ids) - 2)).replace("{end}", str(len(ids)))
    with pytest.raises(ValueError, match=f"answers: .*answers.jsonl: demonstration 9: expected an answer .*{sentence}"):
        answers.rows(wanted, counted(wanted), "demonstration 9")


# ---- refusals ----------------------------------------------------------------------------------------------------

OWN = {"ids": [3, 4, 5], "positions": [1, 2], "tokens": [[4], [5]], "logprobs": [[-0.1], [-0.2]]}
LOGIT = {"4": {"logprob": 12.5, "rank": 1, "decoded_token": "a"}, "7": {"logprob": 9.0, "rank": 2}}
CHAT: dict[str, Any] = {"token": "cat", "bytes": None, "logprob": -0.1, "top_logprobs": []}


def chat(**change: Any) -> dict[str, Any]:
    return {"choices": [{"logprobs": {"content": [{**CHAT, **change}]}}]}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: expected an object, got int"),
        ("[1", "line 1: not JSON"),
        ("", "expected log-probabilities in its lines, got none"),
        ({"text": "hello"}, r"line 1: expected positions, tokens and logprobs .* got text"),
        ({"prompt_logprobs": [None, LOGIT], "ids": [3, 4]}, r"position 1: expected log-probabilities, got one of 12"),
        ({**OWN, "logprobs": [[-0.1], [0.4]]}, r"line 1, position 2: expected log-probabilities, got one of 0\.4: raw"),
        (
            {**OWN, "tokens": [[4, 5], [5]], "logprobs": [[-0.1, -0.2], [-1]]},
            r"line 1, position 1: expected log-probabilities, got probabilities that add up to 1\.724",
        ),
        ({**OWN, "logprobs": [[-0.1], [math.nan]]}, "line 1, position 2: expected a log-probability, got NaN"),
        ({**OWN, "logprobs": [[-0.1], ["-1"]]}, "position 2: expected a log-probability, got '-1' for token 5"),
        ({**OWN, "logprobs": [[-0.1, -3.0], [-1]]}, "position 1: expected as many tokens as logprobs, got 1 and 2"),
        ({**OWN, "logprobs": [[-0.1]]}, "expected as many positions as lists .* got 2, 2 and 1"),
        ({**OWN, "positions": [1, 3]}, "expected positions from 1 to 2, got 3"),
        ({**OWN, "positions": [0, 1]}, "expected positions from 1 to 2, got 0"),
        ({**OWN, "tokens": [[4], [2**40]]}, "position 2: expected a token id, got 1099511627776"),
        ({**OWN, "ids": ["a"]}, "expected token ids as ids, got 'a'"),
        ({**OWN, "ids": None}, "expected ids beside positions, got none"),
        (
            {**OWN, "tokens": [[4, 4], [5]], "logprobs": [[-0.1, -3], [-1]]},
            r"position 1: expected one log-probability for a token, got -0\.1 and -3 for token 4",
        ),
        ({"prompt_logprobs": [None, {"cat": -1.0}]}, "position 1: expected token ids as keys .* got 'cat'"),
        ({"prompt_logprobs": [None, {}]}, "position 1: expected an object of token ids, got {}"),
        ({"prompt_logprobs": [None, None]}, "position 1: expected prompt_logprobs, which only the first token lacks"),
        (
            {"prompt_logprobs": [None, {"4": -1.0, "7": -2.0}], "ids": [3, 5]},
            "position 1: expected the token that stands there, 5, to be listed, got 4, 7",
        ),
        ({"prompt_logprobs": [None, {"4": -1.0}], "ids": [3]}, "expected token ids for 2 entries .* got 1"),
        ({"meta_info": {"input_token_logprobs": [[None, 3, None]]}}, "top_logprobs_num.* of one length, got 1 and 0"),
        (
            {"meta_info": {"input_token_logprobs": [[None, 3, None], -1], "input_top_logprobs": [None, None]}},
            r"position 1: expected \[logprob, id, text\], got -1",
        ),
        (
            {
                "ids": [3, 4],
                "input_token_logprobs": [[None, 3, None], [-1, 5, None]],
                "input_top_logprobs": [None, []],
            },
            "position 1: expected the token 4 as in the ids, got 5",
        ),
        ({"response": None, "error": {"message": "busy"}}, "expected an answer, got the error {'message': 'busy'}"),
        ({"choices": [{}, {}]}, "expected one choice in a line, got 2"),
        ({"choices": [{"logprobs": {"content": [{"token": "a"}]}}]}, "expected an object with token and logprob"),
        (
            {"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [], "top_logprobs": []}}]},
            "expected tokens, token_logprobs and top_logprobs of one length, got 1, 0 and 0",
        ),
        (chat(token="catdog"), "position 0: expected the text of a token, got 'catdog', that of none"),
        (chat(token="twin"), r"got 'twin', that of 2 tokens \(90, 91, …\): let the server write ids"),
    ],
)  # fmt: skip
def test_one_sentence_for_a_line_that_is_none(line: Any, sentence: str, tmp_path: Path) -> None:
    class Twins(TokenTexts):
        _decoded = {"cat": [5], "twin": [90, 91]}  # noqa: RUF012
        _pieces = {}  # noqa: RUF012

    path = file(tmp_path, [line])
    with pytest.raises(ValueError, match=f"answers: .*answers.jsonl: .*{sentence}"):  # noqa: PT012
        if isinstance(line, dict) and "choices" in line:
            try:
                recorded(line, Twins("one"))
            except ValueError as error:
                raise ValueError(f"answers: answers.jsonl: {error}") from None
        hf.Answers.read(path)


def test_alternatives_that_could_be_several_tokens_are_not_listed() -> None:
    """As "�" is, which half of a letter decodes to: byte-level tokenizers have hundreds, and servers list them."""

    class Twins(TokenTexts):
        _decoded = {"cat": [5], "dog": [6], "�": [90, 91]}  # noqa: RUF012

    entries = [{"token": name, "logprob": value} for name, value in (("cat", -0.5), ("�", -1.5), ("dog", -2.0))]
    line = recorded(chat(token="dog", logprob=-2.0, top_logprobs=entries), Twins("one"))
    (listing,) = line.listed
    assert listing is not None
    assert dict(zip(*listing, strict=True)) == {5: -0.5, 6: -2.0}


JUNK: list[Any] = [
    None,
    True,
    -1,
    3,
    2**70,
    0.5,
    -math.inf,
    math.nan,
    "",
    "cat",
    "7",
    [],
    [[]],
    [None],
    {},
    {"logprob": 1},
]


def spoiled(node: Any, at: int, junk: Any) -> tuple[Any, int]:
    """A copy in which the `at`-th node below this one is something else; and how many nodes are left to count."""
    if at == 0:
        return junk, -1
    at -= 1
    if not isinstance(node, dict | list):
        return node, at
    keys = list(node) if isinstance(node, dict) else range(len(node))
    new = copy.copy(node)
    for key in keys:
        new[key], at = spoiled(node[key], at, junk)
        if at < 0:
            break
    return new, at


@settings(max_examples=300, deadline=None)
@given(body=st.sampled_from(FORMATS), at=st.integers(0, 250), junk=st.sampled_from(JUNK))
def test_whatever_a_line_holds_it_is_read_or_refused_in_a_sentence(
    body: Any, at: int, junk: Any, teacher: Any, tmp_path_factory: Any
) -> None:
    ids = DEMONSTRATIONS[0]
    line = spoiled(body(ids, log_p(teacher, ids)), at, junk)[0]
    folder, sentence = tmp_path_factory.mktemp("junk"), "answers: answers.jsonl: read"
    try:
        answers = hf.Answers.read(file(folder, [line]), TOKENIZER)
        answers.check_vocabulary(96)
        answers.rows(ids, counted(ids), "demonstration 1")
    except ValueError as error:
        sentence = str(error)
    assert re.match(r"answers: .*answers\.jsonl: \S", sentence)


def test_text_without_a_tokenizer_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl.gz").write_text("{}")
    with pytest.raises(ValueError, match=r"answers.jsonl.gz: not a gzip file"):
        hf.Answers.read(tmp_path / "answers.jsonl.gz")
    with pytest.raises(ValueError, match="expected a tokenizer to read tokens that are given as text, such as 'cat'"):
        hf.Answers.read(file(tmp_path, [chat()]))
    with pytest.raises(ValueError, match=r"answers: nowhere.jsonl: no such file"):
        hf.Answers.read("nowhere.jsonl")


def test_another_vocabulary(tmp_path: Path) -> None:
    """Of another size it may be, if no token is listed that the model has not."""
    answers = hf.Answers.read(file(tmp_path, [{"qunify_answers": {"vocab": 90}}, OWN]))
    answers.check_vocabulary(6)
    with pytest.raises(ValueError, match="expected token ids below the model's 5, got 5 in line 2, position 2"):
        answers.check_vocabulary(5)


# ---- as a teacher ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 9), seed=st.integers(0, 2**16), name=st.sampled_from(["kd", "reverse_kl", "dkd", "target_sft"]))
def test_a_record_gives_the_loss_of_the_list_itself(k: int, seed: int, name: str, tmp_path_factory: Any) -> None:
    n, v = 4, 9
    generator = torch.Generator().manual_seed(seed)
    z, t, w = (torch.randn(n, s, generator=generator) * 3 for s in (3, v, v))
    weight = w[:3].T.contiguous()
    y = torch.randint(v, (n,), generator=generator)
    values, indices = t.log_softmax(-1).topk(k)
    order = torch.randperm(k, generator=generator)
    ids = [0, *y.tolist()]
    line = {"ids": ids, "positions": [1, 2, 3, 4], "tokens": indices[:, order].tolist()}
    line["logprobs"] = values[:, order].tolist()
    answers = hf.Answers.read(file(tmp_path_factory.mktemp("one"), [line]))
    rows = torch.from_numpy(answers.rows(ids, [False] + [True] * n, "it")[1:])
    expected = qu.linear_loss(z, weight, y, name, teacher=qu.TopK(values, indices))
    found = qu.linear_loss(z, weight, y, name, teacher=answers.top_k(rows))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_list_that_adds_up_to_one_leaves_the_others_a_little() -> None:
    """With −inf for them, one that the model believes in at 1 % would outweigh all that the teacher says."""
    t = torch.full((1, 50), -20.0)
    t[0, :3] = torch.tensor([0.5, 0.25, 0.25]).log()
    y, head = torch.tensor([0]), torch.eye(50)
    z = t.clone()
    z[0, 7] = -1.0
    values, indices = t.topk(3)
    assert float(values.exp().sum()) == 1
    full = qu.linear_loss(z, head, y, "reverse_kl", teacher=t)
    found = qu.linear_loss(z, head, y, "reverse_kl", teacher=qu.TopK(values, indices))
    torch.testing.assert_close(found, full, rtol=0.2, atol=0)


@pytest.mark.parametrize(("name", "k"), [("logit_std_kd", 96), ("topk_kd", 96), ("kd", 1)])
def test_methods_that_must_be_told_more_of_the_teacher_say_so(name: str, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    t, z, y = torch.randn(4, 96, generator=generator), torch.randn(4, 96, generator=generator), torch.arange(4)
    assert qu.get(name).teacher_tokens(96) == k
    whole = qu.TopK(*t.log_softmax(-1).topk(k))
    if k == 96:
        full = qu.linear_loss(z, torch.eye(96), y, name, teacher=t)
        torch.testing.assert_close(qu.linear_loss(z, torch.eye(96), y, name, teacher=whole), full)
        with pytest.raises(ValueError, match=f"{name}: teacher_logits: expected the teacher's 96 likeliest.* got 95"):
            qu.linear_loss(z, torch.eye(96), y, name, teacher=qu.TopK(whole.values[:, :95], whole.indices[:, :95]))


@pytest.mark.parametrize(  # log-probabilities are not the logits that logit_mse compares
    "name", [m for m in qu.names() if "teacher_logits" in qu.get(m).needs and m != "logit_mse"]
)
def test_a_longer_list_comes_closer_to_the_teacher(name: str) -> None:
    """For every method that does not ask for all of it; a quarter of the vocabulary is within half the gradient."""
    m = qu.get(name)
    generator = torch.Generator().manual_seed(0)
    v, n = 400, 32
    t, own, other = (3 * torch.randn(n, v, generator=generator) for _ in range(3))
    z, y = t + own / 3, t.softmax(-1).multinomial(1, generator=generator)[:, 0]
    context: dict[str, Any] = {k: z + other / 3 for k in m.needs if k.endswith("_logits")}
    context |= {"token_weight": torch.linspace(0.5, 1.5, n)} if "token_weight" in m.needs else {}
    full = m(z, y, **{**context, "teacher_logits": t}).gradient
    apart = []
    for k in (10, 100, 400):
        if k < m.teacher_tokens(v):
            continue
        listed = qu.TopK(*t.log_softmax(-1).topk(k)).logits(torch.arange(n), v, torch.float32)
        g = m(z, y, **{**context, "teacher_logits": listed}).gradient
        apart.append(float(((g - full).abs().sum(-1) / full.abs().sum(-1)).median()))
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 1e-3
    assert m.teacher_tokens(v) == v or apart[-2] < 0.5


def test_no_list_of_log_probabilities_tells_logits() -> None:
    z, t, y = torch.randn(2, 6), torch.randn(2, 6).log_softmax(-1), torch.tensor([0, 3])
    every = qu.TopK(t, torch.arange(6).expand(2, 6))
    sentence = "logit_mse: teacher_logits: expected the teacher's logits themselves, got 6 log-probabilities"
    with pytest.raises(ValueError, match=sentence):
        qu.linear_loss(z, torch.eye(6), y, "logit_mse", teacher=every)
    assert float(qu.linear_loss(z, torch.eye(6), y, "logit_mse", teacher=t)) > 0


# ---- the recorder ------------------------------------------------------------------------------------------------

QUESTIONS = [{"question": "the cat sees", "answer": said} for said in TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, teacher: Any) -> Path:
    at = tmp_path_factory.mktemp("teacher")
    teacher.save_pretrained(at / "model")
    TOKENIZER.save_pretrained(at / "model")
    (at / "rows.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return at


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_what_is_recorded_is_what_the_model_says(k: int, folder: Path, teacher: Any, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    about = audit.record(folder / "model", folder / "rows.jsonl", out, top_k=k, batch_tokens=40)
    answers = hf.Answers.read(out)
    lines = written(out)[1:]
    assert len(lines) == about["demonstrations"] == len(QUESTIONS)
    assert about["tokens"] == sum(len(line["positions"]) for line in lines)
    for row, line in zip(QUESTIONS, lines, strict=True):
        e = encode({"prompt": row["question"], "completion": row["answer"]}, TOKENIZER)
        assert line["ids"] == e.ids
        rows = answers.rows(e.ids, e.counted, "it")
        at = [t for t, counts in enumerate(e.counted) if counts]
        assert at == line["positions"]
        with torch.no_grad():
            p = teacher(input_ids=torch.tensor([e.ids])).logits[0].log_softmax(-1)
        for t in at:
            pairs = zip(answers.tokens[rows[t]].tolist(), answers.values[rows[t]].tolist(), strict=True)
            listed = {token: value for token, value in pairs if value > -math.inf}
            assert set(listed) == {*p[t - 1].topk(min(k, 96)).indices.tolist(), e.ids[t]}
            for token, value in listed.items():
                assert value == pytest.approx(float(p[t - 1, token]), abs=1e-5)


@pytest.mark.parametrize("lost", [0, 30], ids=["after a line", "within a line"])
def test_a_stopped_run_goes_on(lost: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_record, "WINDOW", 2)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    audit.record(folder / "model", folder / "rows.jsonl", whole, top_k=5)
    asked: list[list[int]] = []
    passes = 0

    def stops(models: Any, batch: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == 3:
            raise KeyboardInterrupt
        asked.extend(e.ids for e in batch)
        return forward(models, batch)

    forward = _record.logits
    monkeypatch.setattr(_record, "logits", stops)
    with pytest.raises(KeyboardInterrupt):
        audit.record(folder / "model", folder / "rows.jsonl", out, top_k=5)
    partial = tmp_path / "answers.jsonl.partial"
    assert not out.exists()
    finished = len(written(partial)) - 1
    assert 0 < finished < len(QUESTIONS)
    partial.write_bytes(partial.read_bytes()[: -lost or None])
    kept = finished - (lost > 0)
    asked.clear()
    about = audit.record(folder / "model", folder / "rows.jsonl", out, top_k=5)
    assert about["kept"] == kept
    assert sorted(asked) == sorted(line["ids"] for line in written(whole)[1 + kept :])
    for one, other in zip(written(out), written(whole), strict=True):
        assert {**one, "logprobs": 0} == {**other, "logprobs": 0}
        for a, b in zip(one.get("logprobs", []), other.get("logprobs", []), strict=True):
            assert a == pytest.approx(b, abs=1e-5)  # in batches of another shape, numbers round differently
    assert not partial.exists()
    asked.clear()
    assert audit.record(folder / "model", folder / "rows.jsonl", out, top_k=5)["kept"] == len(QUESTIONS)
    assert asked == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"top_k": 4}, "got another top_k: remove the file"),
        ({"limit": 4}, "got another data: remove the file"),
        ({"max_length": 6}, "got another data: remove the file"),
        ({"model": small_llama.model(seed=2)}, "got another model: remove the file"),
    ],
)
def test_a_run_of_another_making_does_not_go_on(
    change: dict[str, Any], sentence: str, folder: Path, tmp_path: Path, teacher: Any
) -> None:
    given = {"model": teacher, "demonstrations": QUESTIONS, "out": tmp_path / "answers.jsonl", "tokenizer": TOKENIZER}
    audit.record(**given, top_k=5)
    partial = tmp_path / "answers.jsonl.partial"
    (tmp_path / "answers.jsonl").rename(partial)
    before = partial.read_bytes()
    with pytest.raises(ValueError, match=f"record: .*answers.jsonl.partial: .*{sentence}"):
        audit.record(**{**given, "top_k": 5, **change})
    assert partial.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"top_k": 0}, "record: top_k: expected a number of at least 1, got 0"),
        ({"limit": -1}, "record: limit: expected a number of at least 0, got -1"),
        ({"max_length": 1}, "record: demonstrations: expected a token to train on, got none in 8"),
        ({"model": "/nowhere"}, "model: /nowhere: no such folder"),
        ({"model": small_llama.model(vocab_size=6)}, "record: tokenizer: expected ids below the model's 6"),
    ],
)
def test_a_recorder_says_what_does_not_fit(change: dict[str, Any], sentence: str, teacher: Any, tmp_path: Path) -> None:
    given = {"model": teacher, "demonstrations": QUESTIONS, "out": tmp_path / "a.jsonl", "tokenizer": TOKENIZER}
    with pytest.raises(ValueError, match=sentence):
        audit.record(**{**given, **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ("answers", "a.jsonl: expected answers begun with the same .* got another top_k: remove the file to begin"),
        ("rows", "a.jsonl: expected no file, or recorded answers, got another file: choose another name"),
    ],
)
def test_no_file_is_written_over(made: str, sentence: str, teacher: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    if made == "answers":
        audit.record(teacher, QUESTIONS, out, TOKENIZER, top_k=5)
    else:
        out.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    before = out.read_bytes()
    with pytest.raises(ValueError, match=sentence):
        audit.record(teacher, QUESTIONS, out, TOKENIZER, top_k=4)
    assert out.read_bytes() == before
    assert [*tmp_path.iterdir()] == [out]


def test_pickled_weights_are_not_recorded(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="got pickled ones, which could run any code"):
        audit.record(tmp_path / "model", QUESTIONS, tmp_path / "a.jsonl", folder / "model")


def test_a_demonstration_without_a_token_left_has_its_line(teacher: Any, tmp_path: Path) -> None:
    rows = [{"question": "the cat " * 9, "answer": "sees"}, *QUESTIONS[:1]]
    audit.record(teacher, rows, tmp_path / "a.jsonl", TOKENIZER, max_length=9)
    assert [len(line["positions"]) > 0 for line in written(tmp_path / "a.jsonl")[1:]] == [False, True]
    hf.Answers.read(tmp_path / "a.jsonl")


def test_the_command_records(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl"), "--top-k", "3"]
    out = tmp_path / "answers.jsonl"
    assert main([*words, "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {out}: ")
    assert main([*words, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == len(QUESTIONS)
    for more, sentence in (
        (["--out", "answers.txt"], "expected a file name that ends in .jsonl"),
        (["--out", str(out), "--top-k", "0"], "record: top_k"),
        (["--out", str(tmp_path / "new.jsonl")], "cannot be written"),
    ):
        if "new.jsonl" in more[-1]:
            (tmp_path / "new.jsonl.partial").mkdir()
        assert main([*words, *more]) == 2
        assert sentence in capsys.readouterr().err


# ---- in an audit -------------------------------------------------------------------------------------------------

DISTILLING = [name for name in qu.names() if set(qu.get(name).needs) == {"teacher_logits"}]


@pytest.fixture(scope="module")
def policy() -> Any:
    return small_llama.model().eval()


@pytest.fixture(scope="module")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of so many tokens at each position."""
    at = tmp_path_factory.mktemp("files")
    found = {k: at / f"{k}.jsonl" for k in (5, 30, 96)}
    for k, out in found.items():
        audit.record(folder / "model", folder / "rows.jsonl", out, top_k=k)
    return found


def test_an_audit_with_all_tokens_listed_is_that_with_the_teacher(
    policy: Any, teacher: Any, files: dict[int, Path]
) -> None:
    found = audit.run(policy, QUESTIONS, TOKENIZER, teacher=files[96], batch_tokens=60)
    names = list(found.methods["method"])
    whole = audit.run(policy, QUESTIONS, TOKENIZER, names, teacher=teacher, batch_tokens=60)
    assert set(DISTILLING) - set(names) == {"logit_mse"}  # log-probabilities are not the logits that it compares
    for name in ("tokens", "methods", "groups", "examples"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(whole, name), rtol=2e-3, atol=2e-5)
    assert found.about["teacher_tokens"] == 96
    assert found.about["teacher_mass"] == pytest.approx(1, abs=1e-5)


def test_first_steps_and_rehearsals_are_those_with_the_teacher(
    policy: Any, teacher: Any, files: dict[int, Path]
) -> None:
    whole, found = (
        audit.run(policy, QUESTIONS, TOKENIZER, ["sft", "kd", "target_sft"], teacher=x, influence=True, rehearse=2)
        for x in (teacher, files[96])
    )
    for name in ("influence", "influence_adam", "rehearsed"):
        np.testing.assert_allclose(found.groups[name], whole.groups[name], rtol=2e-2, atol=1e-3)
    assert found.groups["rehearsed"].notna().any()


def test_a_longer_list_brings_the_audit_closer(policy: Any, teacher: Any, files: dict[int, Path]) -> None:
    names = ["kd", "reverse_kl", "target_sft"]
    whole = audit.run(policy, QUESTIONS, TOKENIZER, names, teacher=teacher).tokens
    for name in names:
        apart = [
            (
                audit.run(policy, QUESTIONS, TOKENIZER, names, teacher=path).tokens[f"push_{name}"]
                - whole[f"push_{name}"]
            )
            .abs()
            .mean()
            for path in files.values()
        ]
        assert apart == sorted(apart, reverse=True)
        assert apart[0] > 100 * apart[-1]


def test_methods_that_a_short_list_does_not_serve(policy: Any, files: dict[int, Path]) -> None:
    found = audit.run(policy, QUESTIONS, TOKENIZER, teacher=files[5])
    names = set(found.methods["method"])
    assert set(DISTILLING) - names == {"logit_std_kd", "topk_kd", "csd", "tad", "logit_mse"}
    assert "topk_kd(k=5)" in names
    assert f"at least {found.about['teacher_tokens']} tokens are listed everywhere" in found.sentences[0]
    for method, needed in (("logit_std_kd", 96), (qu.get("topk_kd", k=40), 40)):
        with pytest.raises(ValueError, match=f"must be told the teacher's {needed} likeliest tokens: .* got 5"):
            audit.run(policy, QUESTIONS, TOKENIZER, [method], teacher=files[5])
    audit.run(policy, QUESTIONS, TOKENIZER, [qu.get("topk_kd", k=5)], teacher=hf.Answers.read(files[5]))


def test_answers_go_to_their_own_tokens(policy: Any, files: dict[int, Path], tmp_path: Path) -> None:
    """In another order, and where demonstrations are cut off."""
    lines = files[5].read_text().splitlines()
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("\n".join(reversed(lines)))
    hows: list[dict[str, Any]] = [{}, {"max_length": 9}, {"limit": 3}]
    for how in hows:
        a, b = (audit.run(policy, QUESTIONS, TOKENIZER, ["kd"], teacher=path, **how) for path in (files[5], shuffled))
        pd.testing.assert_frame_equal(a.tokens, b.tokens)
    whole, cut = (
        audit.run(policy, QUESTIONS, TOKENIZER, ["kd"], teacher=files[5], max_length=most) for most in (None, 9)
    )
    both = whole.tokens.merge(cut.tokens, on=["example", "position"])
    assert len(both) == len(cut.tokens) < len(whole.tokens)
    np.testing.assert_allclose(both["push_kd_x"], both["push_kd_y"], rtol=1e-4)


def test_what_a_server_has_answered(policy: Any, teacher: Any, tmp_path: Path) -> None:
    encoded = [encode({"prompt": r["question"], "completion": r["answer"]}, TOKENIZER) for r in QUESTIONS]
    bodies: list[Any] = [vllm_completion, sglang, openai_ids]
    pushes = []
    for body in bodies:
        lines = [body(e.ids, log_p(teacher, e.ids)) for e in encoded]
        found = audit.run(policy, QUESTIONS, TOKENIZER, ["kd"], teacher=file(tmp_path, lines))
        pushes.append(found.tokens["push_kd"])
    np.testing.assert_allclose(pushes[1:], pushes[:1] * 2, rtol=1e-5)
    z = torch.cat(
        [policy(input_ids=torch.tensor([e.ids])).logits[0, :-1][torch.tensor(e.counted[1:])] for e in encoded]
    )
    y = torch.tensor([i for e in encoded for i, counts in zip(e.ids, e.counted, strict=True) if counts])
    p = torch.cat([log_p(teacher, e.ids)[torch.tensor(e.counted)] for e in encoded])
    listed = [dict.fromkeys([int(i), *row.topk(K).indices.tolist()]) for i, row in zip(y, p, strict=True)]
    by_hand = torch.full_like(p, -torch.inf)
    for t, some in enumerate(listed):
        at = torch.tensor([*some])
        by_hand[t] = ((1 - p[t, at].exp().sum()) / (96 - len(at))).log()
        by_hand[t, at] = p[t, at]
    expected = qu.get("kd")(z.detach(), y, teacher_logits=by_hand).gradient.abs().sum(-1) / 2
    np.testing.assert_allclose(pushes[0], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="demonstration 2: expected an answer for its own tokens, got none"):
        audit.run(policy, QUESTIONS, TOKENIZER, ["kd"], teacher=file(tmp_path, lines[:1]))
    with pytest.raises(ValueError, match=r"answers: nowhere.jsonl: no such file"):
        audit.run(policy, QUESTIONS, TOKENIZER, ["kd"], teacher="nowhere.jsonl")
    places = [t for t, counts in enumerate(encoded[0].counted) if counts]
    line = {"ids": encoded[0].ids, "positions": places, "tokens": [[97]] * len(places)}
    line["logprobs"] = [[-1.0]] * len(places)
    outside = file(tmp_path, [line])
    with pytest.raises(
        ValueError, match=f"expected token ids below the model's 96, got 97 in line 1, position {places[0]}"
    ):
        audit.run(policy, QUESTIONS[:1], TOKENIZER, ["kd"], teacher=outside)


def test_what_was_generated_serves_where_demonstrations_are_cut_off(policy: Any, teacher: Any, tmp_path: Path) -> None:
    encoded = [encode({"prompt": r["question"], "completion": r["answer"]}, TOKENIZER) for r in QUESTIONS]
    lines = [openai_chat(e.ids, log_p(teacher, e.ids), e.places[0]) for e in encoded]
    path = file(tmp_path, lines)
    whole, cut = (
        audit.run(policy, QUESTIONS, TOKENIZER, ["kd"], teacher=path, max_length=most).tokens for most in (None, 9)
    )
    both = whole.merge(cut, on=["example", "position"])
    assert len(both) == len(cut) < len(whole)
    np.testing.assert_allclose(both["push_kd_x"], both["push_kd_y"], rtol=1e-4)


def test_the_command_takes_a_file(folder: Path, files: dict[int, Path], tmp_path: Path) -> None:
    words = ["--model", str(folder / "model"), "--data", str(folder / "rows.jsonl"), "--methods", "kd,topk_kd"]
    out = ["--out", str(tmp_path / "page.html"), "--set", "topk_kd.k=5"]
    assert main(["audit", *words, *out, "--teacher", str(files[5])]) == 0
    assert "tokens are listed everywhere" in (tmp_path / "page.html").read_text(encoding="utf-8")


# ---- in training -------------------------------------------------------------------------------------------------


def answered(folder: Path, model: Any, rows: Any, k: int) -> tuple[Path, Tensor]:
    """A file of all positions of these (ids, labels), in another order; and the teacher that it tells, (N, V)."""
    lines, dense = [], []
    for ids, _ in rows:
        with torch.no_grad():
            p = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        top = p.topk(k)
        numbers = top.values.float()
        lines.append({"ids": ids, "positions": [*range(1, len(ids))], "tokens": top.indices.tolist()})
        lines[-1]["logprobs"] = numbers.tolist()
        dense.append(qu.TopK(numbers, top.indices).logits(torch.arange(len(p)), 96, torch.float64))
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines[::-1])))
    return path, torch.cat(dense)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["kd", "target_sft"])
def test_training_by_answers_that_list_all_is_training_by_the_teacher(name: str, layout: str, tmp_path: Path) -> None:
    teacher, start = trainers.model(seed=5), trainers.model()
    path, _ = answered(tmp_path, teacher, examples(), 96)
    runs = [
        trainers.train(tmp_path / str(i), model=copy.deepcopy(start), method=name, settings=LAYOUTS[layout], **given)
        for i, given in enumerate(({"teacher_model": teacher}, {"teacher_answers": path}))
    ]
    assert apart(runs[0].model, runs[1].model) < 1e-6
    assert apart(runs[1].model, start) > 1e-3
    for number in ("loss", "trust", "gradient_scale"):
        pairs = zip(*(trainers.logged(run, number) for run in runs), strict=True)
        for a, b in pairs:
            assert a == pytest.approx(b, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("layout", ["padded", "padding_free", "packed"])
def test_training_by_a_short_list(layout: str, tmp_path: Path) -> None:
    teacher, start = trainers.model(seed=5), trainers.model()
    path, dense = answered(tmp_path, teacher, examples(), 5)
    expected, losses = by_hand(start, qu.get("kd"), examples(), context=lambda *_: {"teacher_logits": dense})
    settings = LAYOUTS[layout]
    trainer = trainers.train(tmp_path, model=start, method="kd", teacher_answers=path, settings=settings)
    assert apart(trainer.model, expected) < 1e-8
    assert trainers.losses(trainer) == pytest.approx(losses, abs=1e-6)


@pytest.mark.parametrize(
    ("layout", "end"), [("padded", "keep_start"), ("padded", "keep_end"), ("packed", "keep_start")]
)
def test_answers_follow_what_is_cut_off_and_shuffled(layout: str, end: str, tmp_path: Path) -> None:
    """A teacher has seen all that stands before, also where the model no longer does."""
    rows, start = examples(), trainers.model()
    path, dense = answered(tmp_path, trainers.model(seed=5), rows, 96)
    cut = slice(-5, None) if end == "keep_end" else slice(None, 5)
    whole = dense.split([len(ids) - 1 for ids, _ in rows])
    left = [torch.cat([z[:1], z])[cut][1:] for z, (ids, _) in zip(whole, rows, strict=True)]
    short = [(x[cut], y[cut]) for x, y in rows]
    expected, _ = by_hand(start, qu.get("kd"), short, context=lambda *_: {"teacher_logits": torch.cat(left)})
    settings = {**LAYOUTS[layout], "max_length": 5, "truncation_mode": end, "shuffle_dataset": True}
    trainer = trainers.train(tmp_path, model=start, method="kd", teacher_answers=path, settings=settings)
    assert apart(trainer.model, expected) < 1e-8


def test_weights_and_answers_of_the_same_tokens(tmp_path: Path) -> None:
    rows, start = examples(), trainers.model()
    path, dense = answered(tmp_path, trainers.model(seed=5), rows, 96)
    method = qu.design("weighted", trust=lambda t: 0.5 * t.weight, residual=lambda t: t.teacher)
    weight = [0.5 + i / 4 for i in range(len(rows))]
    spread = torch.tensor([w for w, (ids, _) in zip(weight, rows, strict=True) for _ in ids[1:]]).double()
    context = {"teacher_logits": dense, "token_weight": spread}
    expected, _ = by_hand(start, method, rows, context=lambda *_: context)
    data = trainers.dataset(text=trainers.TEXTS, weight=weight)
    trainer = trainers.train(tmp_path, model=start, method=method, teacher_answers=path, train_dataset=data)
    assert apart(trainer.model, expected) < 1e-8


def test_what_the_recorder_writes_serves_conversations(folder: Path, tmp_path: Path) -> None:
    """Prompt and completion as messages: the same tokens to TRL as to the recorder."""
    teacher = small_llama.model(seed=1).eval()
    audit.record(teacher, QUESTIONS, tmp_path / "answers.jsonl", TOKENIZER, top_k=96)
    data = trainers.dataset(
        prompt=[[{"role": "user", "content": row["question"]}] for row in QUESTIONS],
        completion=[[{"role": "assistant", "content": row["answer"]}] for row in QUESTIONS],
    )
    runs = [
        trainers.train(tmp_path, model=small_llama.model(), method="kd", train_dataset=data, **given)
        for given in ({"teacher_model": teacher}, {"teacher_answers": tmp_path / "answers.jsonl"})
    ]
    assert apart(runs[0].model, runs[1].model) < 1e-5
    evaluated = trainers.train(
        tmp_path, model=small_llama.model(), method="kd", train_dataset=data, eval_dataset=data,
        teacher_answers=tmp_path / "answers.jsonl",
    )  # fmt: skip
    assert evaluated.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"teacher_model": "base"}, "kd: teacher_answers: expected these or a teacher_model, got both"),
        ({"method": "logit_std_kd"}, "logit_std_kd: teacher_answers: .* 96 likeliest tokens everywhere, got 5"),
        ({"method": "topk_kd"}, "topk_kd: teacher_answers: expected the teacher's 96 likeliest tokens"),
        ({"model": "smaller"}, "expected token ids below the model's 90, got 9. in line"),
        ({"teacher_answers": "/nowhere.jsonl"}, r"answers: /nowhere.jsonl: no such file"),
        ({"texts": ["the cat sees", "the dog"]}, "train dataset, row 1: expected an answer for its own tokens"),
        ({"more": ["the dog likes"]}, "train dataset, row 9: expected an answer for its own tokens, got none; .*'dog'"),
        ({"settings": {"dataset_kwargs": {"skip_prepare_dataset": True}}}, "got one whose preparation is skipped"),
        ({"packed": True}, "expected a train dataset of examples, got one that is packed already"),
    ],
)
def test_training_says_before_it_begins_what_does_not_fit(given: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    teacher = trainers.model(seed=5)
    path, _ = answered(tmp_path, teacher, examples(), 5)
    path.write_text(json.dumps({"qunify_answers": {"vocab": 96}}) + "\n" + path.read_text())
    given = {"method": "kd", "teacher_answers": path, **given}
    texts = given.pop("texts", trainers.TEXTS) + given.pop("more", [])
    given["train_dataset"] = trainers.dataset(text=texts)
    if given.get("settings"):
        given["train_dataset"] = trainers.dataset(
            input_ids=[x for x, _ in examples()], labels=[y for _, y in examples()]
        )
    if given.pop("packed", False):
        ids = [examples()[0][0] + examples()[1][0]]
        lengths = [[len(examples()[0][0]), len(examples()[1][0])]]
        given["train_dataset"] = trainers.dataset(input_ids=ids, labels=ids, seq_lengths=lengths)
    if given.get("model") == "smaller":
        given["model"] = trainers.model(vocab_size=90)
    with pytest.raises(ValueError, match=sentence):
        trainers.train(tmp_path, **given)


def padded(side: str) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Batches with padding on this side, or, for "none", of documents in one row."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        if side == "none":
            ids, labels = (torch.tensor([[i for row in rows for i in row[key]]]) for key in ("input_ids", "labels"))
            positions = torch.tensor([[t for row in rows for t in range(len(row["input_ids"]))]])
            return {"input_ids": ids, "labels": labels.where(positions != 0, -100), "position_ids": positions}
        longest = max(len(row["input_ids"]) for row in rows)
        found = {}
        for key, fill in (("input_ids", 1), ("labels", -100), ("attention_mask", 0)):
            lists = [row.get(key, [1] * len(row["input_ids"])) for row in rows]
            fills = [[fill] * (longest - len(x)) for x in lists]
            if key == "labels":
                lists = [[-100, *x[1:]] for x in lists]
            both = [f + x if side == "left" else x + f for f, x in zip(fills, lists, strict=True)]
            found[key] = torch.tensor(both)
        return found

    return collate


@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_a_plain_trainer_finds_the_answers_of_every_batch(side: str, tmp_path: Path) -> None:
    rows, start = examples(), trainers.model()
    path, dense = answered(tmp_path, trainers.model(seed=5), rows, 5)
    expected, losses = by_hand(start, qu.get("kd"), rows, context=lambda *_: {"teacher_logits": dense})
    criterion = hf.loss("kd", teacher_answers=path)
    trainer = Trainer(
        start, trainers.config(tmp_path, remove_unused_columns=False), compute_loss_func=criterion,
        train_dataset=trainers.dataset(input_ids=[x for x, _ in rows], labels=[y for _, y in rows]),
        data_collator=padded(side),
    )  # fmt: skip
    criterion.attach(trainer)
    trainer.train()
    found: Any = trainer.model
    assert apart(found, expected) < 1e-6
    assert trainers.losses(trainer) == pytest.approx(losses, abs=1e-5)


def test_a_plain_trainer_says_what_does_not_fit(tmp_path: Path) -> None:
    rows = examples()
    path, _ = answered(tmp_path, trainers.model(seed=5), rows[1:], 5)
    data = trainers.dataset(input_ids=[x for x, _ in rows], labels=[y for _, y in rows])
    criterion = hf.loss("kd", teacher_answers=path)
    trainer = Trainer(trainers.model(), trainers.config(tmp_path), train_dataset=data, compute_loss_func=criterion)
    with pytest.raises(ValueError, match="train dataset, row 1: expected an answer for its own tokens, got none"):
        criterion.attach(trainer)
    with pytest.raises(ValueError, match="kd: teacher_answers: expected these or a teacher, got both"):
        hf.loss("kd", teacher="base", teacher_answers=path)
    with pytest.raises(ValueError, match=r"nowhere.jsonl: no such file"):
        hf.loss("kd", teacher_answers="nowhere.jsonl")
    m = trainers.model()
    criterion = hf.loss("logit_std_kd", teacher_answers=path).attach(m)
    batch = padded("right")([data[1]])
    with pytest.raises(ValueError, match=r"logit_std_kd: teacher_answers: .* likeliest tokens everywhere, got 5"):
        criterion(m(**batch), batch["labels"])
    criterion = hf.loss("kd", teacher_answers=path).attach(m)
    batch = padded("right")([data[1], data[0]])
    with pytest.raises(ValueError, match="row 2 of the batch: expected an answer for its own tokens, got none"):
        criterion(m(**batch), batch["labels"])
    batch = padded("left")([data[1], data[2]])
    batch["labels"][0, 2] = 3
    with pytest.raises(ValueError, match="expected labels where there are answers, got one at the first token"):
        criterion(m(**batch), batch["labels"])


def test_answers_that_the_method_does_not_need_are_not_read(tmp_path: Path) -> None:
    trainer = trainers.train(tmp_path, method="sft", teacher_answers="/nowhere.jsonl")
    assert trainer.state.global_step > 0
