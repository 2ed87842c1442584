#!/usr/bin/env bash
# TRL's assistant_only_loss trains more than the answer and its end, and what depends on the model family.
#
# Guess    assistant_only_loss is the loss on what the model generates: the answer and its end of turn.
# Truth    Of the 31 training templates that TRL puts in the place of a model's own, 15 train something before the
#          answer: what the generation prompt supplies (`<|Assistant|>` of DeepSeek, `<|start|>assistant` of GPT-OSS,
#          the line break of Qwen2.5, though not of Qwen2.5-VL), or an empty `<think>` block, by which a model that
#          reasons learns not to (Qwen3, Nemotron 3, GLM 4). 20 train the line break after the end of turn, where
#          generation has stopped. Such tokens are nearly certain, so that the logged loss depends on the family, most
#          of all for short answers.
# Source   trl 1.16.0, trl/chat_templates/*_training.jinja, applied by chat_template_utils.get_training_chat_template.
# Instead  Look at the masks of one example, or set the labels of those tokens to -100 in the data.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
from importlib.metadata import version
from pathlib import Path

import trl
from jinja2.exceptions import UndefinedError
from transformers.utils.chat_template_utils import render_jinja_template

print("trl", version("trl"), "transformers", version("transformers"))
ANSWER = "Yes."
chat = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": ANSWER}]
parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in chat]


def trained(template):
    """The text that is trained, of a chat whose answer is `Yes.`"""
    settings = {"return_assistant_tokens_mask": True, "bos_token": "<bos>", "eos_token": "<eos>"}
    for messages in (chat, parts):  # templates of vision models want a list of parts
        try:
            (text,), (spans,) = render_jinja_template([messages], chat_template=template, **settings)
        except UndefinedError:
            continue
        found = "".join(text[a:b] for a, b in spans)
        if ANSWER in found:
            return found
    raise SystemExit("No longer as stated: a template leaves the answer out.")


folder = Path(trl.__file__).parent / "chat_templates"
seen = {
    path.name.removesuffix("_training.jinja"): trained(path.read_text()) for path in folder.glob("*_training.jinja")
}
before = {name: text.split(ANSWER)[0] for name, text in sorted(seen.items())}
headed = {name: text for name, text in before.items() if text.strip(" ")}
trailing = [name for name, text in seen.items() if text.endswith("\n")]
for name, text in headed.items():
    print(f"{name:24} trains before the answer: {text!r}")
print(f"of {len(seen)} templates, {len(headed)} train something before the answer,", end=" ")
print(f"{len(trailing)} a line break after its end")
holds = "Assistant" in before["deepseekv3"] and before["gptoss"].startswith("<|start|>assistant")
holds = holds and before["qwen2_5"] == "\n" and before["qwen2_5_vl"] == "" and "</think>" in before["qwen3"]
holds = holds and "gemma3" in trailing and "llama3" not in trailing and before["llama3"] == ""
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
