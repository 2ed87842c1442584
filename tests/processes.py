"""One optimizer step by each of a few methods, in as many processes as there are, an audit,
and the gradients of sharded parameters: `python -m tests.processes OUT`, under torchrun for more than one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import PartialState
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

import qunify as qu
from qunify import audit
from qunify.audit import _pass, _processes
from tests import small_llama, trainers

BATCH = 8  # their labels are of unequal number, so that a mean over processes of means would be wrong
KINDS = ("dft", "target_sft", "iw_sft")
WEIGHTS = [0.5 + i for i in range(len(trainers.TEXTS))]


def step(kind: str, out: Path) -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    settings = {"per_device_train_batch_size": BATCH // world} | ({"ddp_backend": "gloo"} if world > 1 else {})
    options = {
        "target_sft": lambda: {"teacher_model": trainers.model(seed=1)},
        "iw_sft": lambda: {"train_dataset": trainers.dataset(text=trainers.TEXTS, weight=WEIGHTS)},
    }.get(kind, dict)
    trainer = trainers.train(out / "run", method=kind, settings=settings, **options())
    if PartialState().is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_file(
            {name: p.detach().clone() for name, p in model.named_parameters()}, out / f"{kind}-{world}.safetensors"
        )
        assert torch.distributed.is_initialized() == (world > 1)
        trainer.log({})  # one process alone may


def sharded(out: Path) -> None:
    """The gradients of a model whose parameters are divided among the processes."""
    from torch.distributed.fsdp import fully_shard

    from qunify.hf._objective import add_objective

    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = small_llama.model().double()
    add_objective(model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    ids, labels = (x[rank * BATCH // world : (rank + 1) * BATCH // world] for x in batch())
    model(input_ids=ids, objective=lambda hidden, head: (dft(hidden, head.weight, labels, world), None))[0].backward()
    found = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    if rank == 0:
        save_file(found, out / "sharded.safetensors")


def adapter(out: Path) -> None:
    """The gradients of an adapter, where the head, which does not train, is sharded alone."""
    from torch.distributed.fsdp import fully_shard

    from qunify.hf._objective import add_objective

    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = adapted()
    add_objective(model)
    for module in (*model.get_base_model().model.layers, model.get_output_embeddings(), model):
        fully_shard(module)
    ids, labels = (x[rank * BATCH // world : (rank + 1) * BATCH // world] for x in batch())
    model(input_ids=ids, objective=lambda hidden, head: (dft(hidden, head.weight, labels, world), None))[0].backward()
    found = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.requires_grad}
    if rank == 0:
        save_file(found, out / "adapter.safetensors")


def audited(out: Path) -> None:
    """The tables of an audit, and how many of its batches each process has had."""
    rows = [{"prompt": "the cat sees", "completion": text} for text in trainers.TEXTS]
    how: dict[str, Any] = {"batch_tokens": 40, "influence": True, "keep": out / "kept"}
    with mock.patch.object(_pass, "_asked", wraps=_pass._asked) as asked:
        found = audit.run(small_llama.model(), rows, trainers.TOKENIZER, ["sft", "dft", "mile"], **how)
    shares = _processes.gathered(asked.call_count)
    if audit.is_main_process():
        found.save(out / f"audit-{len(shares)}")
        (out / f"audit-{len(shares)}" / "shares.json").write_text(json.dumps(shares))


def adapted() -> Any:
    torch.manual_seed(3)
    config = LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    return get_peft_model(trainers.model(), config).double()


def dft(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, world: int = 1) -> torch.Tensor:
    items = (batch()[1][:, 1:] != -100).sum() / world  # gradients are averaged over processes
    return qu.linear_loss(hidden[:, :-1], weight, labels[:, 1:], "dft", num_items_in_batch=items)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (8, 12), more of them ignored in the later rows."""
    r = torch.Generator().manual_seed(0)
    ids = torch.randint(96, (BATCH, 12), generator=r)
    labels = ids.clone()
    for i in range(BATCH):
        labels[i, : i + 1] = -100
    return ids, labels


def main(out: Path) -> None:
    audited(out)
    for kind in KINDS:
        step(kind, out)
    if torch.distributed.is_initialized():
        sharded(out)
        adapter(out)
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
