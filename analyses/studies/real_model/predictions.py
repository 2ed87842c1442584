"""What an audit at step 0 foretells: `python -m analyses.studies.real_model.predictions`, before any training.

Writes figures/real_model_predictions.csv, columns recipe, method, group, quantity, value, n:

- "push ratio": the group's share of the method's push per share of the tokens (*asked*);
- "patience": how many times as long as SFT the method needs for the group, were every token free (*asked*);
- "influence", "influence_adam": the change of the group's mean log u by the first step, in nats per unit of learning
  rate, through the parameters of an adapter (*done*); of the main recipes also through all parameters;
- "push": the probability that the method asks to move at a token, which says how far it will get from the start;
- "learns, asked" and "learns, done": whether the group is learned (1) or not (0), by a patience below `PATIENT`, and by
  a first step of Adam that raises it;
- "target": the mean probability of the label in the target of `posterior` and Target-SFT, where they would end if
  targets stood still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from analyses.kit import runner
from analyses.kit.real import GROUPS, MODEL
from analyses.studies.real_model import measure
from analyses.studies.real_model.data import demonstrations, encoded, kinds, model
from analyses.studies.real_model.recipes import MAIN, PATIENT, RECIPES, WHOLE, Recipe
from analyses.studies.real_model.runs import teacher
from qunify._lib import files

if TYPE_CHECKING:
    from qunify.audit import Audit
    from qunify.audit._trainable import Trainable

DEMONSTRATIONS = 64
PATH = runner.FIGURES / "real_model_predictions.csv"


def readable() -> list[Recipe]:
    """What an audit can read: weights and masks it has not, and an older policy is the present one at step 0, where
    PSFT is SFT."""
    return [recipe for recipe in RECIPES if set(recipe.map.needs) <= {"reference_logits", "teacher_logits"}]


def predictions() -> pd.DataFrame:
    first = readable()
    found = [
        _asked_and_done([r for r in first if r.teacher != "noisy"], "tuned"),
        _asked_and_done([r for r in first if r.teacher == "noisy"], "noisy"),
    ]
    found += [_through_all(), *(_targets(r) for r in first if r.method in ("posterior", "target_sft"))]
    table = pd.concat(found)
    asked, done = (table[table["quantity"] == name] for name in ("patience", "influence_adam"))
    learned = [
        asked.assign(quantity="learns, asked", value=(asked["value"] < PATIENT).astype(float)),
        done.assign(quantity="learns, done", value=(done["value"] > 0).astype(float)),
    ]
    return pd.concat([table, *learned], ignore_index=True)


def _run(recipes: list[Recipe], kind: str, trainable: Trainable = "adapter") -> Audit:
    from qunify import audit

    return audit.run(
        MODEL, demonstrations().train[:DEMONSTRATIONS], methods=[r.map for r in recipes], reference=MODEL,
        teacher=teacher(kind), groups=GROUPS, influence=True, progress=True, trainable=trainable,
        keep=runner.ROOT / "build" / "cache" / "real_model" / f"audit-{kind}-{trainable}",
    )  # fmt: skip


def _through_all() -> pd.DataFrame:
    """The first steps of the main recipes where all parameters train."""
    groups = _run([r for r in RECIPES if r.name in MAIN], "tuned", "all").groups.rename(columns={"tokens": "n"})
    long = groups.melt(["method", "group", "n"], ["influence", "influence_adam"], "quantity")
    return long.assign(recipe=long["method"], quantity=long["quantity"] + f", {WHOLE.name}")


def _asked_and_done(recipes: list[Recipe], kind: str) -> pd.DataFrame:
    found = _run(recipes, kind)
    by_group = found.groups.assign(**{"push ratio": found.groups["push"] / found.groups["share"]})
    quantities = ["push ratio", "patience", "influence", "influence_adam"]
    parts = [by_group[["method", "group", "tokens"]].assign(quantity=q, value=by_group[q]) for q in quantities]
    whole = found.methods.assign(quantity="push", value=found.methods["push"], group="all", tokens=len(found.tokens))
    table = pd.concat([*parts, whole[["method", "group", "tokens", "quantity", "value"]]])
    names = {r.method: r.name for r in recipes}
    return table.assign(recipe=table["method"].map(names), n=table["tokens"]).drop(columns="tokens")


@torch.no_grad()
def _targets(recipe: Recipe) -> pd.DataFrame:
    """The mean probability of the label in the unit target, by group."""
    from transformers import AutoModelForCausalLM

    rows = demonstrations().train[:DEMONSTRATIONS]
    student, other = model(), AutoModelForCausalLM.from_pretrained(teacher(recipe.teacher), dtype=torch.float32)
    values = []
    for text in map(encoded, rows):
        labels = torch.tensor([text.ids[t] for t in text.places])
        p, tea = measure.log_probabilities(student, text), measure.log_probabilities(other, text)
        target = recipe.map(p, labels, teacher_logits=tea).target
        values.append(target.gather(1, labels[:, None])[:, 0].numpy())
    table = pd.DataFrame({"value": np.concatenate(values), "group": kinds(rows, student)})
    means = table.groupby("group")["value"].agg(["mean", "size"]).reset_index()
    means = means.rename(columns={"mean": "value", "size": "n"})
    return means.assign(recipe=recipe.name, method=recipe.method, quantity="target")


def main() -> None:
    table = predictions()[["recipe", "method", "group", "quantity", "value", "n"]]
    table["value"] = table["value"].astype(float).round(6)
    files.write(PATH, table.to_csv(index=False, lineterminator="\n").encode())
    print(f"{PATH}: {len(table)} rows")


if __name__ == "__main__":
    main()
