#!/usr/bin/env bash
# datasets: to_json keeps ten decimals and no infinity: log-probabilities of sure tokens are -0.0, masked ones null.
#
# Guess    A file of JSON lines gives back the numbers that were written, as json.dumps does with 17 digits.
# Truth    Dataset.to_json writes through pandas, with ten decimals, not ten digits: a token's probability of 3e-11 is
#          0.0, a log-probability of -1.2e-12 is -0.0, 0.12345678901234 loses its last five digits, and -inf and NaN
#          are both null, which come back as None. to_parquet keeps every bit. Recorded log-probabilities, importance
#          weights and teachers' answers pass through such files; exp(None) is an error, but log(0.0) is -inf.
# Source   datasets 5.2.0 with pandas 3.1.1: io/json.py hands over to DataFrame.to_json (double_precision=10).
# Instead  to_parquet, or to_json(..., double_precision=15), which still makes -inf null.
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
import json
import math
import tempfile
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset

print("datasets", version("datasets"), "pandas", version("pandas"))
folder = Path(tempfile.mkdtemp())
GIVEN = [3e-11, -1.2e-12, 0.12345678901234, -math.inf]
data = Dataset.from_list([{"x": GIVEN}])


def read(file):
    return json.loads(file.read_text())["x"]


data.to_json(folder / "plain.jsonl")
data.to_json(folder / "digits.jsonl", double_precision=15)
data.to_parquet(folder / "x.parquet")
plain, digits = read(folder / "plain.jsonl"), read(folder / "digits.jsonl")
columns = Dataset.from_parquet(str(folder / "x.parquet"), cache_dir=str(folder / "cache"))[0]["x"]
for name, found in {"given": GIVEN, "to_json": plain, "double_precision=15": digits, "to_parquet": columns}.items():
    print(f"{name:20} {found}")
holds = plain == [0.0, 0.0, 0.123456789, None] and digits == [*GIVEN[:3], None] and columns == GIVEN
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
