"""A teacher that has answered already: a file of listed log-probabilities, and whose tokens they belong to."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunify._lib.jsonl import object_in
from qunify._lib.tolerances import LISTED_MASS
from qunify.catalogue import as_method
from qunify.hf._server_formats import Recorded, recorded
from qunify.hf._token_texts import TokenTexts
from qunify.maps import Method
from qunify.training import TopK


class Answers:
    """The log-probabilities that a teacher listed for every demonstration, read from a jsonl file.

    A demonstration is found by its token ids, so that the order of the lines does not matter. What has been listed for
    a longer demonstration serves one that is cut off, since a teacher sees only what stands before a token.

    Attributes
    ----------
    values : Tensor, (P, K)
        Log-probabilities in nats, in float32; −inf where fewer than K were listed.
    tokens : Tensor of int, (P, K)
    counts : Tensor of int, (P,)
        How many were listed.
    """

    #: Under this key the first line of a file that `qunify record` writes says what it was made of.
    HEADER = "qunify_answers"

    def __init__(self, path: Path, lines: Iterable[tuple[int, Recorded]], texts: TokenTexts) -> None:
        self.path, self._texts = path, texts
        self.digest = ""
        self._numbers: list[int] = []  # of the lines in the file
        self._ids: list[np.ndarray] = []  # of each; −1 for a first one that is not named
        self._rows: list[np.ndarray] = []  # of each token the row of values, −1 where nothing was listed
        self._whole: list[bool] = []
        counts, tokens, values = array("q"), array("q"), array("d")
        for number, line in lines:
            rows = np.full(len(line.listed), -1)
            for t, listing in enumerate(line.listed):
                if listing is not None:
                    rows[t] = len(counts)
                    counts.append(len(listing[0]))
                    tokens.extend(listing[0])
                    values.extend(listing[1])
            self._numbers.append(number)
            self._ids.append(np.array([-1 if token is None else token for token in line.ids], dtype=np.int64))
            self._rows.append(rows)
            self._whole.append(line.whole)
        self.counts = torch.from_numpy(np.array(counts, dtype=np.int64))
        there = torch.arange(int(self.counts.max()) if len(counts) else 1) < self.counts[:, None]
        self.values = torch.full(there.shape, -torch.inf)
        self.values[there] = torch.from_numpy(np.array(values, dtype=np.float32))
        self.tokens = torch.zeros(there.shape, dtype=torch.int32)
        self.tokens[there] = torch.from_numpy(np.array(tokens, dtype=np.int32))
        self._check_numbers()
        self._largest = int(self.tokens.max()) if len(counts) else -1
        self._index()

    @classmethod
    def read(cls, path: str | Path, tokenizer: Any = None, digest: str | None = None) -> Answers:
        """Read a file, one demonstration a line, in qunify's own format or a server's; or a list of what else would be
        lines, as JSON. Packed by gzip or not.

        All of it is kept in memory: 8 bytes for each of P · K entries.

        Parameters
        ----------
        tokenizer : tokenizer, optional
            Needed where tokens are given as text, as OpenAI's servers do.
        digest : str, optional
            The SHA-256 that the file is expected to have.

        Raises
        ------
        ValueError
            No such file, a line that is none of the known formats, numbers that are no log-probabilities: with the
            file, the line, what was expected and got.
        """
        path, texts, sha = Path(path), TokenTexts(tokenizer), hashlib.sha256()
        if not path.is_file():
            raise ValueError(f"answers: {path}: no such file")

        def lines() -> Iterator[tuple[int, Recorded]]:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                for number, raw in enumerate(_each(file), start=1):
                    sha.update(raw)
                    try:
                        line = _object(raw)
                        if line is not None and cls.HEADER not in line:
                            yield number, recorded(line, texts)
                    except ValueError as error:
                        raise ValueError(f"answers: {path}: line {number}: {error}") from None

        try:
            found = cls(path, lines(), texts)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"answers: {path}: not a gzip file: {error}") from None
        found.digest = sha.hexdigest()
        if not len(found.counts):
            raise ValueError(f"answers: {path}: expected log-probabilities in its lines, got none")
        if digest not in (None, found.digest):
            raise ValueError(f"answers: {path}: expected the file as it was when training was set up, got another")
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied by its place and contents: `datasets` hashes what its functions hold, and sends it to processes."""
        return Answers.read, (os.path.abspath(self.path), self._texts.tokenizer, self.digest)

    def check_vocabulary(self, vocab: int) -> None:
        """ValueError where a token is listed that is none of `vocab`.

        The teacher's own vocabulary may have another size, as models of one family fill theirs up differently.
        """
        if self._largest >= vocab:
            row = int((self.tokens >= vocab).any(-1).int().argmax())
            got = f"{int(self.tokens[row].max())} in {self._place(row)}"
            raise ValueError(f"answers: {self.path}: expected token ids below the model's {vocab}, got {got}")

    def check(self, method: Method, vocab: int) -> None:
        """ValueError unless all tokens are of this vocabulary, and the method is told as much as it must be."""
        self.check_vocabulary(vocab)
        m = as_method(method, "Answers")
        least, told = m.teacher_tokens(vocab), int(self.counts.min())
        if least > told:
            expected = f"{m.told_of_teacher(vocab)} everywhere"
            raise ValueError(f"{m.name}: teacher_answers: expected {expected}, got {told} log-probabilities")

    def rows(self, ids: Sequence[int], counted: Sequence[bool], what: str, rest: bool = False) -> np.ndarray:
        """For each of a demonstration's tokens the row of `values` that foretells it; −1 where it does not count.

        Parameters
        ----------
        ids : sequence of int, (T,)
        counted : sequence of bool, (T,)
            Whether the token is trained on.
        what : str
            The demonstration, for an error.
        rest : bool
            Whether white space after the answer may be without one, and have −1: a chat template puts it behind the
            end of turn, with which a teacher that generates has done.

        Raises
        ------
        ValueError
            For no line of these tokens (with the token at which the nearest parts), a token that is trained on and has
            no answer, or lines that differ and name only the end of their tokens.
        """
        own, needed = np.asarray(ids, dtype=np.int64), np.asarray(counted, dtype=bool)
        if not needed.any():
            return np.full(len(own), -1)
        line, start = self._line(own, int(needed.argmax()), what)
        found = np.full(len(own), -1)
        theirs = self._rows[line][: len(own) - start]
        found[start : start + len(theirs)] = theirs
        missing = needed & (found < 0)
        if missing.any() and not (rest and self._is_space(own[int(missing.argmax()) :], found)):
            t = int(missing.argmax())
            raise ValueError(
                f"answers: {self.path}: {what}: expected an answer for every token that is trained on, got none for "
                f"{self._texts.text(int(own[t]))} at position {t} in line {self._numbers[line]}"
            )
        return np.where(needed, found, -1)

    def top_k(self, rows: Tensor, labels: Tensor | None = None) -> TopK:
        """The teacher at these rows (…), as a method takes it; anything where a row is −1.

        Raises
        ------
        ValueError
            A row of −1 where one of `labels` (…) counts, which is not −100.
        """
        if labels is not None and bool(((rows < 0) & (labels != -100)).any()):
            got = "one at the first token of an example, or that a collator has set"
            raise ValueError(f"answers: {self.path}: expected labels where there are answers, got {got}")
        at = rows.clamp(min=0).cpu()
        return TopK(self.values[at].to(rows.device), self.tokens[at].long().to(rows.device))

    def _is_space(self, end: np.ndarray, found: np.ndarray) -> bool:
        """Whether these last tokens, none of which is answered, are white space."""
        tokenizer = self._texts.tokenizer
        answered = bool((found[len(found) - len(end) :] >= 0).any())
        return tokenizer is not None and not answered and not tokenizer.decode(end.tolist()).strip()

    # ---- which line ---------------------------------------------------------------------------------------------
    def _index(self) -> None:
        """Lines by what they begin with after the first token, which may not be named; others by all they name."""
        whole = [i for i, is_whole in enumerate(self._whole) if is_whole]
        self._sorted = sorted((_key(self._ids[i][1:]), i) for i in whole)
        self._parts: dict[bytes, list[int]] = defaultdict(list)
        for i, is_whole in enumerate(self._whole):
            if not is_whole:
                self._parts[_key(self._ids[i])].append(i)
        self._lengths = sorted({len(self._ids[i]) for i in whole}, reverse=True)
        self._part_lengths = sorted({len(key) // 4 for key in self._parts}, reverse=True)

    def _line(self, ids: np.ndarray, first: int, what: str) -> tuple[int, int]:
        """The line that answers these tokens, `first` being the first that is trained on, and where it begins."""
        for i in self._begun(ids):
            if self._ids[i][0] in (-1, ids[0]):
                return i, 0
        for length in self._part_lengths:
            # What was generated begins with the first token that is trained on; what was asked ends with the last.
            for start in dict.fromkeys((first, max(len(ids) - length, 0))):
                if found := self._parts.get(_key(ids[start : start + length])):
                    self._refuse_different(found, what)
                    return found[0], start
        raise ValueError(self._parted(ids, first, what))

    def _begun(self, ids: np.ndarray) -> Iterator[int]:
        """Lines that go on as these tokens do, or end before them."""
        key = _key(ids[1:])
        at = bisect_left(self._sorted, (key, -1))
        while at < len(self._sorted) and self._sorted[at][0].startswith(key):
            yield self._sorted[at][1]
            at += 1
        for length in self._lengths:
            shorter = _key(ids[1:length])
            at = bisect_left(self._sorted, (shorter, -1))
            if length < len(ids) and at < len(self._sorted) and self._sorted[at][0] == shorter:
                yield self._sorted[at][1]

    def _refuse_different(self, lines: Sequence[int], what: str) -> None:
        first = lines[0]
        for other in lines[1:]:
            pairs = zip(self._rows[first], self._rows[other], strict=True)
            if any(a >= 0 and not torch.equal(self.values[a], self.values[b]) for a, b in pairs):
                raise ValueError(
                    f"answers: {self.path}: {what}: expected one answer, got lines {self._numbers[first]} and "
                    f"{self._numbers[other]}, which answer the same tokens differently and do not name those before: "
                    "add the prompt's token ids to each line, as prompt_token_ids"
                )

    def _parted(self, ids: np.ndarray, first: int, what: str) -> str:
        """Which line comes nearest to these tokens, and where it parts from them."""
        sentence = f"answers: {self.path}: {what}: expected an answer for its own tokens, got none; "
        best: tuple[int, int, int] | None = None  # (tokens alike, line, start)
        for i, theirs in enumerate(self._ids):
            start = 0 if self._whole[i] else first
            alike = _alike(theirs, ids[start:])
            if best is None or alike > best[0]:
                best = alike, i, start
        assert best is not None  # a file has a line
        alike, i, start = best
        here, there = ids[start + alike :], self._ids[i][alike:]
        texts = [self._texts.text(int(side[0])) if len(side) else "nothing" for side in (there, here)]
        return (
            f"{sentence}the nearest, line {self._numbers[i]}, parts from it at position {start + alike}, where the "
            f"line has {texts[0]} and the demonstration {texts[1]}: another tokenizer or chat template?"
        )

    # ---- numbers ------------------------------------------------------------------------------------------------
    def _check_numbers(self) -> None:
        """ValueError unless at every row stand log-probabilities, which logits are not."""
        if bool(self.values.isnan().any()):
            where = self._place(int(self.values.isnan().any(-1).int().argmax()))
            raise ValueError(f"answers: {self.path}: {where}: expected a log-probability, got NaN")
        mass = self.values.double().exp().sum(-1)
        over = (mass > 1 + LISTED_MASS).nonzero()[:, 0]
        if len(over):
            row, most = int(over[0]), float(self.values[over[0]].max())
            got = f"one of {most:.4g}" if most > 0 else f"probabilities that add up to {float(mass[over[0]]):.4g}"
            raise ValueError(
                f"answers: {self.path}: {self._place(row)}: expected log-probabilities, got {got}: raw logits, as vLLM "
                "writes with logprobs_mode=raw_logits?"
            )

    def _place(self, row: int) -> str:
        """Where in the file a row stands."""
        i = next(i for i, rows in enumerate(self._rows) if (rows == row).any())
        return f"line {self._numbers[i]}, position {int((self._rows[i] == row).argmax())}"


def _each(file: Any) -> Iterator[bytes]:
    """The lines of a file; of one that is a list, its entries, as lines."""
    first = file.readline()
    if not first.lstrip().startswith(b"["):
        yield first
        yield from file
        return
    whole = first + file.read()
    try:
        entries = json.loads(whole)
    except ValueError:  # a line says what is wrong with it
        yield from whole.splitlines(keepends=True)
        return
    yield from (json.dumps(entry).encode() + b"\n" for entry in entries)


def _object(raw: bytes) -> Mapping[str, Any] | None:
    """What a line holds; None for an empty one."""
    text = raw.decode("utf-8-sig").strip()
    return object_in(text) if text else None


def _key(ids: np.ndarray) -> bytes:
    """Token ids so that bytes sort as they do, and begin alike where they do."""
    return ids.astype(">u4").tobytes()


def _alike(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two lists have in common from the start; −1 is any."""
    n = min(len(a), len(b))
    differ = (a[:n] != b[:n]) & (a[:n] >= 0)
    return int(differ.argmax()) if differ.any() else n
