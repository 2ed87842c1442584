import os
import re
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

WHOLLY_SLOW = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", re.M)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the programs that tests start: the other core has a test of its own
mpl.use("Agg")
settings.register_profile("qunify", deadline=None, derandomize=True)
settings.load_profile("qunify")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the quick tier, files that are slow as a whole are not even imported: TRL alone takes ten seconds."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return WHOLLY_SLOW.search(collection_path.read_text(encoding="utf-8")) is not None or None


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Every file begins with one thread, as the runner of the studies does: the last digit of a sum depends on their
    number, and for tiny tensors more threads only cost time."""
    torch.set_num_threads(1)


torch.set_num_threads(1)  # also while files are collected, which compute a little
