#!/usr/bin/env bash
# transformers: one answer cut on the left empties the assistant mask of the whole conversation.
#
# Guess    truncation_side="left" keeps the end of a long chat, and return_assistant_tokens_mask marks the answers in
#          what is kept: the last one at least.
# Truth    The mask is made span by span, and stops at the first whose beginning lies outside. Cut on the right, that
#          is the end of the text; cut on the left, it is the first answer, so that as soon as this loses its first
#          token no later answer is marked, though whole. Every label is -100 then: such a chat trains nothing, or
#          makes a mean over no labels, NaN. Only the long chats are hit.
# Source   transformers 5.23.0, tokenization_utils_base.py, apply_chat_template: `if start_token is None: break`.
#          5.24.0 marks what is left of each answer.
# Instead  transformers 5.24.0; before it, drop whole turns before the template is applied, or ask for the mask
#          without truncation and cut ids and mask together.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet transformers==5.23.0 jinja2==3.1.6
fi
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 "$python" - <<'END'
from importlib.metadata import version

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

print("transformers", version("transformers"))
words = ["<unk>", "</s>", "<user>", "<assistant>", "is", "it", "red", "no", "blue", "then", "what", "a", "bird"]
vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, unk_token="<unk>", eos_token="</s>")
tokenizer.chat_template = (
    "{% for m in messages %}<{{ m.role }}> {% if m.role == 'assistant' %}{% generation %}{{ m.content }} </s>"
    "{% endgeneration %}{% else %}{{ m.content }} </s>{% endif %} {% endfor %}"
)
said = "is it red", "no blue", "what is it then", "a blue bird"
chat = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, said, strict=True)]
whole = len(tokenizer.apply_chat_template(chat)["input_ids"])


def marked(side, length):
    tokenizer.truncation_side = side
    cut = {"truncation": True, "max_length": length}
    out = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True, **cut)
    tokens = tokenizer.convert_ids_to_tokens(out["input_ids"])
    return " ".join(tokens), " ".join(t for t, on in zip(tokens, out["assistant_masks"], strict=True) if on)


seen = {}
for side, length in (("right", whole), ("right", whole - 4), ("left", whole - 6), ("left", whole - 7), ("left", 8)):
    kept, seen[side, length] = marked(side, length)
    print(f"{side:5} {length:2} of {whole}: {kept}")
    print(f"{'':15}marked: {seen[side, length] or 'nothing'}")
holds = seen["right", whole] == seen["left", whole - 6] == "no blue </s> a blue bird </s>"
holds = holds and seen["right", whole - 4] == "no blue </s>" and seen["left", whole - 7] == seen["left", 8] == ""
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
