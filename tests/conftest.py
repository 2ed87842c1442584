import re
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

WHOLLY_SLOW = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", re.M)

mpl.use("Agg")
torch.set_num_threads(1)  # tiny tensors: more threads only cost time
settings.register_profile("qunify", deadline=None, derandomize=True)
settings.load_profile("qunify")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the quick tier, files that are slow as a whole are not even imported: TRL alone takes ten seconds."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return WHOLLY_SLOW.search(collection_path.read_text(encoding="utf-8")) is not None or None
