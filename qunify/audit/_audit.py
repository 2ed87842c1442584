"""An audit: every demonstration through the model once, and what each method asks at every token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from qunify._lib import files
from qunify.audit import _demonstrations, _processes, _tables, _weights
from qunify.audit._answered import about as of_answers
from qunify.audit._answered import answered, is_answers, told_enough
from qunify.audit._encoding import encode_all
from qunify.audit._forward import batches
from qunify.audit._given import (
    check_apart,
    check_device,
    check_positions,
    check_vocabularies,
    chosen_methods,
    flags,
    positions_of,
    with_digits,
)
from qunify.audit._groups import own_groups
from qunify.audit._influence import Sample, first_steps, passes, sample
from qunify.audit._kept import Kept, told
from qunify.audit._models import Models, check_model, load_model, load_tokenizer
from qunify.audit._page import page
from qunify.audit._pass import asked_of_batches, group_patience, token_table
from qunify.audit._rehearsal import Plan, rehearsals, split
from qunify.audit._sentences import sentences
from qunify.audit._trainable import Trainable, check_blocks, check_trainable, describe
from qunify.audit._weights import Source
from qunify.hf import Answers, Head
from qunify.maps import Method

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
    _source: Source | None = field(default=None, repr=False, compare=False)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to expect, every number read from the tables."""
        return sentences(self.tokens, self.methods, self.groups, self.about)

    def page(self, path: str | Path) -> Path:
        """Write the page: one HTML file that loads nothing from elsewhere."""
        text = page(self.tokens, self.methods, self.groups, self.examples, self.about, self.sentences)
        return files.write(Path(path), text.encode())

    def training_rows(self) -> list[dict[str, Any]]:
        """The demonstrations as they were read: `input_ids`, and `labels` with −100 where nothing is trained on. TRL
        takes them as they are: `datasets.Dataset.from_list(result.training_rows())`. ValueError for an audit that was
        read from a folder."""
        return [*_weights.training_rows(self._source).values()]

    def write_weights(self, path: str | Path, method: str, per: Literal["example", "token"] = "example") -> Path:
        """Write a jsonl file with the method's trust γ, at the model as it is now, as the column `weight`.

        For trainers that read one, as `qunify.hf.SFTTrainer` does with "iw_sft". Per example: the demonstrations as
        they were given, each with its mean over the tokens (0 where it has none); per token: `input_ids`, `labels` and
        a weight for each token, 0 where it is not trained on.

        Raises
        ------
        ValueError
            A method that is not among those of the audit, or has no trust; an audit read from a folder.
        """
        return _weights.write(Path(path), self._source, self.tokens, method, per)

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
    about = json.loads((where / "about.json").read_text(encoding="utf-8"))
    return Audit(tables["tokens"], tables["methods"], tables["groups"], tables["examples"], about)


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
    teacher_base: Any = None,
    influence: bool = False,
    rehearse: int = 0,
    trainable: Trainable = "adapter",
    rate: float = 2e-4,
    prompt: str | None = None,
    completion: str | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    batch_tokens: int = 4096,
    device: str | torch.device | None = None,
    seed: int = 0,
    keep: str | Path | None = None,
    jobs: int | None = None,
    progress: bool = False,
) -> Audit:
    """What would each method ask of this model on these demonstrations, before any training?

    Parameters
    ----------
    model, reference, teacher, teacher_base : a causal language model or its folder
        Folders with safetensors weights only. A reference or a teacher, of the same vocabulary, adds the methods that
        need one; so does `teacher_base`, what the teacher was before its own training, beside both. A teacher may also
        be a jsonl file of recorded answers, as `qunify record` or a server writes them; methods that must be told more
        of it than is listed there are then left out, and `topk_kd` takes as many.
    demonstrations : path, dataset, data frame or list of dict
        A jsonl, json, csv, tsv or parquet file, a folder that `datasets` has saved, or rows; with columns `prompt` and
        `completion`, `question` and `answer`, `instruction` and `output`, `messages`, `conversations`, or those named
        by `prompt` and `completion`. Only what the assistant says counts. Or with `text`, of which every token counts.
    tokenizer : tokenizer or its folder, optional
        By default that in the model's folder. Its chat template is applied where it has one.
    methods : sequence of id, QMap or loss function, optional
        By default every method of the catalogue whose contexts are there. Those that compare numbers are told by the
        tokenizer which tokens are a digit, as `qunify.hf.digit_values` has it; where none is, they are left out.
    groups : mapping of str to str, optional
        Groups of tokens of one's own: a name, and a regular expression for the text of what the assistant says.
    flag : str, optional
        A column that is true (1, "true", "yes") of demonstrations that are known to be bad.
    influence : bool
        Whether to find what the first step of each method does: two columns of `groups`. It takes a backward pass for
        each method and each group, on demonstrations of some 2,000 tokens.
    rehearse : int
        Train by each method, from the same start, for so many steps of 8 demonstrations, with Adam at `rate`, and
        measure on a quarter of the demonstrations, held out.
    trainable : "adapter", "all" or int
        The parameters that influence and rehearsal move: the model's adapter, else a new one (LoRA of rank 8 on every
        linear layer but the head); all; or those of the last so many blocks. The model is left as it was.
    limit : int, optional
        Take the first so many demonstrations. With 0 the model reads one, which shows that all fits, and the tables
        are empty.
    max_length : int, optional
        Cut demonstrations off after so many tokens, as training would.
    batch_tokens : int
        So many tokens at most, padding included, go through the model at a time.
    device : optional
        By default where the model is.
    seed : int
        Of the bootstrap, the sample, the adapter and the rehearsal's order.
    keep : path, optional
        A folder in which finished parts are kept until the audit is done, so that a stopped run goes on where it was.
        With a method of one's own it starts afresh.
    jobs : int, optional
        Processes for the pass over all demonstrations, by joblib, whose backend `joblib.parallel_config` switches to
        Dask or Ray. Each holds the models. By default what that says, else one. Processes that torchrun or Accelerate
        has started divide the pass between them, too, and each is given the audit; `is_main_process` tells which one
        writes it down.

    Returns
    -------
    Audit
        `tokens`; `groups` (a row per group and method: tokens, share, median u, mean trust, share of the push,
        patience, and where asked for `influence`, `influence_adam` and `rehearsed` with its interval); `methods` (a
        row per method: means of trust, push and in_simplex with 95 % intervals over demonstrations, the share of tokens
        that carry half of the push, the push by u, cosines of gradients, with `flag` the area under the curve, with
        `rehearse` what it came to); `examples` (a row per demonstration).

    Raises
    ------
    ValueError
        One sentence for what is missing or does not fit, before any forward pass where that can be known.
    """
    given_models = {"reference": reference, "teacher": teacher, "teacher_base": teacher_base}
    there = {f"{what}_logits": m for what, m in given_models.items()}
    chosen = chosen_methods(methods, there | {"token_values": True})  # the tokenizer tells which there are
    compiled = own_groups(groups)
    _check_numbers(limit, rehearse, rate, batch_tokens, jobs)
    device = _processes.own_device(device)
    check_device(device)
    check_trainable(trainable)
    if limit == 0:
        influence, rehearse = False, 0
    rows = _demonstrations.rows(demonstrations)[: 1 if limit == 0 else limit]
    given = _demonstrations.examples(rows, prompt, completion) if rows else []
    flagged = flags(rows, flag)
    is_file = is_answers(teacher)
    named = {"model": model, **given_models, **({"teacher": None} if is_file else {})}
    sources = Models({what: m for what, m in named.items() if m is not None})
    for what, m in sources.items():
        check_model(m, what)
    if rehearse:
        check_apart(sources)
    read = load_tokenizer(tokenizer, model)
    encoded = encode_all(given, read, max_length)
    kept = [i for i, e in enumerate(encoded) if any(e.counted)]
    if not kept:
        raise ValueError(
            f"audit: demonstrations: expected at least one token to train on, got none in {len(given)} demonstrations"
            + (f" cut off after max_length={max_length} tokens" if max_length is not None else "")
        )
    trained_on, held_out = split(kept, seed) if rehearse else ([], [])
    answers = None
    if is_file:
        answers = teacher if isinstance(teacher, Answers) else Answers.read(teacher, read)
        encoded = answered(answers, given, encoded, read)
    models = Models({what: load_model(m, device) for what, m in sources.items()})
    check_vocabularies(models, encoded)
    check_positions(models["model"], [encoded[i] for i in kept])
    positions = positions_of(models["model"])
    if influence or rehearse:
        check_blocks(models["model"], trainable)
    vocab = Head.of(models["model"]).vocab
    chosen, values = with_digits(chosen, read, vocab, named=methods is not None)
    models.token_values = sources.token_values = values
    if answers is not None:
        answers.check_vocabulary(vocab)
        chosen = told_enough(chosen, encoded, vocab, named=methods is not None)
    labels = list(chosen)
    facts = (told(models, chosen), encoded, batch_tokens, trainable, rehearse, rate, seed) if keep is not None else ()
    store = Kept(None if keep is None else Path(keep), *facts)

    def bar(total: int, unit: str, what: str) -> Any:
        return tqdm(total=total, unit=unit, desc=what, disable=not progress or not _processes.is_main_process())

    numbers = batches(kept, encoded, batch_tokens)
    parts = [[encoded[i] for i in batch] for batch in numbers]
    with bar(sum(len(encoded[i].ids) for i in kept), "tok", "asked") as shown:
        found = asked_of_batches(models, sources, parts, [*chosen.values()], store, jobs, shown.update)
    source = Source(rows[:limit], encoded[:limit])
    if not _processes.is_main_process():
        return replace(_processes.told(None), _source=source)
    places = [(i, t) for batch in numbers for i in batch for t in encoded[i].places]
    tokens = token_table(found, places, encoded, read, compiled, labels)
    gram = np.sum([part["gram"] for part in found], axis=0)
    about = {
        "demonstrations": len(kept),
        "left_out": len(given) - len(kept),
        "cut_off": sum(e.lost > 0 for e in encoded),
        "tokens_cut_off": sum(e.lost for e in encoded),
        "positions": positions,
        "too_long": 0 if positions is None else sum(len(encoded[i].ids) > positions for i in kept),
        "weight_zero": _demonstrations.without_weight(given),
        "tokens": len(tokens),
        "max_length": max_length,
        "chat_template": getattr(read, "chat_template", None) is not None and _demonstrations.TEXT not in given[0],
        "flag": flag,
        "empty_groups": [name for name in compiled if not (tokens["group"] == name).any()],
        "digits": 0 if values is None else int((~values.isnan()).sum()),
        **({} if answers is None else of_answers(encoded)),
    }
    table = _tables.methods(tokens, labels, gram, flagged, seed)
    groups_table = _tables.groups(tokens, labels, group_patience(tokens, [*chosen.values()], models, encoded))
    kinds = tokens.groupby("example")["group"].agg(list)
    if influence:
        some = sample(kept, encoded, seed)
        shared = Sample([encoded[i] for i in some], [kinds[i] for i in some])
        with bar(passes(shared, len(chosen), batch_tokens), "pass", "done") as shown:
            how = (trainable, batch_tokens, seed, shown.update)
            made = store.of("influence", lambda: first_steps(models, shared, [*chosen.values()], *how))
        groups_table = _tables.with_influence(groups_table, labels, made)
        about["influence"] = {"demonstrations": len(some), "trainable": describe(trainable)}
    if rehearse:
        plan = Plan(rehearse, rate, trainable, batch_tokens, seed)
        train, held = ([encoded[i] for i in rows] for rows in (trained_on, held_out))
        with bar(len(chosen) * plan.passes(train, held), "demo", "rehearsed") as shown:
            after = rehearsals(models, chosen, train, held, plan, store, shown.update)
        tokens, table, groups_table = _tables.with_rehearsal(tokens, table, groups_table, held_out, after, seed)
        about["rehearsal"] = {
            "steps": rehearse, "rate": rate, "trainable": describe(trainable),
            "demonstrations": len(train), "held_out": len(held),
        }  # fmt: skip
    store.clear()
    finished = Audit(tokens, table, groups_table, _tables.examples(tokens, labels, flagged), about)
    return replace(_processes.told(_of_none(finished) if limit == 0 else finished), _source=source)


def _of_none(found: Audit) -> Audit:
    """The same audit of no demonstrations."""
    numbers = found.methods.columns.drop("method")
    methods = found.methods.assign(**dict.fromkeys(numbers, np.nan))
    about = found.about | {"demonstrations": 0, "left_out": 0, "cut_off": 0, "tokens_cut_off": 0, "tokens": 0}
    return Audit(found.tokens[:0], methods, found.groups[:0], found.examples[:0], about)


def _check_numbers(limit: int | None, rehearse: int, rate: float, batch_tokens: int, jobs: int | None) -> None:
    for name, value, least in (("limit", limit, 0), ("rehearse", rehearse, 0), ("batch_tokens", batch_tokens, 1)):
        if value is not None and not (isinstance(value, int) and value >= least):
            raise ValueError(f"audit: {name}: expected a number of at least {least}, got {value!r}")
    if jobs == 0:
        raise ValueError("audit: jobs: expected a number of processes, got 0")
    if not 0 < rate < math.inf:
        raise ValueError(f"audit: rate: expected a positive learning rate, got {rate!r}")
