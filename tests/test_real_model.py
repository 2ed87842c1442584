"""The real model that `make real` fetches, audited: its numbers against the model called by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qunify as qu
from analyses.kit.real import MODEL
from qunify import audit
from qunify.audit._models import load_model, load_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not MODEL.is_dir(), reason="`make real` fetches the model")]


def test_an_audit_of_the_real_model() -> None:
    row = {"question": "What is 3 + 4?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}
    found = audit.run(MODEL, [row], methods=["sft", "dft"], groups={"marks": "<<|>>"})
    model, tokenizer = load_model(MODEL), load_tokenizer(None, MODEL)
    talk = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    ids = torch.tensor([tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]])
    at = found.tokens["position"].to_numpy()
    with torch.no_grad():
        z = model(input_ids=ids).logits[0, at - 1]
    q = qu.get("dft")(z, ids[0, at])
    np.testing.assert_allclose(found.tokens["trust_dft"], q.trust, rtol=1e-3)
    np.testing.assert_allclose(found.tokens["push_dft"], q.gradient.abs().sum(-1) / 2, rtol=1e-3)
    assert "".join(found.tokens["text"]).startswith(row["answer"])
    assert {"marks", "special tokens", "digits"} <= set(found.groups["group"])
