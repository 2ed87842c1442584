"""What a model has become: log u and calibration on demonstrations held out, how far it has moved, how it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.studies.real_model.data import Text, answer, marks, prompt, tokenizer

LONGEST_ANSWER = 256


@torch.no_grad()
def log_probabilities(model: Any, text: Text) -> Tensor:
    """(N, V): log p before each of the N tokens that follow the prompt."""
    logits = model(input_ids=torch.tensor([text.ids])).logits[0]
    return logits[torch.tensor(text.places) - 1].float().log_softmax(-1)


def predictions(model: Any, texts: Sequence[Text]) -> pd.DataFrame:
    """A row per token: log_u, entropy (nats), confidence in the likeliest token, and whether that is right."""
    found = []
    for text in texts:
        log_p = log_probabilities(model, text)
        labels = torch.tensor([text.ids[t] for t in text.places])
        top, at = log_p.max(-1)
        found.append(
            pd.DataFrame(
                {
                    "log_u": log_p.gather(1, labels[:, None])[:, 0],
                    "entropy": -(log_p.exp() * log_p).sum(-1),
                    "confidence": top.exp(),
                    "right": (at == labels).float(),
                }
            )
        )
    return pd.concat(found, ignore_index=True)


def summary(found: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Columns group, quantity, value, n: the means of every group, and of all tokens with the calibration."""
    from relplot import smECE

    parts = [("all", found), *found.groupby(np.asarray(groups))]
    rows = [
        {"group": group, "quantity": quantity, "value": float(part[column].mean()), "n": len(part)}
        for group, part in parts
        for quantity, column in (("log u", "log_u"), ("entropy", "entropy"), ("accuracy", "right"))
    ]
    calibration = float(smECE(found["confidence"].to_numpy(float), found["right"].to_numpy(float)))
    return pd.DataFrame([*rows, {"group": "all", "quantity": "smooth ECE", "value": calibration, "n": len(found)}])


def moved(model: Any, texts: Sequence[Text], start: Sequence[Tensor]) -> float:
    """The mean KL(start‖now), in nats per token; `start` has the (N, V) log p of each text at the start."""
    pairs = ((first, log_probabilities(model, text)) for first, text in zip(start, texts, strict=True))
    total = sum(float((first.exp() * (first - now)).sum()) for first, now in pairs)
    return total / sum(len(text.places) for text in texts)


@torch.no_grad()
def continued(model: Any, prompts: Sequence[list[int]], longest: int) -> list[list[int]]:
    """What the model says, greedily, to each prompt; the last token is the end of turn where it came to one."""
    read = tokenizer()
    width = max(map(len, prompts))
    ids = torch.tensor([[read.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    said = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=read.pad_token_id
    )[:, width:]
    found = []
    for row in said.tolist():
        end = row.index(read.eos_token_id) + 1 if read.eos_token_id in row else len(row)
        found.append(row[:end])
    return found


def answers(model: Any, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Columns group, quantity, value, n: shares of greedy answers that stop, that have calculator marks with sums that
    are all right, and that are right themselves."""
    read = tokenizer()
    said = continued(model, [prompt(row["question"]) for row in rows], LONGEST_ANSWER)
    texts = [read.decode(ids, skip_special_tokens=True) for ids in said]
    opened = [marks(text) for text in texts]
    shares = {
        "stops": [ids[-1] == read.eos_token_id for ids in said],
        "marks": [whole > 0 and whole == begun for begun, whole, _ in opened],
        "sums right": [right == begun > 0 for begun, _, right in opened],
        "answer right": [answer(t) == answer(row["answer"]) for t, row in zip(texts, rows, strict=True)],
        "length": [len(ids) for ids in said],
    }
    return pd.DataFrame(
        {"group": "answers", "quantity": name, "value": float(np.mean(values)), "n": len(rows)}
        for name, values in shares.items()
    )
