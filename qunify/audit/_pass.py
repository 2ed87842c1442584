"""One pass of every demonstration through the model: the table of tokens, and the Gram matrix of gradients."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qunify.audit import _patience, _processes, _tables
from qunify.audit._encoding import Encoded, pieces
from qunify.audit._forward import Place, States, contexts, logits, sequences, states
from qunify.audit._groups import of_pieces
from qunify.audit._kept import Arrays, Kept
from qunify.audit._measure import Asking, token_of
from qunify.audit._models import Models, load_model
from qunify.catalogue import get
from qunify.maps import QMap
from qunify.token import Pool, Pooling


def asked_of_batches(
    models: Models,
    sources: Models,
    parts: Sequence[Sequence[Encoded]],
    methods: Sequence[QMap],
    store: Kept,
    jobs: int | None,
    done: Callable[[int], Any],
) -> list[Arrays]:
    """What is asked at the trained tokens of every batch; `done` is called with the number of its tokens.

    Processes that a launcher has started take turns at the batches, and tell one another what they have found. With
    several jobs, each process loads the models from their folders, the `sources`, or is sent them as they are.
    """
    names = [f"batch-{i:06}" for i in range(len(parts))]
    found = {i: there for i, name in enumerate(names) if (there := store.get(name)) is not None}
    kept = set().union(*_processes.gathered(set(found)))
    missing = [i for i in range(len(parts)) if i not in kept][_processes.rank() :: _processes.count()]
    for i in found:
        done(sum(len(e.ids) for e in parts[i]))
    if joblib.effective_n_jobs(jobs) == 1:
        made = ((i, _asked(models, methods, parts[i])) for i in missing)
    else:
        device = str(next(models["model"].parameters()).device)
        calls = (joblib.delayed(_in_process)(i, sources, device, methods, parts[i]) for i in missing)
        made = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
    for i, arrays in made:
        found[i] = store.put(names[i], arrays)
        done(sum(len(e.ids) for e in parts[i]))
    for others in _processes.gathered(found):
        found |= others
    return [found[i] for i in range(len(parts))]


def _asked(models: Models, methods: Sequence[QMap], batch: Sequence[Encoded]) -> Arrays:
    read = states(models, batch)
    of = sequences(read["model"][2])
    pooling = Pooling(of, torch.zeros_like(of))
    asking = Asking(methods)
    known = _statistics(models, asking.looking_ahead, batch, read, pooling)
    start = 0
    for found, ids, _ in logits(models, batch, read=read):
        here = {pool: values[start : start + len(ids)] for pool, values in known.items()}
        asking.add(found["model"], ids, contexts(found, models), here)
        start += len(ids)
    return {name: value.cpu().numpy() for name, value in vars(asking.done(pooling)).items()}


def _statistics(
    models: Models, methods: Sequence[QMap], batch: Sequence[Encoded], read: States, pooling: Pooling
) -> dict[Pool, Tensor]:
    """What methods take from the token's demonstration, or from all of the batch, (N, 1) each."""
    found: dict[Pool, list[Tensor]] = {pool: [] for m in methods for pool in m.pools}
    if not found:
        return {}
    for values, ids, _ in logits(models, batch, read=read):
        t = token_of(methods, values["model"], ids, contexts(values, models))
        for pool, parts in found.items():
            parts.append(torch.cat([pool.of(block) for _, block in t.blocks()]))
    return {pool: pooling.combine(pool, torch.cat(parts)) for pool, parts in found.items()}


#: In a process one part is worked on at a time: after two threads have loaded models at once, transformers 5.23 ties no
#: head any more (findings/transformers_two_loads.sh), and a model's head is put aside while it is called.
_ONE = threading.Lock()


def _in_process(
    i: int, sources: Models, device: str, methods: Sequence[QMap], batch: Sequence[Encoded]
) -> tuple[int, Arrays]:
    with _ONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the processes share the cores
        try:
            models = {what: _opened(m, device) if isinstance(m, str | Path) else m for what, m in sources.items()}
            return i, _asked(Models(models, sources.token_values), methods, batch)
        finally:
            torch.set_num_threads(threads)


@functools.lru_cache(maxsize=4)  # a process's model, reference, teacher and its base, for its next batches
def _opened(folder: str | Path, device: str) -> Any:
    return load_model(folder, device)


def token_table(
    parts: Sequence[Arrays],
    places: Sequence[Place],
    encoded: Sequence[Encoded],
    tokenizer: Any,
    own: Mapping[str, re.Pattern[str]],
    labels: Sequence[str],
) -> pd.DataFrame:
    """A row per trained token; `places` are the demonstration and the position of each, in the order of the parts."""
    texts: dict[Place, tuple[str, str]] = {}
    names_of_special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False))
    for i in sorted({i for i, _ in places}):
        e = encoded[i]
        at = e.places
        found, special = pieces(e.ids, tokenizer), [names_of_special.get(token) for token in e.ids]
        kinds = of_pieces([found[t] for t in at], [special[t] for t in at], own)
        texts |= {(i, t): (found[t], kind) for t, kind in zip(at, kinds, strict=True)}
    table = pd.DataFrame(places, columns=["example", "position"])
    table["id"] = [encoded[i].ids[t] for i, t in places]
    table["text"], table["group"] = zip(*[texts[place] for place in places], strict=True)
    for name in ("u", "rank", "entropy"):
        table[name] = np.concatenate([part[name] for part in parts])
    wide = []
    for kind, name in (("trust", "trust"), ("push", "push"), ("in_simplex", "inside")):
        values = np.concatenate([part[name] for part in parts], axis=-1).T
        wide.append(pd.DataFrame(values, columns=_tables.columns(kind, labels)))
    return pd.concat([table, *wide], axis=1).sort_values(["example", "position"], ignore_index=True)


def group_patience(
    tokens: pd.DataFrame, methods: Sequence[QMap], models: Models, encoded: Sequence[Encoded]
) -> dict[str, np.ndarray]:
    """Every method's patience at the median token of every group, relative to SFT's."""
    found = {}
    for group, rows in tokens.groupby("group", sort=False):
        middle = rows.sort_values(["u", "example", "position"]).iloc[(len(rows) - 1) // 2]
        i, t = int(middle["example"]), int(middle["position"])
        e = encoded[i]
        values, _, _ = next(logits(models, [e.alone(t)]))
        one = {name: value[0].cpu() for name, value in values.items()}
        took = _patience.times([get("sft"), *methods], one["model"], e.ids[t], contexts(one, models))
        found[str(group)] = took[1:] / took[0]
    return found
