"""Which method is a special case, or a limit, of which other one: found by search, proved by symbols."""

from __future__ import annotations

import functools
import itertools

import networkx as nx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

import qunify as qu
from analyses.kit import cache, runner
from analyses.kit.study import Study
from qunify import plots
from qunify.token import rational

Node = tuple[str, ...]  #: methods that contain each other

LINE = 0.2  # inches from one binding to the next
COLUMNS = (0.1, 4.2, 9.4, 13.0)  # inches: where the names of each generation begin
WIDTH = 11.2


def rows(full: bool) -> pd.DataFrame:
    """One row per pair (general, special) for which parameters were found. The search takes minutes, so that only the
    full run makes it; the quick one reads what it found."""
    if not full:
        return runner.read("family", runner.FIGURES)
    tables = [cache.part("family", name, functools.partial(_below, name)) for name in qu.names()]
    return pd.concat(tables, ignore_index=True)


def _below(general: str, among: tuple[str, ...] = ()) -> pd.DataFrame:
    """The special cases of one method, by default among the whole catalogue."""
    found = []
    for special in among or qu.names():
        b = qu.subsumes(general, special)
        if b is not None:
            defaults = qu.get(general).params
            changed = [text for (k, v), text in zip(b.items(), b.texts(), strict=True) if v != _exact(defaults[k])]
            found.append(
                {
                    "general": general,
                    "special": special,
                    "at": ", ".join(changed) or "defaults",
                    "factor": str(b.factor).replace("nan", ""),
                    "limit": b.limit,
                    "proved": b.proved,
                    "special_at_defaults": b.at_defaults,
                    "statement": str(b),
                }
            )
    columns = ["general", "special", "at", "factor", "limit", "proved", "special_at_defaults", "statement"]
    return pd.DataFrame(found, columns=columns)


def _exact(value: object) -> object:
    """A default as the number that bindings have for it: they are SymPy's, of which 10 is not the float 10.0."""
    return rational(value) if isinstance(value, float) else value


def tree(table: pd.DataFrame) -> nx.DiGraph:
    """Edges from special to general, methods that contain each other made one node, and what follows left out."""
    graph = nx.DiGraph()
    proper = table[~table["special_at_defaults"]]
    kd = table[table["special"] == "kd"]  # whose default, temperature 1, is what others mean by it
    for row in pd.concat([proper, kd]).drop_duplicates(["general", "special"]).itertuples():
        graph.add_edge(row.special, row.general, at=row.at, factor=row.factor)
    same = nx.DiGraph(graph)
    same.add_edges_from([("dft", "mae"), ("mae", "dft")])
    whole = nx.condensation(same)
    found = nx.DiGraph()
    names = {c: tuple(sorted(whole.nodes[c]["members"], key=qu.names().index)) for c in whole}
    for a, b in nx.transitive_reduction(whole).edges:
        own = [(x, y) for x in names[a] for y in names[b] if graph.has_edge(x, y)]
        shortest = min(own, key=lambda e: sum(len(graph.edges[e][k]) for k in ("at", "factor")))
        found.add_edge(names[a], names[b], **graph.edges[shortest])
    return found


def draw(table: pd.DataFrame) -> Figure:
    graph = tree(table)
    generation = {n: i for i, layer in enumerate(nx.topological_generations(graph)) for n in layer}
    order = _placed(graph, generation)
    height = LINE * max(order.values()) + 1.5
    with plots.style():
        figure = Figure(figsize=(WIDTH, height))
        ax = figure.add_axes((0.01, 0.2 / height, 0.98, 1 - 1.15 / height))
        ax.set_xlim(0, WIDTH)
        ax.set_ylim(LINE * (max(order.values()) + 0.8), -LINE)
        ax.set_axis_off()
        begins = {node: _name(ax, node, COLUMNS[generation[node]], row) for node, row in order.items()}
        for node, row in order.items():
            _arriving(ax, graph, node, COLUMNS[generation[node]], row, begins, order)
        figure.text(0.015, 1 - 0.12 / height, "Which method is a special case of which", fontsize=14, va="top")
        figure.text(
            0.015, 1 - 0.42 / height,
            "Read from left to right: the name on the left is the method on the right at the parameters written on the "
            "line\n(→ a limit), times the constant in brackets where there is one. Names joined by = hold each other.",
            fontsize=10, va="top", color=plots.SOFT,
        )  # fmt: skip
    return figure


def _placed(graph: nx.DiGraph, generation: dict[Node, int]) -> dict[Node, float]:
    """The row of every node. The middle generation fills the rows, grouped by what it belongs to; the others stand
    beside the middle of what they are tied to, as near as there is room."""
    middle = sorted((n for n in graph if generation[n] == 1), key=lambda n: _group(graph, n))
    order: dict[Node, float] = {}
    row = 0.0
    for n in middle:
        lines = max(1, graph.in_degree(n))
        order[n] = row + (lines - 1) / 2
        row += lines + 0.45
    for depth in sorted({*generation.values()} - {1}):
        layer = [n for n in graph if generation[n] == depth]
        tied = {n: [order[m] for m in nx.all_neighbors(graph, n) if generation[m] == 1] or [0.0] for n in layer}
        layer.sort(key=lambda n: sum(tied[n]) / len(tied[n]))
        room = max(max(1, graph.in_degree(n)) for n in layer) + 0.6
        wanted = [sum(tied[n]) / len(tied[n]) / row for n in layer]
        for n, at in zip(layer, plots.spread(wanted, room / row), strict=True):
            order[n] = at * row
    return order


def _group(graph: nx.DiGraph, node: Node) -> tuple[object, ...]:
    """What sorts the middle generation: first what other methods hold, then by the special cases it has."""
    place = qu.names().index
    above = sorted(place(n[0]) for n in graph.successors(node))
    below = sorted(place(n[0]) for n in graph.predecessors(node))
    return (not above, above, len(below) > 1, below, place(node[0]))


#: Over the lines that pass behind a text.
BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}


def _name(ax: Axes, node: Node, x: float, row: float) -> float:
    """Write the names of a node; where lines that leave it begin."""
    name = ax.text(
        x, LINE * row, " = ".join(node), fontsize=10.5, va="center", fontweight="bold", color=plots.INK, bbox=BLANK
    )
    return _across(ax, name)[1] + 0.06


def _arriving(
    ax: Axes,
    graph: nx.DiGraph,
    node: Node,
    x: float,
    row: float,
    begins: dict[Node, float],
    order: dict[Node, float],
) -> None:
    """The lines to a node, each with the parameters at which it is what the line comes from."""
    arriving = sorted(graph.predecessors(node), key=order.__getitem__)
    for i, source in enumerate(arriving):
        y = LINE * (row + i - (len(arriving) - 1) / 2)
        label = binding(**graph.edges[source, node])
        text = ax.text(x - 0.14, y, label, fontsize=8.5, va="center", ha="right", color=plots.INK, bbox=BLANK)
        start = begins[source]
        end = max(_across(ax, text)[0] - 0.07, start + 0.2)
        ax.plot([start, end], [LINE * order[source], y], color=plots.colour(source[0]), lw=1.1, alpha=0.85)


def binding(at: str, factor: str) -> str:
    """What stands on a line: `gamma → ∞  (× gamma)`, the parameters and, in brackets, the constant."""
    times = "" if factor in ("1", "") else f"  (× {factor})"
    return f"{at}{times}".replace("*", "·")


def _across(ax: Axes, text: Text) -> tuple[float, float]:
    """Where a text begins and ends, in inches from the left."""
    box = text.get_window_extent().transformed(ax.transData.inverted())
    return box.x0, box.x1


def digest(table: pd.DataFrame) -> pd.DataFrame:
    """The steps of the tree in words."""
    graph = tree(table)
    steps = {(x, y) for a, b in graph.edges for x, y in itertools.product(a, b)}
    kept = table[[(s, g) in steps for s, g in zip(table["special"], table["general"], strict=True)]]
    return kept[["special", "general", "statement"]].rename(columns=str.capitalize)


def see(table: pd.DataFrame) -> str:
    graph = tree(table)
    hub = max(graph, key=lambda n: len(nx.ancestors(graph, n)))
    below = sorted({name for n in nx.ancestors(graph, hub) for name in n}, key=qu.names().index)
    proved = int(table["proved"].sum())
    limits = int(table["limit"].sum())
    return (
        f"{len(table)} times one method holds another at some parameters, {limits} times as a limit; {proved} are "
        f"proved for every vocabulary size, the others measured. {' = '.join(hub)} is the hub: it holds "
        f"{', '.join(below)}. "
        "Read a loss's name with care: many are one of these at another setting."
    )


STUDY = Study(
    name="family",
    title="The family tree: special cases on the left, the methods that hold them on the right",
    question="Which method is a special case of which?",
    rows=rows,
    draw=draw,
    see=see,
    digest=digest,
)
