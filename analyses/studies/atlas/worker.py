"""The rows of one library, in the process that has its folder first on the path.

`python -m analyses.studies.atlas.worker LIBRARY [WORDS]` prints them, of those losses alone whose place and setting
have WORDS in them; the folder is then for PYTHONPATH to say.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch

from analyses.studies.atlas import asking, libraries, stubs
from analyses.studies.atlas.environments import folder
from analyses.studies.atlas.shipped import LIBRARIES

assert libraries  # it enters them


def answer(name: str, only: str = "") -> list[dict[str, Any]]:
    """A row for each of a library's losses, or for those alone whose place and setting have `only` in them."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    library = LIBRARIES[name]
    stubs.install(library.stubs, library.bare, folder(library))
    losses = list(library.losses())
    stubs.close()
    return [asking.row(library, loss) for loss in losses if only in f"{loss.where} {loss.setting}"]


if __name__ == "__main__":
    print(json.dumps(answer(*sys.argv[1:])))
