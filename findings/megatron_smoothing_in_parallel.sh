#!/usr/bin/env bash
# megatron-core's label smoothing under tensor parallelism: every rank has a loss of its own.
#
# Guess    vocab_parallel_cross_entropy gives the cross-entropy over the whole vocabulary, on every rank the same,
#          whether or not label_smoothing is set: that is what it is for.
# Truth    The smoothing part is taken over the rank's own share of the vocabulary, with its own V and its own mean of
#          log p, and is not reduced. On one rank the loss is 1.5069 (smoothing over the V - 1 other tokens); on two
#          it is 1.3402 and 1.7402, and the gradient over the whole vocabulary sums to -0.2 instead of 0.
# Source   megatron-core 0.16.1, megatron/core/tensor_parallel/cross_entropy.py, _VocabParallelCrossEntropy.forward.
# Instead  No label smoothing with tensor parallelism there.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet megatron-core==0.16.1 torch==2.13.0 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
import tempfile
from importlib.metadata import version

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, ranks, meeting, results):
    dist.init_process_group("gloo", init_method=f"file://{meeting}/{ranks}", rank=rank, world_size=ranks)
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.cross_entropy import vocab_parallel_cross_entropy

    parallel_state.initialize_model_parallel(tensor_model_parallel_size=ranks)
    logits = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]])
    found = []
    for smoothing in (0.0, 0.1):
        own = logits.chunk(ranks, -1)[rank].clone().requires_grad_()
        loss = vocab_parallel_cross_entropy(own, torch.tensor([[1]]), label_smoothing=smoothing)
        loss.sum().backward()
        found.append((loss.item(), own.grad.sum().item()))
    results.put((rank, found))
    dist.barrier()
    dist.destroy_process_group()


print("megatron-core", version("megatron-core"), "torch", version("torch"))
seen = {}
with tempfile.TemporaryDirectory() as meeting:
    for ranks in (1, 2):
        results = mp.get_context("fork").SimpleQueue()
        mp.start_processes(work, (ranks, meeting, results), nprocs=ranks, start_method="fork")
        found = [told for _, told in sorted(results.get() for _ in range(ranks))]
        for smoothing, parts in zip((0.0, 0.1), zip(*found, strict=True), strict=True):
            losses, total = [loss for loss, _ in parts], sum(g for _, g in parts)
            seen[ranks, smoothing] = losses, total
            print(f"{ranks} rank(s), smoothing {smoothing}: loss", *(f"{v:.4f}" for v in losses), end="; ")
            print(f"gradient sums to {total:.3f}")
holds = abs(seen[2, 0.0][0][0] - seen[2, 0.0][0][1]) < 1e-6 and abs(seen[1, 0.1][1]) < 1e-6
holds = holds and abs(seen[2, 0.1][0][0] - seen[2, 0.1][0][1]) > 0.3 and abs(seen[2, 0.1][1] + 0.2) < 1e-5
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
