"""One line of recorded answers, as `qunify record` or a server writes it, to token ids and listed log-probabilities.

At every token stand the log-probabilities with which the tokens before it foretell it, in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qunify.hf._token_texts import Name, TokenTexts

#: The likeliest tokens, and the one that stands there, and the log-probabilities of all of them.
Listed = tuple[list[int], list[float]]
#: What stands for −∞, which JSON has not: vLLM clamps to it, and OpenAI writes it for whatever is not in its list.
FLOOR = -9999.0
_MOST = 2**31  # token ids are kept in 32 bits
_SAME = 1e-3  # nats: a server that says a token's log-probability twice may round it in two ways

_IDS = ("ids", "input_ids", "prompt_token_ids")
_SGLANG = ("input_token_logprobs", "input_top_logprobs", "output_token_logprobs", "output_top_logprobs")


@dataclass(frozen=True)
class Recorded:
    """One demonstration as it was answered.

    Attributes
    ----------
    ids : list of int or None
        Its tokens; None for a first one that the line does not name.
    whole : bool
        Whether they begin where the demonstration does; else some tokens before them are not named.
    listed : list
        For each token what was listed there; None where nothing was.
    """

    ids: Sequence[int | None]
    whole: bool
    listed: Sequence[Listed | None]


def recorded(line: Mapping[str, Any], texts: TokenTexts) -> Recorded:
    """Read one line, whichever of the known formats it has.

    - qunify: `ids`, and for each of `positions` a list of `tokens` and one of `logprobs`.
    - vLLM (0.9 to 0.32; server or `LLM.generate`): `prompt_logprobs`, for each token `{"17": {"logprob": -0.1, …}, …}`
      with k or k + 1 entries, that of the token itself first; null at the first token.
    - SGLang (0.4 to 0.5, `/generate`): `meta_info` with `input_token_logprobs` and `input_top_logprobs`, lists of
      `[logprob, id, text]`, null at the first token asked for; or the same of its own output.
    - OpenAI's completions, also as vLLM and SGLang serve them: `choices[0].logprobs` with `tokens`, `token_logprobs`,
      `top_logprobs`; with `echo` it begins at the first token.
    - OpenAI's chat completions: `choices[0].logprobs.content`, what was generated; or its responses, where the same
      stands in `output`. The tokens as text, as ids (`id`, llama.cpp and mlx_lm), or both.
    - llama.cpp's `/completion`: the same as `completion_probabilities`.

    Bodies may be those of OpenAI's batch files (`response.body`). Token ids beside them, `ids` or `prompt_token_ids`,
    are taken where they are there.

    Raises
    ------
    ValueError
        What was expected, and got; the file and the line are for the caller to say.
    """
    fields = _fields(line)
    ids = next((_integers(fields[name], name) for name in _IDS if fields.get(name) is not None), None)
    if "positions" in fields:
        return _own(fields, ids)
    if fields.get("prompt_logprobs") is not None:
        return _vllm(fields["prompt_logprobs"], ids)
    if any(name in fields for name in _SGLANG):
        return _sglang(fields, ids)
    if (rows := _rows(fields)) is not None:
        said = fields.get("token_ids")
        return _openai(rows, ids, None if said is None else _integers(said, "token_ids"), texts)
    raise ValueError(
        "expected positions, tokens and logprobs (as qunify record writes), prompt_logprobs (vLLM), meta_info with "
        "input_top_logprobs (SGLang), choices or output with logprobs (OpenAI) or completion_probabilities "
        "(llama.cpp), got " + (", ".join(map(str, line)) or "an empty object")
    )


def _fields(line: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a line says, out of what is wrapped around it; the outer word counts."""
    body: Any = line
    if "response" in line:  # OpenAI's batch files
        response = line["response"]
        if line.get("error") or not isinstance(response, Mapping) or not isinstance(response.get("body"), Mapping):
            raise ValueError(f"expected an answer, got the error {line.get('error') or response!r:.120}")
        body = response["body"]
    found: dict[str, Any] = {}
    said = [part for item in _mappings(body.get("output")) for part in _mappings(item.get("content"))]
    wrapped = (_one(body.get("choices", ()), "choice"), _one([x for x in said if x.get("logprobs")], "text"))
    for inner in (*wrapped, body.get("meta_info", {}), body, line):
        if not isinstance(inner, Mapping):
            raise ValueError(f"expected an object, got {inner!r:.80}")
        found |= {k: v for k, v in inner.items() if v is not None}
    return found


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [x for x in value if isinstance(x, Mapping)] if isinstance(value, list) else []


def _one(choices: Any, what: str) -> Mapping[str, Any]:
    if isinstance(choices, Sequence) and len(choices) == 0:
        return {}
    if not isinstance(choices, Sequence) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        got = len(choices) if isinstance(choices, Sequence) else type(choices).__name__
        raise ValueError(f"expected one {what} in a line, got {got}")
    return choices[0]


# ---- one format each ---------------------------------------------------------------------------------------------
def _own(fields: Mapping[str, Any], ids: list[int] | None) -> Recorded:
    if ids is None:
        raise ValueError("expected ids beside positions, got none")
    at, tokens, values = (_list(fields.get(name), name) for name in ("positions", "tokens", "logprobs"))
    if not len(at) == len(tokens) == len(values):
        got = f"{len(at)}, {len(tokens)} and {len(values)}"
        raise ValueError(f"expected as many positions as lists of tokens and of logprobs, got {got}")
    listed: list[Listed | None] = [None] * len(ids)
    for t, row, numbers in zip(at, tokens, values, strict=True):
        if not isinstance(t, int) or not 0 < t < len(ids):
            raise ValueError(f"expected positions from 1 to {len(ids) - 1}, got {t!r}")
        if len(_list(row, f"position {t}: tokens")) != len(_list(numbers, f"position {t}: logprobs")):
            got = f"{len(row)} and {len(numbers)}"
            raise ValueError(f"position {t}: expected as many tokens as logprobs, got {got}")
        listed[t] = _merged(t, row, numbers)
    return Recorded(ids, True, listed)


def _vllm(found: Any, ids: list[int] | None) -> Recorded:
    listed: list[Listed | None] = []
    named: list[int | None] = []
    for t, entries in enumerate(_list(found, "prompt_logprobs")):
        if entries is None:
            listed.append(None)
            named.append(None)
            continue
        if not isinstance(entries, Mapping) or not entries:
            raise ValueError(f"position {t}: expected an object of token ids, got {entries!r:.80}")
        tokens = [_key(t, key) for key in entries]
        if ids is not None and t < len(ids) and ids[t] not in tokens:
            got = ", ".join(map(str, tokens))
            raise ValueError(f"position {t}: expected the token that stands there, {ids[t]}, to be listed, got {got}")
        values = [value.get("logprob") if isinstance(value, dict) else value for value in entries.values()]
        listed.append(_merged(t, tokens, values))
        named.append(tokens[0])
    if ids is not None:
        if len(ids) < len(listed):
            raise ValueError(f"expected token ids for {len(listed)} entries of prompt_logprobs, got {len(ids)}")
        return Recorded(ids, True, [*listed, *[None] * (len(ids) - len(listed))])
    if None in named[1:]:
        t = named.index(None, 1)
        raise ValueError(f"position {t}: expected prompt_logprobs, which only the first token lacks, got null")
    return Recorded(named, True, listed)


def _key(t: int, key: Any) -> int:
    if not isinstance(key, str) or not key.isdigit():
        raise ValueError(f"position {t}: expected token ids as keys of prompt_logprobs, got {key!r}")
    return int(key)


def _sglang(fields: Mapping[str, Any], ids: list[int] | None) -> Recorded:
    asked, said = _triples(fields, "input"), _triples(fields, "output")
    before = 0 if ids is None else len(ids) - len(asked)  # the ids on the line are the whole prompt's
    if before < 0:
        raise ValueError(f"expected token ids for {len(asked)} entries of input_token_logprobs, got {len(ids or ())}")
    named = [] if ids is None else ids[:before]
    listed: list[Listed | None] = [None] * before
    for t, (token, entries) in enumerate(asked + said, start=before):
        own = token[1]
        if ids is not None and t < len(ids):
            if own not in (ids[t], 0):  # for the last of a vocabulary SGLang writes 0
                raise ValueError(f"position {t}: expected the token {ids[t]} as in the ids, got {own}")
            own = ids[t]
        named.append(own)
        if entries is None or token[0] is None:
            listed.append(None)
        else:
            listed.append(_merged(t, [*(x[1] for x in entries), own], [*(x[0] for x in entries), token[0]]))
    whole = ids is not None or (bool(asked) and fields.get("prompt_tokens", len(asked)) == len(asked))
    return Recorded(named, whole, listed)


def _triples(fields: Mapping[str, Any], part: str) -> list[tuple[list[Any], list[list[Any]] | None]]:
    """At each token its own [logprob, id, text], and those of the likeliest."""
    own, top = (
        _list(fields.get(f"{part}_{kind}_logprobs", []), f"{part}_{kind}_logprobs") for kind in ("token", "top")
    )
    if len(own) != len(top):
        raise ValueError(
            f"expected {part}_token_logprobs and {part}_top_logprobs (asked for by top_logprobs_num) of one length, "
            f"got {len(own)} and {len(top)}"
        )
    for t, (token, entries) in enumerate(zip(own, top, strict=True)):
        for triple in (token, *([] if entries is None else _list(entries, f"position {t}: [logprob, id, text]"))):
            if not isinstance(triple, list) or len(triple) < 2:
                raise ValueError(f"position {t}: expected [logprob, id, text], got {triple!r:.80}")
            _integers(triple[1:2], f"position {t}: the second of [logprob, id, text]")
    return list(zip(own, top, strict=True))


#: A token as a server names it, by its id, its text or its bytes; its log-probability; those of the likeliest.
Row = tuple[Name, Any, list[tuple[Name, Any]]]


def _rows(fields: Mapping[str, Any]) -> list[Row] | None:
    """What a server of OpenAI's kind says of each token; None where it says nothing that is known."""
    found, rows = fields.get("logprobs"), fields.get("completion_probabilities")
    if rows is None and isinstance(found, Mapping):
        if "tokens" in found:
            return _completion(found, known=any(name in fields for name in _IDS))
        rows = found.get("content")
    elif rows is None and "output" in fields:
        rows = found
    if rows is None:
        return None
    read = [_row(t, row, "token_ids" in fields) for t, row in enumerate(_list(rows, "log-probabilities"))]
    usage = fields.get("usage")
    generated = usage.get("completion_tokens") if isinstance(usage, Mapping) else fields.get("tokens_predicted")
    if rows and {"id", "bytes"} <= set(rows[0]) and isinstance(generated, int) and generated > len(rows):
        raise ValueError(
            f"expected log-probabilities for {generated} tokens, got {len(rows)}: llama.cpp writes only the last "
            "of several that are one letter, such as an emoji; leave out this answer"
        )
    return read


def _openai(rows: list[Row], ids: list[int] | None, said: list[int] | None, texts: TokenTexts) -> Recorded:
    """`ids` are the prompt's, `said` those of what was generated, where they are known."""
    echoed = bool(rows) and rows[0][1] is None
    if said is not None and not echoed and len(said) != len(rows):
        raise ValueError(f"expected log-probabilities for each of {len(said)} token_ids, got {len(rows)}")
    known = said or [] if not echoed else [] if ids is None else [*ids, *(said or [])]
    named: list[int] = []
    listed: list[Listed | None] = []
    for t, (name, value, entries) in enumerate(rows):
        try:
            alike = texts.ids(name)
            # What looks like several tokens is none in particular: its mass goes where that of all others goes.
            pairs = [(found[0], number) for other, number in entries if len(found := texts.ids(other)) == 1]
            if t < len(known):
                own = known[t]
            elif len(alike) > 1 and len(same := [i for i, number in pairs if i in alike and number == value]) == 1:
                (own,) = same
            else:
                own = texts.id(name)
        except ValueError as error:
            raise ValueError(f"position {t}: {error}") from None
        if isinstance(name, str) and name and own not in alike:  # a letter as a whole, at the last of its tokens:
            pairs = []  # so are the other tokens that might have ended it
        if not isinstance(name, int) or name == own:
            pairs.append((own, value))
        named.append(own)
        listed.append(None if value is None else _merged(t, [x for x, _ in pairs], [x for _, x in pairs]))
    if echoed or ids is None:
        return Recorded(named, echoed, listed)
    return Recorded([*ids, *named], True, [*[None] * len(ids), *listed])


def _row(t: int, row: Any, known: bool) -> Row:
    name, value = _entry(t, row)
    there = row.get("top_logprobs")
    entries = [] if there is None else [_entry(t, x) for x in _list(there, f"position {t}: top_logprobs")]
    if entries and "id" in row and "bytes" not in row and not known:
        raise ValueError(
            f"position {t}: expected the token that was generated, got the first of its alternatives, in no order, as "
            "mlx_lm.server writes: ask it without top_logprobs, or add the ids of what was generated as token_ids"
        )
    return name, value, entries


def _entry(t: int, entry: Any) -> tuple[Name, Any]:
    if isinstance(entry, Mapping):
        if "prob" in entry and "logprob" not in entry:
            raise ValueError(
                f"position {t}: expected log-probabilities, got probabilities after sampling, as llama.cpp writes with "
                "post_sampling_probs: ask without it"
            )
        name = entry.get("id", entry.get("token"))
        if isinstance(name, str) and (raw := _half(entry.get("bytes"))) is not None:
            return raw, entry.get("logprob")
        if (isinstance(name, str) or (type(name) is int and 0 <= name < _MOST)) and "logprob" in entry:
            return name, entry["logprob"]
    raise ValueError(f"position {t}: expected an object with token and logprob, got {entry!r:.80}")


def _half(raw: Any) -> bytes | None:
    """Bytes that are no whole letters, as half of one is; None for others."""
    if not isinstance(raw, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in raw):
        return None
    try:
        bytes(raw).decode()
    except UnicodeDecodeError:
        return bytes(raw)
    return None


def _may_be_half(text: str) -> bool:
    """Whether a text is half of a letter as SGLang writes it in completions, each byte as the letter of its number."""
    return max(text, default="") < "\u0100" and _half([*map(ord, text)]) is not None


def _completion(found: Mapping[str, Any], known: bool) -> list[Row]:
    tokens, own, top = (_list(found.get(name), name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not len(tokens) == len(own) == len(top):
        got = f"{len(tokens)}, {len(own)} and {len(top)}"
        raise ValueError(f"expected tokens, token_logprobs and top_logprobs of one length, got {got}")
    for t, (token, entries) in enumerate(zip(tokens, top, strict=True)):
        if not isinstance(token, str) or not isinstance(entries, Mapping | None):
            raise ValueError(f"position {t}: expected text and an object, got {token!r:.40} and {entries!r:.40}")
    rows: list[Row] = [(token, value, [*(e or {}).items()]) for token, value, e in zip(tokens, own, top, strict=True)]
    if not (offsets := found.get("text_offset")) or offsets != [-1] * len(tokens):
        return rows
    for t, (token, _, _) in enumerate(rows):  # of SGLang
        if _may_be_half(str(token)) and not known:
            raise ValueError(
                f"position {t}: expected the text of a token, got {token!r}, which may be half of a letter, as SGLang "
                "writes it: ask its /generate, which writes ids"
            )
    return [(x, value, [e for e in entries if not _may_be_half(str(e[0]))]) for x, value, entries in rows]


# ---- numbers -----------------------------------------------------------------------------------------------------
def _merged(t: int, tokens: list[Any], values: list[Any]) -> Listed | None:
    """Each token once, without those of probability 0; None where nothing is left."""
    if not (set(map(type, tokens)) <= {int} and set(map(type, values)) <= {float, int}):
        _refuse_types(t, tokens, values)
    if tokens and not (min(tokens) >= 0 and max(tokens) < _MOST):
        raise ValueError(f"position {t}: expected a token id, got {min(tokens) if min(tokens) < 0 else max(tokens)}")
    found = dict(zip(reversed(tokens), reversed(values), strict=True))
    if len(found) < len(tokens):
        for token, value in zip(tokens, values, strict=True):
            if abs(found[token] - value) > _SAME:
                got = f"{found[token]:.6g} and {value:.6g} for token {token}"
                raise ValueError(f"position {t}: expected one log-probability for a token, got {got}")
        tokens, values = [*found], [*found.values()]
    if values and min(values) <= FLOOR:
        kept = [(token, value) for token, value in zip(tokens, values, strict=True) if not value <= FLOOR]
        tokens, values = [x for x, _ in kept], [x for _, x in kept]
    return (tokens, values) if tokens else None


def _refuse_types(t: int, tokens: list[Any], values: list[Any]) -> None:
    _integers(tokens, f"position {t}: tokens")
    for token, value in zip(tokens, values, strict=True):
        if type(value) not in (float, int):
            raise ValueError(f"position {t}: expected a log-probability, got {value!r:.40} for token {token}")


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of {name}, got {value!r:.80}")
    return value


def _integers(value: Any, name: str) -> list[int]:
    found = _list(value, name)
    for number in found:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _MOST:
            raise ValueError(f"expected token ids as {name}, got {number!r:.80}")
    return found
