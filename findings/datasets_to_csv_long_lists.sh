#!/usr/bin/env bash
# datasets: to_csv of a list of more than a thousand numbers writes six of them and three dots.
#
# Guess    A list in a cell is written as JSON, or as Python writes it, or refused.
# Truth    It is numpy's text of an array: "[0. 0.1 0.2]", no commas, eight digits, line breaks at 75 letters; and
#          of a list longer than 1,000 the first three and the last three, with "..." between them. 1,200 token
#          weights, ids or log-probabilities are 6 afterwards, and neither the writer nor load_dataset("csv") says so.
#          Messages become numpy's text of dictionaries, which no JSON reader takes.
# Source   datasets 5.2.0 with pandas 3.1.1 and numpy 2.4.6: io/csv.py writes the batch by DataFrame.to_csv, and a
#          nested column is an array of arrays there.
# Instead  to_parquet; or json.dumps of the column before it is written.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
fi
HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 PYTHONWARNINGS=ignore "$python" - 2>/dev/null <<'END'
import csv
import tempfile
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset

print("datasets", version("datasets"), "pandas", version("pandas"), "numpy", version("numpy"))
folder = Path(tempfile.mkdtemp())


def written(values):
    """The cell that a list becomes."""
    Dataset.from_list([{"x": values}]).to_csv(folder / "x.csv")
    with (folder / "x.csv").open(newline="") as file:
        return [*csv.reader(file)][1][0]


holds = True
for length in (3, 1000, 1001, 1200):
    cell = written([i / 8 for i in range(length)])
    numbers = [part for part in cell.strip("[]").split() if part != "..."]
    print(f"{length:5} numbers: {len(numbers)} in the file{', and ...' if '...' in cell else ''}")
    holds &= len(numbers) == (length if length <= 1000 else 6) and ("..." in cell) == (length > 1000)
digits, messages = written([1 / 3, 2 / 3]), written([{"role": "user"}, {"role": "assistant"}])
print(digits, messages, sep="\n")
holds &= digits == "[0.33333333 0.66666667]" and messages == "[{'role': 'user'} {'role': 'assistant'}]"
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
