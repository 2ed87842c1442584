"""Which tokens are numbers, and which ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def digit_values(tokenizer: Any, vocab: int) -> Tensor:
    """What each token is as a digit, for the `token_values` of a method: 0 to 9 for the tokens that are one of these
    characters and nothing else, NaN for all others; (vocab,).

    A token of several digits, or of a digit after a space, is none of them, as in ntloss, the release of the number
    token loss (arXiv:2411.02083), at its default.

    Raises
    ------
    ValueError
        Where the vocabulary has no digit as a token of its own.

    Examples
    --------
    >>> from qunify import hf
    >>> values = hf.digit_values(tokenizer, model.config.vocab_size)  # doctest: +SKIP
    """
    values = torch.full((vocab,), torch.nan)
    for token, i in tokenizer.get_vocab().items():
        if token in set("0123456789") and i < vocab:
            values[i] = float(token)
    if bool(values.isnan().all()):
        raise ValueError("token_values: expected a tokenizer with digits as tokens of their own, got none of 0 to 9")
    return values
