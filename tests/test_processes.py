"""Two processes give the gradients of one, under DDP by Accelerate and with sharded parameters, and its audit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

pytest.importorskip("trl")

from safetensors.torch import load_file

import qunify as qu
from qunify import audit
from tests import processes, small_llama

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process, this one, and two others have written."""
    out = tmp_path_factory.mktemp("processes")
    processes.main(out)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *TWO, "-m", "tests.processes", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("kind", processes.KINDS)
def test_ddp_takes_the_step_of_one_process(kind: str, out: Path) -> None:
    one, two = (load_file(out / f"{kind}-{world}.safetensors") for world in (1, 2))
    assert one.keys() == two.keys()
    begun = dict(small_llama.model().double().named_parameters())
    for name, parameter in one.items():
        torch.testing.assert_close(two[name], parameter, rtol=1e-9, atol=1e-12)
        assert not torch.equal(parameter, begun[name])


def test_an_audit_in_two_processes_is_that_of_one(out: Path) -> None:
    one, two = (audit.load(out / f"audit-{world}") for world in (1, 2))
    for table in ("tokens", "methods", "groups", "examples"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(two, table), rtol=1e-6)
    shares = [json.loads((out / f"audit-{world}" / "shares.json").read_text()) for world in (1, 2)]
    assert sum(shares[1]) == shares[0][0] > 2
    assert max(shares[1]) - min(shares[1]) <= 1
    assert not any((out / "kept").glob("*"))


def test_sharded_parameters_have_the_gradients_of_whole_ones(out: Path) -> None:
    found = load_file(out / "sharded.safetensors")
    model = small_llama.model().double()
    ids, labels = processes.batch()
    qu.loss("dft")(model(input_ids=ids).logits[:, :-1], labels[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)


def test_a_frozen_head_in_parts_gives_an_adapter_the_gradients_of_a_whole_one(out: Path) -> None:
    found = load_file(out / "adapter.safetensors")
    model, (ids, labels) = processes.adapted(), processes.batch()
    qu.loss("dft")(model(input_ids=ids).logits[:, :-1], labels[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)
