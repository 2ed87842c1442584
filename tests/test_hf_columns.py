"""Weights and masks of examples, messages and tokens reach the loss through every layout of a batch."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

import qunify as qu
from qunify import hf
from qunify.hf._dataset_columns import Collator
from tests import small_llama, trainers
from tests.trainers import LAYOUTS, TEXTS, apart, by_hand, examples, labels, logits, model, tokens, train

pytestmark = pytest.mark.slow

EXACT = 1e-12
CHATS = [
    [("user", "the cat"), ("assistant", "sees a dog"), ("user", "and then"), ("assistant", "the bird")],
    [("user", "a red"), ("assistant", "house")],
    [("user", "today"), ("assistant", "a"), ("user", "the old tree"), ("assistant", "likes the river and")],
]
MESSAGES = [[{"role": role, "content": text} for role, text in chat] for chat in CHATS]
#: Ids of each message of each chat, as the template writes it.
SAID = [[tokens(f"<{role}> {text} </s>") for role, text in chat] for chat in CHATS]
#: Several numbers, none twice, so that no two tokens can be taken for each other.
NUMBERS = [0.5 + ((37 * i) % 101) / 50 for i in range(101)]


def at(level: str) -> tuple[datasets.Dataset, list[tuple[list[int], list[int]]], list[list[float]]]:
    """A dataset with weights of this level; its ids and labels; and the weight of every token."""
    weights: list[Any]
    spread: list[list[float]]
    if level == "message":
        weights = [NUMBERS[3 * i : 3 * i + len(chat)] for i, chat in enumerate(CHATS)]
        spread = [
            [w for w, ids in zip(ws, chat, strict=True) for _ in ids] for ws, chat in zip(weights, SAID, strict=True)
        ]
        flat = [[i for ids in chat for i in ids] for chat in SAID]
        return trainers.dataset(messages=MESSAGES, weight=weights), [(x, x) for x in flat], spread
    data = examples()
    if level == "example":
        weights = NUMBERS[: len(data)]
        spread = [[w] * len(ids) for w, (ids, _) in zip(weights, data, strict=True)]
        return trainers.dataset(text=TEXTS, weight=weights), data, spread
    spread = [[NUMBERS[(5 * i + j) % 101] for j in range(len(ids))] for i, (ids, _) in enumerate(data)]
    masked = [(ids, [-100, *ids[1:3], -100, *ids[4:]]) for ids, _ in data]
    given = {"input_ids": [x for x, _ in masked], "labels": [y for _, y in masked], "weight": spread}
    return trainers.dataset(**given), masked, spread


def flat(spread: list[list[float]]) -> Tensor:
    """Of the tokens to be predicted."""
    return torch.tensor([w for row in spread for w in row[1:]]).double()


@pytest.mark.parametrize("level", ["example", "message", "token"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights(level: str, layout: str, tmp_path: Path) -> None:
    data, rows, spread = at(level)
    settings = {**LAYOUTS[layout]}
    if layout == "accumulated" and level == "message":
        settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
    if layout == "packed":
        settings["max_length"] = 32
    start = model()
    expected, values = by_hand(start, qu.get("iw_sft"), rows, context=lambda *_: {"token_weight": flat(spread)})
    trainer = train(tmp_path, model=start, method="iw_sft", train_dataset=data, settings=settings)
    # Numbers travel in float32, as the collator's tensors do.
    assert apart(trainer.model, expected) < 1e-8
    assert trainers.losses(trainer) == pytest.approx(values, abs=1e-6)
    assert apart(expected, by_hand(model(), qu.get("sft"), rows)[0]) > 1e-3


def test_packed_rows_hold_several_documents(tmp_path: Path) -> None:
    data, _, _ = at("token")
    trainer = train(tmp_path, method="iw_sft", train_dataset=data, settings=LAYOUTS["packed"])
    assert max(map(len, trainer.train_dataset["seq_lengths"])) > 1


@pytest.mark.parametrize(
    ("layout", "end"), [("padded", "keep_start"), ("padded", "keep_end"), ("packed", "keep_start")]
)
def test_truncation_takes_the_numbers_along(layout: str, end: str, tmp_path: Path) -> None:
    data, rows, spread = at("token")
    cut = slice(-5, None) if end == "keep_end" else slice(None, 5)
    short, numbers = [(x[cut], y[cut]) for x, y in rows], [w[cut] for w in spread]
    settings = {**LAYOUTS[layout], "max_length": 5, **({"truncation_mode": end} if end else {})}
    expected, _ = by_hand(model(), qu.get("iw_sft"), short, context=lambda *_: {"token_weight": flat(numbers)})
    trainer = train(tmp_path, method="iw_sft", train_dataset=data, settings=settings)
    assert apart(trainer.model, expected) < 1e-8


@pytest.mark.parametrize("layout", ["accumulated", "padding_free", "packed"])
def test_masks(layout: str, tmp_path: Path) -> None:
    _, rows, spread = at("token")
    mask = [[float(w > 1.5) for w in row] for row in spread]
    data = trainers.dataset(input_ids=[x for x, _ in rows], labels=[y for _, y in rows], mask=mask)
    start = model()
    expected, _ = by_hand(start, qu.get("cft"), rows, context=lambda *_: {"token_mask": flat(mask)})
    trainer = train(tmp_path, model=start, method="cft", train_dataset=data, settings=LAYOUTS[layout])
    assert apart(trainer.model, expected) < EXACT


def test_a_designed_map_sees_weight_and_mask_and_prompts_do_not_count(tmp_path: Path) -> None:
    method = qu.design("mine", trust=lambda t: t.weight * t.keep, residual=lambda t: t.policy)
    assert set(method.needs) == {"token_weight", "token_mask"}
    parts = [("the cat ", "sees a dog"), ("a bird ", "likes the old tree")]
    ids = [(tokens(prompt), tokens(completion + "</s>")) for prompt, completion in parts]
    rows = [(p + c, [-100] * len(p) + c) for p, c in ids]
    weight, mask = [0.5, 2.0], [True, True]
    data = trainers.dataset(
        prompt=[p for p, _ in parts], completion=[c for _, c in parts], weight=weight, mask=mask
    )  # fmt: skip
    spread = flat([[w] * len(x) for w, (x, _) in zip(weight, rows, strict=True)])
    given = {"token_weight": spread, "token_mask": torch.ones_like(spread)}
    expected, _ = by_hand(model(), method, rows, context=lambda *_: given)
    trainer = train(tmp_path, method=method, train_dataset=data)
    assert apart(trainer.model, expected) < EXACT


def test_messages_of_prompt_and_completion(tmp_path: Path) -> None:
    data = trainers.dataset(
        prompt=[chat[:-1] for chat in MESSAGES],
        completion=[chat[-1:] for chat in MESSAGES],
        weight=[NUMBERS[4 * i : 4 * i + len(chat)] for i, chat in enumerate(CHATS)],
    )
    trainer = train(tmp_path, method="iw_sft", train_dataset=data)
    for i, (row, chat) in enumerate(zip(trainer.train_dataset, SAID, strict=True)):
        assert row["token_weight"] == [NUMBERS[4 * i + j] for j, ids in enumerate(chat) for _ in ids]
        assert row["labels"] == [label for ids in chat[:-1] for label in [-100] * len(ids)] + chat[-1]


def test_evaluation_reads_the_column_too(tmp_path: Path) -> None:
    data, rows, spread = at("example")
    options: dict[str, Any] = {"eval_dataset": data, "settings": {"per_device_eval_batch_size": 8}}
    trainer = train(tmp_path, method="iw_sft", train_dataset=data, **options)
    with torch.no_grad():
        loss = qu.loss("iw_sft")(logits(trainer.model, rows), labels(rows), token_weight=flat(spread))
    for found in (trainer.evaluate(), trainer.evaluate(data), trainer.evaluate({"more": data})):
        value = found.get("eval_loss", found.get("eval_more_loss"))
        assert value == pytest.approx(loss.item(), abs=1e-6)


def test_padding_to_a_multiple() -> None:
    rows = [
        {"input_ids": [3, 4], "token_weight": [1.0, 2.0]},
        {"input_ids": [5, 6, 7], "token_weight": [3.0, 4.0, 5.0]},
    ]
    padded = Collator(pad_token_id=0, pad_to_multiple_of=4)(rows)["token_weight"]
    assert padded.tolist() == [[1, 2, 0, 0], [3, 4, 5, 0]]
    joined = Collator(pad_token_id=0, padding_free=True, pad_to_multiple_of=4)(rows)["token_weight"]
    assert joined.tolist() == [[1, 2, 3, 4, 5, 0, 0, 0]]


def make(
    out: Path, data: datasets.Dataset, method: str = "iw_sft", template: str | None = None, **settings: Any
) -> Any:
    tokenizer = copy.deepcopy(trainers.TOKENIZER)
    tokenizer.chat_template = template or tokenizer.chat_template
    return hf.SFTTrainer(
        model(), trainers.config(out, **settings), method=method, train_dataset=data, processing_class=tokenizer
    )


#: Templates under which a conversation is more than its messages one after the other.
TURN = "{{ '<' + m['role'] + '> ' + m['content'] + ' ' }}"
THOUGHTS = (  # of the last answer alone
    "{% for m in messages %}{{ '<' + m['role'] + '> ' }}{% if loop.last and m['thought'] %}{{ m['thought'] + ' ' }}"
    "{% endif %}{{ m['content'] + ' </s> ' }}{% endfor %}"
)
CLOSED = "{% for m in messages %}" + TURN + "{% endfor %}</s>"
FOLDED = (  # what is said first opens the second message
    "{% for m in messages[1:] %}{% if loop.first %}{{ messages[0]['content'] + ' ' }}{% endif %}"
    + TURN
    + "{% endfor %}"
)
STRICT = "{% if messages | length < 2 %}{{ raise_exception('expected a user') }}{% endif %}" + FOLDED
TOOLS = "{% for tool in tools or [] %}{{ tool['name'] + ' ' }}{% endfor %}" + CLOSED
THREE = [("user", "the cat"), ("assistant", "sees a dog"), ("user", "and then")]


@pytest.mark.parametrize(
    ("template", "weights", "expected"),
    [
        (THOUGHTS, [0.0, 2.0, 2.0, 1.0], [0] * 4 + [2] * (5 + 4) + [1] * 6),
        (THOUGHTS, [0.0, 2.0, 0.0, 1.0], "equal numbers for messages 2 and 3, .* got 2.0 and 0.0"),
        (CLOSED, [0.0, 2.0, 3.0], [0] * 3 + [2] * 4 + [3] * 4),
        (FOLDED, [2.0, 2.0, 3.0], [2] * (2 + 4) + [3] * 3),
        (FOLDED, [0.0, 2.0, 3.0], "equal numbers for messages 1 and 2, .* got 0.0 and 2.0"),
        (STRICT, [2.0, 2.0, 3.0], [2] * (2 + 4) + [3] * 3),
        (STRICT, [0.0, 2.0, 3.0], "equal numbers for messages 1 and 2"),
        (TOOLS, [0.0, 2.0, 3.0], [0] * (2 + 3) + [2] * 4 + [3] * 4),
    ],
)
def test_numbers_stay_with_their_messages(template: str, weights: list[float], expected: Any, tmp_path: Path) -> None:
    said = THREE if len(weights) == 3 else [*THREE, ("assistant", "a bird and")]
    messages = [{"role": role, "content": text, "thought": "a" if role == "assistant" else None} for role, text in said]
    tools = {"tools": ['[{"name": "red"}, {"name": "old"}]']} if template == TOOLS else {}
    data = trainers.dataset(messages=[messages], weight=[weights], **tools)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            make(tmp_path, data, template=template)
    else:
        assert make(tmp_path, data, template=template).train_dataset[0]["token_weight"] == expected


def test_numbers_already_on_tokens_are_cut_and_packed_with_them(tmp_path: Path) -> None:
    given = {"input_ids": [[3, 4, 5, 6], [7, 8]], "token_weight": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]}
    cut = make(tmp_path, trainers.dataset(**given), max_length=3)
    assert cut.train_dataset["token_weight"][:] == [[1, 2, 3], [5, 6]]
    packed = make(tmp_path, trainers.dataset(**given), packing=True, max_length=6)
    assert packed.train_dataset["token_weight"][:] == [[1, 2, 3, 4, 5, 6]]
    assert packed.evaluate(packed.train_dataset)["eval_loss"] > 0  # not packed again, as if it were one document
    # Where the method has no use for them, they are not what a batch is made of.
    train(tmp_path, method="dft", train_dataset=trainers.dataset(**given), settings={"max_length": 3})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": TEXTS[:2]}, "iw_sft: train dataset: expected a column 'weight', got text"),
        (
            {"text": TEXTS[:2], "weight": [1.0, float("nan")]},
            "token_weight: expected finite numbers, got nan",
        ),
        ({"text": TEXTS[:2], "weight": [1.0, None]}, "column 'weight': expected numbers, got None"),
        ({"text": TEXTS[:2], "mask": [1.0, 0.5]}, "SFTTrainer: token_mask: expected only 0 and 1"),
        ({"text": TEXTS[:2], "weight": [[1.0], [2.0]]}, "expected one number for an example of text, got a list"),
        ({"messages": MESSAGES[:1], "weight": [[1.0, 2.0]]}, "one number for each message, 4 of them, got 2"),
        ({"input_ids": [[3, 4, 5]], "weight": [[1.0, 2.0]]}, "one number for each token, 3 of them, got 2"),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    method = "cft" if "mask" in columns else "iw_sft"
    with pytest.raises(ValueError, match=message):
        make(tmp_path, trainers.dataset(**columns), method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packing": True, "max_length": None}, "max_length: expected a number with packing, got None"),
        ({"truncation_mode": "keep_ends"}, "truncation_mode: expected .keep_start. or .keep_end., got 'keep_ends'"),
    ],
)
def test_options_under_which_numbers_cannot_follow(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, trainers.dataset(text=TEXTS[:2], weight=[1.0, 2.0]), **settings)


def test_a_column_without_use_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="dft: train dataset: column 'weight' is not used"):
        make(tmp_path, trainers.dataset(text=TEXTS[:2], weight=[1.0, 2.0]), method="dft")


def test_weights_beside_pictures_are_refused(tmp_path: Path) -> None:
    tokenizer = small_llama.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **size),
        text_config=LlamaConfig(vocab_size=97, pad_token_id=1, eos_token_id=2, bos_token_id=None, **size),
        image_token_index=tokenizer.get_vocab()["<image>"],
    )
    m = LlavaForConditionalGeneration(config)
    m.config._name_or_path = "small"
    parts = "{% for c in m['content'] %}{{ '<image> ' if c['type'] == 'image' else c['text'] + ' ' }}{% endfor %}"
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", image_token="<image>", num_additional_image_tokens=1,
        chat_template=f"{{% for m in messages %}}<{{{{ m['role'] }}}}> {parts}</s> {{% endfor %}}",
    )  # fmt: skip
    said = [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "the cat sees"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a bird"}]},
    ]
    data = datasets.Dataset.from_dict(
        {"images": [[Image.new("RGB", (16, 16))]] * 2, "messages": [said] * 2, "weight": [1.0, 3.0]}
    )
    with pytest.raises(ValueError, match="iw_sft: token_weight: expected a dataset of text, got a dataset with pict"):
        hf.SFTTrainer(
            m, trainers.config(tmp_path, max_length=None), method="iw_sft", train_dataset=data,
            processing_class=processor,
        )  # fmt: skip
    trainer = hf.SFTTrainer(
        m, trainers.config(tmp_path, max_length=None), method="dft", train_dataset=data, processing_class=processor
    )
    trainer.train()
    assert math.isfinite(trainers.losses(trainer)[0])
