"""The figures of a report: means and 95 % bands over seeds, told apart without their colors."""

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import numpy as np
import pandas as pd

from ..measure.figures import new_axes, save_figure, turned
from ..measure.measures import Measure, drawn
from ..measure.runs import RUN
from .estimate import Estimate
from .matrix import ATTACK, DEFENSE, Matrix, Section, in_order

STYLES: Final = ("-", "--", "-.", ":")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
SHOWN: Final = ": mean over seeds, and its 95 % interval where there are several"
GRID: Final = ": mean over seeds; bold where the attack beats the defense"
BEST: Final = (
    "the plain average and the best defenses by their worst attack alone, as there are many"
)
MOST_PANELS: Final = 24
"""Attacks that are drawn; the tables have them all."""
MOST_LINES: Final = 8
"""Defenses that eyes can follow in one figure; of more, the best and a grid are drawn."""


def draw_section(section: Section, rows: pd.DataFrame, place: Path) -> list[tuple[Path, str]]:
    """Draw what a section has to be drawn.

    Parameters
    ----------
    section : Section
        Its runs.
    rows : DataFrame
        All rounds and epochs of the report.
    place : Path
        Files, without what their names end in.

    Returns
    -------
    list of (Path, str)
        PNG files, each with an SVG file beside it, and what they show.
    """
    found = []
    for matrix in section.matrices:
        path = place.with_name(f"{place.name}-{matrix.kind.name}")
        many = len(matrix.defenses) > MOST_LINES
        figure, said = (draw_grid(matrix), GRID) if many else (_points(matrix), SHOWN)
        found.append((_save(figure, path), f"{matrix.kind.title}{said}"))
    every, followed = section.table[[RUN, ATTACK, DEFENSE]], _followed(section)
    own = rows.merge(every[every[DEFENSE].isin(followed)], on=RUN)
    shown = SHOWN if len(followed) == every[DEFENSE].nunique() else f"{SHOWN}; {BEST}"
    for unit, part in own.groupby("unit"):
        for measure in drawn(str(unit)):
            if measure.name in part and part[measure.name].notna().any():
                path = place.with_name(f"{place.name}-{measure.name}".replace("_", "-"))
                figure = _curves(part, measure, str(unit))
                found.append((_save(figure, path), f"{measure.title.strip()} by {unit}{shown}"))
    return found


def _followed(section: Section) -> list[str]:
    """Return the defenses whose rounds are drawn."""
    defenses = in_order(section.table[DEFENSE])
    if len(defenses) <= MOST_LINES:
        return defenses
    first = section.matrices[0].by_worst() if section.matrices else defenses
    return in_order([*defenses[:1], *[d for d in first if d != defenses[0]][: MOST_LINES - 1]])


def draw_grid(matrix: Matrix) -> Any:
    """Draw a field for each cell, the darker the better the attack does, with its mean in it."""
    defenses = matrix.by_worst()
    figure, axes = new_axes(3.5 + 0.55 * len(matrix.attacks), 2.2 + 0.24 * len(defenses))
    cells = [[matrix.cells.get((d, a)) for a in matrix.attacks] for d in defenses]
    means = [[None if c is None else c.success.mean for c in row] for row in cells]
    points = 100 * np.array(means, dtype=float)
    axes.imshow(points.clip(0, 100), cmap="Greys", vmin=0, vmax=130, aspect="auto")
    for (y, x), value in np.ndenumerate(points):
        if not np.isnan(value):
            beaten = matrix.beaten(defenses[y], matrix.attacks[x])
            axes.text(
                x, y, f"{round(value)}", ha="center", va="center", fontsize=8,
                color="white" if value > 75 else "black", weight="bold" if beaten else None,
            )  # fmt: skip
    axes.set_xticks(range(len(matrix.attacks)), [_wrapped(a, 26) for a in matrix.attacks])
    axes.tick_params(axis="x", labelrotation=90, labelsize=8)
    axes.set_yticks(range(len(defenses)), [_wrapped(d, 40) for d in defenses], fontsize=8)
    axes.set(xlabel="attack", ylabel="defense, the best by\nits worst attack first")
    return figure


def _points(matrix: Matrix) -> Any:
    """Draw a point for each cell: the mean and its 95 % interval."""
    width = min(14.0, 3.5 + 0.35 * len(matrix.attacks) * (1 + 0.4 * len(matrix.defenses)))
    figure, axes = new_axes(max(6.4, width), 4.2)
    steps = np.linspace(-0.3, 0.3, len(matrix.defenses)) if len(matrix.defenses) > 1 else [0.0]
    for name, step, look in zip(matrix.defenses, steps, _looks(len(matrix.defenses)), strict=True):
        cells = [(x, matrix.cells.get((name, a))) for x, a in enumerate(matrix.attacks)]
        points = [(x + step, c.success) for x, c in cells if c and c.success.mean is not None]
        axes.errorbar(
            [x for x, _ in points],
            [100 * (e.mean or 0.0) for _, e in points],
            [100 * (e.half or 0.0) for _, e in points],
            capsize=2, color=look["color"], marker=look["marker"], linestyle="none", label=name,
        )  # fmt: skip
    axes.axhline(0, color="black", lw=0.8)
    axes.axhline(100 * matrix.kind.beaten, color="black", lw=0.8, ls=":")
    axes.set_xlim(-0.5, len(matrix.attacks) - 0.5)
    labels = [_wrapped(name, 22) for name in matrix.attacks]
    lines = [line for label in labels for line in label.split("\n")]
    degrees, more = turned(lines, (figure.get_figwidth() - 1) / len(labels))
    figure.set_figheight(figure.get_figheight() + more)
    axes.set_xticks(range(len(labels)), labels, rotation=degrees)
    axes.set(xlabel="attack", ylabel=f"{fill(matrix.kind.title, 40)} ({matrix.kind.unit})")
    axes.grid(axis="y", alpha=0.3)
    _legend(figure, axes)
    return figure


def _curves(rows: pd.DataFrame, measure: Measure, unit: str) -> Any:
    """Draw a measure over rounds: a panel an attack, a line a defense."""
    rows = rows[rows[measure.name].notna()]
    first, last = rows["number"].min(), rows["number"].max()
    attacks, defenses = in_order(rows[ATTACK])[:MOST_PANELS], in_order(rows[DEFENSE])
    columns = min(2, len(attacks))
    high = -(-len(attacks) // columns)
    figure, panels = new_axes(4.8 * columns + 0.4, 3.0 * high + 0.8, rows=high, columns=columns)
    panels = np.atleast_1d(panels).ravel()
    for axes, attack in zip(panels, attacks, strict=False):
        for name, look in zip(defenses, _looks(len(defenses)), strict=True):
            own = rows[(rows[ATTACK] == attack) & (rows[DEFENSE] == name)]
            if not len(own):
                continue
            numbers, estimates = over_rounds(own, measure.name)
            mean = np.array([np.nan if e.mean is None else 100 * e.mean for e in estimates])
            half = np.array([100 * (e.half or 0.0) for e in estimates])
            axes.plot(numbers, mean, markersize=4, markevery=max(1, len(mean) // 8), **look)
            axes.fill_between(numbers, mean - half, mean + half, color=look["color"], alpha=0.15)
            axes.lines[-1].set_label(name)
        axes.set(title=_wrapped(attack, 40), xlabel=unit, ylabel=f"{measure.title.strip()} (%)")
        axes.set(xlim=(first - 0.5, last + 0.5), ylim=(-3, 103))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    for axes in panels[len(attacks) :]:
        axes.set_axis_off()
    _legend(figure, *panels)
    return figure


def over_rounds(rows: pd.DataFrame, name: str) -> tuple[list[int], list[Estimate]]:
    """Return the rounds, and of each the estimate over seeds; success at chance is none."""
    values = rows[name].astype(float)
    if name in {x.name for x in drawn("round") if x.needs_skill} and "at_chance" in rows:
        values = values.where(~rows["at_chance"].fillna(value=False).astype(bool))
    groups = values.groupby(rows["number"])
    return [int(number) for number, _ in groups], [Estimate.of(some) for _, some in groups]


def _looks(count: int) -> Iterable[dict[str, Any]]:
    """Return looks of lines that differ in color, in dashes and in their markers."""
    from matplotlib import colormaps

    colors = cycle(map(colormaps["tab10"], range(10)))
    looks = zip(colors, cycle(STYLES), cycle(MARKERS), strict=False)
    return [{"color": c, "linestyle": s, "marker": m} for c, s, m in islice(looks, count)]


def _wrapped(name: str, width: int) -> str:
    """Break a name between its words, and where the name of what is inside begins."""
    return fill(name.replace("(", "( "), width).replace("( ", "(")


def _legend(figure: Any, *panels: Any) -> None:
    named = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if named:
        columns = 3 if len(panels) > 1 else 2
        labels = [_wrapped(label, 28) for label in named]
        figure.legend(named.values(), labels, loc="outside lower center", ncols=columns, fontsize=8)
        rows = -(-sum(label.count("\n") + 1 for label in labels) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows)


def _save(figure: Any, place: Path) -> Path:
    """Write a figure as PNG and as SVG; return the PNG."""
    for end in (".svg", ".png"):
        save_figure(figure, place.with_name(place.name + end))
    return place.with_name(place.name + ".png")


def draw_graphs(tables: Sequence[pd.DataFrame], out: Path) -> list[list[tuple[Path, str]]]:
    """Draw the agreement graphs of each section's runs, one of each attack and defense.

    A graph that cannot be read is left out: the run has drawn it for itself.
    """
    import networkx as nx

    from ..measure.graph import draw_agreement

    found: list[list[tuple[Path, str]]] = []
    for number, table in enumerate(tables, start=1):
        found.append([])
        for place, (pair, runs) in enumerate(table.groupby([DEFENSE, ATTACK], sort=False)):
            files = [f for run in runs[RUN] if (f := Path(run) / "agreement.graphml").exists()]
            try:
                graph = nx.read_graphml(files[0], node_type=int) if files else None
            except (OSError, ValueError, SyntaxError, KeyError, nx.NetworkXError):
                graph = None
            if graph is None or not draw_agreement(graph, out / f"{number}-agreement-{place}.svg"):
                continue
            path = out / f"{number}-agreement-{place}.png"
            draw_agreement(graph, path)
            found[-1].append((path, f"Agreement graph, last round: {pair[0]} against {pair[1]}"))
    return found
