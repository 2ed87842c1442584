"""Two processes take the step of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import qunify as qu
from tests.trainers import by_hand, examples, model


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [*launch, "-m", "tests.two_processes", str(tmp_path)], cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weight = [0.5 + i / 4 for i, (ids, _) in enumerate(examples()) for _ in ids[1:]]
    given = {"token_weight": torch.tensor(weight).double()}
    expected, _ = by_hand(model(), qu.get("iw_sft"), examples(), context=lambda *_: given)
    found = load_file(tmp_path / "weights.safetensors")
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
