"""`python -m analyses.studies.atlas [LIBRARY…]`: asks every library again, and says which verdicts changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pandas as pd

from analyses.kit import findings
from analyses.studies.atlas import environments, words
from analyses.studies.atlas.shipped import LIBRARIES, Library

#: What is said of a loss, and must come out again.
VERDICT = ("found", "level", "factor", "share", "normaliser", "ignored", "none_kept")


def changes(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[str]:
    """A sentence for every loss of one library of which something else is said than before."""
    then, now = (_by_loss(table) for table in (before, after))
    for loss in dict.fromkeys((*then, *now)):
        row = now.get(loss) or then[loss]
        what = f"{row['library']} {row['library_version']}: {' '.join(filter(None, loss))}"
        if loss not in now:
            yield f"{what}: in the committed rows, and not among its losses"
        elif loss not in then:
            yield f"{what}: not in the committed rows"
        else:
            for column in VERDICT:
                if str(then[loss][column]) != str(now[loss][column]):
                    yield f"{what}: {column}: before {then[loss][column]!r}, after {now[loss][column]!r}"


def _by_loss(table: pd.DataFrame) -> dict[tuple[str, str], words.Row]:
    plain = table.map(lambda x: f"{x:g}" if isinstance(x, float) and x == x else x)  # a file's 1.0 is 1
    rows = plain.astype(object).fillna("").astype(str).to_dict("records")
    return {(row["where"], row["setting"]): row for row in rows}


def checked(library: Library, committed: pd.DataFrame) -> list[str]:
    """What is wrong with the committed rows of a library, in sentences."""
    rows = committed[committed["library"] == library.name]
    if not len(rows):
        return [f"{library.name}: no committed rows; `python -m analyses atlas --full` writes them"]
    try:
        environments.build(library)
        environments.check(library, rows["library_version"].iloc[0])
        return list(changes(rows, environments.ask(library)))
    except RuntimeError as problem:
        return [str(problem)]


def main(names: Sequence[str]) -> int:
    """1 where a verdict changed or a library could not be asked, 2 for a name that is none, 0 otherwise."""
    if unknown := [name for name in names if name not in LIBRARIES]:
        print(f"unknown library {unknown[0]!r}, expected one of {', '.join(sorted(LIBRARIES))}", file=sys.stderr)
        return 2
    committed, wrong = findings.committed("atlas"), []
    for _, library in sorted(LIBRARIES.items()):
        if not names or library.name in names:
            said = checked(library, committed)
            print("\n".join([f"✗ {line}" for line in said] or [f"✓ {library.name}"]), flush=True)
            wrong += said
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
