"""An audit: every demonstration through the model once, and what each method asks at every token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from qunify._lib import files
from qunify.audit import _demonstrations, _patience, _tables
from qunify.audit._answered import about as of_answers
from qunify.audit._answered import answered, is_answers, told_enough
from qunify.audit._encoding import Encoded, encode, pieces
from qunify.audit._forward import Place, batches, contexts, logits
from qunify.audit._groups import of_pieces, own_groups
from qunify.audit._measure import Asked, asked
from qunify.audit._models import check_model, load_model, load_tokenizer
from qunify.audit._page import page
from qunify.audit._sentences import sentences
from qunify.catalogue import as_method, get, names
from qunify.hf import Answers, Head
from qunify.maps import Method, QMap

TABLES = ("tokens", "methods", "groups", "examples")


@dataclass(frozen=True)
class Audit:
    """What each method asks of a model on demonstrations.

    Attributes
    ----------
    tokens : DataFrame
        A row per trained token: `example`, `position`, `id`, `text`, `group`, `u`, `rank`, `entropy` (nats), and per
        method `trust_NAME` (γ, unit gauge), `push_NAME` (½ Σ|g_k|: the probability it asks to move) and
        `in_simplex_NAME`.
    methods, groups, examples : DataFrame
        See `qunify.audit.run`.
    about : dict
        How many demonstrations and tokens there were, and what was cut off or left out.
    """

    tokens: pd.DataFrame
    methods: pd.DataFrame
    groups: pd.DataFrame
    examples: pd.DataFrame
    about: dict[str, Any]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to expect, every number read from the tables."""
        return sentences(self.tokens, self.methods, self.groups, self.about)

    def page(self, path: str | Path) -> Path:
        """Write the page: one HTML file that loads nothing from elsewhere."""
        text = page(self.tokens, self.methods, self.groups, self.examples, self.about, self.sentences)
        return files.write(Path(path), text.encode())

    def save(self, folder: str | Path) -> Path:
        """Write the tables as CSV files, and `about.json`, into a folder, which is made."""
        where = Path(folder)
        for name in TABLES:
            files.write(where / f"{name}.csv", getattr(self, name).to_csv(index=False).encode())
        files.write(where / "about.json", json.dumps(self.about, indent=2).encode())
        return where


def load(folder: str | Path) -> Audit:
    """An audit that `save` has written; ValueError that names the file that is missing."""
    where = Path(folder)
    for name in ("about.json", *(f"{table}.csv" for table in TABLES)):
        if not (where / name).is_file():
            raise ValueError(f"audit: {where}: expected {name} there, got none")
    tables = {
        name: pd.read_csv(where / f"{name}.csv", keep_default_na=False, na_values=[""], dtype={"text": str})
        for name in TABLES
    }
    tables["tokens"]["text"] = tables["tokens"]["text"].fillna("")
    return Audit(**tables, about=json.loads((where / "about.json").read_text(encoding="utf-8")))


def run(
    model: Any,
    demonstrations: Any,
    tokenizer: Any = None,
    methods: Sequence[Method] | None = None,
    reference: Any = None,
    teacher: Any = None,
    groups: Mapping[str, str] | None = None,
    flag: str | None = None,
    *,
    prompt: str | None = None,
    completion: str | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    batch_tokens: int = 4096,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Audit:
    """What would each method ask of this model on these demonstrations, before any training?

    Parameters
    ----------
    model, reference, teacher : a causal language model or its folder
        Folders with safetensors weights only. A reference or a teacher, of the same vocabulary, adds the methods that
        need one. A teacher may also be a jsonl file of recorded answers, as `qunify record` or a server writes them;
        methods that must be told more of it than is listed there are then left out, and `topk_kd` takes as many.
    demonstrations : path, dataset or list of dict
        A jsonl, json, csv, tsv or parquet file, a folder that `datasets` has saved, or rows; with columns `prompt` and
        `completion`, `question` and `answer`, `instruction` and `output`, `messages`, `conversations`, or those named
        by `prompt` and `completion`. Only what the assistant says counts.
    tokenizer : tokenizer or its folder, optional
        By default that in the model's folder. Its chat template is applied where it has one.
    methods : sequence of id, QMap or loss function, optional
        By default every method of the catalogue whose contexts are there.
    groups : mapping of str to str, optional
        Groups of tokens of one's own: a name, and a regular expression for the text of what the assistant says.
    flag : str, optional
        A column that is true (1, "true", "yes") of demonstrations that are known to be bad.
    limit : int, optional
        Take the first so many demonstrations.
    max_length : int, optional
        Cut demonstrations off after so many tokens, as training would.
    batch_tokens : int
        So many tokens at most, padding included, go through the model at a time.
    device : optional
        By default where the model is.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Audit
        `tokens`; `groups` (a row per group and method: tokens, share, median u, mean trust, share of the push,
        patience); `methods` (a row per method: means of trust, push and in_simplex with 95 % intervals over
        demonstrations, the share of tokens that carry half of the push, the push by u, cosines of gradients, with
        `flag` the area under the curve); `examples` (a row per demonstration).

    Raises
    ------
    ValueError
        One sentence for what is missing or does not fit, before any forward pass where that can be known.
    """
    chosen = _methods(methods, {"reference_logits": reference, "teacher_logits": teacher})
    compiled = own_groups(groups)
    if limit is not None and limit < 0:
        raise ValueError(f"audit: limit: expected a number of demonstrations, got {limit}")
    rows = _demonstrations.rows(demonstrations)[:limit]
    given = _demonstrations.examples(rows, prompt, completion) if rows else []
    flags = _flags(rows, flag)
    is_file = is_answers(teacher)
    given_models = {
        what: m
        for what, m in (("model", model), ("reference", reference), ("teacher", None if is_file else teacher))
        if m is not None
    }
    for what, m in given_models.items():
        check_model(m, what)
    read = load_tokenizer(tokenizer, model)
    encoded = [encode(example, read, max_length) for example in given]
    kept = [i for i, e in enumerate(encoded) if any(e.counted)]
    if not kept:
        raise ValueError(
            f"audit: demonstrations: expected at least one token to train on, got none in {len(given)} demonstrations"
            + (f" cut off after max_length={max_length} tokens" if max_length is not None else "")
        )
    answers = Answers.read(teacher, read) if is_file else None
    if answers is not None:
        encoded = answered(answers, given, encoded, read)
    models = {what: load_model(m, device) for what, m in given_models.items()}
    _check_vocabularies(models, encoded)
    if answers is not None:
        vocab = Head.of(models["model"]).vocab
        answers.check_vocabulary(vocab)
        chosen = told_enough(chosen, encoded, vocab, named=methods is not None)
    labels = list(chosen)
    parts: list[Asked] = []
    places: list[Place] = []
    total = sum(len(encoded[i].ids) for i in kept)
    with tqdm(total=total, unit="tok", desc="audit", disable=not progress) as bar:
        for batch in batches(kept, encoded, batch_tokens):
            for found, ids, at in logits(models, [encoded[i] for i in batch]):
                parts.append(asked(list(chosen.values()), found["model"], ids, contexts(found)))
                places += [(batch[b], t) for b, t in at]
            bar.update(sum(len(encoded[i].ids) for i in batch))
    tokens = _tokens(parts, places, encoded, read, compiled, labels)
    gram = torch.stack([part.gram for part in parts]).sum(0).cpu().numpy()
    patience = _group_patience(tokens, chosen, models, encoded)
    about = {
        "demonstrations": len(kept),
        "left_out": len(given) - len(kept),
        "cut_off": sum(e.lost > 0 for e in encoded),
        "tokens_cut_off": sum(e.lost for e in encoded),
        "tokens": len(tokens),
        "max_length": max_length,
        "chat_template": getattr(read, "chat_template", None) is not None,
        "flag": flag,
        **({} if answers is None else of_answers(encoded)),
    }
    return Audit(
        tokens,
        _tables.methods(tokens, labels, gram, flags, seed),
        _tables.groups(tokens, labels, patience),
        _tables.examples(tokens, labels, flags),
        about,
    )


def _methods(methods: Sequence[Method] | None, given: Mapping[str, Any]) -> dict[str, QMap]:
    """Every method by the name of its columns."""
    there = {name for name, value in given.items() if value is not None}
    if methods is None:
        return {name: get(name) for name in names() if set(get(name).needs) <= there}
    if not methods:
        raise ValueError("audit: methods: expected at least one, got none")
    found: dict[str, QMap] = {}
    for method in methods:
        m = as_method(method, "audit")
        missing = [name for name in m.needs if name not in there]
        if missing:
            hint = " or ".join(name.removesuffix("_logits") for name in missing if name in given) or "no audit has"
            raise ValueError(f"audit: methods: {m.name} needs {', '.join(missing)}: expected a {hint}, got none")
        name = m.name
        if name in found and m.params:
            name += "(" + ", ".join(f"{key}={value}" for key, value in m.params.items()) + ")"
        if name in found:
            raise ValueError(f"audit: methods: expected different methods, got {name} twice")
        found[name] = m
    return found


_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no", "", "none"}


def _flags(rows: Sequence[Mapping[str, Any]], flag: str | None) -> pd.Series | None:
    if flag is None:
        return None
    values = []
    for number, row in enumerate(rows, start=1):
        if flag not in row:
            raise ValueError(f"audit: flag: no column {flag!r} in row {number}; there are {', '.join(row)}")
        text = str(row[flag]).strip().lower().removesuffix(".0")
        if text not in _TRUE | _FALSE:
            raise ValueError(f"audit: flag: row {number}: expected true or false, got {row[flag]!r}")
        values.append(text in _TRUE)
    return pd.Series(values)


def _check_vocabularies(models: Mapping[str, Any], encoded: Sequence[Encoded]) -> None:
    vocab = Head.of(models["model"]).vocab
    for what, other in models.items():
        if Head.of(other).vocab != vocab:
            raise ValueError(
                f"audit: {what}: expected the model's vocabulary of {vocab} tokens, got one of {Head.of(other).vocab}"
            )
    largest = max(max(e.ids) for e in encoded if e.ids)
    if largest >= vocab:
        raise ValueError(f"audit: tokenizer: expected ids below the model's {vocab}, got {largest}: another model's?")


def _tokens(
    parts: Sequence[Asked],
    places: Sequence[Place],
    encoded: Sequence[Encoded],
    tokenizer: Any,
    own: Mapping[str, re.Pattern[str]],
    labels: Sequence[str],
) -> pd.DataFrame:
    texts: dict[Place, tuple[str, str]] = {}
    names_of_special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False))
    for i in sorted({i for i, _ in places}):
        e = encoded[i]
        at = [t for t, counts in enumerate(e.counted) if counts]
        found, special = pieces(e.ids, tokenizer), [names_of_special.get(token) for token in e.ids]
        kinds = of_pieces([found[t] for t in at], [special[t] for t in at], own)
        texts |= {(i, t): (found[t], kind) for t, kind in zip(at, kinds, strict=True)}
    table = pd.DataFrame(places, columns=["example", "position"])
    table["id"] = [encoded[i].ids[t] for i, t in places]
    table["text"], table["group"] = zip(*[texts[place] for place in places], strict=True)
    for name in ("u", "rank", "entropy"):
        table[name] = torch.cat([getattr(part, name) for part in parts]).cpu().numpy()
    wide = []
    for kind, name in (("trust", "trust"), ("push", "push"), ("in_simplex", "inside")):
        values = torch.cat([getattr(part, name) for part in parts], dim=-1).T.cpu().numpy()
        wide.append(pd.DataFrame(values, columns=_tables.columns(kind, labels)))
    return pd.concat([table, *wide], axis=1).sort_values(["example", "position"], ignore_index=True)


def _group_patience(
    tokens: pd.DataFrame, chosen: Mapping[str, QMap], models: Mapping[str, Any], encoded: Sequence[Encoded]
) -> dict[str, np.ndarray]:
    """Every method's patience at the median token of every group, relative to SFT's."""
    found = {}
    methods = [get("sft"), *chosen.values()]
    for group, rows in tokens.groupby("group", sort=False):
        middle = rows.sort_values(["u", "example", "position"]).iloc[(len(rows) - 1) // 2]
        i, t = int(middle["example"]), int(middle["position"])
        e = encoded[i]
        values, _, _ = next(logits(models, [e.alone(t)]))
        one = {name: value[0].cpu() for name, value in values.items()}
        took = _patience.times(methods, one["model"], e.ids[t], contexts(one))
        found[str(group)] = took[1:] / took[0]
    return found
