#!/usr/bin/env bash
# datasets: from_list, from_generator and map drop a column that the first row does not have, and nobody says so.
#
# Guess    Rows that lack a column get None, as in pandas and as concatenate_datasets does; or it is an error.
# Truth    The first row alone says which columns there are. A `weight`, `tools` or `teacher` that begins later is not
#          there in the dataset: 999 of 1,000 weights are lost. The same of what the function given to map returns. The
#          other way round, a column that only the first row has, later rows get None; inside a list of messages every
#          key counts, whichever message has it; and an IterableDataset keeps the rows as they are.
# Source   datasets 5.2.0: from_list takes `mapping[0]`'s keys, the writers of from_generator and map those of the first
#          example.
# Instead  Give every row the same columns, or pass the features.
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
import tempfile
from importlib.metadata import version

from datasets import Dataset, IterableDataset, concatenate_datasets

print("datasets", version("datasets"))
LATE = [{"text": f"row {i}"} | ({"weight": 0.5} if i else {}) for i in range(1000)]
EARLY = [{"text": f"row {i}"} | ({} if i else {"weight": 0.5}) for i in range(3)]


def made(rows):
    with tempfile.TemporaryDirectory() as cache:
        return Dataset.from_generator(lambda: iter(rows), cache_dir=cache)[:]


texts = Dataset.from_list([{"text": row["text"]} for row in LATE])
found = {
    "from_list": Dataset.from_list(LATE)[:],
    "from_generator": made(LATE),
    "map": texts.map(lambda row, i: {"weight": 0.5} if i else {}, with_indices=True)[:],
    "concatenate_datasets": concatenate_datasets([Dataset.from_list(LATE[:1]), Dataset.from_list(LATE[1:])])[:],
    "IterableDataset": {"weight": [row.get("weight") for row in IterableDataset.from_generator(lambda: iter(LATE))]},
}
kept = {}
for name, columns in found.items():
    kept[name] = sum(weight is not None for weight in columns.get("weight", []))
    print(f"{name:21} {kept[name]:3} of 999 weights")
early = Dataset.from_list(EARLY)[:]["weight"]
messages = Dataset.from_list([{"messages": [{"role": "user"}, {"role": "assistant", "weight": 0}]}])[0]["messages"]
print("weight in the first row alone:", early)
print("messages:", messages)
holds = [*kept.values()] == [0, 0, 0, 999, 999] and early == [0.5, None, None] and messages[0]["weight"] is None
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
