"""A sweep: any number of small models, trained in stacks by several processes; the results of each stack are stored."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
from rich.progress import Progress
from torch import Tensor

import qunify
from qunify._lib import files
from qunify._lib.digests import digest
from qunify.maps import LossFunctionMap, QMap
from qunify.training._networks import Network
from qunify.training._stacks import Job, Stack

COLUMNS = {"method", "seed", "lr", "step", "diverged", "job"}

Measure = Callable[[Stack], Mapping[str, Tensor]]


def sweep(
    network: Network,
    jobs: Sequence[Job],
    steps: Sequence[int],
    measure: Measure,
    *,
    size: int = 128,
    folder: Path | str | None = None,
    key: str = "",
    workers: int | None = None,
    progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Train all jobs and measure them on the way.

    Parameters
    ----------
    network, jobs, **options
        As for `Stack`; learning rates and sizes of data may differ between jobs.
    steps : increasing integers from 0
        When to measure.
    measure : function of a Stack
        Gives a tensor (M,) by name: one number per model. The stack has `jobs`, `step` and `probs(inputs)`.
    size : int
        Models per stack.
    folder : path, optional
        Tables of finished stacks are stored there; a later call with the same jobs, data, options and key reads them in
        place of training. A file is complete or absent; one that was changed by another hand is made again.
    key : str
        Required with a folder: a name for the code that runs, such as a version of `measure`, of loss functions and of
        the functions of designed methods. Parts that were kept under another key are not used.
    workers : int, optional
        Processes. By default what `joblib.parallel_config` says, which also switches to Dask or Ray, else one.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    DataFrame
        A row per job and step, in their order: the job's tags, `method`, `seed`, `lr`, `step`, what was measured, and
        `diverged`, the step at which its gradient was no longer finite (−1: never).

    Raises
    ------
    ValueError
        If there is no job, `steps` does not increase from 0 on, a tag has the name of a column, `measure` does not
        give one number per model, the folder cannot be written to or has no key, what a part depends on cannot be
        told apart by its value (an object of the user's own, among parameters or data), or for what `Stack` refuses.
    """
    jobs = list(jobs)
    if not jobs:
        raise ValueError("sweep: jobs: expected at least one, got none")
    whole_numbers = all(isinstance(step, int) for step in steps)
    if not steps or not whole_numbers or steps[0] < 0 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"sweep: steps: expected increasing integers from 0 on, got {list(steps)}")
    if not (isinstance(size, int) and size >= 1):
        raise ValueError(f"sweep: size: expected an integer of at least 1, got {size!r}")
    for job in jobs:
        if taken := sorted(COLUMNS & set(job.tags)):
            raise ValueError(f"sweep: tags: expected names other than the table's own, got {', '.join(taken)}")
    parts = list(_parts(jobs, size))
    kept = None if folder is None else _prepared(Path(folder), key)
    tables: dict[int, pd.DataFrame] = {}
    missing = []
    for i, part in enumerate(parts):
        path = kept / f"{_digest(key, network, [jobs[k] for k in part], steps, options)}.json" if kept else None
        table = _read(path)
        if table is None:
            missing.append((i, path))
        else:
            tables[i] = table
    calls = (
        joblib.delayed(_train)(i, network, [jobs[k] for k in parts[i]], steps, measure, options) for i, _ in missing
    )
    paths = dict(missing)
    with Progress(disable=not progress) as bar:
        task = bar.add_task(f"{len(jobs)} models", total=len(parts), completed=len(tables))
        for i, table in joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(calls):
            tables[i] = table
            if path := paths[i]:
                _keep(path, table)
            bar.advance(task)
    numbered = [tables[i].assign(job=[part[k] for k in tables[i]["job"]]) for i, part in enumerate(parts)]
    table = pd.concat(numbered, ignore_index=True).sort_values(["job", "step"], ignore_index=True)
    facts = [{**job.tags, "method": job.method.name, "seed": job.seed, "lr": job.lr} for job in jobs]
    described = pd.DataFrame(facts).iloc[table["job"]].reset_index(drop=True)
    return pd.concat([described, table.drop(columns="job")], axis=1)


def _parts(jobs: Sequence[Job], size: int) -> Iterator[list[int]]:
    """The numbers of the jobs, divided into stacks of at most `size`; jobs of one method stay together."""
    stackable: dict[Any, list[int]] = {}  # by what the jobs of a stack have in common
    for i, job in enumerate(jobs):
        order = None if job.order is None else tuple(job.order.shape)
        stackable.setdefault((job.lr, len(job.data.labels), order), []).append(i)
    for group in stackable.values():
        first = {m: k for k, m in reversed(list(enumerate(jobs[i].method for i in group)))}
        ordered = sorted(group, key=lambda i, first=first: first[jobs[i].method])  # type: ignore[misc]
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _train(
    i: int, network: Network, jobs: Sequence[Job], steps: Sequence[int], measure: Measure, options: Mapping[str, Any]
) -> tuple[int, pd.DataFrame]:
    """Train and measure the stack of part i: i, and a row per job and step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processes share the cores, and small products are no faster on several
    try:
        stack = Stack(network, jobs, **options)
        tables = []
        for step in steps:
            stack.run(step - stack.step)
            values = _numbers(measure(stack), len(jobs))
            tables.append(pd.DataFrame({"job": range(len(jobs)), "step": step, **values}))
        return i, pd.concat(tables).assign(diverged=stack.diverged.tolist() * len(steps))
    finally:
        torch.set_num_threads(threads)


def _numbers(measured: Mapping[str, Tensor], models: int) -> dict[str, list[float]]:
    """The measured numbers as lists, one number per model; ValueError if they are anything else."""
    for name, value in measured.items():
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if got != (models,):
            raise ValueError(
                f"sweep: measure: expected a tensor ({models},) as {name!r}, one number per model, got {got}"
            )
        if name in COLUMNS:
            raise ValueError(f"sweep: measure: expected names other than the table's own, got {name!r}")
    return {name: value.tolist() for name, value in measured.items()}


def _prepared(folder: Path, key: str) -> Path:
    """The folder that keeps parts, before anything is trained for it."""
    if not key:
        raise ValueError("sweep: key: expected a name for the code whose parts the folder keeps, got none")
    try:
        return files.prepared(folder)
    except OSError as e:
        raise ValueError(f"sweep: folder: expected a folder that can be written to, got {folder}: {e}") from e


def _keep(path: Path, table: pd.DataFrame) -> None:
    text = json.dumps(table.to_dict(orient="list"))
    files.write(path, f"{_seal(text)}\n{text}".encode())


def _read(path: Path | None) -> pd.DataFrame | None:
    """The stored table of a part; None if there is none, or if it is not what was written."""
    if path is None or not path.exists():
        return None
    seal, _, text = path.read_bytes().decode(errors="replace").partition("\n")
    return pd.DataFrame(json.loads(text)) if seal == _seal(text) else None


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _function(m: QMap) -> Any:
    """The function that a loss function's name stands for; TypeError where others may have it, too, as those do that
    one function makes."""
    function = m.function if isinstance(m, LossFunctionMap) else None
    if inspect.isfunction(function) and not function.__qualname__.isidentifier():
        raise TypeError(f"the function {function.__qualname__}")
    return function


def _digest(key: str, network: Network, jobs: Sequence[Job], steps: Sequence[int], options: Mapping[str, Any]) -> str:
    """A name for the table of a part: a hash of all that it depends on, with `key` in place of functions' code."""
    order = {id(job.data): i for i, job in reversed(list(enumerate(jobs)))}  # the first job with the data
    told: list[tuple[Any, ...]] = []
    try:
        for i, job in enumerate(jobs):
            first, m = order[id(job.data)], job.method
            told.append((type(m), m.name, m.params, _function(m), job.seed, job.lr, job.start, job.order))
            told.append((first, job.data if first == i else None))
        return digest((key, qunify.__version__, network, list(steps), options, told))
    except TypeError as error:
        raise ValueError(
            "sweep: folder: expected networks, parameters, data and options made of numbers, texts, arrays and "
            "dataclasses, QMaps such as qunify.design makes, and loss functions by a name of their own, got "
            f"{error}, of which two cannot be told apart"
        ) from None
