"""From a demonstration to token ids, and which of them are trained on: what the assistant says, or all of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trl.chat_template_utils import get_training_chat_template, has_generation_markers
from trl.data_utils import common_prefix_length

from qunify.training import TopK


@dataclass(frozen=True)
class Encoded:
    """One demonstration as a model reads it.

    Attributes
    ----------
    ids : list of int
    counted : list of bool
        Whether the token is trained on. Never the first, which nothing precedes.
    lost : int
        Tokens that would be trained on, had they not been cut off.
    answers : TopK, optional
        A teacher's recorded answers, (N, K), at the tokens that count.
    """

    ids: list[int]
    counted: list[bool]
    lost: int = 0
    answers: TopK | None = None

    def alone(self, t: int) -> Encoded:
        """The demonstration up to the token at `t`, which alone counts."""
        n = sum(self.counted[:t])
        one = None if self.answers is None else TopK(self.answers.values[n : n + 1], self.answers.indices[n : n + 1])
        return Encoded(self.ids[: t + 1], [False] * t + [True], answers=one)

    @property
    def places(self) -> list[int]:
        """The positions that are trained on."""
        return [t for t, counts in enumerate(self.counted) if counts]


def encode_all(examples: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int | None = None) -> list[Encoded]:
    """Every demonstration; ValueError, with its number, for one that the tokenizer's chat template does not take."""
    from jinja2 import TemplateError

    found = []
    for number, example in enumerate(examples, start=1):
        try:
            found.append(encode(example, tokenizer, max_length))
        except (TemplateError, TypeError) as error:
            raise ValueError(
                f"audit: demonstrations: row {number}: the tokenizer's chat template does not take it: {error}"
            ) from None
    return found


def encode(example: Mapping[str, Any], tokenizer: Any, max_length: int | None = None) -> Encoded:
    """As TRL's SFTTrainer does it, the chat template applied by transformers; where a tokenizer has one, a prompt and a
    completion of text are taken for the user's and the assistant's message. A text alone is trained on from its second
    token to the end of text behind it. The end is cut off at `max_length`.

    Raises
    ------
    ValueError
        Messages for a tokenizer without a chat template.
    """
    how = {"tools": example.get("tools"), **example.get("chat_template_kwargs", {})}
    if "messages" in example:
        ids, counted = _of_messages(example["messages"], tokenizer, how)
    elif "text" in example:
        ids = tokenizer(_ended(example["text"], tokenizer))["input_ids"]
        counted = [True] * len(ids)
    else:
        ids, counted = _of_pair(example["prompt"], example["completion"], tokenizer, how)
    counted[:1] = [False] * len(counted[:1])
    lost = 0 if max_length is None else sum(counted[max_length:])
    return Encoded(ids[:max_length], counted[:max_length], lost)


def _of_pair(prompt: Any, completion: Any, tokenizer: Any, how: dict[str, Any]) -> tuple[list[int], list[bool]]:
    if isinstance(prompt, str) and tokenizer.chat_template is None:
        start = tokenizer(prompt)["input_ids"]
        ids = tokenizer(prompt + _ended(completion, tokenizer))["input_ids"]
    else:
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
            completion = [{"role": "assistant", "content": completion}]
        start = _rendered(tokenizer, prompt, add_generation_prompt=True, **how)
        ids = _rendered(tokenizer, prompt + completion, **how)
    # Tokens may merge across the border: the completion begins where the two part, as in TRL.
    asked = common_prefix_length(start, ids)
    return ids, [i >= asked for i in range(len(ids))]


def _ended(text: str, tokenizer: Any) -> str:
    end = tokenizer.eos_token or ""
    return text if text.endswith(end) else text + end


def _of_messages(messages: list[dict[str, Any]], tokenizer: Any, how: dict[str, Any]) -> tuple[list[int], list[bool]]:
    template = _marked(tokenizer)
    if template is not None:
        found = tokenizer.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            chat_template=template,
            **how,
        )
        return found["input_ids"], [bool(m) for m in found["assistant_masks"]]
    ids = _rendered(tokenizer, messages, **how)
    counted = [False] * len(ids)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            start = common_prefix_length(_rendered(tokenizer, messages[:i], add_generation_prompt=True, **how), ids)
            end = common_prefix_length(_rendered(tokenizer, messages[: i + 1], **how), ids)
            counted[start:end] = [True] * max(end - start, 0)
    return ids, counted


def _marked(tokenizer: Any) -> str | None:
    """A chat template that marks what the assistant says: the tokenizer's own, or TRL's of the same text; else None."""
    own = tokenizer.chat_template
    if own is None:
        return None
    if has_generation_markers(own):
        return str(own)
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:  # of a template that TRL does not know
        return None


def _rendered(tokenizer: Any, messages: list[dict[str, Any]], **how: Any) -> list[int]:
    if tokenizer.chat_template is None:
        raise ValueError(
            "audit: demonstrations: the rows are conversations: expected a tokenizer with a chat template, got one "
            "without; a base model takes a prompt and a completion of text"
        )
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **how)["input_ids"]
    return ids


def pieces(ids: list[int], tokenizer: Any, context: int = 8) -> list[str]:
    """The text that each token adds: for a letter of several tokens, all of it at the last.

    Decoded with a few tokens before it, as many tokenizers drop a space at the start of a text.
    """
    found, pending = [], 0
    for i in range(len(ids)):
        start = max(0, i - pending - context)
        before = tokenizer.decode(ids[start : i - pending], clean_up_tokenization_spaces=False)
        whole = tokenizer.decode(ids[start : i + 1], clean_up_tokenization_spaces=False)
        piece = whole[len(before) :]
        unfinished = piece.endswith("�") and pending < 3
        pending = pending + 1 if unfinished else 0
        found.append("" if unfinished else piece)
    return found
