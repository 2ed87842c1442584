"""Where the theory says training ends against where it does end: every method that has an optimum, trained."""

from __future__ import annotations

import functools
from typing import Any, Literal

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import qunify as qu
from analyses.kit import cache, runner
from analyses.kit.study import Study
from qunify import plots
from qunify.samples import every_context
from qunify.training import Data, Job, Stack, Tabular

VOCAB, STATES, LABELS = 5, 2, 500  # labels per state
SEEDS = tuple(range(10))
STEPS = 3000  # over which the learning rate falls to zero by a cosine
RATES: dict[Literal["sgd", "adam"], float] = {"sgd": 2.0, "adam": 0.05}
AGREE = 1e-3  # total variation
NONE = "no optimum predicted"

FLOOR = 1e-7  # below, distances are drawn here


def rows(full: bool) -> pd.DataFrame:
    """One row per method, seed and state. All of it takes minutes, so that only the full run makes it; the quick one
    reads what it found."""
    if not full:
        return runner.read("theory_vs_training", runner.FIGURES)
    parts = [cache.part("theory_vs_training", name, functools.partial(trained, name, SEEDS)) for name in methods()]
    return pd.concat(parts, ignore_index=True)


def methods() -> list[str]:
    return [name for name in qu.names() if qu.get(name).shift_invariant]


def data(seed: int) -> tuple[Data, Tensor]:
    """What a model sees: its labels, as counts, and other models; and the share of each label in each state."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.softmax(torch.randn(STATES, VOCAB, generator=g, dtype=torch.float64), -1)
    labels = torch.multinomial(truth, LABELS, replacement=True, generator=g)
    counts = torch.nn.functional.one_hot(labels, VOCAB).sum(1)
    least = torch.nn.functional.one_hot(truth.argmin(-1), VOCAB).double()
    ones = torch.ones(STATES, dtype=torch.float64)
    context = every_context(
        lambda _: torch.randn(STATES, VOCAB, generator=g, dtype=torch.float64),
        weight=ones,
        mask=ones,
        negative=least,
        values=torch.arange(VOCAB, dtype=torch.float64).expand(STATES, -1),
    )
    states = torch.arange(STATES).repeat_interleave(VOCAB)
    spread = {name: value.repeat_interleave(VOCAB, 0) for name, value in context.items()}
    tokens = torch.arange(VOCAB).repeat(STATES)
    return Data(states, tokens, spread, counts.flatten()), counts / LABELS


def trained(name: str, seeds: tuple[int, ...]) -> pd.DataFrame:
    """One method: its optimum for the labels of every seed, and a tabular model trained on them. One that looks at a
    sequence has a model for each state, which is then the text of such positions that theory speaks of."""
    m = qu.get(name)
    given = [data(seed) for seed in seeds]
    observed = torch.cat([share for _, share in given])
    context: dict[str, Any] = {k: torch.cat([d.context[k][::VOCAB] for d, _ in given]) for k in m.needs}
    found = qu.optimum(m, observed, **context)
    tables = []
    for optimiser, lr in RATES.items():
        parts = [_alone(d) if m.pools else [d] for d, _ in given]
        jobs = [Job(m, d, seed, lr) for mine, seed in zip(parts, seeds, strict=True) for d in mine]
        states = STATES // len(parts[0])
        stack = Stack(Tabular(states, VOCAB), jobs, optimiser=optimiser, decay=STEPS)
        end = stack.run(STEPS).probs(torch.arange(states)).flatten(0, 1)
        nearest = [_nearest(p, points) for p, points in zip(end, found.all, strict=True)]
        table = {
            "method": name,
            "optimiser": optimiser,
            "seed": [seed for seed in seeds for _ in range(STATES)],
            "state": list(range(STATES)) * len(seeds),
            "how": "closed form" if found.closed_form else "numeric",
            "optima": [len(points) for points in found.all],
            "distance": _distance(end, found.probs).where(found.exists, torch.nan).tolist(),
            "nearest": nearest,
        }
        for k in range(VOCAB):
            table |= {f"predicted {k}": found.probs[:, k].tolist(), f"trained {k}": end[:, k].tolist()}
        tables.append(pd.DataFrame(table).round(7))
    return pd.concat(tables, ignore_index=True)


def _alone(d: Data) -> list[Data]:
    """The labels of each state, for a model that knows no other."""
    assert d.counts is not None
    found = []
    for at in (d.inputs == state for state in range(STATES)):
        context = {key: value[at] for key, value in d.context.items()}
        found.append(Data(torch.zeros_like(d.inputs[at]), d.labels[at], context, d.counts[at]))
    return found


def _nearest(p: Tensor, points: Tensor) -> float:
    return float(_distance(p, points).min()) if len(points) else torch.nan


def _distance(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).abs().sum(-1) / 2


def untied(table: pd.DataFrame) -> pd.DataFrame:
    """Without states in which two labels lead together: there a method that picks one has no stable optimum."""
    tied = set()
    for seed in table["seed"].unique():
        first, second = data(int(seed))[1].topk(2)[0].T
        tied |= {(seed, state) for state in (first == second).nonzero()[:, 0].tolist()}
    keys = table[["seed", "state"]].apply(tuple, axis=1)
    return table[~keys.isin(tied)]


def reasons(table: pd.DataFrame) -> pd.DataFrame:
    """A row per method: how its optimum was found, the largest distances, and why there are any above the bar with
    both optimisers. States with tied labels are left out."""
    out = []
    for name, mine in untied(table).groupby("method", sort=False):
        sgd, adam = (mine[mine["optimiser"] == o].set_index(["seed", "state"]) for o in RATES)
        off = ~((sgd["distance"] <= AGREE) | (adam["distance"] <= AGREE))
        why = [_why(str(name), key[0], key[1], sgd.loc[key], adam.loc[key]) for key in off.index[off]]
        out.append(
            {
                "Method": name,
                "Stable optima, at most": mine["optima"].max(),
                "TV, gradient descent": sgd["distance"].max(),
                "TV, Adam": adam["distance"].max(),
                "States off": int(off.sum()),
                "Above 0.001, because": ", ".join(dict.fromkeys(why)),
            }
        )
    return pd.DataFrame(out)


def _why(name: str, seed: int, state: int, sgd: pd.Series, adam: pd.Series) -> str:
    """Why neither optimiser ends at the prediction for this state."""
    if pd.isna(sgd["distance"]):
        return NONE
    if any(row["nearest"] < row["distance"] / 2 for row in (sgd, adam)):
        return "it went to another optimum"
    given, shares = data(seed)
    context: dict[str, Any] = {k: given.context[k][::VOCAB][state] for k in qu.get(name).needs}
    if _differs(name, _probs(sgd, "predicted"), shares[state], context, 1e-3):
        return "the drift jumps there"
    if all(_moves(name, row, shares[state], context) for row in (sgd, adam)):
        return "still on its way"
    level = any(not _differs(name, _probs(row, "trained"), shares[state], context, 1e-9) for row in (sgd, adam))
    return "nothing pulls where it stopped" if level else "unexplained"


def _probs(row: pd.Series, what: str) -> Tensor:
    """Those that were predicted or trained, (V,), moved off the boundary."""
    p = torch.tensor([row[f"{what} {k}"] for k in range(VOCAB)], dtype=torch.float64).clamp(min=1e-9)
    return p / p.sum()


def _moves(name: str, row: pd.Series, truth: Tensor, context: dict[str, Any]) -> bool:
    """Whether the drift where the model stopped is more than what rounding leaves of none."""
    return bool(qu.drift(qu.get(name), _probs(row, "trained"), truth, **context).abs().max() > 1e-6)


def _differs(name: str, p: Tensor, truth: Tensor, context: dict[str, Any], by: float) -> bool:
    """Whether the drift differs by more than that between points on all sides of p, a millionth of a nat away."""
    g = torch.Generator().manual_seed(0)
    beside = p.log() + 1e-6 * torch.randn(64, VOCAB, generator=g, dtype=torch.float64)
    b = qu.drift(qu.get(name), beside.softmax(-1), truth, **context)
    return bool((b.amax(0) - b.amin(0)).max() > by)


def draw(table: pd.DataFrame) -> Figure:
    """Left: trained against predicted probabilities. Right: the largest distance per method, both optimisers."""
    found = reasons(table).sort_values("TV, gradient descent", na_position="last", kind="stable")
    found = found[found["Above 0.001, because"] != NONE]
    columns = -(-len(found) // 40)
    rows = -(-len(found) // columns)
    width, height = 5.9 + 3.9 * columns, max(7.0, 0.2 * rows + 1.4)
    with plots.style():
        figure = Figure(figsize=(width, height))
        side, top = 4.7, height - 0.6  # inches
        _scatter(figure.add_axes((0.8 / width, (top - side) / height, side / width, side / height)), table)
        places = {"left": 7.3 / width, "right": 1 - 0.2 / width, "bottom": 0.95 / height, "top": top / height}
        grid = figure.add_gridspec(1, columns, **places, wspace=0.75)
        for i in range(columns):
            ax = figure.add_subplot(grid[i])
            _distances(ax, found[i * rows : (i + 1) * rows], rows)
        figure.text(7.3 / width, 1 - 0.3 / height, "Largest distance from the prediction, in any state", fontsize=11)
        note = (
            f"{table['seed'].nunique()} seeds × {table['state'].nunique()} states of a tabular model, {LABELS} labels "
            f"each,\n{STEPS} steps; the optimum is that for the labels drawn.\nDotted: {AGREE:g}, within which they "
            "count as arrived."
        )
        figure.text(0.8 / width, (top - side - 0.65) / height, note, color=plots.SOFT, fontsize=10.5, va="top")
    return figure


def _scatter(ax: Axes, table: pd.DataFrame) -> None:
    ax.set_title("Every token of every state", fontsize=11)
    best = table[table["optimiser"] == "adam"]
    for name, mine in best[best["distance"].notna()].groupby("method", sort=False):
        x, y = (mine[[f"{what} {k}" for k in range(VOCAB)]].to_numpy().ravel() for what in ("predicted", "trained"))
        ax.plot(x, y, "o", color=plots.colour(str(name)), ms=3.5, alpha=0.5, mew=0)
    ax.plot([0, 1], [0, 1], color=plots.SOFT, lw=0.8, zorder=0)
    ax.set_xlabel("predicted probability of a token")
    ax.set_ylabel("probability after training (Adam)")
    ax.set_box_aspect(1)


def _distances(ax: Axes, found: pd.DataFrame, rows: int) -> None:
    for y, row in enumerate(found.to_dict("records")):
        name = str(row["Method"])
        for key, fill in (("TV, gradient descent", "none"), ("TV, Adam", "full")):
            ax.plot(max(row[key], FLOOR), y, "o", color=plots.colour(name), ms=6.5, fillstyle=fill, mew=1.4)
    ax.axvline(AGREE, color=plots.SOFT, lw=0.9, ls=":", zorder=0)
    ax.set_xscale("log")
    ax.set_xlim(FLOOR / 1.6, 1.6)  # Adam's dft_undetached stands at 1
    ax.set_ylim(rows - 0.4, -0.6)
    plots.name_methods(ax, list(found["Method"]), size=9)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color=plots.FAINT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("largest total variation\n○ gradient descent   ● Adam")


def see(table: pd.DataFrame) -> str:
    found = reasons(table)
    why = found["Above 0.001, because"]
    none, agree = found[why == NONE], found[why == ""]
    rest = {reason: list(found.loc[why == reason, "Method"]) for reason in why.unique() if reason not in ("", NONE)}
    adam = int((found["TV, Adam"] <= AGREE).sum())
    sgd = int((found["TV, gradient descent"] <= AGREE).sum())
    others = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in rest.items())
    return (
        f"Of {len(found)} methods {len(found) - len(none)} have an optimum at every truth tried, and {len(agree)} of "
        f"them reach it to {AGREE:g} in total variation at every seed and state, by gradient descent or Adam, "
        f"whichever comes nearer (alone {sgd} and {adam}); states in which two labels tie are left out. The others: "
        f"{others or 'none'}. No optimum is predicted for {', '.join(none['Method']) or 'none'}."
    )


STUDY = Study(
    name="theory_vs_training",
    title="Predicted and trained: the optimum of each method against where tabular models end",
    question="Does training end where the theory says?",
    rows=rows,
    draw=draw,
    see=see,
    digest=reasons,
    methods=methods,
)
