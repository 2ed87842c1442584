"""`python -m analyses.studies.ten_settings TASK SIZE METHOD SEED`: one cell of the experiment, once more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd
import torch

from analyses.kit import runner
from analyses.studies.ten_settings import COLUMNS, SETTING, part, percentile_interval, resampled, right_shares
from analyses.studies.ten_settings.runs import FULL, METHODS, NAME, Choice, cell
from analyses.studies.ten_settings.tasks import TASKS


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one cell again, and print it beside its committed row and that one's 95 % interval over problems."""
    parser = argparse.ArgumentParser(prog="python -m analyses.studies.ten_settings", description=main.__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("size", choices=FULL.sizes)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("seed", type=int, choices=FULL.claim_seeds)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    committed = part(runner.read(NAME, runner.FIGURES), "cell")
    for column in (*SETTING, "method", "seed"):
        committed = committed[committed[column] == getattr(args, column)]
    if committed.empty:
        parser.error(f"{args.method}: expected a seed of a committed cell, got {args.seed}")
    parameter = committed["parameter"].fillna("").iloc[0]
    choice = Choice(args.method, committed["rate"].iloc[0], parameter, committed["value"].iloc[0])
    again = cell(FULL, args.task, args.size, choice, args.seed)
    low, high = percentile_interval(resampled(right_shares(committed)))
    print(pd.concat([committed, again], keys=["committed", "again"])[list(COLUMNS)].droplevel(1).to_string())
    print(f"Average@16: committed {low:.3f} to {high:.3f}, again {again['average'].iloc[0]:.3f}")


if __name__ == "__main__":
    main()
