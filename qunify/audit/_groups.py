"""Kinds of token: what it is that a method learns or leaves, in words that a reader of the data knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

SPECIAL = "special tokens"
DIGITS = "digits"
PUNCTUATION = "punctuation"
SPACE = "white space"
FIRST = "first pieces of words"
LATER = "later pieces of words"


def of_pieces(
    pieces: Sequence[str],
    special: Sequence[str | None],
    own: Mapping[str, re.Pattern[str]],
) -> list[str]:
    """The group of every token of one demonstration.

    Parameters
    ----------
    pieces : sequence of str
        What each token adds to the text.
    special : sequence of str or None
        The names of special tokens, None at all others.
    own : mapping of str to pattern
        Groups of the user's, by what they match in the joined text: a token belongs to the first that touches it.
    """
    found: list[str] = []
    for i, (piece, name) in enumerate(zip(pieces, special, strict=True)):
        before = pieces[i - 1] if i and special[i - 1] is None else ""
        found.append(_kind(piece, before) if name is None else SPECIAL)
    ends, length = [], 0
    for piece in pieces:
        length += len(piece)
        ends.append(length)
    text = "".join(pieces)
    for name, pattern in reversed([*own.items()]):  # the first comes last, and so stands
        for start, end in (match.span() for match in pattern.finditer(text)):
            for i in _touched(ends, pieces, start, end):
                found[i] = name
    return found


def _touched(ends: Sequence[int], pieces: Sequence[str], start: int, end: int) -> Iterable[int]:
    return (i for i, last in enumerate(ends) if last > start and last - len(pieces[i]) < end)


def _kind(piece: str, before: str) -> str:
    bare = piece.strip()
    if not bare:
        return SPACE
    if not any(c.isalnum() for c in bare):
        return PUNCTUATION
    if all(c.isdigit() or not c.isalnum() for c in bare):
        return DIGITS
    starts_word = piece[0].isspace() or not before or not before[-1].isalnum()
    return FIRST if starts_word else LATER


def own_groups(groups: Mapping[str, str] | None) -> dict[str, re.Pattern[str]]:
    """The user's groups, compiled; ValueError that names the one that is no regular expression."""
    found = {}
    for name, pattern in (groups or {}).items():
        try:
            found[name] = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"audit: groups: {name}: not a regular expression: {error}") from None
    return found
