from collections.abc import Iterator

import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

mpl.use("Agg")
torch.set_num_threads(1)  # tiny tensors: more threads only cost time
settings.register_profile("qunify", deadline=None, derandomize=True)
settings.load_profile("qunify")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As the runner does: the networks are too small to share, and two threads take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
