#!/usr/bin/env bash
# mlx_lm.server: with `top_logprobs`, an entry of `logprobs.content` is not about the token that was generated.
#
# Guess    As in OpenAI's format, an entry has the token that was generated and its log-probability, and in
#          `top_logprobs` the likeliest, most likely first.
# Truth    The list is in no order, and the entry is a copy of its first: some token among the likeliest. Nothing says
#          which was generated. At temperature 0, where it is the likeliest, twenty of twenty entries name another.
#          Without `top_logprobs` the entries are right, and have neither text nor alternatives.
# Source   mlx-lm 0.32.2, mlx_lm/server.py: _format_top_logprobs takes argpartition for a sort, and generate_response
#          writes dict(i[0], top_logprobs=i).
# Instead  Ask twice at temperature 0, with `top_logprobs` and without, and lay them side by side.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet mlx-lm==0.32.2 mlx[cpu]==0.32.4
fi
PYTHONWARNINGS=ignore "$python" - <<'END'
from importlib.metadata import version
from types import SimpleNamespace

import mlx.core as mx
from mlx_lm.server import APIHandler, _format_top_logprobs

mx.set_default_device(mx.cpu)
print("mlx-lm", version("mlx-lm"), "mlx", version("mlx"))
mx.random.seed(0)
logits = 3 * mx.random.normal((20, 1000))  # of twenty tokens, one after the other
log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
generated = mx.argmax(log_p, axis=-1).tolist()
texts = SimpleNamespace(convert_ids_to_tokens=lambda ids: [f"t{i}" for i in ids])
asked = SimpleNamespace(
    request_id="1", system_fingerprint="", object_type="chat.completion", requested_model="m", created=0, stream=False
)
body = APIHandler.generate_response(
    asked, "text", "length", 1, len(generated), tokens=generated,
    token_logprobs=[row[i].item() for row, i in zip(log_p, generated)],
    top_tokens=[_format_top_logprobs(row, 5, texts) for row in log_p],
)  # fmt: skip
entries = body["choices"][0]["logprobs"]["content"]
for token, entry in list(zip(generated, entries))[:3]:
    listed = [(x["id"], round(x["logprob"], 2)) for x in entry["top_logprobs"]]
    print("generated", token, "entry of", entry["id"], "alternatives", listed)
others = sum(entry["id"] != token for token, entry in zip(generated, entries))
print(f"entries of a token that was not generated: {others} of {len(entries)}")
holds = others > 0
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
