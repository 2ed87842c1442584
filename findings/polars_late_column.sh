#!/usr/bin/env bash
# polars: a column that begins after the hundredth line of a jsonl, say `weight`, is not there, and nobody says so.
#
# Guess    A key that not every line has is null where it is missing: as in pandas and pyarrow; or it is an error, as
#          in DuckDB, which names the line and the key.
# Truth    read_ndjson and scan_ndjson look at the first 100 lines and leave every later key out without a word: the
#          weights of the demonstrations at the end are gone, and written back they are gone for good.
# Source   polars 2.1.0, infer_schema_length=100; DuckDB 2.0.1, pandas 3.1.1, pyarrow 26.0.1.
# Instead  infer_schema_length=None, or the schema.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet polars==2.1.0 duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
fi
"$python" - <<'END'
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow.json

print(*(f"{name} {version(name)}" for name in ("polars", "duckdb", "pandas", "pyarrow")))
file = str(Path(tempfile.mkdtemp()) / "demonstrations.jsonl")
rows = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(30_000)]
rows += [{**row, "weight": 0.5} for row in rows[:1000]]
Path(file).write_text("\n".join(map(json.dumps, rows)))
READERS = {
    "polars.read_ndjson": lambda: polars.read_ndjson(file).columns,
    "polars.scan_ndjson": lambda: polars.scan_ndjson(file).collect().columns,
    "polars, whole file": lambda: polars.read_ndjson(file, infer_schema_length=None).columns,
    "pandas.read_json": lambda: list(pandas.read_json(file, lines=True)),
    "pyarrow.json": lambda: pyarrow.json.read_json(file).column_names,
    "duckdb": lambda: list(duckdb.sql(f"select * from '{file}'").fetchnumpy()),
}
found = {}
for name, read in READERS.items():
    try:
        columns = read()
        found[name] = "weight" in columns
        print(f"{name:19} {', '.join(columns)}")
    except duckdb.InvalidInputException as error:
        found[name] = "raised"
        print(f"{name:19} {str(error).splitlines()[0].replace(file, 'FILE')[:120]}")
holds = list(found.values()) == [False, False, True, True, True, "raised"]
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
