#!/usr/bin/env bash
# One chat template in Python and in JavaScript: the tool call with True, None and 1.0 of training is another at use.
#
# Guess    A template is a template: transformers and transformers.js make the same prompt of it, byte for byte, but for
#          filters that one of them lacks, which raise.
# Truth    Arguments of a tool call that a template prints as they are ("{{ value }}", as templates with one tag per
#          argument do) come out as True, None and 1.0 in Python and as true, nothing and 1 in JavaScript; 1.0 is 1
#          under tojson, too. Keys that are numbers change their order, "1" == 1 is true, -7 % 3 is -1, and capitalize
#          leaves capitals as they are. Nothing raises. minijinja 3.1.0, in Rust, agrees with Python. A model that was
#          tuned with Python is asked, in a browser, in tokens that it has not seen.
# Source   transformers 5.23.0 with jinja2 3.1.6; @huggingface/jinja 0.5.11, the one of transformers.js.
# Instead  Give arguments as text that json.dumps has made, in training and at use; compare both renderings once.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-$folder/bin/python}
if [ -z "${FINDINGS_PYTHON:-}" ]; then
  python3 -m venv "$folder"
  "$python" -m pip install --quiet transformers==5.23.0 jinja2==3.1.6 tokenizers==0.23.3 numpy==2.4.6
fi
npm install --silent --no-audit --no-fund --prefix "$folder/js" @huggingface/jinja@0.5.11  # needs Node
PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error "$python" - "$folder/js" <<'END'
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

print("transformers", version("transformers"), "jinja2", version("jinja2"), "@huggingface/jinja 0.5.11")
RENDER = """
import { Template } from "@huggingface/jinja";
const [template, messages] = JSON.parse(process.argv[2]);
process.stdout.write(JSON.stringify(new Template(template).render({ messages })));
"""
script = Path(sys.argv[1], "render.mjs")
script.write_text(RENDER)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
ARGUMENTS = {"recursive": True, "limit": None, "ratio": 1.0, "10": "a", "9": "b"}
CALL = [{"role": "assistant", "content": "", "tool_calls": [{"name": "find", "arguments": ARGUMENTS}]}]
each = "{% for key, value in messages[0].tool_calls[0].arguments.items() %}"
TEMPLATES = {
    "a tag per argument": each + "<{{ key }}>{{ value }}</{{ key }}>{% endfor %}",
    "tojson": "{{ messages[0].tool_calls[0].arguments | tojson }}",
    "text beside it": "{{ messages[0].tool_calls[0].name }}({{ messages[0].role | upper }})",
    "conditions": "{{ '1' == 1 }} {{ -7 % 3 }} {{ 'iPhone' | capitalize }}",
}
same = {}
for name, template in TEMPLATES.items():
    one = tokenizer.apply_chat_template(CALL, chat_template=template, tokenize=False)
    words = ["node", str(script), json.dumps([template, CALL])]
    two = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    same[name] = one == two
    print(f"{name:18} Python      {one}\n{'':18} JavaScript  {two}")
holds = same == {name: name == "text beside it" for name in TEMPLATES}
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
