#!/usr/bin/env bash
# datasets: in a jsonl, answers that are all dates come back as datetime; declared strings, as "2024-01-31 00:00:00".
#
# Guess    JSON has no dates: what stands in quotes is text, and Features with Value("string") make sure of it.
# Truth    Where every completion of a block looks like 2024-01-31 or 2024-01-31 10:30, the column becomes timestamp[s],
#          and the answer is datetime.datetime(2024, 1, 31, 0, 0). With the features stated it is turned back into
#          another text than was written, "2024-01-31 00:00:00", without a word: a model learns to add the hour. One
#          answer that is no date keeps the column as it is if it stands in the first block of some 10 MB, and stops
#          the loading if it comes later. "007" stays as it is, and so do dates in messages beside a question in words.
# Source   datasets 5.2.0 with pyarrow 26.0.1, whose JSON reader infers timestamps.
# Instead  Dataset.from_list of the lines, each read by json.loads.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6
fi
HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 PYTHONWARNINGS=ignore "$python" - 2>/dev/null <<'END'
import json
import tempfile
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset, Features, Value, load_dataset

print("datasets", version("datasets"), "pyarrow", version("pyarrow"))
folder = Path(tempfile.mkdtemp())
DATES = [{"prompt": f"When did it start? {i}", "completion": f"2024-01-{i % 28 + 1:02d}"} for i in range(200_000)]
UNKNOWN = {"prompt": "When did it start?", "completion": "unknown"}
TEXT = Features({"prompt": Value("string"), "completion": Value("string")})


def loaded(name, rows, **given):
    """What the first answer has become, or the error."""
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    try:
        found = load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder / name), **given)
    except Exception as error:
        print(f"{name:18} {type(error).__name__}: {error.__cause__}")
        return None
    first = found[0]
    value = first["completion"] if "completion" in first else first["messages"][1]["content"]
    print(f"{name:18} {value!r}")
    return value


ROLES = {"prompt": "user", "completion": "assistant"}
messages = [{"messages": [{"role": ROLES[k], "content": text} for k, text in row.items()]} for row in DATES[:100]]
dates = loaded("dates", DATES[:100])
early, late = loaded("unknown at once", [*DATES[:100], UNKNOWN]), loaded("unknown later", [*DATES, UNKNOWN])
inside, stated = loaded("in messages", messages), loaded("features stated", DATES[:100], features=TEXT)
numbers = loaded("numbers", [{"prompt": "q", "completion": "007"}] * 100)
again = Dataset.from_list([json.loads(line) for line in (folder / "dates.jsonl").read_text().splitlines()])
print(f"{'read by json.loads':18} {again[0]['completion']!r}")
holds = dates == datetime(2024, 1, 1) and early == inside == again[0]["completion"] == "2024-01-01" and late is None
holds = holds and numbers == "007" and stated == "2024-01-01 00:00:00"
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
