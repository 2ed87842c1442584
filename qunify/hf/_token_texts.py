"""From the text of a token, as servers of OpenAI's kind write it, back to its id."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

#: vLLM's text of a token where it is asked for ids (`return_tokens_as_token_ids`).
_ID = "token_id:"
#: How a server may name a token: by its id, its text, or its bytes where these are no text.
Name = int | str | bytes

_HINT = "let the server write ids (in vLLM return_tokens_as_token_ids=true)"


class TokenTexts:
    """The ids behind texts, by a tokenizer, where there is one."""

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer

    def id(self, name: Name) -> int:
        """The one token of this text.

        Raises
        ------
        ValueError
            No token, or several, or no tokenizer.
        """
        found = self.ids(name)
        if not found:
            raise ValueError(f"expected the text of a token, got {name!r}, that of none of the tokenizer's: {_HINT}")
        if len(found) > 1:
            raise ValueError(
                f"expected the text of one token, got {name!r}, that of {len(found)} tokens ({found[0]}, {found[1]}, "
                f"…): {_HINT}"
            )
        return found[0]

    def ids(self, name: Name) -> list[int]:
        """All tokens of this text: `token_id:17`, what they are decoded to (" cat"), or as in the vocabulary ("Ġcat").
        An id is itself.

        Raises
        ------
        ValueError
            No tokenizer.
        """
        if isinstance(name, int):
            return [name]
        if isinstance(name, str) and name.startswith(_ID) and name[len(_ID) :].isdigit():
            return [int(name[len(_ID) :])]
        if self.tokenizer is None:
            raise ValueError(f"expected a tokenizer to read tokens that are given as text, such as {name!r}, got none")
        if isinstance(name, bytes):
            return self._pieces.get(self._piece(name), [])
        return self._decoded.get(name) or self._pieces.get(name, [])

    def _piece(self, raw: bytes) -> str:
        """Bytes as a vocabulary has them: one by its number, or each as a letter of its own."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        if "<0x00>" in self._pieces:
            return f"<0x{raw.hex().upper()}>"
        letters = bytes_to_unicode()
        return "".join(letters[byte] for byte in raw)

    def text(self, token: int) -> str:
        """How to name a token in a sentence."""
        return str(token) if self.tokenizer is None else f"{self.tokenizer.decode([token])!r} ({token})"

    @cached_property
    def _decoded(self) -> dict[str, list[int]]:
        found = defaultdict(list)
        every = range(len(self.tokenizer))
        texts = self.tokenizer.batch_decode([[i] for i in every], clean_up_tokenization_spaces=False)
        for i, text in zip(every, texts, strict=True):
            found[text].append(i)
        return found

    @cached_property
    def _pieces(self) -> dict[str, list[int]]:
        return {text: [i] for text, i in self.tokenizer.get_vocab().items()}
