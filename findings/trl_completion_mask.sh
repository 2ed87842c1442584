#!/usr/bin/env bash
# TRL leaves a completion_mask beside input_ids unread, and the prompts are trained; it reads an assistant_masks.
#
# Guess    A prompt-completion dataset trains completions only, by default. Tokenised beforehand into input_ids and
#          completion_mask, it trains the same tokens: the mask has no other use.
# Truth    The default is decided by the columns prompt and completion. Tokenised data have none, and their
#          completion_mask is dropped: every token trains, and nothing is said. A column assistant_masks is read
#          without any option, and so is labels; with completion_only_loss=True completion_mask is, too.
# Source   trl 1.16.0, trainer/sft_trainer.py, _prepare_dataset; a clause of the documentation of train_dataset has
#          it.
# Instead  completion_only_loss=True whenever data come tokenised, or keep labels instead of masks.
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
import contextlib
import io
import tempfile
from importlib.metadata import version

import datasets
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

datasets.disable_progress_bars()
print("trl", version("trl"), "transformers", version("transformers"))
words = ["<pad>", "</s>", "the", "cat", "sees", "a", "bird", "dog", "likes", "it"]
vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>", eos_token="</s>", unk_token="<pad>")
size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, bos_token_id=None, eos_token_id=1, **size))


def trainer(data, **settings):
    usual = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    with contextlib.redirect_stdout(io.StringIO()):
        return SFTTrainer(
            model, SFTConfig(tempfile.mkdtemp(), **usual, **settings), None, data, processing_class=tokenizer
        )


def trained(own):
    (labels,) = next(iter(own.get_train_dataloader()))["labels"].tolist()
    return " ".join(tokenizer.convert_ids_to_tokens([i for i in labels if i != -100]))


strings = datasets.Dataset.from_dict({"prompt": ["the cat sees "], "completion": ["a bird"]})
ids = {"input_ids": [tokenizer("the cat sees a bird </s>")["input_ids"]]}
masks = [[0, 0, 0, 1, 1, 1]]
by_hand = datasets.Dataset.from_dict({**ids, "completion_mask": masks})
seen = {
    "prompt and completion": trained(trainer(strings)),
    "input_ids and completion_mask": trained(trainer(by_hand)),
    "... with completion_only_loss=True": trained(trainer(by_hand, completion_only_loss=True)),
    "input_ids and assistant_masks": trained(trainer(datasets.Dataset.from_dict({**ids, "assistant_masks": masks}))),
}
for name, tokens in seen.items():
    print(f"{name:35} trains: {tokens}")
holds = list(seen.values()) == ["a bird </s>", "the cat sees a bird </s>", "a bird </s>", "a bird </s>"]
print("As stated." if holds else "No longer as stated.")
raise SystemExit(not holds)
END
