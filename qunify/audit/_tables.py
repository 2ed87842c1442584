"""From tokens to the tables of groups, methods and demonstrations, with intervals over demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

#: Borders of u between which the push is counted: what the model all but excludes, doubts, half believes, believes.
BORDERS = (0.001, 0.05, 0.5)
SHARES = ("push_below_0.001", "push_below_0.05", "push_below_0.5", "push_above_0.5")
DRAWS = 1000


def columns(kind: str, names: Sequence[str]) -> list[str]:
    return [f"{kind}_{name}" for name in names]


def methods(
    tokens: pd.DataFrame, names: Sequence[str], gram: np.ndarray, flags: pd.Series | None, seed: int
) -> pd.DataFrame:
    """A row per method.

    `trust`, `push`, `in_simplex` are means over tokens; `half_of_push` is the share of tokens, those of most push
    first, that carry half of it; the columns of SHARES are the shares of the push by u; `cosine_NAME` is that of the
    gradients over all tokens. `trust_low` to `push_high` are 95 % bootstrap intervals over demonstrations. With flags,
    `auc` is the share of pairs of a flagged and another demonstration in which the flagged is trusted less.
    """
    trust, push, inside = (tokens[columns(kind, names)].to_numpy(float) for kind in ("trust", "push", "in_simplex"))
    at = np.searchsorted(BORDERS, tokens["u"].to_numpy(), side="right")
    total = push.sum(0)
    shares = np.stack([push[at == i].sum(0) for i in range(len(SHARES))]) / np.where(total > 0, total, np.nan)
    table = pd.DataFrame(
        {"method": list(names), "trust": trust.mean(0), "push": push.mean(0), "in_simplex": inside.mean(0)}
    )
    table["half_of_push"] = [_half(push[:, i]) for i in range(len(names))]
    table[list(SHARES)] = shares.T
    for kind, values in (("trust", trust), ("push", push)):
        table[f"{kind}_low"], table[f"{kind}_high"] = _intervals(values, tokens["example"].to_numpy(), seed)
    norm = np.sqrt(np.diag(gram))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = gram / norm[:, None] / norm[None, :]
    cosines = pd.DataFrame(cosine, columns=columns("cosine", names))
    table = pd.concat([table, cosines], axis=1)
    if flags is not None:
        mean = tokens.groupby("example")[columns("trust", names)].mean()
        flagged = flags.loc[mean.index].to_numpy(bool)
        table["auc"], table["auc_low"], table["auc_high"] = zip(
            *[_auc(mean[c].to_numpy(), flagged, seed) for c in mean.columns], strict=True
        )
    return table


def groups(tokens: pd.DataFrame, names: Sequence[str], patience: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row per group and method, the groups by size.

    `tokens` and `share` count the group, `u` is its median; `trust` is the method's mean in it, `push` its share of all
    of the method's push, and `patience` how many times as long as SFT the method needs, were every token free, from the
    group's median token to u = 1/2: infinite where it never gets there, NaN where that token is there already.
    """
    trust, push = columns("trust", names), columns("push", names)
    total = tokens[push].to_numpy(float).sum(0)
    found = []
    for group, rows in sorted(tokens.groupby("group", sort=False), key=lambda item: -len(item[1])):
        shares = rows[push].to_numpy(float).sum(0) / np.where(total > 0, total, np.nan)
        found.append(
            pd.DataFrame(
                {
                    "group": group,
                    "method": list(names),
                    "tokens": len(rows),
                    "share": len(rows) / len(tokens),
                    "u": rows["u"].median(),
                    "trust": rows[trust].to_numpy(float).mean(0),
                    "push": shares,
                    "patience": patience[str(group)],
                }
            )
        )
    return pd.concat(found, ignore_index=True)


def with_influence(table: pd.DataFrame, names: Sequence[str], found: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The groups with `influence` and `influence_adam`: by how much a first step of gradient descent, or of Adam,
    changes the group's mean log u, in nats per unit of learning rate; NaN for a group of which the sample has none."""
    rows = {str(group): i for i, group in enumerate(found["groups"])}
    columns = {str(name): i for i, name in enumerate(names)}
    at = [(rows.get(group), columns[method]) for group, method in zip(table["group"], table["method"], strict=True)]
    return table.assign(
        **{
            column: [np.nan if i is None else float(found[key][i, j]) for i, j in at]
            for column, key in (("influence", "descent"), ("influence_adam", "adam"))
        }
    )


def with_rehearsal(
    tokens: pd.DataFrame,
    table: pd.DataFrame,
    groups: pd.DataFrame,
    held: Sequence[int],
    after: Mapping[str, np.ndarray],
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tokens with `after_NAME`, u after the rehearsal, NaN but for the held-out demonstrations; the methods and
    the groups with `rehearsed`, the change of mean log u (nats) on these, its 95 % bootstrap interval over
    demonstrations, and the methods with `nll_before` and `nll_after`, the mean −log u (nats)."""
    out = tokens["example"].isin(held).to_numpy()
    rows = tokens[out]
    before = np.log(rows["u"].to_numpy(float))
    changes = np.stack([after[name] - before for name in table["method"]], axis=1)
    wide = pd.DataFrame(np.nan, index=tokens.index, columns=columns("after", list(table["method"])))
    wide.loc[out] = np.exp(changes + before[:, None])
    low, high = _intervals(changes, rows["example"].to_numpy(), seed)
    table = table.assign(
        nll_before=-before.mean(), nll_after=-(changes + before[:, None]).mean(0),
        rehearsed=changes.mean(0), rehearsed_low=low, rehearsed_high=high,
    )  # fmt: skip
    found = []
    for group, part in groups.groupby("group", sort=False):
        at = rows["group"].to_numpy() == group
        values = (
            (changes[at].mean(0), *_intervals(changes[at], rows["example"].to_numpy()[at], seed))
            if at.any()
            else (np.nan, np.nan, np.nan)
        )
        named = dict(zip(("rehearsed", "rehearsed_low", "rehearsed_high"), values, strict=True))
        found.append(part.assign(held_out=int(at.sum()), **named))
    return pd.concat([tokens, wide], axis=1), table, pd.concat(found, ignore_index=True)


def examples(tokens: pd.DataFrame, names: Sequence[str], flags: pd.Series | None) -> pd.DataFrame:
    """A row per demonstration: its tokens, mean −log u in nats, and per method its mean trust and its share of the
    push; the flag, where there is one."""
    by = tokens.assign(nll=-np.log(tokens["u"])).groupby("example")
    push = by[columns("push", names)].sum()
    parts: list[Any] = [by.size().rename("tokens"), by["nll"].mean(), by[columns("trust", names)].mean()]
    parts.append(push / push.sum().replace(0.0, np.nan))
    table = pd.concat(parts, axis=1).reset_index()
    return table if flags is None else table.assign(flag=flags.loc[table["example"]].to_numpy())


def _half(push: np.ndarray) -> float:
    """The least share of tokens that carries half of the sum."""
    ordered = np.sort(push)[::-1].cumsum()
    return float(np.searchsorted(ordered, ordered[-1] / 2) + 1) / len(push) if ordered[-1] > 0 else np.nan


def _draws(n: int, seed: int) -> np.ndarray:
    """How often each of n demonstrations is drawn, in DRAWS draws of n with replacement."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS)


def _intervals(values: np.ndarray, example: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5 % and 97.5 % quantiles of the mean over tokens (N, M), demonstrations drawn anew: they are what is
    independent, not their tokens. NaN for a single demonstration."""
    _, codes = np.unique(example, return_inverse=True)
    n = int(codes.max()) + 1
    if n < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    sums = np.stack([np.bincount(codes, column, n) for column in values.T], axis=1)
    drawn = _draws(n, seed)
    means = (drawn @ sums) / (drawn @ np.bincount(codes))[:, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def _auc(trust: np.ndarray, flagged: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The share of pairs in which the flagged one is trusted less, ties counting half, with its bootstrap interval."""
    if not flagged.any() or flagged.all() or np.isnan(trust).any():
        return np.nan, np.nan, np.nan
    bad, good = trust[flagged], trust[~flagged]
    less = (bad[:, None] < good) + 0.5 * (bad[:, None] == good)
    rng = np.random.default_rng(seed)
    a, b = (rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=DRAWS) for x in (bad, good))
    drawn = np.einsum("di,ij,dj->d", a, less, b, optimize=True) / less.size
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(less.mean()), float(low), float(high)
