"""What theory predicts for a setting: where each method ends at every token, were its labels drawn without end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import qunify as qu
from analyses.studies.ten_settings.runs import METHODS, Choice, Plan, Question, Texts, prepared, table_of
from analyses.studies.ten_settings.tasks import TASKS
from qunify.calibration import against_truth

TEXTS = 20  # solutions without a slip
TOKENS = 12  # of the vocabulary at each place: following a flow costs its cube
#: Methods of which theory predicts nothing: PSFT's old policy moves along with the model, so that the truth does not
#: say where it ends; the weights and the mask of the other two belong to single demonstrations.
UNPREDICTED = ("psft", "iw_sft", "cft")


def predicted(plan: Plan, name: str, size: str, choices: Mapping[tuple[str, str], Choice]) -> pd.DataFrame:
    """A row per method: how probable a solution with every step valid is where the method settles, on the first seed.

    At every token of some right solutions the method's optimum is computed for the exact distribution of demonstrations
    (slips among them) and for the predictions of the teacher and the pretrained model; the next token is drawn from it.
    """
    seed = plan.seeds[0]
    h = prepared(plan, seed)
    texts = _without_slips(plan, name, h.test[name], seed)
    truth, valid = texts.truth[texts.at].double(), texts.valid[texts.at]
    owner = texts.at.nonzero()[:, 0]
    models = {"teacher_logits": h.teacher, "reference_logits": h.models[size]}
    said = {key: model.predictions(texts.tokens, texts.at).double() for key, model in models.items()}
    truth, valid, said = _narrowed(truth, valid, said)
    begin = said["reference_logits"].softmax(-1)
    rows = []
    for method in METHODS:
        if method in UNPREDICTED:
            continue
        m = choices[name, method].qmap
        context: dict[str, Any] = {key: said[key] for key in m.needs}
        before = time.perf_counter()
        found = qu.optimum(m, truth, begin, **context)
        mass = against_truth(found.probs.clamp(min=0), truth, valid)["valid_mass"]
        told = {"predicted": _whole(mass, owner), "measuring_seconds": time.perf_counter() - before}
        rows.append({"task": name, "size": size, "seed": seed, "method": method} | told)
    return table_of(rows)


def _narrowed(truth: Tensor, valid: Tensor, said: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The same over fewer tokens: at every place those that the truth or a model thinks likeliest, and one entry that
    stands for all the others."""
    accounts = torch.stack([truth, *(logits.softmax(-1) for logits in said.values())])
    top = accounts.amax(0).topk(TOKENS - 1, dim=-1).indices
    others = torch.ones_like(truth).scatter(-1, top, 0.0).bool()

    def narrow(p: Tensor) -> Tensor:
        return torch.cat([p.gather(-1, top), torch.where(others, p, 0.0).sum(-1, keepdim=True)], dim=-1)

    logs = {key: narrow(logits.softmax(-1)).log() for key, logits in said.items()}
    return narrow(truth), narrow(valid.double()) > 0, logs


def _without_slips(plan: Plan, name: str, questions: list[Question], seed: int) -> Texts:
    """The first solutions, written as demonstrations are, in which no slip happened."""
    h = prepared(plan, seed)
    texts = Texts.of(TASKS[name], questions, h.taught, h.prior, seed + 2)
    fine = (~texts.slipped.any(1)).nonzero()[:TEXTS, 0]
    tensors = {key: value[fine] for key, value in vars(texts).items() if isinstance(value, Tensor)}
    return Texts(questions=[questions[i] for i in fine.tolist()], **tensors)


def _whole(mass: Tensor, owner: Tensor) -> float:
    """The mean over solutions of the product of their tokens' masses (N,); `owner` (N,) says whose token it is."""
    logs = torch.zeros(int(owner.max()) + 1, dtype=mass.dtype).index_add(0, owner, mass.clamp(min=1e-300).log())
    return float(logs.exp().mean())
