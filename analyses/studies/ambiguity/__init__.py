"""What happens to several right answers: four continuations of unequal probability (Zipf) are right in every context.

Tables, one free softmax per context, are trained by gradient descent on 16 or 64 right labels per context. They start
from a *prior* that puts half its mass on what it believes, which is the truth at three quarters of the contexts, and
half evenly on all tokens. The *teacher* of kd, kd_hybrid and target_sft is the truth, smoothed by 0.1, with a Gaussian
error of 0.5 on every logit. Predicted is the population optimum at the truth. What is measured, and which methods are
left out and why, is said in `runs`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qunify as qu
from analyses.kit.intervals import intervals
from analyses.kit.study import Study
from analyses.kit.words import percent
from analyses.studies.ambiguity import runs
from qunify import plots
from qunify.plots import EndLabel

SHOWN = ("sft", "dft", "gce", "label_smoothing", "gem", "target_sft", "profit")
SEEN = 16  # samples, of which words and digest give the coverage
EARLY = 30  # steps, where fine-tuning might stop

QUICK = runs.Plan((0, 1), (64,), tuple(qu.get(name) for name in SHOWN), runs.STEPS[:-1])
FULL = runs.Plan(tuple(range(10)), (16, 64), runs.methods(runs.DEFAULTS, runs.PATHS))


def rows(full: bool) -> pd.DataFrame:
    """A row per method, parameter, labels, kind, seed and step (`runs.run`)."""
    return runs.run(FULL if full else QUICK)


def summary(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean and half-width over seeds, by (method, parameter, labels, kind, step), in the order of the table."""
    named = table.assign(parameter=table["parameter"].fillna(-1.0), method=table["method"].fillna(runs.PRIOR))
    return intervals(named, ["method", "parameter", "labels", "kind", "step"], metric)


class Reading:
    """Means and half-widths by method (at its defaults unless a parameter is given)."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._found = {metric: summary(table, metric) for metric in runs.METRICS}
        labels = table.loc[table["kind"] == runs.TRAINED, "labels"]
        self.fewest, self.most, self.last = int(labels.min()), int(labels.max()), int(table["step"].max())

    def trained(self, metric: str, name: str, *, step: int | None = None, parameter: float | None = None) -> float:
        return self._at(metric, name, parameter, self.most, runs.TRAINED, self.last if step is None else step)

    def on_few_labels(self, metric: str, name: str, parameter: float | None = None) -> float:
        return self._at(metric, name, parameter, self.fewest, runs.TRAINED, self.last)

    def theory(self, metric: str, name: str, parameter: float | None = None) -> float:
        return self._at(metric, name, parameter, 0, runs.THEORY, 0)

    def half(self, metric: str, name: str, parameter: float | None = None, *, step: int | None = None) -> float:
        return self._at(metric, name, parameter, self.most, runs.TRAINED, self.last if step is None else step, "half")

    def prior(self, metric: str) -> float:
        return float(self._found[metric]["mean"][runs.PRIOR, -1.0, 0, runs.PRIOR, 0])

    def _at(
        self, metric: str, name: str, parameter: float | None, labels: int, kind: str, step: int, part: str = "mean"
    ) -> float:
        if parameter is None:
            own = runs.parameter(qu.get(name))
            parameter = -1.0 if own != own else own
        return float(self._found[metric][part][name, parameter, labels, kind, step])


def truths(n: Sequence[int]) -> list[float]:
    """The truth's own coverage at n samples, the same in every context."""
    truth = runs.world(0).truth[:1]
    found = runs.against(truth[None], truth)
    return [float(found[f"coverage_{k}"]) for k in n]


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """A row per method and parameter after all steps on the most labels, most entropy kept first; ± is half of the
    95 % interval."""
    read = Reading(table)
    pairs = table[table["kind"] == runs.TRAINED][["method", "parameter"]].drop_duplicates()
    found = []
    for name, value in pairs.itertuples(index=False):
        at = -1.0 if pd.isna(value) else value
        found.append(
            {
                "method": name if pd.isna(value) else f"{name}, {runs.PATHS[name][0]} {value:g}",
                "entropy kept": read.trained("entropy_kept", name, parameter=at),
                "entropy kept ±": read.half("entropy_kept", name, at),
                "predicted entropy kept": read.theory("entropy_kept", name, at),
                f"on {read.fewest} labels": read.on_few_labels("entropy_kept", name, at),
                f"after {EARLY} steps": read.trained("entropy_kept", name, step=EARLY, parameter=at),
                "mass on right answers": read.trained("valid_mass", name, parameter=at),
                "predicted mass": read.theory("valid_mass", name, at),
                f"right answers seen in {SEEN}": read.trained(f"coverage_{SEEN}", name, parameter=at),
                f"predicted seen in {SEEN}": read.theory(f"coverage_{SEEN}", name, at),
                "KL(truth‖model)": read.trained("kl", name, parameter=at),
            }
        )
    return pd.DataFrame(found).sort_values("entropy kept", ascending=False, ignore_index=True)


def see(table: pd.DataFrame) -> str:
    read = Reading(table)

    def kept(name: str) -> str:
        return percent(read.trained("entropy_kept", name), read.half("entropy_kept", name))

    def answers(name: str) -> str:
        return f"{runs.VALID * read.trained(f'coverage_{SEEN}', name):.1f}"

    def foretold(name: str) -> str:
        return f"{100 * read.theory('entropy_kept', name):.1f}"

    def early(metric: str, name: str) -> str:
        return percent(read.trained(metric, name, step=EARLY), digits=0)

    truth = runs.VALID * truths([SEEN])[0]
    wrong = 100 * (1 - read.trained("valid_mass", "label_smoothing"))
    return (
        f"After {read.last} steps on {read.most} labels per context, sft keeps {kept('sft')} of the entropy among the "
        f"right answers (theory {foretold('sft')}), gem {kept('gem')} ({foretold('gem')}), target_sft "
        f"{kept('target_sft')} ({foretold('target_sft')}), gce {kept('gce')} ({foretold('gce')}) and dft {kept('dft')} "
        f"({foretold('dft')}). "
        f"{SEEN} samples then show {answers('sft')} of the {runs.VALID} right answers with sft, {answers('gem')} with "
        f"gem, {answers('target_sft')} with target_sft, {answers('gce')} with gce and {answers('dft')} with dft; the "
        f"truth itself shows {truth:.1f}. "
        f"Stopped after {EARLY} steps, dft still keeps {early('entropy_kept', 'dft')}, but has only "
        f"{early('valid_mass', 'dft')} of its mass on right answers; sft has by then {early('entropy_kept', 'sft')} "
        f"and {early('valid_mass', 'sft')}. "
        f"label_smoothing keeps {kept('label_smoothing')}, and what it spreads goes to wrong answers, {wrong:.0f} % of "
        f"the mass."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Answers found by sampling; entropy on the way of training; and where every method ends."""
    read = Reading(table)
    with plots.style():
        figure = Figure(figsize=(16.3, 5.9))
        coverage, way, methods = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
        figure.subplots_adjust(left=0.035, right=0.95, bottom=0.2, top=0.87, wspace=0.8)
        ends = {coverage: draw_coverage(coverage, read), way: draw_way(way, read, table)}
        draw_methods(methods, read, table)
        for ax in (coverage, way, methods):
            ax.tick_params(labelsize=10.5)
            ax.xaxis.label.set_fontsize(11)
            ax.yaxis.label.set_fontsize(11)
        for ax, labels in ends.items():
            plots.label_ends(ax, labels, size=10, gap=0.05)
        seeds = table["seed"].nunique()
        figure.text(
            0.5, 0.025,
            f"Mean and 95 % interval over {seeds} seeds; {runs.CONTEXTS} contexts, {runs.VALID} right answers of "
            f"{runs.VOCAB} tokens; {read.most} labels per context, {read.last} steps of gradient descent",
            ha="center", color=plots.SOFT, fontsize=11,
        )  # fmt: skip
    return figure


def draw_coverage(ax: Axes, read: Reading) -> list[EndLabel]:
    ax.set_title("Right answers seen in n samples", fontsize=12.5, pad=10)
    n = list(runs.ANSWERS)
    truth = [runs.VALID * value for value in truths(n)]
    ax.plot(n, truth, color=plots.SOFT, lw=5, alpha=0.35)
    labels = [EndLabel(n[-1], truth[-1], "truth", plots.SOFT)]
    for name in SHOWN:
        look = plots.line(name)
        mean, half = ([runs.VALID * of(f"coverage_{k}", name) for k in n] for of in (read.trained, read.half))
        ax.plot(n, mean, marker=look.marker, ms=4, **look.kwargs)
        _band(ax, n, mean, half, look.colour)
        labels.append(EndLabel(n[-1], mean[-1], name, look.colour))
    ax.set_xscale("log", base=2)
    ax.set_xticks(n, [str(k) for k in n])
    ax.set_xlim(1, n[-1])
    ax.set_ylim(0, runs.VALID * 1.03)
    ax.set_xlabel("samples n")
    return labels


def draw_way(ax: Axes, read: Reading, table: pd.DataFrame) -> list[EndLabel]:
    ax.set_title("Entropy kept, on the way", fontsize=12.5, pad=10)
    steps = sorted(table.loc[table["kind"] == runs.TRAINED, "step"].unique())
    labels = []
    for name in SHOWN:
        look = plots.line(name)
        kept = [read.trained("entropy_kept", name, step=step) for step in steps]
        ax.plot(steps, kept, marker=look.marker, ms=4, **look.kwargs)
        goal = read.theory("entropy_kept", name)
        ax.plot([steps[-1]], [goal], marker="_", ms=14, mew=2.2, color=look.colour, clip_on=False)
        labels.append(EndLabel(steps[-1], kept[-1], name, look.colour))
    ax.axhline(1, color=plots.SOFT, lw=0.8)
    ax.set_xscale("log")
    ax.set_xticks(steps, [str(step) for step in steps])
    ax.minorticks_off()
    ax.set_xlim(steps[0], steps[-1])
    ax.set_ylim(0, 1.2)
    ax.set_xlabel("training steps   (– at the end: theory)")
    return labels


def draw_methods(ax: Axes, read: Reading, table: pd.DataFrame) -> None:
    """A row per method: where it ends at its defaults, where theory says, and where other parameters end."""
    ax.set_title("Entropy kept, at the end", fontsize=12.5, pad=10)
    trained = table[table["kind"] == runs.TRAINED]
    order = sorted(trained["method"].unique(), key=lambda name: -read.trained("entropy_kept", name))
    for row, name in enumerate(order):
        look = plots.line(name)
        kept = {v: read.trained("entropy_kept", name, parameter=v) for v in _values(trained, name)}
        if len(kept) > 1:
            ax.plot(list(kept.values()), [row] * len(kept), color=look.colour, lw=1.2, marker="o", mfc="white", ms=4.5)
            _write_apart(ax, kept, row, look.colour)
        mean, half = read.trained("entropy_kept", name), read.half("entropy_kept", name)
        ax.errorbar(mean, row, xerr=half, color=look.colour, marker=look.marker, ms=7, lw=2)
        ax.plot(read.theory("entropy_kept", name), row, marker="|", ms=13, mew=2, color=plots.INK)
        right = percent(read.trained("valid_mass", name), digits=0)
        ax.text(
            1.03,
            row,
            right,
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=10.5,
            color=plots.as_text(look.colour),
        )
    ax.text(
        1.03, -1.1, "mass on\nright", transform=ax.get_yaxis_transform(), fontsize=10, color=plots.SOFT, va="center"
    )
    ax.axvline(1, color=plots.SOFT, lw=0.8, zorder=0)
    plots.name_methods(ax, order)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(order) - 0.4, -0.7)
    ax.set_xlim(-0.03, 1.18)
    ax.set_xlabel("share of the truth's   (| theory, ○ other parameters)")


def _values(trained: pd.DataFrame, name: str) -> list[float]:
    """Of the parameter, or −1 for a method without."""
    return sorted(trained.loc[trained["method"] == name, "parameter"].dropna().unique()) or [-1.0]


def _write_apart(ax: Axes, kept: dict[float, float], row: float, colour: str) -> None:
    """Parameters over their points, where there is room."""
    last = -1.0
    for value, x in sorted(kept.items(), key=lambda item: item[1]):
        if x - last > 0.075:
            ax.annotate(
                f"{value:g}", (x, row), (0, 5), textcoords="offset points", ha="center", fontsize=8.5,
                color=plots.as_text(colour),
            )  # fmt: skip
            last = x


def _band(ax: Axes, x: Sequence[float], mean: Sequence[float], half: Sequence[float], colour: str) -> None:
    low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
    ax.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)


STUDY = Study(
    name="ambiguity",
    title="Several right answers: how many are left after training",
    question="What happens to several right answers?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
