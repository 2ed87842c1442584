#!/usr/bin/env bash
# transformers' Trainer multiplies a router loss by the accumulation steps, and label smoothing takes it away.
#
# Guess    8 sequences at once, or 4 times 2, are one step: since the loss is divided by num_items_in_batch,
#          accumulation is exact.
# Truth    That division is of the cross-entropy alone. The load-balancing loss is a mean over each micro-batch, added
#          after it, and Trainer no longer divides by the steps: 8 steps give 8 times the coefficient. Without
#          output_router_logits the three agree. And label_smoothing_factor, were it 1e-9, removes it, since the
#          labels then never reach the model. (TRL 1.16.0 divides it by the steps.)
# Source   transformers 5.23.0 (5.24.0 does the same), models/mixtral/modeling_mixtral.py, forward: loss +=
#          router_aux_loss_coef * aux_loss; trainer.py, compute_loss and training_step.
# Instead  router_aux_loss_coef divided by gradient_accumulation_steps, or TRL's SFTTrainer.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
import contextlib
import io
import tempfile
from importlib.metadata import version

import torch
from transformers import MixtralConfig, MixtralForCausalLM, Trainer, TrainingArguments, default_data_collator

print("transformers", version("transformers"), "accelerate", version("accelerate"))


def first_step(batch, steps, router, **more):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(
        vocab_size=96,
        num_key_value_heads=2,
        num_local_experts=4,
        initializer_range=0.3,
        pad_token_id=1,
        bos_token_id=None,
        eos_token_id=2,
        output_router_logits=router,
        router_aux_loss_coef=1.0,
        **size,
    )
    rows = torch.randint(3, 96, (8, 12), generator=torch.Generator().manual_seed(0)).tolist()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = TrainingArguments(
            folder,
            max_steps=1,
            learning_rate=0.0,
            logging_steps=1,
            per_device_train_batch_size=batch,
            use_cpu=True,
            gradient_accumulation_steps=steps,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **more,
        )
        trainer = Trainer(
            MixtralForCausalLM(config),
            settings,
            data_collator=default_data_collator,
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        )
        trainer.train()
    return next(log["loss"] for log in trainer.state.log_history if "loss" in log)


seen = {}
for router in (False, True):
    for batch, steps in ((8, 1), (4, 2), (1, 8)):
        seen[router, steps] = loss = first_step(batch, steps, router)
        print(f"router loss {'on ' if router else 'off'}  {steps} step(s) of {batch} sequences: loss {loss:.4f}")
aux = {steps: seen[True, steps] - seen[False, steps] for steps in (1, 2, 8)}
print("the router's part:", *(f"{aux[steps]:.2f} at {steps} step(s)" for steps in aux))
smoothed = first_step(8, 1, True, label_smoothing_factor=1e-9)
print(f"router loss on, label_smoothing_factor=1e-9: loss {smoothed:.4f}")
holds = max(abs(seen[False, s] - seen[False, 1]) for s in (2, 8)) < 1e-4 and abs(smoothed - seen[False, 1]) < 1e-4
holds = holds and 1.8 < aux[2] / aux[1] < 2.3 and 7 < aux[8] / aux[1] < 10
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
