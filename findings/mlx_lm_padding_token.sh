#!/usr/bin/env bash
# mlx-lm trains one padding token per row.
#
# Guess    Padding is masked: a row of n tokens has n - 1 labels.
# Truth    A row of n tokens has n labels: the last one is the padding after it, token 0 (`!` in GPT-2's and Qwen's
#          vocabularies), which the model learns to say after its end of turn. Only rows cut at the maximum length
#          escape. Of two rows with 4 and 6 tokens 10 labels count, not 8, and the logged loss and tokens with them.
# Source   mlx-lm 0.32.2, mlx_lm/tuner/trainer.py, iterate_batches and default_loss: the mask is steps <= length, over
#          targets already shifted.
# Instead  A loss of your own with steps < length, given to train(loss=...).
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet mlx-lm==0.32.2 mlx[cpu]==0.32.4 numpy==2.4.6
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version

import mlx.core as mx
from mlx_lm.tuner.trainer import default_loss, iterate_batches

mx.set_default_device(mx.cpu)
print("mlx-lm", version("mlx-lm"), "mlx", version("mlx"))
V, RIGHT, WRONG = 16, 20.0, 0.0
rows = [[5, 6, 7, 8], [5, 6, 7, 8, 9, 10]]


class Oracle:
    """Says the next token, and 3 after the last: any label but those of the rows costs 20 nats."""

    def __call__(self, inputs):
        follow = mx.where(mx.array([[len(r) - 1 > t for t in range(inputs.shape[1])] for r in rows]), inputs + 1, 3)
        return RIGHT * (follow[..., None] == mx.arange(V)).astype(mx.float32) + WRONG


batch, lengths = next(iterate_batches([(row, 0) for row in rows], 2, 64))
loss, tokens = default_loss(Oracle(), batch, lengths)
labels = sum(len(row) - 1 for row in rows)
print("rows of", *(len(row) for row in rows), "tokens; padded to", batch.shape[1])
print(f"labels: {labels}; counted: {tokens.item()}")
print(f"mean loss of a model that knows every token of the rows: {loss.item():.3f} (2 of 10 labels cost 20 nats)")
holds = tokens.item() == labels + len(rows) and abs(loss.item() - 2 * 20 / 10) < 1e-3
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
