"""One of several processes that train together; the first saves the weights. Run by test_hf_processes.py."""

from __future__ import annotations

import sys

from safetensors.torch import save_file

from tests import trainers


def main(out: str) -> None:
    weight = [0.5 + i / 4 for i in range(len(trainers.TEXTS))]
    trainer = trainers.train(
        out,
        method="iw_sft",
        train_dataset=trainers.dataset(text=trainers.TEXTS, weight=weight),
        settings={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "ddp_backend": "gloo"},
    )
    if trainer.accelerator.is_main_process:
        assert trainer.accelerator.num_processes == 2
        save_file(dict(trainer.model.state_dict()), f"{out}/weights.safetensors")
        (count,) = trainers.logged(trainer, "num_tokens")
        assert count == sum(len(ids) for ids, _ in trainers.examples())


if __name__ == "__main__":
    main(sys.argv[1])
